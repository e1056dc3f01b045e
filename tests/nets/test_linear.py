import pytest
import torch
import torch.nn.functional as F

from muonlab.nets.linear import Linear


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", [(5, 3), (2, 5, 3), (2, 4, 5, 3)])
def test_rows_have_the_images_that_torch_gives_them(shape, bias):
    layer, x = Linear(3, 7, bias).double(), torch.randn(shape, dtype=torch.float64)
    torch.testing.assert_close(layer(x), F.linear(x, layer.weight, layer.bias), rtol=0, atol=1e-14)
    assert (layer.bias is not None) == bias


def test_it_has_no_bias_unless_asked():
    assert Linear(3, 7).bias is None


@pytest.mark.parametrize("bias", [False, True])
def test_a_stack_has_the_gradients_of_each_alone(bias):
    layers = [Linear(3, 7, bias).double() for _ in range(2)]
    x = torch.randn(2, 4, 5, 3, dtype=torch.float64)
    parameters, _ = torch.func.stack_module_state(layers)

    def answer(parameters, x):
        return torch.func.functional_call(layers[0], parameters, (x,)).square().sum()

    together = torch.autograd.grad(
        torch.func.vmap(answer)(parameters, x).sum(), [parameters[name] for name, _ in layers[0].named_parameters()]
    )
    for k, layer in enumerate(layers):
        for found, expected in zip(
            together, torch.autograd.grad(layer(x[k]).square().sum(), list(layer.parameters())), strict=True
        ):
            torch.testing.assert_close(found[k], expected, rtol=1e-12, atol=1e-12)

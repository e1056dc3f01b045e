import math

import pytest
import torch
import torch.nn.functional as F

from muonlab.nets.dropout import Dropout
from muonlab.nets.mlp import MLP, LinearClassifier


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(("activation", "function"), [("relu", torch.relu), ("gelu", F.gelu)])
def test_an_mlp_is_matrices_with_activations_between(activation, function):
    net, x = MLP(12, 4, depth=3, width=8, activation=activation).double(), draw(5, 3, 2, 2)
    weights = dict(net.named_parameters())
    y = x.reshape(5, 12)
    for index in range(3):
        y = function(y @ weights[f"blocks.{index}.linear.weight"].T + weights[f"blocks.{index}.linear.bias"])
    expected = y @ weights["head.weight"].T + weights["head.bias"]
    torch.testing.assert_close(net(x), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("depth", "width"), [(1, 8), (2, 256), (4, 16)])
def test_the_parameters_of_an_mlp_are_those_of_its_matrices_and_biases(depth, width):
    expected = (64 + 1) * width + (depth - 1) * (width + 1) * width + (width + 1) * 10
    assert sum(p.numel() for p in MLP(64, 10, depth=depth, width=width).parameters()) == expected


@pytest.mark.parametrize(("bias", "count"), [(True, 650), (False, 640)])
def test_a_linear_classifier_is_one_matrix_from_zero(bias, count):
    net, x = LinearClassifier(64, 10, bias=bias).double(), draw(5, 1, 8, 8)
    assert sum(p.numel() for p in net.parameters()) == count
    assert torch.equal(net(x), torch.zeros(5, 10, dtype=torch.float64))
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(draw(*p.shape, seed=1))
    expected = x.reshape(5, 64) @ net.linear.weight.T + (net.linear.bias if bias else 0)
    torch.testing.assert_close(net(x), expected, rtol=0, atol=1e-12)
    net.reset_parameters(torch.Generator().manual_seed(0))
    assert not any(p.any() for p in net.parameters())


def test_the_first_gradient_of_a_linear_classifier_is_that_of_uniform_odds():
    net, x, labels = LinearClassifier(6, 3, bias=False).double(), draw(4, 6), torch.tensor([0, 1, 2, 0])
    F.cross_entropy(net(x), labels).backward()
    expected = (1 / 3 - F.one_hot(labels, 3).double()).T @ x / 4
    torch.testing.assert_close(net.linear.weight.grad, expected, rtol=0, atol=1e-12)


def test_weights_have_the_stated_scales():
    net = MLP(400, 300, depth=2, width=200)
    with torch.no_grad():
        for p in net.parameters():
            p.fill_(9)
    net.reset_parameters(torch.Generator().manual_seed(0))
    for name, p in net.named_parameters():
        if p.ndim == 1:
            assert not p.any(), name
        elif name == "head.weight":
            bound = 1 / math.sqrt(200)
            assert 0.99 * bound < p.abs().max() <= bound
        else:
            deviation = math.sqrt(2 / p.shape[1])
            assert p.std().item() == pytest.approx(deviation, rel=0.02), name
            assert p.abs().max() > 3 * deviation, name


def test_dropout_has_another_noise_in_each_layer():
    net, x = MLP(12, 4, depth=3, dropout=0.5), draw(5, 12).float()
    assert [each.layer for each in net.modules() if isinstance(each, Dropout)] == [0, 1, 2]
    one, other = torch.tensor(1), torch.tensor(2)
    assert torch.equal(net(x, one), net(x, one))
    assert not torch.equal(net(x, one), net(x, other))
    assert torch.equal(net.eval()(x, one), net(x, other))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth": 0}, "depth=0 is no size"),
        ({"width": 1.5}, "width=1.5 is no size"),
        ({"activation": "swish"}, "unknown activation='swish'; expected 'relu' or 'gelu'"),
        ({"dropout": 1}, "dropout rate 1 is out of range"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        MLP(12, 4, **options)


def test_bad_sizes_of_a_linear_classifier_are_named():
    with pytest.raises(ValueError, match="classes=0 is no size"):
        LinearClassifier(12, 0)

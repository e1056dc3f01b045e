import pytest
import torch

from muonlab.rules import sgd

SETTINGS = {
    "plain": {"lr": 0.1},
    "decay": {"lr": 0.1, "weight_decay": 0.1},
    "momentum": {"lr": 0.03, "momentum": 0.9, "weight_decay": 0.01},
    "nesterov": {"lr": 0.03, "momentum": 0.9, "weight_decay": 0.01, "nesterov": True},
}


def draw(*shape, dtype):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=dtype)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-6), (torch.float64, 1e-12)])
@pytest.mark.parametrize("name", SETTINGS)
def test_equals_torch_over_fifty_steps(run, run_torch, name, dtype, tolerance):
    p, grads = draw(5, 3, dtype=dtype), draw(50, 5, 3, dtype=dtype)
    expected = run_torch(torch.optim.SGD, p, grads, **SETTINGS[name])
    actual, _ = run(sgd, p, grads, **SETTINGS[name])
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


def test_a_member_of_a_stack_is_the_run_alone(run):
    for dtype in [torch.float32, torch.float64]:
        for nesterov in [False, True]:
            for shape in [(4, 3), (7,)]:
                hypers = [{"lr": 0.1 * k, "momentum": 0.3 * k, "weight_decay": 0.01 * k} for k in range(4)]
                axes = (len(hypers),) + (1,) * len(shape)
                stacked = {k: torch.tensor([h[k] for h in hypers], dtype=torch.float64).view(axes) for k in hypers[0]}
                p, grads = draw(len(hypers), *shape, dtype=dtype), draw(20, len(hypers), *shape, dtype=dtype)
                together, _ = run(sgd, p, grads, nesterov=nesterov, **stacked)
                for k, hyper in enumerate(hypers):
                    alone, _ = run(sgd, p[k], grads[:, k], nesterov=nesterov, **hyper)
                    assert torch.equal(together[k], alone)

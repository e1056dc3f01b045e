import pytest
import torch

from muonlab.rules import adamw

SETTINGS = {
    "defaults": {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.01},
    "grokking": {"lr": 1e-2, "betas": (0.9, 0.98), "eps": 1e-8, "weight_decay": 1.0},
    "large eps": {"lr": 1e-2, "betas": (0.5, 0.9), "eps": 0.1, "weight_decay": 0.0},
    "no memory": {"lr": 1e-2, "betas": (0.0, 0.0), "eps": 1e-8, "weight_decay": 0.1},
}


def split_betas(setting):
    hyper = dict(setting)
    hyper["beta1"], hyper["beta2"] = hyper.pop("betas")
    return hyper


def draw(*shape, dtype):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=dtype)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-6), (torch.float64, 1e-12)])
@pytest.mark.parametrize("name", SETTINGS)
def test_equals_torch_over_fifty_steps(run, run_torch, name, dtype, tolerance):
    p, grads = draw(5, 3, dtype=dtype), draw(50, 5, 3, dtype=dtype)
    expected = run_torch(torch.optim.AdamW, p, grads, **SETTINGS[name])
    actual, _ = run(adamw, p, grads, **split_betas(SETTINGS[name]))
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


def test_first_step_has_the_length_of_the_learning_rate_whatever_the_gradient(run):
    grad = torch.tensor([1e-3, -1.0, 1e3])
    p, _ = run(adamw, torch.zeros(3), [grad], lr=0.1, weight_decay=0.0)
    torch.testing.assert_close(p, -0.1 * grad.sign(), rtol=1e-4, atol=0)


def test_decay_is_decoupled_from_the_gradient(run):
    p, _ = run(adamw, torch.ones(3), [torch.zeros(3)], lr=0.1, weight_decay=0.5)
    torch.testing.assert_close(p, torch.full((3,), 0.95))


def test_a_member_of_a_stack_is_the_run_alone(run):
    for dtype in [torch.float32, torch.float64]:
        for shape in [(4, 3), (7,)]:
            hypers = [split_betas(setting) for setting in SETTINGS.values()]
            axes = (len(hypers),) + (1,) * len(shape)
            stacked = {k: torch.tensor([h[k] for h in hypers], dtype=torch.float64).view(axes) for k in hypers[0]}
            p, grads = draw(len(hypers), *shape, dtype=dtype), draw(20, len(hypers), *shape, dtype=dtype)
            together, _ = run(adamw, p, grads, **stacked)
            for k, hyper in enumerate(hypers):
                alone, _ = run(adamw, p[k], grads[:, k], **hyper)
                assert torch.equal(together[k], alone)

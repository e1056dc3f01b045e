"""The passes around the iteration by kernels of somebody else: what they are given, and that the step is the same."""

import pytest
import torch

from matrices import draw
from muonlab.rules import muon, passes
from muonlab.rules.operands import Workspace


class InTorch:
    """What `muonlab.kernels.fused` computes, by torch."""

    def __init__(self):
        self.calls = []

    def before_(self, momenta, grads, X, *, momentum, nesterov, finite):
        self.calls.append("before")
        for b, g in zip(momenta, grads, strict=True):
            b.copy_(torch.where(finite, torch.lerp(b, g, 1 - momentum), b))
        b, g = torch.cat(momenta), torch.cat(grads)
        direction = torch.where(finite, torch.lerp(g, b, momentum) if nesterov else b, 0)
        X.copy_(direction)
        return direction.abs().flatten(1)

    def after_(self, ps, O, sizes, factor):
        self.calls.append("after")
        for p, o in zip(ps, O.split([len(p) for p in ps]), strict=True):
            p.mul_(sizes[0]).sub_(o * sizes[1] * factor)


def step(kernels, monkeypatch, *, dtype=torch.float32, scale=1.0, finite=True, **hyper):
    """Return parameters and momenta of two shapes after two steps that have a flag."""
    monkeypatch.setattr(passes, "KERNELS", kernels)
    shapes = [(2, 8, 12), (1, 12, 8), (1, 8, 12)]
    ps = [draw(*shape, seed=index, dtype=dtype) for index, shape in enumerate(shapes)]
    states = [{"momentum": torch.zeros_like(p)} for p in ps]
    for number in range(2):
        grads = [scale * draw(*p.shape, seed=10 * number + index + 5, dtype=dtype) for index, p in enumerate(ps)]
        flag = torch.tensor(finite or number == 0)
        if not flag:
            grads[0][1, 2, 3] = torch.nan
        muon.update_(grads, states, ps, Workspace(), **{"lr": 0.1, **hyper}, finite=flag)
    return [*ps, *(state["momentum"] for state in states)]


@pytest.mark.parametrize("method", ["auto", "quintic", "exact"])
@pytest.mark.parametrize("change", [{}, {"nesterov": False}, {"finite": False}, {"scale": 1e-12}, {"scale": 1e12}])
@pytest.mark.parametrize("lr", [0.1, torch.tensor(0.1)])
def test_a_step_with_kernels_is_one_without(monkeypatch, method, change, lr):
    kernels = InTorch()
    hyper = {"method": method, "lr": lr, "weight_decay": 0.5, "adjust_lr_fn": "match_rms_adamw", **change}
    for one, other in zip(step(kernels, monkeypatch, **hyper), step(None, monkeypatch, **hyper), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5 * float(other.abs().max()))
    assert kernels.calls.count("before") == kernels.calls.count("after") == 4  # two shapes, two steps


@pytest.mark.parametrize("hyper", [{"dtype": torch.float64}, {"cautious": True}, {"renormalize": "row"}])
def test_what_they_do_not_do_is_done_without_them(monkeypatch, hyper):
    kernels = InTorch()
    step(kernels, monkeypatch, method="auto", **hyper)
    assert kernels.calls == []

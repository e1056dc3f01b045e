"""A step that is captured once and repeated is the step: with a recorder of calls in the place of a CUDA graph."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from muonlab import Muon, MuonAdamW
from muonlab.optim.graphs import graphed
from optim.training import give, parameter

CAPTURABLE = {"capturable": True, "nonfinite": "skip"}


class Recorder(TorchDispatchMode):
    """Keeps every call, to make it again on the same memory, as a graph does."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, result))
        return result

    @torch.no_grad()
    def replay(self):
        for func, args, kwargs, before in self.calls:
            if func.is_view or func.namespace == "profiler":
                continue
            for old, new in zip(tree_flatten(before)[0], tree_flatten(func(*args, **kwargs))[0], strict=True):
                if isinstance(old, torch.Tensor) and old is not new and old.numel():
                    old.copy_(new)


def record(captured):
    """Return a function that captures without effect, and counts itself."""

    def capture(function):
        recorder = Recorder()
        tensors = captured["state"]()
        before = [tensor.clone() for tensor in tensors]
        with recorder:
            function()
        for tensor, old in zip(tensors, before, strict=True):
            tensor.detach().copy_(old)
        captured["number"] = captured.get("number", 0) + 1
        return recorder.replay

    return capture


def make():
    params = [parameter(6, 4), parameter(4, 6, seed=1), parameter(5, seed=2)]
    groups = [{"params": params[:2], "rule": "muon"}, {"params": params[2:], "rule": "adamw"}]
    return params, MuonAdamW(groups, lr=0.1, adamw_lr=0.01, **CAPTURABLE)


def tensors_of(params, optimizer):
    states = [value for p in params for value in optimizer.state[p].values() if isinstance(value, torch.Tensor)]
    counters = [group["num_skipped"] for group in optimizer.param_groups]
    return [*params, *states, *(each for each in counters if isinstance(each, torch.Tensor))]


@pytest.mark.parametrize("keeps_gradients", [True, False])
def test_steps_are_those_of_the_optimizer_with_a_schedule(keeps_gradients):
    ends, captured = [], {}
    for is_graphed in (False, True):
        params, optimizer = make()
        captured["state"] = lambda params=params, optimizer=optimizer: tensors_of(params, optimizer)
        step = graphed(optimizer, capture=record(captured)) if is_graphed else None
        scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.7)
        step = step or optimizer.step
        for number in range(1, 8):
            before = [p.grad for p in params]
            give(params, number)
            if keeps_gradients and number > 1:
                for p, kept in zip(params, before, strict=True):
                    p.grad = kept.copy_(p.grad)
            if number == 5:
                params[0].grad[0, 0] = torch.nan
            step()
            scheduler.step()
        assert optimizer.num_skipped == 1
        ends.append([p.detach() for p in params])
    torch.testing.assert_close(*ends, rtol=0, atol=1e-6)
    assert captured["number"] == 1


def test_another_argument_or_another_set_of_gradients_is_captured_anew():
    captured = {}
    params, optimizer = make()
    captured["state"] = lambda: tensors_of(params, optimizer)
    step = graphed(optimizer, capture=record(captured))
    for number in range(12):
        give(params, number)
        if number >= 4:
            optimizer.param_groups[0]["momentum"] = 0.5
        if number >= 8:
            params[1].grad = None
        before = params[1].detach().clone()
        step()
        assert torch.equal(before, params[1]) == (number >= 8)
    assert captured["number"] == 3


@pytest.mark.parametrize(
    ("options", "seen"),
    [({}, "capturable=False"), (CAPTURABLE, "parameters are on cpu; expected one CUDA device")],
)
def test_what_cannot_be_captured_is_said(options, seen):
    with pytest.raises(ValueError, match=seen):
        graphed(Muon([parameter(4, 4)], **options))

"""A step as a CUDA graph: launched as one, so that the host's time for each call is gone."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from muonlab.optim.shell import Shell

Capture = Callable[[Callable[[], Any]], Callable[[], None]]
WARM_UP = 2  # steps before a capture: the first makes the state, the second has all memory where it stays
LIVE = ("lr", "weight_decay")  # what may change from replay to replay
UNREAD = ("params", "initial_lr", "max_lr", "num_skipped")  # not in a step, or a counter of it


def graphed(optimizer: Shell, *, capture: Capture | None = None) -> Callable[[], None]:
    """Return a function that makes the optimizer's step, from its third call on by replaying a CUDA graph.

    It is `optimizer.step` otherwise: no step is made twice or for warming up. Learning rates and weight decays of the
    groups become tensors on the device, which schedulers and `fill_` change for the next replay. Where another argument
    changes, or other parameters have a gradient than before, a new graph is captured, two steps later. Gradients may be
    new tensors each time; those that `zero_grad(set_to_none=False)` keeps need no copy.

    Nothing of it was run on a GPU yet: its logic is tested with a recorder in the place of the graph.

    Args:
        optimizer: Muon or MuonAdamW with capturable=True in all groups, all parameters on one GPU.
        capture: runs a function once without effect and returns what repeats its calls; a CUDA graph by default.

    Raises:
        ValueError: a group without capturable=True, parameters elsewhere than on one GPU, or shared by ranks.

    Examples:
        >>> optimizer = MuonAdamW(model, nonfinite="skip", capturable=True)
        >>> step = graphed(optimizer)
        >>> loss.backward()
        >>> step()

    References:
        https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs
    """
    groups = optimizer.param_groups
    if not all(group["capturable"] for group in groups):
        raise ValueError(
            'graphed: a group has capturable=False; expected an optimizer made with capturable=True, nonfinite="skip"'
        )
    if optimizer._is_shared():
        raise ValueError(
            "graphed: parameters are sharded, or shared by a process_group, and ranks exchange them in a step; "
            "expected an optimizer of one GPU: call optimizer.step() there"
        )
    devices = {p.device for group in groups for p in group["params"]}
    if len(devices) != 1 or (capture is None and next(iter(devices)).type != "cuda"):
        names = ", ".join(sorted(map(str, devices)))
        raise ValueError(
            f"graphed: parameters are on {names}; expected one CUDA device: call optimizer.step() elsewhere"
        )
    _make_live(optimizer, devices.pop())
    return _Graphed(optimizer, capture or _cuda_graph)


def _make_live(optimizer: Shell, device: torch.device) -> None:
    """Turn what schedulers change into tensors that a graph reads."""
    for group in optimizer.param_groups:
        for name in LIVE:  # in float32, as torch's kernel of AdamW takes it
            group[name] = torch.as_tensor(group[name], dtype=torch.float32, device=device).clone()


class _Graphed:
    """The function that `graphed` returns."""

    def __init__(self, optimizer: Shell, capture: Capture):
        self._optimizer, self._capture = optimizer, capture
        self._key: Any = None
        self._num_steps = 0
        self._replay: Callable[[], None] | None = None
        self._grads: list[Tensor] = []

    def __call__(self) -> None:
        groups = self._optimizer.param_groups
        grads = [p.grad for group in groups for p in group["params"]]
        given = [{name: value for name, value in group.items() if name not in (*LIVE, *UNREAD)} for group in groups]
        key = [grad is None for grad in grads], given
        if key != self._key:
            self._key, self._num_steps, self._replay = key, 0, None
        here = [grad for grad in grads if grad is not None]
        self._num_steps += 1
        if self._num_steps <= WARM_UP or not here:
            self._optimizer.step()
            return
        if self._replay is None:
            self._grads = here
            self._replay = self._capture(self._optimizer.step)
        pairs = [(old, new) for old, new in zip(self._grads, here, strict=True) if old is not new]
        if pairs:
            torch._foreach_copy_(*map(list, zip(*pairs, strict=True)))
        self._replay()


def _cuda_graph(function: Callable[[], Any]) -> Callable[[], None]:
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        function()
    return graph.replay

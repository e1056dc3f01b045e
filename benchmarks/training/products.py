"""The matrix products of a step, recorded, and made again without anything in between: the floor of its time."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
WITH_OUT = {
    aten.mm.default: aten.mm.out,
    aten.bmm.default: aten.bmm.out,
    aten.addmm.default: aten.addmm.out,
    aten.baddbmm.default: aten.baddbmm.out,
}


class Recorder(TorchDispatchMode):
    """Keeps each product that torch is asked for: the operation and the layout of its operands.

    Operands of one layout share their memory, as far as one call allows, so that it is in the cache where that can be.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Callable[[], object]] = []
        self._memory: dict[object, Tensor] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        if func in WITH_OUT or func in WITH_OUT.values():
            self._keep(WITH_OUT.get(func, func), args, {**(kwargs or {}), "out": found})
        return found

    def _keep(self, func, args, keywords) -> None:
        own = [self._like(each, place) for place, each in enumerate(args)]
        own_keywords = {name: self._like(each, name) for name, each in keywords.items()}
        self.calls.append(lambda: func(*own, **own_keywords))

    def _like(self, value, place: object):
        """Return a tensor with the layout of another, of small numbers; all else as it is."""
        if not isinstance(value, Tensor):
            return value
        key = place, value.shape, value.stride(), value.dtype
        if key not in self._memory:
            self._memory[key] = torch.empty_strided(value.shape, value.stride(), dtype=value.dtype).fill_(0.01)
        return self._memory[key]

"""The matrix products of an optimizer's step alone, by the same calls of torch: what the rest of the step adds to."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

PRODUCTS = {"mm", "bmm", "addmm", "addmm_", "baddbmm", "baddbmm_"}


class _Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Callable, tuple, dict]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if func.overloadpacket.__name__ in PRODUCTS:
            self.calls.append((func, args, kwargs))
        return result


class ProductsAlone:
    """A step that is the optimizer's own once; from then on it is that step's products, on tensors laid out alike.

    Where products shared memory they do so here: what is in the cache is as in a step that does nothing else. What the
    step let them allocate they allocate.
    """

    def __init__(self, step: Callable[[], Any]):
        self._step = step
        self._calls: list[tuple[Callable, list, dict]] = []

    def __call__(self) -> None:
        for function, args, kwargs in self._calls:
            function(*args, **kwargs)
        if self._calls:
            return
        with _Recorder() as recorder:
            self._step()
        memory: dict[object, Tensor] = {}

        def alike(value: Any) -> Any:
            if not isinstance(value, Tensor):
                return value
            storage = value.untyped_storage()
            key = storage.data_ptr(), value.dtype
            if key not in memory:
                memory[key] = torch.randn(storage.nbytes() // value.element_size()).to(value.dtype).to(value.device)
            return memory[key].as_strided(value.shape, value.stride(), value.storage_offset())

        self._calls = [
            (function, [alike(each) for each in args], {name: alike(each) for name, each in kwargs.items()})
            for function, args, kwargs in recorder.calls
        ]

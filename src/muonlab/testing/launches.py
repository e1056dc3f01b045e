"""What a step asks a device to start: calls, the kernels under them, and matrix products, counted without a device."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# Calls that compute nothing: they allocate, or give another name to the same memory.
FREE = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "_unsafe_view", "set_", "resize_"}
PRODUCTS = {"mm", "bmm", "addmm", "addmm_", "baddbmm", "baddbmm_", "matmul", "addbmm"}
OVERWRITES = {"copy_", "_foreach_copy_", "fill_", "zero_"}  # in place, without reading what was there
# How torch cuts the lists of a foreach call into kernels: at most so many tensors, by the number of lists, so many
# blocks, and so many entries a block (aten/src/ATen/native/cuda/MultiTensorApply.cuh).
MOST_TENSORS = (110, 64, 48, 36, 30)
MOST_BLOCKS = 320
BLOCK = 65_536


@dataclass(frozen=True)
class Launches:
    """What one call of a function asked for."""

    calls: int  # dispatched operations that compute; a foreach call is one
    kernels: int  # with the kernels under foreach calls, as torch would cut them on a GPU
    products: int  # matrix products among the calls


@dataclass(frozen=True)
class Call:
    """A dispatched operation that computes."""

    name: str
    kernels: int
    flops: int  # of a matrix product; 0 else
    num_bytes: int  # of the tensors that it reads and writes, each once


def count_launches(function: Callable[[], Any]) -> Launches:
    """Return what a function asks a device to start; views and allocations are left out.

    On tensors of device "meta" nothing is computed, so that it takes no memory and no time. What a function does on
    another device may differ from what it does on a GPU.

    Args:
        function: is called once, such as `optimizer.step`. What is compiled is not seen.

    Examples:
        >>> p = torch.empty(4, 4, device="meta")
        >>> count_launches(lambda: p @ p + 1)
        Launches(calls=2, kernels=2, products=1)
    """
    calls = list_calls(function)
    return Launches(len(calls), sum(call.kernels for call in calls), sum(call.name in PRODUCTS for call in calls))


def list_calls(function: Callable[[], Any]) -> list[Call]:
    """Return the calls that `count_launches` counts, in order."""
    with _Counter() as counter:
        function()
    return counter.calls


class _Counter(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Call] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        name = func.overloadpacket.__name__
        if not func.is_view and func.namespace != "profiler" and name not in FREE:
            flops = 2 * result.numel() * args[-1].shape[-2] if name in PRODUCTS else 0
            self.calls.append(Call(name, _kernels(name, args), flops, _num_bytes(name, args, kwargs, result)))
        return result


def _num_bytes(name: str, args: Any, kwargs: Any, result: Any) -> int:
    read = [each for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)]
    known = {id(each) for each in read}
    written = [each for each in tree_leaves(result) if isinstance(each, Tensor) and id(each) not in known]
    if name.endswith("_"):
        own = args[0] if isinstance(args[0], list | tuple) else [args[0]]
        written += [] if name in OVERWRITES else own
    return sum(each.numel() * each.element_size() for each in read + written)


def _kernels(name: str, args: Sequence[Any]) -> int:
    """Return how many kernels a call is on a GPU."""
    lists = [each for each in args if isinstance(each, list | tuple) and each and isinstance(each[0], Tensor)]
    if not name.startswith(("_foreach_", "_fused_", "_amp_foreach_")) or not lists:
        return 1
    if name.startswith("_foreach_") and not _are_alike(lists, any_dtype=name == "_foreach_copy_"):
        return len(lists[0])  # one after the other
    depth = len([each for each in lists if each[0].ndim or name.startswith("_foreach_")])
    depth += 0 if name.endswith("_") or name == "_foreach_norm" else 1  # what is returned is a list as well
    most = MOST_TENSORS[min(depth, len(MOST_TENSORS)) - 1]
    kernels = tensors = blocks = 0
    for tensor in lists[0]:
        left = -(-tensor.numel() // BLOCK)
        tensors += 1
        while left:
            taken = min(left, MOST_BLOCKS - blocks)
            left, blocks = left - taken, blocks + taken
            if blocks == MOST_BLOCKS:
                kernels, blocks, tensors = kernels + 1, 0, 1 if left else 0
        if tensors == most:
            kernels, blocks, tensors = kernels + 1, 0, 0
    kernels += blocks > 0
    return kernels + (name == "_foreach_norm")  # whose partial sums are added up by a second one


def _are_alike(lists: Sequence[Sequence[Tensor]], any_dtype: bool) -> bool:
    """Return whether a foreach call takes its fast way: no gaps, and the lists equal in shape, order and dtype."""
    dtypes = {tensor.dtype for each in lists for tensor in each}
    dense = all(torch.empty_like(tensor, device="meta").stride() == tensor.stride() for tensor in lists[0])
    rows = zip(*lists, strict=True)
    return (
        dense
        and (any_dtype or len(dtypes) == 1)
        and all(len({(tensor.shape, tensor.stride()) for tensor in row}) == 1 for row in rows)
    )

"""Matrices whose smaller sides are equal, whichever parameters they are of, orthogonalized together."""

from collections import defaultdict
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from muonlab.optim.layout import Layout
from muonlab.rules import polar

# Stacks, (k, rows, columns) each, to their polar factors.
Polar = Callable[[Sequence[Tensor]], list[Tensor]]
# On a CPU, products of larger sides than this are no faster for being stacked.
SIDE = 256


def batches(layouts: Sequence[Layout], like: Sequence[Tensor]) -> list[list[int]]:
    """Return the positions of the parameters that are worked on at a time.

    Args:
        layouts: one for each parameter.
        like: a tensor for each of them, of the dtype and on the device that will be worked on.
    """
    together: dict[object, list[int]] = defaultdict(list)
    for index, (each, tensor) in enumerate(zip(layouts, like, strict=True)):
        if each.count:
            together[_key(each, tensor), tensor.dtype, tensor.device].append(index)
    found: list[list[int]] = []
    for indices in together.values():
        room = 0
        for index in indices:
            if like[index].numel() > room:
                found.append([])
                room = polar.chunk(1, 1, like[index].element_size(), like[index].device.type)
            found[-1].append(index)
            room -= like[index].numel()
    return found


def orthogonalized(tensors: Sequence[Tensor], layouts: Sequence[Layout], polar_of: Polar) -> list[Tensor]:
    """Return what `polar_of` makes of the matrices of each tensor, in the tensors' shapes.

    Args:
        tensors: those of one batch; their memory may be worked in.
        layouts: one for each.
        polar_of: applied to stacks that it may work in. Its results may be in memory that its next call works in.
    """
    pieces = [each.stacks(tensor) for tensor, each in zip(tensors, layouts, strict=True)]
    done: list[list[Tensor]] = [[] for _ in tensors]
    for column in zip(*pieces, strict=True):
        alike: dict[torch.Size, list[int]] = defaultdict(list)
        for index, stack in enumerate(column):
            alike[stack.shape[1:]].append(index)
        stacks = [torch.cat([column[i] for i in each]) if len(each) > 1 else column[each[0]] for each in alike.values()]
        results = _in_parts(stacks, polar_of, is_last=len(pieces[0]) == 1)
        for indices, result in zip(alike.values(), results, strict=True):
            for index, part in zip(indices, result.split([len(column[index]) for index in indices]), strict=True):
                done[index].append(part)
    return [each.join(stacks, t.shape) for each, stacks, t in zip(layouts, done, tensors, strict=True)]


def _in_parts(stacks: list[Tensor], polar_of: Polar, is_last: bool) -> list[Tensor]:
    """Return the polar factors of stacks, of a single stack so many matrices at a time as fit a chunk."""
    first = stacks[0]
    size = polar.chunk(first.shape[1], first.shape[2], first.element_size(), first.device.type)
    if len(stacks) == 1 and len(first) > size:
        for part in first.split(size):
            part.copy_(polar_of([part])[0])
        return stacks
    results = polar_of(stacks)
    return results if is_last else [stack.copy_(result) for stack, result in zip(stacks, results, strict=True)]


def _key(layout: Layout, tensor: Tensor) -> object:
    shapes = layout.shapes
    if len(shapes) == 1 and (tensor.device.type != "cpu" or min(shapes[0][1:]) <= SIDE):
        return min(shapes[0][1:])
    return tuple(shape[1:] for shape in shapes)

"""Matrices of equal shape, whichever parameters they are of, orthogonalized as one stack."""

from collections import defaultdict
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from muonlab.optim.layout import Layout
from muonlab.rules import polar

Polar = Callable[[Tensor], Tensor]  # a stack, (k, rows, columns), to its polar factors, of the same shape and dtype


def batches(layouts: Sequence[Layout], like: Sequence[Tensor]) -> list[list[int]]:
    """Return the positions of the parameters that are worked on at a time: those of one batch are stacked.

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
            if layouts[index].count > room:
                found.append([])
                room = _per_chunk(layouts[index], like[index])
            found[-1].append(index)
            room -= layouts[index].count
    return found


def orthogonalized(tensors: Sequence[Tensor], layouts: Sequence[Layout], polar_of: Polar) -> list[Tensor]:
    """Return what `polar_of` makes of the matrices of each tensor, in the tensors' shapes.

    Args:
        tensors: those of one batch; their memory may be worked in.
        layouts: one for each.
        polar_of: applied to stacks that it may work in.
    """
    pieces = [each.stacks(tensor) for tensor, each in zip(tensors, layouts, strict=True)]
    done: list[list[Tensor]] = [[] for _ in tensors]
    for column in zip(*pieces, strict=True):
        is_turned = [stack.shape[1:] != column[0].shape[1:] for stack in column]
        stacks = [stack.mT if turned else stack for stack, turned in zip(column, is_turned, strict=True)]
        stack = torch.cat(stacks) if len(stacks) > 1 else stacks[0]
        size = polar.chunk(stack.shape[1], stack.shape[2], stack.element_size(), stack.device.type)
        chunks = stack.split(size)
        is_alone = len(chunks) == len(pieces[0]) == 1
        # Where there is another to come, it will work in the memory that this one's result may be in.
        parts = [polar_of(chunk) if is_alone else chunk.copy_(polar_of(chunk)) for chunk in chunks]
        whole = torch.cat(parts) if len(parts) > 1 else parts[0]
        for index, part in enumerate(whole.split([len(each) for each in stacks])):
            done[index].append(part.mT if is_turned[index] else part)
    return [each.join(stacks, t.shape) for each, stacks, t in zip(layouts, done, tensors, strict=True)]


def _key(layout: Layout, tensor: Tensor) -> object:
    shapes = layout.shapes
    if len(shapes) == 1 and _per_chunk(layout, tensor) > 1:  # turning a matrix that fills a chunk gains nothing
        return tuple(sorted(shapes[0][1:]))
    return tuple(shape[1:] for shape in shapes)


def _per_chunk(layout: Layout, tensor: Tensor) -> int:
    _, rows, columns = layout.shapes[0]
    return polar.chunk(rows, columns, tensor.element_size(), tensor.device.type)

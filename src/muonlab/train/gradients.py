"""The gradients of many members: as stacks of a height that suits their work, or by a compiled program."""

import math
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import vmap
from torch.utils.flop_counter import FlopCounterMode

from muonlab.rules.products import fast_products
from muonlab.train.program import compiled

Parameters = dict[str, Tensor]

# FLOPs of a pass over a stack that is tall enough for a CPU: less leaves much to Python, more outgrows the cache
# (docs/design/the-engine.md). They decide, not a clock (docs/design/same-bytes.md).
STACK_FLOPS = 4e9


class Gradients:
    """The gradient of every member's loss.

    Attributes:
        height: members in one forward and backward pass, which decides the speed: activations of tall stacks outgrow
            the cache, and low ones leave more to Python. It changes results by rounding. Halved where the memory of a
            GPU is short.
        is_compiled: whether a program does it, for one member at a time.
        seconds: what compiling has taken.

    Args:
        loss: of one member: parameters, *batch -> a number; torch.func.vmap must be able to stack it.
        height: see above.
    """

    def __init__(self, loss: Callable[..., Tensor], height: int):
        self._loss, self._losses = loss, vmap(loss)
        self._of_stack: Callable[..., Parameters] = self._eager
        self.height, self.is_compiled, self.seconds = height, False, 0.0

    @fast_products()
    def __call__(self, parameters: Parameters, *batch: Tensor) -> Parameters:
        """Return the gradients of all members, name -> (S, ...), for what the loss takes, (S, ...) each."""
        num_members = len(batch[0])
        slices = [slice(start, start + self.height) for start in range(0, num_members, self.height)]
        try:
            parts = [
                self._of_stack({name: p[at] for name, p in parameters.items()}, *(each[at] for each in batch))
                for at in slices
            ]
        except torch.OutOfMemoryError:
            if self.height == 1:
                raise
            self.height = (min(self.height, num_members) + 1) // 2
            return self(parameters, *batch)
        return parts[0] if len(parts) == 1 else {name: torch.cat([part[name] for part in parts]) for name in parameters}

    def choose_height(self, parameters: Parameters, *batch: Tensor) -> None:
        """Take the height that suits the work of a member, all on a GPU; a compiled program keeps its height of one."""
        if self.is_compiled:
            return
        num_members = len(batch[0])
        stacks = 1
        if batch[0].device.type == "cpu":
            tallest = math.ceil(STACK_FLOPS / max(1, self.flops(parameters, *batch)))
            stacks = math.ceil(num_members / tallest)
        self.height = math.ceil(num_members / stacks)

    def flops(self, parameters: Parameters, *batch: Tensor) -> float:
        """Return the FLOPs of the gradient of the first member, matrix products and convolutions alone."""
        with FlopCounterMode(display=False) as counter:
            self._eager({name: p[:1] for name, p in parameters.items()}, *(each[:1] for each in batch))
        return counter.get_total_flops()

    def compile(self, parameters: Parameters, *batch: Tensor) -> bool:
        """Compile the gradient of one member, with which all go on, one after the other; return whether that was done.

        On a CPU that is faster than any stack. The results are those of the stacks to rounding, and the same whatever
        the number of members. Calls of other shapes or dtypes, such as a smaller last batch, are computed without it.
        """
        start, names = time.monotonic(), list(parameters)

        def gradient(*tensors: Tensor) -> list[Tensor]:
            return _gradient(self._loss, dict(zip(names, tensors, strict=False)), *tensors[len(names) :])

        example = [each[0] for each in (*parameters.values(), *batch)]
        program, known = compiled(gradient, example), [_kind(tensor) for tensor in example]
        self.seconds += time.monotonic() - start
        if program is None:
            return False

        def of_one(parameters: Parameters, *batch: Tensor) -> Parameters:
            tensors = [each[0] for each in (*parameters.values(), *batch)]
            if [_kind(tensor) for tensor in tensors] != known:  # a program does not check what it is given
                return self._eager(parameters, *batch)
            found = program(*tensors)
            return {name: each[None] for name, each in zip(names, found, strict=True)}

        self._of_stack, self.height, self.is_compiled = of_one, 1, True
        return True

    def _eager(self, parameters: Parameters, *batch: Tensor) -> Parameters:
        # The gradient of a sum, outside of vmap: torch.func.grad would build a graph that can be differentiated again,
        # and keep what that needs, for 1.2 to 1.5 times the time.
        found = _gradient(lambda *arguments: self._losses(*arguments).sum(), parameters, *batch)
        return dict(zip(parameters, found, strict=True))


def _kind(tensor: Tensor) -> tuple[object, ...]:
    return tensor.shape, tensor.stride(), tensor.dtype, tensor.device


def _gradient(loss: Callable[..., Tensor], parameters: Parameters, *batch: Tensor) -> list[Tensor]:
    """Return the gradient of a loss; zeros for a parameter that has no part in it."""
    leaves = {name: p.detach().requires_grad_() for name, p in parameters.items()}
    with torch.enable_grad():
        return list(torch.autograd.grad(loss(leaves, *batch), list(leaves.values()), materialize_grads=True))

"""What all members are on rows that they share: in stacks, or by a compiled program of one member."""

import math
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import vmap
from torch.utils.flop_counter import FlopCounterMode

from muonlab.rules.operands import on_host
from muonlab.train.program import Function, compiled

Parameters = dict[str, Tensor]
Judge = Callable[[Parameters, Tensor, Tensor], tuple[Tensor, ...]]  # of one member: inputs, labels -> (rows, ...) each

ROWS = 256  # in one forward pass of a stack: small enough for the cache
DEVICE_ROWS = 2**16  # of all members together, off the CPU: few passes of bounded memory

# FLOPs of a forward pass of one member by a program: of a Transformer of width 128 some 1000 rows, which take .7 of the
# time of passes of 256 rows, as what follows from a token alone is computed once a pass.
PROGRAM_FLOPS = 5e8


class Evaluations:
    """A function of parameters, inputs and labels for every member, row by row, which no row of another changes.

    Attributes:
        compiled_from: FLOPs of an evaluation of one member from which on it is compiled.
        seconds: what compiling has taken.

    Args:
        judge: the function, of one member; torch.func.vmap must be able to stack it.
    """

    def __init__(self, judge: Judge):
        self._judge, self._judges = judge, vmap(judge, in_dims=(0, None, 0))
        self.compiled_from, self.seconds = math.inf, 0.0
        self._programs: dict[object, tuple[int, Function | None]] = {}  # by kind of rows: how many at once, and by what

    def __call__(self, parameters: Parameters, inputs: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
        """Return what the function returns on inputs (rows, ...) and labels (S, rows), (S, rows, ...) each."""
        rows, program = self._program(parameters, inputs, labels)
        if program is not None:
            return self._by_program(program, rows, parameters, inputs, labels)
        num = ROWS
        if not on_host(inputs.device):
            num = max(num, DEVICE_ROWS // len(labels))
        both = zip(inputs.split(num), labels.split(num, dim=1), strict=True)
        found = [self._judges(parameters, *part) for part in both]
        return tuple(torch.cat(parts, dim=1) for parts in zip(*found, strict=True))

    def _by_program(
        self, program: Function, rows: int, parameters: Parameters, inputs: Tensor, labels: Tensor
    ) -> tuple[Tensor, ...]:
        """Do it for one member after the other, as many rows at once as the program takes; the last ones twice."""
        num_rows = len(inputs)
        starts = [min(start, num_rows - rows) for start in range(0, num_rows, rows)]
        new = [0, *(start + rows for start in starts[:-1])]  # the first row of each pass that none before it had
        parts = [(inputs[at : at + rows].contiguous(), at, first - at) for at, first in zip(starts, new, strict=True)]
        found = []
        for member, own in enumerate(labels):
            weights = [p[member] for p in parameters.values()]
            passes = [
                [each[skip:] for each in program(*weights, part, own[at : at + rows].contiguous())]
                for part, at, skip in parts
            ]
            found.append([torch.cat(each) for each in zip(*passes, strict=True)])
        return tuple(torch.stack(each) for each in zip(*found, strict=True))

    def _program(self, parameters: Parameters, inputs: Tensor, labels: Tensor) -> tuple[int, Function | None]:
        """Return the program for rows of this kind and how many it takes; None where they are too little work."""
        if self.compiled_from == math.inf or len(inputs) == 0:
            return 0, None
        kind = inputs.shape, inputs.dtype, inputs.device, labels.shape[1:], labels.dtype
        if kind not in self._programs:
            flops = self.flops(parameters, inputs, labels)
            is_enough = flops >= self.compiled_from
            self._programs[kind] = self._made(flops, parameters, inputs, labels) if is_enough else (0, None)
        return self._programs[kind]

    def _made(
        self, flops: float, parameters: Parameters, inputs: Tensor, labels: Tensor
    ) -> tuple[int, Function | None]:
        start, names = time.monotonic(), list(parameters)

        def judge(*tensors: Tensor) -> tuple[Tensor, ...]:
            return self._judge(dict(zip(names, tensors, strict=False)), tensors[-2], tensors[-1])

        rows = math.ceil(len(inputs) / math.ceil(max(1.0, flops / PROGRAM_FLOPS)))
        example = [*(p[0] for p in parameters.values()), inputs[:rows].contiguous(), labels[0, :rows].contiguous()]
        program = compiled(judge, example)
        self.seconds += time.monotonic() - start
        return rows, program

    def flops(self, parameters: Parameters, inputs: Tensor, labels: Tensor) -> float:
        """Return the FLOPs of an evaluation of one member, matrix products and convolutions alone."""
        few = min(ROWS, len(inputs))
        with FlopCounterMode(display=False) as counter:
            self._judges({name: p[:1] for name, p in parameters.items()}, inputs[:few], labels[:1, :few])
        return counter.get_total_flops() * len(inputs) / few

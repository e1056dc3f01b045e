"""What all members are on rows that they share: in stacks, or by a compiled program of one member."""

import math
import time
from collections.abc import Callable, Hashable, Sequence

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


class Programs:
    """Compiled functions of the tensors of one member, by what they are called with.

    Attributes:
        compiled_from: FLOPs of a call from which on a function is compiled.
        seconds: what compiling has taken.
    """

    def __init__(self) -> None:
        self.compiled_from, self.seconds = math.inf, 0.0
        self._found: dict[Hashable, Function | None] = {}

    def find(
        self, kind: Hashable, flops: Callable[[], float], function: Function, example: Callable[[], Sequence[Tensor]]
    ) -> Function | None:
        """Return the program for calls of this kind, None where they are too little work; all else is asked once."""
        if self.compiled_from == math.inf:
            return None
        if kind not in self._found:
            start, program = time.monotonic(), None
            if flops() >= self.compiled_from:
                program = compiled(function, example())
            self._found[kind] = program
            self.seconds += time.monotonic() - start
        return self._found[kind]


def kind_of(*tensors: Tensor) -> Hashable:
    """Return what a program must know of its arguments."""
    return tuple((each.shape, each.dtype, each.device) for each in tensors)


class Evaluations:
    """A function of parameters, inputs and labels for every member, row by row, which no row of another changes.

    Args:
        judge: the function, of one member; torch.func.vmap must be able to stack it.
        programs: where programs of it are.
    """

    def __init__(self, judge: Judge, programs: Programs):
        self._judge, self._judges, self._programs = judge, vmap(judge, in_dims=(0, None, 0)), programs
        self._flops_of: dict[Hashable, float] = {}

    def __call__(self, parameters: Parameters, inputs: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
        """Return what the function returns on inputs (rows, ...) and labels (S, rows), (S, rows, ...) each."""
        if len(inputs) and self._programs.compiled_from < math.inf:
            rows = math.ceil(len(inputs) / math.ceil(max(1.0, self._flops(parameters, inputs, labels) / PROGRAM_FLOPS)))
            if (program := self._program(rows, parameters, inputs, labels)) is not None:
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

    def _program(self, rows: int, parameters: Parameters, inputs: Tensor, labels: Tensor) -> Function | None:
        """Return the program for so many rows of an evaluation of this kind; None where that is too little work."""
        names = list(parameters)

        def judge(*tensors: Tensor) -> tuple[Tensor, ...]:
            return self._judge(dict(zip(names, tensors, strict=False)), tensors[-2], tensors[-1])

        def example() -> list[Tensor]:
            own = inputs[:rows].contiguous(), labels[0, :rows].contiguous()
            return [*(p[0] for p in parameters.values()), *own]

        flops = lambda: self._flops(parameters, inputs, labels)  # noqa: E731
        return self._programs.find(kind_of(inputs, labels[0]), flops, judge, example)

    def _flops(self, parameters: Parameters, inputs: Tensor, labels: Tensor) -> float:
        """Return the FLOPs of an evaluation of one member, matrix products and convolutions alone."""
        kind, few = kind_of(inputs, labels[0]), min(ROWS, len(inputs))
        if kind not in self._flops_of:
            with FlopCounterMode(display=False) as counter:
                self._judges({name: p[:1] for name, p in parameters.items()}, inputs[:few], labels[:1, :few])
            self._flops_of[kind] = counter.get_total_flops() * len(inputs) / few
        return self._flops_of[kind]

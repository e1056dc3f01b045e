"""A parameter as stacks of matrices: what is orthogonalized together and what alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Literal

from torch import Tensor

Kind = Literal["matrix", "convolution", "experts"]
Split = int | Sequence[int] | None


@dataclass(frozen=True)
class Layout:
    """How the entries of a parameter are seen as matrices.

    Attributes:
        count: matrices beside each other: experts, or 1.
        rows: of one matrix, all its blocks together.
        columns: of one matrix; in * kh * kw of a convolution.
        blocks: rows of each part that is orthogonalized alone; they sum to rows.
    """

    count: int
    rows: int
    columns: int
    blocks: tuple[int, ...]

    @property
    def shapes(self) -> tuple[tuple[int, int, int], ...]:
        """The stacks, (count, rows, columns) each: one if the blocks are equal, else one a block."""
        if len(set(self.blocks)) == 1:
            return ((self.count * len(self.blocks), self.blocks[0], self.columns),)
        return tuple((self.count, rows, self.columns) for rows in self.blocks)

    def stacks(self, tensor: Tensor) -> list[Tensor]:
        """Return the parameter, or a tensor (count, rows, ...), as stacks of matrices: views where memory allows."""
        matrices = tensor.reshape(self.count, self.rows, -1)
        if len(set(self.blocks)) == 1:
            return [matrices.reshape(self.count * len(self.blocks), self.blocks[0], matrices.shape[-1])]
        return list(matrices.split(self.blocks, dim=1))


def layout(shape: Sequence[int], kind: Kind | None = None, split: Split = None) -> Layout:
    """Return the layout of a parameter.

    Args:
        shape: at least two axes.
        kind: "matrix"; "convolution", (out, in, *kernel) as the matrix (out, in * kernel); "experts", (experts, rows,
            columns). By default by the number of axes: two, a matrix; three, experts; more, a convolution.
        split: number of equal blocks of rows that are orthogonalized apart, as query, key and value of one fused matrix
            are, or the rows of each block.

    Raises:
        ValueError: the shape has no matrices of that kind, or the split does not divide its rows.
    """
    if split is not None and (not isinstance(split, int) or isinstance(split, bool)):
        if not isinstance(split, Sequence) or isinstance(split, str):
            raise ValueError(f"split={split!r}: expected a number of equal blocks of rows, or the rows of each block")
        split = tuple(split)
    shape = tuple(shape)
    kind = kind or ("matrix" if len(shape) == 2 else "experts" if len(shape) == 3 else "convolution")
    if len(shape) < 2 or (kind == "matrix" and len(shape) != 2) or (kind == "experts" and len(shape) < 3):
        raise ValueError(
            f"Muon takes matrices, and a parameter of shape {shape} is none (kind={kind!r}); "
            "give it to AdamW: MuonAdamW(model) does so by itself"
        )
    if 0 in shape:
        return Layout(0, 0, 0, (0,))
    if kind == "convolution":
        count, rows, columns = 1, shape[0], prod(shape[1:])
    else:
        count, rows, columns = prod(shape[:-2]), *shape[-2:]
    return Layout(count, rows, columns, _blocks(rows, split, shape))


def _blocks(rows: int, split: int | tuple[int, ...] | None, shape: tuple[int, ...]) -> tuple[int, ...]:
    if split is None:
        return (rows,)
    if isinstance(split, int):
        if split < 1 or rows % split:
            raise ValueError(f"split={split} does not divide the {rows} rows of a parameter of shape {shape}")
        return (rows // split,) * split
    if not all(isinstance(block, int) and block > 0 for block in split) or sum(split) != rows:
        raise ValueError(
            f"split={split} does not sum to the {rows} rows of a parameter of shape {shape}; expected the rows of each "
            "block, all of them positive"
        )
    return split

"""A parameter as stacks of matrices: what is orthogonalized together and what apart."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from operator import index
from typing import Any

import torch
from torch import Tensor

from muonlab.optim.arguments import check_adjustment
from muonlab.optim.patterns import hint, matches

# "matrix", "convolution", "experts", or a letter for each axis: r for rows (outputs), c for columns (inputs), s for a
# stack of matrices. A convolution is "rccc"; transformers' Conv1D, which is stored as (in, out), is "cr".
Kind = str
Split = int | Sequence[Any] | None
Splits = Mapping[str, Split | str] | Callable[[str, Tensor], Split | str]


@dataclass(frozen=True)
class Layout:
    """How the entries of a parameter are seen as matrices."""

    count: int  # matrices side by side: experts, or 1
    rows: int  # of one matrix, all its blocks together
    columns: int  # of one matrix; in * kh * kw of a convolution
    blocks: tuple[int, ...]  # rows of each part that is orthogonalized apart; they sum to rows
    num_batch_axes: int = 0  # leading axes that count matrices
    axes: str = "rc"  # a letter for each axis of the parameter, as in Kind
    times: int = 1  # each block has its rows in so many places: query, key and value of each head in turn

    @property
    def shapes(self) -> tuple[tuple[int, int, int], ...]:
        """The stacks, (count, rows, columns) each."""
        period, repeats = self._period
        return tuple((self.count * repeats, rows, self.columns) for rows in period)

    def stacks(self, tensor: Tensor) -> list[Tensor]:
        """Return the parameter as stacks of matrices: views of it if `is_view`, else copies."""
        return self.parts(self.matrices(tensor))

    def is_view(self, tensor: Tensor) -> bool:
        """Return whether what is done to `stacks` of this tensor is done to the tensor."""
        is_plain = self._is_in_order or self._is_transposed
        return self.times == 1 and is_plain and (tensor.ndim == 2 or tensor.is_contiguous())

    def matrices(self, tensor: Tensor) -> Tensor:
        """Return the parameter as (count, rows, columns)."""
        if self._is_in_order:
            return tensor.reshape(self.count, self.rows, self.columns)
        return tensor.permute(self._order).reshape(self.count, self.rows, self.columns)

    def parts(self, matrices: Tensor) -> list[Tensor]:
        """Return the blocks of matrices (count, rows, ...), stacked by size: views unless they are `times` apart."""
        if self.times > 1:
            sizes = [rows // self.times for rows in self.blocks]
            parts = matrices.reshape(self.count, self.times, sum(sizes), -1).split(sizes, dim=2)
            return [part.reshape(self.count, rows, -1) for part, rows in zip(parts, self.blocks, strict=True)]
        period, repeats = self._period
        if repeats > 1:
            matrices = matrices.reshape(self.count * repeats, sum(period), matrices.shape[-1])
        return [matrices] if len(period) == 1 else list(matrices.split(period, dim=1))

    def put_back(self, stacks: Sequence[Tensor], tensor: Tensor) -> None:
        """Write stacks that are copies to the tensor that they are of."""
        if self.times > 1:
            split = [stack.reshape(self.count, self.times, stack.shape[1] // self.times, -1) for stack in stacks]
            matrices = torch.cat(split, dim=2)
        else:
            matrices = stacks[0] if len(stacks) == 1 else torch.cat(list(stacks), dim=1)
        order = self._order
        there = matrices.reshape([tensor.shape[axis] for axis in order])
        tensor.copy_(there.permute([order.index(axis) for axis in range(tensor.ndim)]))

    @property
    def _is_in_order(self) -> bool:
        """Whether rows come before columns: the axes are s..., r..., c..."""
        return "cr" not in self.axes and "cs" not in self.axes and "rs" not in self.axes

    @property
    def _is_transposed(self) -> bool:
        return self.axes.lstrip("s") == "cr"

    @property
    def _order(self) -> list[int]:
        """The axes of the parameter, those of stacks first, then rows, then columns."""
        return [axis for letter in "src" for axis, each in enumerate(self.axes) if each == letter]

    @property
    def _period(self) -> tuple[tuple[int, ...], int]:
        """The blocks that come again and again, and how often: (8, 8, 8) is (8,) three times."""
        blocks, number = self.blocks, len(self.blocks)
        if number == 1 or self.times > 1 or (self.count > 1 and self._is_transposed):  # no view could join these
            return blocks, 1
        if len(set(blocks)) == 1:
            return blocks[:1], number
        for length in range(2, number // 2 + 1):
            if number % length == 0 and blocks == blocks[:length] * (number // length):
                return blocks[:length], number // length
        return blocks, 1


def layout(shape: Sequence[int], kind: Kind | None = None, split: Split = None) -> Layout:
    """Return the layout of a parameter.

    Args:
        shape: at least two axes.
        kind: "matrix"; "convolution", (out, in, *kernel) as the matrix (out, in * kernel); "experts", (..., rows,
            columns); or a letter for each axis, "r", "c" or "s" (`Kind`). By default by the number of axes: two, a
            matrix; three, experts; more, a convolution.
        split: what is orthogonalized apart: a number of equal blocks of rows, as query, key and value of one fused
            matrix are; the rows of each block; or (times, rows of each part) where the parts alternate, so many times,
            and the rows of one part are one matrix: (heads, (8, 8, 8)) where each head has its query, key and value.

    Raises:
        ValueError: the shape has no matrices of that kind, or the split does not divide its rows.
    """
    shape = tuple(shape)
    axes = _axes(shape, kind)
    split = plain(split)
    if 0 in shape:
        return Layout(0, 0, 0, (0,))
    count, rows, columns = [prod([n for n, each in zip(shape, axes, strict=True) if each == which]) for which in "src"]
    times = split[0] if isinstance(split, tuple) and split and isinstance(split[-1], tuple) else 1
    num_batch_axes = len(axes) - len(axes.lstrip("s"))
    return Layout(count, rows, columns, _blocks(rows, split, shape), num_batch_axes, axes, times)


def _axes(shape: tuple[int, ...], kind: Kind | None) -> str:
    ndim = len(shape)
    kind = kind or ("matrix" if ndim == 2 else "experts" if ndim == 3 else "convolution")
    if kind == "convolution" and ndim > 1:
        return "r" + "c" * (ndim - 1)
    if (kind == "matrix" and ndim == 2) or (kind == "experts" and ndim > 2):
        return "s" * (ndim - 2) + "rc"
    if kind not in ("matrix", "convolution", "experts"):
        if set(kind) <= set("src") and {"r", "c"} <= set(kind) and len(kind) == ndim:
            return kind
        raise ValueError(
            f"axes {kind!r} for a shape {shape}; expected a letter for each axis, r (rows), c (columns) or s (a "
            "stack of matrices), with at least one r and one c, such as 'rccc'"
        )
    raise ValueError(
        f"Muon takes matrices, and a parameter of shape {shape} is none (kind={kind!r}); "
        "give it to AdamW: MuonAdamW(model) does so by itself"
    )


def plain(split: Split) -> int | tuple[Any, ...] | None:
    """Return a split in Python's own integers and tuples; raise ValueError for what is none."""
    if split is None:
        return None
    try:
        if isinstance(split, bool | str):
            raise TypeError
        if not isinstance(split, Sequence):
            return index(split)
        if len(split) == 2 and isinstance(split[1], Sequence):
            return index(split[0]), tuple(index(rows) for rows in split[1])
        return tuple(index(rows) for rows in split)
    except TypeError:
        raise ValueError(
            f"split={split!r}: expected a number of equal blocks of rows, the rows of each block, (times, rows of "
            "each part) for parts that alternate, or a letter for each axis, such as 'scr'"
        ) from None


def _blocks(rows: int, split: int | tuple[Any, ...] | None, shape: tuple[int, ...]) -> tuple[int, ...]:
    if split is None:
        return (rows,)
    if isinstance(split, int):
        if split < 1 or rows % split:
            raise ValueError(f"split={split} does not divide the {rows} rows of a parameter of shape {shape}")
        return (rows // split,) * split
    times, parts = split if split and isinstance(split[-1], tuple) else (1, split)
    if times < 1 or not all(block > 0 for block in parts) or times * sum(parts) != rows:
        raise ValueError(
            f"split={split} does not sum to the {rows} rows of a parameter of shape {shape}; expected the rows of each "
            "block, all of them positive"
        )
    return tuple(times * part for part in parts)


class Splitter:
    """Which rows of a parameter are orthogonalized apart, by Muon's argument `split`."""

    def __init__(self, split: Splits | None):
        if split is not None and not isinstance(split, Mapping) and not callable(split):
            raise ValueError(
                f"split={split!r}; expected pattern -> number of blocks, or a function of name and parameter"
            )
        self._split = split
        self._claimed: set[str] = set()
        self._names: list[str] = []

    def __call__(self, name: str | None, parameter: Tensor) -> Split | str:
        """Return the split of a parameter, or its axes, or both; or None."""
        if self._split is None:
            return None
        if name is None:
            raise ValueError("split goes by the names of parameters, and these have none; give named parameters")
        if not isinstance(self._split, Mapping):
            return self._split(name, parameter)
        self._names.append(name)
        found = [pattern for pattern in self._split if matches(pattern, name)]
        self._claimed.update(found)
        return self._split[found[0]] if found else None

    def check_all_claimed(self) -> None:
        """Raise ValueError where a pattern has matched no parameter so far."""
        for pattern in self._split if isinstance(self._split, Mapping) else ():
            if pattern not in self._claimed:
                raise ValueError(
                    f"split has the pattern {pattern!r}, which matches no parameter of Muon; "
                    f"{hint(pattern, self._names)}"
                )


def with_layouts(group: dict[str, Any], splits: Splitter) -> dict[str, Any]:
    """Return a group of Muon whose parameters are a list and whose "layouts" are (kind, split) of each.

    Layouts that the group has are kept, but for a split that the splitter knows. Raises ValueError, with the name of
    the parameter, where one is not a matrix, a split does not fit, or adjust_lr_fn returns no number for a shape.
    """
    if isinstance(group["params"], set):  # torch refuses it: no order
        return group
    members = [group["params"]] if isinstance(group["params"], Tensor) else list(group["params"])
    names = group.get("param_names") or [member[0] if isinstance(member, tuple) else None for member in members]
    given = group.get("layouts") or [(None, None)] * len(members)
    layouts: list[tuple[Kind | None, Split]] = []
    for number, (name, member, (kind, split)) in enumerate(zip(names, members, given, strict=True)):
        p = member[1] if isinstance(member, tuple) else member
        if isinstance(p, Tensor):  # torch refuses anything else
            own = splits(name, p)
            if isinstance(own, str) and set(own) <= set("src"):  # a letter for each axis
                kind, split, own = own, None, None
            elif isinstance(own, Sequence) and len(own) == 2 and isinstance(own[0], str):
                kind, own = own
            try:
                split = plain(split if own is None else own)
                found = layout(p.shape, kind, split)
                if callable(group["adjust_lr_fn"]) and found.count:
                    for rows in found.blocks:
                        check_adjustment(group["adjust_lr_fn"], (rows, found.columns))
            except ValueError as error:
                raise ValueError(f"parameter {name or number}: {error}") from None
        layouts.append((kind, split))
    return {**group, "params": members, "layouts": layouts}

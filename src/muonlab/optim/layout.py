"""A parameter as stacks of matrices: what is orthogonalized together and what apart."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Literal

from torch import Tensor

from muonlab.optim.arguments import check_adjustment
from muonlab.optim.patterns import hint, matches

Kind = Literal["matrix", "convolution", "experts"]
Split = int | Sequence[int] | None
Splits = Mapping[str, Split] | Callable[[str, Tensor], Split]


@dataclass(frozen=True)
class Layout:
    """How the entries of a parameter are seen as matrices."""

    count: int  # matrices side by side: experts, or 1
    rows: int  # of one matrix, all its blocks together
    columns: int  # of one matrix; in * kh * kw of a convolution
    blocks: tuple[int, ...]  # rows of each part that is orthogonalized apart; they sum to rows
    num_batch_axes: int = 0  # leading axes that count matrices

    @property
    def shapes(self) -> tuple[tuple[int, int, int], ...]:
        """The stacks, (count, rows, columns) each: one if the blocks are equal, else one per block."""
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
        return Layout(1, shape[0], prod(shape[1:]), _blocks(shape[0], split, shape))
    rows, columns = shape[-2:]
    return Layout(prod(shape[:-2]), rows, columns, _blocks(rows, split, shape), num_batch_axes=len(shape) - 2)


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

    def __call__(self, name: str | None, parameter: Tensor) -> Split:
        """Return the split of a parameter, or None."""
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
    for index, (name, member, (kind, split)) in enumerate(zip(names, members, given, strict=True)):
        p = member[1] if isinstance(member, tuple) else member
        if isinstance(p, Tensor):  # torch refuses anything else
            own = splits(name, p)
            split = split if own is None else own
            try:
                found = layout(p.shape, kind, split)
                if callable(group["adjust_lr_fn"]) and found.count:
                    for rows in found.blocks:
                        check_adjustment(group["adjust_lr_fn"], (rows, found.columns))
            except ValueError as error:
                raise ValueError(f"parameter {name or index}: {error}") from None
        layouts.append((kind, split))
    return {**group, "params": members, "layouts": layouts}

"""The protocol of a data set: examples in three splits, what a net for it must fit, and its corruptions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Protocol

from torch import Tensor

from muonlab.data.sources import DataError

DATA_SEED = 0  # of the split, of choices among examples and of corruptions: all runs see the same
SPLITS = ("train", "validation", "test")


class Examples(NamedTuple):
    """Examples: inputs (N, ...) as the net takes them; labels (N,) classes or (N, T) next tokens."""

    inputs: Tensor
    labels: Tensor

    @property
    def kind(self) -> str:
        """What the labels are: "classes" or "tokens"."""
        return "classes" if self.labels.ndim == 1 else "tokens"

    def first(self, number: int) -> "Examples":
        """Return the first of them; they are in random order."""
        return Examples(self.inputs[:number], self.labels[:number])

    @property
    def chance(self) -> float:
        """Accuracy of the best constant answer."""
        return self.labels.flatten().bincount().max().item() / self.labels.numel()


@dataclass(frozen=True, eq=False)
class Sheet:
    """An example under every corruption and severity: a picture (C, H, W) in [0, 1], or lines of text."""

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    picture: Tensor | None = None
    lines: tuple[tuple[str, ...], ...] = ()


class Dataset(Protocol):
    """Examples to learn from and to be tested on, the same for every seed and optimizer.

    Attributes:
        train, validation, test: splits that share no example, each in a random order.
        sizes: what a net for these examples must fit, as arguments of its constructor, such as classes.
        corruptions: names of the corruptions, in the order of a report; () where there are none.
        padding: token id that fills short texts up; None where there is none.
    """

    @property
    def train(self) -> Examples: ...  # noqa: D102
    @property
    def validation(self) -> Examples: ...  # noqa: D102
    @property
    def test(self) -> Examples: ...  # noqa: D102
    @property
    def sizes(self) -> Mapping[str, Any]: ...  # noqa: D102
    @property
    def corruptions(self) -> Sequence[str]: ...  # noqa: D102
    @property
    def padding(self) -> int | None: ...  # noqa: D102

    def corrupted(self, name: str, severity: int, number: int) -> Examples:
        """Return the first test examples under a corruption; severity 0 leaves them as they are."""
        ...

    def sheet(self) -> Sheet:
        """Return an example under every corruption."""
        ...


class Lazy:
    """The splits of a data set that is read, and divided, when one of them is first asked for."""

    @cached_property
    def _splits(self) -> Sequence[Examples]:
        raise NotImplementedError

    @property
    def train(self) -> Examples:
        """Examples to train on."""
        return self._splits[0]

    @property
    def validation(self) -> Examples:
        """Examples to choose by."""
        return self._splits[1]

    @property
    def test(self) -> Examples:
        """Examples to test on."""
        return self._splits[2]


@dataclass(frozen=True, eq=False)
class Tensors:
    """A data set of tensors, such as a user's own.

    Raises:
        DataError: a split without examples, with more labels than inputs or fewer, or of another shape.

    Examples:
        >>> import torch
        >>> data = Tensors(*(Examples(torch.zeros(n, 4), torch.arange(n) % 3) for n in (12, 6, 6)))
        >>> data.sizes, data.test.chance
        ({'inputs': 4, 'classes': 3}, 0.3333333333333333)
    """

    train: Examples
    validation: Examples
    test: Examples
    corruptions = ()
    padding = None

    def __post_init__(self):
        shape = tuple(self.train.inputs.shape[1:])
        for name in SPLITS:
            inputs, labels = getattr(self, name)
            if not 0 < len(inputs) == len(labels):
                raise DataError(
                    f"the {name} split has {len(inputs)} inputs and {len(labels)} labels; expected as many, and some"
                )
            if inputs.shape[1:] != shape:
                raise DataError(
                    f"the {name} split has inputs of shape {tuple(inputs.shape[1:])}, the train split of {shape}; "
                    "expected one shape"
                )

    @property
    def sizes(self) -> dict[str, int]:
        """Classes, and the size of a flat input or the number of token ids."""
        parts = [getattr(self, name) for name in SPLITS]
        classes = max(int(part.labels.max()) for part in parts) + 1
        if self.train.inputs.is_floating_point():
            return {"inputs": self.train.inputs[0].numel(), "classes": classes}
        return {"vocabulary": max(int(part.inputs.max()) for part in parts) + 1, "classes": classes}

    def corrupted(self, name: str, severity: int, number: int) -> Examples:
        """Return the first test examples, as there are no corruptions."""
        if severity:
            raise DataError(f"{name}: this data set has no corruptions")
        return self.test.first(number)

    def sheet(self) -> Sheet:
        """Return a sheet without rows."""
        return Sheet((), ())

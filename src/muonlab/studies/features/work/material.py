"""What the nets of a family are trained, probed and corrupted on: the same three sets for every seed and optimizer."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import torch.nn.functional as F
from torch import Tensor, nn

DATA_SEED = 0  # of the split, of choices among examples and of corruptions: all runs see the same


class Set(NamedTuple):
    """Examples: inputs (N, ...) as the net takes them; labels (N,) classes or (N, T) next tokens."""

    inputs: Tensor
    labels: Tensor

    @property
    def kind(self) -> str:
        """What the labels are: "classes" or "tokens"."""
        return "classes" if self.labels.ndim == 1 else "tokens"

    def first(self, number: int) -> "Set":
        """Return the first of them; they are in random order."""
        return Set(self.inputs[:number], self.labels[:number])


@dataclass(frozen=True, eq=False)
class Sets:
    """What is learnt or tested.

    Attributes:
        train, validation, test: three sets that share no example.
        chance: accuracy of the best constant answer on the test set.
    """

    train: Set
    validation: Set
    test: Set
    chance: float


@dataclass(frozen=True, eq=False)
class Task(Sets):
    """What is learnt, and by what.

    Attributes:
        build: returns the net for it, with weights of torch's global generator.
    """

    build: Callable[[], nn.Module]


@dataclass(frozen=True, eq=False)
class Probing:
    """Labelled examples whose hidden states are probed, and how states become one vector an example.

    Attributes:
        train, validation, test: sets with classes as labels.
        pool: of `muonlab.measure.features`.
        rank_pool: the same for the states whose rank is measured.
        padding: token id that marks what is no text; None where there is none.
    """

    train: Set
    validation: Set
    test: Set
    pool: str
    rank_pool: str
    padding: int | None = None

    def mask(self, batch: Tensor) -> Tensor:
        """Return which tokens are real, (B, T)."""
        return batch != self.padding


class Corruptible(Protocol):
    """What has examples that can be corrupted.

    Attributes:
        corruptions: names, in the order of the report.
    """

    @property
    def corruptions(self) -> tuple[str, ...]: ...  # noqa: D102

    def corrupted(self, name: str, severity: int, number: int) -> tuple[Set, Set]:
        """Return the first test examples of what is judged, and of what is probed, under a corruption.

        Severity 0 leaves them as they are.
        """
        ...


class Material(Corruptible, Protocol):
    """What `images.ImageMaterial` and `texts.TextMaterial` offer.

    Attributes:
        notes: for the report: what was read, and what was left out.
    """

    @property
    def notes(self) -> tuple[str, ...]: ...  # noqa: D102

    def pretraining(self) -> Task:
        """Return what is learnt first."""
        ...

    def transfer(self, task: str) -> Task:
        """Return what is learnt after: "classes" or "language"."""
        ...

    def probing(self) -> Probing:
        """Return what hidden states are probed on."""
        ...

    def sheet(self) -> "Sheet":
        """Return an example under every corruption."""
        ...


@dataclass(frozen=True, eq=False)
class Sheet:
    """An example under every corruption and severity: a picture (C, H, W) in [0, 1], or lines of text."""

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    picture: Tensor | None = None
    lines: tuple[tuple[str, ...], ...] = field(default=())


def example_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the cross-entropy of each example, (B,): of (B, C) and (B,), or the mean over (B, T, V) and (B, T)."""
    if labels.ndim == 1:
        return F.cross_entropy(logits, labels, reduction="none")
    losses = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")
    return losses.view(labels.shape).mean(dim=1)

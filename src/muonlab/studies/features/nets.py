"""Measured nets, and how a report compares them: shared by the studies that measure nets.

A net has accuracies under corruptions, margins of probes and ranks by layer; robustness.py and layers.py show them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from muonlab.report.findings import Column
from muonlab.study.study import Arm

CLEAN, CORRUPTED = "clean", "corrupted"
ZEROS: dict[str, Any] = {"mean": 0.0, "mean_interval": [0.0, 0.0], "median": 0.0, "median_interval": [0.0, 0.0]}


@dataclass(frozen=True)
class Measured:
    """One net as measured; see `muonlab.studies.features.work.measuring`.

    Attributes:
        clean_loss, clean_accuracy: on clean test examples; None where robustness is not measured.
        accuracy: corruption -> accuracy by severity, 1 to 5; empty where robustness is not measured.
        layers: from the input up; each with ranks, with margins, with both, or none at all.
    """

    clean_loss: float | None
    clean_accuracy: float | None
    accuracy: dict[str, list[float]]
    layers: list[dict[str, Any]]

    @property
    def corrupted_accuracy(self) -> float:
        """Mean over all corruptions and severities."""
        return fmean(value for values in self.accuracy.values() for value in values)

    def margin(self, kind: str, where: str = CLEAN, layers: Sequence[int] | None = None) -> float:
        """Median margin of the probes, mean over those layers or all; kind is "raw", "by_norm" or "by_distance"."""
        chosen = self.layers if layers is None else [self.layers[layer] for layer in layers]
        return fmean(layer["margins"][where][kind]["median"] for layer in chosen)

    def rank(self, count: str = "effective_rank", form: str = "raw") -> float:
        """Rank of the hidden states, mean over layers; form is "raw" or "centred"."""
        return fmean(layer[form][count] for layer in self.layers)


def is_sighted(models: Sequence[Measured], layer: int, chance: float) -> bool:
    """Return whether the probes of a layer find something: on average they misjudge fewer than chance does."""
    return fmean(model.layers[layer]["margins"][CLEAN]["below_zero"] for model in models) < 1 - chance


def with_zeros(layer: dict[str, Any]) -> dict[str, Any]:
    """Return a layer whose margins are numbers: a probe without weights tells nothing apart, so 0 / 0 counts as 0."""
    margins = {
        where: {
            kind: {key: ZEROS[key] if value is None else value for key, value in found.items()}
            if isinstance(found, dict)
            else found
            for kind, found in kinds.items()
        }
        for where, kinds in (layer.get("margins") or {}).items()
        if kinds is not None
    }
    return {**layer, "margins": margins}


@dataclass(frozen=True)
class Place:
    """Where arms are compared, such as a net and data."""

    name: str
    models: Mapping[str, Sequence[Measured]]  # by label of the arm; an arm without any may be missing
    chance: float | None  # accuracy of the best constant answer; None where none is known
    margin_severity: int  # of the corruptions under which margins are measured

    def of(self, arm: Arm) -> Sequence[Measured]:
        """Return the measured nets of an arm."""
        return self.models.get(arm.label, ())

    @property
    def depth(self) -> int:
        """Number of layers of the deepest net."""
        return max((len(model.layers) for models in self.models.values() for model in models), default=0)

    @property
    def is_alike(self) -> bool:
        """Whether all nets have the same layers, so that a layer of one has its like in the others."""
        return len({tuple(layer["tap"] for layer in m.layers) for models in self.models.values() for m in models}) < 2


@dataclass(frozen=True)
class Compared:
    """All that is compared, and the words for it."""

    arms: tuple[Arm, ...]  # the first is compared with each of the others
    places: tuple[Place, ...]
    baseline: Arm | None = None  # nets that were never trained, next to all arms
    runs: str = "seeds"  # what differs within an arm
    of_examples: bool = False  # whether every arm is one net, so that only test examples can give an interval
    when: str = ""  # the nets were measured, such as "at the end of training"
    accuracy_note: str = ""  # on what counts as right
    place: Column = field(default=Column("family", "Net and data"))
    arm: Column = field(default=Column("optimizer", "Optimizer"))

    @property
    def everyone(self) -> tuple[Arm, ...]:
        """The arms and the baseline."""
        return self.arms if self.baseline is None else (*self.arms, self.baseline)

    @property
    def spread(self) -> str:
        """Which intervals numbers have that only other runs could give."""
        return "no intervals: one net per arm" if self.of_examples else f"95% intervals over {self.runs}"

    @property
    def layer_spread(self) -> str:
        """Which intervals numbers have for which examples serve where there are no other runs."""
        return "95% intervals over test examples" if self.of_examples else self.spread

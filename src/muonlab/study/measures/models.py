"""One measured net, as numbers."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

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

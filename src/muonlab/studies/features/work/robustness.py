"""Robustness: accuracy of nets on clean examples, and under every corruption at every severity."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from muonlab.data.dataset import Examples
from muonlab.losses import softmax_per_example
from muonlab.studies.features.config import Measuring
from muonlab.studies.features.work.material import Material
from muonlab.studies.features.work.states import Subject, hidden_states

SEVERITIES = (1, 2, 3, 4, 5)


@dataclass(frozen=True, eq=False)
class Judged:
    """What a net makes of some examples."""

    loss: float  # mean cross-entropy
    hits: Tensor  # (N,) float64, share of right answers per example: 0 or 1 for classes, in between for tokens

    @property
    def accuracy(self) -> float:
        """Mean over examples."""
        return self.hits.mean().item()


@dataclass(frozen=True, eq=False)
class Robustness:
    """What one net makes of clean and corrupted examples."""

    clean: Judged | None  # None where accuracy is not measured
    corrupted: dict[str, list[Judged]] = field(default_factory=dict)  # by corruption, of each severity
    # By tap, hidden states (N, D) of the probed examples under every corruption at the margins' severity, if kept.
    states: dict[str, list[Tensor]] = field(default_factory=dict)

    def row(self) -> dict[str, Any]:
        """Return what a result holds."""
        assert self.clean is not None
        accuracy = {name: [each.accuracy for each in severities] for name, severities in self.corrupted.items()}
        return {"clean_loss": self.clean.loss, "clean_accuracy": self.clean.accuracy, "accuracy": accuracy}

    def by_example(self) -> dict[str, list[float]]:
        """Return the accuracy of each example, clean, and as a mean over corruptions and severities.

        Of texts, an example is a place in the text. A corruption may leave fewer places; the mean is then over those
        that have it.
        """
        assert self.clean is not None
        hits = [each.hits for severities in self.corrupted.values() for each in severities]
        found = torch.nn.utils.rnn.pad_sequence(hits, batch_first=True, padding_value=torch.nan)
        return {"clean_by_example": self.clean.hits.tolist(), "corrupted_by_example": found.nanmean(0).tolist()}


def corrupt_all(
    subjects: Sequence[Subject],
    material: Material,
    settings: Measuring,
    *,
    severities: Sequence[int] = SEVERITIES,
    keep_states: bool = True,
    advance: Callable[[int], None] = lambda number: None,
) -> list[Robustness]:
    """Return what each net makes of the first test examples.

    Args:
        subjects: all see the same examples, which are corrupted once.
        material: what corrupts.
        settings: how many examples, and at which severity hidden states are kept.
        severities: at which accuracy is measured.
        keep_states: whether hidden states are kept.
        advance: called with 1 after each corruption and severity.
    """
    number = settings.examples
    clean, _ = material.corrupted(material.judged.corruptions[0], 0, number)
    found = [Robustness(judge(each, clean) if severities else None) for each in subjects]
    kept = [settings.margin_severity] if keep_states else []
    wanted: list[int] = sorted({*severities, *kept})
    for name in material.judged.corruptions:
        for severity in wanted:
            examples, probed = material.corrupted(name, severity, number)
            for measured, own in zip(subjects, found, strict=True):
                if severity in severities:
                    own.corrupted.setdefault(name, []).append(judge(measured, examples))
                if severity in kept:
                    for tap, hidden in hidden_states(measured, probed.inputs, measured.pool).items():
                        own.states.setdefault(tap, []).append(hidden)
            advance(1)
    return found


@torch.no_grad()
def judge(measured: Subject, examples: Examples) -> Judged:
    """Return loss and hits."""
    losses, hits = [], []
    batches = (part.split(measured.rows) for part in examples)
    for inputs, labels in zip(*batches, strict=True):
        logits = measured.logits(inputs)
        losses.append(softmax_per_example(logits, labels))
        hits.append((logits.argmax(-1) == labels).double().reshape(len(labels), -1).mean(1))
    return Judged(torch.cat(losses).double().mean().item(), torch.cat(hits))

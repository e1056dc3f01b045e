"""The built-in control: on labels that mean nothing, validation accuracy must stay at chance."""

from dataclasses import dataclass

from muonlab.report.findings import as_text
from muonlab.stats.proportions import chance_limit
from muonlab.studies.grokking.conditions import Condition, GrokkingRuns

ERROR = 1e-3  # probability that guessing alone exceeds the limit of one control


@dataclass(frozen=True)
class Control:
    """One control condition and what its runs reached.

    Attributes:
        best: the largest validation accuracy of all its runs at all evaluations.
        limit: accuracy that guessing exceeds at some evaluation of some run with probability ERROR at most.
        num_looks: evaluations of all its runs.
    """

    condition: Condition
    chance: float
    best: float
    limit: float
    num_looks: int

    @property
    def can_tell(self) -> bool:
        """Whether any accuracy is above the limit; with few validation rows guessing may get all of them right."""
        return self.limit < 1

    @property
    def stayed(self) -> bool:
        """Whether it stayed at chance, as far as it can tell."""
        return self.best <= self.limit

    @property
    def name(self) -> str:
        """Block and variant."""
        return f"{self.condition.block}, {self.condition.variant}"


def judge_controls(runs: GrokkingRuns) -> list[Control]:
    """Return the controls that have runs, in the order of the plan."""
    return [_judge(condition) for condition in runs.controls if condition.members]


def leaking(controls: list[Control]) -> list[str]:
    """Return, for each control that rose above chance, what it did."""
    return [
        f"the control {c.name} on random labels reached a validation accuracy of {as_text(c.best, 'accuracy')}, "
        f"above the {as_text(c.limit, 'accuracy')} that guessing explains"
        for c in controls
        if not c.stayed
    ]


def _judge(condition: Condition) -> Control:
    result = condition.result
    seen = [m.best_validation_accuracy for m in condition.members if m.best_validation_accuracy is not None]
    num_looks = result.num_evaluations * len(condition.members)
    limit = chance_limit(result.chance, result.num_validation, num_looks, ERROR)
    return Control(condition, result.chance, max(seen, default=0.0), limit, num_looks)

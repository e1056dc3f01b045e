"""Controls: what every measure says where there is nothing to find, and whether it is what it must say."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from muonlab.runs.findings import as_text
from muonlab.stats.proportions import chance_limit
from muonlab.studies.features.readings import FamilyRuns, FeatureRuns
from muonlab.studies.features.rounds import UNTRAINED

ERROR = 1e-3  # probability that guessing alone exceeds the limit of one control
ROUNDING = 0.01  # by which a count of directions of a representation of rank one may miss 1
COUNTS = ("effective_rank", "effective_rank_sigma", "stable_rank", "participation_ratio")

State = Literal["passed", "failed", "cannot tell"]


@dataclass(frozen=True)
class Control:
    """One control of one family.

    Attributes:
        name: "untrained net", "shuffled labels" or "rank one".
        what: that was measured.
        value: the largest that was seen.
        expected: chance, or 1 direction.
        limit: largest value that chance, or rounding, explains.
        n: runs behind it.
        examples: test examples behind it.
    """

    family: str
    name: str
    what: str
    value: float
    expected: float
    limit: float
    n: int
    examples: int

    @property
    def state(self) -> State:
        """Whether it says what it must; with few examples guessing may get all of them right."""
        if self.name != "rank one" and self.limit >= 1:
            return "cannot tell"
        return "passed" if self.value <= self.limit else "failed"

    @property
    def in_words(self) -> str:
        """What it did, if it failed."""
        why = "rounding" if self.name == "rank one" else "guessing"
        return (
            f"{self.name} of {self.family}: {self.what} is {as_text(self.value, 'accuracy')}, "
            f"more than the {as_text(self.limit, 'accuracy')} that {why} explains"
        )


def judge_controls(runs: FeatureRuns) -> list[Control]:
    """Return every control that has been measured."""
    return [control for family in runs.families for control in _controls(family)]


def failed(controls: Sequence[Control]) -> list[Control]:
    """Return the controls that do not say what they must."""
    return [control for control in controls if control.state == "failed"]


def _controls(family: FamilyRuns) -> list[Control]:
    found, sizes = [], family.sizes
    new = family.of(family.optimizers[0], UNTRAINED)
    if new:
        # A text has many tokens to an example, which depend on each other: an example counts once, so the limit errs to
        # the high side.
        limit = chance_limit(sizes["chance"], sizes["num_examples"], len(new), ERROR)
        best = max(model.clean_accuracy for model in new)
        what = "test accuracy before training"
        found.append(
            Control(family.name, "untrained net", what, best, sizes["chance"], limit, len(new), sizes["num_examples"])
        )
    if family.controls is not None:
        shuffled, line = family.controls["shuffled_labels"], family.controls["rank_one"]
        chance, number = sizes["probe_chance"], shuffled["num_test"]
        limit = chance_limit(chance, number, 1, ERROR)
        what = "test accuracy of the probe"
        found.append(Control(family.name, "shuffled labels", what, shuffled["test_accuracy"], chance, limit, 1, number))
        most = max(line[form][count] for form in ("raw", "centred") for count in COUNTS)
        what = "largest count of directions"
        found.append(Control(family.name, "rank one", what, most, 1.0, 1 + ROUNDING, 1, line["num_examples"]))
    return found

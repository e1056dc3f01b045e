"""Controls: what every measure says where there is nothing to find, and whether it is what it must say."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Literal

from muonlab.report.findings import as_text
from muonlab.stats.proportions import chance_limit, chance_limit_of_mean

ERROR = 1e-3  # probability that guessing alone exceeds the limit of one control
ROUNDING = 0.01  # by which a count of directions of a representation of rank one may miss 1
COUNTS = ("effective_rank", "effective_rank_sigma", "stable_rank", "participation_ratio")

State = Literal["passed", "failed", "cannot tell"]


@dataclass(frozen=True)
class Control:
    """One control of one net and data set.

    Attributes:
        place: the net and data.
        name: "untrained net", "shuffled labels" or "rank one".
        what: that was measured.
        value: that was seen: the mean of several nets, the largest of several counts.
        expected: chance, or 1 direction.
        limit: largest value that chance, or rounding, explains.
        n: runs behind it.
        examples: test examples behind it.
    """

    place: str
    name: str
    what: str
    value: float
    expected: float
    limit: float
    n: int
    examples: int

    @property
    def state(self) -> State:
        """Whether it says what it must; with few examples, or few nets, guessing may get all of them right."""
        if self.name != "rank one" and self.limit >= 1:
            return "cannot tell"
        return "passed" if self.value <= self.limit else "failed"

    @property
    def in_words(self) -> str:
        """What it did, if it failed."""
        why = "rounding" if self.name == "rank one" else "guessing"
        return (
            f"{self.name} of {self.place}: {self.what} is {as_text(self.value, 'accuracy')}, "
            f"more than the {as_text(self.limit, 'accuracy')} that {why} explains"
        )


def failed(controls: Sequence[Control]) -> list[Control]:
    """Return the controls that do not say what they must."""
    return [control for control in controls if control.state == "failed"]


def untrained(place: str, accuracies: Sequence[float], chance: float, examples: int) -> Control:
    """Return the control of nets that were never trained, given their accuracies: their mean must be at chance.

    The limit is the larger one of two: what the spread between nets explains, and what one guess an example does.
    """
    limit = max(chance_limit_of_mean(chance, accuracies, ERROR), chance_limit(chance, examples, 1, ERROR))
    what = "mean test accuracy before training"
    return Control(place, "untrained net", what, fmean(accuracies), chance, limit, len(accuracies), examples)


def of_probes(place: str, found: Mapping[str, Any], chance: float) -> list[Control]:
    """Return the controls of probes and of ranks, of those that a measuring job made."""
    controls = []
    if shuffled := found.get("shuffled_labels"):
        number, what = shuffled["num_test"], "test accuracy of the probe"
        limit = chance_limit(chance, number, 1, ERROR)
        controls.append(Control(place, "shuffled labels", what, shuffled["test_accuracy"], chance, limit, 1, number))
    if line := found.get("rank_one"):
        most = max(line[form][count] for form in ("raw", "centred") for count in COUNTS)
        what = "largest count of directions"
        controls.append(Control(place, "rank one", what, most, 1.0, 1 + ROUNDING, 1, line["num_examples"]))
    return controls

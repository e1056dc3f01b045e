"""Controls: what a measure says where there is nothing to find, and whether that is what it must say."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from muonlab.report.findings import Column, Element, Table, Text, as_text
from muonlab.stats.proportions import chance_limit, chance_limit_of_mean

ERROR = 1e-3  # probability that chance alone exceeds the limit of one control

State = Literal["passed", "failed", "cannot tell"]


@dataclass(frozen=True)
class Control:
    """One control: a value that was obtained and must not exceed a limit."""

    name: str  # such as "shuffled labels"
    what: str  # was measured
    value: float
    expected: float  # value where there is nothing to find
    limit: float  # largest value that chance, or rounding, explains
    n: int  # runs or cases behind it
    place: str = ""  # case that it was made in; empty for one of the whole study
    examples: int = 0  # test examples behind it
    must: str = "stay at chance"
    why: str = "guessing"  # what the limit allows for
    is_share: bool = True  # whether no value exceeds 1: a limit of 1 then says that there is too little to tell

    @property
    def state(self) -> State:
        """Whether it says what it must."""
        if self.is_share and self.limit >= 1:
            return "cannot tell"
        return "passed" if self.value <= self.limit else "failed"

    @property
    def title(self) -> str:
        """Name, and place where it has one."""
        return f"{self.name} of {self.place}" if self.place else self.name

    @property
    def in_words(self) -> str:
        """What it did, if it failed."""
        return (
            f"{self.title}: {self.what} is {as_text(self.value, 'accuracy')}, "
            f"more than the {as_text(self.limit, 'accuracy')} that {self.why} explains"
        )


def at_chance(
    name: str, what: str, accuracies: Sequence[float], chance: float, examples: int, place: str = ""
) -> Control:
    """Return the control of nets that cannot know better than chance: the mean of their accuracies must be at chance.

    The limit is the larger of what the spread between nets explains and what one guess per example does. Nets do not
    guess examples independently: a randomly initialised one maps similar examples to one class.
    """
    limit = max(chance_limit_of_mean(chance, accuracies, ERROR), chance_limit(chance, examples, 1, ERROR))
    return Control(name, what, fmean(accuracies), chance, limit, len(accuracies), place, examples)


def failed(controls: Sequence[Control]) -> list[Control]:
    """Return the controls that do not say what they must."""
    return [control for control in controls if control.state == "failed"]


def notices(controls: Sequence[Control]) -> list[Text]:
    """Return a warning for each control that failed."""
    return [Text(f"A CONTROL FAILED: {each.in_words}.", "warning") for each in failed(controls)]


def in_short(controls: Sequence[Control]) -> list[Text]:
    """Return what the controls say, in a line or more."""
    if not controls:
        return [Text("No control is measured yet: nothing shows that the measures can fail.", "warning")]
    said = [
        Text(f"FAILED: {each.in_words}. No measure of this report can be trusted.", "warning")
        for each in failed(controls)
    ]
    said += [
        Text(f"{each.title} cannot tell: there is too little for “{each.what}”.", "warning")
        for each in controls
        if each.state == "cannot tell"
    ]
    passed = "The one control" if len(controls) == 1 else f"All {len(controls)} controls"
    words = f"{passed} passed: where there is nothing to find, nothing was found."
    return said or [Text(words, "good")]


def checks(controls: Sequence[Control], note: str, place: Column | None = None) -> tuple[Element, ...]:
    """Return what the controls say, in a line or more, and a table of them.

    Args:
        controls: of the study.
        note: what the study's own controls are.
        place: column of the cases; None for a study whose controls are of no case and count no examples.
    """
    if not controls:
        return tuple(in_short(controls))
    columns = {
        "place": place or Column("place", "Case"),
        "name": Column("control", "Control"),
        "what": Column("what", "Measured"),
        "must": Column("must", "Must"),
        "value": Column("value", "Value", "accuracy"),
        "expected": Column("expected", "Chance, or 1" if place else "Chance", "accuracy"),
        "limit": Column("limit", "Limit", "accuracy"),
        "n": Column("n", "n", "count"),
        "examples": Column("examples", "Test examples", "count"),
        "state": Column("state", "Result"),
    }
    if place is None:
        columns = {key: column for key, column in columns.items() if key not in ("place", "must", "examples")}
    rows = tuple(tuple(getattr(control, key) for key in columns) for control in controls)
    note = f"Limit: what chance exceeds with a probability of at most {ERROR:g}. {note}"
    return *in_short(controls), Table("controls", "Controls", tuple(columns.values()), rows, note)

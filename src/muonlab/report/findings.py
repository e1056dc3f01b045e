"""What a study found, as plain data: a study returns it, the report shows it, and neither knows the other.

Everything here is frozen and holds plain Python values only, so that `dataclasses.asdict` of it is JSON. A study says
what was seen and which kind of number it is; how a number reads (`as_text`) is said once, for the report and for the
terminal alike; where it stands on the page and which colour it has is up to the view.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from muonlab.stats.results import Estimate

Kind = Literal["text", "count", "number", "exact", "percent", "accuracy", "ratio", "p"]
Answer = Literal["yes", "no", "mixed", "inconclusive"]
Tone = Literal["plain", "note", "good", "warning"]
Value = str | int | float | bool | Estimate | None


@dataclass(frozen=True)
class Column:
    """A column of a table: its name in the CSV, its heading in the report, and how its numbers read."""

    key: str
    title: str
    kind: Kind = "text"


@dataclass(frozen=True)
class Table:
    """Rows of values, shown as a table and written as a CSV of the same name, where an interval takes three columns."""

    name: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Value, ...], ...]
    note: str = ""
    folded: bool = False  # shown on request only


@dataclass(frozen=True)
class Axis:
    """What an axis shows; limits None fit the data."""

    label: str
    limits: tuple[float, float] | None = None
    log: bool = False


@dataclass(frozen=True)
class Series:
    """Who a line or a box belongs to. `role` decides the colour, `style` tells series of one role apart."""

    label: str
    role: str
    style: int = 0


@dataclass(frozen=True)
class SurvivalLine:
    """A Kaplan-Meier curve: `survival[i]` holds from `times[i]` to the next; `censored` are times (see stats)."""

    series: Series
    n: int
    crossed: int
    times: tuple[float, ...]
    survival: tuple[float, ...]
    lower: tuple[float, ...]
    upper: tuple[float, ...]
    at_risk: tuple[int, ...]
    events: tuple[int, ...]
    censored: tuple[float, ...]


@dataclass(frozen=True)
class Survival:
    """A panel of survival curves that may be compared."""

    title: str
    lines: tuple[SurvivalLine, ...]


@dataclass(frozen=True)
class Run:
    """The curves of one member; a null is an evaluation without a value."""

    series: Series
    seed: int
    steps: tuple[int, ...]
    train: tuple[float | None, ...]
    validation: tuple[float | None, ...]


@dataclass(frozen=True)
class Curves:
    """A panel of learning curves, one line for every run; `marks` are horizontal lines with their names."""

    title: str
    runs: tuple[Run, ...]
    marks: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class Group:
    """The runs of one row of a distribution. `quartiles` are given where the runs are not, as in a printed figure."""

    series: Series
    label: str
    values: tuple[float, ...]
    censored: tuple[float, ...] = ()  # where they were when their budget ended
    quartiles: tuple[float, float, float] | None = None


@dataclass(frozen=True)
class Distribution:
    """A panel of box plots, one row for each group, with every run drawn."""

    title: str
    groups: tuple[Group, ...]


@dataclass(frozen=True)
class ForestRow:
    """One estimate; `emphasis` for one over several others.

    `decided` says whether it is told from no effect, and None that its interval says so.
    """

    label: str
    estimate: Estimate
    n: str
    emphasis: bool = False
    decided: bool | None = None

    def is_decided(self, no_effect: float) -> bool:
        """Whether the estimate is told from the value of no effect."""
        return excludes(self.estimate, no_effect) if self.decided is None else self.decided


@dataclass(frozen=True)
class Forest:
    """A panel of estimates next to the value of no effect, with the two sides named.

    The panels of a figure that have the same scale share the limits of their axes, so that rows can be compared.
    """

    title: str
    rows: tuple[ForestRow, ...]
    no_effect: float  # 1 for ratios, 0 for differences
    lower_side: str
    upper_side: str
    kind: Kind = "ratio"
    scale: str = ""  # panels of one figure that are about different quantities have different ones


@dataclass(frozen=True)
class Line:
    """One number against another, such as accuracy by severity, with the number of runs behind every point."""

    series: Series
    n: int
    x: tuple[float, ...]  # ascending
    y: tuple[float | None, ...]  # None is a gap
    lower: tuple[float | None, ...]  # of the intervals: none is drawn where a bound is None
    upper: tuple[float | None, ...]


@dataclass(frozen=True)
class Lines:
    """A panel of lines with their intervals; `marks` are horizontal lines with their names."""

    title: str
    lines: tuple[Line, ...]
    marks: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class Trace:
    """One number of one run, such as its loss against seconds; None is a gap."""

    series: Series
    seed: int
    x: tuple[float, ...]  # ascending
    y: tuple[float | None, ...]


@dataclass(frozen=True)
class Traces:
    """A panel with a thin line for every run, the series named at their ends; `marks` are heights of other lines."""

    title: str
    traces: tuple[Trace, ...]
    x: Axis  # of its own: panels of one figure may have the same heights against different axes
    marks: tuple[float, ...] = ()


@dataclass(frozen=True)
class GridCell:
    """One estimate of a map; `side` is "higher" or "lower" where it is told from no effect, else "undecided"."""

    estimate: Estimate
    side: Literal["higher", "lower", "undecided"]
    n: str


@dataclass(frozen=True)
class Grid:
    """A map: an estimate at every combination of two settings, with the two sides named."""

    title: str
    x: tuple[str, ...]  # labels of the columns, from the left
    y: tuple[str, ...]  # of the rows, from the top
    cells: tuple[tuple[GridCell | None, ...], ...]  # row by row from the top; None where nothing was asked
    lower_side: str  # who is higher where the estimate lies below 0; empty where it cannot
    upper_side: str
    kind: Kind = "ratio"


Panel = Survival | Curves | Distribution | Forest | Lines | Traces | Grid


@dataclass(frozen=True)
class Figure:
    """Panels that share their axes but for an x of their own. The view draws them, and writes them as `<name>.csv`."""

    name: str
    title: str
    caption: str
    x: Axis
    y: Axis
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Picture:
    """An image, shown enlarged and written as `<name>.png`; the labels stand next to rows and columns of equal size."""

    name: str
    title: str  # also what a screen reader says
    caption: str
    width: int  # in pixels, as is the height
    height: int
    channels: Literal[1, 3]  # grey, or red, green and blue
    pixels: str  # base64 of (height, width, channels) bytes
    row_labels: tuple[str, ...] = ()  # from the top
    column_labels: tuple[str, ...] = ()  # from the left


@dataclass(frozen=True)
class Text:
    """A paragraph, with the address of its source where it has one."""

    text: str
    tone: Tone = "plain"
    source: str = ""


@dataclass(frozen=True)
class Definitions:
    """What each term of the report means."""

    terms: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Reply:
    """The answer to a claim in one state, such as at equal budget.

    Attributes:
        label: the answer in a word.
        sides: comparisons in which the first arm is higher, lower and undecided.
        effects: those that the answer rests on, pooled or single, each against one rival; they may be a forest's rows.
    """

    answer: Answer
    label: str
    sides: tuple[int, int, int]
    effects: tuple[ForestRow, ...] = ()

    @property
    def direction(self) -> str:
        """Where the first arm lies, in words: an answer without it would hide which side is the larger."""
        higher, lower, undecided = self.sides
        return f"{higher} higher, {lower} lower, {undecided} undecided"


@dataclass(frozen=True)
class Answered:
    """A claim with its answer in every state; None where a state has none."""

    claim: str
    quantity: str  # what the effects are differences of
    replies: tuple[Reply | None, ...]
    kind: Kind = "number"


@dataclass(frozen=True)
class Answers:
    """The small table of a first screen: a row for each claim, a column for each state."""

    name: str
    title: str
    states: tuple[str, ...]
    claims: tuple[Answered, ...]
    note: str = ""


@dataclass(frozen=True)
class Record:
    """Text to be kept in full, such as a config, and shown on request only."""

    title: str
    text: str


Element = Text | Table | Answers | Figure | Picture | Definitions | Record


@dataclass(frozen=True)
class Section:
    """A part of the report under one heading."""

    title: str
    elements: tuple[Element, ...]


@dataclass(frozen=True)
class Verdict:
    """The answer to the question of the study.

    A caution begins with its one line: the page shows the first two of them, and what follows a colon or a full stop
    on request. So the gravest comes first, and numbers stand behind a colon.
    """

    answer: Answer
    label: str  # the answer in a word or two
    sentence: str  # the whole answer, short: with its interval, n and scope
    interval: Estimate | None  # of the number that the answer rests on, if there is one
    more: tuple[str, ...]  # further sentences, each a finding of its own: shown on request
    scope: tuple[tuple[str, str], ...]  # (what, value): what the answer holds for
    cautions: tuple[str, ...]  # why it is inconclusive, or what weakens it


@dataclass(frozen=True)
class Findings:
    """All that a report says, the first screen first.

    The first screen is the question, the verdict, two cautions at most and `first`: one figure and one small table.
    Warnings among `notices`, such as what failed or is missing, come before the verdict's own cautions.

    `files` are names and texts of further files next to the page, such as code to paste.
    """

    title: str
    question: str
    verdict: Verdict
    notices: tuple[Text, ...]
    sections: tuple[Section, ...]
    first: tuple[Element, ...] = ()
    files: tuple[tuple[str, str], ...] = ()


def excludes(estimate: Estimate, no_effect: float) -> bool:
    """Return whether an interval lies on one side of the value of no effect."""
    lower, upper = estimate.lower, estimate.upper
    return (lower is not None and lower > no_effect) or (upper is not None and upper < no_effect)


MARKS = "†‡§¶‖#"  # of remarks on numbers, in the order of typesetting


def marks_of(estimates: Iterable[Value]) -> dict[str, str]:
    """Return remark -> mark for the remarks on intervals; where there are more than marks, the rest has none."""
    remarks = dict.fromkeys(
        each.reason for each in estimates if isinstance(each, Estimate) and each.reason and each.lower is not None
    )
    return dict(zip(remarks, MARKS, strict=False))


_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def as_text(value: Value, kind: Kind = "number") -> str:
    """Return a value as a reader sees it: rounded for its kind, an interval as "value [lower, upper]", none as "–".

    In an interval, "–" for an upper bound says that the data set none.
    """
    if isinstance(value, Estimate):
        return _interval_as_text(value, kind)
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return value
    text = _number_as_text(value, kind)
    return text.replace("-", "−") if any(digit in text for digit in "123456789") else text.removeprefix("-")


def _interval_as_text(interval: Estimate, kind: Kind) -> str:
    if interval.value is None and interval.lower is None:
        return "–"
    value = "not reached" if interval.value is None else as_text(interval.value, kind)
    if interval.lower is None and interval.upper is None:
        return value
    return f"{value} [{as_text(interval.lower, kind)}, {as_text(interval.upper, kind)}]"


def _number_as_text(value: float, kind: Kind) -> str:
    if kind in ("count", "percent", "accuracy", "exact"):
        return superscript(format(value, {"count": ",.0f", "percent": ".0%", "accuracy": ".3f", "exact": "g"}[kind]))
    if kind == "ratio":
        return f"{value:.2f}" if abs(value) < 9.995 else _number(value)
    if kind == "p":
        return f"{value:.3f}" if value >= 0.01 or value == 0 else superscript(f"{value:.1e}")
    return _number(value)


def _number(value: float) -> str:
    size = abs(value)
    if size >= 1e6 or 0 < size < 1e-3:
        return superscript(f"{value:.2e}")
    if size >= 1000 or float(value).is_integer():
        return f"{value:,.0f}"
    decimals = max(0, 2 - math.floor(math.log10(size)))  # three significant digits
    return f"{value:.{decimals}f}"


def superscript(text: str) -> str:
    """Return "1.2e-05" as "1.2 × 10⁻⁵", and a number without an exponent as it is."""
    mantissa, e, exponent = text.partition("e")
    return f"{mantissa} × 10{str(int(exponent)).translate(_SUPERSCRIPTS)}" if e else text

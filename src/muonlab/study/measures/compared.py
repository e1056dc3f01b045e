"""Who is compared, where and in which words: what the sections of a report need to know of a study."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from muonlab.report.findings import Column, Kind, Line, Series
from muonlab.stats.effects import mean
from muonlab.stats.results import Estimate
from muonlab.study.measures.models import Measured


@dataclass(frozen=True)
class Side:
    """One of those that are compared, such as an optimizer or a group of checkpoints.

    Attributes:
        key: of its columns in a CSV, and of its models in a place.
        series: its name for people, and its colour.
    """

    key: str
    series: Series


@dataclass(frozen=True)
class Place:
    """Where sides are compared, such as a net and data.

    Attributes:
        name: for people.
        models: key of a side -> its measured nets; a side without any may be missing.
        chance: accuracy of the best constant answer; None where none is known.
        margin_severity: of the corruptions under which margins are measured.
    """

    name: str
    models: Mapping[str, Sequence[Measured]]
    chance: float | None
    margin_severity: int

    def of(self, side: Side) -> Sequence[Measured]:
        """Return the measured nets of a side."""
        return self.models.get(side.key, ())

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
    """All that is compared, and the words for it.

    Attributes:
        sides: the first is compared with each of the others.
        places: where.
        baseline: nets that were never trained, beside all sides.
        runs: what differs within a side, such as "seeds".
        of_examples: whether every side is one net, so that only test examples can give an interval.
        when: of training, when the nets were measured, such as "at the end of training".
        accuracy_note: a sentence on what counts as right.
        place: column of the places.
        side: column of the sides.
    """

    sides: tuple[Side, ...]
    places: tuple[Place, ...]
    baseline: Side | None = None
    runs: str = "seeds"
    of_examples: bool = False
    when: str = ""
    accuracy_note: str = ""
    place: Column = field(default=Column("family", "Net and data"))
    side: Column = field(default=Column("optimizer", "Optimizer"))

    @property
    def everyone(self) -> tuple[Side, ...]:
        """The sides and the baseline."""
        return self.sides if self.baseline is None else (*self.sides, self.baseline)

    @property
    def spread(self) -> str:
        """Which intervals numbers have that only other runs could give."""
        return "no intervals: one net a side" if self.of_examples else f"95% intervals over {self.runs}"

    @property
    def layer_spread(self) -> str:
        """Which intervals numbers have for which examples serve where there are no other runs."""
        return "95% intervals over test examples" if self.of_examples else self.spread

    def columns(self, sides: Iterable[Side], kind: Kind) -> tuple[Column, ...]:
        """Return a column for each side."""
        return tuple(Column(side.key, side.series.label, kind) for side in sides)


def over_runs(values: Iterable[float]) -> Estimate:
    """Return the mean with Student's interval; without one, with a reason, where it cannot be had."""
    return mean(list(values))


def line(series: Series, x: Sequence[float], values: Sequence[Sequence[float]]) -> Line:
    """Return the means over runs as a line; a point without runs is a gap.

    Args:
        series: whose it is.
        x: where the points are.
        values: at every point, one for each run.
    """
    return line_of(series, max((len(each) for each in values), default=0), x, [over_runs(each) for each in values])


def line_of(series: Series, n: int, x: Sequence[float], points: Sequence[Estimate]) -> Line:
    """Return points with intervals as a line; n is the number of runs behind each."""
    return Line(
        series=series,
        n=n,
        x=tuple(x),
        y=tuple(point.value for point in points),
        lower=tuple(point.lower for point in points),
        upper=tuple(point.upper for point in points),
    )

"""The report on a suite of trainings: outcomes, final losses, performance profile, and each workload."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from muonlab.jobs.job import JobRecord
from muonlab.report.findings import Axis, Column, Element, Figure, Findings, Line, Lines, Panel, Table, Text, Value
from muonlab.stats.profile import LARGEST, Profile
from muonlab.studies.compare import switch
from muonlab.studies.compare.config import CompareStudy
from muonlab.studies.compare.sections import curves, settings
from muonlab.studies.compare.suite import Suite, of, verdict
from muonlab.studies.compare.switch import Candidate, Switch
from muonlab.study.sections import every_job, findings, in_full, optimizer_settings, over_runs
from muonlab.study.space import Space
from muonlab.study.study import Arm, Found
from muonlab.study.words import definitions

FACTORS = (1.0, 1.1, 1.25, 1.5, 2.0)  # at which the table shows a profile

OWN = """
Workload: A training with steps and batch of its own. All optimizers are tuned on each by as many trials.

Outcome: Of the final validation loss on one workload, compared with {baseline}’s. p is Holm’s over all comparisons with
the whole budget, of all optimizers and workloads. Better, worse, equal and undecided are as for one workload.

Target: On each workload the median of {baseline}’s final validation losses, with its whole budget. So {baseline}
reaches it itself in half of its runs or more.

Time to target: Steps until the first evaluation at which a run’s validation loss is at most the target, as a share of
the budget: median over final runs. A run that ends or diverges above it counts as never, and so does an optimizer of
which half of the runs do. Steps of different optimizers take different time.

Performance profile: For a factor, the share of workloads on which an optimizer’s time to target is at most that factor
times the shortest of all optimizers compared (Dolan and Moré 2002; as in AlgoPerf, Dahl et al. 2023). It depends on who
is compared.

Score: Mean of the profile over factors from 1 to {largest:g}, AlgoPerf’s convention. 1: the fastest on every workload.
"""
LIMITS = (
    "Small nets on small data, each trained for a short budget with one schedule and batch: rankings change with size "
    "and length of training. Workloads are few and were chosen, not drawn, so shares of them have no intervals. The "
    "profile counts steps, not seconds. Ranges of settings decide what tuning can find; see Settings and jobs."
)


def analyse(founds: Sequence[Found], asked: CompareStudy, version: int) -> Findings:
    """Return what a suite found, whatever part of it is done.

    Args:
        founds: of each part: all workloads with the whole budget, then all of them with less.
        asked: the study.
        version: results version of the jobs that a run would compute now.
    """
    number = len([found for found in founds if not found.runs.asked.part])
    suites = [of(founds[start : start + number]) for start in range(0, len(founds), number)]
    whole = suites[0]
    records = tuple(record for found in founds for record in found.records)
    controls = tuple(control for found in founds for control in found.controls)
    all_of = replace(founds[0], records=records, expected=sum(each.expected for each in founds), controls=controls)
    put = {"baseline": whole.baseline.name, "largest": LARGEST}
    sections = (
        ("Answer", answer(whole)),
        ("Time to target", profile(whole)),
        ("With less training", tuple(_outcomes(each, f"-{k}") for k, each in enumerate(suites[1:], 1))),
        ("Each workload", tuple(_each(whole))),
        ("What this does not show", (Text(LIMITS),)),
        ("Settings and jobs", tuple(_settings(whole, asked, records))),
        ("What the words mean", (definitions(OWN, values=put),)),
    )
    title = f"Suite {founds[0].runs.asked.suite}: {len(whole.arms)} optimizers on {number} workloads"
    return findings(title, asked.question, verdict(whole, all_of), all_of, (), sections, version)


def answer(suite: Suite) -> tuple[Element, ...]:
    """Return the final losses and the outcomes, optimizers by workloads."""
    columns = Column("optimizer", "Optimizer"), *(Column(name, name, "number") for name in suite.names)
    rows = tuple((arm.name, *(_loss(each, arm) for each in suite.switches)) for arm in suite.arms)
    note = (
        "Final validation loss of each optimizer at its best setting: mean over final runs that did not diverge, with "
        "95% intervals over seeds; test examples have no part in it."
    )
    return _outcomes(suite), Table("losses", "Final validation loss", columns, rows, note)


def _loss(one: Switch, arm: Arm) -> Value:
    losses = [loss for loss in one.found.runs.losses(arm.label).values() if math.isfinite(loss)]
    return over_runs(losses) if losses else None


def _outcomes(suite: Suite, key: str = "") -> Table:
    names = suite.names
    counts = ("better", "worse", "equal", "undecided")
    columns = (
        Column("optimizer", "Optimizer"),
        *(Column(name, name) for name in names),
        *(Column(f"num_{each}", each.capitalize(), "count") for each in counts),
    )
    rows = tuple(
        (each.arm.name, *map(_outcome, suite.switches, each.outcomes), *(each.count(word) for word in counts))
        for each in suite.standings
    )
    note = (
        f"Compared with {suite.baseline.name}: the difference of final losses as a share of its loss, and the outcome."
    )
    budget = f", {suite.switches[0].found.runs.asked.part}" if key else ""
    return Table(f"outcomes{key}", f"Against {suite.baseline.name}{budget}", columns, rows, note)


def _outcome(one: Switch, own: Candidate) -> str:
    """Return the outcome with the difference as a share of the baseline's loss."""
    value = own.effect.estimate.value if own.effect else None
    level = one.margin / one.found.runs.asked.margin
    return (
        own.outcome if value is None or not level else f"{own.outcome}, {100 * value / level:+.1f}%".replace("-", "−")
    )


def profile(suite: Suite) -> tuple[Element, ...]:
    """Return the performance profile and the times that it is made of."""
    if not suite.times:
        return (Text("No workload has a target yet: the baseline has no final runs."),)
    lines = tuple(_line(arm, suite.profiles[arm.label]) for arm in suite.arms)
    caption = (
        f"Share of the {len(suite.times)} workloads on which an optimizer reaches {suite.baseline.name}’s loss in "
        "at most so many times the steps of the fastest of all. Further left and higher is better."
    )
    axes = Axis("factor of the fewest steps", (1.0, LARGEST), log=True), Axis("share of workloads", (0.0, 1.0))
    figure = Figure("profile", "Performance profile", caption, *axes, (Lines("", lines),))
    columns = (
        Column("optimizer", "Optimizer"),
        *(Column(name, name, "ratio") for name in suite.times),
        *(Column(f"within_{factor:g}", f"Within {factor:g}x", "percent") for factor in FACTORS),
        Column("score", "Score", "ratio"),
    )
    ranked = sorted(suite.arms, key=lambda arm: -suite.profiles[arm.label].score)
    rows = tuple((arm.name, *_row(suite, arm.label)) for arm in ranked)
    note = (
        "Time to target as a share of the budget, median over final runs, “–” for never; then the profile at some "
        f"factors, and its mean up to {LARGEST:g}."
    )
    return figure, Table("times", "Time to target", columns, rows, note)


def _row(suite: Suite, label: str) -> Iterator[Value]:
    for own in suite.times.values():
        yield own[label] if math.isfinite(own[label]) else None
    for factor in FACTORS:
        yield suite.profiles[label].at(factor)
    yield suite.profiles[label].score


def _line(arm: Arm, own: Profile) -> Line:
    """Return a profile as the corners of its stairs."""
    x, y = [1.0], [own.at(1.0)]
    for factor in [each for each in own.corners if 1 < each < LARGEST]:
        x, y = [*x, factor, factor], [*y, y[-1], own.at(factor)]
    none = (None,) * (len(x) + 1)
    return Line(arm.series, len(own.factors), (*x, LARGEST), (*y, y[-1]), none, none)


def _each(suite: Suite) -> Iterator[Element]:
    """Yield of each workload every optimizer at its best setting, the learning curves and the trials."""
    panels: list[Panel] = []
    for number, one in enumerate(suite.switches, 1):
        name = one.found.runs.asked.name
        own = switch.table(one, f"-{number}")
        yield replace(own, title=f"{name}: {own.title.lower()}", folded=True)
        figures = [each for each in curves(one.found) if isinstance(each, Figure)]
        panels += [each.panels[0] for each in figures if each.name == "validation-loss"]
        for tried in switch.trials(one):
            if isinstance(tried, Table):
                yield replace(tried, name=f"trials-{number}", title=f"{name}: every trial")
    if panels:
        caption = "Validation loss of the final runs, mean with 95% intervals over seeds."
        axes = Axis("step"), Axis("validation loss", log=True)
        yield Figure("curves", "Learning curves", caption, *axes, tuple(panels))


def _settings(suite: Suite, asked: CompareStudy, records: Sequence[JobRecord]) -> Iterator[Element]:
    columns = Column("what", "Setting"), Column("value", "Value", "exact")
    for number, one in enumerate(suite.switches, 1):
        own = settings(one.found)[0]
        assert isinstance(own, Table)
        yield replace(own, name=f"settings-{number}", title=one.found.runs.asked.name, columns=columns, folded=True)
    rows = tuple((arm.name, own.words) for arm in suite.arms if isinstance(own := asked.searches[arm.label], Space))
    yield Table("ranges", "What was tried", (Column("optimizer", "Optimizer"), Column("tried", "Ranges")), rows)
    yield optimizer_settings(suite.arms, "One value each, not tuned.")
    yield every_job(records)
    yield from in_full("compare", asked, records)

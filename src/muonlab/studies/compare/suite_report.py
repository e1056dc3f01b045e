"""The report on a suite of trainings: outcomes, final losses, performance profile, and each workload."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from muonlab.jobs.job import JobRecord
from muonlab.report.findings import (
    Axis,
    Column,
    Element,
    Figure,
    Findings,
    Forest,
    ForestRow,
    Line,
    Lines,
    Panel,
    Table,
    Text,
    Value,
)
from muonlab.stats.profile import LARGEST, Profile
from muonlab.studies.compare import answer as answers
from muonlab.studies.compare.config import CompareStudy
from muonlab.studies.compare.sections import SEARCHED, curves, searched, settings
from muonlab.studies.compare.sentences import on_present
from muonlab.studies.compare.suite import Suite, of, verdict
from muonlab.studies.compare.switch import Candidate, Outcome, Switch, any_lost
from muonlab.study.sections import columns, every_job, findings, in_full, optimizer_settings, over_runs
from muonlab.study.space import Space
from muonlab.study.study import Arm, Found
from muonlab.study.words import definitions

FACTORS = (1.0, 1.1, 1.25, 1.5, 2.0)  # at which the table shows a profile

OWN = """
Workload: A training with steps and batch of its own. All optimizers are tuned on each by as many trials.

Ratio: Final validation loss of an optimizer divided by {baseline}’s, geometric mean over the workloads, each counting
the same. Its 95% interval contains the luck of tuning, and is about these workloads with other seeds and other trials,
not about further workloads. p is Holm’s over the optimizers. The answer follows from it: equal where the whole interval
lies within {margin:.1%} of 1; better or worse where p is at most {alpha:g}; else inconclusive, and wherever the one
behind has its best learning rate near the edge of what was tried. Where final runs of either diverged there is no
ratio: p is then of how many of all did (Fisher’s exact test).

Outcome: Of the final validation loss on one workload, compared with {baseline}’s; p is Holm’s over all optimizers and
workloads of a budget. Equal: the whole 95% interval of the difference, which contains the luck of tuning, lies within
{margin:.1%} of {baseline}’s loss. Better and worse: not equal, and p is at most {alpha:g}. Undecided: all else, and
wherever the one behind has its best learning rate near the edge of what was tried.

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
    whole, shares = suites[0], asked.shares[1:]
    records = tuple(record for found in founds for record in found.records)
    controls = tuple(control for found in founds for control in found.controls)
    all_of = replace(founds[0], records=records, expected=sum(each.expected for each in founds), controls=controls)
    put = {"baseline": whole.baseline.name, "largest": LARGEST, "margin": asked.margin}
    sections = (
        ("Each workload against the baseline", answer(whole)),
        ("Time to target", profile(whole)),
        ("With less training", tuple(_outcomes(each, share) for each, share in zip(suites[1:], shares, strict=True))),
        ("Curves and trials", tuple(_each(whole))),
        ("What this does not show", (Text(LIMITS),)),
        ("Settings and jobs", tuple(_settings(whole, asked, records))),
        ("What the words mean", (definitions(OWN, values=put),)),
    )
    title = f"Suite {founds[0].runs.asked.suite}: {len(whole.arms)} optimizers on {number} workloads"
    found = findings(title, asked.question, verdict(whole, all_of), all_of, (), sections, version)
    return replace(found, first=first_screen(whole))


def first_screen(suite: Suite) -> tuple[Element, ...]:
    """Return the figure of all ratios, and a row for each optimizer."""
    known = [each for each in suite.standings if each.ratio.estimate.lower is not None]
    if not known and not any(any_lost(suite.counts(each.arm.label)) for each in suite.standings):
        return (Text("No optimizer has final runs on every workload yet."),)
    name = suite.baseline.name
    rows = tuple(ForestRow(each.arm.name, each.ratio.estimate, "{} + {}".format(*each.ratio.n)) for each in known)
    caption = (
        f"Geometric mean over {len(suite.switches)} workloads, with 95% intervals that contain the luck of tuning."
    )
    panel = Forest("", rows, 1.0, "lower loss", f"{name} lower", "ratio")
    title = f"Final validation loss divided by {name}’s"
    figure = Figure("ratios", title, caption, Axis("ratio of final losses", log=True), Axis(""), (panel,))
    head = f"ratio: Loss / {name}’s [ratio]; p_holm: p, Holm [p]; outcome: Outcome; score: Score [ratio]"
    own = tuple(
        (each.arm.name, each.ratio.estimate, each.p, each.outcome, each.profile.score if each.profile else None)
        for each in suite.standings
    )
    note = "Score: mean share of workloads on which it is about the fastest to the target (see Time to target)."
    table = Table("standings", "All workloads together", columns(f"optimizer: Optimizer; {head}"), own, note)
    return (figure, table) if rows else (table,)


def answer(suite: Suite) -> tuple[Element, ...]:
    """Return the final losses and the outcomes, optimizers by workloads."""
    head = Column("optimizer", "Optimizer"), *(Column(name, name, "number") for name in suite.names)
    rows = tuple((arm.name, *(_loss(each, arm) for each in suite.switches)) for arm in suite.arms)
    note = (
        "Final validation loss of each optimizer at its best setting: mean over final runs that did not diverge, with "
        "95% intervals over seeds; test examples have no part in it."
    )
    now = (Text(f"{each.found.runs.asked.name}: {words}") for each in suite.switches for words in on_present(each))
    return _outcomes(suite), Table("losses", "Final validation loss", head, rows, note), *now


def _loss(one: Switch, arm: Arm) -> Value:
    losses = [loss for loss in one.found.runs.losses(arm.label).values() if math.isfinite(loss)]
    return over_runs(losses) if losses else None


def _outcomes(suite: Suite, share: float = 1.0) -> Table:
    counts: tuple[Outcome, ...] = ("better", "worse", "equal", "undecided")
    head = (
        Column("optimizer", "Optimizer"),
        *(Column(name, name) for name in suite.names),
        *(Column(f"num_{each}", each.capitalize(), "count") for each in counts),
        *columns("num_interval_below: Interval below 0 [count]; num_interval_above: Interval above 0 [count]"),
    )
    rows = tuple(
        (
            each.arm.name,
            *map(_outcome, suite.switches, each.outcomes),
            *(each.count(word) for word in counts),
            *each.sides,
        )
        for each in suite.standings
    )
    note = (
        f"The outcome, and the difference of final losses as a share of {suite.baseline.name}’s. The last two columns "
        "count the workloads on which the 95% interval of the difference, each for itself, lies on one side of 0."
    )
    where = "" if share == 1 else f", {share:.0%} of the budget"
    key = "outcomes" if share == 1 else f"outcomes-{share:g}"
    return Table(key, f"Against {suite.baseline.name}{where}", head, rows, note)


def _outcome(one: Switch, own: Candidate) -> str:
    """Return the outcome with the difference as a share of the baseline's loss."""
    value, level = own.effect.estimate.value if own.effect else None, one.margin / one.found.runs.asked.margin
    if value is None or not level:
        return own.outcome
    percent = round(100 * value / level, 1) + 0.0  # no minus zero
    return f"{own.outcome}, {percent:+.1f}%".replace("-", "−")


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
    head = (
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
    return figure, Table("times", "Time to target", head, rows, note)


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
        own = answers.table(one, f"-{number}")
        yield replace(own, title=f"{name}: {own.title.lower()}", folded=True)
        figures = [each for each in curves(one.found) if isinstance(each, Figure)]
        panels += [each.panels[0] for each in figures if each.name == "validation-loss"]
        for tried in answers.trials(one):
            if isinstance(tried, Table):
                yield replace(tried, name=f"trials-{number}", title=f"{name}: every trial")
    if panels:
        caption = "Validation loss of the final runs, mean with 95% intervals over seeds."
        axes = Axis("step"), Axis("validation loss", log=True)
        yield Figure("curves", "Learning curves", caption, *axes, tuple(panels))


def _settings(suite: Suite, asked: CompareStudy, records: Sequence[JobRecord]) -> Iterator[Element]:
    for number, one in enumerate(suite.switches, 1):
        own = settings(one.found)[0]
        assert isinstance(own, Table)
        yield replace(own, name=f"settings-{number}", title=one.found.runs.asked.name, folded=True)
    rows = tuple((arm.name, own.words) for arm in suite.arms if isinstance(own := asked.searches[arm.label], Space))
    yield Table("ranges", "What was tried", columns("optimizer: Optimizer; tried: Ranges"), rows)
    yield optimizer_settings(suite.arms, SEARCHED, searched(asked))
    yield every_job(records)
    yield from in_full("compare", asked, records)

"""Sections of the report of a comparison, and its verdict."""

from collections.abc import Mapping, Sequence
from typing import Any

from muonlab.report.findings import Axis, Column, Element, Figure, Kind, Line, Lines, Table, Text, Value, Verdict
from muonlab.studies.compare import programs
from muonlab.study.judge import LABELS, Judged, together
from muonlab.study.sections import (
    columns,
    comparison_columns,
    comparison_values,
    every_job,
    forest,
    in_full,
    line_of,
    optimizer_settings,
    over_runs,
)
from muonlab.study.space import Space
from muonlab.study.study import ALPHA, Arm, Comparison, Found, Quantity
from muonlab.study.words import differences, missing_jobs, on_claim, on_edges

CURVES = ("validation_loss", "validation_accuracy", "train_loss")
ENDS: dict[str, Kind] = {  # what each run has at the end of training
    "train_loss": "number",
    "validation_loss": "number",
    "validation_accuracy": "accuracy",
    "test_accuracy": "accuracy",
}

OWN = """
Equal budget: Every arm trains the same net for {budget} steps on the same batches, at the learning rate that its own
search found best.

n: Final runs, one per seed. A seed draws the initial weights and the order of batches, the same for every arm; the data
are the same in all runs. So intervals and p are about new runs on this data, not about new data.

Interval: 95%. Of a mean: Student’s t over seeds. Of a difference: Welch’s t, which takes no account of seeds being
shared. Each stands for itself; of twenty, one misses by chance.

p: Welch’s t test of no difference, two-sided.

Yes: The first arm is on the side that the claim expects (a lower loss, a higher accuracy, fewer steps) in more than
half of the claim’s comparisons, against every rival, and on the other side in none. No: the same, on the other side. It
depends: each in some. Inconclusive: all else, and wherever a control failed.

Steps to the target loss: Of the first evaluation at which the validation loss was at most the target; a run that did
not reach it counts with the whole budget.

Diverged: A loss was not finite at some evaluation. The run ends there, and no mean includes it.
"""
ORDER = (
    *("Equal budget", "n", "Interval", "p", "Holm", "Higher, lower", "Yes", "Steps to the target loss", "Diverged"),
    *("Chance", "Limit", "Edge"),
)


def at_end(run: Mapping[str, Any], key: str) -> float:
    """Return the last value of a curve of a run; of the test set there is one alone."""
    return run[key] if key.startswith("test_") else run[key][-1]


def claims(found: Found, judged: Sequence[Judged]) -> tuple[Element, ...]:
    """Return a figure per claim, and a table of all comparisons."""
    if not found.rivals:
        return (Text(f"The study has {found.first.name} alone: there is nothing to compare it with."),)
    if not any(each.comparisons for each in judged):
        return (Text("No two arms have final runs yet."),)
    figures = [
        _figure(found, each, quantity, own)
        for each in judged
        for quantity in each.claim.quantities
        if (own := [pair for pair in each.comparisons if pair.quantity is quantity])
    ]
    rows = tuple(
        (f"({each.claim.letter}) {each.claim.title}", p.quantity.name, found.name(p.rival), *comparison_values(p))
        for each in judged
        for p in each.comparisons
    )
    head = *columns("claim: Claim; quantity: Quantity; rival: Rival"), *comparison_columns(found)
    note = (
        f"Holm’s p is adjusted over the comparisons of a claim; a side is named where it is at most {ALPHA:g}. "
        f"Intervals are 95%, each for itself. n: runs of {found.first.name} + of the rival."
    )
    return *figures, Table("claims", "Every comparison", head, rows, note)


def _figure(found: Found, judged: Judged, quantity: Quantity, pairs: Sequence[Comparison]) -> Figure:
    panel = forest(found, quantity.name, [(found.name(pair.rival), pair) for pair in pairs])
    title = f"({judged.claim.letter}) {judged.claim.title}: {quantity.name}"
    caption = f"{found.first.name} minus each rival, with the 95% interval (Welch)."
    axis = Axis(f"difference of {quantity.unit}")
    return Figure(f"claim-{judged.claim.letter}-{quantity.key}", title, caption, axis, Axis(""), (panel,))


def results(found: Found) -> tuple[Element, ...]:
    """Return what each arm reached at the end; none where no final run is done."""
    rows = [_row(found, arm) for arm in found.arms if found.runs.finals[arm.label]]
    if not rows:
        return ()
    head = (
        *columns("optimizer: Optimizer; rate: Learning rate [exact]"),
        *(Column(key, key.replace("_", " ").capitalize(), kind) for key, kind in ENDS.items()),
        *columns("chance: Chance [accuracy]; diverged: Diverged [count]; n: n [count]"),
    )
    note = "At the end of training, means over the runs that have not diverged, with 95% intervals over seeds."
    return (Table("results", "Every arm at its best learning rate", head, tuple(rows), note),)


def _row(found: Found, arm: Arm) -> tuple[Value, ...]:
    finals, ended = found.runs.finals[arm.label], found.runs.ended(arm.label)
    rate = found.runs.points[arm.label]["lr"]
    means = (
        over_runs((at_end(run, key) for run in ended.values()), kind) if ended else None for key, kind in ENDS.items()
    )
    return arm.name, rate, *means, found.runs.sizes.get("chance"), len(finals) - len(ended), len(ended)


def curves(found: Found) -> tuple[Element, ...]:
    """Return the curves of the final runs; none where none is done."""
    figures = []
    for key in CURVES:
        words = key.replace("_", " ")
        arms = [arm for arm in found.arms if _has(found, arm, key)]
        if lines := tuple(_line(found, arm, key) for arm in arms):
            caption = f"{words.capitalize()} of the final runs, mean with 95% intervals over seeds."
            panel = Lines(found.runs.asked.name, lines)
            axes = Axis("step"), Axis(words)
            figures.append(Figure(key.replace("_", "-"), words.capitalize(), caption, *axes, (panel,)))
    return tuple(figures)


def _has(found: Found, arm: Arm, key: str) -> bool:
    """Return whether an arm has final runs, and all of them this curve: a task without classes has no accuracy."""
    ended = found.runs.ended(arm.label).values()
    return bool(ended) and all(run[key][-1] is not None for run in ended)


def _line(found: Found, arm: Arm, key: str) -> Line:
    """Return a curve from the first evaluation at which all runs have a value: a program may not begin at step 0."""
    rows = list(zip(*(run[key] for run in found.runs.ended(arm.label).values()), strict=True))
    known = [(step, row) for step, row in zip(found.runs.asked.training.steps, rows, strict=True) if None not in row]
    points = [over_runs(row, ENDS[key]) for _, row in known]
    return line_of(arm.series, len(known[0][1]), [step for step, _ in known], points)


SEARCHED = "What is searched is under Tuning; of all else each has one value."


def searched(asked: Any) -> dict[str, dict[str, float | str]]:
    """Return by arm the settings of its trials, those with a range in a word; of a grid, which has one, none."""
    spaces = {label: own for label, own in asked.searches.items() if isinstance(own, Space)}
    return {label: {**own.defaults, **dict.fromkeys(own.ranges, "searched")} for label, own in spaces.items()}


def settings(found: Found) -> tuple[Element, ...]:
    """Return the data, the settings, the jobs and the config in full."""
    asked, sizes = found.runs.asked, found.runs.sizes
    what: dict[str, Any] = {
        **programs.settings(asked),
        **{key: sizes[key] for key in ("batch",) if key in sizes},  # where the task sets it
        **{key.replace("_", " "): sizes[key] for key in sizes if key.startswith("num_")},
        **({"trained one after the other": sizes["why_sequential"]} if sizes.get("why_sequential") else {}),
    }
    head = columns("what: Setting; value: Value [exact]")
    return (
        Table("settings", "What is trained", head, tuple(what.items())),
        optimizer_settings(found.arms, SEARCHED, searched(asked)),
        every_job(found.records),
        *in_full("compare", asked, found.records),
    )


# -- the verdict -----------------------------------------------------------------------------------


def verdict(found: Found, judged: Sequence[Judged]) -> Verdict:
    """Return the verdict over all claims: a sentence on them together, then one on each."""
    answer, label = together(judged)
    against = f"{found.first.name} against {found.names()}" if found.rivals else f"{found.first.name} alone"
    parts = [f"({each.claim.letter}) {each.claim.title.lower()}: {LABELS[each.answer].lower()}" for each in judged]
    sentence = f"{against}, at equal budget and each with its own tuned learning rate: {'; '.join(parts)}."
    more = tuple(_on_claim(found, each) for each in judged)
    return Verdict(answer, label, sentence, None, more, _scope(found), tuple(_cautions(found)))


def _on_claim(found: Found, judged: Judged) -> str:
    head = on_claim(judged.claim, LABELS[judged.answer].lower(), judged.why)
    return f"{head}. {differences(found, judged.comparisons)}" if judged.comparisons else f"{head}."


def _scope(found: Found) -> tuple[tuple[str, str], ...]:
    asked, sizes = found.runs.asked, found.runs.sizes
    size = (
        f" ({sizes['num_parameters']:,} parameters, {sizes['num_train']:,} examples)"
        if "num_parameters" in sizes
        else ""
    )
    searches = ", ".join(f"{arm.name} {found.runs.searches[arm.label].num_runs}" for arm in found.arms)
    return (
        ("net and data", f"{asked.name}{size}, {asked.training.budget} steps of {asked.training.batch}"),
        ("runs", f"{asked.seeds} seeds each, of initial weights and order of batches; the data are fixed"),
        ("tuning", f"learning rate alone, by validation loss; runs of the searches: {searches}"),
        ("not tuned", "all other settings: one value each (see Settings and jobs)"),
    )


def _cautions(found: Found) -> list[str]:
    """Return what weakens the answers."""
    runs = found.runs
    edges = [f"{arm.name} ({own.edge}, {own.best:g})" for arm in found.arms if (own := runs.searches[arm.label]).edge]
    lost: Mapping[str, int] = {arm.name: len(runs.finals[arm.label]) - len(runs.ended(arm.label)) for arm in found.arms}
    diverged = ", ".join(f"{number} of {runs.asked.seeds} {name} runs" for name, number in lost.items() if number)
    counts = {arm.name: number for arm in found.arms if (number := runs.searches[arm.label].num_runs)}
    said = [*missing_jobs(found.records, found.expected), *on_edges(edges)]
    said += [f"Diverged, and left out of every mean: {diverged}."] if diverged else []
    if len(set(counts.values())) > 1:
        words = ", ".join(f"{name} {number}" for name, number in counts.items())
        said.append(f"Searches had different numbers of runs: {words}.")
    return said

"""The tables of a grokking study: every condition, every comparison, every run."""

from collections.abc import Callable, Iterable, Sequence
from statistics import median

from muonlab.report.findings import Column, Kind, Table, Value
from muonlab.stats import survival
from muonlab.stats.proportions import wilson
from muonlab.stats.results import Estimate
from muonlab.studies.grokking.comparison import Pair, Tested, effect_sizes, every_pair
from muonlab.studies.grokking.conditions import (
    Condition,
    GrokkingRuns,
    label_of,
    recorded,
    recorded_number,
    was_followed,
)
from muonlab.studies.grokking.reading import Cell
from muonlab.study.controls import Control
from muonlab.study.words import several

Part = tuple[Column, Callable[..., Value]]  # a column, and its value in a row


def _part(key: str, title: str, kind: Kind, value: Callable[..., Value]) -> Part:
    return Column(key, title, kind), value


def _table(
    name: str, title: str, parts: Sequence[Part], rows: Iterable[object], note: str = "", *, folded: bool = False
) -> Table:
    values = tuple(tuple(value(row) for _, value in parts) for row in rows)
    return Table(name, title, tuple(column for column, _ in parts), values, note, folded)


def _place(conditions: Sequence[Condition]) -> list[Part]:
    """Return the columns that name a condition."""
    parts = [
        _part("task", "Task", "text", lambda c: c.config.task.name),
        _part("loss", "Loss", "text", lambda c: c.config.loss),
        _part("others", "Setting", "text", lambda c: c.others),
        _part("optimizer", "Optimizer", "text", lambda c: c.variant),
    ]
    return [part for part in parts if part[0].key != "others" or any(c.others for c in conditions)]


# -- conditions ------------------------------------------------------------------------------------


def times(runs: GrokkingRuns) -> Table:
    """Return the time to the first crossing of every condition, in steps, epochs, FLOPs and seconds."""
    parts = [
        *_place(runs.held),
        _part("n", "n", "count", lambda c: len(c.members)),
        _part("crossed", "Crossed", "count", lambda c: len(c.crossed)),
        _part("share_crossed", "Share crossed", "percent", lambda c: wilson(len(c.crossed), len(c.members))),
        _part("median_steps", "Median, steps", "count", lambda c: c.median_time()),
        _part("mean_steps", "Mean, steps", "count", _mean),
        _part("median_epochs", "Median, epochs", "number", lambda c: _median(c, c.epochs_per_step)),
        _part(
            "median_flops", "Median, FLOPs of matrix products", "number", lambda c: _median(c, c.result.flops_per_step)
        ),
        _part("median_seconds", "Median, seconds", "number", lambda c: _median(c, c.seconds_per_step)),
    ]
    cadences = several(dict.fromkeys(c.config.protocol.cadence for c in runs.held))
    horizons = several(dict.fromkeys(f"{c.budget:,}" for c in runs.held))
    note = (
        f"Intervals are of 95%. Runs were evaluated every {cadences} steps: a crossing at step t happened within the "
        f"{cadences} steps before t. The mean is the restricted one, to the horizon of {horizons} steps: a run that "
        "never crossed, also one that diverged, counts with the whole budget. Seconds are of one run on this machine, "
        "as its share of the population that was trained at once."
    )
    return _table("times", "Time to the first crossing", parts, runs.held, note)


def _mean(condition: Condition) -> Estimate:
    steps, crossed = condition.times()
    return survival.restricted_mean(steps, crossed, condition.budget)


def _median(condition: Condition, factor: float | None) -> float | None:
    steps = condition.median_time().value
    return None if steps is None or factor is None else steps * factor


def lasting(runs: GrokkingRuns) -> Table:
    """Return what became of the runs of every condition after their first crossing."""
    parts = [
        *_place(runs.held),
        _part("n", "n", "count", lambda c: len(c.members)),
        _part("crossed", "Crossed", "count", lambda c: len(c.crossed)),
        _part("sustained", "Stayed", "count", _num_sustained),
        _part("too_late", "Crossed too late to follow", "count", lambda c: len(c.crossed) - _num_followed(c) or None),
        _part(
            "share_sustained",
            "Stayed, of those followed",
            "percent",
            lambda c: wilson(_num_sustained(c), _num_followed(c)),
        ),
        _part("median_steps_sustained", "Median sustained, steps", "count", lambda c: c.median_time(sustained=True)),
        _part("lowest_minimum", "Lowest accuracy after", "accuracy", lambda c: min(_minima(c), default=None)),
        _part(
            "median_minimum", "Median of the lowest", "accuracy", lambda c: median(_minima(c)) if _minima(c) else None
        ),
        _part("diverged", "Diverged", "count", lambda c: sum(m.diverged_at is not None for m in c.members)),
    ]
    note = (
        "“Stayed”: from some evaluation on, validation accuracy did not fall below the threshold again, as long as "
        "the protocol follows a run; the share leaves out runs that crossed too late to be followed. “Lowest accuracy "
        "after” is the smallest validation accuracy from the first crossing on."
    )
    return _table("lasting", "After the crossing", parts, runs.held, note)


def _num_sustained(condition: Condition) -> int:
    return sum(member.sustained_crossing is not None for member in condition.members)


def _num_followed(condition: Condition) -> int:
    return sum(was_followed(member) for member in condition.members)


def _minima(condition: Condition) -> list[float]:
    return [m.minimum_after_crossing for m in condition.crossed if m.minimum_after_crossing is not None]


def costs(runs: GrokkingRuns) -> Table:
    """Return what each variant was given and what its step costs."""
    columns = (
        Column("optimizer", "Optimizer"),
        Column("lr", "lr", "exact"),
        Column("weight_decay", "Weight decay", "exact"),
        Column("lr_times_decay", "lr × decay", "exact"),
        Column("others_lr", "lr of other parameters", "exact"),
        Column("others_decay", "Their decay", "exact"),
        Column("others_lr_times_decay", "Their lr × decay", "exact"),
        Column("flops_per_step", "FLOPs of matrix products per step", "number"),
        Column("seconds_per_step", "Seconds per step of a run", "number"),
    )
    rows = []
    for arm in dict.fromkeys(c.arm for c in runs.held):
        for variant, conditions in runs.variants(arm).items():
            seconds = [c.seconds_per_step for c in conditions if c.seconds_per_step is not None]
            flops = median(c.result.flops_per_step for c in conditions)
            rows.append((variant, *_settings(conditions[0]), flops, median(seconds) if seconds else None))
    note = (
        "Decoupled weight decay shrinks a weight by lr × decay per step. “Other parameters” are those that Muon leaves "
        "to AdamW, such as embeddings. The FLOPs of matrix products are those of one step of one run, the optimizer’s "
        "own included; where tasks or sizes differ, the middle one is shown. Seconds are of this machine."
    )
    return Table("costs", "What each optimizer was given, and what a step costs", columns, tuple(rows), note)


def _settings(condition: Condition) -> list[Value]:
    """Learning rate, decay and their product: its own, and those of the parameters that it leaves to AdamW."""
    given, found = condition.config.optimizer.model_dump(), []
    for prefix in ("", "adamw_"):
        rate, decay = given.get(f"{prefix}lr"), given.get(f"{prefix}weight_decay")
        found += [rate, decay, None if rate is None or decay is None else rate * decay]
    return found


def controls(runs: GrokkingRuns, judged: Sequence[Control]) -> Table:
    """Return the controls with the accuracy that they reached and the one that guessing explains."""
    states = {"passed": True, "failed": False, "cannot tell": "too few validation rows to tell"}
    place = [(column, lambda row, value=value: value(row[0])) for column, value in _place(runs.controls)]
    parts = [
        *place,
        _part("n", "n", "count", lambda row: row[1].n),
        _part("looks", "Evaluations", "count", lambda row: row[0].num_evaluations),
        _part("chance", "Chance", "accuracy", lambda row: row[1].expected),
        _part("best", "Best on validation", "accuracy", lambda row: row[1].value),
        _part("limit", "Limit of guessing", "accuracy", lambda row: row[1].limit),
        _part("stayed", "Stayed at chance", "text", lambda row: states[row[1].state]),
    ]
    note = (
        "The same runs on labels that were shuffled over all rows, differently for each run. The limit is the accuracy "
        "that guessing exceeds with a probability of at most 0.001, at any evaluation of any run of the row."
    )
    rows = list(zip(runs.controls, judged, strict=True))
    return _table("controls", "Controls on random labels", parts, rows, note)


# -- comparisons -----------------------------------------------------------------------------------


def blocks(pair: Pair, family: Sequence[Tested]) -> Table:
    """Return the comparison within each block."""
    first, second = pair.variants
    columns = (
        Column("block", "Block"),
        Column("ratio", "Ratio of mean steps", "ratio"),
        Column("n_first", f"n, {first}", "count"),
        Column("n_second", f"n, {second}", "count"),
        Column("crossed_first", f"Crossed, {first}", "count"),
        Column("crossed_second", f"Crossed, {second}", "count"),
        Column("shift_steps", "Shift, steps", "count"),
        Column("cliffs_delta", "Cliff’s delta", "ratio"),
        Column("p", "Log-rank p", "p"),
        Column("p_holm", "p, Holm", "p"),
    )
    log_rank = {each.over: each for each in family if each.pair is pair and "log-rank" in each.test.name}
    rows = []
    for block, both in pair.blocks.items():
        # The test over all blocks is that of the block where there is one.
        tested = log_rank[block if len(pair.blocks) > 1 else "all blocks"]
        sizes = *(len(c.members) for c in both), *(len(c.crossed) for c in both)
        ratio = pair.only([block]).ratio
        rows.append((block, ratio, *sizes, *effect_sizes(pair, block), tested.test.p, tested.adjusted_p))
    note = (
        f"{first} over {second}, or minus it: a ratio below 1, a negative shift and a negative delta say that {first} "
        "is sooner. The shift is Hodges and Lehmann’s, in steps, of the runs that crossed; Cliff’s delta takes all "
        "runs, those that never crossed tied at the end."
    )
    return Table(f"blocks-{pair.name}", f"{first} against {second}, block by block", columns, tuple(rows), note)


def tests(family: Sequence[Tested]) -> Table:
    """Return every test with its p-value as it is and adjusted over all of them."""
    parts = [
        _part("comparison", "Comparison", "text", lambda each: " – ".join(each.pair.variants)),
        _part("over", "Over", "text", lambda each: each.over),
        _part("test", "Test", "text", lambda each: each.test.name),
        _part("p", "p", "p", lambda each: each.test.p),
        _part("p_holm", "p, Holm", "p", lambda each: each.adjusted_p),
        _part("statistic", "Statistic", "number", lambda each: each.test.statistic),
        _part("degrees_of_freedom", "df", "number", lambda each: each.test.degrees_of_freedom),
        _part("n_first", "n, first", "count", lambda each: each.test.n[0]),
        _part("n_second", "n, second", "count", lambda each: each.test.n[1]),
        _part("reason", "Remark", "text", lambda each: each.test.reason or ""),
    ]
    known = sum(each.test.p is not None for each in family)
    note = (
        f"All two-sided. Holm’s adjustment is over the {known} tests of this table that gave a p-value. What is said "
        "of a comparison rests on its permutation test, its first row. Welch’s t on pooled epochs of the runs that "
        "crossed is what arXiv 2504.16041 did; it drops the runs that never crossed and mixes tasks whose times differ."
    )
    return _table("tests", "All tests of this report", parts, family, note)


def pairs_of_settings(pair: Pair) -> Table:
    """Return the ratio for every setting of the first arm with every one of the second."""
    first, second = pair.names
    parts = [
        _part("first", first, "text", lambda each: each.variants[0]),
        _part("second", second, "text", lambda each: each.variants[1]),
        _part("blocks", "Blocks", "count", lambda each: len(each.blocks)),
        _part("n_first", f"n, {first}", "count", lambda each: each.num_runs[0]),
        _part("n_second", f"n, {second}", "count", lambda each: each.num_runs[1]),
        _part("ratio", "Ratio of mean steps", "ratio", lambda each: each.ratio if each.blocks else None),
        _part("in_verdict", "In the verdict", "text", lambda each: each.variants == pair.variants),
    ]
    return _table(f"settings-{pair.name}", "How the answer depends on the settings", parts, every_pair(pair))


# -- every run and every cell ----------------------------------------------------------------------


def every_run(runs: GrokkingRuns) -> Table:
    """Return one row for every run, controls included."""
    conditions = [*runs.held, *runs.controls]
    place = _place(conditions)
    columns = (
        *(column for column, _ in place),
        Column("labels", "Labels"),
        Column("seed", "Seed", "count"),
        Column("first_step", "First crossing", "count"),
        Column("after_step", "Not before", "count"),
        Column("first_epoch", "Epoch", "number"),
        Column("first_flops", "FLOPs of matrix products", "number"),
        Column("sustained_step", "Sustained crossing", "count"),
        Column("minimum_after", "Lowest after", "accuracy"),
        Column("best_validation", "Best on validation", "accuracy"),
        Column("last_step", "Last step", "count"),
        Column("diverged_at", "Diverged at", "count"),
        Column("reason", "Remark"),
    )
    rows = []
    for condition in conditions:
        where = (*(value(condition) for _, value in place), condition.config.task.labels)
        for m in condition.members:
            first = m.first_crossing
            crossing = (first.step, first.after_step, first.epoch, first.flops) if first else (None,) * 4
            sustained = m.sustained_crossing.step if m.sustained_crossing else None
            after = m.minimum_after_crossing, m.best_validation_accuracy, m.last_step, m.diverged_at
            reason = m.first_crossing_reason or m.sustained_crossing_reason or ""
            rows.append((*where, m.seed, *crossing, sustained, *after, reason))
    note = "A crossing lies after the step “not before” and not later than “first crossing”."
    return Table("runs", "Every run", columns, tuple(rows), note, folded=True)


def every_cell(runs: GrokkingRuns) -> Table:
    """Return one row for every cell of the plan, whatever became of it."""
    names = {arm.label: arm.name for arm in runs.arms}
    parts = [
        _part("cell", "Job", "text", lambda cell: cell.record.id),
        _part("task", "Task", "text", lambda cell: cell.config.task.name),
        _part("loss", "Loss", "text", lambda cell: cell.config.loss),
        _part("optimizer", "Optimizer", "text", lambda cell: names[label_of(cell.config)]),
        _part("labels", "Labels", "text", lambda cell: cell.config.task.labels),
        _part("seeds", "Seeds", "text", lambda cell: " ".join(map(str, cell.config.seeds))),
        _part("status", "Status", "text", lambda cell: cell.record.status),
        _part("sessions", "Sessions", "count", _num_sessions),
        _part("seconds", "Seconds", "number", lambda cell: cell.record.seconds),
        _part(
            "peak_memory_mb",
            "Peak memory, MB",
            "number",
            lambda cell: recorded_number(cell.record.environment, "peak_memory_mb"),
        ),
        _part("reason", "Remark", "text", lambda cell: cell.record.reason or ""),
    ]
    return _table("cells", "Every job", parts, runs.cells, folded=True)


def _num_sessions(cell: Cell) -> int:
    return len(recorded(cell.record.environment, "sessions", list) or [])

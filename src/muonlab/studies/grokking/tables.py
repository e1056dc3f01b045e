"""The tables of a grokking study: every condition, every comparison, every run."""

from collections.abc import Sequence
from statistics import median

from muonlab.report.findings import Column, Table, Value
from muonlab.stats import survival
from muonlab.stats.proportions import wilson
from muonlab.stats.results import TestResult
from muonlab.studies.grokking.comparison import Comparison, effect_sizes, every_pair
from muonlab.studies.grokking.conditions import NAMES, Condition, GrokkingRuns, was_followed
from muonlab.studies.grokking.config import OwnOptimizer
from muonlab.studies.grokking.controls import Control
from muonlab.studies.grokking.scope import several

Tests = Sequence[tuple[Comparison, str, TestResult, float | None]]


def place_columns(conditions: Sequence[Condition]) -> tuple[Column, ...]:
    """Return the columns that name a condition; `place_of` fills them."""
    columns = [Column("task", "Task"), Column("loss", "Loss")]
    if any(condition.others for condition in conditions):
        columns.append(Column("others", "Setting"))
    return (*columns, Column("optimizer", "Optimizer"))


def place_of(condition: Condition, columns: Sequence[Column]) -> tuple[Value, ...]:
    """Return the values of `place_columns`."""
    values: dict[str, Value] = {
        "task": condition.config.task.name,
        "loss": condition.config.loss,
        "others": condition.others,
        "optimizer": condition.variant,
    }
    return tuple(values[column.key] for column in columns)


def times(runs: GrokkingRuns) -> Table:
    """Return the time to the first crossing of every condition, in steps, epochs, FLOPs and seconds."""
    conditions = runs.with_runs()
    place = place_columns(conditions)
    columns = (
        *place,
        Column("n", "n", "count"),
        Column("crossed", "Crossed", "count"),
        Column("share_crossed", "Share crossed", "percent"),
        Column("median_steps", "Median, steps", "count"),
        Column("mean_steps", "Mean, steps", "count"),
        Column("median_epochs", "Median, epochs", "number"),
        Column("median_flops", "Median, FLOPs of matrix products", "number"),
        Column("median_seconds", "Median, seconds", "number"),
    )
    rows = tuple((*place_of(c, place), *_times_of(c)) for c in conditions)
    cadences = several(dict.fromkeys(c.config.protocol.cadence for c in conditions))
    horizons = several(dict.fromkeys(f"{c.budget:,}" for c in conditions))
    note = (
        f"Intervals are of 95%. Runs were looked at every {cadences} steps: a crossing at step t happened within the "
        f"{cadences} steps before t. The mean is the restricted one, to the horizon of {horizons} steps: a run that "
        "never crossed, also one that diverged, counts with the whole budget. Seconds are of one run on this machine, "
        "as its share of the population that was trained at once."
    )
    return Table("times", "Time to the first crossing", columns, rows, note)


def _times_of(condition: Condition) -> tuple[Value, ...]:
    steps, crossed = condition.times()
    middle = survival.median_time(survival.kaplan_meier(steps, crossed))
    mean = survival.restricted_mean(steps, crossed, condition.budget)
    seconds = condition.seconds_per_step
    return (
        len(steps),
        int(crossed.sum()),
        wilson(int(crossed.sum()), len(steps)),
        middle,
        mean,
        _scaled(middle.value, condition.epochs_per_step),
        _scaled(middle.value, condition.result.flops_per_step),
        _scaled(middle.value, seconds),
    )


def _scaled(value: float | None, factor: float | None) -> float | None:
    return None if value is None or factor is None else value * factor


def lasting(runs: GrokkingRuns) -> Table:
    """Return what became of the runs of every condition after their first crossing."""
    conditions = runs.with_runs()
    place = place_columns(conditions)
    columns = (
        *place,
        Column("n", "n", "count"),
        Column("crossed", "Crossed", "count"),
        Column("sustained", "Stayed", "count"),
        Column("too_late", "Crossed too late to follow", "count"),
        Column("share_sustained", "Stayed, of those followed", "percent"),
        Column("median_steps_sustained", "Median sustained, steps", "count"),
        Column("lowest_minimum", "Lowest accuracy after", "accuracy"),
        Column("median_minimum", "Median of the lowest", "accuracy"),
        Column("diverged", "Diverged", "count"),
    )
    rows = tuple((*place_of(c, place), *_lasting_of(c)) for c in conditions)
    note = (
        "“Stayed”: from some evaluation on, validation accuracy did not fall below the threshold again, as long as "
        "the protocol follows a run; the share leaves out runs that crossed too late to be followed. “Lowest accuracy "
        "after” is the smallest validation accuracy from the first crossing on."
    )
    return Table("lasting", "After the crossing", columns, rows, note)


def _lasting_of(condition: Condition) -> tuple[Value, ...]:
    steps, sustained = condition.times(sustained=True)
    crossed = [member for member in condition.members if member.first_crossing]
    num_followed = sum(was_followed(member) for member in crossed)
    lowest = [m.minimum_after_crossing for m in crossed if m.minimum_after_crossing is not None]
    return (
        len(condition.members),
        len(crossed),
        int(sustained.sum()),
        len(crossed) - num_followed or None,
        wilson(int(sustained.sum()), num_followed),
        survival.median_time(survival.kaplan_meier(steps, sustained)),
        min(lowest, default=None),
        float(median(lowest)) if lowest else None,
        sum(member.diverged_at is not None for member in condition.members),
    )


def blocks(pair: Comparison, tests: Tests) -> Table:
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
    p_values = {scope: (test.p, adjusted) for owner, scope, test, adjusted in tests if owner is pair}
    if len(pair.pairs) == 1:  # the test over all blocks is that of the block
        (block,) = pair.pairs
        p_values[block] = next((t.p, adjusted) for owner, _, t, adjusted in tests if owner is pair and "log" in t.name)
    rows = []
    for block, both in pair.pairs.items():
        crossed = [int(condition.times()[1].sum()) for condition in both]
        shift, delta = effect_sizes(pair, block)
        ratio = pair.only([block]).ratio()
        sizes = (len(both[0].members), len(both[1].members), *crossed)
        rows.append((block, ratio, *sizes, shift, delta, *p_values[block]))
    note = (
        f"{first} over {second}, or minus it: a ratio below 1, a negative shift and a negative delta say that {first} "
        "is sooner. The shift is Hodges and Lehmann’s, in steps, of the runs that crossed; Cliff’s delta takes all "
        "runs, those that never crossed tied at the end."
    )
    return Table(f"blocks-{pair.name}", f"{first} against {second}, block by block", columns, tuple(rows), note)


def tests(family: Tests) -> Table:
    """Return every test with its p-value as it is and adjusted over all of them."""
    columns = (
        Column("comparison", "Comparison"),
        Column("over", "Over"),
        Column("test", "Test"),
        Column("p", "p", "p"),
        Column("p_holm", "p, Holm", "p"),
        Column("statistic", "Statistic", "number"),
        Column("degrees_of_freedom", "df", "number"),
        Column("n_first", "n, first", "count"),
        Column("n_second", "n, second", "count"),
        Column("reason", "Remark"),
    )
    rows = tuple(
        (
            " – ".join(pair.variants),
            scope,
            test.name,
            test.p,
            adjusted,
            test.statistic,
            test.degrees_of_freedom,
            *test.n,
            test.reason or "",
        )
        for pair, scope, test, adjusted in family
    )
    known = sum(test.p is not None for _, _, test, _ in family)
    note = (
        f"All two-sided. Holm’s adjustment is over the {known} tests of this table that gave a p-value. What is said "
        "of a comparison rests on its permutation test, its first row. Welch’s t on pooled epochs of the runs that "
        "crossed is what arXiv 2504.16041 did; it drops the runs that never crossed and mixes tasks whose times differ."
    )
    return Table("tests", "All tests of this report", columns, rows, note)


def pairs_of_settings(runs: GrokkingRuns, pair: Comparison) -> Table:
    """Return the ratio for every setting of the first optimizer with every one of the second."""
    first, second = (NAMES[optimizer] for optimizer in pair.optimizers)
    columns = (
        Column("first", first),
        Column("second", second),
        Column("blocks", "Blocks", "count"),
        Column("n_first", f"n, {first}", "count"),
        Column("n_second", f"n, {second}", "count"),
        Column("ratio", "Ratio of mean steps", "ratio"),
        Column("in_verdict", "In the verdict"),
    )
    rows = tuple(
        (
            *other.variants,
            len(other.pairs),
            *other.num_runs,
            other.ratio() if other.pairs else None,
            other.variants == pair.variants,
        )
        for other in every_pair(runs, *pair.optimizers)
    )
    return Table(f"settings-{pair.name}", "How the answer depends on the settings", columns, rows)


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
        Column("flops_per_step", "FLOPs of matrix products a step", "number"),
        Column("seconds_per_step", "Seconds a step of a run", "number"),
    )
    rows = []
    for optimizer in dict.fromkeys(c.optimizer for c in runs.with_runs()):
        for variant in runs.variants(optimizer):
            conditions = [c for c in runs.with_runs() if c.variant == variant]
            rows.append((variant, *_settings(conditions[0]), *_costs(conditions)))
    note = (
        "Decoupled weight decay shrinks a weight by lr × decay a step. “Other parameters” are those that Muon leaves "
        "to AdamW, such as embeddings. The FLOPs of matrix products are those of one step of one run, the optimizer’s "
        "own included; where tasks or sizes differ, the middle one is shown. Seconds are of this machine."
    )
    return Table("costs", "What each optimizer was given, and what a step costs", columns, tuple(rows), note)


def _settings(condition: Condition) -> tuple[Value, ...]:
    optimizer = condition.config.optimizer
    if isinstance(optimizer, OwnOptimizer):
        return (optimizer.lr, None, None, None, None, None)
    own = (optimizer.lr, optimizer.weight_decay, optimizer.lr * optimizer.weight_decay)
    if optimizer.name != "muon":
        return (*own, None, None, None)
    rate, decay = optimizer.adamw_lr, optimizer.adamw_weight_decay
    return (*own, rate, decay, rate * decay)


def _costs(conditions: list[Condition]) -> tuple[Value, Value]:
    seconds = [c.seconds_per_step for c in conditions if c.seconds_per_step is not None]
    flops = median(c.result.flops_per_step for c in conditions)
    return flops, median(seconds) if seconds else None


def controls(judged: Sequence[Control]) -> Table:
    """Return the controls with what they reached and what guessing explains."""
    place = place_columns([control.condition for control in judged])
    columns = (
        *place,
        Column("n", "n", "count"),
        Column("looks", "Evaluations", "count"),
        Column("chance", "Chance", "accuracy"),
        Column("best", "Best on validation", "accuracy"),
        Column("limit", "Limit of guessing", "accuracy"),
        Column("stayed", "Stayed at chance"),
    )
    rows = []
    for c in judged:
        stayed = c.stayed if c.can_tell else "too few validation rows to tell"
        numbers = (len(c.condition.members), c.num_looks, c.chance, c.best, c.limit, stayed)
        rows.append((*place_of(c.condition, place), *numbers))
    note = (
        "The same runs on labels that were shuffled over all rows, for each run anew. The limit is the accuracy that "
        "guessing exceeds with a probability of at most 0.001, at any evaluation of any run of the row."
    )
    return Table("controls", "Controls on random labels", columns, tuple(rows), note)

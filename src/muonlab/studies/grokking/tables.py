"""The tables of a grokking study: every condition, every comparison, every run."""

from collections.abc import Callable, Sequence
from statistics import median

import numpy as np

from muonlab.report.findings import Column, Table, Value, as_text
from muonlab.stats import survival
from muonlab.stats.proportions import wilson
from muonlab.studies.grokking.comparison import Pair, Tested, effect_sizes, every_pair
from muonlab.studies.grokking.conditions import Condition, GrokkingRuns, recorded, recorded_number
from muonlab.study.controls import Control
from muonlab.study.sections import columns
from muonlab.study.study import ALPHA
from muonlab.study.words import several

Place = tuple[tuple[Column, ...], Callable[[Condition], tuple[str, ...]]]


def _place(conditions: Sequence[Condition]) -> Place:
    """Return the columns that name a condition, and its values in them."""
    has_others = any(c.others for c in conditions)

    def values(c: Condition) -> tuple[str, ...]:
        return (c.config.task.name, c.config.loss, *([c.others] if has_others else []), c.variant)

    return columns(f"task: Task; loss: Loss; {'others: Setting; ' * has_others}optimizer: Optimizer"), values


# -- conditions ------------------------------------------------------------------------------------


def times(runs: GrokkingRuns) -> Table:
    """Return the time to the first crossing of every condition, in steps, epochs, FLOPs and seconds."""
    place, where = _place(runs.held)
    of_times = columns(
        "n: n [count]; crossed: Crossed [count]; share_crossed: Share crossed [percent]; "
        "median_steps: Median, steps [count]; mean_steps: Mean, steps [count]; median_epochs: Median, epochs [number]; "
        "median_flops: Median, FLOPs of matrix products [number]; median_seconds: Median, seconds [number]"
    )
    rows = []
    for c in runs.held:
        n, crossed, middle = len(c.members), len(c.crossed), c.median_time()
        mean = survival.restricted_mean(c.middles, c.times()[1], c.budget)
        factors = c.epochs_per_step, c.result.flops_per_step, c.seconds_per_step
        others = (None if middle.value is None or factor is None else middle.value * factor for factor in factors)
        rows.append((*where(c), n, crossed, wilson(crossed, n), middle, mean, *others))
    cadences = several(dict.fromkeys(c.config.protocol.cadence for c in runs.held))
    horizons = several(dict.fromkeys(f"{c.budget:,}" for c in runs.held))
    note = (
        f"Intervals are of 95%. Runs were evaluated every {cadences} steps: a crossing at step t happened within the "
        f"{cadences} steps before t, and the mean has it in the middle of them. It is the restricted mean, to "
        f"the horizon of {horizons} steps: a run that never crossed, also one that diverged, counts with the whole "
        "budget. Seconds are of one run on this machine, "
        "as its share of the population that was trained at once."
    )
    return Table("times", "Time to the first crossing", (*place, *of_times), tuple(rows), note)


def lasting(runs: GrokkingRuns) -> Table:
    """Return what became of the runs of every condition after their first crossing."""
    place, where = _place(runs.held)
    after = columns(
        "n: n [count]; crossed: Crossed [count]; sustained: Stayed [count]; "
        "too_late: Crossed too late to follow [count]; share_sustained: Stayed, of those followed [percent]; "
        "median_steps_sustained: Median sustained, steps [count]; lowest_minimum: Lowest accuracy after [accuracy]; "
        "median_minimum: Median of the lowest [accuracy]; diverged: Diverged [count]"
    )
    rows = []
    for c in runs.held:
        crossed, stayed, followed = len(c.crossed), len(c.sustained), len(c.followed)
        counts = len(c.members), crossed, stayed, crossed - followed or None, wilson(stayed, followed)
        lowest = min(c.minima, default=None), median(c.minima) if c.minima else None
        diverged = sum(m.diverged_at is not None for m in c.members)
        rows.append((*where(c), *counts, c.median_time(sustained=True), *lowest, diverged))
    note = (
        "“Stayed”: from some evaluation on, validation accuracy did not fall below the threshold again, as long as "
        "the protocol follows a run; the share leaves out runs that crossed too late to be followed. “Lowest accuracy "
        "after” is the smallest validation accuracy from the first crossing on."
    )
    return Table("lasting", "After the crossing", (*place, *after), tuple(rows), note)


def costs(runs: GrokkingRuns) -> Table:
    """Return what each variant was given and what its step costs."""
    given = columns(
        "optimizer: Optimizer; lr: lr [exact]; weight_decay: Weight decay [exact]; lr_times_decay: lr × decay [exact]; "
        "others_lr: lr of other parameters [exact]; others_decay: Their decay [exact]; "
        "others_lr_times_decay: Their lr × decay [exact]; "
        "flops_per_step: FLOPs of matrix products per step [number]; "
        "seconds_per_step: Seconds per step of a run [number]"
    )
    rows = []
    for arm in dict.fromkeys(c.arm for c in runs.held):
        for variant, conditions in runs.variants(arm).items():
            recipe, settings = conditions[0].config.optimizer.model_dump(), []
            for prefix in ("", "adamw_"):  # its own, and those of the parameters that it leaves to AdamW
                rate, decay = recipe.get(f"{prefix}lr"), recipe.get(f"{prefix}weight_decay")
                settings += [rate, decay, None if rate is None or decay is None else rate * decay]
            seconds = [c.seconds_per_step for c in conditions if c.seconds_per_step is not None]
            flops = median(c.result.flops_per_step for c in conditions)
            rows.append((variant, *settings, flops, median(seconds) if seconds else None))
    note = (
        "Decoupled weight decay shrinks a weight by lr × decay per step. “Other parameters” are those that Muon leaves "
        "to AdamW, such as embeddings. The FLOPs of matrix products are those of one step of one run, the optimizer’s "
        "own included, with the net at all positions; where tasks or sizes differ, the middle one is shown. Seconds "
        "are of this machine, and hold its load and what it compiled."
    )
    return Table("costs", "What each optimizer was given, and what a step costs", given, tuple(rows), note)


def controls(runs: GrokkingRuns, judged: Sequence[Control]) -> Table:
    """Return the controls with the accuracy that they reached and the one that guessing explains."""
    states = {"passed": True, "failed": False, "cannot tell": "too few validation rows to tell"}
    place, where = _place(runs.controls)
    of_control = columns(
        "n: n [count]; looks: Evaluations [count]; chance: Chance [accuracy]; best: Best on validation [accuracy]; "
        "limit: Limit of guessing [accuracy]; stayed: Stayed at chance"
    )
    rows = tuple(
        (*where(c), own.n, c.num_evaluations, own.expected, own.value, own.limit, states[own.state])
        for c, own in zip(runs.controls, judged, strict=True)
    )
    note = (
        "The same runs on labels that were shuffled over all rows, differently for each run. The limit is the accuracy "
        "that guessing exceeds with a probability of at most 0.001, at any evaluation of any run of the row."
    )
    return Table("controls", "Controls on random labels", (*place, *of_control), rows, note)


def spread(runs: GrokkingRuns) -> Table:
    """Return where the spread of the times comes from: the variance between runs that differ in one source alone."""
    of_spread = columns(
        "task: Task; loss: Loss; optimizer: Optimizer; varies: What differs; n: n [count]; crossed: Crossed [count]; "
        "deviation: Standard deviation of log steps [ratio]; share: Its variance, of that of all [percent]"
    )
    found: dict[tuple[str, str, str], dict[str, Condition]] = {}
    for c in (*runs.held, *runs.sources):
        own = found.setdefault((c.config.task.name, c.config.loss, c.arm), {})
        own.setdefault(c.config.protocol.varies, c)
    rows = []
    for place, own in found.items():
        for source in ("all", "init", "split", "order"):
            if (c := own.get(source)) and len(own) > 1:
                logs = {name: np.log(np.maximum(each.middles, 1.0)) for name, each in own.items()}
                variance = {name: float(each.var(ddof=1)) for name, each in logs.items() if len(each) > 1}
                mine, whole = variance.get(source), variance.get("all")
                share = mine / whole if mine is not None and whole else None
                deviation = None if mine is None else mine**0.5
                rows.append((*place[:2], c.variant, source, len(c.members), len(c.crossed), deviation, share))
    note = (
        "Of the logarithm of the steps to the first crossing, the budget for runs that did not cross. All other "
        "sources are those of seed 0. The shares of init (weights and dropout), split and order add up to 100% where "
        "sources do not interact; with few runs each is known to a factor of two or so."
    )
    return Table("spread", "Where the spread between runs comes from", of_spread, tuple(rows), note)


# -- comparisons -----------------------------------------------------------------------------------


def blocks(pair: Pair, family: Sequence[Tested]) -> Table:
    """Return the comparison within each block."""
    first, second = pair.variants
    counted = [
        Column(f"{key}_{side}", f"{heading}, {variant}", "count")
        for key, heading in (("n", "n"), ("crossed", "Crossed"))
        for side, variant in (("first", first), ("second", second))
    ]
    tested = columns(
        "shift_steps: Shift, steps [count]; cliffs_delta: Cliff’s delta [ratio]; p: Log-rank p [p]; p_holm: p, Holm [p]"
    )
    log_rank = {each.over: each for each in family if each.pair is pair and "log-rank" in each.test.name}
    rows = []
    for block, both in pair.blocks.items():
        # The test over all blocks is that of the block where there is one.
        own = log_rank[block if len(pair.blocks) > 1 else "all blocks"]
        sizes = *(len(c.members) for c in both), *(len(c.crossed) for c in both)
        rows.append((block, pair.only([block]).ratio, *sizes, *effect_sizes(pair, block), own.test.p, own.adjusted_p))
    smallest = [each.test.smallest_p for each in log_rank.values() if each.test.smallest_p]
    binds = ""
    if smallest and max(smallest) * len(family) > ALPHA:
        binds = (
            f" The smallest log-rank p that so many runs of a block can give is {as_text(max(smallest), 'p')}; "
            f"adjusted over {len(family)} tests it exceeds {ALPHA:g}, so that no block by itself can be decided."
        )
    note = (
        f"{first} over {second}, or minus it: a ratio below 1, a negative shift and a negative delta say that {first} "
        "is sooner. The shift is Hodges and Lehmann’s, in steps, of the runs that crossed; Cliff’s delta takes all "
        "runs, those that never crossed tied at the end. The log-rank p is over permutations of the labels. Intervals "
        f"are of 95%{pair.for_choice}, and stand each for itself; p, Holm, is for all tests of this report, so that "
        f"they may differ.{binds}"
    )
    of_blocks = *columns("block: Block; ratio: Ratio of mean steps [ratio]"), *counted, *tested
    return Table(f"blocks-{pair.name}", f"{first} against {second}, block by block", of_blocks, tuple(rows), note)


def tests(family: Sequence[Tested]) -> Table:
    """Return every test with its p-value as it is and adjusted over all of them."""
    of_tests = columns(
        "comparison: Comparison; over: Over; test: Test; p: p [p]; p_holm: p, Holm [p]; "
        "smallest_p: Smallest p possible [p]; statistic: Statistic [number]; "
        "degrees_of_freedom: df [number]; n_first: n, first [count]; n_second: n, second [count]; reason: Remark"
    )
    rows = tuple(
        (
            *(" – ".join(each.pair.variants), each.over, test.name, test.p, each.adjusted_p),
            test.smallest_p,
            *(test.statistic, test.degrees_of_freedom, *test.n, test.reason or ""),
        )
        for each in family
        for test in [each.test]
    )
    known = sum(each.test.p is not None for each in family)
    note = (
        f"All two-sided. Holm’s adjustment is over the {known} tests of this table that gave a p-value. What is said "
        "of a comparison rests on its first row, the test of the ratio, and its p there. The smallest p possible is "
        "that of two groups entirely apart: so many runs cannot give a smaller one. Welch’s t on pooled epochs of the "
        "runs that crossed is what arXiv 2504.16041 did; it drops the runs that never crossed and mixes tasks whose "
        "times differ."
    )
    return Table("tests", "All tests of this report", of_tests, rows, note)


def pairs_of_settings(pair: Pair) -> Table:
    """Return the ratio for every setting of the first arm with every one of the second."""
    first, second = pair.names
    of_pairs = (
        *(Column("first", first), Column("second", second), Column("blocks", "Blocks", "count")),
        *(Column("n_first", f"n, {first}", "count"), Column("n_second", f"n, {second}", "count")),
        *columns("ratio: Ratio of mean steps [ratio]; p_holm: p, Holm [p]; in_verdict: In the verdict"),
    )
    rows: tuple[tuple[Value, ...], ...] = tuple(
        (
            *(*e.pair.variants, len(e.pair.blocks), *e.pair.num_runs),
            *(e.pair.ratio if e.pair.blocks else None, e.adjusted_p, e.pair.variants == pair.variants),
        )
        for e in every_pair(pair)
    )
    note = "p is adjusted by Holm over the pairs of this table. Intervals stand each for itself."
    return Table(f"settings-{pair.name}", "How the answer depends on the settings", of_pairs, rows, note)


def choices(pair: Pair) -> Table:
    """Return every setting that was tried with how it did in the choice of the one that is compared."""
    of_choices = columns(
        "optimizer: Optimizer; variant: Setting; blocks: Blocks [count]; share: Mean share of the budget [ratio]; "
        "chosen: Chosen; on: Chosen on; edge: On an edge"
    )
    rows = []
    for name, each in zip(pair.names, pair.choices or (), strict=bool(pair.choices)):
        for variant, (blocks, log, _) in each.scores.items():
            on = "other seeds" if each.on_other_seeds else "the judged runs"
            is_chosen = variant == each.variant
            edge = (each.edge or "no") if is_chosen else ""
            rows.append((name, variant, -blocks, float(np.exp(log)), is_chosen, on, edge))
    note = (
        "The setting with the smallest geometric mean, over the blocks, of the restricted mean steps to the first "
        "crossing, as a share of the budget; of equal ones that with the highest validation accuracy. On an edge: the "
        "best learning rate is the smallest or the largest of those that were tried, so a better one may lie beyond."
    )
    return Table(f"choices-{pair.name}", "Which settings were tried", of_choices, tuple(rows), note)


# -- every run and every cell ----------------------------------------------------------------------


def every_run(runs: GrokkingRuns) -> Table:
    """Return one row for every run, controls included."""
    conditions = [*runs.held, *runs.controls]
    place, where = _place(conditions)
    of_runs = columns(
        "labels: Labels; seed: Seed [count]; first_step: First crossing [count]; after_step: Not before [count]; "
        "first_epoch: Epoch [number]; first_flops: FLOPs of matrix products [number]; "
        "sustained_step: Sustained crossing [count]; minimum_after: Lowest after [accuracy]; "
        "best_validation: Best on validation [accuracy]; last_step: Last step [count]; "
        "diverged_at: Diverged at [count]; reason: Remark"
    )
    rows = []
    for c in conditions:
        for m in c.members:
            first = m.first_crossing
            crossing = (first.step, first.after_step, first.epoch, first.flops) if first else (None,) * 4
            sustained = m.sustained_crossing.step if m.sustained_crossing else None
            after = m.minimum_after_crossing, m.best_validation_accuracy, m.last_step, m.diverged_at
            reason = m.first_crossing_reason or m.sustained_crossing_reason or ""
            rows.append((*where(c), c.config.task.labels, m.seed, *crossing, sustained, *after, reason))
    note = "A crossing lies after the step “not before” and not later than “first crossing”."
    return Table("runs", "Every run", (*place, *of_runs), tuple(rows), note, folded=True)


def every_cell(runs: GrokkingRuns) -> Table:
    """Return one row for every cell of the plan, whatever became of it."""
    of_cells = columns(
        "cell: Job; task: Task; loss: Loss; optimizer: Optimizer; labels: Labels; seeds: Seeds; status: Status; "
        "sessions: Sessions [count]; seconds: Seconds [number]; peak_memory_mb: Peak memory, MB [number]; "
        "reason: Remark"
    )
    names, rows = {arm.label: arm.name for arm in runs.arms}, []
    for cell in runs.cells:
        config, record = cell.config, cell.record
        what = config.task.name, config.loss, names[config.arm], config.task.labels, " ".join(map(str, config.seeds))
        num_sessions = len(recorded(record.environment, "sessions", list) or [])
        memory = recorded_number(record.environment, "peak_memory_mb")
        rows.append((record.id, *what, record.status, num_sessions, record.seconds, memory, record.reason or ""))
    return Table("cells", "Every job", of_cells, tuple(rows), folded=True)

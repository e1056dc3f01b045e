"""The answer of a grokking study in one sentence, with its interval and its scope, or why there is none.

The answer rests on the ratio of restricted mean steps to the first crossing, Muon over AdamW (`Comparison.ratio`), and
on the blocked permutation test. It is inconclusive where

- no block holds at least MIN_RUNS runs of both, or fewer than half of the planned blocks do;
- a control on random labels rose above chance, for then something leaks and no other number can be trusted;
- no run crossed, the ratio has no interval, or its interval contains 1 (but see EQUIVALENCE);
- the p-value of the permutation test is above ALPHA.

It depends on the task where on some task the interval lies below 1 and on another above it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from muonlab.runs.findings import Answer, Interval, Verdict, as_text
from muonlab.stats.proportions import wilson
from muonlab.stats.results import Estimate, TestResult
from muonlab.studies.grokking.comparison import MIN_RUNS, Comparison, every_pair, interval, levels, primary_test
from muonlab.studies.grokking.conditions import NAMES, GrokkingRuns
from muonlab.studies.grokking.controls import Control
from muonlab.studies.grokking.scope import scope_in_words, scope_of, several

ALPHA = 0.05
EQUIVALENCE = 1.1  # an interval within 1/1.1 and 1.1, with most runs crossing everywhere, says "no difference"


@dataclass
class _Case:
    """All that the sentences are made of."""

    runs: GrokkingRuns
    pair: Comparison
    ratio: Estimate
    test: TestResult
    by_task: dict[str, Estimate] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, str]:
        first, second = (NAMES[optimizer] for optimizer in self.pair.optimizers)
        return first, second


def judge(
    runs: GrokkingRuns, pair: Comparison | None, controls: list[Control], others: Sequence[Comparison] = ()
) -> Verdict:
    """Return the verdict on Muon against AdamW, with a sentence on each other comparison.

    `pair` is None where one of them has no runs.
    """
    if pair is None or not pair.pairs:
        return _without_comparison(runs, pair, controls)
    tasks = levels(pair)["task"]
    by_task = {task: pair.only(blocks).ratio() for task, blocks in tasks.items()}
    case = _Case(runs, pair, pair.ratio(), primary_test(pair), by_task)
    reasons = _reasons(case, controls)
    answer, label, claim = _claim(case)
    if reasons:
        answer, label = "inconclusive", "Inconclusive"
        claim = f"Inconclusive, because {'; and '.join(reasons)}: {_measured(case, case.names[0])}"
    sentence = f"{claim}, {scope_in_words(runs, pair)}."
    more = [
        _per_level(case, "task"),
        _per_level(case, "loss"),
        _cost(case),
        _crossed(case),
        _stays(case),
        _settings(case),
    ]
    for other in others:
        beside = _Case(runs, other, other.ratio(), primary_test(other))
        more.append(f"Beside {beside.names[1]}: {_measured(beside, beside.names[0])}.")
    shown = interval(case.ratio) if case.ratio.value is not None else None
    scope = scope_of(runs, pair)
    return Verdict(answer, label, sentence, shown, tuple(filter(None, more)), scope, tuple(_cautions(case, controls)))


def leaking(controls: list[Control]) -> list[str]:
    """Return, for each control that rose above chance, what it did."""
    return [
        f"the control {c.name} on random labels reached a validation accuracy of {as_text(c.best, 'accuracy')}, "
        f"above the {as_text(c.limit, 'accuracy')} that guessing explains"
        for c in controls
        if not c.stayed
    ]


def _leaks(controls: list[Control]) -> list[str]:
    found = leaking(controls)
    return found if len(found) < 2 else [f"{len(found)} of {len(controls)} controls on random labels rose above chance"]


def _without_comparison(runs: GrokkingRuns, pair: Comparison | None, controls: list[Control]) -> Verdict:
    missing = [NAMES[o] for o in ("muon", "adamw") if not runs.variants(o)]
    if missing:
        reason = f"the study holds no finished {' and no finished '.join(missing)} runs"
    else:
        reason = f"no block of it holds at least {MIN_RUNS} finished runs of both Muon and AdamW"
    sentence = f"Inconclusive, because {'; and '.join([reason, *_leaks(controls)])}."
    return Verdict("inconclusive", "Inconclusive", sentence, None, (), scope_of(runs, pair), ())


def _reasons(case: _Case, controls: list[Control]) -> list[str]:
    reasons = _leaks(controls)
    num_compared, num_planned = len(case.pair.pairs), len(_planned_blocks(case))
    if 2 * num_compared < num_planned:
        reasons.append(
            f"only {num_compared} of {num_planned} blocks hold at least {MIN_RUNS} finished runs of both optimizers"
        )
    crossed = case.pair.pooled().crossed
    if not crossed.any():
        reasons.append(f"none of the {len(crossed)} runs crossed within the budget")
    elif case.ratio.lower is None or case.ratio.upper is None:
        reasons.append(f"the ratio of times has no interval ({case.ratio.reason})")
    elif _is_mixed(case) or _is_equal(case):
        pass
    elif case.ratio.lower <= 1 <= case.ratio.upper:
        reasons.append("the interval of the ratio contains 1")
    elif case.test.p is None or case.test.p > ALPHA:
        reasons.append(
            f"the permutation test does not tell the two apart (p = {as_text(case.test.p, 'p')}, more than {ALPHA:g})"
        )
    return reasons


def _claim(case: _Case) -> tuple[Answer, str, str]:
    first, second = case.names
    if _is_mixed(case):
        sooner, later = _by_side(case)
        claim = f"It depends on the task: {first} crossed sooner than {second} on {several(sooner)} and later on "
        return "mixed", "Depends on the task", f"{claim}{several(later)}; over all, {_measured(case)}"
    if _is_equal(case):
        return "no", "No difference", f"No difference of {EQUIVALENCE - 1:.0%} or more: {_measured(case, first)}"
    if case.ratio.value is not None and case.ratio.value < 1:
        return "yes", "Sooner", f"{first} crossed sooner than {second}: {_measured(case)}"
    return "no", "Later", f"{first} crossed later than {second}: {_measured(case)}"


def _measured(case: _Case, subject: str = "it") -> str:
    """The number, its interval, n and p, as a clause that may follow a colon."""
    first, second = case.names
    pair, ratio = case.pair, case.ratio
    if ratio.value is None:
        return f"the ratio of times could not be had ({ratio.reason})"
    num_first, num_second = pair.num_runs
    num_blocks = len(pair.pairs)
    mean = f"geometric mean over {num_blocks} blocks of task and loss" if num_blocks > 1 else "in 1 block"
    bounds = "no interval"
    if ratio.lower is not None and ratio.upper is not None:
        bounds = f"{ratio.level:.0%} interval {as_text(ratio.lower, 'ratio')} to {as_text(ratio.upper, 'ratio')}"
    p = f"{'blocked ' if num_blocks > 1 else ''}permutation p = {as_text(case.test.p, 'p')}" if case.test.p else "no p"
    return (
        f"{subject} needed {as_text(ratio.value, 'ratio')} times {second}’s steps ({bounds}; {mean}, "
        f"{num_first} {first} and {num_second} {second} runs; {p})"
    )


def _is_mixed(case: _Case) -> bool:
    return all(_by_side(case))


def _by_side(case: _Case) -> tuple[list[str], list[str]]:
    """Tasks whose interval lies below 1, and above."""
    sooner = [task for task, e in case.by_task.items() if e.upper is not None and e.upper < 1]
    later = [task for task, e in case.by_task.items() if e.lower is not None and e.lower > 1]
    return sooner, later


def _is_equal(case: _Case) -> bool:
    ratio = case.ratio
    if (
        ratio.lower is None
        or ratio.upper is None
        or not 1 / EQUIVALENCE < ratio.lower <= 1 <= ratio.upper < EQUIVALENCE
    ):
        return False
    return all(2 * c.times()[1].sum() > len(c.members) for pair in case.pair.pairs.values() for c in pair)


def _crossed(case: _Case) -> str:
    parts = []
    for side, name in enumerate(case.names):
        conditions = [pair[side] for pair in case.pair.pairs.values()]
        crossed, n = sum(int(c.times()[1].sum()) for c in conditions), case.pair.num_runs[side]
        parts.append(f"{crossed} of {n} {name} runs ({_share(crossed, n)})")
    text = f"Within the budget, {' and '.join(parts)} crossed."
    if case.pair.pooled().crossed.all():
        return text
    return f"{text} Those that did not cross count with the whole budget, which understates their times."


def _stays(case: _Case) -> str:
    follow = {c.config.protocol.follow for pair in case.pair.pairs.values() for c in pair}
    if follow == {0}:
        return "Whether a crossing lasts was not looked at (follow=0)."
    parts, lowest = [], []
    for side, name in enumerate(case.names):
        members = [m for pair in case.pair.pairs.values() for m in pair[side].members if m.first_crossing]
        stayed = sum(m.sustained_crossing is not None for m in members)
        parts.append(f"{stayed} of {len(members)} {name} runs ({_share(stayed, len(members))})")
        lowest.append(min((m.minimum_after_crossing or 0.0 for m in members), default=None))
    how = several(["up to the budget" if k == "budget" else f"for {k} evaluations" for k in sorted(follow, key=str)])
    text = f"Does it stay there? Of the runs that crossed, {' and '.join(parts)} stayed {how}"
    text += (
        f"; the lowest validation accuracy after a crossing was {as_text(lowest[0], 'accuracy')} with {case.names[0]}"
    )
    text += f" and {as_text(lowest[1], 'accuracy')} with {case.names[1]}."
    lasting = case.pair.ratio(sustained=True)
    if lasting.value is not None:
        text += f" Counting only crossings that last, the ratio is {as_text(interval(lasting), 'ratio')}."
    return text


def _per_level(case: _Case, level: str) -> str:
    """On which tasks, or with which losses, it is sooner, later or undecided."""
    groups = levels(case.pair)[level]
    if len(groups) < 2:
        return ""
    found: dict[str, list[str]] = {"sooner": [], "later": [], "undecided": []}
    for group, blocks in groups.items():
        ratio = interval(case.pair.only(blocks).ratio())
        found[_side(ratio)].append(f"{group} {as_text(ratio, 'ratio')}")
    preposition = {"task": "on", "loss": "with"}[level]
    parts = [f"{side} {preposition} {', '.join(names)}" for side, names in found.items() if names]
    return f"By {level}, {case.names[0]} is {'; '.join(parts)}."


def _side(ratio: Interval) -> str:
    if ratio.upper is not None and ratio.upper < 1:
        return "sooner"
    return "later" if ratio.lower is not None and ratio.lower > 1 else "undecided"


def _in_cost(case: _Case) -> dict[str, Interval]:
    """The ratio in other units than steps, where they are known."""
    names = {"flops": "training FLOPs", "seconds": "seconds on this machine"}
    factors = {name: case.pair.cost_factor(unit) for unit, name in names.items()}
    return {name: interval(case.ratio, factor) for name, factor in factors.items() if factor}


def _cost(case: _Case) -> str:
    ratios = _in_cost(case)
    if case.ratio.value is None or not ratios:
        return ""
    parts = [f"{as_text(ratio, 'ratio')} in {name} ({_side(ratio)})" for name, ratio in ratios.items()]
    return f"A step does not cost the same with both: the ratio is {' and '.join(parts)}."


def _settings(case: _Case) -> str:
    """How the answer would read for other settings of the two optimizers."""
    if max(case.pair.tried) == 1:
        return ""
    ratios = [p.ratio() for p in every_pair(case.runs, *case.pair.optimizers) if p.pairs]
    below = sum(r.upper is not None and r.upper < 1 for r in ratios)
    above = sum(r.lower is not None and r.lower > 1 for r in ratios)
    return (
        f"Of the {len(ratios)} pairs of settings in this study, {case.names[0]} is sooner in {below}, later in {above} "
        f"and undecided in {len(ratios) - below - above}."
    )


def _cautions(case: _Case, controls: list[Control]) -> list[str]:
    cautions = []
    num_compared, num_planned = len(case.pair.pairs), len(_planned_blocks(case))
    if num_compared < num_planned:
        cautions.append(
            f"The answer rests on {num_compared} of the {num_planned} blocks that were planned; the others are not "
            f"finished, failed, or hold fewer than {MIN_RUNS} runs of one optimizer."
        )
    in_steps = _side(interval(case.ratio))
    for name, ratio in _in_cost(case).items():
        if in_steps != "undecided" and _side(ratio) not in (in_steps, "undecided"):
            cautions.append(f"Counted in {name} the answer turns round: the ratio is {as_text(ratio, 'ratio')}.")
    if case.pair.tried[0] != case.pair.tried[1]:
        cautions.append("The optimizers did not have equally many settings to choose from; more settings, better luck.")
    if not controls:
        cautions.append(
            "No control on random labels has finished, so a leak from train to validation is not ruled out."
        )
    return cautions


def _planned_blocks(case: _Case) -> set[str]:
    """Blocks in which the plan has both optimizers."""
    first, second = ({c.block for c in case.runs.conditions if c.optimizer == o} for o in case.pair.optimizers)
    return first & second


def _share(successes: int, n: int) -> str:
    share = wilson(successes, n)
    if share.value is None:
        return "no runs"
    bounds = " to ".join(as_text(bound, "percent") for bound in (share.lower, share.upper))
    return f"{as_text(share.value, 'percent')}, interval {bounds}"

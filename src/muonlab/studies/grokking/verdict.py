"""The answer of a grokking study in one sentence, with its interval and its scope, or why there is none.

The answer rests on the ratio of restricted mean steps to the first crossing, Muon over AdamW (`Comparison.ratio`), and
on the blocked permutation test. It is inconclusive where

- no block holds at least MIN_RUNS runs of both, or fewer than half of the planned blocks do;
- a control on random labels rose above chance, for then something leaks and no other number can be trusted;
- no run crossed, the ratio has no interval, or its interval contains 1 (but see EQUIVALENCE);
- the p-value of the permutation test is above ALPHA;
- the test tells the two apart the other way round than the ratio does.

It depends on the task where on some task the interval lies below 1 and on another above it, and the test does not say
the opposite there. What is said beside the answer, and what weakens it, is in remarks.py.
"""

from collections.abc import Sequence

from muonlab.report.findings import Answer, Verdict, as_text
from muonlab.studies.grokking.case import ALPHA, Case, measured
from muonlab.studies.grokking.comparison import MIN_RUNS, Comparison, levels
from muonlab.studies.grokking.conditions import NAMES, GrokkingRuns
from muonlab.studies.grokking.controls import Control, leaking
from muonlab.studies.grokking.remarks import beside, cautions, no_control, remarks
from muonlab.studies.grokking.scope import scope_in_words, scope_of, several

EQUIVALENCE = 1.1  # an interval within 1/1.1 and 1.1, with most runs crossing everywhere, says "no difference"

Tasks = tuple[list[str], list[str]]  # those on which the first optimizer is sooner, and later


def judge(
    runs: GrokkingRuns, pair: Comparison | None, controls: list[Control], others: Sequence[Comparison] = ()
) -> Verdict:
    """Return the verdict on Muon against AdamW, with a sentence on each other comparison.

    `pair` is None where one of them has no runs; the others have blocks.
    """
    further = [beside(Case.of(runs, other)) for other in others]
    if pair is None or not pair.pairs:
        return _without_comparison(runs, pair, controls, others, further)
    case, tasks = Case.of(runs, pair), _tasks_by_side(runs, pair)
    reasons = _reasons(case, tasks, controls)
    answer, label, claim = _claim(case, tasks)
    if reasons:
        answer, label = "inconclusive", "Inconclusive"
        claim = f"Inconclusive, because {'; and '.join(reasons)}"
        if case.ratio.value is not None:
            claim += f": {measured(case, case.names[0])}"
    sentence = f"{claim}, {scope_in_words(runs, pair)}."
    shown = case.ratio if case.ratio.value is not None else None
    more = (*remarks(case), *further)
    return Verdict(answer, label, sentence, shown, more, scope_of(runs, pair), tuple(cautions(case, controls)))


def _without_comparison(
    runs: GrokkingRuns,
    pair: Comparison | None,
    controls: list[Control],
    others: Sequence[Comparison],
    further: list[str],
) -> Verdict:
    missing = [NAMES[o] for o in ("muon", "adamw") if not runs.variants(o)]
    if not runs.conditions:
        reason = "the study holds only random labels"
    elif missing:
        reason = f"the study holds no finished {' and no finished '.join(missing)} runs"
    else:
        reason = f"no block of it holds at least {MIN_RUNS} finished runs of both Muon and AdamW"
    sentence = f"Inconclusive, because {'; and '.join([reason, *_leaks(controls)])}."
    scope = scope_of(runs, pair or next(iter(others), None))
    weakness = no_control(controls) if others else ""
    return Verdict("inconclusive", "Inconclusive", sentence, None, tuple(further), scope, (weakness,) * bool(weakness))


def _leaks(controls: list[Control]) -> list[str]:
    found = leaking(controls)
    return found if len(found) < 2 else [f"{len(found)} of {len(controls)} controls on random labels rose above chance"]


def _reasons(case: Case, tasks: Tasks, controls: list[Control]) -> list[str]:
    reasons = _leaks(controls)
    num_compared, num_planned = len(case.pair.pairs), len(case.runs.planned_blocks(*case.pair.optimizers))
    if 2 * num_compared < num_planned:
        reasons.append(
            f"only {num_compared} of {num_planned} blocks hold at least {MIN_RUNS} finished runs of both optimizers"
        )
    crossed = case.pair.pooled().crossed
    if not crossed.any():
        reasons.append(f"none of the {len(crossed)} runs crossed within the budget")
    elif case.ratio.lower is None or case.ratio.upper is None:
        reasons.append(f"the ratio of times has no interval ({case.ratio.reason})")
    elif all(tasks) or _is_equal(case):
        pass
    elif case.is_torn and case.test.p is not None and case.test.p <= ALPHA:
        reasons.append(_torn(case))
    elif case.ratio.lower <= 1 <= case.ratio.upper:
        reasons.append("the interval of the ratio contains 1")
    elif case.test.p is None or case.test.p > ALPHA:
        reasons.append(
            f"the permutation test does not tell the two apart (p = {as_text(case.test.p, 'p')}, more than {ALPHA:g})"
        )
    return reasons


def _torn(case: Case) -> str:
    """What it means that ranks and means point in opposite directions."""
    assert case.ratio.value is not None, "a case without a ratio is not torn"
    by_rank, by_mean = ("sooner", "later") if case.ratio.value > 1 else ("later", "sooner")
    why = "" if case.pair.pooled().crossed.all() else ", as runs that never crossed count with the whole budget"
    return (
        f"the test and the ratio point in opposite directions: ranked run by run {case.names[0]} tends to be "
        f"{by_rank}, yet its mean is {by_mean}{why}"
    )


def _claim(case: Case, tasks: Tasks) -> tuple[Answer, str, str]:
    first, second = case.names
    if all(tasks):
        sooner, later = tasks
        claim = f"It depends on the task: {first} crossed sooner than {second} on {several(sooner)} and later on "
        return "mixed", "Depends on the task", f"{claim}{several(later)}; over all, {measured(case, 'it')}"
    if _is_equal(case):
        return "no", "No difference", f"No difference of {EQUIVALENCE - 1:.0%} or more: {measured(case, first)}"
    if case.ratio.value is not None and case.ratio.value < 1:
        return "yes", "Sooner", f"{first} crossed sooner than {second}: {measured(case, 'it')}"
    return "no", "Later", f"{first} crossed later than {second}: {measured(case, 'it')}"


def _tasks_by_side(runs: GrokkingRuns, pair: Comparison) -> Tasks:
    sides = {task: Case.of(runs, pair.only(blocks)).side for task, blocks in levels(pair)["task"].items()}
    return [t for t, side in sides.items() if side == "sooner"], [t for t, side in sides.items() if side == "later"]


def _is_equal(case: Case) -> bool:
    ratio = case.ratio
    if (
        ratio.lower is None
        or ratio.upper is None
        or not 1 / EQUIVALENCE < ratio.lower <= 1 <= ratio.upper < EQUIVALENCE
    ):
        return False
    return all(2 * c.times()[1].sum() > len(c.members) for pair in case.pair.pairs.values() for c in pair)

"""What is said beside the answer of a grokking study: further findings, and what weakens it."""

from muonlab.report.findings import as_text
from muonlab.stats.results import Estimate
from muonlab.studies.grokking.case import Case, measured, share, side
from muonlab.studies.grokking.comparison import MIN_RUNS, every_pair, levels
from muonlab.studies.grokking.conditions import was_followed
from muonlab.studies.grokking.controls import Control
from muonlab.studies.grokking.scope import several

LONGER = 10  # how many times the budget the ratio is looked at, where it depends on the runs that did not cross
_FLOPS = "FLOPs of matrix products"


def remarks(case: Case) -> list[str]:
    """Return further findings on Muon against AdamW, a sentence or two for each."""
    found = [
        _per_level(case, "task"),
        _per_level(case, "loss"),
        _cost(case),
        _crossed(case),
        _stays(case),
        _settings(case),
    ]
    return [sentence for sentence in found if sentence]


def beside(case: Case) -> str:
    """Return what was found on a comparison that the question does not ask for."""
    horizon = _horizon(case)
    return f"Beside {case.names[1]}: {measured(case, case.names[0])}.{f' {horizon}' if horizon else ''}"


def cautions(case: Case, controls: list[Control]) -> list[str]:
    """Return what weakens the answer."""
    found = [_missing_blocks(case), _horizon(case), _does_not_last(case), _turned_by_cost(case)]
    if case.pair.tried[0] != case.pair.tried[1]:
        found.append("The optimizers did not have equally many settings to choose from; more settings, better luck.")
    found.append(no_control(controls))
    return [caution for caution in found if caution]


# -- further findings ------------------------------------------------------------------------------


def _per_level(case: Case, level: str) -> str:
    """On which tasks, or with which losses, it is sooner, later or undecided."""
    groups = levels(case.pair)[level]
    if len(groups) < 2 or case.ratio.value is None:
        return ""
    found: dict[str, list[str]] = {"sooner": [], "later": [], "undecided": []}
    for group, blocks in groups.items():
        part = Case.of(case.runs, case.pair.only(blocks))
        number = as_text(part.ratio, "ratio") if part.ratio.value is not None else f"({part.ratio.reason})"
        torn = " (the ranks of the test point the other way)" if part.side != side(part.ratio) else ""
        found[part.side].append(f"{group} {number}{torn}")
    preposition = {"task": "on", "loss": "with"}[level]
    parts = [f"{which} {preposition} {', '.join(names)}" for which, names in found.items() if names]
    return f"By {level}, {case.names[0]} is {'; '.join(parts)}."


def _in_flops(case: Case) -> Estimate | None:
    """The ratio in FLOPs, of which a step always takes as many, so that the interval of the steps holds."""
    factor, ratio = case.pair.cost_factor("flops"), case.ratio
    if factor is None or ratio.value is None:
        return None
    lower, upper = (None if bound is None else bound * factor for bound in (ratio.lower, ratio.upper))
    return Estimate(ratio.value * factor, lower, upper, ratio.level, ratio.n)


def _cost(case: Case) -> str:
    flops, seconds, parts = _in_flops(case), case.pair.cost_factor("seconds"), []
    if flops:
        parts.append(f"{as_text(flops, 'ratio')} in {_FLOPS} ({side(flops)})")
    if seconds and case.ratio.value is not None:
        number = as_text(case.ratio.value * seconds, "ratio")
        parts.append(f"{number} in seconds on this machine (without an interval: the timing has an error of its own)")
    return f"A step does not cost the same with both: the ratio is {' and '.join(parts)}." if parts else ""


def _crossed(case: Case) -> str:
    text = f"Within the budget, {' and '.join(_shares_crossed(case))} crossed."
    if case.ratio.value is None or case.pair.pooled().crossed.all():
        return text
    return (
        f"{text} Those that did not cross count with the whole budget, which is less than they need: the ratio depends "
        "on the budget."
    )


def _shares_crossed(case: Case) -> list[str]:
    parts = []
    for number, name in enumerate(case.names):
        conditions = [pair[number] for pair in case.pair.pairs.values()]
        crossed, n = sum(int(c.times()[1].sum()) for c in conditions), case.pair.num_runs[number]
        parts.append(f"{crossed} of {n} {name} runs ({share(crossed, n)})")
    return parts


def _stays(case: Case) -> str:
    follow = {c.config.protocol.follow for pair in case.pair.pairs.values() for c in pair}
    if follow == {0}:
        return "Whether a crossing lasts was not looked at (follow=0)."
    if not case.pair.pooled().crossed.any():
        return ""
    parts, lowest, num_late = [], [], 0
    for number, name in enumerate(case.names):
        crossed = [m for pair in case.pair.pairs.values() for m in pair[number].members if m.first_crossing]
        followed = [m for m in crossed if was_followed(m)]
        num_late += len(crossed) - len(followed)
        stayed = sum(m.sustained_crossing is not None for m in followed)
        parts.append(f"{stayed} of {len(followed)} {name} runs ({share(stayed, len(followed))})")
        minimum = min((m.minimum_after_crossing or 0.0 for m in crossed), default=None)
        lowest.append(f"{as_text(minimum, 'accuracy')} with {name}")
    how = several(["up to the budget" if k == "budget" else f"for {k} evaluations" for k in sorted(follow, key=str)])
    late = f" ({num_late} that crossed too late to be followed are left out)" if num_late else ""
    text = (
        f"Does it stay there? Of the runs that crossed{late}, {' and '.join(parts)} stayed {how}; the lowest "
        f"validation accuracy after a crossing was {' and '.join(lowest)}."
    )
    lasting = case.pair.ratio(sustained=True)
    if lasting.value is not None:
        text += f" Counting only crossings that last, the ratio is {as_text(lasting, 'ratio')}."
    return text


def _settings(case: Case) -> str:
    """How the answer would read for other settings of the two optimizers."""
    if max(case.pair.tried) == 1:
        return ""
    sides = [Case.of(case.runs, pair).side for pair in every_pair(case.runs, *case.pair.optimizers) if pair.pairs]
    return (
        f"Of the {len(sides)} pairs of settings in this study, {case.names[0]} is sooner in {sides.count('sooner')}, "
        f"later in {sides.count('later')} and undecided in {sides.count('undecided')}."
    )


# -- what weakens the answer -----------------------------------------------------------------------


def _missing_blocks(case: Case) -> str:
    num_compared, num_planned = len(case.pair.pairs), len(case.runs.planned_blocks(*case.pair.optimizers))
    if num_compared >= num_planned:
        return ""
    return (
        f"The answer rests on {num_compared} of the {num_planned} blocks that were planned; the others are not "
        f"finished, failed, or hold fewer than {MIN_RUNS} runs of one optimizer."
    )


def _horizon(case: Case) -> str:
    """What the ratio would be at a longer budget, where the sooner optimizer has more runs that did not cross.

    Also where the longer budget alone would move the interval onto 1, off it or across it.
    """
    runs, ratio = case.pair.pooled(), case.ratio
    if ratio.value is None or runs.crossed.all():
        return ""
    longer = case.pair.ratio(budgets=LONGER)
    missing = [~runs.crossed[runs.is_first == is_first] for is_first in (True, False)]
    sooner, later = missing if ratio.value < 1 else reversed(missing)
    if side(longer) == side(ratio) and sooner.mean() <= later.mean():
        return ""
    counts = [f"{m.sum()} of {m.size} {name} runs" for m, name in zip(missing, case.names, strict=True)]
    text = (
        f"The ratio depends on the budget, which is our own choice: {' and '.join(counts)} did not cross, and each "
        f"counts as if it had at the very end. Were the budget {LONGER} times as long and these runs still did not "
        f"cross, the ratio would be {as_text(longer, 'ratio')}{_other_answer(ratio, longer)}."
    )
    whole = [block for block in case.pair.pairs if runs.crossed[runs.blocks == block].all()]
    if whole:
        where = f"the {len(whole)} blocks" if len(whole) > 1 else "the one block"
        within = case.pair.only(whole).ratio()
        text += f" Within {where} where every run crossed, it is {as_text(within, 'ratio')}."
    return text


def _other_answer(ratio: Estimate, longer: Estimate) -> str:
    if side(longer) == side(ratio):
        return ""
    if side(longer) == "undecided":
        return ", whose interval contains 1: the answer would not stand"
    return (
        ": the answer would be the other way round" if side(ratio) != "undecided" else ", which would tell them apart"
    )


def _does_not_last(case: Case) -> str:
    followed = [m for pair in case.pair.pairs.values() for c in pair for m in c.members if was_followed(m)]
    lasting = case.pair.ratio(sustained=True)
    if not any(m.sustained_crossing for m in followed) or case.side == "undecided" or side(lasting) == case.side:
        return ""
    return (
        "Counting only crossings that are known to last the answer would not stand: the ratio is "
        f"{as_text(lasting, 'ratio')}."
    )


def _turned_by_cost(case: Case) -> str:
    flops = _in_flops(case)
    if flops is None or "undecided" in (case.side, side(flops)) or side(flops) == case.side:
        return ""
    return f"Counted in {_FLOPS} the answer turns round: the ratio is {as_text(flops, 'ratio')}."


def no_control(controls: list[Control]) -> str:
    """Return what is said where no control can tell a leak; nothing where one can."""
    if any(control.can_tell for control in controls):
        return ""
    why = (
        "The controls have too few validation rows to tell" if controls else "No control on random labels has finished"
    )
    return f"{why}, so a leak from train to validation is not ruled out."

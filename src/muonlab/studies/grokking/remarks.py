"""What is said besides the answer of a grokking study: the number in words, further findings, and what weakens it."""

from collections.abc import Sequence
from typing import Literal

from muonlab.report.findings import as_text
from muonlab.stats.proportions import wilson
from muonlab.stats.results import Estimate
from muonlab.studies.grokking import sensitivity
from muonlab.studies.grokking.comparison import Pair, Part, every_pair, included, outside
from muonlab.studies.grokking.conditions import GrokkingFound
from muonlab.studies.grokking.thresholds import at_thresholds
from muonlab.study import fairness
from muonlab.study.controls import Control
from muonlab.study.study import MIN_RUNS
from muonlab.study.words import on_edges, several

LONGER = 10  # how many times the budget the ratio is computed for, where it depends on the runs that did not cross
_FLOPS = "FLOPs of matrix products"
_UNITS: dict[Literal["flops", "needed"], str] = {
    "flops": "at all positions",
    "needed": "that the prediction depends on",
}


def remarks(pair: Pair) -> list[str]:
    """Return further findings on a comparison, a sentence or two for each."""
    found = [_per("task", pair), _per("loss", pair), _cost(pair), _crossed(pair), _stays(pair), _thresholds(pair)]
    found += [sensitivity.in_words(pair), _settings(pair), _detectable(pair)]
    return [sentence for sentence in found if sentence]


def against(pair: Pair) -> str:
    """Return what was found on a comparison that the question does not ask for."""
    return " ".join([f"Against {pair.names[1]}: {measured(pair, pair.names[0])}.", *filter(None, [_horizon(pair)])])


def cautions(found: GrokkingFound, pair: Pair) -> list[str]:
    """Return what weakens the answer."""
    said = [_missing_blocks(pair), _horizon(pair), _does_not_last(pair), _turned_by_cost(pair)]
    said += [_chosen_on_judged(pair), _chosen_by_accuracy(pair), *_edges(pair)]
    said += fairness.cautions(included(found.runs), "ratio")
    if pair.tried[0] != pair.tried[1]:
        said.append("The optimizers did not have equally many settings to choose from; more settings, better luck.")
    said.append(no_control(found.controls))
    return [caution for caution in said if caution]


# -- the number in words ---------------------------------------------------------------------------


def measured(pair: Pair, subject: str) -> str:
    """Return the number, its interval, n and p, as a clause that may follow a colon."""
    (first, second), ratio = pair.names, pair.ratio
    if ratio.value is None:
        return f"there is no ratio of times ({ratio.reason})"
    num_first, num_second = pair.num_runs
    num_blocks = len(pair.blocks)
    mean = f"geometric mean over {num_blocks} blocks of task and loss" if num_blocks > 1 else "in 1 block"
    return (
        f"{subject} needed {as_text(ratio.value, 'ratio')} times {second}’s steps ({_bounds(pair)}; {mean}, "
        f"{num_first} {first} and {num_second} {second} runs{_diverged(pair)}; {_p(pair)})"
    )


def in_short(pair: Pair, subject: str) -> str:
    """Return the number, its interval, p and n, as the first sentence of a report has them: the rest is below it."""
    (first, second), ratio, p = pair.names, pair.ratio, pair.test.p
    if ratio.value is None:
        return f"there is no ratio of times ({ratio.reason})"
    bounds = _bounds(pair).removesuffix(", as all runs of one optimizer cross at one evaluation")
    where = f" in {len(pair.blocks)} blocks" if len(pair.blocks) > 1 else ""
    tests = f"no p, as {pair.test.reason}" if p is None else f"p = {as_text(p, 'p')}"
    torn = ", and ranks point the OTHER way" if pair.is_torn and p is not None else ""
    return (
        f"{subject} needed {as_text(ratio.value, 'ratio')} times {second}’s steps "
        f"({bounds.removesuffix(pair.for_choice) if pair.for_choice else bounds}, {tests}{torn}; {pair.num_runs[0]} "
        f"{first} and {pair.num_runs[1]} {second} runs{where}{_diverged(pair)})"
    )


def _bounds(pair: Pair) -> str:
    ratio = pair.ratio
    if ratio.lower is None or ratio.upper is None:
        return f"no interval, as {(ratio.reason or '').removesuffix(': no interval')}"
    lower, upper = as_text(ratio.lower, "ratio"), as_text(ratio.upper, "ratio")
    if ratio.reason:
        return f"between {lower} and {upper} by the cadence alone, as all runs of one optimizer cross at one evaluation"
    return f"{ratio.level:.0%} interval {lower} to {upper}{pair.for_choice}"


def _diverged(pair: Pair) -> str:
    words = [f"{lost} {name}" for lost, name in zip(pair.num_diverged, pair.names, strict=True) if lost]
    return f", of which {' and '.join(words)} diverged and count with the whole budget" if words else ""


def _p(pair: Pair) -> str:
    test = pair.test
    if test.p is None:
        return f"no p, as {test.reason}"
    blocked = "blocked " if len(pair.blocks) > 1 else ""
    direction = ", and ranks point the OTHER way" if pair.is_torn else ""
    counted = f", counted for {pair.num_choices} pairs of settings" if pair.num_choices > 1 else ""
    return f"{blocked}permutation p = {as_text(test.p, 'p')}{counted}{smallest(pair)}{direction}"


def smallest(pair: Pair) -> str:
    """Return the smallest p that so many runs can give, where it binds; else nothing."""
    test = pair.test
    if test.p is None or test.smallest_p is None or test.p > 1.001 * test.smallest_p or "exact" not in test.name:
        return ""  # of random arrangements it is their number that binds
    return ", the smallest that so many runs can give"


def _share(successes: int, n: int, name: str) -> str:
    """Return a share of an arm's runs with its interval."""
    found = wilson(successes, n)
    share = "no runs"
    if found.value is not None:
        bounds = " to ".join(as_text(bound, "percent") for bound in (found.lower, found.upper))
        share = f"{as_text(found.value, 'percent')}, interval {bounds}"
    return f"{successes} of {n} {name} runs ({share})"


# -- further findings ------------------------------------------------------------------------------


def _per(level: Literal["task", "loss"], pair: Pair) -> str:
    """On which tasks, or with which losses, it is sooner, later or undecided, with p adjusted over them."""
    groups = pair.by_task if level == "task" else pair.by_loss
    if not groups or pair.ratio.value is None:
        return ""
    found: dict[str, list[str]] = {"sooner": [], "later": [], "undecided": []}
    for group, part in groups.items():
        ratio = part.pair.ratio
        number = as_text(ratio, "ratio") if ratio.value is not None else f"({ratio.reason})"
        number += " (no interval)" if ratio.value is not None and ratio.lower is None else ""
        found[part.side].append(f"{group} {number}{_why_undecided(part)}")
    preposition = {"task": "on", "loss": "with"}[level]
    parts = [f"{which} {preposition} {', '.join(names)}" for which, names in found.items() if names]
    return f"By {level}, with p adjusted over {len(groups)}, {pair.names[0]} is {'; '.join(parts)}."


def _why_undecided(part: Part) -> str:
    """Return why a part is undecided whose interval lies on one side of 1, or whose ranks contradict it."""
    if part.pair.is_torn:
        return " (the ranks point the other way)"
    if part.side != "undecided" or outside(part.pair.ratio) == "undecided" or part.adjusted_p is None:
        return ""
    p = f"{as_text(part.adjusted_p, 'p')}{smallest(part.pair)}"
    return f" (its interval, for itself, excludes 1, but its adjusted p is {p})"


def _in_flops(pair: Pair, unit: Literal["flops", "needed"] = "flops") -> Estimate | None:
    """The ratio in FLOPs, of which a step always takes as many, so that the interval of the steps holds."""
    factor, ratio = pair.cost_factor(unit), pair.ratio
    if factor is None or ratio.value is None:
        return None
    lower, upper = (None if bound is None else bound * factor for bound in (ratio.lower, ratio.upper))
    return Estimate(ratio.value * factor, lower, upper, ratio.level, ratio.n)


def _cost(pair: Pair) -> str:
    seconds, parts = pair.cost_factor("seconds"), []
    for unit, words in _UNITS.items():
        if flops := _in_flops(pair, unit):
            parts.append(
                f"{as_text(flops, 'ratio')} in {_FLOPS if unit == 'flops' else 'those'} {words} ({outside(flops)})"
            )
    if seconds and pair.ratio.value is not None:
        number = as_text(pair.ratio.value * seconds, "ratio")
        parts.append(f"{number} in seconds on this machine (no interval, as the error of timing was not measured)")
    return f"A step does not cost the same with both: the ratio is {several(parts)}." if parts else ""


def _crossed(pair: Pair) -> str:
    counts = [sum(len(c.crossed) for c in conditions) for conditions in pair.sides]
    parts = [_share(*each) for each in zip(counts, pair.num_runs, pair.names, strict=True)]
    text = f"Within the budget, {' and '.join(parts)} crossed."
    if pair.ratio.value is None or pair.pooled.crossed.all():
        return text
    return (
        f"{text} Those that did not cross count with the whole budget, which is less than they need: the ratio depends "
        "on the budget."
    )


def _stays(pair: Pair) -> str:
    follow = {c.config.protocol.follow for c in pair.conditions}
    if follow == {0}:
        return "Whether a crossing lasts was not measured (follow=0)."
    if not pair.pooled.crossed.any():
        return ""
    parts, lowest = [], []
    for conditions, name in zip(pair.sides, pair.names, strict=True):
        parts.append(_share(sum(len(c.sustained) for c in conditions), sum(len(c.followed) for c in conditions), name))
        minima = [m.minimum_after_crossing or 0.0 for c in conditions for m in c.crossed]
        lowest.append(f"{as_text(min(minima, default=None), 'accuracy')} with {name}")
    cadences = several(sorted({c.config.protocol.cadence for c in pair.conditions}))
    how = several([_followed(k, cadences) for k in sorted(follow, key=str)])
    num_late = sum(len(c.crossed) - len(c.followed) for c in pair.conditions)
    late = f" ({num_late} that crossed too late to be followed are left out)" if num_late else ""
    text = (
        f"Does it stay there? Of the runs that crossed{late}, {' and '.join(parts)} stayed {how}; the lowest "
        f"validation accuracy after a crossing was {' and '.join(lowest)}."
    )
    if pair.lasting.value is not None:
        text += f" Counting only crossings that last so long, the ratio is {as_text(pair.lasting, 'ratio')}."
    return text


def _followed(follow: int | str, cadences: str) -> str:
    if follow == "budget":
        return "up to the budget"
    steps = f"{int(follow) * int(cadences):,}" if cadences.isdigit() else f"{follow} times {cadences}"
    return f"for {follow} evaluations, which is {steps} steps: what came later was not seen"


def _thresholds(pair: Pair) -> str:
    """How the ratio reads at other thresholds than the study's own."""
    own = {c.config.protocol.threshold for c in pair.conditions}
    found = [each for each in at_thresholds(pair) if each.kind == "first" and each.threshold not in own]
    if not found or pair.ratio.value is None:
        return ""
    words = []
    for each in found:
        known = as_text(each.ratio, "ratio") if each.ratio.value is not None else f"not known ({each.ratio.reason})"
        words.append(f"at {each.threshold:.2f} {known}")
    return f"At other thresholds of validation accuracy the ratio is {several(words)}."


def _settings(pair: Pair) -> str:
    """How the answer would read for other settings of the two optimizers."""
    if max(pair.tried) == 1:
        return ""
    sides = [each.side for each in every_pair(pair) if each.pair.blocks]
    if len(sides) < 2:
        return ""
    return (
        f"Of the {len(sides)} pairs of settings that were judged, with p adjusted over them, {pair.names[0]} is sooner "
        f"in {sides.count('sooner')}, later in {sides.count('later')} and undecided in {sides.count('undecided')}."
    )


def _detectable(pair: Pair) -> str:
    """The smallest effect that so many runs find."""
    ratio = pair.detectable
    if ratio is None:
        return ""
    return (
        f"So many runs of this spread find a true ratio of {as_text(ratio, 'ratio')} or less, or of "
        f"{as_text(1 / ratio, 'ratio')} or more, four times in five."
    )


# -- what weakens the answer -----------------------------------------------------------------------


def _missing_blocks(pair: Pair) -> str:
    if len(pair.blocks) >= pair.num_planned:
        return ""
    return (
        f"The answer rests on {len(pair.blocks)} of the {pair.num_planned} blocks that were planned; the others are "
        f"not finished, failed, or hold fewer than {MIN_RUNS} runs of one optimizer."
    )


def _horizon(pair: Pair) -> str:
    """What the ratio would be at a longer budget, where the sooner arm has more runs that did not cross.

    Also where the longer budget alone would move the interval onto 1, off it or across it.
    """
    runs, ratio = pair.pooled, pair.ratio
    if ratio.value is None or runs.crossed.all():
        return ""
    longer = pair.with_budgets(LONGER)
    missing = [~runs.crossed[runs.is_first == is_first] for is_first in (True, False)]
    sooner, later = missing if ratio.value < 1 else reversed(missing)
    if outside(longer) == outside(ratio) and sooner.mean() <= later.mean():
        return ""
    counts = [f"{m.sum()} of {m.size} {name} runs" for m, name in zip(missing, pair.names, strict=True)]
    text = (
        f"The ratio depends on the budget, which is our own choice: {' and '.join(counts)} did not cross, and each "
        f"counts as if it had at the very end. Were the budget {LONGER} times as long and these runs still did not "
        f"cross, the ratio would be {as_text(longer, 'ratio')}{_other_answer(ratio, longer)}."
    )
    whole = [block for block in pair.blocks if runs.crossed[runs.blocks == block].all()]
    if whole:
        where = f"the {len(whole)} blocks" if len(whole) > 1 else "the one block"
        text += f" Within {where} where every run crossed, it is {as_text(pair.only(whole).ratio, 'ratio')}."
    return text


def _other_answer(ratio: Estimate, longer: Estimate) -> str:
    now, then = outside(ratio), outside(longer)
    if then == now:
        return ""
    if then == "undecided":
        return ", whose interval contains 1: the answer would not stand"
    return ", which would tell them apart" if now == "undecided" else ": the answer would be the other way round"


def _does_not_last(pair: Pair) -> str:
    if not any(c.sustained for c in pair.conditions) or pair.side in ("undecided", outside(pair.lasting)):
        return ""
    if pair.ratio.lower is None and pair.lasting.lower is None:
        return ""  # the answer is by p alone, which has no like for crossings that last
    return (
        "Counting only crossings that are known to last the answer would not stand: the ratio is "
        f"{as_text(pair.lasting, 'ratio')}."
    )


def _turned_by_cost(pair: Pair) -> str:
    for unit, words in _UNITS.items():
        flops = _in_flops(pair, unit)
        if flops and "undecided" not in (pair.side, outside(flops)) and outside(flops) != pair.side:
            number = as_text(flops, "ratio")
            return f"Counted in {_FLOPS} {words}, the answer is the opposite: the ratio is {number}."
    return ""


def _chosen_on_judged(pair: Pair) -> str:
    if pair.num_choices == 1:
        return ""
    return (
        "The settings were chosen on the very runs that are judged. Interval and p allow for it, and are wider "
        "than they need be: search_seeds=3 chooses them on other runs."
    )


def _chosen_by_accuracy(pair: Pair) -> str:
    """What is said where no setting of an optimizer crossed at all."""
    named = [
        name for name, each in zip(pair.names, pair.choices or (), strict=bool(pair.choices)) if each.is_by_accuracy
    ]
    if not named:
        return ""
    return (
        f"No run of any setting of {several(named)} crossed within the budget, so the one with the highest validation "
        "accuracy was chosen: a longer budget, or other settings, may change the answer."
    )


def _edges(pair: Pair) -> list[str]:
    """What is said where a best learning rate lies on the edge of those that were tried."""
    named = [
        f"{name} {each.rate:g}, the {'smallest' if each.edge == 'low' else 'largest'} of {len(each.rates)} (next: "
        f"{several(f'{rate:g}' for rate in each.further)})"
        for name, each in zip(pair.names, pair.choices or (), strict=bool(pair.choices))
        if each.edge
    ]
    return on_edges(named)


def no_control(controls: Sequence[Control]) -> str:
    """Return what is said where no control can tell a leak; nothing where one can."""
    if any(control.state != "cannot tell" for control in controls):
        return ""
    why = (
        "The controls have too few validation rows to tell" if controls else "No control on random labels has finished"
    )
    return f"{why}, so a leak from train to validation is not ruled out."

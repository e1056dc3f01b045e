"""What a comparison of optimizers says: the verdict in words, what it holds for, and what weakens it."""

import math
from collections.abc import Sequence
from statistics import fmean
from typing import Any

from muonlab.report.findings import Answer, Verdict, as_text
from muonlab.stats.results import Estimate
from muonlab.studies.compare import programs
from muonlab.studies.compare.resolution import on_regions
from muonlab.studies.compare.switch import Candidate, Counts, Switch, answer_of, rank
from muonlab.study.study import MIN_RUNS, Arm, Found
from muonlab.study.words import missing_jobs, on_edges, several

LABELS: dict[Answer, str] = {"yes": "Yes", "no": "No", "mixed": "It depends", "inconclusive": "Inconclusive"}

OWN = """
Final loss: Validation loss after {budget} steps, mean over final runs. The test set has no part in any choice.

Trial: The optimizer with one setting of its ranges, run with one seed. All optimizers are tried at the same points of a
scrambled Sobol sequence, each mapped to its own ranges; trial 0 is the optimizer’s default.

Winner: The best {finalists} trials run again with {fresh} fresh seeds. The best of those has the final runs.

Difference: The candidate’s final loss minus the baseline’s, by seed: {pairing}.

Interval: 95%. That of a difference contains the luck of tuning: had the trials fallen elsewhere, another setting would
have won. Its variance is that of the differences by seed plus that of the winner over resampled trials. It covers 92 to
100% in simulations.

p: Two-sided, of no difference, from the same variance; Holm’s is adjusted over all candidates.

Equal: The whole interval lies within {margin:.1%} of the baseline’s loss, and both have at least {min_runs} final runs.
Better: not equal, Holm’s p is at most {alpha:g}, and the candidate’s loss is lower. Worse: the same, higher.
Undecided: all else.

Steps: First evaluation at which a run’s validation loss is at most {goal} (its mean), as a share of {budget} steps; the
baseline is taken to need all of them. A run that does not get there is censored and counts with the whole
budget (restricted mean): where some do not, the mean is a lower bound. The interval is over seeds, without the luck of
tuning.

Seconds, FLOPs: The same share of the steps, times what a step costs compared with the baseline’s. Seconds are the
median over an optimizer’s jobs, with evaluations, while others may have shared the machine: they decide nothing. FLOPs
are those of matrix products, the optimizer’s own included, as PyTorch counts them in one step.

Best of k trials: Expected final loss of the best of k trials, the default always one of them. It takes the others as
exchangeable, which points of a Sobol sequence are not quite: they lie more evenly than chance would have them.

Within a share of the best: Learning rates between which trials came that near to the optimizer’s best trial. The other
settings differ, too, so this is a lower bound of the width. The share is the smallest of 1, 2, 5, 10, 20 and 50% that
is at least twice what seeds alone make of a loss.

Can be detected: True difference that such a study finds with a probability of {power:.0%}, at p of {alpha:g} with Holm.

Diverged: {meaning} A trial that diverged cannot win; a final run that diverged counts.
"""


def verdict(switch: Switch, shorter: Sequence[Switch] = ()) -> Verdict:
    """Return the answer on all candidates: a sentence on the best of them, then on each other, and on less training."""
    ranked = sorted(switch.candidates, key=lambda each: rank(each.outcome, each.effect and each.effect.estimate))
    answer = answer_of({each.outcome for each in ranked})
    sentences = [sentence(switch, each) for each in ranked]
    if sentences and (widths := on_regions(switch)):
        sentences[0] = f"{sentences[0]} {widths}"
    first = ranked[0].settles if len(ranked) == 1 else ""  # on the first screen, next to why nothing is decided
    if first:
        sentences[0] = f"{sentences[0]} {first}"
    sentences = sentences or [f"{switch.baseline.name} alone: nothing to compare."]
    # What to do comes first, then the other candidates and less training.
    settles = [f"{each.arm.name}: {each.settles}" for each in ranked if each.settles and not first]
    more = [*settles, *calls(switch, ranked)]
    more += [*sentences[1:], *on_present(switch)]
    more += [f"With {_steps(each)}: {sentence(each, one)}" for each in shorter for one in each.candidates if one.effect]
    interval = ranked[0].effect.estimate if ranked and ranked[0].effect else None
    return Verdict(
        answer, LABELS[answer], sentences[0], interval, tuple(more), _scope(switch), tuple(_cautions(switch))
    )


def on_present(switch: Switch) -> list[str]:
    """Return how every arm at its best differs from the baseline as the user has it now; none where that is unknown."""
    now = switch.found.runs.present
    if not now:
        return []
    effects = [(arm.name, switch.from_present(arm.label)) for arm in switch.found.arms]
    known = [f"{name} {as_text(each.estimate)}" for name, each in effects if each and each.estimate.value is not None]
    setting = ", ".join(f"{key} {value:g}" for key, value in switch.found.runs.asked.present.items())
    if lost := sum(map(math.isinf, now.values())):
        return [f"{switch.baseline.name} as you have it now ({setting}): {lost} of {len(now)} runs {switch.lost_word}."]
    head = (
        f"{switch.baseline.name} as you have it now ({setting}) ends at {as_text(fmean(now.values()))} (n = {len(now)})"
    )
    return [f"{head}. Minus that, at its best setting: {'; '.join(known)}." if known else f"{head}."]


def sentence(switch: Switch, candidate: Candidate) -> str:
    """Return the outcome of one candidate with its numbers."""
    name, other, runs = candidate.arm.name, switch.baseline.name, switch.found.runs
    budget, effect = _steps(switch), candidate.effect
    if effect is None or effect.estimate.value is None:
        return on_counts(candidate, other, switch.counts(candidate.arm.label))
    means = [as_text(fmean(runs.losses(label).values())) for label in (candidate.arm.label, switch.baseline.label)]
    trials = runs.num_trials
    numbers = (
        f"a validation loss{programs.sign(runs.asked)} of {means[0]} against {means[1]}, difference "
        f"{as_text(effect.estimate)} (n = {effect.n[0]} + {effect.n[1]} seeds, {trials} trials each, {budget})"
    )
    margin = f"{runs.asked.margin:.3g}".rstrip("0") if runs.asked.margin < 0.001 else f"{100 * runs.asked.margin:g} %"
    head = {
        "better": f"{name} ends below {other}: {numbers}",
        "worse": f"{name} ends above {other}: {numbers}",
        "equal": f"{name} and {other} differ by less than {margin}: {numbers}",
        "undecided": f"{name} against {other} is inconclusive, because {candidate.why}: {numbers}",
    }[candidate.outcome]
    return f"{head}.{_pace(switch, candidate)}"


def on_counts(each: Candidate | Any, other: str, counts: Counts) -> str:
    """Return the outcome of a candidate without a difference: how many of its runs diverge decides, or nothing."""
    if each.outcome == "undecided":
        return f"{each.arm.name} against {other}: inconclusive, because {each.why}."
    words = {"better": "diverges less often than", "worse": "diverges more often than"}[each.outcome]
    ours, theirs = (f"{lost} of {number}" for lost, number in counts)
    return f"{each.arm.name} {words} {other}: {ours} against {theirs} final runs."


def _steps(switch: Switch) -> str:
    budget = switch.found.runs.asked.training.budget
    return f"{budget:,} steps" if budget > 1 else "1 step"


def _pace(switch: Switch, candidate: Candidate) -> str:
    """Return how soon the candidate reaches the baseline's final loss."""
    found = candidate.pace
    if found is None:
        return ""
    what = switch.goal
    if not found.reached:
        return f" None of its runs reaches {what}."
    shares = [f"{as_text(found.steps, 'ratio')} of the steps"]
    for unit, each in _others(found.seconds, found.flops):
        about = "about " if unit == "seconds" else ""
        shares.append(f"{about}{as_text(each.value, 'ratio')} {'times' if (each.value or 0) > 1 else 'of'} the {unit}")
    if found.reached == found.total:
        return f" It reaches {what} in {several(shares)}."
    reach = "reach" if found.reached > 1 else "reaches"
    return (
        f" {found.reached} of its {found.total} runs {reach} {what}; with the others counted at the whole budget, that "
        f"takes {several(shares)}."
    )


def _others(seconds: Estimate | None, flops: Estimate | None) -> list[tuple[str, Estimate]]:
    return [(unit, each) for unit, each in (("seconds", seconds), ("FLOPs", flops)) if each is not None]


def _scope(switch: Switch) -> tuple[tuple[str, str], ...]:
    runs = switch.found.runs
    asked = runs.asked
    tried = "; ".join(f"{arm.name}: {', '.join(asked.searches[arm.label].ranges)}" for arm in switch.found.arms)
    return (
        ("trained", programs.scope(switch.found)),
        ("runs", f"{asked.seeds} seeds each, the same for all"),
        ("tuning", f"{runs.num_trials} trials each. {tried}"),
    )


def _cautions(switch: Switch) -> list[str]:
    found, runs = switch.found, switch.found.runs
    said = missing_jobs(found.records, found.expected)
    edges = {
        arm.label: f"{arm.name} ({own.edge}, {own.point['lr']:g})"
        for arm in found.arms
        if (own := runs.trials.get(arm.label)) and own.point and own.edge
    }
    ranges = several(f"{label}.lr=LOW..HIGH" for label in edges)
    further = f"The interval takes it to lie within, so it is too narrow. Widen {ranges}."
    said += [f"{words} {further}" for words in on_edges(edges.values())]
    for arm in found.arms:
        if switch.has_no_winner(arm.label):
            again = runs.trials[arm.label].again
            where = "with fresh seeds at each of its best settings" if again else "in every trial"
            said.append(f"{arm.name} {switch.lost_word} {where}: {programs.words(runs.asked)['why_lost']}.")
    said += programs.on_failures(found)
    said += on_looks(found)
    if runs.asked.seeds < MIN_RUNS:
        said.append(f"seeds={runs.asked.seeds}: with fewer than {MIN_RUNS} final runs each, nothing can be decided.")
    return said


def on_looks(found: Found) -> list[str]:
    """Return that a study whose seeds or trials were raised after a look calls a winner by luck more often."""
    if found.runs.looks < 2:
        return []
    return [
        f"Asked for {found.runs.looks} times with other numbers of seeds or trials: raising them until a winner is "
        "found makes false winners more frequent than 5%."
    ]


def calls(switch: Switch, ranked: Sequence[Candidate]) -> list[str]:
    """Return the constructor calls to choose from: of the best that is better, of all if none is sure, or the baseline.

    Args:
        switch: the comparison.
        ranked: the candidates, the best first.
    """
    points = switch.found.runs.points

    def said(words: str, arms: Sequence[Arm]) -> list[str]:
        known = [(arm, points[arm.label]) for arm in arms if arm.label in points]
        return [f"{words.format(arm.name)}: {programs.call(switch.found, arm, point)}" for arm, point in known]

    if better := [each.arm for each in ranked if each.outcome == "better"]:
        return said("To use {}", better[:1])
    if undecided := [each.arm for each in ranked if each.outcome == "undecided"]:
        return said("{} at its best setting", [*undecided, switch.baseline])
    return said("To stay with {}", [switch.baseline])

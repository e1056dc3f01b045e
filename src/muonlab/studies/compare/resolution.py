"""What trials and seeds of a comparison resolve: fewer trials, the width of good rates, the smallest difference."""

import math
from statistics import fmean

from muonlab.report.findings import Axis, Element, Figure, Text, Trace, Traces, as_text
from muonlab.stats.power import POWER, detectable, detectable_deviations, fewest_for_counts
from muonlab.stats.trials import Region, expected_best, region
from muonlab.stats.tuned import expected_losses, noise, standard_error
from muonlab.studies.compare.config import CompareStudy
from muonlab.studies.compare.switch import Candidate, Switch
from muonlab.study.space import Space
from muonlab.study.study import ALPHA, MIN_RUNS, Arm
from muonlab.study.tuning import spans_decades

SHARES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)  # of the best loss, within which a width of learning rates is said
MOST_IN_SENTENCE = 0.05  # of these, in the verdict's sentence
NOISES = 2.0  # standard deviations of a run's own noise that a share must have

# -- what fewer trials would have found ------------------------------------------------------------


def best_of(switch: Switch, arm: Arm) -> list[float | None]:
    """Return the expected final loss of an arm after k trials, for k = 1 to T; empty where it has no final runs.

    Trials beyond the edge of the range followed from the others, so they are not among those that k are drawn from.
    """
    tuned, asked = switch.tuned(arm.label), switch.found.runs.asked.searches[arm.label]
    if tuned is None or not isinstance(asked, Space):
        return []
    return expected_best(tuned.search[: asked.trials], expected_losses(tuned)[: asked.trials], always=0)


def by_trials(switch: Switch) -> tuple[Element, ...]:
    """Return the figure of the final loss by number of trials, and how to read it; none without final runs."""
    known = {arm.label: values for arm in switch.found.arms if (values := best_of(switch, arm))}
    if not known:
        return ()
    traces = tuple(
        Trace(arm.series, 0, tuple(range(1, len(values) + 1)), tuple(values))
        for arm in switch.found.arms
        if (values := known.get(arm.label))
    )
    caption = (
        "Expected final loss of the best of k trials, the default always among them; chosen by the search’s own runs, "
        "with the losses of fresh seeds where there are any (Dodge et al. 2019). It takes the points of the Sobol "
        "sequence as exchangeable; trials beyond the edge of a range are not among them. A gap: all k may diverge."
    )
    y = Axis("final loss", log=spans_decades(y for trace in traces for y in trace.y))
    panel = Traces("", traces, Axis("trials"))
    figure = Figure("trials-needed", "Final loss against number of trials", caption, Axis(""), y, (panel,))
    return *(Text(words) for words in on_trials(switch)), figure


def on_trials(switch: Switch) -> list[str]:
    """Return what the baseline reaches with its trials, and how many each candidate needs for that."""
    theirs = best_of(switch, switch.baseline)
    if not theirs or theirs[-1] is None:
        return []
    name, total, level = switch.baseline.name, len(theirs), theirs[-1]
    first = "the setting that you have now" if switch.found.runs.asked.present else "its default alone"
    alone = f"{as_text(theirs[0])} with {first} and " if theirs[0] is not None else ""
    said = [f"{name} is expected to end at {alone}{as_text(level)} with the best of {total} trials."]
    for arm in switch.arms:
        if not (ours := best_of(switch, arm)):
            continue
        enough = next((k for k, loss in enumerate(ours, 1) if loss is not None and loss <= level), None)
        if enough is None:
            said.append(f"{arm.name} does not get there with {len(ours)}.")
        else:
            said.append(f"{arm.name} gets there with {'its default alone' if enough == 1 else f'{enough} trials'}.")
    return [" ".join(said)]


# -- how wide the region of good rates is ----------------------------------------------------------


def share(switch: Switch) -> float | None:
    """Return the share of the best loss within which widths are said; None where seeds hide any, or none is known."""
    needed = []
    for arm in switch.found.arms:
        if (tried := switch.found.runs.trials.get(arm.label)) is None or "lr" not in tried.space.ranges:
            continue
        best, spread = min(map(fmean, tried.losses)), noise(tried.again)
        if spread is None or not math.isfinite(best):
            return None
        needed.append(NOISES * spread / abs(best) if best else math.inf)
    return next((each for each in SHARES if needed and each >= max(needed)), None)


def regions(switch: Switch) -> dict[str, Region]:
    """Return label -> region of the learning rates within that share of the best trial, of all arms that try rates."""
    within, found = share(switch), dict[str, Region]()
    for arm in switch.found.arms if within else ():
        tried = switch.found.runs.trials.get(arm.label)
        if tried is not None and "lr" in tried.space.ranges and within:
            rates = [point["lr"] for point in tried.points]
            own = region(rates, [fmean(losses) for losses in tried.losses], within)
            found |= {arm.label: own} if own else {}
    return found


def on_regions(switch: Switch) -> str:
    """Return the widths of all arms in a sentence; empty where one is not resolved."""
    found, within = regions(switch), share(switch)
    arms = switch.baseline, *switch.arms
    widths = [(arm.name, found[arm.label].decades if arm.label in found else None) for arm in arms]
    if within is None or within > MOST_IN_SENTENCE or any(decades is None for _, decades in widths):
        return ""
    (name, first), *others = widths
    rest = "".join(f", {other} over at least {decades:.1f}" for other, decades in others)
    return f"{name} is within {within:.0%} of its best over at least {first:.1f} decades of learning rate{rest}."


# -- the smallest difference that can be detected --------------------------------------------------


def detected(switch: Switch, candidate: Candidate) -> float | None:
    """Return the true difference that such a study finds with a probability of `POWER`; None where none varies."""
    ours, theirs = switch.tuned(candidate.arm.label), switch.tuned(switch.baseline.label)
    if not ours or not theirs or candidate.effect is None or candidate.effect.p is None:
        return None
    error, degrees = standard_error(ours, theirs)
    return detectable(error, degrees, alpha=ALPHA, comparisons=len(switch.arms))


def on_detection(switch: Switch) -> Text:
    """Return what these seeds and trials can detect, in words."""
    said = []
    for each in switch.candidates:
        if (found := detected(switch, each)) is not None:
            part = f" ({found / abs(switch.level):.1%} of {switch.baseline.name}’s)" if switch.level else ""
            said.append(f"{each.arm.name}: {as_text(found)}{part}")
    head = (
        f"Smallest true difference of final losses that these seeds and trials find in {POWER:.0%} of such studies, "
        f"from the variance that was observed: {'; '.join(said)}. A smaller one may well be missed. "
        if said
        else ""
    )
    return Text(head + _least(len(switch.arms)))


def _least(comparisons: int) -> str:
    fewest = max(MIN_RUNS, fewest_for_counts(ALPHA, max(1, comparisons)))
    return (
        f"With fewer than {MIN_RUNS} final runs each nothing is decided; by counts of diverged runs alone, with fewer "
        f"than {fewest}."
    )


def foreseen(asked: CompareStudy) -> str:
    """Return what the number of seeds alone says of the smallest difference that can be detected, before any run."""
    comparisons = max(1, len(asked.arms) - 1)
    if asked.seeds < MIN_RUNS:
        return f"seeds={asked.seeds}: nothing can be decided. {_least(comparisons)}"
    size = detectable_deviations(asked.seeds, alpha=ALPHA, comparisons=comparisons)
    of = f" against {comparisons} candidates" if comparisons > 1 else ""
    luck = " The luck of tuning adds to it." if any(isinstance(own, Space) for own in asked.searches.values()) else ""
    return (
        f"seeds={asked.seeds}: a true difference of {size:.2g} standard deviations is found in {POWER:.0%} of such "
        f"studies{of}, in units of how much the difference of two runs of one seed varies from seed to seed.{luck} "
        f"{_least(comparisons)}"
    )


def widths_in_words(switch: Switch) -> str:
    """Return what the column of widths means here, or why there is none."""
    within = share(switch)
    if within is None:
        return (
            "The width of the region of good learning rates is not resolved: too few trials ran with fresh seeds, or "
            f"seeds alone move a loss by more than {SHARES[-1] / NOISES:.0%}."
        )
    return (
        f"Decades of learning rate: between trials within {within:.0%} of the optimizer’s best, a lower bound, since "
        "the other settings vary, too; “–”: a single trial came that near, which shows no width."
    )

"""The verdict of a study of components on claim (e): counts, scope, and what weakens it."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from statistics import median

from muonlab.report.findings import Verdict, as_text
from muonlab.studies.components.answers import in_words
from muonlab.studies.components.claims import CLAIMS, MIN_HALF, SAME_OPTIMIZER, WORDS, per_rival
from muonlab.studies.components.closed import Flows
from muonlab.studies.components.jobs import POLICY
from muonlab.studies.components.readings import ComponentsFound
from muonlab.studies.components.remarks import remarks
from muonlab.studies.components.tuning import Spread
from muonlab.study.fairness import transferred
from muonlab.study.judge import LABELS, Judged, in_counts, judge, whole
from muonlab.study.words import missing_jobs, on_edges, several

LOST = 0.5  # share of the compared runs that never reached the loss from which the others do not speak for all
NOTABLE = 0.1  # share of compared runs that are censored


def judge_all(found: ComponentsFound) -> list[Judged]:
    """Return the answer for every quantity of the claim, on the map at the main loss.

    Comparisons with runs half of which never reached that loss are out of it: the others are too lucky to speak for
    all. At other losses the same runs may be whole, so this is about the verdict alone.
    """
    judged = replace(found, aside=out_of_the_verdict(found), compared={})
    return [judge(judged, claim, found.runs.asked.main) for claim in CLAIMS]


def out_of_the_verdict(found: ComponentsFound) -> dict[tuple[str, str], str]:
    """Return (name of a problem, label of an arm) -> why its runs there are no fair side of a comparison."""
    place, said = found.runs.asked.main, dict(found.aside)
    for key, own in found.runs.own.items():
        number, missed = len(own.compared(place)), own.missed(place).total()
        if own.search(place).scores and own.best(place) is None:
            said[key] = "diverged at every learning rate"
        elif key not in said and number and missed >= LOST * number:
            said[key] = f"reached the loss in {number - missed} of {number} runs"
    return said


def verdict(
    found: ComponentsFound, judged: Sequence[Judged], flows: Sequence[Flows], spreads: Sequence[Spread]
) -> Verdict:
    """Return the answer to the claim, its findings and what it holds for."""
    asked = found.runs.asked
    answer = whole([each.answer for each in judged])
    eps = " or ".join(f"{each:g}" for each in dict.fromkeys(asked.main_eps(case) for case in asked.mapped))
    sentence = (
        f"{found.first.name} against {found.names()} at the first time the train loss is at most {eps} "
        f"({_size(found)}, at most {asked.budget} steps)"
    )
    sentence += f": inconclusive, because {_why(judged)}." if answer == "inconclusive" else "."
    if said := in_words(found, judged):
        sentence += f" {said}"
    if out := _aside(found):
        sentence += f" Out of the verdict: {out}."
    more, weak = [*_one_by_one(found, judged), *remarks(found, judged, flows)], cautions(found, spreads)
    return Verdict(answer, LABELS[answer], sentence, None, tuple(more), scope(found), tuple(weak))


def _aside(found: ComponentsFound) -> str:
    """Return whose runs are out of the verdict, on how many problems of the map, and why."""
    on_map = {case.name for case in found.runs.asked.mapped}
    held = Counter((arm, why) for (case, arm), why in out_of_the_verdict(found).items() if case in on_map)
    return "; ".join(
        f"{found.name(arm)} on {number} problem{'s' * (number > 1)} {why}" for (arm, why), number in held.items()
    )


def _size(found: ComponentsFound) -> str:
    """Return "0 and 1 hidden layers, width 64, 16 inputs": an answer is about this size."""
    asked = found.runs.asked
    nets = [case.net for case in asked.mapped]
    depths = sorted({net.depth for net in nets})
    layers = f"{several(depths)} hidden layer{'s' * (depths != [1])}"
    widths = sorted({net.width for net in nets if net.depth})
    inputs = sorted({case.components.dimension for case in asked.mapped})
    return f"{layers}{f', width {several(widths)}' if widths else ''}, {several(inputs)} inputs"


def _one_by_one(found: ComponentsFound, judged: Sequence[Judged]) -> Iterator[str]:
    """Yield the counts of problems, which are the answer."""
    for each in judged:
        rivals = [f"{in_counts(own)} against {rival.name}" for rival, own in per_rival(found, each.comparisons)]
        if rivals:
            yield f"“{WORDS}” (e), in {each.claim.title}, problem by problem: {', '.join(rivals)}."


def _why(judged: Sequence[Judged]) -> str:
    titles: dict[str, list[str]] = {}
    for each in judged:
        titles.setdefault(each.why, []).append(each.claim.title)
    if len(titles) == 1:
        return next(iter(titles))
    return "; ".join(f"in {' and '.join(own)} {why}" for why, own in titles.items() if why)


def scope(found: ComponentsFound) -> tuple[tuple[str, str], ...]:
    """Return what the answer holds for."""
    asked = found.runs.asked
    base, given = asked.base, asked.base.components
    ratios, noises = (
        ", ".join(f"{value:g}" for value in sorted({getattr(case.components, key) for case in asked.mapped}))
        for key in ("ratio", "noise")
    )
    searches = ", ".join(f"{arm.name} {len(asked.searches[arm.label].rates)}" for arm in found.arms)
    batch = f"batches of {base.batch}" if base.batch else "all examples in every step"
    words = {
        "problems": f"ratio {ratios} × noise {noises}; {', '.join(asked.maps)}",
        "data": f"{given.classes} classes, {given.dimension} inputs, {given.num_components} components, {given.train} "
        f"train and {given.test} test examples; {base.loss} loss, {batch}",
        "runs": f"{asked.seeds} seeds, of directions, data and initial weights, the same for every optimizer; at most "
        f"{asked.budget} steps",
        "tuning": f"learning rate alone, by validation loss at the same train loss on {asked.search_seeds} other "
        f"seeds; rates of the first grid {searches}, at most {asked.searches[found.first.label].extensions} extensions "
        "of each",
        "not tuned": "momentum, weight decay, betas: one value each (see Data and settings); no schedule",
    }
    if shared := transferred(found.arms, {arm.label: (arm.optimizer,) for arm in found.arms}):
        words["transferred"] = "; ".join(shared)
    return *words.items(), *_tuned(found)


def _tuned(found: ComponentsFound) -> Iterator[tuple[str, str]]:
    """Yield the best learning rates of each arm on the map, and the train losses at which its runs ended."""
    main = found.runs.asked.main
    for arm in found.arms:
        held = found.runs.on_map(arm.label)
        rates = [rate for own in held if (rate := own.best(main)) is not None]
        losses = [member["end"]["train_loss"] for own in held for member in own.compared(main).values()]
        ends = [loss for loss in losses if loss is not None]
        if rates and ends:
            yield (
                arm.name,
                f"best learning rate {median(rates):g} in the median of {len(rates)} problems ({min(rates):g} to "
                f"{max(rates):g}); train loss at the end {as_text(median(ends))} ({as_text(min(ends))} to "
                f"{as_text(max(ends))})",
            )


# -- cautions: what weakens the answer, a sentence each --------------------------------------------


def cautions(found: ComponentsFound, spreads: Sequence[Spread]) -> list[str]:
    """Return what weakens the answer."""
    main = found.runs.asked.main
    edges, censored = [], []
    for arm in found.arms:
        held = found.runs.on_map(arm.label)
        on = Counter(own.edge(main) for own in held)
        if number := on["low"] + on["high"]:
            edges.append(f"{arm.name} on {number} of {len(held)} problems ({on['low']} low, {on['high']} high)")
        total, missed = sum(len(own.compared(main)) for own in held), sum(own.missed(main).total() for own in held)
        if missed > NOTABLE * total:
            censored.append(f"{missed} of {total} of {arm.name}")
    said = [*missing_jobs(found.records, found.expected), *on_edges(edges)]
    if censored:
        said.append(
            f"Runs that never reached the main loss are in no pair: {'; '.join(censored)}. Cells say nothing of them, "
            "and those in which fewer pairs remain are less sure."
        )
    return [*said, *_turning(spreads), *_uncontrolled(found)]


def _turning(spreads: Sequence[Spread]) -> Iterator[str]:
    """Yield how many decided cells depend on the choice between rates that are as good."""
    decided = Counter(each.pair.quantity.name for each in spreads if each.is_decided)
    turned = Counter(each.pair.quantity.name for each in spreads if each.turns)
    if turned:
        parts = ", ".join(f"{number} of {decided[name]} in {name}" for name, number in turned.items())
        yield (
            "Some decided cells would turn with another learning rate whose validation loss is within "
            f"{POLICY.clear:.0%} of the best one’s: {parts} (see Tuning)."
        )


def _uncontrolled(found: ComponentsFound) -> Iterator[str]:
    names = {control.name for control in found.controls if control.state != "cannot tell"}
    if SAME_OPTIMIZER not in names:
        yield f"No control of {found.first.name} against itself: it takes {2 * MIN_HALF} seeds that reach the loss."
    if found.runs.asked.control.name not in names:
        yield "The control of labels without information is not done or cannot tell."

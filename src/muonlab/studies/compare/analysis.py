"""From the results of a comparison to its findings. No torch, and nothing of the user's."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import fmean
from typing import Any

from muonlab.report.findings import Column, Text, Verdict
from muonlab.stats.effects import difference
from muonlab.stats.proportions import chance_limit, chance_limit_of_mean
from muonlab.stats.tuned import Tuned
from muonlab.studies.compare import switch
from muonlab.studies.compare.config import RESULTS_VERSION, Claimed, Comparison
from muonlab.studies.compare.jobs import FINALISTS, FRESH, POLICY, by_point, finalists, mean, scores, steps, winner
from muonlab.studies.compare.sections import OWN, claims, curves, results, settings, verdict
from muonlab.studies.compare.switch import Switch
from muonlab.study import analysis as engine
from muonlab.study.analysis import Parts, Sections, reading
from muonlab.study.controls import ERROR, Control, checks
from muonlab.study.folder import Results
from muonlab.study.judge import Judged, judge
from muonlab.study.search import Score, Searched
from muonlab.study.space import Space
from muonlab.study.study import Claim, Found, Quantity, Rule, Step, Values
from muonlab.study.tuning import tuning
from muonlab.study.words import definitions

RULE = Rule(test="welch")
Member = Mapping[str, Any]


@dataclass(frozen=True)
class Trials:
    """How an arm was tuned by trials.

    Attributes:
        space: of its settings.
        losses: of each trial, by seed; infinite where a run diverged.
        again: trial -> losses with fresh seeds, of the best few; empty where they have not run yet.
        winner: the trial with final runs; None where it is not known yet, or where all diverged.
    """

    space: Space
    losses: Sequence[Sequence[float]]
    again: Mapping[int, Sequence[float]]
    winner: int | None

    def tuned(self, finals: Mapping[int, float]) -> Tuned | None:
        """Return the tuning with the losses of its final runs; None where there are none."""
        if self.winner is None or not finals:
            return None
        return Tuned([mean(own) for own in self.losses], self.space.order, self.again, self.winner, finals)


@dataclass(frozen=True)
class Runs:
    """What the results hold.

    Attributes:
        asked: the study.
        finals: label -> final runs by seed.
        points: label -> settings of its final runs, as far as they were tuned.
        searches: by label, by learning rate.
        trials: by label, where arms are tuned by trials and theirs are done.
        shuffled: runs of the control.
        sizes: of the data and the net, such as num_test; empty where no final run is done.
        steps: of the evaluations.
    """

    asked: Comparison
    finals: Mapping[str, Mapping[int, Member]]
    points: Mapping[str, Mapping[str, float]]
    searches: Mapping[str, Searched]
    trials: Mapping[str, Trials]
    shuffled: tuple[Member, ...]
    sizes: Mapping[str, Any]
    steps: tuple[int, ...]

    def ended(self, label: str) -> dict[int, Member]:
        """Return the final runs of an arm that have not diverged, by seed."""
        return {seed: run for seed, run in self.finals[label].items() if run["diverged_at"] is None}

    def losses(self, label: str) -> dict[int, float]:
        """Return the final validation losses of an arm by seed, infinite where a run diverged."""
        return {
            seed: math.inf if (last := run["validation_loss"][-1]) is None else last
            for seed, run in self.finals[label].items()
        }


def gather(asked: Comparison, known: Sequence[Step], results: Results) -> Runs:
    """Return what the results of the known jobs hold."""
    done = [(step, results[step.job.id]) for step in known if step.job.id in results]

    def of(role: str, label: str) -> list[dict[str, Any]]:
        return [result for step, result in done if (step.role, step.arm) == (role, label)]

    labels = [arm.label for arm in asked.arms]
    finals = {
        label: {m["seed"]: m for result in of("final", label) for m in result["members"] if m["seed"] < asked.seeds}
        for label in labels
    }
    ended = [result for step, result in done if step.role == "final"]
    skipped = ("members", "steps", "points")
    return Runs(
        asked,
        {label: dict(sorted(own.items())) for label, own in finals.items()},
        {label: own[0]["points"][0] for label in labels if (own := of("final", label))},
        {label: _searched(of("search", label)) for label in labels},
        {
            label: _trials(own, tried[0], of("again", label))
            for label, own in asked.searches.items()
            if isinstance(own, Space) and (tried := of("search", label))
        },
        tuple(member for step, result in done if step.role == "control" for member in result["members"]),
        {key: value for key, value in ended[0].items() if key not in skipped} if ended else {},
        asked.training.steps,
    )


def _searched(found: Sequence[Mapping[str, Any]]) -> Searched:
    known: dict[float, Score] = {}
    losses: dict[float, list[float | None]] = {}
    for result in found:
        known |= scores(result)
        for member in result["members"]:
            losses.setdefault(result["points"][member["point"]]["lr"], []).append(member["validation_loss"][-1])
    return Searched(known, losses, POLICY)


def _trials(space: Space, tried: Mapping[str, Any], again: Sequence[Mapping[str, Any]]) -> Trials:
    losses = by_point(tried)
    few = finalists(losses)
    fresh = by_point(again[0]) if again else []
    best = winner(fresh) if fresh else None
    return Trials(space, losses, dict(zip(few, fresh, strict=False)), None if best is None else few[best])


# -- quantities and claims -------------------------------------------------------------------------


def _of_runs(measure: Callable[[Found, Member], float | None]) -> Callable[..., Values]:
    """Return the number of every run that has not diverged, by seed; None where there is none yet."""

    def values(found: Found, case: Comparison, arm: str, rival: str, state: Any) -> Values:
        known = {seed: measure(found, run) for seed, run in found.runs.ended(arm).items()}
        return {seed: value for seed, value in known.items() if value is not None} or None

    return values


def _last(curve: str) -> Callable[..., Values]:
    return _of_runs(lambda found, run: run[curve][-1])


def _steps(found: Found, run: Member) -> float | None:
    """Return the step of the first evaluation at the target; the budget for a run that did not reach it."""
    target, asked = found.runs.asked.target, found.runs.asked
    reached = (step for step, loss in zip(found.runs.steps, run["validation_loss"], strict=True) if loss <= target)
    return None if target is None else next(reached, asked.training.budget)


QUANTITIES = {
    **{
        f"{part}_loss": Quantity(
            f"{part}-loss", f"{part} loss", "loss", _last(f"{part}_loss"), "number", expects="lower"
        )
        for part in ("validation", "train")
    },
    "validation_accuracy": Quantity(
        "validation-accuracy", "validation accuracy", "accuracy", _last("validation_accuracy"), "accuracy"
    ),
    "test_accuracy": Quantity(
        "test-accuracy", "test accuracy", "accuracy", _of_runs(lambda found, run: run["test_accuracy"]), "accuracy"
    ),
    "steps": Quantity("steps", "steps to the target loss", "steps", _of_runs(_steps), "number", expects="lower"),
}


def claim(asked: Claimed) -> Claim:
    """Return a claim with its quantities."""
    return Claim(asked.letter, asked.title, asked.words, tuple(QUANTITIES[key] for key in asked.quantities))


# -- controls --------------------------------------------------------------------------------------

CONTROL_NOTE = (
    "Shuffled labels: the first arm trained with the labels of its training examples in an order of their own per run, "
    "mean test accuracy over runs. The first arm against itself: its runs of even seeds minus those of odd seeds."
)


def controls(runs: Runs) -> list[Control]:
    """Return every control that can be judged yet."""
    return [*_shuffled(runs), *_halves(runs)]


def _shuffled(runs: Runs) -> list[Control]:
    accuracies = [run["test_accuracy"] for run in runs.shuffled if run["diverged_at"] is None]
    if not accuracies:
        return []
    chance, number = runs.sizes["chance"], runs.sizes["num_test"]
    # Runs do not guess examples independently: the spread between runs counts as well as that of guesses.
    limit = max(chance_limit_of_mean(chance, accuracies, ERROR), chance_limit(chance, number, 1, ERROR))
    what = "mean test accuracy"
    return [Control("shuffled labels", what, fmean(accuracies), chance, limit, len(accuracies), examples=number)]


def _halves(runs: Runs) -> list[Control]:
    ended = runs.ended(runs.asked.arms[0].label)
    key, words = "test_accuracy", "test accuracy"
    if not all(run[key] is not None for run in ended.values()):  # a task without classes, or without a test set
        key, words = "validation_loss", "validation loss"
    values = {seed: run[key] if key == "test_accuracy" else run[key][-1] for seed, run in ended.items()}
    both = [[value for seed, value in values.items() if seed % 2 == odd] for odd in (0, 1)]
    if min(map(len, both)) < 2:
        return []
    found = difference(*both, level=1 - ERROR).estimate
    if found.value is None or found.lower is None:
        return []
    return [
        Control(
            "the first arm against itself",
            f"difference of {words}",
            abs(found.value),
            0.0,
            found.value - found.lower,
            sum(map(len, both)),
            examples=runs.sizes.get("num_test", 0),
            must="be within what seeds explain",
            why="the spread between seeds",
            is_share=False,
        )
    ]


# -- the report ------------------------------------------------------------------------------------


def find(asked: Comparison, known: Sequence[Step], results: Results) -> Found[Runs]:
    """Return all that follows from the results of a study."""
    runs = gather(asked, known, results)
    return Found(runs, asked.arms, (asked,), asked.seeds, RULE, tuple(controls(runs)))


def _judge(found: Found[Runs]) -> list[Judged] | Switch:
    asked = found.runs.asked
    if asked.baseline is not None:
        return Switch(found, found.arm(asked.baseline))
    return [judge(found, claim(each)) for each in asked.claims]


def _sections(found: Found[Runs], judged: list[Judged] | Switch) -> Sections:
    asked = found.runs.asked
    place = Column("case", "Net and data")
    note = "The best is chosen by validation loss at the end of training; test examples have no part in it."
    loss = "Validation loss at the end of training"
    tuned = tuning(found.arms, {asked.name: found.runs.searches}, place, loss, note)
    rest = (("Controls", checks(found.controls, CONTROL_NOTE)), ("Settings and jobs", settings(found)))
    words, budget = "What the words mean", asked.training.budget
    if isinstance(judged, Switch):
        values = {"budget": budget, "finalists": FINALISTS, "fresh": FRESH, "margin": asked.margin}
        return (
            ("Answer", switch.answer(judged)),
            ("Learning curves", curves(found)),
            ("Tuning", (*tuned[:1], *switch.trials(judged))),
            *rest,
            (words, (definitions(switch.OWN, values=values),)),
        )
    return (
        ("Claims", claims(found, judged)),
        ("Results", results(found)),
        ("Learning curves", curves(found)),
        ("Tuning", tuned),
        *rest,
        (words, (definitions(OWN, values={"budget": budget}),)),
    )


def _verdict(found: Found[Runs], judged: list[Judged] | Switch) -> Verdict:
    return switch.verdict(judged) if isinstance(judged, Switch) else verdict(found, judged)


def _notices(found: Found[Runs]) -> list[Text]:
    """Return which arms have no run left."""
    said = []
    for arm in found.arms:
        search, finals = found.runs.searches[arm.label], found.runs.finals[arm.label]
        if search.scores and search.best is None:
            said.append(Text(f"{arm.name} diverged at every learning rate tried.", "warning"))
        elif finals and not found.runs.ended(arm.label):
            said.append(Text(f"All {arm.name} runs diverged: no measure includes them.", "warning"))
    return said


PARTS = Parts(
    read=reading(Comparison, steps, RESULTS_VERSION, find),
    judge=_judge,
    verdict=_verdict,
    title=lambda found: f"{' and '.join(arm.name for arm in found.arms)}, {found.runs.asked.name}",
    question=lambda found: found.runs.asked.question,
    sections=_sections,
    version=RESULTS_VERSION,
    notices=_notices,
)
analyse = partial(engine.analyse, PARTS)

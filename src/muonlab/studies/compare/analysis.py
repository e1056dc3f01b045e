"""From the results of a comparison to its findings. No torch, and nothing of the user's."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from muonlab.report.findings import Column, Findings, Text
from muonlab.stats.effects import difference
from muonlab.stats.proportions import chance_limit, chance_limit_of_mean
from muonlab.studies.compare.config import RESULTS_VERSION, Claimed, Comparison
from muonlab.studies.compare.jobs import POLICY, steps
from muonlab.studies.compare.sections import OWN, claims, curves, results, settings, verdict
from muonlab.study import folder as folders
from muonlab.study.controls import ERROR, Control, checks
from muonlab.study.folder import Results
from muonlab.study.judge import judge
from muonlab.study.search import Searched, last_losses, mean_scores
from muonlab.study.sections import findings
from muonlab.study.study import Claim, Found, Quantity, Rule, Step, Values
from muonlab.study.tuning import tuning
from muonlab.study.words import definitions

RULE = Rule(test="welch")
Member = Mapping[str, Any]


@dataclass(frozen=True)
class Runs:
    """What the results hold.

    Attributes:
        asked: the study.
        finals: label -> final runs by seed.
        searches: by label.
        shuffled: runs of the control.
        sizes: of the data and the net, such as num_test; empty where no final run is done.
        steps: of the evaluations.
    """

    asked: Comparison
    finals: Mapping[str, Mapping[int, Member]]
    searches: Mapping[str, Searched]
    shuffled: tuple[Member, ...]
    sizes: Mapping[str, Any]
    steps: tuple[int, ...]

    def ended(self, label: str) -> dict[int, Member]:
        """Return the final runs of an arm that have not diverged, by seed."""
        return {seed: run for seed, run in self.finals[label].items() if run["diverged_at"] is None}


def gather(asked: Comparison, known: Sequence[Step], results: Results) -> Runs:
    """Return what the results of the known jobs hold."""
    done = [(step, results[step.job.id]) for step in known if step.job.id in results]
    finals: dict[str, dict[int, Member]] = {arm.label: {} for arm in asked.arms}
    for step, result in done:
        if step.role == "final":
            own = {member["seed"]: member for member in result["members"] if member["seed"] < asked.seeds}
            finals[step.arm] |= own
    ended = [result for step, result in done if step.role == "final"]
    return Runs(
        asked,
        {label: dict(sorted(own.items())) for label, own in finals.items()},
        {
            arm.label: _searched([result for step, result in done if (step.role, step.arm) == ("search", arm.label)])
            for arm in asked.arms
        },
        tuple(member for step, result in done if step.role == "control" for member in result["members"]),
        {key: value for key, value in ended[0].items() if key not in ("members", "steps")} if ended else {},
        asked.training.steps,
    )


def _searched(found: Sequence[Mapping[str, Any]]) -> Searched:
    losses = last_losses(found)
    return Searched(mean_scores(losses), losses, POLICY)


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
    label = runs.asked.arms[0].label
    both = [[run["test_accuracy"] for seed, run in runs.ended(label).items() if seed % 2 == odd] for odd in (0, 1)]
    if min(map(len, both)) < 2:
        return []
    found = difference(*both, level=1 - ERROR).estimate
    if found.value is None or found.lower is None:
        return []
    return [
        Control(
            "the first arm against itself",
            "difference of test accuracy",
            abs(found.value),
            0.0,
            found.value - found.lower,
            sum(map(len, both)),
            examples=runs.sizes["num_test"],
            must="be within what seeds explain",
            why="the spread between seeds",
            is_share=False,
        )
    ]


# -- the report ------------------------------------------------------------------------------------


def find(asked: Comparison, known: Sequence[Step], results: Results, records: Sequence[Any]) -> Found[Runs]:
    """Return all that follows from the results of a study."""
    runs = gather(asked, known, results)
    found = tuple(controls(runs))
    return Found(runs, asked.arms, (asked,), asked.seeds, RULE, found, tuple(records), len(known))


def analyse(folder: Path) -> Findings:
    """Return what a study found, whatever part of it is done.

    Raises:
        StudyError: there is no comparison in the folder.
    """
    found = find(*folders.read(Comparison, steps, folder, RESULTS_VERSION))
    asked = found.runs.asked
    judged = [judge(found, claim(each)) for each in asked.claims]
    place = Column("case", "Net and data")
    note = "The best is chosen by validation loss at the end of training; test examples have no part in it."
    loss = "Validation loss at the end of training"
    sections = (
        ("Claims", claims(found, judged)),
        ("Results", results(found)),
        ("Learning curves", curves(found)),
        ("Tuning", tuning(found.arms, {asked.name: found.runs.searches}, place, loss, note)),
        ("Controls", checks(found.controls, CONTROL_NOTE)),
        ("Settings and jobs", settings(found)),
        ("What the words mean", (definitions(OWN, values={"budget": asked.training.budget}),)),
    )
    title = f"{' and '.join(arm.name for arm in found.arms)}, {asked.name}"
    return findings(title, asked.question, verdict(found, judged), found, _notices(found), sections, RESULTS_VERSION)


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

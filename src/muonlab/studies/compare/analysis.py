"""From the results of a comparison to its findings. No torch, and nothing of the user's."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from muonlab.report.findings import Column, Findings, Kind, Text
from muonlab.stats.effects import difference
from muonlab.studies.compare.config import RESULTS_VERSION, CompareStudy
from muonlab.studies.compare.jobs import POLICY, scores, steps
from muonlab.studies.compare.sections import ORDER, OWN, at_end, claims, curves, results, settings, verdict
from muonlab.study import folder as folders
from muonlab.study.controls import ERROR, Control, at_chance, checks
from muonlab.study.folder import Results
from muonlab.study.judge import judge
from muonlab.study.search import Score, Searched
from muonlab.study.sections import findings
from muonlab.study.study import Claim, Found, Quantity, Rule, Side, Step, Values
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
    """

    asked: CompareStudy
    finals: Mapping[str, Mapping[int, Member]]
    searches: Mapping[str, Searched]
    shuffled: tuple[Member, ...]
    sizes: Mapping[str, Any]

    def ended(self, label: str) -> dict[int, Member]:
        """Return the final runs of an arm that have not diverged, by seed."""
        return {seed: run for seed, run in self.finals[label].items() if run["diverged_at"] is None}


def gather(asked: CompareStudy, known: Sequence[Step], results: Results) -> Runs:
    """Return what the results of the known jobs hold."""
    done = [(step, results[step.job.id]) for step in known if step.job.id in results]

    def members(role: str, label: str) -> list[Member]:
        return [run for step, result in done if (step.role, step.arm) == (role, label) for run in result["members"]]

    def finals(label: str) -> dict[int, Member]:
        # A block that was done for more seeds is taken as it is; the further ones are not asked for.
        runs = sorted(members("final", label), key=lambda run: run["seed"])
        return {run["seed"]: run for run in runs if run["seed"] < asked.seeds}

    searched = {arm.label: [r for s, r in done if (s.role, s.arm) == ("search", arm.label)] for arm in asked.arms}
    ended = next((result for step, result in done if step.role == "final"), {})
    return Runs(
        asked,
        {arm.label: finals(arm.label) for arm in asked.arms},
        {label: _searched(own) for label, own in searched.items()},
        tuple(members("control", asked.arms[0].label)),
        {key: value for key, value in ended.items() if key not in ("members", "steps")},
    )


def _searched(found: Sequence[Mapping[str, Any]]) -> Searched:
    known: dict[float, Score] = {}
    losses: dict[float, list[float | None]] = {}
    for result in found:
        known |= scores(result)
        for member in result["members"]:
            losses.setdefault(member["rate"], []).append(member["validation_loss"][-1])
    return Searched(known, losses, POLICY)


# -- quantities ------------------------------------------------------------------------------------


def _of_runs(measure: Callable[[CompareStudy, Member], float | None]) -> Callable[..., Values]:
    """Return the number of every run that has not diverged, by seed; None where there is none yet."""

    def values(found: Found[Runs], case: CompareStudy, arm: str, rival: str, state: Any) -> Values:
        known = {seed: measure(case, run) for seed, run in found.runs.ended(arm).items()}
        return {seed: value for seed, value in known.items() if value is not None} or None

    return values


def _steps(asked: CompareStudy, run: Member) -> float | None:
    """Return the step of the first evaluation at the target; the budget for a run that did not reach it."""
    if asked.target is None:
        return None
    both = zip(asked.training.steps, run["validation_loss"], strict=True)
    return next((step for step, loss in both if loss <= asked.target), asked.training.budget)


def _at_end(key: str, kind: Kind, expects: Side) -> Quantity:
    words = key.replace("_", " ")
    values = _of_runs(lambda asked, run: at_end(run, key))
    return Quantity(key.replace("_", "-"), words, words.split()[-1], values, kind, expects=expects)


QUANTITIES = {
    "validation_loss": _at_end("validation_loss", "number", "lower"),
    "train_loss": _at_end("train_loss", "number", "lower"),
    "validation_accuracy": _at_end("validation_accuracy", "accuracy", "higher"),
    "test_accuracy": _at_end("test_accuracy", "accuracy", "higher"),
    "steps": Quantity("steps", "steps to the target loss", "steps", _of_runs(_steps), "number", expects="lower"),
}

# -- controls --------------------------------------------------------------------------------------

CONTROL_NOTE = (
    "Shuffled labels: the first arm trained with the labels of its training examples in an order of their own per run, "
    "mean test accuracy over runs. The first arm against itself: its runs of even seeds minus those of odd seeds."
)


def controls(runs: Runs) -> list[Control]:
    """Return every control that can be judged yet."""
    accuracies = [run["test_accuracy"] for run in runs.shuffled if run["diverged_at"] is None]
    sizes, found = runs.sizes, []
    if accuracies:
        found.append(at_chance("shuffled labels", "mean test accuracy", accuracies, sizes["chance"], sizes["num_test"]))
    own = runs.ended(runs.asked.arms[0].label)
    both = [[run["test_accuracy"] for seed, run in own.items() if seed % 2 == odd] for odd in (0, 1)]
    if min(map(len, both)) < 2:
        return found
    halves = difference(*both, level=1 - ERROR).estimate
    if halves.value is not None and halves.lower is not None:
        name, what = "the first arm against itself", "difference of test accuracy"
        spread = {"must": "be within what seeds explain", "why": "the spread between seeds", "is_share": False}
        limit, n = halves.value - halves.lower, sum(map(len, both))
        found.append(Control(name, what, abs(halves.value), 0.0, limit, n, examples=sizes["num_test"], **spread))
    return found


# -- the report ------------------------------------------------------------------------------------


def find(asked: CompareStudy, known: Sequence[Step], results: Results, records: Sequence[Any]) -> Found[Runs]:
    """Return all that follows from the results of a study."""
    runs = gather(asked, known, results)
    return Found(runs, asked.arms, (asked,), asked.seeds, RULE, tuple(controls(runs)), tuple(records), len(known))


def analyse(folder: Path) -> Findings:
    """Return what a study found, whatever part of it is done.

    Raises:
        StudyError: there is no comparison in the folder.
    """
    found = find(*folders.read(CompareStudy, steps, folder, RESULTS_VERSION))
    asked = found.runs.asked
    judged = [
        judge(found, Claim(each.letter, each.title, each.words, tuple(QUANTITIES[key] for key in each.quantities)))
        for each in asked.claims
    ]
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
        ("What the words mean", (definitions(OWN, ORDER, {"budget": asked.training.budget}),)),
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

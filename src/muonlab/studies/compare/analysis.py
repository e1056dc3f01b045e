"""From the results of a comparison to its findings. No torch, and nothing of the user's."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from muonlab.jobs import store
from muonlab.jobs.job import JobRecord
from muonlab.report.findings import Column, Element, Findings, Kind, Text
from muonlab.stats.effects import difference
from muonlab.stats.power import POWER
from muonlab.studies.compare import answer, programs, sentences, suite_report
from muonlab.studies.compare.best import best
from muonlab.studies.compare.command import Command
from muonlab.studies.compare.config import RESULTS_VERSION, CompareStudy, NetAndData
from muonlab.studies.compare.jobs import POLICY, by_rate, steps, tried
from muonlab.studies.compare.sections import ORDER, OWN, at_end, claims, curves, results, settings, verdict
from muonlab.studies.compare.switch import Switch
from muonlab.studies.compare.trials import FINALISTS, FRESH, Trials, last_loss
from muonlab.study import folder as folders
from muonlab.study.controls import ERROR, Control, at_chance, checks
from muonlab.study.folder import Results
from muonlab.study.judge import Judged, judge
from muonlab.study.search import Searched, mean_scores
from muonlab.study.sections import findings
from muonlab.study.space import Space
from muonlab.study.study import Claim, Found, Quantity, Rule, Side, Step, Values
from muonlab.study.tuning import tuning
from muonlab.study.words import definitions, several

RULE = Rule(test="welch")
FLOPS = "flops_per_step"
NUMBERS = ("seeds", "search_seeds", "trials")  # of runs, which may be raised after a look at the report
Member = Mapping[str, Any]


@dataclass(frozen=True)
class Runs:
    """What the results hold.

    Attributes:
        asked: the study.
        finals: label -> final runs by seed.
        points: label -> settings of its final runs, as far as they were tuned.
        searches: by label, by learning rate.
        trials: by label, where arms are tuned by trials and theirs are done.
        present: losses of the baseline as the user has it now, by seed; infinite where a run diverged.
        shuffled: runs of the control.
        sizes: of the data and the net, such as num_test; empty where no final run is done.
        flops: label -> FLOPs of matrix products of one step of one run, where they were counted.
        looks: requests for this comparison, with whatever numbers of seeds and trials, that its folder has had.
    """

    asked: CompareStudy
    finals: Mapping[str, Mapping[int, Member]]
    points: Mapping[str, Mapping[str, float]]
    searches: Mapping[str, Searched]
    trials: Mapping[str, Trials]
    present: Mapping[int, float]
    shuffled: tuple[Member, ...]
    sizes: Mapping[str, Any]
    flops: Mapping[str, float]
    looks: int = 1

    @property
    def num_trials(self) -> int:
        """Trials of each arm: those that were asked, and those beyond an edge."""
        tried = [len(own.points) for own in self.trials.values()]
        asked = [own.trials for own in self.asked.searches.values() if isinstance(own, Space)]
        return max(tried or asked)

    def ended(self, label: str) -> dict[int, Member]:
        """Return the final runs of an arm that have not diverged, by seed."""
        return {seed: run for seed, run in self.finals[label].items() if run["diverged_at"] is None}

    def losses(self, label: str) -> dict[int, float]:
        """Return the final validation losses of an arm by seed, infinite where a run diverged."""
        return {seed: last_loss(run) for seed, run in self.finals[label].items()}


def gather(asked: CompareStudy, known: Sequence[Step], results: Results, trials: Mapping[str, Trials]) -> Runs:
    """Return what the results of the jobs of a part hold, with the trials of its arms."""
    done = [(step, results[step.job.id]) for step in known if step.job.id in results]

    def of(role: str, label: str) -> list[dict[str, Any]]:
        return [result for step, result in done if (step.role, step.arm) == (role, label)]

    labels = [arm.label for arm in asked.arms]
    finals = {
        label: {m["seed"]: m for result in of("final", label) for m in result["members"] if m["seed"] < asked.seeds}
        for label in labels
    }
    ended = [result for step, result in done if step.role == "final"]
    skipped = ("members", "steps", "points", FLOPS)
    return Runs(
        asked,
        {label: dict(sorted(own.items())) for label, own in finals.items()},
        {label: own[0]["points"][0] for label in labels if (own := of("final", label))},
        {label: _searched(of("search", label)) for label in labels},
        trials,
        {m["seed"]: last_loss(m) for result in of("present", asked.baseline or "") for m in result["members"]},
        tuple(member for step, result in done if step.role == "control" for member in result["members"]),
        {key: value for key, value in ended[0].items() if key not in skipped} if ended else {},
        {label: own[0][FLOPS] for label in labels if (own := of("final", label)) and own[0].get(FLOPS)},
    )


def _searched(found: Sequence[Mapping[str, Any]]) -> Searched:
    losses = by_rate(found)
    return Searched(mean_scores(losses), losses, POLICY)


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
    return next((step for step, loss in both if loss is not None and loss <= asked.target), asked.training.budget)


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
    # A task may have no classes, or no test set.
    key = "test_accuracy" if all(run["test_accuracy"] is not None for run in own.values()) else "validation_loss"
    both = [[at_end(run, key) for seed, run in own.items() if seed % 2 == odd] for odd in (0, 1)]
    if min(map(len, both)) < 2:
        return found
    halves = difference(*both, level=1 - ERROR).estimate
    if halves.value is not None and halves.lower is not None:
        name, what = "the first arm against itself", f"difference of {key.replace('_', ' ')}"
        spread = {"must": "be within what seeds explain", "why": "the spread between seeds", "is_share": False}
        limit, n = halves.value - halves.lower, sum(map(len, both))
        found.append(Control(name, what, abs(halves.value), 0.0, limit, n, examples=sizes.get("num_test", 0), **spread))
    return found


# -- the report ------------------------------------------------------------------------------------


def find(
    asked: CompareStudy, known: Sequence[Step], results: Results, records: Sequence[JobRecord] = ()
) -> tuple[Found[Runs], ...]:
    """Return all that follows from the results of a study, for each of its parts: the whole budget comes first."""
    return tuple(_of_part(part, known, results, records) for part in asked.parts)


def _of_part(part: CompareStudy, known: Sequence[Step], results: Results, records: Sequence[JobRecord]) -> Found[Runs]:
    steps = [step for step in known if step.case is part]
    runs = gather(part, steps, results, tried(part, results, steps[0].config.results_version))
    ids = {step.job.id for step in steps}
    own = tuple(record for record in records if record.id in ids)
    return Found(runs, part.arms, (part,), part.seeds, RULE, tuple(controls(runs)), own, len(ids))


def read(folder: Path) -> tuple[Found[Runs], ...]:
    """Return all that is known of each part of the study in a folder.

    Raises:
        StudyError: there is no comparison in the folder.
    """
    return _read(folder)[1]


def _read(folder: Path) -> tuple[CompareStudy, tuple[Found[Runs], ...]]:
    """Return what was asked, and all that is known of each part; as `read`."""
    asked, known, results, records = folders.read(CompareStudy, steps, folder, RESULTS_VERSION)
    found = find(asked, known, results, records)
    number = looks(request.config for request in store.read(folder).requests)
    return asked, tuple(replace(each, runs=replace(each.runs, looks=number)) for each in found)


def looks(configs: Iterable[Mapping[str, Any]]) -> int:
    """Return how many of the requests are the last one, with whatever numbers of seeds and trials; each pair once."""

    def plain(config: Any) -> Any:
        if isinstance(config, Mapping):
            return {key: plain(value) for key, value in config.items() if key not in NUMBERS}
        return config

    *earlier, newest = configs
    # One that was written with other words and asks the same, such as trials=16 for the default, is no other look.
    different = [each for place, each in enumerate(earlier) if each != newest and each not in earlier[:place]]
    return 1 + sum(plain(each) == plain(newest) for each in different)


def analyse(folder: Path) -> Findings:
    """Return what a study found, whatever part of it is done; as `read`."""
    asked, founds = _read(Path(folder))
    if founds[0].runs.asked.suite:
        return suite_report.analyse(founds, asked, RESULTS_VERSION)
    found, *others = founds
    judged, shorter = _judge(found), [own for own in map(_judge, others) if isinstance(own, Switch)]
    title = f"{several(arm.name for arm in found.arms)}, {found.runs.asked.name}"
    said = sentences.verdict(judged, shorter) if isinstance(judged, Switch) else verdict(found, judged)
    sections = _sections(found, judged, shorter)
    whole = findings(title, found.runs.asked.question, said, found, _notices(found), sections, RESULTS_VERSION)
    if not isinstance(judged, Switch):
        return whole
    is_code = found.runs.points and not isinstance(found.runs.asked.trained, Command)
    files = (("best.py", best(found.arms, found.runs.points, title, asked.named)),) if is_code else ()
    return replace(whole, first=answer.first_screen(judged), files=files)


def _judge(found: Found[Runs]) -> list[Judged] | Switch:
    asked = found.runs.asked
    if asked.baseline is not None:
        return Switch(found, found.arm(asked.baseline))
    return [
        judge(found, Claim(each.letter, each.title, each.words, tuple(QUANTITIES[key] for key in each.quantities)))
        for each in asked.claims
    ]


def _sections(
    found: Found[Runs], judged: list[Judged] | Switch, shorter: Sequence[Switch]
) -> Sequence[tuple[str, Sequence[Element]]]:
    asked = found.runs.asked
    place = Column("case", "Net and data")
    note = "The best is chosen by validation loss at the end of training; test examples have no part in it."
    loss = "Validation loss at the end of training"
    tuned = tuning(found.arms, {asked.name: found.runs.searches}, place, loss, note)
    # A task has no job for a control, so none is missing; its runs make one where there are seeds enough.
    is_due = isinstance(asked.trained, NetAndData)
    held = checks(found.controls, CONTROL_NOTE) if found.controls or is_due else ()
    rest = (("Controls", held), ("Settings and jobs", settings(found)))
    words, budget = "What the words mean", asked.training.budget
    if isinstance(judged, Switch):
        values = {"budget": budget, "finalists": FINALISTS, "fresh": FRESH, "margin": asked.margin, "power": POWER}
        values |= {"goal": judged.goal}
        return (
            ("In detail", answer.details(judged)),
            ("With less training", answer.shorter(shorter)),
            ("Learning curves", curves(found)),
            ("Runs that ended early", programs.failures(found)),
            ("Tuning", answer.tuning_of(judged, tuned)),
            *rest,
            (words, (definitions(sentences.OWN, values=values | programs.words(asked)),)),
        )
    return (
        ("Claims", claims(found, judged)),
        ("Results", results(found)),
        ("Learning curves", curves(found)),
        ("Tuning", tuned),
        *rest,
        (words, (definitions(OWN, ORDER, {"budget": budget}),)),
    )


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

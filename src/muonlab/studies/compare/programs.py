"""What a report says of what is trained, where that may be a program: its settings, times, failures and command."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from muonlab.jobs.job import JobRecord
from muonlab.report.findings import Element, Table, as_text
from muonlab.studies.compare.command import Command
from muonlab.studies.compare.config import CompareStudy
from muonlab.study.constructor import constructor
from muonlab.study.sections import columns as table_columns
from muonlab.study.space import Point
from muonlab.study.study import Arm, Found

TASK = {
    "pairing": "runs of one seed start from the same weights and take the same batches",
    "lost": "diverged",
    "why_lost": "its range of learning rates is too high, or the data have NaN",
    "meaning": "A loss was not finite at some evaluation.",
}
PROGRAM = {
    "pairing": "runs of one seed get the same {seed}, and share what the program draws from it",
    "lost": "crashed or diverged",
    "why_lost": "its settings are too large, or the program fails: see Runs that ended early",
    "meaning": "The last loss in the log was not finite, or the run ended too early: with an exit status other than "
    "0, by a signal or timeout=, or without a loss near the end of its steps.",
}


def words(asked: CompareStudy) -> dict[str, str]:
    """Return what the definitions of a report say of runs."""
    return PROGRAM if isinstance(asked.trained, Command) else TASK


def settings(asked: CompareStudy) -> dict[str, Any]:
    """Return what is trained, and the settings of training that have an effect on it."""
    trained, training = asked.trained, asked.training.model_dump()
    if not isinstance(trained, Command):
        return {**{name: getattr(value, "source", value) for name, value in trained}, **training}
    warmup = {"warmup"} if "warmup_steps" in trained.placeholders else set()
    taken = {"budget", "evaluations", *trained.placeholders} | warmup
    return {**trained.shown, **{key: value for key, value in training.items() if key in taken}}


def sign(asked: CompareStudy) -> str:
    """Return what the validation loss is where a larger metric is better; empty elsewhere."""
    trained = asked.trained
    if not isinstance(trained, Command) or not trained.larger_is_better:
        return ""
    return f" (minus {trained.metric.removeprefix('-')})"


def scope(found: Found) -> str:
    """Return what is trained, for how long, and of a program the seconds of a run."""
    asked, sizes = found.runs.asked, found.runs.sizes
    if isinstance(asked.trained, Command):
        times = [f"{arm.name} {as_text(each)}" for arm in found.arms if (each := _seconds(found, arm)) is not None]
        return f"{asked.name}, {asked.training.budget:,} steps" + (
            f"; seconds per run: {', '.join(times)}" if times else ""
        )
    size = f" ({sizes['num_parameters']:,} parameters)" if "num_parameters" in sizes else ""
    return f"{asked.name}{size}, {asked.training.budget:,} steps, {asked.training.schedule} schedule"


def _seconds(found: Found, arm: Arm) -> float | None:
    """Return the mean seconds of a run of an arm, by the clocks of its jobs; None where there are none."""
    own = [(record.seconds, record.result) for record in found.records if record.arm == arm.label]
    known = [(seconds, len(result["members"])) for seconds, result in own if seconds is not None and result]
    return sum(seconds for seconds, _ in known) / sum(number for _, number in known) if known else None


def failures(found: Found) -> tuple[Element, ...]:
    """Return the runs of a program that ended too early, and why; none where there are none."""
    rows = tuple(
        (found.name(record.arm), record.role, *_setting(record, run), run["diverged_at"], run["failure"])
        for record in found.records
        for run in (record.result or {}).get("members", ())
        if run.get("failure")
    )
    head = table_columns(
        "optimizer: Optimizer; role: Job; setting: Setting; seed: Seed [exact]; step: Last step [count]; why: Why"
    )
    title, note = "Runs that ended early", "Each counts as a run that diverged."
    return (Table("failures", title, head, rows, note),) if rows else ()


def why(run: Mapping[str, Any]) -> str:
    """Return why a run ended too early, without the last lines of its output; empty where it did not."""
    return (run.get("failure") or "").partition(". Its last")[0].partition(". It printed")[0]


def on_failures(found: Found) -> list[str]:
    """Return how many runs ended too early, and the reason of most of them."""
    runs = [run for record in found.records for run in (record.result or {}).get("members", ())]
    reasons = Counter(reason for run in runs if (reason := why(run)))
    if not (total := reasons.total()):
        return []
    (reason, number), *others = reasons.most_common()
    share = f", {number} of them since" if others else ":"
    return [f"{total} of {len(runs)} runs ended early{share} {reason} (see Runs that ended early)."]


def columns(result: Mapping[str, Any]) -> dict[str, str]:
    """Return what `muonlab show` says of a job: its runs, how many diverged, and why the first ended early."""
    members = result.get("members", ())
    lost = [member for member in members if member["diverged_at"] is not None]
    reason = next((reason for member in lost if (reason := why(member))), "")
    return {"runs": str(len(members) or ""), "diverged": str(len(lost) or ""), "why": reason}


def _setting(record: JobRecord, run: Mapping[str, Any]) -> tuple[str, int]:
    point = (record.result or {})["points"][run["point"]]
    return ", ".join(f"{key} {value:g}" for key, value in point.items()), run["seed"]


def call(found: Found, arm: Arm, point: Point) -> str:
    """Return what to paste to use an optimizer at a point: the command of a program, or a constructor call."""
    asked = found.runs.asked
    trained = asked.trained
    if isinstance(trained, Command):
        return trained.call(arm.optimizer, point, asked.training.budget)
    return str(constructor(arm.optimizer, point, is_named=arm.label in asked.named))

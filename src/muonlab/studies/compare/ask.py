"""Comparisons of optimizers on a user's own training, from the words of a command and from Python."""

import re
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from muonlab.jobs import local
from muonlab.report.findings import Verdict
from muonlab.studies.compare.analysis import analyse, read
from muonlab.studies.compare.command import FIELDS as PROGRAM
from muonlab.studies.compare.command import RUN_FOLDER, Command, settings_of, words_of
from muonlab.studies.compare.config import HALF_AND_FULL, CompareStudy
from muonlab.studies.compare.jobs import steps
from muonlab.studies.compare.plan import CHOICES, OPTIMIZERS, PRESENT, TRAINING, OwnStudy, compare_optimizers, keys_of
from muonlab.studies.compare.programs import call
from muonlab.study import dotted, optimizers
from muonlab.study.described import EXECUTION_KEYS
from muonlab.study.settings import Settings, UsageError, as_texts, parse
from muonlab.study.study import NAMES

WHAT = ("task", "net", "data", "loss", "suite", "command")
VERBATIM = ("command", "log", "pattern")  # texts in which a comma parts nothing
STEPS = "steps"  # what the verb calls the budget
DEFAULT = ["adamw", "muon"]  # the first is the baseline
TRIALS, SEEDS, EXTENSIONS = 16, 5, 1
LOSS = ("a", "Final loss", "the final validation loss is lower", ("validation_loss",))


def ask(words: Sequence[str]) -> tuple[OwnStudy, CompareStudy, Settings]:
    """Return the study of the words, what it asks, and the settings of how it runs.

    Args:
        words: a task `package.module:function` or `path/file.py:function`, or command=, and settings `key=value`.

    Raises:
        UsageError: a word that cannot be; the message says what to do.
    """
    tasks = [word for word in words if "=" not in word]
    settings = [word for word in words if "=" in word]
    chosen = [word.partition("=")[2].split(",") for word in settings if word.startswith("optimizers=")]
    labels = optimizers.labelled(
        chosen[0] if chosen else DEFAULT,
        OPTIMIZERS,
        taken=(*WHAT, *CHOICES, *TRAINING),
        any_word=any(word.startswith("command=") for word in settings),
    )
    given = _given(settings, labels)
    if len(tasks) > 1 or (tasks and "task" in given):
        raise UsageError(f"{len(tasks) + ('task' in given)} tasks are given; expected one, such as my_project.py:task")
    if tasks:
        given["task"] = tasks
    elif not any(key in given for key in WHAT):
        raise UsageError("nothing to train; give a task, such as muonlab compare my_project.py:task (docs/compare.md)")
    has_steps = STEPS in given
    if has_steps:
        if "budget" in given:
            raise UsageError("steps and budget are one setting; give one of them")
        given["budget"] = given.pop(STEPS)
    beside = {key: given.pop(key) for key in EXECUTION_KEYS if key in given}
    try:
        study = study_of(labels, given)
    except UsageError as error:
        if not has_steps or not str(error).startswith("budget="):
            raise
        raise UsageError(str(error).replace("budget=", f"{STEPS}=", 1)) from error
    # The request is kept as its words, so that a report can say which command asked for it.
    asked = study.asked.model_copy(update={"preset": "none", "settings": {"models": tasks, **_words(settings)}})
    return study, asked, beside


def _given(words: Sequence[str], labels: Mapping[str, str]) -> Settings:
    """Return key -> values of the words; texts are left out of the parsing, but may stand once, too."""
    pairs = [word.partition("=") for word in words]
    texts = {key: text for key, _, text in pairs if key in VERBATIM}
    if empty := [key for key, text in texts.items() if not text.strip()]:
        raise UsageError(f"{empty[0]}= has an empty value; expected {empty[0]}=VALUE")
    taken = settings_of(texts["command"]) if "command" in texts else None
    known = [key for label, name in labels.items() for key in keys_of(label, name, taken)]
    known += [key for key, _, _ in pairs if key.startswith(PRESENT)]
    for key, _, _ in pairs:
        label, _, setting = key.partition(".")
        if taken is not None and label in labels and setting and key not in known:
            raise UsageError(
                f"{key} has no effect: the command has no {{{setting}}}; put it where the program takes it, or leave "
                f"{key} out"
            )
    short = [f"{key}=text" if key in VERBATIM else f"{key}{equals}{text}" for key, equals, text in pairs]
    given = parse(
        short, (*WHAT, *PROGRAM, "optimizers", "baseline", STEPS, *CHOICES, *TRAINING, *known, *EXECUTION_KEYS)
    )
    if "command" not in given and (own := [key for key in PROGRAM if key in given]):
        raise UsageError(f"{own[0]}= has no effect without command=; give the program, or leave {own[0]} out")
    return given | {key: [text] for key, text in texts.items()}


def _words(settings: Sequence[str]) -> Settings:
    split = (word.partition("=") for word in settings)
    return {key: [value] for key, _, value in split if key not in EXECUTION_KEYS}


def study_of(labels: Mapping[str, str], given: Settings) -> OwnStudy:
    """Return the study of labelled optimizers and settings.

    Args:
        labels: label -> built-in or dotted name.
        given: key -> values.
    """
    one = {key: ",".join(values) for key, values in given.items()}
    baseline = one.get("baseline", next(iter(labels)))
    if baseline not in labels:
        raise UsageError(f"baseline={baseline} is none of the optimizers; expected one of {', '.join(labels)}")
    others = [label for label in labels if label != baseline]
    arms = {
        label: (
            labels[label],
            {key.partition(".")[2]: values for key, values in given.items() if key.startswith(f"{label}.")},
        )
        for label in (*others, baseline)
    }
    named = {label: NAMES.get(label, label) if labels[label] == label else label for label in labels}
    names = " or ".join(named[label] for label in others)
    question = f"Should you switch from {named[baseline]} to {names}?" if others else f"How good is {named[baseline]}?"
    return compare_optimizers(
        question=question,
        arms=arms,
        claims=[LOSS],
        baseline=baseline,
        **{key: one[key] for key in WHAT if key in one and key != "command"},
        command={key: one[key] for key in PROGRAM if key in one} or None,
        **{
            "trials": TRIALS,
            "seeds": SEEDS,
            "extensions": EXTENSIONS,
            **{key: one[key] for key in (*CHOICES, *TRAINING) if key in one},
            "horizons": given.get("horizons", HALF_AND_FULL),
            "present": {key.removeprefix(PRESENT): text for key, text in one.items() if key.startswith(PRESENT)},
        },
    )


def default_folder(asked: CompareStudy) -> str:
    """Return the name of the study's folder where none is given."""
    name = Path(asked.name).stem if isinstance(asked.trained, Command) else asked.name
    return "compare-" + re.sub(r"[^\w.-]+", "-", name.replace(" on ", "-"))


def first_command(asked: CompareStudy, folder: Path, device: str) -> str:
    """Return the first command of a comparison of a program as it would be run; empty where no program is trained."""
    if not isinstance(asked.trained, Command):
        return ""
    first = steps(asked, {})[0]
    point, seed = first.config.points[0], first.config.seeds[0]
    place = folder / first.job.id / "runs" / f"0-{seed}" / RUN_FOLDER
    return shlex.join(
        words_of(asked.trained, first.config.optimizer, point, seed, first.config.training, place, device)
    )


# -- from Python -----------------------------------------------------------------------------------

# Classes that muonlab has as built-in optimizers: they train a population faster, and have ranges of their own.
BUILT_IN = {
    "torch.optim.adamw:AdamW": "adamw",
    "torch.optim.sgd:SGD": "sgd",
    "muonlab.optim.muon:Muon": "muon",
    "muonlab.optim.muonadamw:MuonAdamW": "muon",
}


@dataclass(frozen=True)
class Compared:
    """What a comparison found.

    Attributes:
        verdict: what the report says first; `verdict.sentence` is the answer, `verdict.cautions` what weakens it.
        best: label -> the constructor call of its best setting, to paste.
        report: path of the page.
    """

    verdict: Verdict
    best: dict[str, str]
    report: Path


def compare(
    task: Callable[[int], Any] | str | None = None,
    optimizers: Mapping[str, Any] | None = None,
    *,
    baseline: str | None = None,
    out: str | Path | None = None,
    device: str = "cpu",
    workers: int | None = None,
    **settings: Any,
) -> Compared:
    """Compare optimizers on your own training: tune each by as many trials, run the winners again, and report.

    Called again with the same arguments it goes on where it stopped, or reads what is there. Worker processes import
    the file that calls it, so a script calls it under `if __name__ == "__main__":`.

    Args:
        task: a function of a seed, at the top of a file, that returns (model, train, validation, loss) and, if there is
            one, test; or its name, "package.module:function". None with command= or net= and data= among the settings.
        optimizers: label -> "adamw", "muon", "sgd", or a class or function of torch's protocol; by default AdamW and
            Muon. The first is the baseline.
        baseline: label of the optimizer that the others would replace.
        out: folder of the study; by default runs/compare-FILE-TASK, of the task's file and function.
        device: a torch device.
        workers: processes at most; as many as cores by default.
        settings: trials=16, seeds=5, steps=300, and all others of docs/compare.md; a key with a dot is a dict:
            AdamW={"lr": "1e-4..1e-2"}.

    Raises:
        UsageError: a task, optimizer or setting that does not fit; the message says what to do.
        StudyError: the folder cannot be used.
    """
    main = getattr(sys.modules["__main__"], "__spec__", None)
    if main is not None and main.name == "muonlab.jobs.worker":
        raise UsageError(
            'muonlab.compare was called as a worker imported the script; put the call under if __name__ == "__main__":'
        )
    labels = {label: _name_of(label, own) for label, own in (optimizers or {"AdamW": "adamw", "Muon": "muon"}).items()}
    given: dict[str, Any] = {} if baseline is None else {"baseline": baseline}
    for key, value in settings.items():
        inner = value.items() if isinstance(value, Mapping) else None
        given |= {key: value} if inner is None else {f"{key}.{name}": each for name, each in inner}
    if task is not None:
        given["task"] = task if isinstance(task, str) else dotted.name_of("task", task)
    words = [f"{key}={','.join(as_texts(key, value))}" for key, value in given.items()]
    study, asked, _ = ask([f"optimizers={','.join(f'{label}={name}' for label, name in labels.items())}", *words])
    folder = Path(out if out is not None else Path("runs") / default_folder(asked))
    names: dict[str, str] = {}
    with closing(local.run(study, asked, folder, workers=workers, device=device)) as events:
        for event in events:
            if event.kind == "started":
                names[event.job] = event.detail["name"]
            elif event.kind in ("finished", "failed"):
                why = f": {event.detail['reason']}" if event.kind == "failed" else ""
                print(f"{names.get(event.job, event.job)}: {event.kind}{why}", file=sys.stderr, flush=True)

    from muonlab.report import page

    found = read(folder)[0]
    tuned = [(arm, point) for arm in found.arms if (point := found.runs.points.get(arm.label))]
    best = {arm.label: call(found, arm, point) for arm, point in tuned}
    findings = analyse(folder)
    return Compared(findings.verdict, best, page.write(findings, folder))


def _name_of(label: str, optimizer: Any) -> str:
    name = optimizer if isinstance(optimizer, str) else dotted.name_of(f"optimizers[{label!r}]", optimizer)
    return BUILT_IN.get(name, name)

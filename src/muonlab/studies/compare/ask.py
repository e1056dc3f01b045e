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
from muonlab.studies.compare.plan import CHOICES, MARGIN, OPTIMIZERS, PRESENT, TRAINING, OwnStudy, keys_of, own_study
from muonlab.studies.compare.programs import call
from muonlab.study import dotted, optimizers
from muonlab.study.described import EXECUTION_KEYS
from muonlab.study.settings import Settings, UsageError, as_texts, check_keys, parse
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
    pairs = [word.partition("=") for word in words if "=" in word]
    short = [f"{key}=text" if key in VERBATIM else f"{key}={text}" for key, _, text in pairs]
    given = parse(short, [key for key, _, _ in pairs])  # which there are is checked later
    given |= {key: [text.strip()] for key, _, text in pairs if key in VERBATIM}
    if len(tasks) > 1 or (tasks and "task" in given):
        raise UsageError(f"{len(tasks) + ('task' in given)} tasks are given; expected one, such as my_project.py:task")
    if empty := [key for key in VERBATIM if given.get(key) == [""]]:
        raise UsageError(f"{empty[0]}= has an empty value; expected {empty[0]}=VALUE")
    # The request is kept as its words, so that a report can say which command asked for it.
    said = {key: [text] for key, _, text in pairs if key not in EXECUTION_KEYS}
    return _asked(given | ({"task": tasks} if tasks else {}), {"models": tasks, **said})


def _asked(given: Settings, said: Settings) -> tuple[OwnStudy, CompareStudy, Settings]:
    """Return what `ask` does.

    Args:
        given: key -> values.
        said: the request in words, for its command.
    """
    is_program = "command" in given
    chosen = given.pop("optimizers", DEFAULT)
    labels = optimizers.labelled(chosen, OPTIMIZERS, taken=(*WHAT, *CHOICES, *TRAINING), any_word=is_program)
    _check(given, labels)
    if not any(key in given for key in WHAT):
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
        if not has_steps:
            raise
        raise UsageError(re.sub("^budget=", f"{STEPS}=", str(error))) from None  # by the word that was given
    return study, study.asked.model_copy(update={"preset": "none", "settings": said}), beside


def _check(given: Settings, labels: Mapping[str, str]) -> None:
    """Raise UsageError for a setting that there is not, or that has no effect."""
    taken = settings_of(given["command"][0]) if "command" in given else None
    known = [key for label, name in labels.items() for key in keys_of(label, name, taken)]
    known += [key for key in given if key.startswith(PRESENT)]
    for key in given:
        label, _, setting = key.partition(".")
        if taken is not None and label in labels and setting and key not in known:
            raise UsageError(
                f"{key} has no effect: the command has no {{{setting}}}; put it where the program takes it, or leave "
                f"{key} out"
            )
    own = (*WHAT, *PROGRAM, "optimizers", "baseline", STEPS, *CHOICES, *TRAINING, *known, *EXECUTION_KEYS)
    check_keys(given, own)
    if taken is None and (idle := [key for key in PROGRAM if key in given]):
        raise UsageError(f"{idle[0]}= has no effect without command=; give the program, or leave {idle[0]} out")


def study_of(labels: Mapping[str, str], given: Settings) -> OwnStudy:
    """Return the study of labelled optimizers and settings.

    Args:
        labels: label -> built-in or dotted name.
        given: key -> values.
    """
    one = {key: ",".join(values) for key, values in given.items() if key in (*WHAT, *PROGRAM, "baseline")}
    baseline = one.get("baseline", next(iter(labels)))
    others = [label for label in labels if label != baseline]
    named = {label: NAMES.get(label, label) if name == label else label for label, name in labels.items()}
    names = " or ".join(named[label] for label in others)
    known = named.get(baseline, baseline)
    usual = {"trials": TRIALS, "seeds": SEEDS, "extensions": EXTENSIONS, "search_seeds": 1, "margin": MARGIN}
    texts = {key: [str(value)] for key, value in usual.items()} | {"horizons": [f"{each:g}" for each in HALF_AND_FULL]}
    return own_study(
        question=f"Should you switch from {known} to {names}?" if others else f"How good is {known}?",
        labels={label: labels[label] for label in (*others, baseline) if label in labels},
        texts=texts | {key: values for key, values in given.items() if key not in one},
        claims=[LOSS],
        baseline=baseline,
        command={key: one[key] for key in PROGRAM if key in one} or None,
        **{key: one.get(key) for key in WHAT if key != "command"},
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


def notes(asked: CompareStudy, folder: Path) -> list[str]:
    """Return what to know before anything runs: whether runs of a program are read again for another metric."""
    if not isinstance(asked.trained, Command) or not folder.is_dir():
        return []
    from muonlab.studies.compare.work import recorded

    return recorded.notes(asked, folder)


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
    if optimizers is not None and not isinstance(optimizers, Mapping):
        raise UsageError(f"optimizers={optimizers!r} is not valid; expected a dict, such as {{'AdamW': 'adamw'}}")
    both = {label: _name_of(label, own) for label, own in (optimizers or {"AdamW": "adamw", "Muon": "muon"}).items()}
    if task is not None:
        settings["task"] = task if isinstance(task, str) else dotted.name_of("task", task)
    given = {"optimizers": [f"{label}={name}" for label, name in both.items()]}
    for key, value in {"baseline": baseline, **settings}.items():
        inner = value if isinstance(value, Mapping) else {"": value}
        texts = {".".join(filter(None, (key, name))): each for name, each in inner.items() if each is not None}
        given |= {name: as_texts(name, each) for name, each in texts.items()}
    said = {key: [",".join(texts)] for key, texts in given.items()}
    study, asked, _ = _asked(given, {"models": [], **said})
    folder = Path(out if out is not None else Path("runs") / default_folder(asked))
    names: dict[str, str] = {}
    for note in notes(asked, folder):
        print(f"note: {note}", file=sys.stderr)
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

"""The verb `muonlab compare`: what its words ask."""

from collections.abc import Mapping, Sequence

from muonlab.studies.compare.config import Comparison
from muonlab.studies.compare.plan import CHOICES, OPTIMIZERS, TRAINING, OwnStudy, compare_optimizers
from muonlab.study import dotted, optimizers
from muonlab.study.settings import Settings, UsageError, check_keys, parse
from muonlab.study.space import FACTOR

WHAT = ("task", "net", "data", "loss")
EXECUTION = ("out", "device", "workers", "compile")
STEPS = "steps"  # what the verb calls the budget
DEFAULT = ["adamw", "muon"]  # the first is the baseline
TRIALS, SEEDS = 16, 5
LOSS = ("a", "Final loss", "the final validation loss is lower", ("validation_loss",))


def ask(words: Sequence[str]) -> tuple[OwnStudy, Comparison, Settings]:
    """Return the study of the words, what it asks, and the settings of how it runs.

    Args:
        words: a task `package.module:function` or `path/file.py:function`, and settings `key=value`.

    Raises:
        UsageError: a word that cannot be; the message says what to do.
    """
    tasks = [word for word in words if "=" not in word]
    settings = [word for word in words if "=" in word]
    chosen = [word.partition("=")[2].split(",") for word in settings if word.startswith("optimizers=")]
    labels = optimizers.labelled(chosen[0] if chosen else DEFAULT, OPTIMIZERS, taken=(*WHAT, *CHOICES, *TRAINING))
    own = [key for label, name in labels.items() for key in optimizers.keys(label, name, OPTIMIZERS)]
    own += [f"{label}.{FACTOR}" for label, name in labels.items() if name == "muon"]
    known = (*WHAT, "optimizers", "baseline", STEPS, *CHOICES, *TRAINING, *EXECUTION, *own)
    given = parse(settings, known)
    if len(tasks) > 1 or (tasks and "task" in given):
        raise UsageError(f"{len(tasks) + ('task' in given)} tasks are given; expected one, such as my_project.py:task")
    if tasks:
        given["task"] = tasks
    elif not any(key in given for key in WHAT):
        raise UsageError("nothing to train; give a task, such as muonlab compare my_project.py:task (docs/compare.md)")
    if STEPS in given:
        if "budget" in given:
            raise UsageError("steps and budget are one setting; give one of them")
        given["budget"] = given.pop(STEPS)
    beside = {key: given.pop(key) for key in EXECUTION if key in given}
    study = study_of(labels, given)
    # The request is kept as its words, so that a report can say which command asked for it.
    asked = study.asked.model_copy(update={"preset": "none", "settings": {"models": tasks, **_words(settings)}})
    return study, asked, beside


def _words(settings: Sequence[str]) -> Settings:
    split = (word.partition("=") for word in settings)
    return {key: [value] for key, _, value in split if key not in EXECUTION}


def study_of(labels: Mapping[str, str], given: Settings) -> OwnStudy:
    """Return the study of labelled optimizers and settings.

    Args:
        labels: label -> built-in or dotted name.
        given: key -> values.
    """
    check_keys(given, given)
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
    names = " or ".join(others) or baseline
    return compare_optimizers(
        question=f"Should you switch from {baseline} to {names}?" if others else f"How good is {baseline}?",
        arms=arms,
        claims=[LOSS],
        baseline=baseline,
        **{key: one[key] for key in WHAT if key in one},
        **{
            "trials": TRIALS,
            "seeds": SEEDS,
            **{key: one[key] for key in (*CHOICES, *TRAINING) if key in one},
        },
    )


def default_folder(asked: Comparison) -> str:
    """Return the name of the study's folder where none is given."""
    words = asked.name.replace(" on ", "-")
    return f"compare-{words}" if dotted.is_dotted(words) is False else "compare"

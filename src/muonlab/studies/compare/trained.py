"""What a comparison trains, from what a user gives: a task, a net on data, a suite, or a program."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from muonlab.jobs.files import fingerprint
from muonlab.studies.compare import command as programs
from muonlab.studies.compare.builtin import SUITES, TASKS, data_of
from muonlab.studies.compare.command import Command
from muonlab.studies.compare.config import BuiltIn, NetAndData, Suite, Task, Trained, Training, Workload
from muonlab.study import dotted
from muonlab.study.dotted import Dotted
from muonlab.study.settings import UsageError, check_name

LOSSES = ("softmax", "stablemax", "sparsemax")  # of muonlab.losses, which asks for torch
# What is expected of each, in words.
NET = "a function that makes a torch.nn.Module, called with shape= (of one input) and classes=, or those that it takes"
DATA = "a function without arguments that returns train, validation and test, each (inputs, labels)"
TASK = "a function of a seed that returns (model, train, validation, loss)"
LOSS = f"{', '.join(LOSSES)}, or a function of logits (B, C) and labels (B,) that returns a loss per example (B,)"

Named = str | Callable[..., Any]


def one(task: Named | None, net: Named | None, data: Named | None, loss: Named | None) -> Trained:
    """Return the one training of a task, built-in or of a user's own, or of a net on data.

    Raises:
        UsageError: what is given is not there, or does not go together.
    """
    if isinstance(task, str) and not dotted.is_dotted(task):
        if task.endswith(".py"):
            raise UsageError(f"task={task} names no function; expected one of that file, such as {task}:task")
        check_name("task", task, TASKS, f"or one of your own, {dotted.FORM}")
        if given := [key for key, value in (("net", net), ("loss", loss)) if value is not None]:
            raise UsageError(f"task={task} has net and loss of its own; leave out {' and '.join(given)}")
        if callable(data):
            raise UsageError(f"task={task} reads files; expected data to be {TASKS[task].reads}")
        return BuiltIn(builtin=task, data=data_of(task, None if data is None else str(data)))
    if task is not None:
        if given := [key for key, value in (("net", net), ("data", data), ("loss", loss)) if value is not None]:
            raise UsageError(f"task= returns net, data and loss; leave out {' and '.join(given)}")
        return Task(task=_dotted("task", task, TASK))
    if net is None or data is None:
        raise UsageError("nothing to train; give task=, a function of a seed, or net= and data=")
    return NetAndData(
        net=_dotted("net", net, NET), data=_data(data), loss=_dotted("loss", loss or "softmax", LOSS, LOSSES)
    )


def program(
    given: Mapping[str, Any],
    others: Mapping[str, Any],
    labels: Mapping[str, str],
    settings: Sequence[str],
    training: Mapping[str, Any],
) -> Command:
    """Return a program; others are further things to train, settings those that optimizers are given.

    Raises:
        UsageError: the command cannot be run so.
    """
    if any(other is not None for other in others.values()):
        raise UsageError("command= is what is trained; leave out task, net, data and loss")
    found = programs.of(given, labels, settings)
    for key in ("batch", "schedule", "warmup"):
        if key in training and not {key, f"{key}_steps"} & {*found.placeholders}:
            raise UsageError(f"{key}={training[key]} has no effect: command has no {{{key}}}; leave it out")
    return found


def suite(suite: str | Sequence[str], others: Mapping[str, Any], training: Training, given: Mapping[str, Any]) -> Suite:
    """Return several built-in tasks, each with the steps and batch that it has, unless they are given.

    Raises:
        UsageError: a name that is not there, or something else to train.
    """
    if extra := [key for key, value in others.items() if value is not None]:
        raise UsageError(f"suite={suite} has tasks of its own; leave out {' and '.join(extra)}")
    names = suite.split(",") if isinstance(suite, str) else list(suite)
    names = list(SUITES[names[0]]) if len(names) == 1 and names[0] in SUITES else names
    for name in names:
        check_name("task of a suite", name, TASKS, f"or a suite: {', '.join(SUITES)}")
    if len(set(names)) < len(names):
        raise UsageError(f"suite={','.join(names)} names a task twice; give each once")

    def workload(name: str) -> Workload:
        own = {key: value for key, value in TASKS[name].training.items() if key not in given}
        trained = BuiltIn(builtin=name, data=data_of(name, None))
        return Workload(trained=trained, training=training.model_copy(update=own))

    return Suite(name=suite if isinstance(suite, str) else ",".join(suite), workloads=tuple(map(workload, names)))


def name_of(key: str, value: Named, like: str, builtin: Sequence[str] = ()) -> str:
    """Return the dotted name of a function or class, or the name that is given; UsageError where it is neither."""
    if callable(value):
        return dotted.name_of(key, value)
    if not isinstance(value, str) or (value not in builtin and not dotted.is_dotted(value)):
        raise UsageError(f"{key}={value} is not valid; expected {like}. By name: {dotted.FORM}")
    return value


def _dotted(key: str, value: Named, like: str, builtin: Sequence[str] = ()) -> Dotted:
    name = name_of(key, value, like, builtin)
    return Dotted(name=name) if name in builtin else dotted.find(key, name, like)


def _data(value: Named | Path) -> Dotted:
    if callable(value) or dotted.is_dotted(str(value)):
        return _dotted("data", value if callable(value) else str(value), DATA)
    name = str(value)
    path = Path(name).expanduser()
    if name != "digits" and not path.exists():
        raise UsageError(f"data={name}: there is no such file or folder; expected digits, a path, or {DATA}")
    return Dotted(name=name, sha256=None if name == "digits" else fingerprint(path))

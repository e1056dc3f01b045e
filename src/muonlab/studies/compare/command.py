"""Any program as what is trained: its command with placeholders, and where its metrics stand."""

import re
import shlex
from collections.abc import Collection, Iterable, Mapping
from functools import cached_property
from pathlib import Path
from string import Formatter
from typing import Annotated, Any

from pydantic import BaseModel, Field

from muonlab.jobs.files import fingerprint
from muonlab.study.fields import Frozen
from muonlab.study.optimizers import Passed
from muonlab.study.settings import UsageError, fields, make
from muonlab.study.space import FACTOR, SPACES

RUN, RUN_FOLDER = "{run}", "out"  # its placeholder; its name in the place of a run
# Placeholders that are no setting of an optimizer -> what they stand for.
GIVEN = {
    "optimizer": "the optimizer's name",
    "seed": "a whole number",
    "steps": "the budget",
    "run": "a folder of the run's own",
    "device": "cpu, cuda, ...",
    "batch": "batch=",
    "schedule": "schedule=",
    "warmup": "the share of steps, warmup=",
    "warmup_steps": "warmup= in steps",
}
NEEDED = {
    "lr": "every trial would be the same run",
    "seed": "runs of all seeds would be the same",
    "steps": "its budget would be unknown",
}
RATE = "adamw_lr"  # the learning rate times FACTOR: what most programs take
SOURCE = 1 << 20  # bytes of a file that counts as source, at most
EVENLY = "none"  # value of step_key: lines have no step


class Command(BaseModel):
    """What is trained: any program, started once for each run.

    Attributes:
        command: its words, with placeholders in braces.
        metric: name of the loss in the log; "-name" where larger is better.
        log: path of the log, JSON lines or CSV; None where the program writes to standard output.
        pattern: regular expression with named groups, for a log of other lines.
        step_key: name of the step; lines without one are taken as equally far apart.
        train_metric, accuracy, test_metric: names of further numbers.
        timeout: seconds after which a run is ended.
    """

    model_config = Frozen
    command: Annotated[str, Field(min_length=1)]
    metric: Annotated[str, Field(min_length=1)]
    log: str | None = None
    pattern: str | None = None
    step_key: str = "step"
    train_metric: str | None = None
    accuracy: str | None = None
    test_metric: str | None = None
    timeout: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None

    @cached_property
    def template(self) -> list[str]:
        """The words, with placeholders: a value that has spaces stays in its word."""
        return shlex.split(self.command)

    @cached_property
    def placeholders(self) -> tuple[str, ...]:
        """Names of the placeholders, each once."""
        found = (name for word in self.template for _, name, _, _ in Formatter().parse(word) if name is not None)
        return tuple(dict.fromkeys(found))

    @property
    def settings(self) -> tuple[str, ...]:
        """Settings of an optimizer that the program takes: what may be tuned or held."""
        named = (name for name in self.placeholders if name not in GIVEN)
        return tuple(dict.fromkeys(FACTOR if name == RATE else name for name in named))

    @property
    def script(self) -> str:
        """The name of the program, for people."""
        words = self.template
        if "-m" in words[:-1]:
            return words[words.index("-m") + 1]
        return next((Path(word).name for word in words if Path(word).suffix in (".py", ".sh")), Path(words[0]).name)

    @property
    def name(self) -> str:
        """For people."""
        return self.script

    @property
    def larger_is_better(self) -> bool:
        """Whether the metric is no loss: then minus the metric is one."""
        return self.metric.startswith("-")

    @property
    def keys(self) -> dict[str, str]:
        """Curve of a run -> name in the log of what it is read from."""
        named = {
            "validation_loss": self.metric.removeprefix("-"),
            "train_loss": self.train_metric,
            "validation_accuracy": self.accuracy,
            "test_loss": self.test_metric,
        }
        return {curve: key for curve, key in named.items() if key is not None}

    @property
    def shown(self) -> dict[str, Any]:
        """What a report says of it."""
        return {key: value for key, value in self.model_dump().items() if value is not None}

    def words(self, values: Mapping[str, Any]) -> list[str]:
        """Return the words with values in place of their placeholders; those without a value stay."""
        return [_filled(word, values) for word in self.template]

    def call(self, optimizer: Passed, point: Mapping[str, Any], budget: int) -> str:
        """Return the command to paste for an optimizer at a point, with any seed and folder."""
        words = self.words({"optimizer": optimizer.word, "steps": budget, **rated(point), **optimizer.settings})
        return " ".join(word if "{" in word else shlex.quote(word) for word in words)


def _filled(word: str, values: Mapping[str, Any]) -> str:
    found = ""
    for text, name, spec, _ in Formatter().parse(word):
        found += text
        if name is not None:
            left = f"{{{name}:{spec}}}" if spec else f"{{{name}}}"
            found += format(values[name], spec or "") if name in values else left
    return found


def rated(point: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a point with the learning rate of AdamW that follows from its factor."""
    factor = float(point.get(FACTOR, 1.0))
    return {FACTOR: factor, **point, RATE: float(f"{float(point['lr']) * factor:.3g}")}


def words_of(
    command: Command, optimizer: Passed, point: Mapping[str, float], seed: int, training: Any, place: Path, device: str
) -> list[str]:
    """Return the words of one run.

    Args:
        command, optimizer, point, seed: of the run.
        training: the study's `Training`.
        place: the run's own folder.
        device: a torch device.
    """
    values = {
        "optimizer": optimizer.word,
        "seed": seed,
        "steps": training.budget,
        "run": str(place.absolute()),
        "device": device,
        "batch": training.batch,
        "schedule": training.schedule,
        "warmup": training.warmup,
        "warmup_steps": round(training.warmup * training.budget),
    }
    return command.words({**values, **rated(point), **optimizer.settings})


def sources(command: Command, word: str) -> dict[str, str]:
    """Return the files of text that the command names for an optimizer, with their digests."""
    found = {}
    for part in command.template:
        names = {name for _, name, _, _ in Formatter().parse(part) if name is not None}
        if names <= {"optimizer"}:
            path = _filled(part, {"optimizer": word}).rpartition("=")[2]
            if is_source(Path(path)):
                found[path] = fingerprint(Path(path))
    return found


def is_source(path: Path) -> bool:
    """Return whether there is a file of text at a path, no larger than a program's source is."""
    if not path.is_file() or path.stat().st_size > SOURCE:
        return False
    return b"\0" not in path.read_bytes()


def known_settings() -> tuple[str, ...]:
    """Return the settings that have ranges of their own for some optimizer."""
    named = (name for ranges, defaults in SPACES.values() for name in (*ranges, *defaults))
    return tuple(dict.fromkeys((*named, RATE)))


# -- from what a user gives ------------------------------------------------------------------------


def of(given: Mapping[str, Any], optimizers: Collection[str], own: Iterable[str]) -> Command:
    """Return the program of a user's settings.

    Args:
        given: field -> value.
        optimizers: labels of those that are compared.
        own: settings that the user gives for some optimizer.

    Raises:
        UsageError: a placeholder that is unknown or lacks, a pattern or a log that cannot be.
    """
    if "metric" not in given:
        raise UsageError("command= needs metric=, the name of the validation loss in its log, such as metric=val_loss")
    found = make(Command, given)
    _check_braces(found)
    known = dict.fromkeys((*GIVEN, *known_settings(), *own))
    for name in found.placeholders:
        if name not in known:
            raise UsageError(
                f"command has the placeholder {{{name}}}, which nothing stands for; expected {_braced(known)}, or a "
                f"setting of your own that has a range, such as {next(iter(optimizers))}.{name}=LOW..HIGH. Literal "
                "braces are doubled"
            )
    for name, why in NEEDED.items():
        if name not in found.placeholders:
            raise UsageError(f"command has no {{{name}}}, so {why}; put {{{name}}} where the program takes it")
    if len(optimizers) > 1 and "optimizer" not in found.placeholders:
        raise UsageError(
            f"command has no {{optimizer}}, so {' and '.join(optimizers)} would be the same program; put it where the "
            "program takes the optimizer's name, as in --optimizer {optimizer} or train_{optimizer}.py"
        )
    _check_log(found)
    return found


def settings_of(text: str) -> tuple[str, ...]:
    """Return the settings of an optimizer that a command takes.

    Raises:
        UsageError: a quote or a brace without its other half.
    """
    found = make(Command, {"command": text, "metric": "loss"})
    _check_braces(found)
    return found.settings


def _check_braces(command: Command) -> None:
    try:
        names = command.placeholders
        command.words(dict.fromkeys(names, 1))
        is_plain = bool(command.template) and all(re.fullmatch(r"\w+", name) for name in names)
    except (ValueError, IndexError, KeyError, AttributeError) as error:
        raise UsageError(f"command={command.command} cannot be read ({error}); literal braces are doubled") from None
    if not is_plain:
        raise UsageError(
            f"command={command.command} has a placeholder without a plain name; literal braces are doubled"
        )


def _check_log(command: Command) -> None:
    if command.pattern is not None:
        try:
            groups = re.compile(command.pattern).groupindex
        except re.error as error:
            raise UsageError(f"pattern={command.pattern} is no regular expression: {error}") from None
        if lacking := [name for name in command.keys.values() if name not in groups]:
            raise UsageError(
                f"pattern={command.pattern} has no group {lacking[0]}; expected (?P<{lacking[0]}>...) in it, such as "
                f"'step (?P<step>\\d+).*{lacking[0]} (?P<{lacking[0]}>\\S+)'"
            )
    if command.log is None:
        return
    if not command.log.startswith(f"{RUN}/") or "{" in command.log.replace(RUN, ""):
        raise UsageError(
            f"log={command.log} is not in the run's own folder, so runs would write to one file; expected a path that "
            "begins with {run}/, such as log={run}/metrics.jsonl"
        )
    if "run" not in command.placeholders:
        raise UsageError(
            f"log={command.log} is in the run's own folder, which the program is not told; put {{run}} where it takes "
            "its output folder"
        )


def _braced(names: Iterable[str]) -> str:
    return ", ".join(f"{{{name}}}" for name in names)


FIELDS = fields(Command)

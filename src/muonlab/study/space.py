"""The space of an optimizer's settings, and trials scattered over it.

All optimizers of a study get the same points of a scrambled Sobol sequence in the unit cube, each mapped to its own
ranges, so that none has luckier points. Trial 0 is the optimizer at its defaults.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, ValidationError

from muonlab.stats.design import DIMENSIONS, scattered
from muonlab.study import dotted
from muonlab.study.fields import Frozen
from muonlab.study.optimizers import SEARCHED
from muonlab.study.search import Edge
from muonlab.study.settings import Chosen, UsageError

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Point = Mapping[str, float]  # setting -> value; "lr" is always there

BEYOND = 10.0  # how far further trials go beyond an edge of the learning rate's range
FACTOR = "adamw_factor"  # AdamW's learning rate, for what Muon does not take, divided by Muon's


class Range(BaseModel):
    """A log-uniform range of one setting.

    Attributes:
        low, high: of what is drawn.
        draws: what is drawn: the setting itself; its product with the learning rate, as of weight decay, which acts
            through that product; or one minus it, as of a momentum.
    """

    model_config = Frozen
    low: Positive
    high: Positive
    draws: Literal["value", "times lr", "one minus"] = "value"

    def at(self, position: float, lr: float) -> float:
        """Return the setting at a position in [0, 1), in three digits."""
        drawn = math.exp(math.log(self.low) + position * (math.log(self.high) - math.log(self.low)))
        value = {"value": drawn, "times lr": drawn / lr, "one minus": 1 - drawn}[self.draws]
        return float(f"{value:.3g}") if self.draws != "one minus" else round(value, 4)

    def words(self, name: str) -> str:
        """For people: what a setting of this name may be."""
        if self.draws == "one minus":
            return f"{name} {1 - self.high:.4g} to {1 - self.low:.4g}"
        return f"{'lr x ' if self.draws == 'times lr' else ''}{name} {self.low:g} to {self.high:g}"


class Space(BaseModel):
    """Ranges of settings, and the number of trials.

    Attributes:
        ranges: of each setting that is tried, the learning rate first.
        defaults: trial 0; a setting without a range has its default in every trial.
        trials: T, trial 0 included.
        seed: of the scrambling.
    """

    model_config = Frozen
    ranges: dict[str, Range] = Field(min_length=1, max_length=DIMENSIONS)
    defaults: dict[str, float]
    trials: int = Field(ge=2, le=1024)
    seed: int = 0

    @cached_property
    def points(self) -> tuple[dict[str, float], ...]:
        """The settings of each trial."""
        return (dict(self.defaults), *map(self._at, scattered(self.trials - 1, len(self.ranges), self.seed)))

    def _at(self, row: list[float]) -> dict[str, float]:
        found = dict(self.defaults)
        for (name, each), position in zip(self.ranges.items(), row, strict=True):
            found[name] = each.at(position, found["lr"])
        return found

    @property
    def words(self) -> str:
        """For people: the number of trials, and the range of each setting."""
        return f"{self.trials} trials; " + ", ".join(each.words(key) for key, each in self.ranges.items())

    def beyond(self, side: Edge, trials: int) -> tuple[dict[str, float], ...]:
        """Return further points, as many as asked, with learning rates beyond an edge: up to `BEYOND` times it."""
        ranges = dict(self.ranges)
        if each := ranges.get("lr"):
            low, high = (each.low / BEYOND, each.low) if side == "low" else (each.high, each.high * BEYOND)
            ranges["lr"] = each.model_copy(update={"low": low, "high": high})
        return Space(ranges=ranges, defaults=self.defaults, trials=trials + 1, seed=self.seed + 1).points[1:]

    def wider(self, side: Edge) -> "Space":
        """Return the space with the learning rates of `beyond` in its range."""
        ranges = dict(self.ranges)
        if each := ranges.get("lr"):
            ends = {"low": each.low / BEYOND} if side == "low" else {"high": each.high * BEYOND}
            ranges["lr"] = each.model_copy(update=ends)
        # A held learning rate has no edge; with the next seed further points are new ones there, too.
        return Space(ranges=ranges, defaults=self.defaults, trials=self.trials, seed=self.seed + 1)

    def edge(self, point: Point) -> Edge | None:
        """Return the edge of the learning rate's range near which a point lies: within a tenth of it."""
        if (each := self.ranges.get("lr")) is None:
            return None
        position = math.log(point["lr"] / each.low) / math.log(each.high / each.low)
        return "low" if position < 0.1 else "high" if position > 0.9 else None


def given(
    chosen: Chosen, label: str, name: str, trials: int, taken: Sequence[str] | None = None
) -> tuple[Space, Chosen]:
    """Return the space of a labelled optimizer, and the settings that are left for its config.

    Settings `LABEL.field=LOW..HIGH` are ranges; one number holds the field where it is.

    Args:
        chosen: the settings that a user gives.
        label, name: of the optimizer.
        trials: number of them.
        taken: settings that a program takes from the command line, for an optimizer that it knows by its name.

    Raises:
        UsageError: a range that is none, or a learning rate without a default or a range.
    """
    ranges, defaults = _usual(chosen, label, name) if taken is None else _of_program(name, taken)
    rest = dict(chosen.merged)
    for key in [key for key in rest if key.startswith(f"{label}.")]:
        setting, (text, *others) = key.removeprefix(f"{label}."), rest[key]
        if ".." in text:
            if others:
                raise chosen.wrong(key, f"one range, {key}=LOW..HIGH, or one value")
            ranges[setting] = _range(chosen, key, text)
            if taken is None:
                _check_ends(chosen, key, name, setting, ranges[setting])
            middle = math.sqrt(ranges[setting].low * ranges[setting].high)
            own = defaults.get(setting, middle)
            defaults[setting] = own if ranges[setting].low <= own <= ranges[setting].high else float(f"{middle:.2g}")
            del rest[key]
        elif setting in ("lr", FACTOR):
            ranges.pop(setting, None)
            try:
                defaults[setting] = chosen.numbers(key)[0]
            except UsageError:
                raise chosen.wrong(key, f"a range, such as {key}=1e-4..1e-2, or one number above 0") from None
            if others:
                raise chosen.wrong(key, f"one range, {key}=LOW..HIGH, or one value")
            del rest[key]
        elif setting in ranges or taken is not None:  # held: the config of the optimizer has it
            ranges.pop(setting, None)
            defaults.pop(setting, None)
    if "lr" not in defaults:
        raise UsageError(f"{label}={name} has no learning rate to start from; give {label}.lr=1e-4..1e-2")
    if not ranges:
        raise UsageError(
            f"{label} has nothing to try: every setting is held; give a range, such as {label}.lr=1e-4..1e-2"
        )
    ordered = {key: ranges[key] for key in sorted(ranges, key=lambda key: key != "lr")}
    return Space(ranges=ordered, defaults=defaults, trials=trials), replace(chosen, merged=rest)


def _usual(chosen: Chosen, label: str, name: str) -> tuple[dict[str, Range], dict[str, float]]:
    if name in SPACES:
        ranges, defaults = SPACES[name]
        return dict(ranges), dict(defaults)
    function = dotted.load("optimizers", name)
    return of_custom({key: dotted.default(function, key) for key in dotted.arguments(function, skip=1)})


def _of_program(name: str, taken: Sequence[str]) -> tuple[dict[str, Range], dict[str, float]]:
    """Return the usual space of a word, as far as a program takes its settings."""
    ranges, defaults = SPACES.get(name, ({}, {}))
    own = {key: each for key, each in ranges.items() if key in taken}
    return own, {key: value for key, value in defaults.items() if key in taken}


def _range(chosen: Chosen, key: str, text: str) -> Range:
    low, _, high = text.partition("..")
    try:
        found = Range(low=float(low), high=float(high))
    except ValueError:
        raise chosen.wrong(key, f"two numbers above 0, such as {key}=1e-4..1e-2") from None
    if not found.low < found.high:
        raise chosen.wrong(key, f"a range that rises, such as {key}=1e-4..1e-2")
    return found


def _check_ends(chosen: Chosen, key: str, name: str, setting: str, each: Range) -> None:
    """Raise UsageError where a built-in optimizer does not take every value of a range."""
    if name not in SEARCHED or setting in ("lr", FACTOR):
        return
    model = SEARCHED[name]
    if not isinstance(model.model_fields[setting].default, float):
        raise chosen.wrong(key, f"one value; {setting} is not a number that can be drawn from a range")
    for end in (each.low, each.high):
        try:
            model(**{setting: end})
        except ValidationError:
            raise chosen.wrong(key, f"a range of values that {name} takes, which {end:g} is not") from None


DECAY = Range(low=1e-6, high=1e-3, draws="times lr")
MOMENTUM = Range(low=0.02, high=0.2, draws="one minus")
# The default space of each optimizer, and its default settings: those of torch.optim and of Muon's paper; Muon's steps
# are scaled to AdamW's, so both have one range of learning rates.
SPACES: dict[str, tuple[dict[str, Range], dict[str, float]]] = {
    "muon": (
        {
            "lr": Range(low=3e-4, high=1e-1),
            FACTOR: Range(low=0.1, high=10),
            "weight_decay": DECAY,
            "momentum": MOMENTUM,
        },
        {"lr": 1e-3, FACTOR: 1.0, "weight_decay": 0.1, "momentum": 0.95, "beta1": 0.9, "beta2": 0.999},
    ),
    "adamw": (
        {"lr": Range(low=3e-4, high=1e-1), "beta1": MOMENTUM, "weight_decay": DECAY},
        {"lr": 1e-3, "beta1": 0.9, "weight_decay": 0.01, "beta2": 0.999},
    ),
    "sgd": (
        {"lr": Range(low=3e-3, high=1.0), "momentum": MOMENTUM, "weight_decay": DECAY},
        {"lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4},
    ),
}
WIDTH = 10.0  # of the range of an own optimizer's learning rate, to either side of its default


def of_custom(arguments: Mapping[str, Any]) -> tuple[dict[str, Range], dict[str, float]]:
    """Return the space and defaults of an optimizer of a user's own, from its arguments and their defaults.

    A learning rate without a default has neither; where decay and momentum are numbers, they are tried, too.
    """
    ranges: dict[str, Range] = {}
    defaults: dict[str, float] = {}
    if isinstance(lr := arguments.get("lr"), int | float) and lr > 0:
        ranges["lr"], defaults["lr"] = Range(low=lr / WIDTH, high=lr * WIDTH), float(lr)
    for setting, each in (("weight_decay", DECAY), ("momentum", MOMENTUM)):
        own = arguments.get(setting)
        if isinstance(own, int | float) and (own > 0 or setting == "weight_decay"):
            ranges[setting], defaults[setting] = each, float(own)
    return ranges, defaults

"""Is Muon's margin and rank larger at equal loss, for which strengths, noise, losses and depths, and where is it not?

This file says what is asked: which problems, optimizers and budgets. `rounds.py` says which jobs answer it,
`analysis.py` what they mean.
"""

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

from muonlab.jobs import store
from muonlab.jobs.cell_config import Count, Frozen, Rate
from muonlab.studies.components.config import SGD, AdamW, Agree, Components, Muon, Net, Optimizer
from muonlab.studies.components.presets import PRESETS
from muonlab.studies.components.problems import Case, agreements, check, shuffled
from muonlab.studies.components.variations import VARIATIONS, vary
from muonlab.study.settings import Settings, UsageError, as_texts, check_name, make, whole_number

STUDY = "components"
OPTIMIZERS: dict[str, type[BaseModel]] = {"muon": Muon, "adamw": AdamW, "sgd": SGD}
MAX_SEEDS = 1000
MAX_EXTENSIONS = 20
NONE = "none"  # of variations


class Search(BaseModel):
    """The search for a learning rate.

    Attributes:
        rates: of the first grid, rising.
        extensions: jobs of two rates more that may be added, one by one, while the best lies on an edge.
    """

    model_config = Frozen
    rates: tuple[Rate, ...] = Field(min_length=2)
    extensions: int = Field(default=2, ge=0, le=MAX_EXTENSIONS)


class ComponentStudy(BaseModel):
    """What a study of components asks.

    Attributes:
        preset, settings: where it came from.
        cases: the problems, those of the map first.
        optimizers: names of those compared; the first with each of the others.
        searches: by name of the optimizer.
        seeds: number of compared runs of each rate; search_seeds those by which a rate is chosen.
        eps: train losses, falling, at the first time of which runs are compared; squared_eps those of squared loss.
        main: place of the loss that the verdict speaks of, in both.
        budget, looks: steps of every run, and evaluations.
        agreements: jobs that hold closed forms against simulation.
    """

    model_config = Frozen
    preset: str
    settings: dict[str, list[str]]
    cases: tuple[Case, ...] = Field(min_length=1)
    optimizers: tuple[str, ...] = Field(min_length=1)
    searches: dict[str, Search]
    seeds: int = Field(ge=1, le=MAX_SEEDS)
    search_seeds: int = Field(ge=1, le=MAX_SEEDS)
    eps: tuple[float, ...] = Field(min_length=1)
    squared_eps: tuple[float, ...] = Field(min_length=1)
    main: int = Field(ge=0)
    budget: Count
    looks: Count
    agreements: tuple[Agree, ...] = ()

    def eps_of(self, case: Case) -> tuple[float, ...]:
        """Return the train losses at which runs of a problem are compared, falling."""
        return self.squared_eps if case.loss == "squared" else self.eps

    @property
    def base(self) -> Case:
        """The problem that variations start from: the middle of the first map."""
        return middle([case for case in self.cases if case.role == "map"])


# -- settings: the fields of the configs, under the names that a user types ------------------------


def _fields(model: type[BaseModel], *without: str) -> tuple[str, ...]:
    return tuple(name for name in model.model_fields if name not in without)


LISTS = ("tree", "strengths")  # a comma there separates the values of one problem
COMPONENT_FIELDS, NET_FIELDS = _fields(Components), _fields(Net)
AXES = tuple(key for key in (*COMPONENT_FIELDS, *NET_FIELDS, "loss", "batch") if key not in LISTS)
CHOICES = (
    "optimizers",
    "seeds",
    "search_seeds",
    "extensions",
    "eps",
    "squared_eps",
    "main_eps",
    "budget",
    "looks",
    "variations",
    "agree_steps",
)
KEYS = (
    *CHOICES,
    *COMPONENT_FIELDS,
    *NET_FIELDS,
    "loss",
    "batch",
    *(f"{name}.{field}" for name, model in OPTIMIZERS.items() for field in (*_fields(model, "name"), "rates")),
)


def plan(preset: str = "laptop", settings: Mapping[str, Any] | None = None) -> ComponentStudy:
    """Return the study of a preset, changed by settings.

    Args:
        preset: tiny, laptop or full.
        settings: key -> value or list of values. The keys are `KEYS`: docs/settings.md says what each means.

    Raises:
        UsageError: an unknown name, a value that its field does not allow, a problem that cannot be, a setting without
            effect.

    Example:
        >>> plan("tiny", {"seeds": 3}).seeds
        3
    """
    check_name("preset", preset, PRESETS)
    given: Settings = {}
    for key, value in (settings or {}).items():
        check_name("setting", key, KEYS)
        given[key] = as_texts(key, value)
    merged = _merged(PRESETS[preset], given)
    _check_names(merged)
    _check_effect(given, merged)
    eps, squared = _losses("eps", merged), _losses("squared_eps", merged)
    if len(eps) != len(squared):
        raise UsageError(
            f"eps has {len(eps)} values and squared_eps {len(squared)}; give as many of both, for each of eps has its "
            "place among squared_eps"
        )
    cases = tuple(_cases(merged))
    base = middle([case for case in cases if case.role == "map"])
    study = ComponentStudy(
        preset=preset,
        settings=given,
        cases=cases,
        optimizers=tuple(merged["optimizers"]),
        searches={name: _search(name, merged) for name in merged["optimizers"]},
        seeds=whole_number("seeds", merged["seeds"], at_least=1, at_most=MAX_SEEDS),
        search_seeds=whole_number("search_seeds", merged["search_seeds"], at_least=1, at_most=MAX_SEEDS),
        eps=eps,
        squared_eps=squared,
        main=_main(eps, merged),
        budget=_count("budget", merged),
        looks=_count("looks", merged),
        agreements=agreements(base.components, _steps(merged)),
    )
    for case in cases:
        check(case, study.eps_of(case), study.main, study.budget, study.looks)
    return study


def begin(study: ComponentStudy, folder: Path) -> None:
    """Make the folder hold the request: its study.json. Earlier requests and their jobs stay.

    Raises:
        StudyError: the folder holds something else, or cannot be written.
    """
    config = study.model_dump(mode="json", exclude={"preset", "settings"})
    store.create(folder, STUDY, study.preset, study.settings, config)


def middle(cases: Iterable[Case]) -> Case:
    """Return the problem in the middle of the first map: of an even number the lower one."""
    found = list(cases)
    own = [case for case in found if case.map == found[0].map]

    def halfway(values: set[float]) -> float:
        return sorted(values)[(len(values) - 1) // 2]

    ratio = halfway({case.components.ratio for case in own})
    noise = halfway({case.components.noise for case in own})
    return next(case for case in own if (case.components.ratio, case.components.noise) == (ratio, noise))


def _merged(preset: Settings, given: Settings) -> Settings:
    """Return the settings of a preset changed by those given, without what those given leave nothing to."""
    merged = preset | given
    if "eps" in given and "main_eps" not in given:
        merged.pop("main_eps", None)
    if "eps" in given and "squared_eps" not in given:
        merged["squared_eps"] = _shares(_numbers("eps", merged), merged)
    if not _has_ratio(merged):
        merged.pop("ratio", None)
    return merged


def _shares(eps: tuple[float, ...], merged: Settings) -> list[str]:
    """Return squared losses that are the same shares of the loss at W = 0, (1 - 1/K) / 2, as eps are of log K."""
    (first, *_) = merged.get("classes", [str(Components().classes)])
    number = max(2, whole_number("classes", [first], at_least=0, at_most=10**9))
    return [f"{each / math.log(number) * (1 - 1 / number) / 2:.3g}" for each in eps]


# -- from texts to problems ------------------------------------------------------------------------


def _cases(merged: Settings) -> Iterator[Case]:
    """Yield the problems of the map, the variations of its middle, and the control."""
    optimizers = tuple(_optimizer(name, merged) for name in merged["optimizers"])
    mapped = [_case(values, optimizers, merged) for values in _points(merged)]
    yield from mapped
    base = middle(mapped)
    for name in merged["variations"]:
        varied = vary(name, base) if name != NONE else None
        if varied is not None:
            yield varied
    yield shuffled(base)


def _points(merged: Settings) -> Iterator[dict[str, str]]:
    """Yield the values of every axis: all ratios and noises of one map, then those of the next."""
    inner = ("ratio", "noise")
    keys = [*(key for key in AXES if key in merged and key not in inner), *(key for key in inner if key in merged)]
    for values in itertools.product(*(dict.fromkeys(merged[key]) for key in keys)):
        yield dict(zip(keys, values, strict=True))


def _case(values: dict[str, str], optimizers: tuple[Optimizer, ...], merged: Settings) -> Case:
    own: dict[str, Any] = {key: value for key, value in values.items() if key in COMPONENT_FIELDS}
    own |= {"tree": merged["tree"]} if "tree" in merged else {}
    own |= {"strengths": _strengths(merged["strengths"])} if "strengths" in merged else {}
    components = make(Components, own)
    net = make(Net, {key: value for key, value in values.items() if key in NET_FIELDS})
    others = [key for key in values if len(set(merged[key])) > 1 and key not in ("ratio", "noise", "depth")]
    place = ", ".join([f"depth {net.depth}", *(f"{key} {values[key]}" for key in others)])
    return make(
        Case,
        {
            "name": f"ratio {components.ratio:g}, noise {components.noise:g}, {place}",
            "role": "map",
            "map": place,
            "components": components,
            "net": net,
            "optimizers": optimizers,
            **{key: values[key] for key in ("loss", "batch") if key in values},
        },
    )


def _strengths(texts: list[str]) -> Any:
    """Return the name of a fall, or the strengths themselves."""
    try:
        return tuple(float(text) for text in texts)
    except ValueError:
        if len(texts) > 1:
            raise UsageError(
                f"strengths={','.join(texts)} is not valid; expected geometric, power or equal, or falling numbers"
            ) from None
        check_name("strengths", texts[0], ("geometric", "power", "equal"))
        return texts[0]


def _optimizer(name: str, merged: Settings) -> Any:
    fields = _fields(OPTIMIZERS[name], "name")
    found = {field: _one(f"{name}.{field}", merged) for field in fields if f"{name}.{field}" in merged}
    return make(OPTIMIZERS[name], found, f"{name}.")


def _search(name: str, merged: Settings) -> Search:
    extensions = whole_number("extensions", merged["extensions"], at_least=0, at_most=MAX_EXTENSIONS)
    rates = _numbers(f"{name}.rates", merged)
    if len(rates) < 2:
        raise UsageError(f"{name}.rates={','.join(merged[f'{name}.rates'])} is not valid; expected two numbers or more")
    return Search(rates=rates, extensions=extensions)


def _losses(key: str, merged: Settings) -> tuple[float, ...]:
    return _numbers(key, merged)[::-1]


def _main(eps: tuple[float, ...], merged: Settings) -> int:
    if "main_eps" not in merged:
        return (len(eps) - 1) // 2
    (main, *others) = _numbers("main_eps", merged)
    if others or main not in eps:
        expected = " or ".join(f"{each:g}" for each in eps)
        raise UsageError(f"main_eps={','.join(merged['main_eps'])} is not valid; expected one of eps: {expected}")
    return eps.index(main)


def _steps(merged: Settings) -> tuple[int, ...]:
    steps = _numbers("agree_steps", merged)
    if len(steps) < 2 or any(later != 2 * earlier for earlier, later in itertools.pairwise(steps)):
        raise UsageError(
            f"agree_steps={','.join(merged['agree_steps'])} is not valid; expected whole numbers, each twice the last"
        )
    return tuple(map(int, steps))


def _numbers(key: str, merged: Settings) -> tuple[float, ...]:
    """Return the numbers of a setting, rising and each once.

    Raises:
        UsageError: one is not a number above 0.
    """
    try:
        numbers = sorted({float(text) for text in merged[key]})
    except ValueError:
        numbers = []
    if not numbers or not all(0 < number < float("inf") for number in numbers):
        raise UsageError(f"{key}={','.join(merged[key])} is not valid; expected numbers above 0")
    return tuple(numbers)


def _count(key: str, merged: Settings) -> int:
    return whole_number(key, merged[key], at_least=1, at_most=10**7)


def _one(key: str, merged: Settings) -> str:
    if len(merged[key]) != 1:
        raise UsageError(f"{key}={','.join(merged[key])} has {len(merged[key])} values; expected one")
    return merged[key][0]


def _check_names(merged: Settings) -> None:
    for key, known in (("optimizers", OPTIMIZERS), ("variations", (*VARIATIONS, NONE))):
        for value in merged[key]:
            check_name(key.removesuffix("s"), value, known)
            if merged[key].count(value) > 1:
                raise UsageError(f"{key}={','.join(merged[key])} names {value} twice; give every one once")
    if NONE in merged["variations"] and len(merged["variations"]) > 1:
        raise UsageError(f"variations={','.join(merged['variations'])} names none and others; give one or the other")


def _check_effect(given: Settings, merged: Settings) -> None:
    """Raise UsageError for a setting that is given and changes nothing."""
    for key in given:
        owner = key.partition(".")[0]
        if owner in OPTIMIZERS and owner not in merged["optimizers"]:
            raise UsageError(
                f"{key} has no effect: the study has optimizers={','.join(merged['optimizers'])}; leave it out"
            )
    depths = [*merged.get("depth", ["0"]), *(["2"] if "deep" in merged["variations"] else [])]
    for key in ("width", "activation"):
        if key in given and set(depths) == {"0"}:
            raise UsageError(f"{key} has no effect: depth=0 has no hidden layers; give depth=1 or leave it out")
    if "squared_eps" in given and "squared" not in (*merged.get("loss", ()), *merged["variations"]):
        raise UsageError("squared_eps has no effect: no problem has squared loss; leave it out")
    if "tree" in given and "tree" not in merged.get("patterns", ["tree"]):
        raise UsageError(f"tree has no effect: patterns={','.join(merged['patterns'])} have no tree; leave it out")
    if "ratio" in given and not _has_ratio(merged):
        raise UsageError(f"ratio has no effect: strengths={','.join(merged['strengths'])} say it all; leave it out")


def _has_ratio(merged: Settings) -> bool:
    """Return whether the strengths fall by a ratio, and are not equal or given one by one."""
    return merged.get("strengths", ["geometric"]) in (["geometric"], ["power"])

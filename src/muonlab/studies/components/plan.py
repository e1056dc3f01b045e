"""What a study of components asks: which problems, optimizers and budgets; and the settings that say so."""

import itertools
import math
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

from pydantic import BaseModel, Field

from muonlab.studies.components.cases import VARIATIONS, Case, agreements, check, middle, shuffled, vary
from muonlab.studies.components.config import SGD, AdamW, Agree, Components, Muon, Net
from muonlab.study.fields import Count, Frozen
from muonlab.study.search import MAX_EXTENSIONS, Search
from muonlab.study.settings import Chosen, Settings, UsageError, check_name, choose, fields, make, whole_number, written
from muonlab.study.study import Arm, arms_of

STUDY = "components"
OPTIMIZERS: dict[str, type[BaseModel]] = {"muon": Muon, "adamw": AdamW, "sgd": SGD}
MAX_SEEDS = 1000  # seeds of searches begin there
NONE = "none"  # of variations


class ComponentStudy(BaseModel):
    """What a study of components asks."""

    model_config = Frozen
    preset: str
    settings: dict[str, list[str]]  # that were given
    cases: tuple[Case, ...] = Field(min_length=1)  # those of the map first
    optimizers: tuple[str, ...] = Field(min_length=1)  # labels; the first is compared with each of the others
    searches: dict[str, Search]  # by label
    seeds: int = Field(ge=1, le=MAX_SEEDS)  # number of compared runs of each rate
    search_seeds: int = Field(ge=1, le=MAX_SEEDS)  # number of runs by which a rate is chosen
    eps: tuple[float, ...] = Field(min_length=1)  # train losses, falling, at the first time of which runs are compared
    squared_eps: tuple[float, ...] = Field(min_length=1)  # those of squared loss
    main: int = Field(ge=0)  # place of the loss that the verdict is about, in both
    budget: Count  # steps of every run
    looks: Count  # evaluations
    agreements: tuple[Agree, ...] = ()  # jobs that compare closed forms with simulation

    def eps_of(self, case: Case) -> tuple[float, ...]:
        """Return the train losses at which runs of a problem are compared, falling."""
        return self.squared_eps if case.loss == "squared" else self.eps

    def main_eps(self, case: Case) -> float:
        """Return the loss that the verdict is about, in the unit of the problem's loss."""
        return self.eps_of(case)[self.main]

    @cached_property
    def mapped(self) -> tuple[Case, ...]:
        """The problems of the map."""
        return tuple(case for case in self.cases if case.role == "map")

    @cached_property
    def maps(self) -> dict[str, tuple[Case, ...]]:
        """Name of a map -> its problems."""
        names = dict.fromkeys(case.map for case in self.mapped)
        return {name: tuple(case for case in self.mapped if case.map == name) for name in names}

    @cached_property
    def varied(self) -> tuple[Case, ...]:
        """The variations."""
        return tuple(case for case in self.cases if case.role == "variation")

    @property
    def control(self) -> Case:
        """The problem whose labels say nothing."""
        return next(case for case in self.cases if case.role == "control")

    @cached_property
    def base(self) -> Case:
        """The problem that variations start from: the middle of the first map."""
        return middle(self.mapped)

    @cached_property
    def arms(self) -> tuple[Arm, ...]:
        """Who is compared, with the settings of the middle of the map."""
        return arms_of(dict(zip(self.optimizers, self.base.optimizers, strict=True)))


# -- presets: settings as a user types them; what is left out has its default ----------------------

# As many rates for every optimizer, each about three times the last; the search goes on where the best lies on an edge.
EVERYTHING = {"variations": list(VARIATIONS)} | written(
    """
    optimizers=muon,adamw,sgd extensions=2 eps=1,0.5,0.2,0.1,0.05,0.02 squared_eps=0.3,0.2,0.15,0.1,0.08,0.06
    main_eps=0.5 agree_steps=40,80,160,320
    muon.rates=0.01,0.03,0.1,0.3 adamw.rates=0.003,0.01,0.03,0.1 sgd.rates=0.1,0.3,1,3
    """
)

TINY = written(
    """
    extensions=0 eps=1,0.5 squared_eps=0.35,0.25 variations=aligned,spurious agree_steps=10,20 ratio=2,8 noise=0.1
    depth=0 classes=4 dimension=8 train=64 validation=64 test=64 seeds=4 search_seeds=1 budget=60 looks=20
    muon.rates=0.03,0.1 adamw.rates=0.03,0.1 sgd.rates=0.1,0.3
    """
)
LAPTOP = written("ratio=1,2,4,8,16 noise=0,0.1,0.3 depth=0,1 seeds=6 search_seeds=2 budget=600 looks=80")
FULL = written(
    "ratio=1,1.5,2,4,8,16,32 noise=0,0.05,0.1,0.2,0.3 depth=0,1,2 seeds=10 search_seeds=3 budget=2000 looks=120"
)
PRESETS: dict[str, Settings] = {"tiny": EVERYTHING | TINY, "laptop": EVERYTHING | LAPTOP, "full": EVERYTHING | FULL}

# -- settings: the fields of the configs, under the names that a user types ------------------------

LISTS = ("tree", "strengths")  # a comma there separates the values of one problem
COMPONENT_FIELDS, NET_FIELDS = fields(Components), fields(Net)
AXES = tuple(key for key in (*COMPONENT_FIELDS, *NET_FIELDS, "loss", "batch") if key not in LISTS)
KEYS = (
    *("optimizers", "seeds", "search_seeds", "extensions", "eps", "squared_eps", "main_eps", "budget", "looks"),
    *("variations", "agree_steps", *COMPONENT_FIELDS, *NET_FIELDS, "loss", "batch"),
    *(f"{name}.{field}" for name, model in OPTIMIZERS.items() for field in (*fields(model, "name"), "rates")),
)


def plan(preset: str = "laptop", settings: Mapping[str, Any] | None = None) -> ComponentStudy:
    """Return the study of a preset, changed by settings.

    Args:
        preset: tiny, laptop or full.
        settings: key -> value or list of values. The keys are `KEYS`: docs/settings.md says what each means.

    Raises:
        UsageError: an unknown name, a value that its field does not allow, a problem that cannot be, a setting without
            effect.

    Examples:
        >>> plan("tiny", {"seeds": 3}).seeds
        3
    """
    chosen = _merged(choose(PRESETS, preset, settings, KEYS))
    _check_effect(chosen)
    eps, squared = chosen.numbers("eps")[::-1], chosen.numbers("squared_eps")[::-1]
    if len(eps) != len(squared):
        raise UsageError(
            f"eps has {len(eps)} values and squared_eps {len(squared)}; give as many of both, for each of eps has its "
            "place among squared_eps"
        )
    labels = chosen.names("optimizers", OPTIMIZERS, "optimizer")
    cases = tuple(_cases(chosen))
    extensions = chosen.whole("extensions", at_least=0, at_most=MAX_EXTENSIONS)
    study = ComponentStudy(
        preset=preset,
        settings=chosen.given,
        cases=cases,
        optimizers=labels,
        searches={
            label: Search(rates=chosen.numbers(f"{label}.rates", at_least=2), extensions=extensions) for label in labels
        },
        seeds=chosen.whole("seeds", at_least=1, at_most=MAX_SEEDS),
        search_seeds=chosen.whole("search_seeds", at_least=1, at_most=MAX_SEEDS),
        eps=eps,
        squared_eps=squared,
        main=_main(eps, chosen),
        budget=chosen.whole("budget", at_least=1, at_most=10**7),
        looks=chosen.whole("looks", at_least=1, at_most=1000),
        agreements=agreements(middle(cases).components, _steps(chosen)),
    )
    for case in cases:
        check(case, study.main_eps(case))
    return study


def _merged(chosen: Chosen) -> Chosen:
    """Return the settings with what follows from those given, and without what they leave nothing to."""
    given, merged = chosen.given, dict(chosen.merged)
    if "eps" in given and "main_eps" not in given:
        merged.pop("main_eps", None)
    if "eps" in given and "squared_eps" not in given:
        merged["squared_eps"] = _shares(chosen)
    if not _has_ratio(merged):
        merged.pop("ratio", None)
    return Chosen(chosen.preset, given, merged)


def _shares(chosen: Chosen) -> list[str]:
    """Return squared losses that are the same shares of the loss at W = 0, (1 - 1/K) / 2, as eps are of log K."""
    (first, *_) = chosen.merged.get("classes", [str(Components().classes)])
    number = max(2, whole_number("classes", [first], at_least=0, at_most=10**9))
    return [f"{each / math.log(number) * (1 - 1 / number) / 2:.3g}" for each in chosen.numbers("eps")]


# -- from texts to problems ------------------------------------------------------------------------


def _cases(chosen: Chosen) -> Iterator[Case]:
    """Yield the problems of the map, the variations of its middle, and the control."""
    merged = chosen.merged
    optimizers = tuple(chosen.build(OPTIMIZERS[name], f"{name}.") for name in merged["optimizers"])
    mapped = [_case(values, optimizers, merged) for values in _points(merged)]
    yield from mapped
    base, names = middle(mapped), chosen.names("variations", (*VARIATIONS, NONE), "variation")
    if NONE in names and len(names) > 1:
        raise UsageError(f"variations={','.join(names)} names none and others; give one or the other")
    for name in names:
        if name != NONE and (varied := vary(name, base)) is not None:
            yield varied
    yield shuffled(base)


def _points(merged: Settings) -> Iterator[dict[str, str]]:
    """Yield the values of every axis: all ratios and noises of one map, then those of the next."""
    inner = ("ratio", "noise")
    keys = [*(key for key in AXES if key in merged and key not in inner), *(key for key in inner if key in merged)]
    for values in itertools.product(*(dict.fromkeys(merged[key]) for key in keys)):
        yield dict(zip(keys, values, strict=True))


def _case(values: dict[str, str], optimizers: tuple[Any, ...], merged: Settings) -> Case:
    own: dict[str, Any] = {key: value for key, value in values.items() if key in COMPONENT_FIELDS}
    own |= {"tree": merged["tree"]} if "tree" in merged else {}
    own |= {"strengths": _strengths(merged["strengths"])} if "strengths" in merged else {}
    components = make(Components, own)
    net = make(Net, {key: value for key, value in values.items() if key in NET_FIELDS})
    others = [key for key in values if len(set(merged[key])) > 1 and key not in ("ratio", "noise", "depth")]
    place = ", ".join([f"depth {net.depth}", *(f"{key} {values[key]}" for key in others)])
    name = f"ratio {components.ratio:g}, noise {components.noise:g}, {place}"
    given = {"name": name, "role": "map", "map": place, "components": components, "net": net, "optimizers": optimizers}
    return make(Case, given | {key: values[key] for key in ("loss", "batch") if key in values})


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


def _main(eps: tuple[float, ...], chosen: Chosen) -> int:
    if "main_eps" not in chosen.merged:
        return (len(eps) - 1) // 2
    (main, *others) = chosen.numbers("main_eps")
    if others or main not in eps:
        raise chosen.wrong("main_eps", f"one of eps: {' or '.join(f'{each:g}' for each in eps)}")
    return eps.index(main)


def _steps(chosen: Chosen) -> tuple[int, ...]:
    steps = chosen.numbers("agree_steps")
    doubles = all(later == 2 * earlier for earlier, later in itertools.pairwise(steps))
    if len(steps) < 2 or not doubles or steps[0] % 1 or steps[-1] > 10**6:
        raise chosen.wrong("agree_steps", "whole numbers, each twice the last, up to 1000000")
    return tuple(map(int, steps))


def _check_effect(chosen: Chosen) -> None:
    """Raise UsageError for a setting that is given and changes nothing."""
    given, merged = chosen.given, chosen.merged
    chosen.refuse_unused({name: name in merged["optimizers"] for name in OPTIMIZERS})
    variations, patterns = merged["variations"], merged.get("patterns", ["tree"])
    is_linear = set(merged.get("depth", ["0"])) == {"0"} and "deep" not in variations
    is_squared = "squared" in (*merged.get("loss", ()), *variations)
    no_layers = "depth=0 has no hidden layers; give depth=1 or leave it out"
    strengths = ",".join(merged.get("strengths", ()))
    for key, is_idle, why in (
        ("width", is_linear, no_layers),
        ("activation", is_linear, no_layers),
        ("squared_eps", not is_squared, "no problem has squared loss; leave it out"),
        ("tree", "tree" not in patterns, f"patterns={','.join(patterns)} have no tree; leave it out"),
        ("ratio", not _has_ratio(merged), f"strengths={strengths} say it all; leave it out"),
    ):
        if key in given and is_idle:
            raise UsageError(f"{key} has no effect: {why}")


def _has_ratio(merged: Settings) -> bool:
    """Return whether the strengths fall by a ratio, and are not equal or given one by one."""
    return merged.get("strengths", ["geometric"]) in (["geometric"], ["power"])

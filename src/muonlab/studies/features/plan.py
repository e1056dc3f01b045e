"""What a study of features asks: which nets and data, optimizers and budgets; and the settings that say so."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, Field

from muonlab.studies.features import config
from muonlab.studies.features.config import (
    OPTIMIZERS,
    Family,
    ImageData,
    Measuring,
    OwnNet,
    Searched,
    TextData,
    Training,
)
from muonlab.studies.features.presets import PRESETS
from muonlab.study import dotted, optimizers
from muonlab.study.fields import Growing
from muonlab.study.search import MAX_EXTENSIONS, Search
from muonlab.study.settings import Chosen, UsageError, check_keys, choose, combinations, fields, make
from muonlab.study.study import Arm, arms_of

STUDY = "features"
NETS: dict[str, type[BaseModel]] = {"cnn": config.CNNConfig, "vit": config.ViTConfig, "gpt": config.GPTConfig}
MAX_SEEDS = 1000
Matched = Literal["schedules", "checkpoints"]
NET = "a function of classes, channels and image_size, or of vocabulary, that returns a torch.nn.Module"


class FamilyPlan(Growing):
    """A net with its data and budgets: a case of the study."""

    added = frozenset({"axes"})
    family: Family
    training: Training
    transfer: Training
    measuring: Measuring
    axes: tuple[str, ...] = ()  # what tells it from others of the same net and data, such as "width 64" and "300 steps"

    @property
    def name(self) -> str:
        """For people."""
        return ", ".join((self.family.name, *self.axes))

    @property
    def cluster(self) -> str:
        """What it shares with the same net and data of other widths and budgets: together they count as one case."""
        return self.family.name

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks that are transferred to."""
        return ("classes",) if self.family.data.kind == "images" else ("classes", "language")


class FeatureStudy(Growing):
    """What a study of features asks."""

    added = frozenset({"labels", "matched", "variants"})
    preset: str  # where it came from, with the settings
    settings: dict[str, list[str]]
    families: tuple[FamilyPlan, ...] = Field(min_length=1)
    optimizers: tuple[Searched, ...] = Field(min_length=1)  # the first is compared with each of the others
    labels: tuple[str, ...] = ()  # of the optimizers, in their order; by default their names
    searches: dict[str, Search]  # by label of the arm
    # By label, the settings that are searched as well, each with all learning rates; those of `optimizers` are first.
    variants: dict[str, tuple[Searched, ...]] = Field(default={})
    seeds: int = Field(ge=1, le=MAX_SEEDS)  # final runs of each
    search_seeds: int = Field(ge=1, le=MAX_SEEDS)  # runs of each rate of a search
    # How losses are matched: at the end of a shorter schedule, or at a checkpoint on the way to the common budget.
    matched: Matched = "checkpoints"

    @cached_property
    def arms(self) -> tuple[Arm, ...]:
        """Who is compared, the first with each of the others."""
        labels = self.labels or tuple(optimizer.name for optimizer in self.optimizers)
        return arms_of(dict(zip(labels, self.optimizers, strict=True)))

    def tried(self, arm: Arm) -> tuple[Any, ...]:
        """Return the settings of an arm that are searched, each with all learning rates."""
        return self.variants.get(arm.label, (arm.optimizer,))


# -- settings: the fields of the configs, under the names that a user types ------------------------

TRAINING_FIELDS = fields(Training, "patience")  # pretraining has one length for all
PLACES = ("source", "transfer_source", "examples", "examples_test")  # of texts, settings of their own
CHOICES = ("families", "net", "optimizers", "seeds", "search_seeds", "extensions", "matched")
OWNERS = ("images", "text", "transfer", "measure", "net")
KEYS = (
    *(*CHOICES, "images", "text", "transfer_text", "examples"),
    *TRAINING_FIELDS,
    *(f"images.{field}" for field in fields(ImageData, "kind", "name", "source", "test")),
    *(f"text.{field}" for field in fields(TextData, "kind", "name", *PLACES)),
    *(f"transfer.{field}" for field in fields(Training)),
    *(f"measure.{field}" for field in fields(Measuring)),
    *(f"{name}.{field}" for name, model in NETS.items() for field in (*fields(model, "kind"), *TRAINING_FIELDS)),
    *(key for name in OPTIMIZERS for key in optimizers.keys(name, name, OPTIMIZERS)),
)


def plan(preset: str = "laptop", settings: Mapping[str, Any] | None = None) -> FeatureStudy:
    """Return the study of a preset, changed by settings.

    Args:
        preset: tiny, laptop, real or paper.
        settings: key -> value or list of values. The keys are `KEYS`, LABEL.field for an optimizer with a label, and
            net.argument for a net of one's own, which is given by name or as the function: docs/settings.md says what
            each means.

    Raises:
        UsageError: an unknown name, a value that its field does not allow, a setting without effect.

    Examples:
        >>> plan("tiny", {"seeds": 3}).seeds
        3
    """
    texts = {key: dotted.name_of(key, own) if callable(own) else own for key, own in (settings or {}).items()}
    chosen = _merged(choose(PRESETS, preset, texts, KEYS))
    chosen.names("families", NETS, "family")
    labels = optimizers.labelled(chosen.merged["optimizers"], OPTIMIZERS, taken=(*NETS, *OWNERS))
    for label, name in labels.items():
        own = {key: [] for key in chosen.given if key.startswith(f"{label}.")}
        check_keys(own, optimizers.keys(label, name, OPTIMIZERS))
    for key in ("images", "text", "net"):
        chosen.once(key)
    families = _families(chosen)
    _check_effect(chosen, labels, families)
    extensions = chosen.whole("extensions", at_least=0, at_most=MAX_EXTENSIONS)
    arms = {
        label: (optimizers.variants(chosen, label, name, OPTIMIZERS), optimizers.rates(chosen, label, name))
        for label, name in labels.items()
    }
    optimizers.check_differ(arms)
    own = {label: tried for label, (tried, _) in arms.items()}
    return FeatureStudy(
        preset=preset,
        settings=chosen.given,
        families=tuple(families),
        optimizers=tuple(tried[0] for tried in own.values()),
        labels=() if list(labels) == list(labels.values()) else tuple(labels),
        searches={label: Search(rates=rates, extensions=extensions) for label, (_, rates) in arms.items()},
        seeds=chosen.whole("seeds", at_least=1, at_most=MAX_SEEDS),
        search_seeds=chosen.whole("search_seeds", at_least=1, at_most=MAX_SEEDS),
        matched=_matched(chosen),
        variants={label: tried for label, tried in own.items() if len(tried) > 1},
    )


def _matched(chosen: Chosen) -> Any:
    if chosen.one("matched") not in get_args(Matched):
        raise chosen.wrong("matched", " or ".join(get_args(Matched)))
    return chosen.one("matched")


def _merged(chosen: Chosen) -> Chosen:
    """Return the settings with what the user gave in place of what the preset has.

    That is a `batch` in place of a preset's `gpt.batch`, and nets of a user's own in place of its families.
    """

    def is_overruled(key: str) -> bool:
        owner, _, field = key.partition(".")
        return owner in NETS and field in TRAINING_FIELDS and field in chosen.given and key not in chosen.given

    kept = {key: values for key, values in chosen.merged.items() if not is_overruled(key)}
    if "net" in chosen.given and "families" not in chosen.given:
        kept["families"] = []
    return Chosen(chosen.preset, chosen.given, kept)


def _check_effect(chosen: Chosen, labels: Mapping[str, str], families: Sequence[FamilyPlan]) -> None:
    """Raise UsageError for a setting that is given and changes nothing, as nothing in the study has it."""
    names, merged = chosen.merged["families"], chosen.merged
    kinds = {each.family.data.kind for each in families}
    used = {name: name in names for name in NETS} | {name: name in labels.values() for name in OPTIMIZERS}
    used |= {"images": "images" in kinds} | dict.fromkeys(("text", "transfer_text", "examples"), "text" in kinds)
    chosen.refuse_unused(used)
    for key in chosen.given:
        if key in TRAINING_FIELDS and "net" not in merged and all(f"{name}.{key}" in merged for name in names):
            raise UsageError(f"{key} has no effect: {' and '.join(f'{name}.{key}' for name in names)} go before it")
        if key == "cnn.groups" and merged.get("cnn.norm") == ["batch"]:
            raise UsageError("cnn.groups has no effect: cnn.norm=batch has no groups; leave it out")


# -- families --------------------------------------------------------------------------------------


def _points(chosen: Chosen) -> Iterator[tuple[str, BaseModel, tuple[str, ...], Chosen]]:
    """Yield every net at every width and budget: its name, the net, what tells it from the others, and its settings."""
    built_in, own_ones = chosen.merged["families"], chosen.merged.get("net", ())
    for name, is_own in (*((name, False) for name in built_in), *((name, True) for name in own_ones)):
        budget = f"{name}.budget" if f"{name}.budget" in chosen.merged else "budget"
        words = {f"{name}.width": "width {}", budget: "{} steps"}
        several = {key: chosen.once(key) for key in words if len(chosen.merged.get(key, ())) > 1}
        for point in combinations({key: list(values) for key, values in several.items()}, words):
            axes = tuple(words[key].format(value) for key, value in point.items())
            own = Chosen(chosen.preset, chosen.given, chosen.merged | {key: [value] for key, value in point.items()})
            net = _own_net(own, name) if is_own else own.build(NETS[name], f"{name}.")
            yield name, net, axes, own


def _families(asked: Chosen) -> list[FamilyPlan]:
    found = []
    for name, net, axes, chosen in _points(asked):
        special = chosen.fields(Training, f"{name}.")
        make(Training, special, f"{name}.")  # a mistake there is named as it was given
        own = {
            "training": make(Training, chosen.fields(Training) | special),
            "transfer": chosen.build(Training, "transfer."),
            "measuring": chosen.build(Measuring, "measure."),
        }
        data = _texts(chosen) if _reads_text(net) else _images(chosen)
        found += [FamilyPlan(family=make(Family, {"net": net, "data": each}), axes=axes, **own) for each in data]
    for name, number in Counter(each.name for each in found).items():
        if number > 1:
            raise UsageError(f"two nets with their data are called {name!r}; give functions and files other names")
    return found


def _reads_text(net: BaseModel) -> bool:
    if isinstance(net, OwnNet):
        return "vocabulary" in dotted.arguments(net.call.load("net"))
    return isinstance(net, config.GPTConfig)


def _own_net(chosen: Chosen, name: str) -> OwnNet:
    if not dotted.is_dotted(name):
        names = ",".join(NETS)
        raise UsageError(f"net={name} is not valid; expected {dotted.FORM}, {NET}; built-in nets are families={names}")
    call, given = dotted.find("net", name, NET), [key for key in chosen.given if key.startswith("net.")]
    for key in given:
        if not dotted.takes(call.load("net"), key.removeprefix("net.")):
            raise UsageError(f"{key} has no effect: net={name} does not take it; leave it out")
    return OwnNet(call=call, arguments={key[4:]: optimizers.value(key, chosen.one(key)) for key in given})


def _images(chosen: Chosen) -> list[ImageData]:
    own = chosen.fields(ImageData, "images.")
    found = []
    for place in _needed(chosen, "images", "a folder, zip, IDX or .npz of images, TRAIN+TEST for two of them"):
        source, _, test = place.partition("+")
        found.append(make(ImageData, {**own, "source": source, "test": test or None, "name": title(source)}, "images."))
    return found


def _texts(chosen: Chosen) -> list[TextData]:
    own = chosen.fields(TextData, "text.")
    texts = _needed(chosen, "text", "a file of text")
    others = _as_many(texts, _needed(chosen, "transfer_text", "a file of text"), "transfer_text")
    labelled = _as_many(texts, _needed(chosen, "examples", "a file of labelled texts, TRAIN+TEST"), "examples")
    found = []
    for source, other, examples in zip(texts, others, labelled, strict=True):
        train, _, test = examples.partition("+")
        places = {"source": source, "transfer_source": other, "examples": train, "examples_test": test or None}
        found.append(make(TextData, {**own, **places, "name": title(source)}, "text."))
    return found


def _needed(chosen: Chosen, key: str, what: str) -> list[str]:
    if key not in chosen.merged:
        raise UsageError(f"preset={chosen.preset} trains on your files; give {key}=PATH, {what}; commas for several")
    return chosen.merged[key]


def _as_many(texts: Sequence[str], places: list[str], key: str) -> list[str]:
    if len(places) not in (1, len(texts)):
        raise UsageError(f"{key} has {len(places)} values for {len(texts)} of text; expected one, or one for each")
    return places * len(texts) if len(places) == 1 else places


def title(source: str) -> str:
    """Return what people call a source: its name without the ending, or its folder's for a train.zip."""
    path = Path(source)
    own = path.name.split(".")[0]
    return path.parent.name if own in ("train", "test", "images") and path.parent.name else own

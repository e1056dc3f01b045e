"""Are features trained with Muon more robust and more transferable, and why? (arXiv 2606.09658)

This file says what is asked: which families, optimizers, budgets. `rounds.py` says which jobs answer it, `analysis.py`
what they mean.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

from muonlab.jobs import store
from muonlab.studies.features.config import (
    SGD,
    AdamW,
    CNNConfig,
    Family,
    GPTConfig,
    ImageData,
    Measuring,
    Muon,
    Optimizer,
    TextData,
    Training,
    ViTConfig,
)
from muonlab.studies.features.presets import PRESETS
from muonlab.study.fields import Frozen, Rate
from muonlab.study.settings import Settings, UsageError, as_texts, check_name, make, whole_number

STUDY = "features"
NETS: dict[str, type[BaseModel]] = {"cnn": CNNConfig, "vit": ViTConfig, "gpt": GPTConfig}
OPTIMIZERS: dict[str, type[BaseModel]] = {"muon": Muon, "adamw": AdamW, "sgd": SGD}
MAX_SEEDS = 1000
MAX_EXTENSIONS = 20


class Search(BaseModel):
    """The search for a learning rate.

    Attributes:
        rates: of the first grid, rising.
        extensions: rates that may be added, one by one, while the best lies on an edge.
    """

    model_config = Frozen
    rates: tuple[Rate, ...] = Field(min_length=2)
    extensions: int = Field(default=3, ge=0, le=MAX_EXTENSIONS)


class FamilyPlan(BaseModel):
    """A family with its budgets."""

    model_config = Frozen
    family: Family
    training: Training
    transfer: Training
    measuring: Measuring

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks that are transferred to."""
        return ("classes",) if self.family.data.kind == "images" else ("classes", "language")


class FeatureStudy(BaseModel):
    """What a study of features asks.

    Attributes:
        preset, settings: where it came from.
        optimizers: those compared; the first with each of the others.
        searches: by name of the optimizer.
        seeds: number of final runs of each; search_seeds that of each rate of a search.
    """

    model_config = Frozen
    preset: str
    settings: dict[str, list[str]]
    families: tuple[FamilyPlan, ...] = Field(min_length=1)
    optimizers: tuple[Optimizer, ...] = Field(min_length=1)
    searches: dict[str, Search]
    seeds: int = Field(ge=1, le=MAX_SEEDS)
    search_seeds: int = Field(ge=1, le=MAX_SEEDS)


# -- settings: the fields of the configs, under the names that a user types ------------------------


def _fields(model: type[BaseModel], *without: str) -> tuple[str, ...]:
    return tuple(name for name in model.model_fields if name not in without)


TRANSFER_FIELDS = _fields(Training)
TRAINING_FIELDS = _fields(Training, "patience")  # pretraining has one length for all
MEASURING_FIELDS = _fields(Measuring)
IMAGE_FIELDS = _fields(ImageData, "kind", "name", "source", "test")
TEXT_FIELDS = _fields(TextData, "kind", "name", "source", "transfer_source", "examples", "examples_test")
CHOICES = (
    "families",
    "optimizers",
    "seeds",
    "search_seeds",
    "extensions",
    "images",
    "text",
    "transfer_text",
    "examples",
)
KEYS = (
    *CHOICES,
    *TRAINING_FIELDS,
    *(f"images.{field}" for field in IMAGE_FIELDS),
    *(f"text.{field}" for field in TEXT_FIELDS),
    *(f"transfer.{field}" for field in TRANSFER_FIELDS),
    *(f"measure.{field}" for field in MEASURING_FIELDS),
    *(f"{name}.{field}" for name, model in NETS.items() for field in (*_fields(model, "kind"), *TRAINING_FIELDS)),
    *(f"{name}.{field}" for name, model in OPTIMIZERS.items() for field in (*_fields(model, "name"), "rates")),
)


def plan(preset: str = "laptop", settings: Mapping[str, Any] | None = None) -> FeatureStudy:
    """Return the study of a preset, changed by settings.

    Args:
        preset: tiny, laptop, real or paper.
        settings: key -> value or list of values. The keys are `KEYS`: docs/settings.md says what each means.

    Raises:
        UsageError: an unknown name, a value that its field does not allow, a setting without effect.

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
    for name in merged["families"]:
        check_name("family", name, NETS)
    for name in merged["optimizers"]:
        check_name("optimizer", name, OPTIMIZERS)
    _check_repeats(merged)
    for key in given:
        _check_effect(key, merged)
    return FeatureStudy(
        preset=preset,
        settings=given,
        families=tuple(_families(preset, merged)),
        optimizers=tuple(_made(OPTIMIZERS[name], merged, f"{name}.") for name in merged["optimizers"]),
        searches={name: _search(name, merged) for name in merged["optimizers"]},
        seeds=whole_number("seeds", merged["seeds"], at_least=1, at_most=MAX_SEEDS),
        search_seeds=whole_number("search_seeds", merged["search_seeds"], at_least=1, at_most=MAX_SEEDS),
    )


def begin(study: FeatureStudy, folder: Path) -> None:
    """Make the folder hold the request: its study.json. Earlier requests and their jobs stay.

    Raises:
        StudyError: the folder holds something else, or cannot be written.
    """
    config = study.model_dump(mode="json", exclude={"preset", "settings"})
    store.create(folder, STUDY, study.preset, study.settings, config)


def _merged(preset: Settings, given: Settings) -> Settings:
    """Return the settings of a preset changed by those given; a given `batch` goes before the preset's `gpt.batch`."""

    def is_overruled(key: str) -> bool:
        owner, _, field = key.partition(".")
        return owner in NETS and field in TRAINING_FIELDS and field in given

    return {key: values for key, values in preset.items() if not is_overruled(key)} | given


def _search(name: str, merged: Settings) -> Search:
    extensions = whole_number("extensions", merged["extensions"], at_least=0, at_most=MAX_EXTENSIONS)
    return Search(rates=_rates(f"{name}.rates", merged), extensions=extensions)


def _rates(key: str, merged: Settings) -> tuple[float, ...]:
    try:
        rates = sorted({float(text) for text in merged[key]})
    except ValueError:
        rates = []
    if len(rates) < 2 or not all(0 < rate < float("inf") for rate in rates):
        raise UsageError(f"{key}={','.join(merged[key])} is not valid; expected two numbers or more, all above 0")
    return tuple(rates)


def _families(preset: str, merged: Settings) -> list[FamilyPlan]:
    found = []
    for name in merged["families"]:
        net = _made(NETS[name], merged, f"{name}.")
        special = _given(Training, merged, f"{name}.")
        make(Training, special, f"{name}.")  # a mistake there is named as it was given
        own = {
            "training": make(Training, _given(Training, merged, "") | special),
            "transfer": _made(Training, merged, "transfer."),
            "measuring": _made(Measuring, merged, "measure."),
        }
        found += [
            FamilyPlan(family=make(Family, {"net": net, "data": data}), **own)  # type: ignore[arg-type]
            for data in (_texts(preset, merged) if name == "gpt" else _images(preset, merged))
        ]
    return found


def _images(preset: str, merged: Settings) -> list[ImageData]:
    fields = _given(ImageData, merged, "images.")
    found = []
    for place in _needed(preset, merged, "images", "a folder, zip, IDX or .npz of images, TRAIN+TEST for two of them"):
        source, _, test = place.partition("+")
        places = {"source": source, "test": test or None}
        found.append(make(ImageData, {**fields, **places, "name": _title(source)}, "images."))
    return found


def _texts(preset: str, merged: Settings) -> list[TextData]:
    fields = _given(TextData, merged, "text.")
    texts = _needed(preset, merged, "text", "a file of text")
    others = _as_many(texts, _needed(preset, merged, "transfer_text", "a file of text"), "transfer_text")
    labelled = _as_many(texts, _needed(preset, merged, "examples", "a file of labelled texts, TRAIN+TEST"), "examples")
    found = []
    for source, other, examples in zip(texts, others, labelled, strict=True):
        train, _, test = examples.partition("+")
        places = {"source": source, "transfer_source": other, "examples": train, "examples_test": test or None}
        found.append(make(TextData, {**fields, **places, "name": _title(source)}, "text."))
    return found


def _needed(preset: str, merged: Settings, key: str, what: str) -> list[str]:
    if key not in merged:
        raise UsageError(f"preset={preset} trains on files of yours; give {key}=PATH, {what}; commas for several")
    return merged[key]


def _as_many(texts: Sequence[str], places: list[str], key: str) -> list[str]:
    if len(places) not in (1, len(texts)):
        raise UsageError(f"{key} has {len(places)} values for {len(texts)} of text; expected one, or one for each")
    return places * len(texts) if len(places) == 1 else places


def _title(source: str) -> str:
    """Return what people call a source: its name without the ending, or its folder's for a train.zip."""
    path = Path(source)
    own = path.name.split(".")[0]
    return path.parent.name if own in ("train", "test", "images") and path.parent.name else own


# -- from texts to models --------------------------------------------------------------------------


def _made(model: type[BaseModel], merged: Settings, prefix: str) -> Any:
    return make(model, _given(model, merged, prefix), prefix)


def _given(model: type[BaseModel], merged: Settings, prefix: str) -> dict[str, Any]:
    """Return field -> value of those that are set: a list for a field of several values, else the one text."""
    found: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        if f"{prefix}{name}" in merged:
            is_list = "tuple" in str(field.annotation)
            found[name] = merged[f"{prefix}{name}"] if is_list else _one(f"{prefix}{name}", merged)
    return found


def _one(key: str, merged: Settings) -> str:
    if len(merged[key]) != 1:
        raise UsageError(f"{key}={','.join(merged[key])} has {len(merged[key])} values; expected one")
    return merged[key][0]


def _check_repeats(merged: Settings) -> None:
    for key in ("families", "optimizers", "images", "text"):
        for value in merged.get(key, ()):
            if merged[key].count(value) > 1:
                raise UsageError(f"{key}={','.join(merged[key])} names {value} twice; give every one once")


def _check_effect(key: str, merged: Settings) -> None:
    """Raise UsageError for a setting that is given and changes nothing, as its family or optimizer is not asked for."""
    families, optimizers = merged["families"], merged["optimizers"]
    owner = key.partition(".")[0]
    is_idle = (
        (owner in NETS and owner not in families)
        or (owner in OPTIMIZERS and owner not in optimizers)
        or (owner == "images" and not {"cnn", "vit"} & set(families))
        or (owner in ("text", "transfer_text", "examples") and "gpt" not in families)
    )
    if is_idle:
        raise UsageError(
            f"{key} has no effect: the study has families={','.join(families)} and optimizers={','.join(optimizers)}; "
            "leave it out"
        )
    if key in TRAINING_FIELDS and all(f"{name}.{key}" in merged for name in families):
        raise UsageError(f"{key} has no effect: {' and '.join(f'{name}.{key}' for name in families)} go before it")
    if key == "cnn.groups" and merged.get("cnn.norm") == ["batch"]:
        raise UsageError("cnn.groups has no effect: cnn.norm=batch has no groups; leave it out")

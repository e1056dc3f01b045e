"""What is asked: nets that differ in width, rules that scale steps, learning rates, and the jobs' schema."""

from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from muonlab.studies.compare import config as compare
from muonlab.studies.compare.builtin import data_of
from muonlab.studies.compare.config import Training
from muonlab.study import optimizers
from muonlab.study.dotted import Dotted
from muonlab.study.fields import Count, Frozen, Rate
from muonlab.study.optimizers import WeightDecay
from muonlab.study.search import MAX_EXTENSIONS, Search
from muonlab.study.settings import Chosen, Settings, UsageError, choose, fields, make, written
from muonlab.study.study import Arm, arms_of

# Raised by hand when a change of the code alters results. The commit is recorded next to a result, not hashed.
RESULTS_VERSION = 1

STUDY = "transfer"
MAX_SEEDS = 1000
SCALES = ("original", "match_rms_adamw", "spectral", "none")  # of muonlab.rules.muon.ADJUSTMENTS
RULES = (*SCALES, "adamw")


class Net(BaseModel):
    """A GPT of characters: one of several that differ in width alone.

    The width of a head stays, so a wider net has more of them. Weights are drawn as torch does, with a deviation that
    falls with the square root of the inputs.
    """

    model_config = Frozen
    data: Dotted  # a user's text with the digest of its file, or what is embedded
    width: Count = Field(description="of the hidden states; each is a net of its own")
    depth: Count = Field(default=2, description="blocks")
    head_width: Annotated[int, Field(ge=2, multiple_of=2)] = Field(default=16, description="of one head of attention")

    @property
    def name(self) -> str:
        """For people, and unique in a study."""
        return f"width {self.width}"

    @property
    def heads(self) -> int:
        """Heads of attention: a net that is narrower than one has one."""
        return max(1, self.width // self.head_width)


# Weights decay by nothing, so that a learning rate is the size of a step and nothing else.
class AdamW(optimizers.AdamW):
    """AdamW for every parameter."""

    weight_decay: WeightDecay = 0.0


class Muon(optimizers.Muon):
    """Muon for the hidden matrices at the rate that is searched, AdamW at a rate that is held for all else."""

    weight_decay: WeightDecay = 0.0
    adjust_lr_fn: Literal["original", "match_rms_adamw", "spectral", "none"] = "original"
    adamw_lr: Rate = Field(default=0.01, description="of AdamW for what Muon does not take, the same at every width")


OPTIMIZERS: dict[str, type[BaseModel]] = {"muon": Muon, "adamw": AdamW}
Optimizer = Annotated[Muon | AdamW, Field(discriminator="name")]


class Train(compare.Train):
    """A job: train one run for each rate and seed."""

    results_version: int = RESULTS_VERSION
    study: Literal["transfer"] = "transfer"  # pyright: ignore[reportIncompatibleVariableOverride]
    trained: Net  # pyright: ignore[reportIncompatibleVariableOverride]
    optimizer: Optimizer  # pyright: ignore[reportIncompatibleVariableOverride]


class Check(BaseModel):
    """A job: by how much the outputs of each layer change in the first steps at one rate, for every seed."""

    model_config = Frozen
    results_version: int = RESULTS_VERSION
    study: Literal["transfer"] = "transfer"
    trained: Net
    optimizer: Optimizer
    batch: Count
    rate: Rate
    seeds: Annotated[tuple[int, ...], Field(min_length=1)]
    steps: Count


class TransferStudy(BaseModel):
    """What a study of transfer asks.

    Attributes:
        optimizers: by label, which is the name of a rule; the nets are rising in width.
        seeds: runs of each rate, and of the coordinate check.
        tolerance: octaves per doubling of the width by which the best rate may move and still be said to transfer.
        check_steps: steps of the coordinate check; 0 leaves it out.
    """

    model_config = Frozen
    preset: str
    settings: dict[str, list[str]]
    nets: Annotated[tuple[Net, ...], Field(min_length=2)]
    training: Training
    optimizers: dict[str, Optimizer] = Field(min_length=1)
    searches: dict[str, Search]
    seeds: int = Field(ge=1, le=MAX_SEEDS)
    tolerance: Annotated[float, Field(gt=0)] = 0.25
    check_steps: Annotated[int, Field(ge=0)] = 5

    @cached_property
    def arms(self) -> tuple[Arm, ...]:
        """The rules."""
        return arms_of(self.optimizers)


# -- presets: settings as a user types them --------------------------------------------------------

# As many rates for every rule, each twice the last; a search goes on where the best lies on an edge.
LAPTOP = written(
    """
    rules=original,match_rms_adamw,spectral,none,adamw
    widths=16,32,64,128 seeds=4 extensions=4 tolerance=0.25 check_steps=5
    depth=2 head_width=16 batch=8 budget=80 evaluations=2
    original.rates=0.02,0.04,0.08,0.16,0.32 spectral.rates=0.02,0.04,0.08,0.16,0.32 none.rates=0.02,0.04,0.08,0.16,0.32
    match_rms_adamw.rates=0.01,0.02,0.04,0.08,0.16 adamw.rates=0.0025,0.005,0.01,0.02,0.04
    """
)
TINY = written("widths=8,16 seeds=2 extensions=0 depth=1 head_width=8 batch=4 budget=10 evaluations=2 check_steps=2")
FEW = {f"{rule}.rates": ["0.02", "0.06", "0.18"] for rule in RULES}
PRESETS: dict[str, Settings] = {"tiny": LAPTOP | FEW | TINY, "laptop": LAPTOP}

KEYS = (
    *("rules", "widths", "seeds", "extensions", "tolerance", "check_steps", "text"),
    *fields(Net, "data", "width"),
    *fields(Training),
    *(f"{rule}.rates" for rule in RULES),
    *(f"{name}.{key}" for name, model in OPTIMIZERS.items() for key in fields(model, "name", "adjust_lr_fn")),
)


def plan(preset: str = "laptop", settings: Mapping[str, Any] | None = None) -> TransferStudy:
    """Return the study of a preset, changed by settings.

    Args:
        preset: tiny or laptop.
        settings: key -> value or list of values. The keys are `KEYS`: docs/settings.md says what each means.

    Raises:
        UsageError: an unknown name, a value that its field does not allow, a width that the heads do not divide.

    Examples:
        >>> plan("tiny", {"seeds": 3}).seeds
        3
    """
    chosen = choose(PRESETS, preset, settings, KEYS)
    labels = chosen.names("rules", RULES, "rule")
    chosen.refuse_unused(
        {rule: rule in labels for rule in SCALES} | {"muon": bool({*SCALES} & {*labels}), "adamw": "adamw" in labels}
    )
    extensions = chosen.whole("extensions", at_least=0, at_most=MAX_EXTENSIONS)
    optimizers = {label: _optimizer(chosen, label) for label in labels}
    own = {key: chosen.one(key) for key in ("seeds", "tolerance", "check_steps")}
    return make(
        TransferStudy,
        {
            "preset": preset,
            "settings": chosen.given,
            "nets": _nets(chosen),
            "optimizers": optimizers,
            "training": chosen.build(Training),
            "searches": {
                label: Search(rates=chosen.numbers(f"{label}.rates", at_least=3), extensions=extensions)
                for label in labels
            },
            **own,
        },
    )


def _optimizer(chosen: Chosen, label: str) -> Any:
    if label == "adamw":
        return chosen.build(AdamW, "adamw.")
    return make(Muon, {**chosen.fields(Muon, "muon."), "adjust_lr_fn": label}, "muon.")


def _nets(chosen: Chosen) -> list[Net]:
    widths = chosen.numbers("widths", at_least=2)
    text = chosen.one("text") if "text" in chosen.merged else None
    how = {key: chosen.one(key) for key in ("depth", "head_width")}
    found = [make(Net, {"data": data_of("gpt", text), "width": width, **how}) for width in widths]
    for net in found:
        if net.width % min(net.width, net.head_width) or net.width % 2:
            raise UsageError(
                f"widths={','.join(chosen.merged['widths'])} is not valid: a net of width {net.width} has heads of "
                f"{net.head_width}; expected multiples of {net.head_width}, or even widths below it"
            )
    return found

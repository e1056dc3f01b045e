"""The optimizers that studies compare: one schema, with defaults per study.

A study's job holds only the fields that it had when its results were made: fields added since are left out of the dump
while they have their defaults, so that ids and results stand.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, Field, SerializerFunctionWrapHandler, model_serializer

from muonlab.study import dotted
from muonlab.study.dotted import Dotted
from muonlab.study.fields import Decay, Frozen, Rate
from muonlab.study.settings import Chosen, UsageError, check_name, fields, label_of, make


class Growing(BaseModel):
    """A config that may get new fields: those in `added` are left out of its dump while they have their defaults.

    Equal configs have equal ids whatever version made them. A new field goes into `added` of its class, with a default
    under which results are as before.
    """

    model_config = Frozen
    added: ClassVar[frozenset[str]] = frozenset()

    @model_serializer(mode="wrap")
    def _without_defaults_of_added(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields = type(self).model_fields
        idle = {name for name in self.added if getattr(self, name) == fields[name].get_default()}
        return {name: value for name, value in dump(self).items() if name not in idle}


# The hyper-parameters, each described once: a study's own class gives a default of its own to one of them.
Momentum = Annotated[Decay, Field(description="momentum")]
WeightDecay = Annotated[Rate, Field(description="weight decay; of SGD added to the gradient, else decoupled")]
Nesterov = Annotated[bool, Field(description="Nesterov's momentum")]
Beta1 = Annotated[Decay, Field(description="decay of AdamW's mean of gradients")]
Beta2 = Annotated[Decay, Field(description="decay of AdamW's mean of squared gradients")]
Eps = Annotated[Rate, Field(description="added to the root of AdamW's second mean")]
Iterations = Annotated[
    Annotated[int, Field(ge=1, le=1000)] | None, Field(description="iterations of the orthogonalisation")
]


class SGD(Growing):
    """SGD with momentum, for every parameter."""

    name: Literal["sgd"] = "sgd"
    momentum: Momentum = 0.9
    weight_decay: WeightDecay = 0.0
    nesterov: Nesterov = False


class AdamW(Growing):
    """AdamW for every parameter."""

    name: Literal["adamw"] = "adamw"
    weight_decay: WeightDecay = 0.0
    beta1: Beta1 = 0.9
    beta2: Beta2 = 0.98
    eps: Eps = 1e-8


class Muon(Growing):
    """Muon for matrices. Which of them it takes, and what becomes of the other parameters, a study says.

    `steps` is None for as many as the method has (5 of the quintic).
    """

    name: Literal["muon"] = "muon"
    momentum: Momentum = 0.95
    nesterov: Nesterov = True
    weight_decay: WeightDecay = 0.0
    steps: Iterations = None


class Custom(BaseModel):
    """An optimizer of a user's own: a class or a function of torch's protocol, called with (parameters, lr=, ...).

    Attributes:
        call: what is called.
        arguments: keyword arguments further to the learning rate.
    """

    model_config = Frozen
    name: Literal["custom"] = "custom"
    call: Dotted
    arguments: dict[str, Any] = {}


def shown(optimizer: BaseModel) -> dict[str, Any]:
    """Return what a report shows of an optimizer: its settings, and what makes it where that is a user's own."""
    if isinstance(optimizer, Custom):
        return {"made_by": optimizer.call.source, **optimizer.arguments}
    return optimizer.model_dump(mode="json", exclude={"name"})


# -- optimizers as a user names them: muon, lion=lion_pytorch:Lion, a=muon --------------------------

LABEL = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
RATES = ("rates", "lr")  # the learning rates of an arm, by either name
LIKE = "a class or function of torch's protocol, called with the parameters and lr=, such as torch.optim:RAdam"


def labelled(values: Sequence[str], known: Mapping[str, Any], taken: Sequence[str] = ()) -> dict[str, str]:
    """Return label -> built-in name or dotted name of the values of a setting.

    An optimizer without a label has its own name for one: `muon` is labelled muon, `lion_pytorch:Lion` Lion.

    Args:
        values: of the setting `optimizers`.
        known: the built-in optimizers.
        taken: words that settings of something else begin with.

    Raises:
        UsageError: an unknown optimizer, a label that is given twice or means something else.
    """
    found: dict[str, str] = {}
    for value in values:
        label, name = label_of(value), _name(value)
        is_own = dotted.is_dotted(name)
        if not is_own:
            check_name("optimizer", name, known, f"or one of your own, {dotted.FORM}")
        is_other = label in known and label != name and label in map(_name, values)
        if not LABEL.fullmatch(label) or label in taken or is_other:
            raise UsageError(
                f"optimizers={value} is not valid: {label!r} cannot be a label; expected LABEL={name} with a word of "
                "letters and digits that names nothing else"
            )
        if label in found:
            raise UsageError(
                f"optimizers={','.join(values)} names {label} twice; give each once, or variants of one optimizer with "
                f"labels, such as optimizers=a={found[label]},b={name}"
            )
        found[label] = name
    return found


def _name(value: str) -> str:
    return value.rpartition("=")[2]


def keys(label: str, name: str, known: Mapping[str, type[BaseModel]]) -> tuple[str, ...]:
    """Return the settings of a labelled optimizer; those of a user's own are the arguments that it takes."""
    own = (
        dotted.arguments(dotted.load("optimizers", name), skip=1)
        if dotted.is_dotted(name)
        else fields(known[name], "name")
    )
    return tuple(f"{label}.{field}" for field in dict.fromkeys((*own, *RATES)))


def build(chosen: Chosen, label: str, name: str, known: Mapping[str, type[BaseModel]]) -> Any:
    """Return the config of a labelled optimizer, from the settings `LABEL.field` and then from `NAME.field`.

    Raises:
        UsageError: a value that its field does not allow; an optimizer of a user's own that cannot be called so.
    """
    own = _own(chosen, label)
    if dotted.is_dotted(name):
        return custom(label, name, {key: value(texts) for key, texts in own.items() if key not in RATES})
    model = known[name]
    return make(model, {**chosen.fields(model, f"{name}."), **chosen.fields(model, f"{label}.")}, f"{label}.")


def rates(chosen: Chosen, label: str, name: str) -> tuple[float, ...]:
    """Return the learning rates that a labelled optimizer is tried with; a built-in one has those of its name.

    Raises:
        UsageError: there are none, too few or no numbers.
    """
    if all(f"{label}.{word}" in chosen.given for word in RATES):
        raise UsageError(f"{label}.lr and {label}.rates are one setting; give one of them")
    for settings in (chosen.given, chosen.merged):
        for key in (f"{owner}.{word}" for owner in (label, name) for word in RATES):
            if key in settings:
                return chosen.numbers(key, at_least=2)
    raise UsageError(f"{label}={name} has no learning rates; give two or more, such as {label}.rates=1e-4,3e-4,1e-3")


def check_differ(arms: Mapping[str, tuple[Any, tuple[float, ...]]]) -> None:
    """Raise UsageError where two labels stand for one optimizer with the same settings and learning rates."""
    for label, arm in arms.items():
        if other := next((each for each in arms if each < label and arms[each] == arm), None):
            raise UsageError(
                f"{other} and {label} are one optimizer with the same settings; give one of them a setting of its own, "
                f"such as {label}.weight_decay=0.1"
            )


def _own(chosen: Chosen, label: str) -> dict[str, list[str]]:
    prefix = f"{label}."
    return {key.removeprefix(prefix): texts for key, texts in chosen.merged.items() if key.startswith(prefix)}


def custom(label: str, name: str, arguments: Mapping[str, Any]) -> Custom:
    """Return the config of an optimizer of a user's own.

    Raises:
        UsageError: it cannot be found or called, lacks an argument or does not take one.
    """
    where = f"{label}={name}"
    call = dotted.find("optimizers", name, LIKE)
    function = dotted.load("optimizers", name)
    own = dotted.needed(function)
    if own is not None:
        if lacking := [each for each in own[1:] if each != "lr" and each not in arguments]:
            example = " ".join(f"{label}.{each}=VALUE" for each in lacking)
            raise UsageError(f"{where} needs {', '.join(lacking)}; give {example}")
        if not dotted.takes(function, "lr"):
            raise UsageError(f"{where} takes no learning rate lr; expected {LIKE}")
    for key in arguments:
        if not dotted.takes(function, key):
            known = ", ".join(dotted.arguments(function, skip=1))
            raise UsageError(f"{label}.{key} has no effect: {name} takes no {key}; expected one of {known}")
    return Custom(call=call, arguments=dict(arguments))


def value(texts: Sequence[str]) -> Any:
    """Return what the texts of a setting mean as an argument: a number, true, false, none or a text; a list of several.

    Example:
        >>> value(["0.9", "0.99"]), value(["true"]), value(["1e-8"])
        ([0.9, 0.99], True, 1e-08)
    """
    found = [_plain(text) for text in texts]
    return found[0] if len(found) == 1 else found


def _plain(text: str) -> Any:
    if text.lower() in WORDS:
        return WORDS[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


WORDS = {"true": True, "false": False, "none": None}

"""The optimizers that studies compare: one schema, and how a user names them.

Each hyper-parameter is described once. `SGD`, `AdamW` and `Muon` have one learning rate for all parameters, which
a study searches (features, compare; components has other defaults). `RatedSGD`, `RatedAdamW` and `RatedMuon` have
learning rates of their own, also by role, and may leave parameters to AdamW (grokking).

A job holds only the fields that its study had when its first results were made: those in `added` are left out of the
dump while they have their defaults, so that ids and results stand.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from muonlab.study import dotted
from muonlab.study.dotted import Dotted
from muonlab.study.fields import Decay, Frozen, Growing, Rate
from muonlab.study.settings import OWN_OPTIMIZER, Chosen, UsageError, check_name, combinations, fields, label_of, make

# -- hyper-parameters ------------------------------------------------------------------------------

LearningRate = Annotated[Rate, Field(description="learning rate")]
Momentum = Annotated[Decay, Field(description="momentum")]
Nesterov = Annotated[bool, Field(description="Nesterov's momentum")]
CoupledDecay = Annotated[Rate, Field(description="weight decay, added to the gradient")]
WeightDecay = Annotated[Rate, Field(description="weight decay, decoupled: a step shrinks weights by lr * decay")]
Beta1 = Annotated[Decay, Field(description="decay of AdamW's mean of gradients")]
Beta2 = Annotated[Decay, Field(description="decay of AdamW's mean of squared gradients")]
Eps = Annotated[Rate, Field(description="added to the root of AdamW's second mean")]
Iterations = Annotated[int, Field(ge=1, le=1000)]
Steps = Annotated[Iterations | None, Field(description="iterations of the orthogonalisation; 5 by default")]
Variant = Annotated[
    Literal["normuon", "adamuon"] | None, Field(description="NorMuon (arXiv 2510.05491) or AdaMuon (arXiv 2507.11005)")
]
Equilibrate = Annotated[
    Literal["row", "col", "rowcol"] | None,
    Field(description="what is normalized before the orthogonalisation (MuonEq, arXiv 2603.28254)"),
]
Renormalize = Annotated[
    Literal["row", "col", "col_row", "row_col"] | None,
    Field(description="what is normalized after it (Muon+, arXiv 2602.21545)"),
]
UpdateFloor = Annotated[Rate, Field(description="least norm of a step of Muon, over lr, as a share of the matrix's")]
Hyperball = Annotated[
    bool,
    Field(description="hold the norm of Muon's matrices, without decay: lr is a step's share of it (arXiv 2606.16899)"),
]
Decaying = Annotated[
    Literal["decoupled", "independent", "l2"],
    Field(description="a step decays by lr * decay, by the decay alone, or has it in its gradient; of AdamW's too"),
]
Lookahead = Annotated[
    Rate, Field(description="gradients are so many mean changes ahead, of AdamW's too (EMA-Nesterov, arXiv 2605.25395)")
]
OF_PARTS = frozenset({"equilibrate", "renormalize", "update_floor", "hyperball", "decay", "lookahead"})
Takes = Literal["hidden", "hidden+head", "hidden+embedding", "matrices"]

# -- one learning rate, searched -------------------------------------------------------------------


class SGD(Growing):
    """SGD with momentum, for every parameter."""

    name: Literal["sgd"] = "sgd"
    momentum: Momentum = 0.9
    weight_decay: CoupledDecay = 5e-4
    nesterov: Nesterov = False


class AdamW(Growing):
    """AdamW for every parameter."""

    name: Literal["adamw"] = "adamw"
    weight_decay: WeightDecay = 0.05
    beta1: Beta1 = 0.9
    beta2: Beta2 = 0.98
    eps: Eps = 1e-8


class Muon(Growing):
    """Muon for matrices and AdamW of the same rate and decay for all else. A study says which matrices it takes.

    Steps of Muon are scaled to the root mean square of AdamW's (arXiv 2502.16982), so that one learning rate serves
    both and the search has one dimension for every optimizer; components scales them by nothing.
    """

    added = frozenset({"nesterov", "steps", "variant"}) | OF_PARTS
    name: Literal["muon"] = "muon"
    momentum: Momentum = 0.95
    nesterov: Nesterov = True
    weight_decay: WeightDecay = 0.05
    steps: Steps = None
    variant: Variant = None
    equilibrate: Equilibrate = None
    renormalize: Renormalize = None
    update_floor: UpdateFloor = 0.0
    hyperball: Hyperball = False
    decay: Decaying = "decoupled"
    lookahead: Lookahead = 0.0
    beta1: Beta1 = 0.9
    beta2: Beta2 = 0.98
    eps: Eps = 1e-8


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


class Passed(BaseModel):
    """An optimizer that a program knows by a word; its settings are the program's own business.

    Attributes:
        word: what the program is told.
        settings: placeholder of its command -> text, of those that are held.
        sources: files that its command names -> digest, so that a changed program is another job.
    """

    model_config = Frozen
    name: Literal["passed"] = "passed"
    word: str
    settings: dict[str, str] = {}
    sources: dict[str, str] = {}


Searched = Annotated[SGD | AdamW | Muon | Custom, Field(discriminator="name")]
SEARCHED: dict[str, type[BaseModel]] = {"muon": Muon, "adamw": AdamW, "sgd": SGD}

# -- learning rates of their own -------------------------------------------------------------------


class _Rated(Growing):
    added = frozenset({"head_lr", "embedding_lr", "filter_alpha", "filter_lamb"})
    head_lr: Rate | None = Field(None, description="learning rate of the head; by default lr of its optimizer")
    embedding_lr: Rate | None = Field(
        None, description="learning rate of the embedding and of learned positions; by default lr of their optimizer"
    )
    filter_alpha: Decay = Field(0.98, description="decay of the gradient filter's running mean")
    filter_lamb: Rate = Field(
        0.0, description="multiple of that mean added to each gradient (Grokfast-EMA, arXiv 2405.20233); 0 is no filter"
    )


class RatedAdamW(_Rated):
    """AdamW for every parameter."""

    added = _Rated.added | {"coupled"}
    name: Literal["adamw"] = "adamw"
    lr: LearningRate = 1e-3
    weight_decay: WeightDecay = 1.0
    beta1: Beta1 = 0.9
    beta2: Beta2 = 0.98
    eps: Eps = 1e-8
    coupled: bool = Field(False, description="add the decay to the gradient: plain Adam with L2 regularisation")


# AdamW of the parameters that another rule leaves to it.
OF_OTHERS = ("lr", "weight_decay", "beta1", "beta2", "eps")
LROfOthers = Annotated[Rate, Field(description="learning rate of AdamW for the other parameters")]
DecayOfOthers = Annotated[Rate, Field(description="weight decay of that AdamW, decoupled")]


class RatedSGD(_Rated):
    """SGD with momentum for every parameter, or for the matrices that it takes and AdamW for all else."""

    added = _Rated.added | {"takes", *(f"adamw_{field}" for field in OF_OTHERS)}
    name: Literal["sgd"] = "sgd"
    lr: LearningRate = 0.1
    weight_decay: CoupledDecay = 1e-4
    momentum: Momentum = 0.9
    nesterov: Nesterov = False
    takes: Literal["all"] | Takes = Field("all", description="parameters that SGD takes; AdamW has the others")
    adamw_lr: LROfOthers = 1e-3
    adamw_weight_decay: DecayOfOthers = 1.0
    adamw_beta1: Beta1 = 0.9
    adamw_beta2: Beta2 = 0.98
    adamw_eps: Eps = 1e-8


class RatedMuon(_Rated):
    """Muon for the matrices that it takes, AdamW for all else, each with its own learning rate."""

    name: Literal["muon"] = "muon"
    lr: LearningRate = 0.02
    weight_decay: WeightDecay = 0.01
    momentum: Momentum = 0.95
    nesterov: Nesterov = True
    steps: Iterations = Field(5, description="iterations of the orthogonalisation")
    scale: bool = Field(True, description="multiply the update by sqrt(max(1, rows / columns))")
    orthogonalize: bool = Field(
        True, description="if not, the momentum itself, scaled to the Frobenius norm of its polar factor"
    )
    polar_dtype: Literal["same", "float32", "bfloat16", "float64"] = Field(
        "same", description="dtype of the orthogonalisation; same is that of the parameters"
    )
    takes: Takes = Field("hidden", description="matrices that Muon takes; AdamW has the other parameters")
    adamw_lr: LROfOthers = 1e-3
    adamw_weight_decay: DecayOfOthers = 1.0
    adamw_beta1: Beta1 = 0.9
    adamw_beta2: Beta2 = 0.98
    adamw_eps: Eps = 1e-8


class RatedCustom(Custom):
    """An optimizer of a user's own with its learning rate, for every parameter."""

    lr: LearningRate


Rated = Annotated[RatedMuon | RatedAdamW | RatedSGD | RatedCustom, Field(discriminator="name")]
RATED: dict[str, type[BaseModel]] = {"muon": RatedMuon, "adamw": RatedAdamW, "sgd": RatedSGD}


def shown(optimizer: BaseModel) -> dict[str, Any]:
    """Return what a report shows of an optimizer: its settings, and what makes it where that is a user's own."""
    if isinstance(optimizer, Custom):
        return {"made_by": optimizer.call.source, **optimizer.arguments}
    if isinstance(optimizer, Passed):
        files = ", ".join(f"{path}, source {digest[:12]}" for path, digest in optimizer.sources.items())
        return {"called": optimizer.word, "files": files or None, **optimizer.settings}
    return optimizer.model_dump(mode="json", exclude={"name"})


# -- optimizers as a user names them: muon, lion=lion_pytorch:Lion, a=muon --------------------------

LABEL = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
RATES = ("rates", "lr")  # the learning rates of an arm, by either name
LIKE = "a class or function of torch's protocol, called with the parameters and lr=, such as torch.optim:RAdam"


def labelled(
    values: Sequence[str], known: Mapping[str, Any], taken: Sequence[str] = (), *, any_word: bool = False
) -> dict[str, str]:
    """Return label -> built-in name or dotted name of the values of a setting.

    An optimizer without a label has its own name for one: `muon` is labelled muon, `lion_pytorch:Lion` Lion.

    Args:
        values: of the setting `optimizers`.
        known: the built-in optimizers.
        taken: words that settings of something else begin with.
        any_word: whether a name may be any word, which a program of the user's knows.

    Raises:
        UsageError: an unknown optimizer, a label that is given twice or means something else.
    """
    found: dict[str, str] = {}
    for value in values:
        label, name = label_of(value), _name(value)
        is_own = dotted.is_dotted(name)
        if not is_own and not any_word:
            own = f"or one of your own, {dotted.FORM}, {OWN_OPTIMIZER}"
            check_name("optimizer", name, known, own)
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
        return custom(label, name, {key: texts for key, texts in own.items() if key not in RATES})
    model = known[name]
    return make(model, {**chosen.fields(model, f"{name}."), **chosen.fields(model, f"{label}.")}, f"{label}.")


MOST_VARIANTS = 64  # settings of one optimizer, each with a search of its own


def variants(chosen: Chosen, label: str, name: str, known: Mapping[str, type[BaseModel]]) -> tuple[Any, ...]:
    """Return the configs of a labelled optimizer at every combination of its settings that have several values.

    Raises:
        UsageError: as of `build`; too many combinations.
    """
    owners = dict.fromkeys((name, label))  # what LABEL.field says goes before NAME.field
    keys = {key.partition(".")[2]: key for owner in owners for key in chosen.merged if key.startswith(f"{owner}.")}
    several = [key for field, key in keys.items() if _sweeps(name, field) and len(chosen.once(key)) > 1]
    overruled = {f"{name}.{field}" for field in keys} - set(keys.values())
    own = {key: values for key, values in chosen.merged.items() if key not in overruled}
    points = list(combinations(own, several))
    if len(points) > MOST_VARIANTS:
        words = f"{label} has {len(points)} combinations of settings ({', '.join(several)})"
        raise UsageError(f"{words}; expected at most {MOST_VARIANTS}")
    merged = [{**own, **{key: [value] for key, value in point.items()}} for point in points]
    return tuple(build(replace(chosen, merged=each), label, name, known) for each in merged)


def _sweeps(name: str, field: str) -> bool:
    """Return whether several values of a setting are several settings, and not one list of a user's own optimizer."""
    if field in RATES:
        return False
    return not dotted.is_dotted(name) or not isinstance(
        dotted.default(dotted.load("optimizers", name), field), list | tuple
    )


def differing(optimizers: Sequence[BaseModel]) -> tuple[str, ...]:
    """Return the settings in which configs of one optimizer differ."""
    held = [settings_of(each) for each in optimizers]
    keys = dict.fromkeys(key for own in held for key in own)
    return tuple(key for key in keys if len({repr(own.get(key)) for own in held}) > 1)


def settings_of(optimizer: BaseModel) -> dict[str, Any]:
    """Return all settings, those at their defaults too, which a dump may lack."""
    if isinstance(optimizer, Custom | Passed):
        return shown(optimizer)
    return {key: getattr(optimizer, key) for key in fields(type(optimizer), "name")}


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


def check_differ(arms: Mapping[str, tuple[Any, Any]]) -> None:
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


def custom(label: str, name: str, texts: Mapping[str, Sequence[str]]) -> Custom:
    """Return the config of an optimizer of a user's own.

    Args:
        label, name: of it.
        texts: argument -> its values as given, of which there must be one.

    Raises:
        UsageError: it cannot be found or called, lacks an argument, does not take one, or an argument has no clear
            value.
    """
    where = f"{label}={name}"
    call = dotted.find("optimizers", name, LIKE)
    function = dotted.load("optimizers", name)
    own = dotted.needed(function)
    if own is not None:
        if lacking := [each for each in own[1:] if each != "lr" and each not in texts]:
            example = " ".join(f"{label}.{each}=VALUE" for each in lacking)
            raise UsageError(f"{where} needs {', '.join(lacking)}; give {example}")
        if not dotted.takes(function, "lr"):
            raise UsageError(f"{where} takes no learning rate lr; expected {LIKE}")
    for key in texts:
        if not dotted.takes(function, key):
            known = ", ".join(dotted.arguments(function, skip=1))
            raise UsageError(f"{label}.{key} has no effect: {name} takes no {key}; expected one of {known}")
    return Custom(
        call=call, arguments={key: _argument(f"{label}.{key}", function, each) for key, each in texts.items()}
    )


def takes_names(optimizer: Any) -> bool:
    """Return whether an optimizer of a user's own is a function of `named_parameters` (`muonlab.train.optimizers`)."""
    if not isinstance(optimizer, Custom):
        return False
    return dotted.arguments(dotted.load("optimizers", optimizer.call.name))[:1] == ["named_parameters"]


def _argument(key: str, function: Any, texts: Sequence[str]) -> Any:
    """Return the value of one argument; a list has brackets, for commas alone part the points of a sweep.

    Raises:
        UsageError: several values, or one number for what the function has several of.
    """
    found = [value(key, text) for text in texts]
    takes_list = isinstance(dotted.default(function, key.rpartition(".")[2]), list | tuple)
    if len(found) == 1 and isinstance(found[0], list) >= takes_list:
        return found[0]
    given = ",".join(texts)
    if len(found) > 1:
        raise UsageError(f"{key}={given} is {len(found)} values; expected one; a list has brackets, {key}=[{given}]")
    raise UsageError(f"{key}={given} is not valid; expected a list in brackets, such as {key}=[0.9,0.99]")


def value(key: str, text: str) -> Any:
    """Return what a text means as an argument: a number, true, false, none, a text, or in brackets a list of them.

    Raises:
        UsageError: a bracket without its other half.

    Examples:
        >>> value("betas", "[0.9,0.99]"), value("amsgrad", "true"), value("eps", "1e-8")
        ([0.9, 0.99], True, 1e-08)
    """
    if text.startswith("[") != text.endswith("]"):
        raise UsageError(f"{key}={text} is not valid; expected a value, or a list in brackets, {key}=[0.9,0.99]")
    return [_plain(each.strip()) for each in text[1:-1].split(",")] if text.startswith("[") else _plain(text)


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

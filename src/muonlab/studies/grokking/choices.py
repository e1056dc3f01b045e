"""Tasks, nets and optimizers as a user chooses them, built in or own, with the settings that each has."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from muonlab.studies.grokking.config import CellConfig, MLPConfig, Net, NetConfig, OwnNet, TaskConfig
from muonlab.study import dotted, optimizers
from muonlab.study.optimizers import RATED as OPTIMIZERS
from muonlab.study.optimizers import RatedCustom
from muonlab.study.settings import Settings, UsageError, check_keys, check_name, fields, label_of, make

NETS: dict[str, type[BaseModel]] = {"transformer": NetConfig, "mlp": MLPConfig}
TASK_FIELDS = fields(TaskConfig, "name", "call")
SIZES = ("modulus", "bits", "operator_token")  # of a built-in task; one of a user's own has those that it takes
NET_FIELDS = tuple(dict.fromkeys(name for model in NETS.values() for name in fields(model, "kind")))
OWN_NET = "net."  # before the arguments of a net of a user's own
OWN_SHARE = 0.5  # of the rows of a task of a user's own


def _name(text: str) -> str:
    return text.rpartition("=")[2]


# -- tasks -----------------------------------------------------------------------------------------


def keys_of_task(text: str) -> list[str]:
    """Return the settings that a task has."""
    if dotted.is_dotted(text):
        foreign = {*SIZES} - {*dotted.arguments(dotted.load("tasks", _name(text)))}
    else:
        foreign = {"modulus", "operator_token", "pairs_together"} if text == "parity" else {"bits"}
    return [name for name in TASK_FIELDS if name not in foreign]


def task_of(text: str, values: Mapping[str, str]) -> TaskConfig:
    """Return the config of a task.

    Raises:
        UsageError: an unknown task, one of a user's own that cannot be found, or values that do not fit.
    """
    from muonlab.data import algorithmic  # imports torch, and this room must not where it only reads

    if dotted.is_dotted(text):
        call = dotted.find("tasks", _name(text), "a function that returns inputs and labels")
        return make(TaskConfig, {"name": label_of(text), "train_share": OWN_SHARE, **values, "call": call})
    check_name("task", text, algorithmic.TASKS, f"or one of your own, {dotted.FORM}")
    config = make(TaskConfig, {"name": text, "train_share": algorithmic.TRAIN_SHARES[text], **values})
    try:
        algorithmic.check(text, config.modulus, config.bits)
        algorithmic.num_train(config.train_share, algorithmic.num_rows(text, config.modulus, config.bits))
    except ValueError as error:
        raise UsageError(str(error)) from None
    return config


# -- nets ------------------------------------------------------------------------------------------


def keys_of_net(text: str, settings: Mapping[str, Any]) -> list[str]:
    """Return the settings that a net has; of a user's own the arguments that are given."""
    if dotted.is_dotted(text):
        return [key for key in settings if key.startswith(OWN_NET)]
    check_name("net", text, NETS, f"or one of your own, {dotted.FORM}")
    return list(fields(NETS[text], "kind"))


def net_of(text: str, values: Mapping[str, str]) -> Net:
    """Return the config of a net.

    Raises:
        UsageError: a net of a user's own that cannot be found or does not take an argument, or values that do not fit.
    """
    if not dotted.is_dotted(text):
        return make(NETS[text], {"kind": text, **values})  # type: ignore[return-value]
    call = dotted.find("net", text, "a function of vocabulary, tokens and classes that returns a torch.nn.Module")
    function = dotted.load("net", text)
    arguments = {key.removeprefix(OWN_NET): optimizers.value(key, value) for key, value in values.items()}
    for key in arguments:
        if not dotted.takes(function, key):
            raise UsageError(f"{OWN_NET}{key} has no effect: net={text} takes no {key}; leave it out")
    return OwnNet(kind="own", call=call, arguments=arguments)


# -- optimizers ------------------------------------------------------------------------------------


def labels_of(settings: Settings, given: Settings) -> dict[str, str]:
    """Return label -> name of the optimizers.

    Raises:
        UsageError: an unknown optimizer, a label given twice, or a setting that a labelled optimizer does not have.
    """
    found = optimizers.labelled(settings["optimizers"], OPTIMIZERS, taken=("net",))
    for label, name in found.items():
        if not dotted.is_dotted(name):
            own = {key: [] for key in given if key.startswith(f"{label}.")}
            check_keys(own, keys_of_optimizer(label, name, {}))
    return found


def settings_of_labels(settings: Settings, labels: Mapping[str, str]) -> Settings:
    """Return the settings, with those of a built-in optimizer for every label of it that has none of its own."""
    inherited = {
        f"{label}.{key.partition('.')[2]}": values
        for label, name in labels.items()
        for key, values in settings.items()
        if key.startswith(f"{name}.")
    }
    return inherited | settings


def keys_of_optimizer(label: str, name: str, settings: Mapping[str, Any]) -> list[str]:
    """Return the settings that a labelled optimizer has; of a user's own those that are given."""
    if dotted.is_dotted(name):
        return [key for key in settings if key.startswith(f"{label}.")]
    return [f"{label}.{field}" for field in fields(OPTIMIZERS[name], "name")]


def optimizer_of(label: str, name: str, values: Mapping[str, str]) -> Any:
    """Return the config of a labelled optimizer.

    Raises:
        UsageError: values that do not fit; one of a user's own that cannot be called so.
    """
    own = {key.removeprefix(f"{label}."): value for key, value in values.items()}
    if not dotted.is_dotted(name):
        return make(OPTIMIZERS[name], own, f"{label}.")
    lr = own.pop("lr", None) or _default_rate(label, name)
    found = optimizers.custom(label, name, {key: [value] for key, value in own.items()})
    return make(RatedCustom, {"call": found.call, "arguments": found.arguments, "lr": lr}, f"{label}.")


def _default_rate(label: str, name: str) -> float:
    """Return the learning rate that an optimizer of a user's own has where none is given."""
    default = dotted.default(dotted.load("optimizers", name), "lr")
    if isinstance(default, (int, float)) and default > 0:
        return float(default)
    raise UsageError(f"{label}={name} has no learning rate; give {label}.lr=1e-3, or several to compare them")


def check_differ(cells: Sequence[CellConfig]) -> None:
    """Raise UsageError where two labels stand for one optimizer with the same settings."""
    arms: dict[str, dict[str, None]] = {}
    for cell in cells:
        arms.setdefault(cell.arm, {})[repr(cell.optimizer)] = None
    optimizers.check_differ({label: (tuple(own), ()) for label, own in arms.items()})


# -- settings without effect -----------------------------------------------------------------------

# field -> the field that switches it off, and the value with which it does.
SWITCHES: dict[str, tuple[str, Any]] = {
    "steps": ("orthogonalize", False),
    "polar_dtype": ("orthogonalize", False),
    "filter_alpha": ("filter_lamb", 0.0),
    **{f"adamw_{field}": ("takes", "all") for field in optimizers.OF_OTHERS},
}


def idle(key: str, cell: CellConfig) -> str | None:
    """Return with what a setting has no effect on a cell; empty where it has one, None for another optimizer's."""
    owner, dot, field = key.rpartition(".")
    if dot and owner != OWN_NET[:-1]:
        if owner not in (cell.arm, cell.optimizer.name):
            return None
        switch, off = SWITCHES.get(field, ("", None))
        is_off = bool(switch) and getattr(cell.optimizer, switch, None) == off
        return f"{owner}.{switch}={str(off).lower().removesuffix('.0')}" if is_off else ""
    if key in TASK_FIELDS:
        task = cell.task
        own = keys_of_task(f"{task.name}={task.call.name}" if task.call else task.name)
        return "" if key in own else f"tasks={task.name}"
    net = cell.net
    if dot or key in NET_FIELDS:
        has = isinstance(net, OwnNet) if dot else key in type(net).model_fields and not isinstance(net, OwnNet)
        if has and key == "rope_base" and isinstance(net, NetConfig) and net.positions != "rope":
            return f"positions={net.positions}"
        return "" if has else f"net={net.call.name if isinstance(net, OwnNet) else net.kind}"
    return ""


def without_effect(given: Settings, cells: Sequence[CellConfig]) -> list[str]:
    """Return a note for each setting that is given and has no effect on a part of the cells.

    Raises:
        UsageError: it has no effect on any cell.
    """
    notes = []
    for key in given:
        found = {each: None for cell in cells if (each := idle(key, cell)) is not None}
        if "" not in found:
            chosen = " or ".join(found) or f"optimizers={','.join(dict.fromkeys(cell.arm for cell in cells))}"
            raise UsageError(f"{key} has no effect with {chosen}; leave it out, or add what it is for")
        if len(found) > 1:
            notes.append(f"{key} has no effect with {' or '.join(each for each in found if each)}")
    return notes

"""Tasks, nets and optimizers as a user chooses them, built in or own, with the settings that each has."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from muonlab.studies.grokking.config import (
    MLPConfig,
    Net,
    NetConfig,
    OwnNet,
    ProtocolConfig,
    TaskConfig,
)
from muonlab.study import dotted, optimizers
from muonlab.study.optimizers import RATED as OPTIMIZERS
from muonlab.study.optimizers import RatedCustom
from muonlab.study.settings import Settings, UsageError, check_keys, check_name, fields, label_of, make

NETS: dict[str, type[BaseModel]] = {"transformer": NetConfig, "mlp": MLPConfig}
TASK_FIELDS = fields(TaskConfig, "name", "call")
SIZES = ("modulus", "bits", "operator_token")  # of a built-in task; one of a user's own has those that it takes
NET_FIELDS = tuple(dict.fromkeys(name for model in NETS.values() for name in fields(model, "kind")))
PROTOCOL_FIELDS = fields(ProtocolConfig)
OWN_NET = "net."  # before the arguments of a net of a user's own
OWN_SHARE = 0.5  # of the rows of a task of a user's own


# -- tasks -----------------------------------------------------------------------------------------


def keys_of_task(text: str) -> list[str]:
    """Return the settings that a task has."""
    if dotted.is_dotted(text):
        call = dotted.load("tasks", _name(text))
        foreign = {name for name in SIZES if name not in dotted.arguments(call)}
    else:
        foreign = {"modulus", "operator_token", "pairs_together"} if text == "parity" else {"bits"}
    return [name for name in TASK_FIELDS if name not in foreign]


def task_of(text: str, values: Mapping[str, str]) -> TaskConfig:
    """Return the config of a task.

    Raises:
        UsageError: an unknown task, one of a user's own that cannot be found, or values that do not fit.
    """
    from muonlab.data import algorithmic

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


def keys_of_net(text: str, settings: Settings) -> list[str]:
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
    arguments = {key.removeprefix(OWN_NET): optimizers.value([value]) for key, value in values.items()}
    for key in arguments:
        if not dotted.takes(dotted.load("net", text), key):
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
            check_keys(own, [f"{label}.{field}" for field in fields(OPTIMIZERS[name], "name")])
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


def keys_of_optimizer(label: str, name: str, settings: Settings) -> list[str]:
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
    found = optimizers.custom(label, name, {key: optimizers.value([value]) for key, value in own.items()})
    return make(RatedCustom, {"call": found.call, "arguments": found.arguments, "lr": lr}, f"{label}.")


def _default_rate(label: str, name: str) -> float:
    """Return the learning rate that an optimizer of a user's own has where none is given."""
    call = dotted.load("optimizers", name)
    try:
        default = inspect.signature(call).parameters["lr"].default
    except (TypeError, ValueError, KeyError):
        default = None
    if isinstance(default, (int, float)) and default > 0:
        return float(default)
    raise UsageError(f"{label}={name} has no learning rate; give {label}.lr=1e-3, or several to compare them")


def check_differ(cells: Sequence[Any]) -> None:
    """Raise UsageError where two labels stand for one optimizer with the same settings."""
    arms: dict[str, list[Any]] = {}
    for cell in cells:
        arms.setdefault(cell.arm, []).append(cell.optimizer)
    optimizers.check_differ({label: (tuple(dict.fromkeys(map(repr, own))), ()) for label, own in arms.items()})


def _name(text: str) -> str:
    return text.rpartition("=")[2]

"""What a cell trains on and with: task, net and optimizer, built in or a user's own."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from muonlab.data import algorithmic
from muonlab.nets import named
from muonlab.optim.routing import TAKES, roles
from muonlab.rules import adamw, muon, sgd
from muonlab.rules.wrapped import Coupled, Filtered
from muonlab.studies.grokking.config import (
    CellConfig,
    MLPConfig,
    NetConfig,
    OwnNet,
    values_of,
)
from muonlab.studies.work import own_nets
from muonlab.study.optimizers import OF_OTHERS, RatedAdamW, RatedCustom, RatedSGD
from muonlab.train import optimizers
from muonlab.train.by_rule import Treatment
from muonlab.train.instances import OptimizerFactory
from muonlab.train.modules import Net

# -- task ----------------------------------------------------------------------------------------------


def build_task(config: CellConfig) -> algorithmic.Task:
    """Return the cell's task with its true labels.

    Raises:
        ValueError: a task of a user's own that is not one.
    """
    sizes = config.task.model_dump(include={"modulus", "bits", "operator_token"})
    if config.task.call is None:
        return algorithmic.build(config.task.name, **sizes)
    name = config.task.call.name
    try:
        made = named.build(config.task.call.load("tasks"), sizes)
    except Exception as error:  # a user's function may raise anything
        raise ValueError(f"tasks={name} failed: {type(error).__name__}: {error}") from error
    return as_task(made, config.task.name, name)


def as_task(made: Any, name: str, place: str) -> algorithmic.Task:
    """Return what a user's function made as a task: it is like one, or a pair of inputs and labels.

    Raises:
        ValueError: something else; the message names the place.
    """
    is_pair = isinstance(made, (tuple, list)) and len(made) == 2
    inputs, labels = made if is_pair else (getattr(made, each, None) for each in ("inputs", "labels"))
    if not isinstance(inputs, Tensor) or not isinstance(labels, Tensor):
        raise ValueError(
            f"tasks={place} returned a {type(made).__name__}; expected tensors (inputs, labels), or an object with "
            "inputs and labels"
        )
    if inputs.ndim < 2 or labels.shape != inputs.shape[:1] or len(labels) < 2:
        raise ValueError(
            f"tasks={place} has inputs of shape {tuple(inputs.shape)} and labels of {tuple(labels.shape)}; expected "
            "(rows, tokens) and (rows,), with at least two rows"
        )
    for what, tensor in (("labels", labels), *(() if inputs.is_floating_point() else (("tokens", inputs),))):
        if tensor.is_floating_point() or tensor.min() < 0:
            raise ValueError(f"tasks={place} has {what} that are no whole numbers from 0; expected class indices")
    vocabulary = 0 if inputs.is_floating_point() else int(inputs.max()) + 1
    classes, counts = int(labels.max()) + 1, labels.long().bincount()
    return algorithmic.Task(
        name,
        inputs if inputs.is_floating_point() else inputs.long(),
        labels.long(),
        getattr(made, "pairs", torch.arange(len(labels))),
        max(vocabulary, getattr(made, "vocabulary", 0)),
        max(classes, getattr(made, "classes", 0)),
        getattr(made, "chance", counts.max().item() / len(labels)),
    )


# -- net -----------------------------------------------------------------------------------------------


def sizes_of(task: algorithmic.Task) -> dict[str, int]:
    """Return what a net must fit: classes and tokens, and the vocabulary, or the numbers of an input without one."""
    if task.inputs.is_floating_point():
        return {"inputs": task.inputs[0].numel(), "classes": task.classes}
    return {**task.sizes, "tokens": task.inputs.shape[1]}


def build_net(config: CellConfig, task: algorithmic.Task, device: str = "cpu") -> nn.Module:
    """Return the cell's net, its weights not yet drawn: a constructor would draw them from torch's global generator."""
    with torch.device("meta"):
        net = _build(config.net, sizes_of(task))
    return net.to_empty(device=device)


def builder(config: CellConfig, task: algorithmic.Task) -> Net:
    """Return a net as the engines take it: a module of muonlab, or the function that builds a user's own."""
    if not isinstance(config.net, OwnNet):
        return build_net(config, task)
    net, sizes = config.net, sizes_of(task)
    return lambda: _build(net, sizes)


def _build(net: NetConfig | MLPConfig | OwnNet, sizes: Mapping[str, int]) -> nn.Module:
    if isinstance(net, OwnNet):
        return own_nets.build(net.call, sizes, net.arguments)
    fields = values_of(net)
    kind = fields.pop("kind")
    if "vocabulary" not in sizes:
        raise ValueError(f"net={kind} reads tokens, and the task's inputs are no whole numbers; give a net of your own")
    given = {key: sizes[key] for key in ("vocabulary", "classes")}
    if kind == "mlp":
        given["inputs"] = sizes["tokens"]
    else:
        fields["context"] = sizes["tokens"] if fields["positions"] == "learned" else None
    return named.build(kind, given, **fields)


# -- optimizer -----------------------------------------------------------------------------------------


def optimizer_of(net: nn.Module, config: CellConfig, num_members: int) -> dict[str, Treatment] | list[OptimizerFactory]:
    """Return the members' optimizer as the engines take it."""
    own = config.optimizer
    if isinstance(own, RatedCustom):
        return optimizers.factories(own.call.load("optimizers"), [own.lr] * num_members, own.arguments)
    return treatments(net, config)


def treatments(net: nn.Module, config: CellConfig) -> dict[str, Treatment]:
    """Return parameter name -> rule and hyper-parameters, one treatment for all that share them."""
    fields = values_of(config.optimizer)
    by_role = {role: fields.pop(f"{role}_lr") for role in ("head", "embedding")}
    alpha, lamb = fields.pop("filter_alpha"), fields.pop("filter_lamb")
    rule, takes, hyper = _rule(config, fields)
    others = {key: fields[f"adamw_{key}"] for key in OF_OTHERS if f"adamw_{key}" in fields}
    if lamb:
        rule, other = Filtered(rule, alpha, lamb), Filtered(adamw, alpha, lamb)
    else:
        other = adamw
    found: dict[tuple[bool, float | None], Treatment] = {}

    def treated(role: str) -> Treatment:
        is_taken, lr = takes == "all" or role in TAKES[takes], by_role.get(role)
        if (is_taken, lr) not in found:
            own = hyper if is_taken else others
            found[is_taken, lr] = Treatment(rule if is_taken else other, own if lr is None else {**own, "lr": lr})
        return found[is_taken, lr]

    return {name: treated(role) for name, role in roles(net).items()}


def _rule(config: CellConfig, fields: Mapping[str, Any]) -> tuple[Any, str, dict[str, Any]]:
    """Return the rule, the parameters that it takes, and its hyper-parameters."""
    own = {key: value for key, value in fields.items() if not key.startswith("adamw_") and key != "name"}
    if isinstance(config.optimizer, RatedAdamW):
        return (Coupled(adamw) if own.pop("coupled") else adamw), "all", own
    takes = own.pop("takes")
    if isinstance(config.optimizer, RatedSGD):
        return sgd, takes, own
    polar_dtype = own.pop("polar_dtype")
    own["adjust_lr_fn"] = "original" if own.pop("scale") else "none"
    own["is_orthogonal"] = own.pop("orthogonalize")
    own["polar_dtype"] = None if polar_dtype == "same" else getattr(torch, polar_dtype)
    return muon, takes, own

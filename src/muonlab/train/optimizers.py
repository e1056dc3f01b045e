"""Optimizers of members: rules by name with their hyper-parameters, and any class or function of torch's protocol."""

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from muonlab.optim.routing import TAKES, roles
from muonlab.rules import adamw, muon, parts, sgd
from muonlab.rules.wrapped import DECAYS, Ahead, Coupled
from muonlab.train.by_rule import Treatment
from muonlab.train.instances import Instances, OptimizerFactory, is_optimizer, views

RULES = {"adamw": adamw, "muon": muon, "sgd": sgd}


def treatments(
    net: nn.Module,
    name: str,
    hyper: Mapping[str, Any],
    *,
    others: Mapping[str, Any] | None = None,
    takes: str = "hidden",
    stems: Collection[str] = (),
    flatten: bool = False,
) -> dict[str, Treatment]:
    """Return parameter name -> rule and hyper-parameters.

    Args:
        net: whose parameters they are.
        name: one of `RULES`.
        hyper: of the rule; a value may be a float64 tensor (S,), one number per member.
        others: hyper-parameters of AdamW, which updates what Muon does not take; of Muon alone.
        takes: the matrices that Muon takes, one of `muonlab.optim.routing.TAKES`.
        stems: names of modules that read the input, which are not hidden (Jordan et al. 2024).
        flatten: as of `Treatment`, of Muon.
    """
    if name != "muon":
        one = Treatment(RULES[name], hyper)
        return {parameter: one for parameter, _ in net.named_parameters()}
    around = {key: hyper[key] for key in AROUND if key in hyper}
    own = {key: value for key, value in hyper.items() if key not in AROUND}
    by_muon = _around(Treatment(muon, own, flatten=flatten), **around)
    by_adamw = _around(Treatment(adamw, others or {}), **around)
    return {
        parameter: by_muon if role in TAKES[takes] and parameter.split(".")[0] not in stems else by_adamw
        for parameter, role in roles(net).items()
    }


AROUND = ("decay", "lookahead")  # of rules around both Muon and AdamW


def _around(treatment: Treatment, decay: str = "decoupled", lookahead: float = 0.0) -> Treatment:
    """Return a treatment with rules around its rule."""
    rule, hyper = treatment.rule, treatment.hyper
    if (wrap := DECAYS[decay]) is not None:
        rule = wrap(rule)
    if lookahead:
        rule, hyper = Ahead(rule), {**hyper, "lookahead": lookahead}
    return replace(treatment, rule=rule, hyper=hyper)


OF_MUON = ("momentum", "nesterov", "steps", "variant", "adjust_lr_fn", *parts.OFF, *AROUND)
AUXILIARY = "adamw_factor"  # learning rate of AdamW for what Muon does not take, divided by Muon's


def of_config(
    net: nn.Module,
    optimizer: Any,
    points: Sequence[Mapping[str, float]],
    *,
    stems: Collection[str] = (),
) -> dict[str, Treatment] | list[OptimizerFactory]:
    """Return the optimizer of members that differ in some of its settings, as the engines take it.

    Steps of Muon are scaled to the root mean square of AdamW's (arXiv 2502.16982), which updates what Muon does not
    take: so one learning rate serves both. A config with `adjust_lr_fn` says another scale, one with `adamw_lr` another
    rate for what Muon does not take.

    Args:
        net: whose parameters they are.
        optimizer: a config of `muonlab.study.optimizers`: of a rule, or of an optimizer of a user's own.
        points: settings of each member, such as {"lr": 0.1}.
        stems: as of `treatments`.
    """
    if optimizer.name == "custom":
        make = optimizer.call.load("optimizers")
        return [_factory(make, {**optimizer.arguments, **point}) for point in points]
    fields = {**optimizer.model_dump(exclude={"name"}), **_by_member(points)}
    factor, is_coupled = fields.pop(AUXILIARY, 1.0), fields.pop("coupled", False)
    hyper, others = fields, None
    if optimizer.name == "muon":
        others = {key: value for key, value in fields.items() if key not in OF_MUON}
        others["lr"] = others.pop("adamw_lr", others["lr"] * factor)
        hyper = {key: value for key, value in fields.items() if key in ("lr", "weight_decay", *OF_MUON)}
        hyper = {"adjust_lr_fn": "match_rms_adamw"} | hyper
    if is_coupled:  # which has no form in place
        return {name: Treatment(Coupled(RULES[optimizer.name]), hyper) for name, _ in net.named_parameters()}
    return treatments(net, optimizer.name, hyper, others=others, stems=stems, flatten=True)


def _by_member(points: Sequence[Mapping[str, float]]) -> dict[str, float | Tensor]:
    """Return the settings of all members: a number where they agree, which takes the faster step, else (S,)."""
    found = {key: [point[key] for point in points] for key in points[0]}
    return {key: own[0] if len(set(own)) == 1 else by_member(own) for key, own in found.items()}


def by_member(values: Sequence[float], device: str | torch.device = "cpu") -> Tensor:
    """Return a number of every member as a hyper-parameter, (S,)."""
    return torch.tensor(list(values), dtype=torch.float64, device=device)


# -- optimizers of a user's own --------------------------------------------------------------------

Call = Callable[..., Any]  # (parameters, lr=, **arguments) -> an optimizer
TRIAL_RATE, TRIAL_STEPS = 1e-4, 2


def factories(
    make: Callable[..., Optimizer], rates: Sequence[float], hyper: Mapping[str, Any] | None = None
) -> list[OptimizerFactory]:
    """Return a factory per member of any torch optimizer, which trains all parameters of its member.

    It is made by a class such as torch.optim.RAdam, or a function, of parameters, lr and other keywords (hyper).

    Examples:
        >>> build = factories(torch.optim.RAdam, (0.1, 0.2), {"weight_decay": 0.5})[1]
        >>> optimizer = build(list(nn.Linear(3, 2).named_parameters()))
        >>> optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["weight_decay"]
        (0.2, 0.5)
    """
    return [_factory(make, {"lr": rate, **(hyper or {})}) for rate in rates]


NAMED = "named_parameters"  # a first argument of this name is given pairs of name and parameter


def _factory(make: Callable[..., Optimizer], keywords: Mapping[str, Any]) -> OptimizerFactory:
    if _first_argument(make) == NAMED:
        return lambda named: make(named, **keywords)
    return lambda named: make([p for _, p in named], **keywords)


def _first_argument(make: Callable[..., Any]) -> str | None:
    try:
        return next(iter(inspect.signature(make).parameters), None)
    except (TypeError, ValueError):  # builtins without a signature
        return None


def check(call: Call, arguments: Mapping[str, Any], net: nn.Module, name: str) -> None:
    """Raise ValueError where an optimizer of that name cannot train a net; two random steps are tried, which change it.

    The arguments of the call are further to the parameters and the learning rate.
    """
    parameters = {key: p for key, p in net.named_parameters() if p.requires_grad}
    make = _factory(call, {"lr": TRIAL_RATE, **arguments})
    try:
        made: Any = make(list(net.named_parameters()))
    except Exception as error:  # a user's function may raise anything
        line = next(iter(str(error).splitlines()), "")
        raise ValueError(
            f"{name} cannot be made for this net ({type(error).__name__}: {line}); expected a class or function of "
            "torch's protocol that takes every parameter of the net and lr="
        ) from error
    if not all(map(is_optimizer, made if isinstance(made, list | tuple) and made else [made])):
        raise ValueError(
            f"{name} is not an optimizer: it made a {type(made).__name__}; expected torch's protocol, with step(), "
            "zero_grad(), param_groups, state, state_dict() and load_state_dict()"
        )
    try:
        instances = Instances([parameters], lambda named: made, seeds=(0,))
        for step in range(TRIAL_STEPS):
            _step(instances, parameters, step)
        # What a killed run goes on with: the same parameters, and an optimizer that has taken its state back.
        copies = {key: nn.Parameter(p.detach().clone()) for key, p in parameters.items()}
        again = Instances([copies], make, seeds=(0,))
        again.load(instances.tensors())
        _step(instances, parameters, TRIAL_STEPS)
        _step(again, copies, TRIAL_STEPS)
    except Exception as error:
        raise ValueError(f"{name} cannot train this net: {error or type(error).__name__}") from error
    if other := [key for key, p in parameters.items() if not torch.allclose(p, copies[key], equal_nan=True)]:
        raise ValueError(
            f"{name} keeps what its steps depend on outside of its state_dict() ({other[0]} differs after a restart), "
            "so a killed run could not go on; expected all of it in state or param_groups"
        )


def _step(instances: Instances, parameters: Mapping[str, nn.Parameter], step: int, member: int = 0) -> None:
    for p, gradient in zip(parameters.values(), _gradients(parameters, step), strict=True):
        p.grad = gradient
    instances.step(member, step)


def obstacle(members: Sequence[Mapping[str, Tensor]], factory: OptimizerFactory) -> str | None:
    """Return why optimizers cannot step parameters that are views into a stack, or None where they can.

    An optimizer that copies its parameters together when it is made, for instance, would step the copy. The members
    are two or more, with their parameters by name.
    """
    alone = [{name: nn.Parameter(p.clone()) for name, p in member.items()} for member in members]
    stacks = {name: torch.stack([member[name] for member in members]) for name in members[0]}
    seeds = range(len(members))
    by_one, by_stack = Instances(alone, factory, seeds), Instances(views(stacks), factory, seeds)
    for step in range(TRIAL_STEPS):
        for member, own in enumerate(alone):
            _step(by_one, own, step, member)
        gradients = zip(stacks, _gradients(alone[0], step), strict=True)
        by_stack.step_stacked(stacks, {name: torch.stack([each] * len(alone)) for name, each in gradients}, step)
    for member, own in enumerate(alone):
        for name, p in own.items():
            if not torch.allclose(p, stacks[name][member], rtol=1e-4, atol=1e-6, equal_nan=True):
                return f"the optimizer does not step parameters that are views into a stack ({name} differs)"
    return None


def _gradients(parameters: Mapping[str, Tensor], step: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(step)
    return [torch.randn(p.shape, generator=generator).to(p) for p in parameters.values()]

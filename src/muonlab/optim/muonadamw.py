"""MuonAdamW: one optimizer for a whole model, Muon for its hidden matrices and AdamW for all else."""

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from muonlab.optim import arguments, muon_step
from muonlab.optim.around import decoupled_decay
from muonlab.optim.attention import Heads
from muonlab.optim.layout import Splits, Splitter
from muonlab.optim.plan import Overrides, Plan
from muonlab.optim.qk_clip import QKClip
from muonlab.optim.sharding import is_dtensor
from muonlab.optim.shell import Item, Shell
from muonlab.optim.split import Rule, Rules, Split, split_params
from muonlab.rules import adamw
from muonlab.rules.muon import AdjustLR
from muonlab.rules.operands import Workspace
from muonlab.rules.wrapped import AHEAD


class MuonAdamW(Shell):
    """Muon for the hidden matrices of a model and AdamW for all else, as one optimizer under one scheduler.

    There is a group for each: `param_groups[0]` has rule "muon" and `lr`, `param_groups[1]` has rule "adamw" and
    `adamw_lr` as its lr, and a scheduler multiplies both. What goes where: `print(split_params(model))`. A model's
    parameters that are frozen join their group once they require grad, or are given to `add_param_group`, with or
    without a rule.

    All arguments that are not described below are those of `Muon`; of them nonfinite, decay, lookahead,
    lookahead_decay, rounding, state_dtype and capturable hold for both halves.

    Args:
        params: a model; its named parameters; what `split_params` returned; or groups, dicts with "params" (which may
            be routes of `split_params`) and "rule", "muon" or "adamw", and whatever differs from the arguments; or
            parameters without names, all of which go to `rule`.
        lr: step size of Muon, a number or a tensor of one.
        adamw_lr: step size of AdamW; a tuned one is better than the default (records/defaults).
        weight_decay: decoupled decay of Muon's parameters.
        adamw_weight_decay: decoupled decay of AdamW's parameters.
        momentum: of Muon, in [0, 1).
        betas: of AdamW, each in [0, 1).
        adamw_eps: added to AdamW's denominator.
        rules: what overrides where a parameter goes by default: pattern -> "muon" or "adamw" (`split_params`).
        split: as of Muon; it overrides what is known of a module, such as the three parts of nn.MultiheadAttention.
        heads: "auto" orthogonalizes query, key and value head by head, or pattern -> number of heads (`split_params`).
        overrides: what differs for some parameters of a model, in groups of their own: pattern, or a reason that
            `split_params` shows, -> options, as in {"vector": {"weight_decay": 0.0}}; or a function from a route to
            options or None.
        model: of which groups without a rule have parameters; they then go where those of the model go.
        rule: of groups that have none and whose parameters are not those of `model`, and of parameters without names.
        qk_clip: the largest attention logit that a head may have (MuonClip; `QKClip`); None: no clip. Needs the model.

    Raises:
        ValueError: an argument out of range, parameters without names, or what `split_params` and Muon raise.

    Warns:
        UserWarning: no output head was recognized, and one of Muon's matrices may be it; or Muon has nothing at all.
            Any `rules`, {} too, end it.

    Examples:
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> optimizer = MuonAdamW(model, lr=0.02, adamw_lr=0.005)
        >>> [(group["rule"], group["lr"]) for group in optimizer.param_groups]
        [('muon', 0.02), ('adamw', 0.005)]

    References:
        As of Muon; AdamW: Loshchilov & Hutter 2019, arXiv 1711.05101, by torch.optim's own code.
    """

    _own = ("_splits", "_adamw", "_plan")
    _plan: Plan
    qk_clip: QKClip | None = None  # not in copies and pickles, as hooks are not

    def __init__(
        self,
        params: nn.Module | Split | Iterable[Any],
        lr: float | Tensor = 0.02,
        adamw_lr: float | Tensor = 3e-3,
        weight_decay: float | Tensor = 0.01,
        adamw_weight_decay: float | Tensor = 0.01,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.999),
        *,
        adamw_eps: float = 1e-8,
        rules: Rules | None = None,
        split: Splits | None = None,
        heads: Heads = None,
        overrides: Overrides = None,
        model: nn.Module | None = None,
        rule: Rule | None = None,
        qk_clip: float | None = None,
        nesterov: bool = True,
        ns_coefficients: tuple[float, float, float] | None = None,
        eps: float = 1e-7,
        ns_steps: int | None = None,
        adjust_lr_fn: AdjustLR | None = None,
        method: str = "auto",
        ns_dtype: torch.dtype | None = None,
        cautious: bool = False,
        nonfinite: str = "raise",
        variant: str | None = None,
        beta2: float = 0.95,
        equilibrate: str | None = None,
        renormalize: str | None = None,
        update_floor: float = 0.0,
        hyperball: bool = False,
        decay: str = "decoupled",
        lookahead: float = 0.0,
        lookahead_decay: float = AHEAD,
        rounding: str = "stochastic",
        state_dtype: torch.dtype | str | None = None,
        process_group: Any = None,
        capturable: bool = False,
    ):
        given = arguments.plain({name: value for name, value in locals().items() if name in arguments.NAMES})
        self.process_group = process_group
        self._splits = Splitter(split)
        self._adamw = arguments.plain({"lr": adamw_lr, "weight_decay": adamw_weight_decay, "eps": adamw_eps})
        arguments.check({"rule": "muon", **given})
        arguments.check({"rule": "adamw", **given, **self._adamw}, prefixed=self._adamw)
        if rule not in (None, "muon", "adamw"):
            raise ValueError(f"rule={rule!r} for groups without one; expected 'muon', 'adamw' or None")
        if isinstance(params, Iterator):  # model.parameters(), or a generator of groups
            params = list(params)
        whole = params if isinstance(params, nn.Module) else model
        if qk_clip is not None and (whole is None or capturable):
            raise ValueError(
                f"qk_clip={qk_clip!r} with capturable=True, whose graphs have no hooks; expected one of them"
                if capturable
                else f"qk_clip={qk_clip!r} without a model, whose attentions it watches; give the model, or model=model"
            )
        groups = _groups_given(params, rule)
        found = _split(params if groups is None else model, rules, heads)
        if groups is not None:
            _check_alone(
                rules=rules if model is None else None, heads=heads if model is None else None, overrides=overrides
            )
        elif found.hint:
            warnings.warn(f"MuonAdamW: {found.hint}", stacklevel=2)
        self._plan = Plan(found, overrides, rule)
        super().__init__(self._plan.groups() if groups is None else groups, given)
        self._splits.check_all_claimed()
        if qk_clip is not None and whole is not None:
            self.qk_clip = QKClip(whole, self, qk_clip, process_group=process_group)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, or two where it has no rule and parameters of the model that go to both, or nothing."""
        before, present = len(self.param_groups), {id(p) for group in self.param_groups for p in group["params"]}
        try:
            for group in self._plan.routed(dict(param_group), present):
                super().add_param_group(group)
        except BaseException:
            del self.param_groups[before:]
            raise
        self._plan.forget(p for group in self.param_groups[before:] for p in group["params"])

    def _adopt(self, names: Iterable[str] = ()) -> None:
        for route in self._plan.ready(names) if self._plan.later else ():
            if (group := self._plan.add(self.param_groups, route)) is not None:
                self.add_param_group(group)

    def _says_layout(self, name: str, parameter: Tensor) -> bool:
        return super()._says_layout(name, parameter) or self._plan.is_by_head(name)

    def _complete(self, group: dict[str, Any]) -> dict[str, Any]:
        if group.get("rule") == "adamw":
            return {**self._adamw, **group}
        if group.get("rule") != "muon":
            raise ValueError(f"rule={group.get('rule')!r} in a group of parameters; expected 'muon' or 'adamw'")
        momentum = group.setdefault("momentum", self.defaults["momentum"])
        betas = group.setdefault("betas", (momentum, self.defaults["betas"][1]))
        return {**group, "cycled": betas}

    def _widens_in_parts(self, group: dict[str, Any], item: Item) -> bool:
        return group["rule"] == "muon" and muon_step.in_parts(group, item, self.process_group)

    def _update(self, group: dict[str, Any], items: list[Item], workspace: Workspace) -> None:
        if group["rule"] == "muon":
            # OneCycleLR and CyclicLR turn betas[0] in every group; in Muon's it stands for the momentum.
            if group["betas"] != group["cycled"]:
                group["momentum"], group["cycled"] = group["betas"][0], group["betas"]
            muon_step.update(group, items, self.process_group, workspace)
        else:
            _update_adamw(group, items)


def _update_adamw(group: dict[str, Any], items: list[Item]) -> None:
    """Make the step of AdamW on the `work` of items, in place, on the state that torch.optim.AdamW has."""
    finite = items[0].finite
    moments = "exp_avg", "exp_avg_sq"
    for item in items:
        for name in moments:
            if name not in item.state:
                item.state[name] = item.zeros(group["state_dtype"])
        if "step" not in item.state:
            item.state["step"] = torch.zeros((), dtype=torch.float32, device=item.work.device)
        if not item.work.numel():  # a rank without a shard counts too, as a checkpoint takes the step from any rank
            item.state["step"] += 1 if finite is None else finite.to(item.work.device)
    items = [item for item in items if item.work.numel()]
    states = [
        {**item.state, **{name: item.local(name) for name in moments}} if is_dtensor(item.parameter) else item.state
        for item in items
    ]
    beta1, beta2 = group["betas"]
    adamw.update_(
        [item.grad for item in items],
        states,
        [item.work for item in items],
        **{name: group[name] for name in ("lr", "eps")},
        weight_decay=decoupled_decay(group),
        beta1=beta1,
        beta2=beta2,
        found_inf=None if finite is None else finite.logical_not().float(),
        capturable=group["capturable"] and all(item.work.device.type == "cuda" for item in items),
    )


def hf_factory(**arguments: Any) -> Callable[..., MuonAdamW]:
    """Return a function from a model to its MuonAdamW, for Trainer of Hugging Face's transformers.

    Args:
        arguments: of MuonAdamW; those that Trainer passes come before them.

    Examples:
        >>> factory = (hf_factory, {"lr": 0.02, "adamw_lr": 3e-3})
        >>> Trainer(model, args, optimizer_cls_and_kwargs=factory, ...)
    """
    return lambda model, **passed: MuonAdamW(model, **{**arguments, **passed})


def _groups_given(params: Any, rule: Rule | None) -> list[dict[str, Any]] | None:
    """Return groups, if that is what MuonAdamW was given, or a group of parameters without names for the rule."""
    if isinstance(params, nn.Module | Split | Mapping) or not isinstance(params, list | tuple):
        return None
    if rule is not None and any(isinstance(each, Tensor) for each in params):
        return [{"params": list(params)}]
    return list(params) if params and all(isinstance(each, dict) for each in params) else None


def _split(params: Any, rules: Rules | None, heads: Heads) -> Split:
    """Return where the parameters go of a model, or whatever else has names; nothing for None."""
    if params is None:
        return Split(())
    if isinstance(params, Tensor):
        raise TypeError(
            "params argument given to the optimizer should be an iterable of Tensors or dicts, but got one tensor; "
            "expected the model, model.named_parameters(), or groups with a rule"
        )
    if isinstance(params, Split):
        _check_alone("what split_params returned; give them to split_params", rules=rules, heads=heads)
        return params
    if not isinstance(params, nn.Module):
        params = list(params.items() if isinstance(params, Mapping) else params)
        if any(isinstance(each, Tensor) for each in params):
            raise ValueError(
                "MuonAdamW got parameters without names, so embeddings and heads cannot be told from hidden matrices; "
                "expected the model, model.named_parameters(), groups with a rule, or rule= for all of them"
            )
    return split_params(params, rules, heads=heads)


def _check_alone(
    what: str = "groups, which say all that; give the model or its named parameters", **given: Any
) -> None:
    for name, value in given.items():
        if value is not None:
            raise ValueError(f"{name} with {what}")

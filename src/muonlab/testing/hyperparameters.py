"""Checks of hyper-parameters and groups: read from the group again in each step, whoever wrote them there."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CyclicLR, LambdaLR, LRScheduler, OneCycleLR

from muonlab.testing.trial import (
    REFUSALS,
    NotApplicableError,
    Trial,
    advance,
    expect,
    expect_finite,
    expect_moved,
    expect_same,
    expect_still,
    named,
    record,
    same,
    scale_learning_rates,
    wide,
)


def learning_rate(trial: Trial) -> None:
    """A change of a group's lr takes effect in the next step: half of it moves about half as far, zero not at all."""
    distances = []
    first, second = trial.history(2)
    for factor in (1.0, 0.5, 0.0):
        optimizer, params = trial.build(history=[first])
        before = record(optimizer, params).values
        scale_learning_rates(optimizer, factor)
        advance(optimizer, params, [second])
        distances.append([float((wide(p) - wide(old)).norm()) for p, old in zip(params, before, strict=True)])
    for i, (p, whole, half, none) in enumerate(zip(trial.starts(), *distances, strict=True)):
        expect(none == 0, f"{named(i, p)} moved by {none:.2g} with lr 0")
        seen = f"{named(i, p)} moved by {whole:.3g}, and by {half:.3g} with half the lr"
        expect(0.3 * whole < half < 0.7 * whole, seen)


def weight_decay(trial: Trial) -> None:
    """A weight decay that is set in a group pulls its parameters towards zero in the next step."""
    starts, (first, second) = trial.starts(), trial.history(2)
    ends = []
    for share in (0.0, 0.5):
        optimizer, params = trial.build(starts, [first])
        if not any("weight_decay" in group for group in optimizer.param_groups):
            raise NotApplicableError("no group has the option weight_decay")
        for group in optimizer.param_groups:
            group["weight_decay"] = share / float(group["lr"])
        advance(optimizer, params, [second])
        ends.append([wide(p) for p in params])
    for i, (free, pulled) in enumerate(zip(*ends, strict=True)):
        pull = float(((pulled - free) * free.conj()).real.sum() / free.abs().square().sum())
        expect(pull < 0, f"a weight_decay of 0.5 / lr changed {named(i, starts[i])} by {pull:.2g} of its length")


def tensor_learning_rate(trial: Trial) -> None:
    """An lr that is a tensor acts like the number, live and left alone, or is refused before anything is changed."""
    starts, history = trial.starts(), trial.history(3)
    (optimizer, params), (twin, twins) = trial.build(starts), trial.build(starts)
    rates = [torch.tensor(float(group["lr"]), device=trial.device) for group in optimizer.param_groups]
    for group, other, rate in zip(optimizer.param_groups, twin.param_groups, rates, strict=True):
        group["lr"] = other["lr"] = float(rate)  # the number as float32 rounds it, so that both are one number
    advance(twin, twins, history)
    advance(optimizer, params, history[:1])  # with numbers still, so that there is state
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate.clone()
    before = record(optimizer, params)
    try:
        advance(optimizer, params, history[1:])
    except REFUSALS as error:
        words = str(error).lower()
        expect("tensor" in words or "lr" in words, f"the error does not speak of a tensor as lr: {error}")
        expect_same(before, record(optimizer, params), "after the refusal")
        return
    in_float32 = replace(trial, rtol=max(trial.rtol, 1e-6))  # what is computed with the tensor has its dtype
    in_float32.expect_all_close(params, twins, starts, "{} by a tensor and by a number as lr")
    for i, (group, rate) in enumerate(zip(optimizer.param_groups, rates, strict=True)):
        expect(same(group["lr"], rate), f"the steps changed the lr of group {i} from {rate!r} to {group['lr']!r}")
        group["lr"].zero_()
    values = record(optimizer, params).values
    advance(optimizer, params, history[:1])
    expect_still(params, values, "after its lr, a tensor, was set to zero in place")


def schedulers(trial: Trial) -> None:
    """Schedulers steer a step: LambdaLR the lr, OneCycleLR and CyclicLR `momentum` or `betas` as well."""
    history = trial.history(3)
    optimizer, params = trial.build()
    scheduler = LambdaLR(optimizer, lambda step: float(step != 1))  # lr, then 0, then lr
    for step, gradients in enumerate(history):
        before = record(optimizer, params).values
        advance(optimizer, params, [gradients])
        scheduler.step()
        if step == 1:
            expect_still(params, before, "while LambdaLR had set lr to 0")
        else:
            expect_moved(params, before, f"in step {step + 1} under LambdaLR")
    makers: tuple[Callable[[Optimizer, bool], LRScheduler], ...] = (_one_cycle, _cyclic)
    for make in makers:
        ends = []
        for has_momentum in (True, False):
            optimizer, params = trial.build()
            scheduler = make(optimizer, has_momentum)
            for gradients in history:
                advance(optimizer, params, [gradients])
                scheduler.step()
            expect_finite(params, f"under {type(scheduler).__name__}")
            ends.append([p.detach() for p in params])
        for i, (steered, constant) in enumerate(zip(*ends, strict=True)):
            seen = f"the momentum that {type(scheduler).__name__} sets makes no difference to {named(i, steered)}"
            expect(not same(steered, constant), seen)


def _one_cycle(optimizer: Optimizer, has_momentum: bool) -> LRScheduler:
    # The learning rate stays constant, so that only the momentum makes the difference.
    rates = [float(group["lr"]) for group in optimizer.param_groups]
    return OneCycleLR(
        optimizer, rates, total_steps=6, cycle_momentum=has_momentum, base_momentum=0.5, max_momentum=0.8,
        div_factor=1.0, final_div_factor=1.0,
    )  # fmt: skip


def _cyclic(optimizer: Optimizer, has_momentum: bool) -> LRScheduler:
    rates = [float(group["lr"]) for group in optimizer.param_groups]
    return CyclicLR(
        optimizer, rates, rates, step_size_up=2, cycle_momentum=has_momentum, base_momentum=0.5, max_momentum=0.8
    )


def groups_apart(trial: Trial) -> None:
    """Two groups act each by their own lr."""
    params = trial.parameters()
    still = len(params) // 2
    groups = [{"params": params[:still], "lr": 0.0}, {"params": params[still:]}]
    optimizer = trial.optimizer([{**trial.group_options, **group} for group in groups])
    before = record(optimizer, params).values
    advance(optimizer, params, trial.history(2))
    expect_still(params[:still], before[:still], "in a group of lr 0")
    expect_moved(params[still:], before[still:], "next to a group of lr 0", first=still)


def extra_keys(trial: Trial) -> None:
    """Keys of a group that the optimizer does not know are kept, and change nothing."""
    starts, history = trial.starts(), trial.history()
    params = trial.parameters(starts)
    keys = {"name": "body", "lr_scale": 0.5}
    optimizer = trial.optimizer([{**trial.group_options, "params": params, **keys}])
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]  # as every scheduler does
    advance(optimizer, params, history)
    for i, (p, expected) in enumerate(zip(params, trial.trained(starts, history), strict=True)):
        expect(same(p.detach(), expected), f"{named(i, p)} ends elsewhere than without the keys {sorted(keys)}")
    for i, group in enumerate(optimizer.state_dict()["param_groups"]):
        for key, value in keys.items():
            expect(group.get(key) == value, f"group {i} of the state_dict lost the key {key!r}")


def added_group(trial: Trial) -> None:
    """A group added after some steps is trained like a fresh one, and leaves the others on their way."""
    starts, history = trial.starts(), trial.history(3)
    params = trial.parameters(starts)
    optimizer = trial.optimizer(params[:-1])
    advance(optimizer, params[:-1], [history[0][:-1]])
    optimizer.add_param_group({**trial.group_options, "params": [params[-1]]})
    advance(optimizer, params, history[1:])
    others = trial.trained(starts[:-1], [gradients[:-1] for gradients in history])
    trial.expect_all_close(params[:-1], others, starts[:-1], "{} with and without the added group")
    (fresh,) = trial.trained(starts[-1:], [gradients[-1:] for gradients in history[1:]])
    trial.expect_close(params[-1], fresh, starts[-1], f"the updates of the added {named(len(others), fresh)} and alone")


def parameter_names(trial: Trial) -> None:
    """Names given with the parameters, as pairs, come back as `param_names` of the state_dict's groups."""
    params = trial.parameters()
    names = [f"layers.{i}.weight" for i in range(len(params))]
    optimizer = trial.optimizer(list(zip(names, params, strict=True)))
    advance(optimizer, params, trial.history(1))
    found = [name for group in optimizer.state_dict()["param_groups"] for name in group.get("param_names", ())]
    expect(sorted(found) == sorted(names), f"gave {names} and found {found}")

"""What every check uses: parameters, gradients and optimizers made alike, and words for what differs."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

Shape = tuple[int, ...]
Factory = Callable[..., Optimizer]

# Two of one shape and their transpose (these may be stacked), a square, a tall and a wide one.
SHAPES: tuple[Shape, ...] = ((6, 4), (4, 6), (6, 4), (5, 5), (16, 3), (2, 12))
# Small, so that a step of lr = 1e-3 is many times the spacing of a bfloat16 parameter.
START = 0.01
# What says that an optimizer refuses something, as against breaking on it.
REFUSALS = (ValueError, TypeError, RuntimeError)  # NotImplementedError is a RuntimeError


class MismatchError(AssertionError):
    """A check saw something other than it expects; the message says what."""


class NotApplicableError(Exception):
    """A check does not apply to this dtype or optimizer; the message says why."""


@dataclass(frozen=True)
class Trial:
    """One optimizer under test; see `check_optimizer` for what the fields mean."""

    factory: Factory
    dtype: torch.dtype
    shapes: tuple[Shape, ...]
    device: torch.device
    rtol: float  # how much two updates may differ that should be equal except for rounding, as a share of their norm
    bad_arguments: tuple[Mapping[str, Any], ...]
    group_options: Mapping[str, Any] = field(default_factory=dict)

    def draw(self, shape: Shape, seed: int) -> Tensor:
        """Return standard normal numbers that depend on the seed alone, not on dtype, device or a global generator."""
        wide_dtype = torch.complex128 if self.dtype.is_complex else torch.float64
        drawn = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=wide_dtype)
        return drawn.to(self.dtype).to(self.device)

    def starts(self, shapes: Iterable[Shape] | None = None) -> list[Tensor]:
        """Return values to start from, one per shape."""
        return [self.draw(shape, seed) * START for seed, shape in enumerate(self.shapes if shapes is None else shapes)]

    def targets(self) -> list[Tensor]:
        """Return where a quadratic loss has its minimum."""
        return [self.draw(shape, 500 + i) for i, shape in enumerate(self.shapes)]

    def history(self, steps: int = 3, shapes: Iterable[Shape] | None = None) -> list[list[Tensor]]:
        """Return the gradients of some steps, each a list with one per shape."""
        shapes = self.shapes if shapes is None else tuple(shapes)
        return [[self.draw(shape, 1000 * step + i) for i, shape in enumerate(shapes)] for step in range(1, steps + 1)]

    def parameters(self, starts: Iterable[Tensor] | None = None) -> list[nn.Parameter]:
        """Return new parameters that hold copies of these values, strides included."""
        return [nn.Parameter(start.detach().clone()) for start in (self.starts() if starts is None else starts)]

    def optimizer(self, params: Sequence[Any]) -> Optimizer:
        """Return a new optimizer of these parameters, pairs or groups."""
        optimizer = self.factory(params)
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"factory must return a torch.optim.Optimizer, as schedulers require; got {optimizer!r}")
        return optimizer

    def build(
        self, starts: Iterable[Tensor] | None = None, history: Iterable[list[Tensor]] = ()
    ) -> tuple[Optimizer, list[nn.Parameter]]:
        """Return a new optimizer and its parameters, after steps by these gradients."""
        params = self.parameters(starts)
        optimizer = self.optimizer(params)
        advance(optimizer, params, history)
        return optimizer, params

    def trained(self, starts: Iterable[Tensor], history: Iterable[list[Tensor]]) -> list[Tensor]:
        """Return the values of parameters that a new optimizer trained from these starts by these gradients."""
        return [p.detach() for p in self.build(starts, history)[1]]

    def expect_close(self, seen: Tensor, expected: Tensor, start: Tensor, what: str) -> None:
        """Raise MismatchError where seen is not expected except for rounding; both were trained from start."""
        seen, expected, start = wide(seen), wide(expected), wide(start)
        size = float((expected - start).norm())
        # Each of some steps may round each element the other way: up to its spacing.
        allowed = self.rtol * size + 4 * torch.finfo(self.dtype).eps * float(expected.norm())
        error = float((seen - expected).norm())
        expect(error <= allowed, f"{what} differ by {error:.2g} in norm, of {size:.2g}; {allowed:.2g} is allowed")

    def expect_all_close(
        self, seen: Iterable[Tensor], expected: Iterable[Tensor], starts: Iterable[Tensor], what: str
    ) -> None:
        """Do so for every parameter; `{}` in `what` is its name."""
        for i, (each, wanted, start) in enumerate(zip(seen, expected, starts, strict=True)):
            self.expect_close(each, wanted, start, f"the updates of {what.format(named(i, start))}")


def wide(x: Tensor) -> Tensor:
    """Return x as float64 or complex128 on the CPU."""
    return x.detach().cpu().to(torch.complex128 if x.is_complex() else torch.float64)


def expect(condition: bool, seen: str) -> None:
    """Raise MismatchError with what was seen, unless the condition holds."""
    if not condition:
        raise MismatchError(seen)


def named(number: int, p: Tensor) -> str:
    """Return what a message calls a parameter."""
    return f"parameter {number} of shape {tuple(p.shape)}"


def give(params: Iterable[Tensor], gradients: Iterable[Tensor]) -> None:
    """Give each parameter a copy of its gradient, in the gradient's own strides."""
    for p, gradient in zip(params, gradients, strict=True):
        p.grad = gradient.clone()


def advance(optimizer: Optimizer, params: Sequence[Tensor], history: Iterable[list[Tensor]]) -> None:
    """Take one step per list of gradients."""
    for gradients in history:
        give(params, gradients)
        optimizer.step()


def squared_distance(params: Sequence[Tensor], targets: Sequence[Tensor]) -> Tensor:
    """Return half the squared distance of parameters to their targets; its gradient is the difference."""
    return torch.stack([(p - target).abs().square().sum() for p, target in zip(params, targets, strict=True)]).sum() / 2


def scale_learning_rates(optimizer: Optimizer, factor: float) -> None:
    """Multiply the learning rate of every group."""
    for group in optimizer.param_groups:
        group["lr"] = group["lr"] * factor


def set_weight_decay(optimizer: Optimizer, weight_decay: float) -> None:
    """Set the weight decay of every group that has one, so that a check sees whether it is applied."""
    for group in optimizer.param_groups:
        if "weight_decay" in group:
            group["weight_decay"] = weight_decay


def expect_finite(params: Sequence[Tensor], when: str) -> None:
    """Raise MismatchError where a parameter is not finite."""
    for i, p in enumerate(params):
        count = int((~torch.isfinite(p.detach())).sum())
        expect(count == 0, f"{named(i, p)} has {count} NaN or Inf {when}")


def expect_moved(params: Sequence[Tensor], before: Sequence[Tensor], when: str, first: int = 0) -> None:
    """Raise MismatchError where a parameter did not move; the first of them has this number."""
    for i, (p, old) in enumerate(zip(params, before, strict=True), start=first):
        expect(not same(p.detach(), old), f"{named(i, p)} did not move {when}")


def expect_still(params: Sequence[Tensor], before: Sequence[Tensor], when: str) -> None:
    """Raise MismatchError where a parameter moved."""
    for i, (p, old) in enumerate(zip(params, before, strict=True)):
        expect(same(p.detach(), old), f"{named(i, p)} moved {when}")


@dataclass(frozen=True)
class Record:
    """Copies of all that an optimizer could change: values and state of the parameters, options of the groups."""

    values: list[Tensor]
    states: list[dict[str, Any]]
    groups: list[dict[str, Any]]


def record(optimizer: Optimizer, params: Sequence[Tensor]) -> Record:
    """Return copies of the values and state of these parameters and of the groups' options."""
    return Record(
        [p.detach().clone() for p in params],
        [copy.deepcopy(dict(optimizer.state.get(p, {}))) for p in params],  # get: a default dict would grow
        [{key: copy.deepcopy(value) for key, value in g.items() if key != "params"} for g in optimizer.param_groups],
    )


def same(first: object, second: object) -> bool:
    """Return whether two values are equal to the bit; NaN equals NaN, and tensors must agree in dtype and shape."""
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        if (first.dtype, first.shape, first.device) != (second.dtype, second.shape, second.device):
            return False
        return bool(((first == second) | (first.isnan() & second.isnan())).all())
    if isinstance(first, Tensor) or isinstance(second, Tensor):
        return False
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    if isinstance(first, list | tuple) and isinstance(second, list | tuple):
        return len(first) == len(second) and all(map(same, first, second))
    return bool(first == second)


def differences(before: Record, after: Record) -> Iterator[str]:
    """Yield what differs between two records, in words."""
    for i, (old, new) in enumerate(zip(before.values, after.values, strict=True)):
        if not same(old, new):
            yield f"{named(i, old)} moved by {float((wide(new) - wide(old)).abs().max()):.2g}"
    for i, (old, new) in enumerate(zip(before.states, after.states, strict=True)):
        state = f"the state of {named(i, before.values[i])}"
        for key in {**old, **new}:
            if key not in old or key not in new:
                yield f"{state} {'lost' if key in old else 'gained'} {key!r}"
            elif not same(old[key], new[key]):
                was, now = getattr(old[key], "dtype", None), getattr(new[key], "dtype", None)
                yield f"{key!r} in {state} changed{'' if was == now else f' from {was} to {now}'}"
    if len(before.groups) != len(after.groups):
        yield f"{len(before.groups)} groups became {len(after.groups)}"
        return
    for i, (old, new) in enumerate(zip(before.groups, after.groups, strict=True)):
        for key in {**old, **new}:
            if key not in old or key not in new or not same(old[key], new[key]):
                yield f"{key!r} of group {i} was {old.get(key)!r} and became {new.get(key)!r}"


def expect_same(before: Record, after: Record, when: str) -> None:
    """Raise MismatchError where two records differ in a bit."""
    found = list(differences(before, after))
    more = f" (and {len(found) - 1} more differences)" if len(found) > 1 else ""
    expect(not found, f"{when}: {''.join(found[:1])}{more}")


def expect_refused(trial: Trial, shapes: tuple[Shape, ...], what: str) -> None:
    """Expect a ValueError from loading the state_dict of parameters of other shapes, and nothing changed by it."""
    other, _ = trial.build(trial.starts(shapes), trial.history(2, shapes))
    scale_learning_rates(other, 0.5)
    optimizer, params = trial.build(history=trial.history(1))
    before = record(optimizer, params)
    try:
        optimizer.load_state_dict(other.state_dict())
    except ValueError:
        expect_same(before, record(optimizer, params), f"after refusing {what}")
    else:
        raise MismatchError(f"{what} was loaded without an error")

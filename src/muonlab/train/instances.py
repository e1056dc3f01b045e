"""Any torch.optim.Optimizer, one instance per member: made, stepped, dropped, saved and restored."""

import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from muonlab.train.checkpoint import pack, unpack
from muonlab.train.seeds import forked

Named = list[tuple[str, nn.Parameter]]
OptimizerFactory = Callable[[Named], Optimizer | Sequence[Optimizer]]


class Instances:
    """The optimizers of S members.

    Args:
        members: for each member its parameters by name.
        factory: the named parameters of a member -> its optimizer, or a list of optimizers that share them out; or a
            sequence of such functions, one per member, where hyper-parameters differ.
        seeds: seed of each member. An optimizer that draws random numbers draws them from its member's.

    Raises:
        ValueError: an optimizer that needs a closure, that leaves a parameter out, or that holds what is not its
            member's; or another number of functions than of members.
    """

    def __init__(
        self,
        members: Sequence[Mapping[str, nn.Parameter]],
        factory: OptimizerFactory | Sequence[OptimizerFactory],
        seeds: Sequence[int],
    ):
        factories = [factory] * len(members) if callable(factory) else list(factory)
        if len(factories) != len(members):
            raise ValueError(
                f"{len(factories)} optimizer factories for {len(members)} members; expected one, or one per member"
            )
        self._members = [dict(parameters) for parameters in members]
        self._optimizers = [_made(each, own) for each, own in zip(factories, self._members, strict=True)]
        self._seeds = list(seeds)

    def step(self, member: int, step: int, pace: float = 1.0) -> None:
        """Step the optimizers of one member, whose parameters have their gradients.

        A member whose optimizer refuses a gradient that is not finite has diverged: its parameters become NaN, which
        the next evaluation sees, and the others go on.

        Args:
            member: its position.
            step: number of steps before this one; with the seed it decides the noise of an optimizer that draws.
            pace: factor of the learning rate of each parameter group in this step alone.

        Raises:
            ValueError: a pace, and an optimizer without a learning rate.
        """
        own = self._members[member].values()
        try:
            device = next(iter(own)).device
            with _paced(self._optimizers[member], pace), forked(self._seeds[member], "optimizer", step, device):
                for optimizer in self._optimizers[member]:
                    optimizer.step()
        except (ValueError, RuntimeError):
            if all(p.grad is None or p.grad.isfinite().all() for p in own):
                raise
            for p in own:
                p.data.fill_(torch.nan)

    def step_stacked(
        self, stacks: Mapping[str, Tensor], gradients: Mapping[str, Tensor], step: int, pace: float = 1.0
    ) -> None:
        """Step all members, in place, on parameters and gradients that are views into stacks, name -> (S, ...)."""
        # torch.func may return one number expanded, as for the gradient of a sum, and optimizers write to gradients.
        # Two parameters that are only ever added have one and the same.
        first = {id(gradient): name for name, gradient in reversed(list(gradients.items()))}
        gradients = {
            name: gradient.contiguous() if first[id(gradient)] == name else gradient.clone()
            for name, gradient in gradients.items()
        }
        for member, own in enumerate(self._members):
            for name, p in own.items():
                p.data, p.grad = stacks[name][member], gradients[name][member]
            self.step(member, step, pace)
            for name, p in own.items():
                if p.data_ptr() != stacks[name][member].data_ptr():  # an optimizer that puts a new tensor in p.data
                    stacks[name][member] = p.data
                p.grad = None

    def keep(self, members: Sequence[int]) -> None:
        """Drop all members but those, given by their positions."""
        self._members = [self._members[member] for member in members]
        self._optimizers = [self._optimizers[member] for member in members]
        self._seeds = [self._seeds[member] for member in members]

    def shared(self) -> list[tuple[str, int]]:
        """Return for each parameter of the first member the name of what updates it, and its size."""
        found: list[tuple[str, int]] = []
        for optimizer in self._optimizers[0] if self._optimizers else ():
            routes = getattr(optimizer, "routes", None)  # of rules, by parameter
            for p in (p for group in optimizer.param_groups for p in group["params"]):
                found.append((type(optimizer).__name__ if routes is None else routes[p], p.numel()))
        return found

    def tensors(self) -> dict[str, Tensor]:
        """Return the state of all optimizers and the hyper-parameters that they may have changed, by name.

        Hyper-parameters that a checkpoint cannot hold, such as functions, stay as the factory made them.

        Raises:
            ValueError: the state holds what a checkpoint cannot (`pack`).
        """
        found: dict[str, Tensor] = {}
        for member, optimizers in enumerate(self._optimizers):
            for number, optimizer in enumerate(optimizers):
                saved = optimizer.state_dict()
                groups = [{k: v for k, v in group.items() if _is_packable(v)} for group in saved["param_groups"]]
                found |= pack({**saved, "param_groups": groups}, f"optimizer/{member}/{number}")
        return found

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take back what `tensors` returned, for the same members."""
        for member, optimizers in enumerate(self._optimizers):
            device = next(iter(self._members[member].values())).device
            for number, optimizer in enumerate(optimizers):
                _restore(optimizer, unpack(tensors, f"optimizer/{member}/{number}", device))


def views(stacks: Mapping[str, Tensor]) -> list[dict[str, nn.Parameter]]:
    """Return for each of S members its parameters, views into the stacks (S, ...)."""
    num_members = len(next(iter(stacks.values())))
    return [{name: nn.Parameter(stack[k]) for name, stack in stacks.items()} for k in range(num_members)]


PROTOCOL = ("step", "zero_grad", "param_groups", "state", "state_dict", "load_state_dict")


def is_optimizer(made: Any) -> bool:
    """Return whether an object follows torch's protocol, whatever its class: a wrapper may have none of torch's."""
    return all(hasattr(made, name) for name in PROTOCOL)


def _made(factory: OptimizerFactory, own: Mapping[str, nn.Parameter]) -> list[Optimizer]:
    made: Any = factory(list(own.items()))
    optimizers: list[Optimizer] = [made] if is_optimizer(made) else list(made)
    for optimizer in optimizers:
        closure = inspect.signature(optimizer.step).parameters.get("closure")
        if closure is not None and closure.default is inspect.Parameter.empty:
            raise ValueError(
                f"{type(optimizer).__name__} needs a closure that computes the loss again, and a step here has one "
                "forward and backward pass; expected an optimizer whose step() takes the gradients as they are"
            )
    held = [id(p) for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]]
    names = {id(p): name for name, p in own.items()}
    if strangers := len(set(held) - set(names)):
        raise ValueError(
            f"the optimizer factory returned an optimizer of {strangers} tensors that are not the member's; expected "
            "one of the parameters that the factory is given, such as lambda named: RAdam([p for _, p in named])"
        )
    if left_out := [name for key, name in names.items() if key not in held]:
        raise ValueError(
            f"the optimizer factory leaves out {', '.join(left_out)}; expected every parameter in an optimizer, or, if "
            "it is not to be trained, requires_grad=False"
        )
    if twice := [name for key, name in names.items() if held.count(key) > 1]:
        raise ValueError(f"the optimizer factory gives {', '.join(twice)} to two optimizers; expected one for each")
    return optimizers


@contextmanager
def _paced(optimizers: Sequence[Optimizer], pace: float) -> Iterator[None]:
    """Multiply the learning rates, and give them back: the same objects, as a tensor may be shared with a scheduler."""
    if pace == 1.0:
        yield
        return
    assert 0 <= pace < math.inf, pace
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    if without := [type(each).__name__ for each in optimizers if any("lr" not in group for group in each.param_groups)]:
        raise ValueError(
            f"{', '.join(without)} has parameter groups without a learning rate, which a pace of {pace:g} multiplies; "
            "expected group['lr'] in each, or a pace of 1"
        )
    rates = [group["lr"] for group in groups]
    try:
        for group, rate in zip(groups, rates, strict=True):
            group["lr"] = rate * pace
        yield
    finally:
        for group, rate in zip(groups, rates, strict=True):
            group["lr"] = rate


def _restore(optimizer: Optimizer, saved: dict[str, Any]) -> None:
    made = optimizer.state_dict()["param_groups"]
    groups = [{**old, **new} for old, new in zip(made, saved["param_groups"], strict=True)]
    optimizer.load_state_dict({**saved, "param_groups": groups})
    # torch casts the state to the dtype of its parameter: what was saved is put in its place, bit for bit.
    for new, group in zip(groups, optimizer.param_groups, strict=True):
        for number, p in zip(new["params"], group["params"], strict=True):
            if number in saved["state"]:
                optimizer.state[p] = saved["state"][number]


def _is_packable(value: Any) -> bool:
    try:
        pack(value, "")
    except ValueError:
        return False
    return True

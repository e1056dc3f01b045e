"""The reference engine: the members of a population trained one after the other, by torch's ordinary autograd.

Slower than `Population` and free of its conditions: the net may be any nn.Module, with buffers that change and
branches on data.
"""

import copy
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from muonlab.nets.dropout import mix
from muonlab.rules import in_place
from muonlab.rules.operands import Workspace
from muonlab.rules.products import fast_products
from muonlab.train.by_rule import Treatment
from muonlab.train.evaluations import ROWS
from muonlab.train.instances import Instances, Named, OptimizerFactory
from muonlab.train.modules import Net, drawn, takes_key
from muonlab.train.population import ByMember, Loss
from muonlab.train.seeds import fold_in, forked


class Sequential:
    """S members of one net, each a module and an optimizer of its own; the interface is that of `Population`.

    A net without a dropout key draws its noise from torch's global generators, which are lent to a member for its
    step, seeded by its seed and the step, and restored: neither the other members nor a restart change it.

    Args:
        net: as of `Population`, as are all others.
        loss: see above; or one for each member.
        optimizer: see above.
        seeds: see above.
        dtype: see above.
        device: see above.

    Examples:
        >>> net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
        >>> loss = nn.CrossEntropyLoss(reduction="none")
        >>> engine = Sequential(net, loss, lambda named: torch.optim.RAdam([p for _, p in named]), seeds=(0, 1))
        >>> engine.step(torch.ones(2, 8, 3), torch.zeros(2, 8, dtype=torch.long), step=0)
    """

    def __init__(
        self,
        net: Net,
        loss: Loss | Sequence[Loss],
        optimizer: Mapping[str, Treatment] | OptimizerFactory | Sequence[OptimizerFactory],
        seeds: Sequence[int],
        *,
        dtype: torch.dtype = torch.float32,
        device: str | torch.device = "cpu",
    ):
        # What a function built is new already, and a copy would lose hooks on its parameters.
        own = [copy.deepcopy(net) if isinstance(net, nn.Module) else net for _ in seeds]
        self._nets = [drawn(each, seed, dtype).to(device) for each, seed in zip(own, seeds, strict=True)]
        self._has_key = bool(self._nets) and takes_key(self._nets[0])
        self._losses = [loss] * len(seeds) if callable(loss) else list(loss)
        self._device, self._seeds = torch.device(device), list(seeds)
        if isinstance(optimizer, Mapping):
            optimizer = [_by_rule(optimizer, member) for member in range(len(seeds))]
        trained = [{name: p for name, p in each.named_parameters() if p.requires_grad} for each in self._nets]
        self.instances = Instances(trained, optimizer, seeds)

    def __len__(self) -> int:
        """Return S, the number of members."""
        return len(self._nets)

    @property
    def parameters(self) -> dict[str, Tensor]:
        """Copies of the members' parameters by name, (S, ...)."""
        return _stacked([dict(net.named_parameters()) for net in self._nets])

    @property
    def buffers(self) -> dict[str, Tensor]:
        """Copies of the members' buffers by name, (S, ...)."""
        return _stacked([dict(net.named_buffers()) for net in self._nets])

    def step(self, inputs: ByMember, labels: ByMember, step: int, pace: float = 1.0) -> None:
        """Update every member on its own batch; as of `Population`."""
        for member, (net, seed) in enumerate(zip(self._nets, self._seeds, strict=True)):
            net.train()
            net.zero_grad()
            with forked(seed, "forward", step, self._device), fast_products():
                loss = self._losses[member](net(inputs[member], **self._key(net, seed, step)), labels[member]).mean()
                loss.backward()
            self.instances.step(member, step, pace)

    def compile(self, inputs: ByMember, labels: ByMember) -> bool:
        """Return False, with a warning: these nets are what torch.func cannot trace."""
        warnings.warn("members that train one after the other are not compiled", stacklevel=2)
        return False

    def choose_height(self, inputs: ByMember, labels: ByMember) -> int:
        """Return 1, the members that are computed at once."""
        return 1

    def flops(self, inputs: ByMember, labels: ByMember) -> float:
        """Return 0: FLOPs decide how members train together, and these do not."""
        return 0.0

    @torch.no_grad()
    @fast_products()
    def evaluate(self, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return loss and correctness of every member on every row, in eval mode; as of `Population`."""
        losses, hits = [], []
        for net, loss, seed, own in zip(self._nets, self._losses, self._seeds, labels, strict=True):
            net.eval()
            with forked(seed, "evaluation", device=self._device):
                logits = torch.cat([net(rows) for rows in inputs.split(ROWS)])
            losses.append(loss(logits, own))
            hits.append(logits.argmax(dim=-1) == own)
        return torch.stack(losses), torch.stack(hits)

    @torch.no_grad()
    @fast_products()
    def measure(
        self,
        function: Callable[[Tensor, Tensor], Tensor] | Sequence[Callable[[Tensor, Tensor], Tensor]],
        inputs: ByMember,
        targets: ByMember,
        *,
        by_member: bool = False,
    ) -> Tensor:
        """Return a function of outputs and targets, or one for each member, in eval mode; as of `Population`."""
        functions = [function] * len(self) if callable(function) else function
        both: tuple[Any, Any] = (inputs, targets)
        found: list[Tensor] = []
        for member, (net, seed) in enumerate(zip(self._nets, self._seeds, strict=True)):
            net.eval()
            own = tuple(each[member] for each in both) if by_member else both
            with forked(seed, "evaluation", device=self._device):
                found.append(functions[member](net(own[0]), own[1]))
        return torch.stack(found)

    def keep(self, members: Sequence[int]) -> None:
        """Drop all members but those, given by their positions."""
        self._nets = [self._nets[member] for member in members]
        self._losses = [self._losses[member] for member in members]
        self._seeds = [self._seeds[member] for member in members]
        self.instances.keep(members)

    def tensors(self) -> dict[str, Tensor]:
        """Return all that a checkpoint must hold, by name: parameters, buffers, the state of the optimizers.

        Raises:
            ValueError: the state of an optimizer holds what a checkpoint cannot.
        """
        found = {f"parameter/{name}": p for name, p in self.parameters.items()}
        found |= {f"buffer/{name}": buffer for name, buffer in self.buffers.items()}
        return found | self.instances.tensors()

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take back what `tensors` returned, for the same members."""
        for member, net in enumerate(self._nets):
            for name, p in net.named_parameters():
                p.copy_(tensors[f"parameter/{name}"][member])
            for name, _ in list(net.named_buffers()):
                owner, _, own = name.rpartition(".")
                setattr(net.get_submodule(owner), own, tensors[f"buffer/{name}"][member].clone())
        self.instances.load(tensors)

    def _key(self, net: nn.Module, seed: int, step: int) -> dict[str, Tensor]:
        """Return the dropout key that this member has in a population, if its net takes one."""
        if not self._has_key:
            return {}
        own = torch.tensor(fold_in(seed, "dropout") % 2**32, device=self._device)
        return {"key": mix(own ^ mix(torch.full((), step, device=self._device)))}


class _ByRule(torch.optim.Optimizer):
    """The treatments of a population, applied to the parameters of one member."""

    def __init__(self, named: Named, treatments: Mapping[str, Treatment], member: int):
        super().__init__(named, {"lr": 1.0})  # the pace, once `Instances` has multiplied it
        groups: dict[int, tuple[Treatment, list[nn.Parameter]]] = {}
        self.routes = {p: treatments[name].name for name, p in named}
        for name, p in named:
            treatment = treatments[name]
            hyper = {key: _of_member(value, member) for key, value in treatment.hyper.items()}
            self.state[p] = treatment.initial(p.detach(), 0)
            groups.setdefault(id(treatment), (replace(treatment, hyper=hyper), []))[1].append(p)
        self._groups, self._workspace = list(groups.values()), Workspace()

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Update every parameter; one that has no part in the loss has a gradient of zeros, as in a population."""
        pace = self.param_groups[0]["lr"]
        for treatment, ps in self._groups:
            gradients = [treatment.seen(torch.zeros_like(p) if p.grad is None else p.grad, 0) for p in ps]
            seen, states = [treatment.seen(p.detach(), 0) for p in ps], [self.state[p] for p in ps]
            in_place.update(treatment.rule, gradients, states, seen, treatment.paced(pace), self._workspace)
            for p, updated in zip(ps, seen, strict=True):
                if updated.data_ptr() != p.data_ptr():
                    p.copy_(updated.view(p.shape))


def _by_rule(treatments: Mapping[str, Treatment], member: int) -> OptimizerFactory:
    return lambda named: _ByRule(named, treatments, member)


def _of_member(value: object, member: int) -> object:
    return value[member].item() if isinstance(value, Tensor) and value.ndim else value


def _stacked(members: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.stack([member[name].detach() for member in members]) for name in members[0]}

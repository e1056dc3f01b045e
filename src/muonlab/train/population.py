"""Many members trained as one program: parameters stacked along a first axis S, one forward and backward for all."""

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.func import functional_call, vmap
from torch.utils.flop_counter import FlopCounterMode

from muonlab.nets.dropout import mix
from muonlab.rules.products import fast_products
from muonlab.train.by_rule import ByRule, Treatment
from muonlab.train.evaluations import Evaluations, Programs, kind_of
from muonlab.train.gradients import Gradients
from muonlab.train.instances import Instances, OptimizerFactory, views
from muonlab.train.modules import Net, drawn, takes_key
from muonlab.train.program import Function
from muonlab.train.seeds import fold_in

Loss = Callable[[Tensor, Tensor], Tensor]  # logits (B, C), labels (B,) -> (B,)

ByMember = Tensor | Sequence[Tensor]  # (S, ...), or S tensors whose sizes may differ

# FLOPs of a forward pass over a stack in `measure`. Its rows are the user's, so its activations are those of a large
# batch: a GPT of width 32 took 1.6 times as long in passes of 4e9 (256 rows of 48 tokens, one core, n = 1).
PASS_FLOPS = 5e8


class Population:
    """S members of one net, each with its own parameters, optimizer state and dropout noise.

    Member k does what it would do alone, to rounding: no operation mixes members, and its initial parameters and noise
    follow from its own seed.

    Args:
        net: the module that every member is a copy of, or a function that builds it (`muonlab.train.modules.drawn`).
            Every member has weights of its own, and the module's own parameters are used as scratch space. Where its
            `forward(inputs, key)` takes a dropout key, every step passes one.
        loss: logits (B, C), labels (B,) -> loss per example (B,).
        optimizer: parameter name -> rule and hyper-parameters; or a function from a member's named parameters, which
            are views into the stacks, to its torch.optim.Optimizer, or to a list of them; or such functions, one per
            member.
        seeds: seed of each member.
        dtype: of the parameters and of all arithmetic.
        device: where the members live.
        height: members in one forward and backward pass (`Gradients`); all by default.

    Raises:
        ValueError: a net whose weights cannot be drawn, or an optimizer that does not fit (`Instances`).
    """

    def __init__(
        self,
        net: Net,
        loss: Loss,
        optimizer: Mapping[str, Treatment] | OptimizerFactory | Sequence[OptimizerFactory],
        seeds: Sequence[int],
        *,
        dtype: torch.dtype = torch.float32,
        device: str | torch.device = "cpu",
        height: int | None = None,
    ):
        members = []
        for seed in seeds:
            self.net = drawn(net, seed, dtype)
            members.append({name: p.detach().clone() for name, p in self.net.named_parameters()})
        self.net.to(device)
        self.parameters = {name: torch.stack([m[name] for m in members]).to(device) for name in members[0]}  # (S, ...)
        self.optimizer = (
            ByRule(self.parameters, optimizer)
            if isinstance(optimizer, Mapping)
            else Instances(views(self.parameters), optimizer, seeds)
        )
        self._keys = torch.tensor([fold_in(seed, "dropout") % 2**32 for seed in seeds], device=device)  # (S,)
        has_key = takes_key(self.net)

        def mean_loss(parameters: dict[str, Tensor], inputs: Tensor, labels: Tensor, key: Tensor) -> Tensor:
            noise = {"key": key} if has_key else {}
            return loss(functional_call(self.net, parameters, (inputs,), noise), labels).mean()

        def judge(parameters: dict[str, Tensor], inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
            logits = functional_call(self.net, parameters, (inputs,))
            return loss(logits, labels), logits.argmax(dim=-1) == labels

        self.gradients = Gradients(mean_loss, height or len(seeds))
        self._flops: dict[torch.Size, int] = {}  # of a member's forward pass in `measure`, by the shape of its inputs
        self.programs = Programs()
        self.evaluations = Evaluations(judge, self.programs)

    def __len__(self) -> int:
        """Return S, the number of members."""
        return len(self._keys)

    def step(self, inputs: ByMember, labels: ByMember, step: int, pace: float = 1.0) -> None:
        """Update every member on its own batch.

        Args:
            inputs: (S, B, ...); or S tensors (B, ...) whose sizes may differ, as do labels.
            labels: (S, B).
            step: number of steps before this one; with a member's seed it decides the dropout noise.
            pace: factor of all learning rates in this step (`schedule.pace`).
        """
        if isinstance(inputs, Tensor) and isinstance(labels, Tensor):
            gradients = self.gradients(self.parameters, *self._batch(inputs, labels, step))
        else:  # batches of several sizes
            found = [
                self.gradients({name: p[k : k + 1] for name, p in self.parameters.items()}, *self._batch(x, y, step, k))
                for k, (x, y) in enumerate(zip(inputs, labels, strict=True))
            ]
            gradients = {name: torch.cat([each[name] for each in found]) for name in self.parameters}
        self.optimizer.step_stacked(self.parameters, gradients, step, pace)

    def compile(self, inputs: ByMember, labels: ByMember) -> bool:
        """Compile the gradient (`Gradients.compile`), and return whether that was done; arguments as of `step`."""
        return self.gradients.compile(self.parameters, *self._batch(self._alike(inputs), self._alike(labels), 0))

    def compile_evaluations(self, flops: float) -> None:
        """Compile calls of `evaluate` and `measure` that are so many FLOPs of one member or more, when they come.

        The results are those of stacks to rounding, and the same whatever the number of members. Each kind of call
        takes another compilation: another function, number of rows, shape or dtype.
        """
        self.programs.compiled_from = flops

    @property
    def preparation(self) -> float:
        """Seconds that compiling has taken."""
        return self.gradients.seconds + self.programs.seconds

    def choose_height(self, inputs: ByMember, labels: ByMember) -> int:
        """Take the height that suits the work (`Gradients.choose_height`), and return it; arguments as of `step`."""
        self.gradients.choose_height(self.parameters, *self._batch(self._alike(inputs), self._alike(labels), 0))
        return self.gradients.height

    def flops(self, inputs: ByMember, labels: ByMember) -> float:
        """Return the FLOPs of the gradient of one member; arguments as of `step`."""
        return self.gradients.flops(self.parameters, *self._batch(self._alike(inputs), self._alike(labels), 0))

    def _alike(self, batch: ByMember) -> Tensor:
        """Return a batch as a stack, of the first member's where sizes differ."""
        return batch if isinstance(batch, Tensor) else torch.stack([batch[0]] * len(self))

    def _batch(
        self, inputs: Tensor, labels: Tensor, step: int, member: int | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return what the loss of a step takes: inputs, labels and dropout keys (S,); of one member (1, ...)."""
        self.net.train()
        keys = mix(self._keys ^ mix(torch.full((), step, device=self._keys.device)))
        return (inputs, labels, keys) if member is None else (inputs[None], labels[None], keys[member : member + 1])

    @torch.no_grad()
    @fast_products()
    def evaluate(self, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return loss and correctness of every member on every row, in eval mode.

        Args:
            inputs: (rows, ...), shared by the members.
            labels: (S, rows).

        Returns:
            Losses (S, rows), in the population's dtype, and whether the largest logit is the label's, (S, rows) bool.
        """
        self.net.eval()
        losses, hits = self.evaluations(self.parameters, inputs, labels)
        return losses, hits

    @torch.no_grad()
    @fast_products()
    def measure(
        self,
        function: Callable[[Tensor, Tensor], Tensor],
        inputs: ByMember,
        targets: ByMember,
        *,
        by_member: bool = False,
    ) -> Tensor:
        """Return a function of outputs and targets for every member, in eval mode, (S, ...).

        Args:
            function: of the outputs on all inputs, and the targets.
            inputs: (B, ...), shared by the members; with `by_member` (S, B, ...), or S tensors as of `step`.
            targets: as inputs.
            by_member: whether each member has inputs and targets of its own.
        """
        self.net.eval()
        axis = 0 if by_member else None
        judge = vmap(lambda own, x, y: function(functional_call(self.net, own, (x,)), y), in_dims=(0, axis, axis))
        if not (isinstance(inputs, Tensor) and isinstance(targets, Tensor)):
            alone = ({name: p[k : k + 1] for name, p in self.parameters.items()} for k in range(len(self)))
            pairs = zip(alone, inputs, targets, strict=True)
            return torch.cat([judge(own, x[None], y[None]) for own, x, y in pairs])
        if (program := self._program(function, judge, inputs, targets, by_member=by_member)) is not None:
            pairs = zip(inputs, targets, strict=True) if by_member else [(inputs, targets)] * len(self)
            each_of = [
                program(*(p[k] for p in self.parameters.values()), x.contiguous(), y.contiguous())
                for k, (x, y) in enumerate(pairs)
            ]
            return torch.stack([each[0] for each in each_of])
        found, height = [], self._height(judge, inputs, targets, by_member=by_member)
        for at in [slice(start, start + height) for start in range(0, len(self), height)]:
            batch = (inputs[at], targets[at]) if by_member else (inputs, targets)
            found.append(judge({name: p[at] for name, p in self.parameters.items()}, *batch))
        return torch.cat(found)

    def _height(self, judge: Callable[..., Tensor], inputs: Tensor, targets: Tensor, *, by_member: bool) -> int:
        """Return the members in one forward pass: all on a GPU, on a CPU what has about `PASS_FLOPS`."""
        if inputs.device.type != "cpu" or len(self) == 1:
            return len(self)
        stacks = math.ceil(len(self) * self._flops_of(judge, inputs, targets, by_member=by_member) / PASS_FLOPS)
        return math.ceil(len(self) / stacks)

    def _flops_of(self, judge: Callable[..., Tensor], inputs: Tensor, targets: Tensor, *, by_member: bool) -> int:
        """Return the FLOPs of one member in `measure`, one at the least."""
        shape = inputs.shape[1:] if by_member else inputs.shape
        if shape not in self._flops:
            one = (inputs[:1], targets[:1]) if by_member else (inputs, targets)
            with FlopCounterMode(display=False) as counter:
                judge({name: p[:1] for name, p in self.parameters.items()}, *one)
            self._flops[shape] = max(1, counter.get_total_flops())
        return self._flops[shape]

    def _program(
        self,
        function: Callable[[Tensor, Tensor], Tensor],
        judge: Callable[..., Tensor],
        inputs: Tensor,
        targets: Tensor,
        *,
        by_member: bool,
    ) -> Function | None:
        """Return a program of what `measure` does for one member; None where that is too little work."""
        names, x, y = list(self.parameters), *((inputs[0], targets[0]) if by_member else (inputs, targets))

        def of_one(*tensors: Tensor) -> tuple[Tensor]:
            own = dict(zip(names, tensors, strict=False))
            return (function(functional_call(self.net, own, (tensors[-2],)), tensors[-1]),)

        return self.programs.find(
            (function, kind_of(x, y)),
            lambda: self._flops_of(judge, inputs, targets, by_member=by_member),
            of_one,
            lambda: [*(p[0] for p in self.parameters.values()), x.contiguous(), y.contiguous()],
        )

    def keep(self, members: Sequence[int]) -> None:
        """Drop all members but those, given by their positions."""
        index = torch.tensor(members, device=self._keys.device)
        self._keys = self._keys[index]
        self.parameters = {name: p[index] for name, p in self.parameters.items()}
        self.optimizer.keep(members)

    def tensors(self) -> dict[str, Tensor]:
        """Return all that a checkpoint must hold, by name: copies, as steps are made in place."""
        found = {f"parameter/{name}": p for name, p in self.parameters.items()} | self.optimizer.tensors()
        return {name: tensor.clone() for name, tensor in found.items()}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take back what `tensors` returned, for the same members."""
        self.parameters = {name: tensors[f"parameter/{name}"].clone() for name in self.parameters}
        self.optimizer.load(tensors)

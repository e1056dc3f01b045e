"""Many members trained as one program: parameters stacked along a first axis S, one forward and backward for all."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from muonlab.nets.dropout import mix
from muonlab.rules import in_place
from muonlab.rules.workspace import Workspace
from muonlab.train.seeds import fold_in, generator

Loss = Callable[[Tensor, Tensor], Tensor]

EVALUATION_ROWS = 256  # rows in one forward pass of an evaluation: small enough for the cache; changes no result


@dataclass(frozen=True)
class Treatment:
    """The rule that updates a parameter and its hyper-parameters: numbers, or float64 tensors (S,) by member."""

    rule: ModuleType
    hyper: Mapping[str, Any] = field(default_factory=dict)


class Population:
    """S members of one net, each with its own parameters, optimizer state and dropout noise.

    Member k does what it would do alone: no operation mixes members, and its initial parameters and noise follow from
    its own seed.

    Args:
        net: the module that every member is a copy of. Its `forward(inputs, key)` takes a dropout key, its
            `reset_parameters(generator)` draws new weights; its own parameters are used as scratch space.
        loss: logits (B, C), labels (B,) -> loss per example (B,).
        treatments: parameter name -> rule and hyper-parameters.
        seeds: seed of each member.
        dtype: dtype of the parameters and of all arithmetic.
        device: where the members live.
    """

    def __init__(
        self,
        net: nn.Module,
        loss: Loss,
        treatments: Mapping[str, Treatment],
        seeds: Sequence[int],
        *,
        dtype: torch.dtype = torch.float32,
        device: str | torch.device = "cpu",
    ):
        self._net = net.to(device="cpu", dtype=dtype)
        drawn = [self._draw(seed) for seed in seeds]
        self._net.to(device)
        self.parameters = {name: torch.stack([d[name] for d in drawn]).to(device) for name in drawn[0]}  # (S, ...)
        self.treatments = dict(treatments)
        self.states = {name: self.treatments[name].rule.init(p) for name, p in self.parameters.items()}
        self._workspace = Workspace()
        self._keys = torch.tensor([fold_in(seed, "dropout") % 2**32 for seed in seeds], device=device)  # (S,)

        def mean_loss(parameters: dict[str, Tensor], inputs: Tensor, labels: Tensor, key: Tensor) -> Tensor:
            return loss(functional_call(self._net, parameters, (inputs, key)), labels).mean()

        def judge(parameters: dict[str, Tensor], inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
            logits = functional_call(self._net, parameters, (inputs,))
            return loss(logits, labels), logits.argmax(dim=-1) == labels

        self._gradient = vmap(grad(mean_loss))
        self._judge = vmap(judge, in_dims=(0, None, 0))

    def __len__(self) -> int:
        """Return S, the number of members."""
        return len(self._keys)

    def step(self, inputs: Tensor, labels: Tensor, step: int) -> None:
        """Update every member on its own batch.

        Args:
            inputs: (S, B, T).
            labels: (S, B).
            step: number of steps before this one; with a member's seed it decides the dropout noise.
        """
        self._net.train()
        keys = mix(self._keys ^ mix(torch.tensor(step, device=self._keys.device)))  # (S,)
        gradients = self._gradient(self.parameters, inputs, labels, keys)
        for treatment, names in _together(self.treatments):
            in_place.update(
                treatment.rule,
                [gradients[name] for name in names],
                [self.states[name] for name in names],
                [self.parameters[name] for name in names],
                treatment.hyper,
                self._workspace,
            )

    @torch.no_grad()
    def evaluate(self, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return loss and correctness of every member on every row, in eval mode.

        Args:
            inputs: (rows, T), shared by the members.
            labels: (S, rows).

        Returns:
            Losses (S, rows), in the population's dtype, and whether the largest logit is the label's, (S, rows) bool.
        """
        self._net.eval()
        parts = [
            self._judge(self.parameters, rows, labels[:, start : start + EVALUATION_ROWS])
            for start, rows in zip(range(0, len(inputs), EVALUATION_ROWS), inputs.split(EVALUATION_ROWS), strict=True)
        ]
        losses, hits = zip(*parts, strict=True)
        return torch.cat(losses, dim=1), torch.cat(hits, dim=1)

    def keep(self, members: Sequence[int]) -> None:
        """Drop all members but those, given by their positions."""
        index = torch.tensor(members, device=self._keys.device)

        def chosen(value: Any) -> Any:
            return value[index] if isinstance(value, Tensor) and value.ndim else value

        self._keys = self._keys[index]
        self.parameters = {name: chosen(p) for name, p in self.parameters.items()}
        self.states = {name: {k: chosen(v) for k, v in state.items()} for name, state in self.states.items()}
        kept = {id(t): Treatment(t.rule, {k: chosen(v) for k, v in t.hyper.items()}) for t in self.treatments.values()}
        self.treatments = {name: kept[id(t)] for name, t in self.treatments.items()}

    def tensors(self) -> dict[str, Tensor]:
        """Return all that a checkpoint must hold, by name."""
        found = {f"parameter/{name}": p for name, p in self.parameters.items()}
        return found | {
            f"state/{name}/{key}": value for name, state in self.states.items() for key, value in state.items()
        }

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take back what `tensors` returned, for the same members."""
        self.parameters = {name: tensors[f"parameter/{name}"] for name in self.parameters}
        self.states = {
            name: {key: tensors[f"state/{name}/{key}"] for key in state} for name, state in self.states.items()
        }

    def _draw(self, seed: int) -> dict[str, Tensor]:
        reset: Callable[[torch.Generator], None] = self._net.reset_parameters  # type: ignore[assignment]
        reset(generator(seed, "init"))
        return {name: p.detach().clone() for name, p in self._net.named_parameters()}


def _together(treatments: Mapping[str, Treatment]) -> list[tuple[Treatment, list[str]]]:
    """Return each treatment with the names of the parameters that share it."""
    names: dict[int, list[str]] = defaultdict(list)
    for name, treatment in treatments.items():
        names[id(treatment)].append(name)
    return [(treatments[group[0]], group) for group in names.values()]

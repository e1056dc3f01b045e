"""Members updated by pure rules: which rule with which hyper-parameters for which parameter, and its state."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from muonlab.rules import in_place
from muonlab.rules.workspace import Workspace


@dataclass(frozen=True)
class Treatment:
    """The rule that updates a parameter and its hyper-parameters: numbers, or float64 tensors (S,) by member."""

    rule: ModuleType
    hyper: Mapping[str, Any] = field(default_factory=dict)


class ByRule:
    """The optimizer of S members: rules on the stacked parameters.

    Attributes:
        states: parameter name -> what its rule keeps.

    Args:
        stacks: parameter name -> (S, ...).
        treatments: parameter name -> rule and hyper-parameters.
    """

    def __init__(self, stacks: Mapping[str, Tensor], treatments: Mapping[str, Treatment]):
        self.treatments = dict(treatments)
        self.states = {name: self.treatments[name].rule.init(p) for name, p in stacks.items()}
        self._workspace = Workspace()

    def step_stacked(self, stacks: Mapping[str, Tensor], gradients: Mapping[str, Tensor], step: int) -> None:
        """Step all members, in place, what shares a treatment at once.

        Args:
            stacks: parameter name -> (S, ...).
            gradients: parameter name -> (S, ...).
            step: not needed: no rule draws.
        """
        names: dict[int, list[str]] = defaultdict(list)
        for name in stacks:
            names[id(self.treatments[name])].append(name)
        for group in names.values():
            treatment = self.treatments[group[0]]
            in_place.update(
                treatment.rule,
                [gradients[name] for name in group],
                [self.states[name] for name in group],
                [stacks[name] for name in group],
                treatment.hyper,
                self._workspace,
            )

    def keep(self, members: Sequence[int]) -> None:
        """Drop all members but those, given by their positions."""

        def chosen(value: Any) -> Any:
            return value[torch.tensor(members, device=value.device)] if _is_by_member(value) else value

        self.states = {name: {k: chosen(v) for k, v in state.items()} for name, state in self.states.items()}
        kept = {id(t): Treatment(t.rule, {k: chosen(v) for k, v in t.hyper.items()}) for t in self.treatments.values()}
        self.treatments = {name: kept[id(treatment)] for name, treatment in self.treatments.items()}

    def tensors(self) -> dict[str, Tensor]:
        """Return the states, by name."""
        return {f"state/{name}/{key}": value for name, state in self.states.items() for key, value in state.items()}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take back what `tensors` returned, for the same members."""
        self.states = {
            name: {key: tensors[f"state/{name}/{key}"].clone() for key in state} for name, state in self.states.items()
        }


def _is_by_member(value: Any) -> bool:
    return isinstance(value, Tensor) and value.ndim > 0

"""Members updated by pure rules: which rule with which hyper-parameters for which parameter, and its state."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from muonlab.rules import in_place
from muonlab.rules.in_place import State
from muonlab.rules.operands import Workspace, is_by_member
from muonlab.rules.wrapped import Ahead, Independent


@dataclass(frozen=True)
class Treatment:
    """The rule that updates a parameter, and with what.

    Attributes:
        rule: a module of `muonlab.rules`, or what wraps one (`muonlab.rules.wrapped`).
        hyper: its hyper-parameters: numbers, or float64 tensors (S,) by member.
        flatten: see a parameter as the matrix of its first axis by all the others, as Jordan et al. 2024 do with the
            kernel (outputs, inputs, height, width) of a convolution. Its state has that shape too. Matrices and
            vectors stay as they are.
    """

    rule: Any
    hyper: Mapping[str, Any] = field(default_factory=dict)
    flatten: bool = False

    @property
    def name(self) -> str:
        """Name of the rule, such as "muon", without what is wrapped around it."""
        rule = self.rule
        while hasattr(rule, "rule"):
            rule = rule.rule
        return rule.__name__.rpartition(".")[2]

    def seen(self, p: Tensor, num_leading: int) -> Tensor:
        """Return a parameter or gradient as the rule sees it: a view where the strides allow one, else a copy.

        It has num_leading member axes, 1 for a stack (S, ...).
        """
        return p.flatten(num_leading + 1) if self.flatten and p.ndim > num_leading + 2 else p

    def initial(self, p: Tensor, num_leading: int = 1) -> State:
        """Return the state of a parameter before the first step; a variant of a rule keeps more. As of `seen`."""
        kept = {"variant": variant} if (variant := self.hyper.get("variant")) else {}
        return self.rule.init(self.seen(p, num_leading), **kept)

    def paced(self, pace: float) -> Mapping[str, Any]:
        """Return the hyper-parameters with the learning rate times the pace, and whatever else follows a schedule."""
        assert 0 <= pace < math.inf, pace
        return self.hyper if pace == 1.0 else {**self.hyper, **{key: self.hyper[key] * pace for key in self._paced}}

    @property
    def _paced(self) -> list[str]:
        rule = self.rule.rule if isinstance(self.rule, Ahead) else self.rule
        own = {"lr": True, "lookahead": rule is not self.rule, "weight_decay": isinstance(rule, Independent)}
        return [name for name, is_paced in own.items() if is_paced and name in self.hyper]


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
        self.states: dict[str, State] = {name: treatments[name].initial(p) for name, p in stacks.items()}
        self._workspace = Workspace()

    def step_stacked(
        self, stacks: Mapping[str, Tensor], gradients: Mapping[str, Tensor], step: int, pace: float = 1.0
    ) -> None:
        """Step all members, in place, what shares a treatment at once; no rule draws, so the step is not needed."""
        names: dict[int, list[str]] = defaultdict(list)
        for name in stacks:
            names[id(self.treatments[name])].append(name)
        for group in names.values():
            treatment = self.treatments[group[0]]
            ps = [treatment.seen(stacks[name], 1) for name in group]
            in_place.update(
                treatment.rule,
                [treatment.seen(gradients[name], 1) for name in group],
                [self.states[name] for name in group],
                ps,
                treatment.paced(pace),
                self._workspace,
            )
            for name, p in zip(group, ps, strict=True):
                if p.data_ptr() != stacks[name].data_ptr():  # a stack whose strides allow no view of the matrices
                    stacks[name].copy_(p.view(stacks[name].shape))

    def keep(self, members: Sequence[int]) -> None:
        """Drop all members but those, given by their positions."""

        def chosen(values: Mapping[str, Any]) -> dict[str, Any]:
            return {key: each[list(members)] if is_by_member(each) else each for key, each in values.items()}

        self.states = {name: chosen(state) for name, state in self.states.items()}
        # Parameters that shared a treatment share the new one: they are stepped together.
        kept = {id(each): replace(each, hyper=chosen(each.hyper)) for each in self.treatments.values()}
        self.treatments = {name: kept[id(treatment)] for name, treatment in self.treatments.items()}

    def tensors(self) -> dict[str, Tensor]:
        """Return the states, by name; not copies."""
        return {f"state/{name}/{key}": value for name, state in self.states.items() for key, value in state.items()}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take back what `tensors` returned, for the same members."""
        self.states = {
            name: {key: tensors[f"state/{name}/{key}"].clone() for key in state} for name, state in self.states.items()
        }

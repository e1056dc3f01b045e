"""Rules around a rule: they change the gradient that it sees, and take its other hyper-parameters."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from muonlab.rules.operands import operand

State = dict[str, Tensor]


@dataclass(frozen=True)
class Coupled:
    """A rule with decoupled weight decay, whose decay is added to the gradient: of AdamW, Adam with L2 regularisation.

    rule(g + weight_decay * p, weight_decay=0)
    """

    rule: Any

    def init(self, p: Tensor) -> State:
        """Return the state of one parameter: the rule's."""
        return self.rule.init(p)

    def update(
        self, grad: Tensor, state: State, p: Tensor, *, weight_decay: float | Tensor = 0.0, **hyper: Any
    ) -> tuple[Tensor, State]:
        """Return the parameter and the state after one step."""
        return self.rule.update(grad + operand(weight_decay, p) * p, state, p, weight_decay=0.0, **hyper)


@dataclass(frozen=True)
class Filtered:
    """A rule on gradients whose slow part is amplified (Lee et al. 2024, "Grokfast", arXiv 2405.20233, Grokfast-EMA).

    m = g in the first step, then alpha * m + (1 - alpha) * g            rule(g + lamb * m)
    """

    rule: Any
    alpha: float  # decay of the mean m, in [0, 1)
    lamb: float

    def init(self, p: Tensor) -> State:
        """Return the state of one parameter: the rule's, the mean, and whether there is one, a float32 scalar."""
        own = {"slow": torch.zeros_like(p), "filtered": torch.zeros((), dtype=torch.float32, device=p.device)}
        return {**self.rule.init(p), **own}

    def update(self, grad: Tensor, state: State, p: Tensor, **hyper: Any) -> tuple[Tensor, State]:
        """Return the parameter and the state after one step."""
        old = torch.where(state["filtered"] == 0, grad, state["slow"])
        slow = self.alpha * old + (1 - self.alpha) * grad
        inner = {key: value for key, value in state.items() if key not in ("slow", "filtered")}
        p, inner = self.rule.update(grad + self.lamb * slow, inner, p, **hyper)
        return p, {**inner, "slow": slow, "filtered": torch.ones_like(state["filtered"])}

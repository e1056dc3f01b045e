"""Rules around a rule: they change the gradient or parameter that it sees, and take its other hyper-parameters.

`muonlab.optim.around` has the same in place, for a torch.optim.Optimizer.
"""

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

    def init(self, p: Tensor, **kept: Any) -> State:
        """Return the state of one parameter: the rule's."""
        return self.rule.init(p, **kept)

    def update(
        self, grad: Tensor, state: State, p: Tensor, *, weight_decay: float | Tensor = 0.0, **hyper: Any
    ) -> tuple[Tensor, State]:
        """Return the parameter and the state after one step."""
        return self.rule.update(grad + operand(weight_decay, p) * p, state, p, weight_decay=0.0, **hyper)


@dataclass(frozen=True)
class Independent:
    """A rule with decoupled weight decay, whose decay does not depend on the learning rate.

    rule(g, (1 - weight_decay) * p, weight_decay=0)

    References:
        Loshchilov & Hutter 2019, arXiv 1711.05101, algorithm 2, where a schedule multiplies it as it does the learning
        rate; Wortsman et al. 2023, arXiv 2309.14322, who call it so.
    """

    rule: Any

    def init(self, p: Tensor, **kept: Any) -> State:
        """Return the state of one parameter: the rule's."""
        return self.rule.init(p, **kept)

    def update(
        self, grad: Tensor, state: State, p: Tensor, *, weight_decay: float | Tensor = 0.0, **hyper: Any
    ) -> tuple[Tensor, State]:
        """Return the parameter and the state after one step."""
        return self.rule.update(grad, state, operand(1 - weight_decay, p) * p, weight_decay=0.0, **hyper)


DECAYS = {"decoupled": None, "independent": Independent, "l2": Coupled}  # how a weight decay acts
AHEAD = 0.99  # decay of the mean of `Ahead`, as in its paper's language models


@dataclass(frozen=True)
class Ahead:
    """A rule whose gradients are taken ahead of the parameters, by a multiple of their mean change (EMA-Nesterov).

        y = x + lookahead * m        x = rule(y)        m = decay * m + (1 - decay) * (x - its last value)

    p is y, the point at which gradients are taken. Where the lookahead ends at zero, as the paper has it, p ends at x.

    References:
        Yau et al. 2026, arXiv 2605.25395.
    """

    rule: Any
    decay: float = AHEAD

    def init(self, p: Tensor, **kept: Any) -> State:
        """Return the state of one parameter: the rule's, the mean change m, and how far p is ahead."""
        return {**self.rule.init(p, **kept), "mean_change": torch.zeros_like(p), "ahead": torch.zeros_like(p)}

    def update(
        self, grad: Tensor, state: State, p: Tensor, *, lookahead: float | Tensor = 0.0, **hyper: Any
    ) -> tuple[Tensor, State]:
        """Return the parameter and the state after one step."""
        inner = {key: value for key, value in state.items() if key not in ("mean_change", "ahead")}
        x, inner = self.rule.update(grad, inner, p, **hyper)
        change = x - (p - state["ahead"])
        m = self.decay * state["mean_change"] + (1 - self.decay) * change
        ahead = operand(lookahead, p) * m
        return x + ahead, {**inner, "mean_change": m, "ahead": ahead}


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

"""The step of a rule on many parameters, in place: what its `update` returns, in fewer passes and calls."""

from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

from torch import Tensor

from muonlab.rules.operands import Workspace, is_by_member

State = dict[str, Tensor]


def update(
    rule: ModuleType,
    grads: Sequence[Tensor],
    states: Sequence[State],
    ps: Sequence[Tensor],
    hyper: Mapping[str, Any],
    workspace: Workspace,
) -> None:
    """Make the step of a rule: by its `update_` if it has one that takes these hyper-parameters, else one by one.

    Args:
        rule: has `update(grad, state, p, **hyper) -> (p, state)`, and may have `update_(grads, states, ps, workspace,
            **hyper)`, which does the same in place, to rounding, and `takes(hyper, ps)`, which says for which
            hyper-parameters of which parameters.
        grads: a gradient for each parameter.
        states: a state for each; its tensors are changed or replaced.
        ps: parameters, changed in place.
        hyper: numbers, or float64 tensors (S,) by member for parameters of shape (S, ...).
        workspace: where temporary tensors come from.
    """
    if hasattr(rule, "update_") and rule.takes(hyper, ps):
        rule.update_(grads, states, ps, workspace, **hyper)
        return
    for grad, state, p in zip(grads, states, ps, strict=True):
        new, new_state = rule.update(grad, state, p, **{name: _against(value, p) for name, value in hyper.items()})
        p.copy_(new)
        state.update(new_state)


def _against(value: Any, p: Tensor) -> Any:
    """Return a value by member, (S,), with the axes that broadcast against p, (S, ...)."""
    return value.view(-1, *[1] * (p.ndim - 1)) if is_by_member(value) else value

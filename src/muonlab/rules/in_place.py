"""The step of a rule on many parameters, in place: what its `update` returns, in fewer passes and calls."""

from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

from torch import Tensor

from muonlab.rules.operands import Workspace

State = dict[str, Tensor]


def update(
    rule: ModuleType,
    grads: Sequence[Tensor],
    states: Sequence[State],
    ps: Sequence[Tensor],
    hyper: Mapping[str, Any],
    workspace: Workspace,
    *,
    each: bool = False,
) -> None:
    """Make the step of a rule: by its `update_` if it has one that takes these hyper-parameters, else one by one.

    Args:
        rule: has `update(grad, state, p, **hyper) -> (p, state)`, and may have `update_(grads, states, ps, workspace,
            **hyper)`, which does the same in place, and `takes(hyper)`, which says for which hyper-parameters if not
            for all.
        grads: a gradient for each parameter.
        states: a state for each; its tensors are changed or replaced.
        ps: parameters, changed in place.
        hyper: numbers, or float64 tensors (S,) by member for parameters of shape (S, ...).
        workspace: where temporary tensors come from.
        each: where hyper-parameters differ by member, too, step in place: by the rule's `update_each_(grads, states,
            ps, workspace, **hyper)`, if its `takes_each(hyper, grads, ps)` says so. It changes results by rounding.
    """
    is_by_member = any(isinstance(value, Tensor) for value in hyper.values())
    if is_by_member and each and hasattr(rule, "update_each_") and rule.takes_each(hyper, grads, ps):
        rule.update_each_(grads, states, ps, workspace, **hyper)
        return
    if hasattr(rule, "update_") and not is_by_member and (not hasattr(rule, "takes") or rule.takes(hyper)):
        rule.update_(grads, states, ps, workspace, **hyper)
        return
    for grad, state, p in zip(grads, states, ps, strict=True):
        new, new_state = rule.update(grad, state, p, **{name: _against(value, p) for name, value in hyper.items()})
        p.copy_(new)
        state.update(new_state)


def _against(value: Any, p: Tensor) -> Any:
    """Return a value by member, (S,), with the axes that broadcast against p, (S, ...)."""
    return value.view(-1, *[1] * (p.ndim - 1)) if isinstance(value, Tensor) and value.ndim else value

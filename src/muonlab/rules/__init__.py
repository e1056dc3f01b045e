"""The maths of one update, on stacked tensors (*members, rows, columns).

A rule is a module with two pure functions: `init(p) -> state` and `update(grad, state, p, **hyper) -> (p, state)`.
Nothing is changed in place. A hyper-parameter is a number, or a tensor that broadcasts against p: (members, 1, 1)
against matrices, (members, 1) against vectors, so that seeds and learning rates are one batch.
"""

from muonlab.rules import adamw, muon, polar, sgd

__all__ = ["adamw", "muon", "polar", "sgd"]

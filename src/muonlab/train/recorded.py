"""What env.json says of how a job trained: which rule updates how many parameters, and whether a step repeats."""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from muonlab.train.by_rule import ByRule
from muonlab.train.engine import Engine
from muonlab.train.population import Population

Routing = dict[str, dict[str, int]]


def routing(engine: Engine) -> Routing:
    """Return rule -> "tensors" and "parameters" of a member that it updates; of a torch optimizer the class's name."""
    made = engine.optimizer if isinstance(engine, Population) else engine.instances
    if isinstance(made, ByRule):
        return counted((made.treatments[key].name, p[0].numel()) for key, p in engine.parameters.items())
    return counted(made.shared())


def counted(pairs: Iterable[tuple[str, int]]) -> Routing:
    """Return the number of tensors and the sum of their sizes for each rule of (rule, size of a tensor)."""
    found: Routing = {}
    for rule, size in pairs:
        own = found.setdefault(rule, {"tensors": 0, "parameters": 0})
        own["tensors"] += 1
        own["parameters"] += size
    return found


def repeats(engine: Engine, inputs: Any, labels: Any) -> bool | None:
    """Return whether a step from the same state gives the same bytes twice; nothing is changed.

    None where that is not tried: members that train one after the other may have nets that count their own calls.
    """
    if not isinstance(engine, Population):
        return None
    before, seen = engine.tensors(), []
    for _ in range(2):
        engine.step(inputs, labels, 0)
        seen.append(_digest(engine.tensors()))
        engine.load(before)
    return seen[0] == seen[1]


def _digest(tensors: Mapping[str, Tensor]) -> str:
    found = hashlib.sha256()
    for name in sorted(tensors):
        plain = tensors[name].detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        found.update(name.encode() + plain.numpy().tobytes())
    return found.hexdigest()

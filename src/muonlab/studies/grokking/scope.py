"""What the answer of a grokking study holds for: tasks, size, batch, horizon, tuning, machine."""

from collections.abc import Iterable
from typing import Any

from muonlab.report.findings import as_text
from muonlab.studies.grokking.comparison import Comparison
from muonlab.studies.grokking.conditions import NAMES, Condition, GrokkingRuns, recorded, recorded_number
from muonlab.studies.grokking.config import OwnNet


def scope_in_words(runs: GrokkingRuns, pair: Comparison) -> str:
    """Return the clause that ends the verdict's sentence."""
    conditions = _of(runs, pair)
    tasks, losses = _values(c.config.task.name for c in conditions), _values(c.config.loss for c in conditions)
    where = several(tasks) if len(tasks) <= 3 else f"{len(tasks)} tasks"
    return (
        f"on {where} with {several(losses)}, at this size ({_size(conditions)}), batch {_batch(conditions)} and "
        f"horizon of {_budget(conditions)} steps; {tuning(pair)}"
    )


def scope_of(runs: GrokkingRuns, pair: Comparison | None) -> tuple[tuple[str, str], ...]:
    """Return (what, value) of everything that the answer holds for."""
    conditions = _of(runs, pair)
    if not conditions:
        return ()
    protocols = [c.config.protocol for c in conditions]
    scope = [
        ("Tasks", several(_values(_task(c) for c in conditions))),
        ("Output distribution", several(_values(c.config.loss for c in conditions))),
        ("Model", f"Transformer, {_size(conditions)}"),
        ("Batch", _batch(conditions)),
        ("Horizon", f"{_budget(conditions)} steps, evaluated every {_one_or_more(p.cadence for p in protocols)} steps"),
        ("Crossing", f"validation accuracy at or above {_one_or_more(p.threshold for p in protocols)}"),
        ("Tuning", tuning(pair) if pair else "no comparison"),
        ("Machine", machine(runs)),
    ]
    return tuple(scope)


def tuning(pair: Comparison) -> str:
    """Return what was done to find good settings of the two optimizers, and what that does to the answer."""
    names, tried = [NAMES.get(optimizer, optimizer) for optimizer in pair.optimizers], pair.tried
    if max(tried) == 1:
        return "neither optimizer was tuned here"
    best = [
        f"{variant} is the best of {number} settings" if number > 1 else f"{name} had one setting"
        for variant, name, number in zip(pair.variants, names, tried, strict=True)
    ]
    kind = "equal" if tried[0] == tried[1] else "UNEQUAL"
    return f"{' and '.join(best)} ({kind} tuning), chosen on the very runs that it is judged by, which flatters it"


def machine(runs: GrokkingRuns) -> str:
    """Return the machine or machines as env.json names them."""
    found = []
    for record in runs.records:
        hardware = recorded(record.environment, "hardware", dict) or {}
        cores, memory = recorded_number(hardware, "cores"), recorded_number(hardware, "memory_gb")
        threads, device = recorded_number(record.environment, "threads"), recorded(record.environment, "device", str)
        parts = [
            recorded(hardware, "cpu", str),
            f"{cores} cores" if cores else None,
            f"{memory} GB" if memory else None,
            recorded(hardware, "gpu", str),
            f"{threads} thread{'s' * (threads != 1)} a worker" if threads else None,
            f"device {device}" if device else None,
        ]
        if any(parts):
            found.append(", ".join(part for part in parts if part))
    return "; and ".join(dict.fromkeys(found)) or "not recorded"


def several(words: Iterable[Any]) -> str:
    """Return "a", "a and b", "a, b and c"."""
    texts = [str(word) for word in words]
    return " and ".join([", ".join(texts[:-1]), texts[-1]] if len(texts) > 1 else texts)


def _of(runs: GrokkingRuns, pair: Comparison | None) -> list[Condition]:
    compared = [condition for both in pair.pairs.values() for condition in both] if pair else []
    return compared or runs.with_runs()


def _values(values: Iterable[Any]) -> list[Any]:
    return list(dict.fromkeys(values))


def _one_or_more(values: Iterable[Any]) -> str:
    return several(f"{v:,}" if isinstance(v, int) else v for v in _values(values))


def _task(condition: Condition) -> str:
    task = condition.config.task
    size = f"{task.bits} bits" if task.name == "parity" else f"mod {task.modulus}"
    return f"{task.name} ({size}, {task.train_share:.0%} train)"


def _size(conditions: list[Condition]) -> str:
    nets = [c.config.net for c in conditions if not isinstance(c.config.net, OwnNet)]
    if len(nets) < len(conditions):
        return "a net of one's own"
    depths = _one_or_more(net.depth for net in nets)
    layers = "layer" if depths == "1" else "layers"
    parameters = sorted({c.result.num_parameters for c in conditions})
    count = " to ".join(f"{as_text(p, 'count')}" for p in ([parameters[0], parameters[-1]][: len(parameters)]))
    return f"{depths} {layers}, width {_one_or_more(net.width for net in nets)}, {count} parameters"


def _batch(conditions: list[Condition]) -> str:
    """Rows of a step: no more than there are."""
    asked = [(c.config.protocol.batch, c.result.num_train) for c in conditions]
    return _one_or_more(f"full ({rows:,} rows)" if batch == "full" else min(batch, rows) for batch, rows in asked)


def _budget(conditions: list[Condition]) -> str:
    return _one_or_more(c.config.protocol.budget for c in conditions)

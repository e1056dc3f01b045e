"""The answer of a grokking study in one sentence, with its interval and its scope, or why there is none.

The answer rests on the ratio of restricted mean steps to the first crossing, first arm over rival (`Pair.ratio`), and
on the permutation test of it, both over all blocks. It does not count decided comparisons as `muonlab.study.judge`
does, so its rule is its own. It is inconclusive where

- no block holds at least MIN_RUNS runs of both, or fewer than half of the planned blocks do;
- a control on random labels rose above chance, for then something leaks and no other number can be trusted;
- all runs of an arm diverged, or runs that should differ are one run;
- no run crossed, or the ratio has no test;
- p is above ALPHA, or so few runs cannot give a smaller one (but see EQUIVALENCE);
- ranks tell the two apart the other way round than the ratio does;
- the best learning rate of the arm that is behind lies on the edge of those that were tried: beyond, it might overtake;
- the arm that is behind had fewer settings to choose from.

It depends on the task where, with p adjusted by Holm over the tasks, the first arm is sooner on one and later on
another. It does not last where fewer than half of the runs of the arm that is ahead stayed at the threshold.
Further findings, and what weakens the answer, are in remarks.py.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from muonlab.report.findings import Answer, Verdict, as_text
from muonlab.studies.grokking.comparison import Pair, outside
from muonlab.studies.grokking.conditions import Condition, GrokkingFound, GrokkingRuns, recorded, recorded_number
from muonlab.studies.grokking.config import OwnNet
from muonlab.studies.grokking.remarks import against, cautions, in_short, measured, no_control, remarks
from muonlab.study.controls import failed
from muonlab.study.fairness import transferred
from muonlab.study.search import behind
from muonlab.study.study import ALPHA, MIN_RUNS
from muonlab.study.words import several

EQUIVALENCE = 1.1  # an interval within 1/1.1 and 1.1, with most runs crossing everywhere, says "no difference"

_KINDS = {"transformer": "Transformer", "mlp": "multi-layer perceptron", "own": "own net"}

Tasks = tuple[list[str], list[str]]  # those on which the first arm is sooner, and later


def judge(found: GrokkingFound, pairs: Sequence[Pair]) -> Verdict:
    """Return the verdict on the first arm against its first rival, with a sentence on each other comparison."""
    pair = next((each for each in pairs if each.arms == found.arms[:2]), None)
    further = [against(each) for each in pairs if each is not pair]
    if pair is None:
        return _without_comparison(found, next(iter(pairs), None), further)
    answer, label, claim = decide(found, pair)
    sentence, scope = f"{claim}, {scope_in_words(pair)}.", scope_of(found.runs, pair)
    if _lost(pair):  # of runs that all diverged no number says anything
        weakness = no_control(found.controls)
        return Verdict(answer, label, sentence, None, tuple(further), scope, (weakness,) * bool(weakness))
    shown = pair.ratio if pair.ratio.value is not None else None
    more = (*in_full(pair), *remarks(pair), *further)
    return Verdict(answer, label, sentence, shown, more, scope, tuple(cautions(found, pair)))


def in_full(pair: Pair) -> list[str]:
    """Return the number with all that it rests on, and how the two were tuned, which the first sentence leaves out."""
    if pair.ratio.value is None:
        return []
    return [f"In full: {measured(pair, pair.names[0])}; batch {_batch(pair.conditions)}; {_tuning(pair)}."]


def decide(found: GrokkingFound, pair: Pair) -> tuple[Answer, str, str]:
    """Return the answer on a comparison, what it is called, and the claim that it stands for, in words."""
    tasks = _tasks_by_side(pair)
    reasons = _reasons(found, pair, tasks)
    if not reasons:
        return _claim(pair, tasks)
    claim = f"Inconclusive, because {'; and '.join(reasons)}"
    if pair.ratio.value is not None and not _lost(pair):
        claim += f": {in_short(pair, pair.names[0])}"
    return "inconclusive", "Inconclusive", claim


def _without_comparison(found: GrokkingFound, other: Pair | None, further: list[str]) -> Verdict:
    runs, asked = found.runs, found.arms[:2]
    missing = [arm.name for arm in asked if not runs.variants(arm.label)]
    if not runs.conditions:
        reason = "the study holds only random labels"
    elif missing:
        reason = f"the study holds no finished {' and no finished '.join(missing)} runs"
    elif len(asked) < 2:
        reason = f"the study has nothing to compare {found.first.name} with"
    else:
        reason = f"no block of it holds at least {MIN_RUNS} finished runs of both {several(arm.name for arm in asked)}"
    sentence = f"Inconclusive, because {'; and '.join([reason, *_leaks(found)])}."
    weakness = no_control(found.controls) if other else ""
    scope = scope_of(runs, other)
    return Verdict("inconclusive", "Inconclusive", sentence, None, tuple(further), scope, (weakness,) * bool(weakness))


def _leaks(found: GrokkingFound) -> list[str]:
    lost = len(failed(found.controls))
    return [f"{lost} of {len(found.controls)} controls on random labels rose above chance"] if lost else []


def _reasons(found: GrokkingFound, pair: Pair, tasks: Tasks) -> list[str]:
    reasons, ratio, test = [*_leaks(found), *_no_runs(pair)], pair.ratio, pair.test
    num_compared, num_planned, crossed = len(pair.blocks), pair.num_planned, pair.pooled.crossed
    if 2 * num_compared < num_planned:
        reasons.append(
            f"only {num_compared} of {num_planned} blocks hold at least {MIN_RUNS} finished runs of both optimizers"
        )
    if not crossed.any():
        reasons.append(f"none of the {len(crossed)} runs crossed within the budget")
    elif ratio.value is None or test.p is None:
        reasons.append(f"the ratio of times has no test ({test.reason})")
    elif all(tasks):
        pass
    elif _is_equal(pair):
        reasons += _may_overtake(pair, is_equal=True)
    elif pair.is_torn:
        reasons.append(_torn(pair))
    elif test.p > ALPHA:
        reasons.append(_undecided(pair))
    else:
        reasons += [*_may_overtake(pair), *_had_less(pair)]
    return reasons


def _lost(pair: Pair) -> list[str]:
    """Which arms have no run that did not diverge, in words."""
    return [
        f"all {number} {name} runs diverged, so that nothing is known of its times"
        for lost, number, name in zip(pair.num_diverged, pair.num_runs, pair.names, strict=True)
        if lost == number
    ]


def _no_runs(pair: Pair) -> list[str]:
    """Why there is nothing to compare although there are results: runs that diverged, or copies."""
    said = _lost(pair)
    copies = [f"{c.variant} on {c.block}, seeds {a} and {b}" for c in pair.conditions for a, b in c.copies]
    if copies:
        said.append(f"runs that should differ are one run, bit by bit ({'; '.join(copies[:3])})")
    return said


def _undecided(pair: Pair) -> str:
    """Why p, which is above ALPHA, decides nothing; an interval that excludes 1 beside it needs a word."""
    p, smallest, ratio = pair.test.p, pair.test.smallest_p, pair.ratio
    assert p is not None, "there is a test"
    beside = " although the interval, which takes times to be about normal, excludes 1" * (
        outside(ratio) != "undecided"
    )
    if smallest is not None and smallest > ALPHA:
        sizes = several(dict.fromkeys(f"{len(a.members)} + {len(b.members)}" for a, b in pair.blocks.values()))
        where = "one block" if len(pair.blocks) == 1 else f"each of {len(pair.blocks)} blocks"
        times = f", counted for {pair.num_choices} pairs of settings," * (pair.num_choices > 1)
        return (
            f"{sizes} runs in {where} can never decide: the smallest p that they can give{times} is "
            f"{as_text(smallest, 'p')}, more than {ALPHA:g}{beside}"
        )
    if beside or ratio.lower is None:
        return f"the permutation test does not tell the two apart (p = {as_text(p, 'p')}, more than {ALPHA:g}){beside}"
    return "the interval of the ratio contains 1"


def _may_overtake(pair: Pair, *, is_equal: bool = False) -> list[str]:
    """Why nothing is decided while the best learning rate of the arm that is behind lies on an edge."""
    if pair.choices is None or pair.ratio.value is None:
        return []
    first, second = zip(pair.names, pair.choices, strict=True)
    return [
        f"the best learning rate of {name}, {own.rate:g}, is the {'smallest' if own.edge == 'low' else 'largest'} that "
        f"was tried, and with one beyond it {name} might overtake"
        for name, own in behind(first, second, pair.ratio.value - 1, is_equal=is_equal)
        if own.edge
    ]


def _had_less(pair: Pair) -> list[str]:
    """Why nothing is decided where the arm that is behind had fewer settings to choose from."""
    assert pair.ratio.value is not None, "a comparison without a ratio is not decided"
    own = dict(zip(pair.names, pair.tried, strict=True))
    (name,) = behind(*pair.names, pair.ratio.value - 1)
    most = max(own.values())
    if own[name] == most:
        return []
    return [f"{name}, which is behind, had {own[name]} of the other’s {most} settings to choose from"]


def _torn(pair: Pair) -> str:
    """What it means that ranks and means point in opposite directions."""
    assert pair.ratio.value is not None, "a comparison without a ratio is not torn"
    by_rank, by_mean = ("sooner", "later") if pair.ratio.value > 1 else ("later", "sooner")
    why = "" if pair.pooled.crossed.all() else ", as runs that never crossed count with the whole budget"
    return (
        f"ranks and the ratio point in opposite directions: ranked run by run {pair.names[0]} tends to be "
        f"{by_rank}, yet its mean is {by_mean}{why}"
    )


def _claim(pair: Pair, tasks: Tasks) -> tuple[Answer, str, str]:
    first, second = pair.names
    if all(tasks):
        sooner, later = tasks
        claim = f"It depends on the task: {first} crossed sooner than {second} on {several(sooner)} and later on "
        return "mixed", "Depends on the task", f"{claim}{several(later)}; over all, {in_short(pair, 'it')}"
    if _is_equal(pair):
        return "no", "No difference", f"No difference of {EQUIVALENCE - 1:.0%} or more: {in_short(pair, first)}"
    is_sooner = pair.ratio.value is not None and pair.ratio.value < 1
    ahead = first if is_sooner else second
    side = "sooner" if is_sooner else "later"
    if left := _does_not_stay(pair, ahead):
        label = f"{side.capitalize()}, but it does not last"
        return "mixed", label, f"{first} crossed {side} than {second}, but {left}: {in_short(pair, first)}"
    claim = f"{first} crossed {side} than {second}: {in_short(pair, 'it')}"
    return ("yes", "Sooner", claim) if is_sooner else ("no", "Later", claim)


def _does_not_stay(pair: Pair, ahead: str) -> str:
    """Return how few of the runs that are ahead stayed where they had crossed; nothing where half of them did."""
    counts = {
        name: (sum(len(c.sustained) for c in conditions), sum(len(c.followed) for c in conditions))
        for name, conditions in zip(pair.names, pair.sides, strict=True)
    }
    stayed, followed = counts.pop(ahead)
    if not followed or 2 * stayed >= followed:
        return ""
    other, (its, of) = counts.popitem()
    return f"{stayed} of {followed} {ahead} runs stayed there ({other} {its} of {of})"


def _tasks_by_side(pair: Pair) -> Tasks:
    sides = {task: part.side for task, part in pair.by_task.items()}
    return [t for t, side in sides.items() if side == "sooner"], [t for t, side in sides.items() if side == "later"]


def _is_equal(pair: Pair) -> bool:
    lower, upper = pair.ratio.lower, pair.ratio.upper
    if lower is None or upper is None or not 1 / EQUIVALENCE < lower <= 1 <= upper < EQUIVALENCE:
        return False
    return all(2 * len(c.crossed) > len(c.members) for c in pair.conditions)


# -- scope: what the answer holds for --------------------------------------------------------------


def scope_in_words(pair: Pair) -> str:
    """Return the clause that ends the verdict's sentence."""
    conditions = pair.conditions
    tasks, losses = _values(c.config.task.name for c in conditions), _values(c.config.loss for c in conditions)
    where = several(tasks) if len(tasks) <= 3 else f"{len(tasks)} tasks"
    unequal = "; UNEQUAL tuning" if pair.tried[0] != pair.tried[1] else ""
    return (
        f"on {where} with {several(losses)} ({_size(conditions)}, horizon of "
        f"{_numbers(c.budget for c in conditions)} steps{unequal})"
    )


def scope_of(runs: GrokkingRuns, pair: Pair | None) -> tuple[tuple[str, str], ...]:
    """Return (what, value) of everything that the answer holds for."""
    conditions = pair.conditions if pair else list(runs.held)
    if not conditions:
        return ()
    protocols = [c.config.protocol for c in conditions]
    horizon = f"{_numbers(p.budget for p in protocols)} steps, evaluated every {_numbers(p.cadence for p in protocols)}"
    return (
        ("Tasks", several(_values(_task(c) for c in conditions))),
        ("Output distribution", several(_values(c.config.loss for c in conditions))),
        ("Model", f"{several(_values(_KINDS[c.config.net.kind] for c in conditions))}, {_size(conditions)}"),
        ("Batch", _batch(conditions)),
        ("Horizon", f"{horizon} steps"),
        ("Crossing", f"validation accuracy at or above {_numbers(p.threshold for p in protocols)}"),
        ("Tuning", _tuning(pair) if pair else "no comparison"),
        *_transferred(runs, pair),
        ("Machine", machine(runs)),
    )


def _tuning(pair: Pair) -> str:
    """What was done to find good settings of the two optimizers, and what that does to the answer."""
    tried = pair.tried
    if max(tried) == 1:
        return "neither optimizer was tuned here"
    best = [
        f"{variant} is the best of {number} settings" if number > 1 else f"{name} had one setting"
        for variant, name, number in zip(pair.variants, pair.names, tried, strict=True)
    ]
    kind = "equal" if tried[0] == tried[1] else "UNEQUAL"
    where = "by runs with seeds of their own" if pair.num_choices == 1 else "on the judged runs"
    return f"{' and '.join(best)} ({kind} tuning), chosen {where}"


def _transferred(runs: GrokkingRuns, pair: Pair | None) -> list[tuple[str, str]]:
    """What has one value for both arms, or is one arm's for the other, without a search."""
    if pair is None:
        return []
    tried: dict[str, list[Any]] = {}
    for condition in (*runs.searched, *runs.held):
        own = tried.setdefault(condition.arm, [])
        own.extend([condition.config.optimizer] * (condition.config.optimizer not in own))
    said = transferred(pair.arms, tried)
    return [("Transferred", "; ".join(said))] if said else []


def machine(runs: GrokkingRuns) -> str:
    """Return the machine or machines as env.json names them."""
    found = []
    for environment in (cell.record.environment for cell in runs.cells):
        hardware = recorded(environment, "hardware", dict) or {}
        cores, memory = recorded_number(hardware, "cores"), recorded_number(hardware, "memory_gb")
        threads, device = recorded_number(environment, "threads"), recorded(environment, "device", str)
        parts = [
            recorded(hardware, "cpu", str),
            f"{cores} cores" if cores else None,
            f"{memory} GB" if memory else None,
            recorded(hardware, "gpu", str),
            f"{threads} thread{'s' * (threads != 1)} per worker" if threads else None,
            f"device {device}" if device else None,
        ]
        if any(parts):
            found.append(", ".join(part for part in parts if part))
    return "; and ".join(_values(found)) or "not recorded"


def _values(values: Iterable[Any]) -> list[Any]:
    return list(dict.fromkeys(values))


def _numbers(values: Iterable[Any]) -> str:
    return several(f"{v:,}" if isinstance(v, int) else v for v in _values(values))


def _task(condition: Condition) -> str:
    task = condition.config.task
    if task.call is not None:
        return f"{task.name} ({task.train_share:.0%} train)"
    size = f"{task.bits} bits" if task.name == "parity" else f"mod {task.modulus}"
    return f"{task.name} ({size}, {task.train_share:.0%} train)"


def _size(conditions: list[Condition]) -> str:
    parameters = sorted({c.result.num_parameters for c in conditions})
    count = " to ".join(as_text(p, "count") for p in dict.fromkeys((parameters[0], parameters[-1])))
    known = [net for net in (c.config.net for c in conditions) if not isinstance(net, OwnNet)]
    if len(known) < len(conditions):
        return f"{count} parameters"
    depths = _numbers(net.depth for net in known)
    layers = "layer" if depths == "1" else "layers"
    return f"{depths} {layers}, width {_numbers(net.width for net in known)}, {count} parameters"


def _batch(conditions: list[Condition]) -> str:
    """Rows of a step: no more than there are."""
    asked = [(c.config.protocol.batch, c.result.num_train) for c in conditions]
    return _numbers(f"full ({rows:,} rows)" if batch == "full" else min(batch, rows) for batch, rows in asked)

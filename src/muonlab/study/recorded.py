"""What the records of jobs say of the runs: who updates which parameters, whether a step repeats, and copies.

Every report shows it (`muonlab.study.sections.findings`), whatever the study: a reader of any comparison asks it first.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any

from muonlab.jobs.job import JobRecord, canonical_json
from muonlab.report.findings import Column, Element, Table, Text, Value
from muonlab.study.study import NAMES, Found

CURVES = ("train_loss", "validation_loss", "train_accuracy", "validation_accuracy")
TELLING = 24  # characters of the different numbers of a curve, from which equal curves are no coincidence
COUNTS = {"tensors", "parameters"}  # of a rule
MOST_COPIES = 3  # that are named

Row = tuple[Value, ...]


def section(found: Found, *, has_costs: bool = False) -> tuple[Element, ...]:
    """Return who updates what, whether a step repeats and what it costs; none where no job that trains has begun.

    Args:
        found: the study.
        has_costs: whether it has a table of its own of what a step costs.
    """
    if not has_trained(found.records):
        return ()
    said = Text(f"The same bytes twice? {badge(found.records)}.")
    return *_routing(found), said, *(() if has_costs else _costs(found))


def has_trained(records: Iterable[JobRecord]) -> bool:
    """Return whether a job that trains has begun; one that only measures has no seeds of its own."""
    return any(record.environment and "seeds" in record.config for record in records)


# -- who updates what ------------------------------------------------------------------------------


def _routing(found: Found) -> tuple[Element, ...]:
    rows: dict[tuple[str, str], list[Row]] = {}
    for record in found.records:
        held = record.environment.get("routing")
        if (
            isinstance(held, dict)
            and all(isinstance(own, dict) and {*own} >= COUNTS for own in held.values())
            and "transfer" not in record.role
        ):  # a transfer is by another optimizer than the weights
            rows.setdefault((record.case, _arm(found, record)), _counts(held))
    if not rows:
        return (Text("Which parameters each optimizer updates was not recorded by the muonlab that ran these jobs."),)
    head = (
        *(Column("case", "Case"), Column("optimizer", "Optimizer"), Column("rule", "Updated by")),
        *(Column("tensors", "Tensors", "count"), Column("parameters", "Parameters", "count")),
        Column("share", "Share", "percent"),
    )
    note = (
        "As the jobs trained. Muon takes matrices; embeddings, heads, biases and norms are left to AdamW, whose rate "
        "is a setting of its own. An optimizer with one row updates every parameter."
    )
    listed = tuple((*place, *counts) for place, own in rows.items() for counts in own)
    return (Table("routing", "Which parameters each optimizer updates", head, listed, note),)


def _counts(held: Mapping[str, Mapping[str, int]]) -> list[Row]:
    whole = sum(own["parameters"] for own in held.values())
    return [
        (NAMES.get(rule, rule), own["tensors"], own["parameters"], own["parameters"] / whole if whole else None)
        for rule, own in held.items()
    ]


def _number(value: Any) -> float | None:
    """Return a number of a file; None for anything else, for the file may be foreign."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return value if is_number else None


def _arm(found: Found, record: JobRecord) -> str:
    optimizer = record.config.get("optimizer") or {}
    label = record.arm or record.config.get("label") or optimizer.get("name", "")
    return next((arm.name for arm in found.arms if arm.label == label), label)


# -- what a step costs -----------------------------------------------------------------------------


def _costs(found: Found) -> tuple[Table, ...]:
    """Return FLOPs and seconds of a step, the second and third axis beside steps; none where neither was recorded."""
    held: dict[tuple[str, str], list[tuple[float | None, float | None]]] = {}
    for record in found.records:
        seconds = _number(record.environment.get("seconds_per_member_step"))
        flops = _number((record.result or {}).get("flops_per_step"))
        if "seeds" in record.config and "transfer" not in record.role and (seconds or flops):
            held.setdefault((record.case, _arm(found, record)), []).append((seconds, flops))
    if not held:
        return ()
    rows = []
    for place, own in held.items():
        columns = ([each for each in column if each] for column in zip(*own, strict=True))
        seconds, flops = (median(column) if column else None for column in columns)
        rows.append((*place, flops, seconds, len(own)))
    head = (
        *(Column("case", "Case"), Column("optimizer", "Optimizer"), Column("flops", "FLOPs of a step", "number")),
        *(Column("seconds", "Seconds of a step", "number"), Column("jobs", "Jobs", "count")),
    )
    note = (
        "Of one step of one run, the median over jobs. FLOPs are those of matrix products and convolutions, the "
        "optimizer’s own included. Seconds are shares of runs that train together, on a machine that may have done "
        "other things as well: they were not measured interleaved, and decide nothing. Times of the report in steps "
        "become FLOPs or seconds by these factors."
    )
    return (Table("step-costs", "What a step costs: the other axes", head, tuple(rows), note),)


# -- whether a step repeats ------------------------------------------------------------------------


def badge(records: Sequence[JobRecord]) -> str:
    """Return whether a step that was computed twice gave the same bytes, and on what."""
    tried = [record.environment["repeats"] for record in records if "repeats" in record.environment]
    yes, no, other = (sum(each is state for each in tried) for state in (True, False, None))
    where = _where(records)
    if no:
        return f"NO: a step computed twice differed in {no} of {yes + no} jobs{where}, so chance is more than the seeds"
    if not yes and not other:
        return f"Not tried in these jobs{where}"
    alone = f"not tried in {other} jobs, whose members train one after the other" if other else ""
    if not yes:
        return f"{alone.capitalize()}{where}"
    return f"Yes, a step computed twice in each of {yes} jobs{where}" + (f"; {alone}" if alone else "")


def is_random(records: Sequence[JobRecord]) -> bool:
    """Return whether a step that was computed twice differed in some job."""
    return any(record.environment.get("repeats") is False for record in records)


def _where(records: Iterable[JobRecord]) -> str:
    held = [record.environment for record in records if record.environment]
    devices = sorted({own["device"] for own in held if isinstance(own.get("device"), str)})
    threads = sorted({own["threads"] for own in held if isinstance(own.get("threads"), int)})
    parts = devices + ([f"{' or '.join(map(str, threads))} thread{'s' * (threads != [1])}"] if threads else [])
    return f" ({', '.join(parts)})" if parts else ""


# -- copies ----------------------------------------------------------------------------------------


def trajectory(member: Mapping[str, Any]) -> str | None:
    """Return a hash of all losses and accuracies of a run; None where they are too few or too short to tell runs."""
    curves = {key: own for key in CURVES if isinstance(own := member.get(key), list)}
    numbers = {number for own in curves.values() for number in own if number is not None}
    if sum(len(repr(number)) for number in numbers) < TELLING or member.get("diverged_at") is not None:
        return None
    return hashlib.sha256(json.dumps(curves, sort_keys=True).encode()).hexdigest()


def same_runs(members: Iterable[Mapping[str, Any]]) -> list[tuple[int, int]]:
    """Return pairs of seeds whose runs are one run, bit by bit."""
    first: dict[str, int] = {}
    found = []
    for member in members:
        if (own := trajectory(member)) is not None and first.setdefault(own, member["seed"]) != member["seed"]:
            found.append((first[own], member["seed"]))
    return found


def copies(records: Iterable[JobRecord]) -> list[str]:
    """Return which runs should differ and are one run: of one optimizer and two seeds, or of two optimizers."""
    seen: dict[tuple[str, Any, str], tuple[int, str, str]] = {}
    found: dict[str, None] = {}
    for record in records:
        key = _alike(record.config)
        optimizer = canonical_json({"own": record.config.get("optimizer")})
        for member in (record.result or {}).get("members", ()) if key else ():
            own = trajectory(member) if "seed" in member else None
            if own is None:
                continue
            who = member["seed"], optimizer, record.name or record.id
            place = key, canonical_json({"at": [member.get("rate"), member.get("point")]}), own
            seed, other, name = seen.setdefault(place, who)
            if other != optimizer:
                found[f"{name} and {who[2]}, seed {member['seed']}"] = None
            elif seed != member["seed"]:
                found[f"{name}, seeds {seed} and {member['seed']}"] = None
    return list(found)


def _alike(config: Mapping[str, Any]) -> str:
    """Return what runs that are compared share: all but seeds and optimizer; nothing of jobs without seeds."""
    apart = ("seeds", "search_seeds", "optimizer", "label")
    rest = {key: value for key, value in config.items() if key not in apart}
    return canonical_json(rest) if "seeds" in config else ""


def warnings(records: Sequence[JobRecord]) -> list[Text]:
    """Return a warning on runs that are copies, and on steps that do not repeat."""
    said = []
    if found := copies(records):
        rest = f"; and {len(found) - MOST_COPIES} more" if len(found) > MOST_COPIES else ""
        words = "; ".join(found[:MOST_COPIES])
        said.append(
            Text(f"Runs that should differ are one run, bit by bit, and count as several: {words}{rest}.", "warning")
        )
    if is_random(records):
        said.append(Text(f"Not deterministic: {badge(records).removeprefix('NO: ')}.", "warning"))
    return said

"""Tables and figures of an inspection that the study of features does not have: claims, transfer, checkpoints."""

import json
from collections.abc import Sequence
from typing import Any

from muonlab.report.findings import Axis, Column, Element, Figure, Record, Table, Value
from muonlab.stats.effects import mean
from muonlab.stats.results import Estimate
from muonlab.studies.checkpoints.config import StudyData
from muonlab.studies.checkpoints.readings import DATA, GROUP, Inspected, Net, compared
from muonlab.studies.checkpoints.verdict import measures, over, single_rivals
from muonlab.study.judge import Judged
from muonlab.study.sections import comparison_columns, comparison_values, forest, over_runs
from muonlab.study.study import ALPHA, Found

EXAMPLES = (
    "With one checkpoint per group the interval is over test examples, in pairs where both saw the same: (a) and (c) "
    "of hit rates, (b) of the mean, not the median, over layers. For (d), one rank of all examples together, it "
    "combines the intervals of both ranks: the difference of their middles, plus or minus the root of their summed "
    "squared half-widths. The ranks are of the same examples, so it is too wide rather than too narrow. With few "
    "examples a rank is biased low, which its interval corrects, so the difference may lie off the middle. Its p is "
    "that of a normal interval."
)


def claims(found: Found[Inspected], judged: Sequence[Judged]) -> tuple[Element, ...]:
    """Return every comparison, drawn and in a table; none where nothing is compared."""
    shown = [each for each in judged if each.comparisons]
    if not shown:
        return ()
    first = found.first.name
    titles = [f"({each.claim.letter}) {each.claim.quantities[0].short}" for each in shown]
    panels = tuple(
        forest(found, title, [(f"minus {found.name(pair.rival)}", pair) for pair in each.comparisons])
        for title, each in zip(titles, shown, strict=True)
    )
    caption = f"Difference, {first} minus each other group, with its 95% interval. " + (
        EXAMPLES if single_rivals(found) else "Means over checkpoints (Welch); n of both."
    )
    axis = Axis(f"difference, {first} minus the other")
    columns = (
        Column("claim", "Claim"),
        Column("rival", "Other"),
        *comparison_columns(found)[:-1],
        Column("over", "Interval over"),
    )
    rows = tuple(
        (title, found.name(pair.rival), *comparison_values(pair)[:-1], over(pair).removeprefix("over "))
        for title, each in zip(titles, shown, strict=True)
        for pair in each.comparisons
    )
    note = (
        f"Holm’s p is adjusted over the comparisons of a claim; a side is named where it is at most {ALPHA:g}. "
        "Intervals are 95%, each for itself."
    )
    table = Table("comparisons", "Every comparison", columns, rows, note)
    return Figure("claims", "Differences", caption, axis, Axis(""), panels), table


def transfer(found: Found[Inspected]) -> tuple[Element, ...]:
    """Return the accuracy of a linear probe on another task; none where it is not measured."""
    spread, rows = compared(found), []
    for name, nets in found.runs.nets.items():
        probed = [net.transfer for net in nets if net.transfer]
        if not probed:
            continue
        if spread.of_examples and probed[0].get("by_example"):
            accuracy = _over_examples(probed[0]["accuracy"], probed[0]["by_example"])
        else:
            accuracy = over_runs(each["accuracy"] for each in probed)
        rows.append((name, accuracy, probed[0].get("chance"), len(probed)))
    if not rows:
        return ()
    columns = (
        GROUP,
        Column("accuracy", "Linear probe", "accuracy"),
        Column("chance", "Chance", "accuracy"),
        Column("n", "n", "count"),
    )
    note = (
        f"Test accuracy of a linear probe of the last hidden states on another task, with {spread.layer_spread}. The "
        "weights of the net stay as they are."
    )
    return (Table("transfer", "Accuracy of linear probes on another task", columns, tuple(rows), note),)


def checkpoints(found: Found[Inspected]) -> tuple[Element, ...]:
    """Return every net with its numbers; none where nothing is measured."""
    rows = tuple(_checkpoint(net) for nets in found.runs.nets.values() for net in nets)
    if not rows:
        return ()
    columns = (
        GROUP,
        Column("checkpoint", "Checkpoint"),
        Column("member", "Member", "count"),
        Column("clean_loss", "Clean loss", "number"),
        Column("clean", "Clean accuracy", "accuracy"),
        Column("corrupted", "Corrupted accuracy", "accuracy"),
        Column("margin", "Margin / norm", "ratio"),
        Column("rank", "Effective rank", "ratio"),
        Column("transfer", "Linear probe on other data", "accuracy"),
    )
    note = "Intervals: 95%, over the test examples. Member: of a file that holds several nets, counted from 0."
    return (Table("checkpoints", "Every checkpoint", columns, rows, note),)


def _checkpoint(net: Net) -> tuple[Value, ...]:
    own = measures(net)
    examples = {
        "clean": net.clean_by_example,
        "corrupted": net.corrupted_by_example,
        "transfer": (net.transfer or {}).get("by_example") or [],
    }
    values = (_over_examples(value, examples[key]) if key in examples else value for key, value in own.items())
    return net.group, net.checkpoint, net.member, net.clean_loss, *values


def _over_examples(accuracy: float | None, examples: list[float]) -> Estimate | None:
    """Return an accuracy with the interval of the examples' hit rates, which ends where accuracies end."""
    if accuracy is None:
        return None
    found = mean(examples)
    if found.lower is None or found.upper is None:
        return Estimate(accuracy, None, None, reason=found.reason)
    return Estimate(accuracy, max(found.lower, 0.0), min(found.upper, 1.0))


# -- data and settings -----------------------------------------------------------------------------


def sources(found: Found[Inspected]) -> tuple[Element, ...]:
    """Return the nets, what was read, and the settings in full."""
    runs = found.runs
    shared = {} if runs.record is None else dict(runs.record.environment)
    diff = shared.pop("uncommitted_diff", None)
    notes = tuple((note,) for note in runs.result.get("notes", ()))
    words = [f"{key}={','.join(values)}" for key, values in runs.settings.items() if key != "models"]
    command = " ".join(("muonlab inspect", *runs.settings.get("models", ()), *words))
    records = (
        Record(f"Config in full: {command}", _pretty(runs.asked.model_dump(mode="json"))),
        *((Record("Environment of the job", _pretty(shared)),) if shared else ()),
        *((Record("Uncommitted changes of the source", str(diff)),) if diff else ()),
    )
    if not found.cases:
        return records
    read = Table("read", "What was read, and what was skipped", (Column("note", "Read, and skipped"),), notes)
    return (_nets(runs), *((read,) if notes else ()), *records)


def _nets(runs: Inspected) -> Table:
    """Return the net, parameters and taps of every group, and how much was measured."""
    data = f"{runs.data}, of the study of features" if isinstance(runs.asked.data, StudyData) else runs.data
    sizes = [runs.result.get(key) for key in ("chance", "num_examples", "num_probe_train", "num_probe_test")]
    rows = tuple(
        (each["name"], data, each["net"], each["num_parameters"], ", ".join(each["taps"]), *sizes)
        for each in runs.result["groups"]
    )
    columns = (
        GROUP,
        DATA,
        Column("net", "Net"),
        Column("num_parameters", "Parameters", "count"),
        Column("taps", "Taps"),
        Column("chance", "Chance", "accuracy"),
        Column("num_examples", "Test examples", "count"),
        Column("num_probe_train", "Probe’s train", "count"),
        Column("num_probe_test", "Probe’s test", "count"),
    )
    note = "Taps: the modules whose outputs are the hidden states, from the input up."
    return Table("nets", "Nets and data", columns, rows, note)


def _pretty(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False)

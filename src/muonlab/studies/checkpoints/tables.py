"""Tables and figures of an inspection that the study of features has none of: claims, transfer, checkpoints."""

import json
from collections.abc import Sequence
from typing import Any

from muonlab.report.findings import (
    Axis,
    Column,
    Element,
    Figure,
    Forest,
    ForestRow,
    Record,
    Table,
    Value,
)
from muonlab.stats.effects import mean
from muonlab.stats.results import Estimate
from muonlab.studies.checkpoints.claims import Judged
from muonlab.studies.checkpoints.config import StudyData
from muonlab.studies.checkpoints.readings import DATA, GROUP, Inspected, Net
from muonlab.studies.checkpoints.verdict import over
from muonlab.study.measures.claims import ALPHA, Block
from muonlab.study.sections import over_runs

SHORT = {
    "a": "corrupted accuracy",
    "b": "margin / norm",
    "c": "accuracy of a linear probe elsewhere",
    "d": "effective rank, directions",
}
EXAMPLES = (
    "With one checkpoint a side the interval is over test examples, in pairs where both saw the same: (a) and (c) of "
    "hit rates, (b) of the mean, not the median, over layers. Of (d), a rank of all examples together, it is made of "
    "the two ranks’ own intervals: the difference of their middles, give or take the root of their summed squared "
    "half-widths. They saw the same examples, so it errs to the wide side; with few examples a rank comes out too low, "
    "which its interval takes off, so the difference may lie beside the middle. Its p is that of a normal interval."
)


# -- claims ----------------------------------------------------------------------------------------


def claims(found: Inspected, judged: Sequence[Judged]) -> tuple[Element, ...]:
    """Return every comparison, drawn and in a table; none where nothing is compared."""
    shown = [each for each in judged if each.blocks]
    if not shown:
        return ()
    has_singles = any(found.has_one_each(rival) for rival in found.rivals)
    panels = tuple(
        Forest(
            f"({each.claim.letter}) {SHORT[each.claim.letter]}",
            tuple(ForestRow(f"less {b.rival}", b.interval, _number(found, b)) for b in each.blocks),
            0.0,
            "lower",
            f"{found.first} higher",
            each.blocks[0].kind,
        )
        for each in shown
    )
    caption = f"Difference, {found.first} less each other, with its 95% interval. " + (
        EXAMPLES if has_singles else "Means over checkpoints (Welch); n of both."
    )
    axis = Axis(f"difference, {found.first} less another")
    return Figure("claims", "Differences", caption, axis, Axis(""), panels), _table(found, shown)


def _number(found: Inspected, block: Block) -> str:
    own, other = block.effect.n
    return f"{own} pairs" if found.has_one_each(block.rival) and own == other else block.n


def _table(found: Inspected, judged: Sequence[Judged]) -> Table:
    columns = (
        Column("claim", "Claim"),
        Column("rival", "Other"),
        Column("mean_first", found.first, "number"),
        Column("mean_rival", "Other’s", "number"),
        Column("difference", "Difference", "number"),
        Column("p", "p", "p"),
        Column("p_holm", "p, Holm", "p"),
        Column("side", f"{found.first} is"),
        Column("over", "Interval over"),
    )
    rows = tuple(_row(found, each, block) for each in judged for block in each.blocks)
    note = (
        f"Holm’s p is adjusted over the comparisons of a claim; a side is named where it is at most {ALPHA:g}. "
        "Intervals are 95%, each for itself."
    )
    return Table("comparisons", "Every comparison", columns, rows, note)


def _over(found: Inspected, block: Block) -> str:
    return over(found, block).removeprefix("over ").removeprefix("n = ").replace(" of test examples", "")


def _row(found: Inspected, judged: Judged, block: Block) -> tuple[Value, ...]:
    place = f"({judged.claim.letter}) {SHORT[judged.claim.letter]}", block.rival
    return *place, *block.means, block.interval, block.effect.p, block.adjusted_p, block.side, _over(found, block)


# -- transfer --------------------------------------------------------------------------------------


def transfer(found: Inspected) -> tuple[Element, ...]:
    """Return the accuracy of a linear probe on another task; none where it is not measured."""
    measured = {name: [net for net in nets if net.transfer] for name, nets in found.nets.items()}
    rows = [
        (name, _accuracy(found, [_probed(net) for net in nets]), (nets[0].transfer or {}).get("chance"), len(nets))
        for name, nets in measured.items()
        if nets
    ]
    if not rows:
        return ()
    columns = (
        GROUP,
        Column("accuracy", "Linear probe", "accuracy"),
        Column("chance", "Chance", "accuracy"),
        Column("n", "n", "count"),
    )
    note = (
        f"Test accuracy of a linear probe of the last hidden states on another task, with "
        f"{found.compared.layer_spread}. The weights stay as they are."
    )
    return (Table("transfer", "Accuracy of linear probes on another task", columns, tuple(rows), note),)


def _probed(net: Net) -> tuple[float | None, list[float]]:
    return (net.transfer["accuracy"], net.transfer.get("by_example") or []) if net.transfer else (None, [])


def _accuracy(found: Inspected, values: Sequence[tuple[float | None, list[float]]]) -> Estimate | None:
    """Return the mean over checkpoints; of one each, with its own interval over examples."""
    known = [(value, examples) for value, examples in values if value is not None]
    if not known:
        return None
    value, examples = known[0]
    if found.compared.of_examples and examples:
        return _of_examples(value, examples)
    return over_runs([each for each, _ in known])


# -- checkpoints, data and settings ----------------------------------------------------------------


def checkpoints(found: Inspected) -> tuple[Element, ...]:
    """Return every net with its numbers; none where nothing is measured."""
    rows = tuple(_checkpoint(net) for nets in found.nets.values() for net in nets)
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
        Column("transfer", "Linear probe elsewhere", "accuracy"),
    )
    note = "Intervals: 95%, over the test examples. Member: of a file that holds several nets, counted from 0."
    return (Table("checkpoints", "Every checkpoint", columns, rows, note),)


def _checkpoint(net: Net) -> tuple[Value, ...]:
    has_margins = bool(net.layers) and all(layer["margins"] for layer in net.layers)
    has_ranks = bool(net.layers) and all("raw" in layer for layer in net.layers)
    return (
        net.group,
        net.checkpoint,
        net.member,
        net.clean_loss,
        _of_examples(net.clean_accuracy, net.clean_by_example),
        _of_examples(net.corrupted_accuracy if net.accuracy else None, net.corrupted_by_example),
        net.margin("by_norm") if has_margins else None,
        net.rank() if has_ranks else None,
        _of_examples(*_probed(net)),
    )


def _of_examples(accuracy: float | None, examples: list[float]) -> Estimate | None:
    """Return an accuracy with the interval of the examples' hit rates, which ends where accuracies end."""
    if accuracy is None:
        return None
    found = mean(examples)
    if found.lower is None or found.upper is None:
        return Estimate(accuracy, None, None, reason=found.reason)
    return Estimate(accuracy, max(found.lower, 0.0), min(found.upper, 1.0))


def sources(found: Inspected) -> tuple[Element, ...]:
    """Return the nets, what was read, and the settings in full."""
    record = found.record
    shared = {} if record is None else dict(record.environment)
    diff = shared.pop("uncommitted_diff", None)
    return (
        *((nets(found), *_read(found)) if found.nets else ()),
        Record(f"Config in full: {command(found)}", _pretty(found.asked.model_dump(mode="json"))),
        *((Record("Environment of the job", _pretty(shared)),) if shared else ()),
        *((Record("Uncommitted changes of the source", str(diff)),) if diff else ()),
    )


def command(found: Inspected) -> str:
    """Return the command that asks for the same."""
    words = [f"{key}={','.join(values)}" for key, values in found.settings.items() if key != "models"]
    return " ".join(("muonlab inspect", *found.settings.get("models", ()), *words))


def nets(found: Inspected) -> Table:
    """Return the net, parameters and taps of every group, and how much was measured."""
    sizes = [found.result.get(key) for key in ("chance", "num_examples", "num_probe_train", "num_probe_test")]
    rows = tuple(
        (each["name"], _kind(found), each["net"], each["num_parameters"], ", ".join(each["taps"]), *sizes)
        for each in found.result["groups"]
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


def _kind(found: Inspected) -> str:
    data = found.asked.data
    return f"{found.data}, of the study of features" if isinstance(data, StudyData) else found.data


def _read(found: Inspected) -> tuple[Table, ...]:
    notes = tuple((note,) for note in found.result.get("notes", ()))
    columns = (Column("note", "Read, and skipped"),)
    return (Table("read", "What was read, and what was skipped", columns, notes),) if notes else ()


def _pretty(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False)

"""Tables and figures of an inspection that the study of features does not have: claims, transfer, checkpoints."""

from collections.abc import Sequence
from dataclasses import replace

from muonlab.report.findings import Column, Element, Table, Value
from muonlab.stats.effects import mean
from muonlab.stats.proportions import as_share, wilson
from muonlab.stats.results import Estimate
from muonlab.studies.checkpoints.config import StudyData
from muonlab.studies.checkpoints.readings import DATA, GROUP, Inspected, InspectionFound, Net, compared
from muonlab.studies.checkpoints.verdict import NUMBERS, copies, over, side_of, single_rivals
from muonlab.study.judge import Judged
from muonlab.study.screen import answers, figure, single
from muonlab.study.sections import (
    comparison_columns,
    comparison_values,
    config_in_full,
    environment,
    over_runs,
)
from muonlab.study.study import ALPHA

EXAMPLES = (
    "With one checkpoint per group the interval is over test examples, in pairs where both saw the same: (a) and (c) "
    "of hit rates, (b) of the mean, not the median, over layers. For (d), one rank of all examples together, it "
    "combines the intervals of both ranks: the difference of their middles, plus or minus the root of their summed "
    "squared half-widths. The ranks are of the same examples, so it is too wide rather than too narrow. With few "
    "examples a rank is biased low, which its interval corrects, so the difference may lie off the middle. Its p is "
    "that of a normal interval."
)


def first_screen(found: InspectionFound, judged: Sequence[Judged]) -> tuple[Element, ...]:
    """Return the differences of every claim, and a table of the answers; none where nothing is compared."""
    known = [each for each in judged if each.comparisons]
    if not known or set(copies(found)) == {arm.label for arm in found.rivals}:
        return ()
    is_single, effects, states = bool(single_rivals(found)), single(found), {"Answer": known}
    first = found.first.name
    caption = (
        f"{first} minus each other group, with 95% intervals over "
        f"{'test examples' if is_single else 'checkpoints'}. Filled: decided. Hollow: undecided."
    )
    table = answers("Claims", states, effects, label=(lambda each: side_of(each).capitalize()) if is_single else None)
    return replace(figure(found, "Differences", states, effects, caption), name="claims"), table


def claims(found: InspectionFound, judged: Sequence[Judged]) -> tuple[Element, ...]:
    """Return every comparison; none where nothing is compared."""
    if not any(each.comparisons for each in judged):
        return ()
    columns = (
        Column("claim", "Claim"),
        Column("rival", "Other"),
        *comparison_columns(found)[:-1],
        Column("over", "Interval over"),
    )
    rows = tuple(
        (_title(each), found.name(pair.rival), *comparison_values(pair)[:-1], over(pair).removeprefix("over "))
        for each in judged
        for pair in each.comparisons
    )
    note = (
        f"Difference: {found.first.name} minus the other. Holm’s p is adjusted over the comparisons of a claim; a side "
        f"is named where it is at most {ALPHA:g}. {EXAMPLES if single_rivals(found) else ''}"
    )
    return (Table("comparisons", "Every comparison", columns, rows, note.strip()),)


def _title(judged: Judged) -> str:
    return f"({judged.claim.letter}) {judged.claim.quantities[0].short}"


def transfer(found: InspectionFound) -> tuple[Element, ...]:
    """Return the accuracy of a linear probe on another task; none where it is not measured."""
    spread, rows = compared(found), []
    for name, nets in found.runs.nets.items():
        probed = [net.transfer for net in nets if net.transfer]
        if not probed:
            continue
        if spread.of_examples and probed[0].get("by_example"):
            accuracy = _over_examples(probed[0]["accuracy"], probed[0]["by_example"])
        else:
            accuracy = over_runs((each["accuracy"] for each in probed), "accuracy")
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


def checkpoints(found: InspectionFound) -> tuple[Element, ...]:
    """Return every net with its numbers; none where nothing is measured."""
    rows = tuple(_checkpoint(net) for nets in found.runs.nets.values() for net in nets)
    if not rows:
        return ()
    columns = (
        GROUP,
        Column("checkpoint", "Checkpoint"),
        Column("member", "Member", "count"),
        Column("clean_loss", "Clean loss", "number"),
        *(Column(key, title, kind) for key, (title, _, kind) in NUMBERS.items()),
    )
    note = "Intervals: 95%, over the test examples. Member: of a file that holds several nets, counted from 0."
    return (Table("checkpoints", "Every checkpoint", columns, rows, note),)


def _checkpoint(net: Net) -> tuple[Value, ...]:
    examples = {
        "clean": net.clean_by_example,
        "corrupted": net.corrupted_by_example,
        "transfer": (net.transfer or {}).get("by_example") or [],
    }
    numbers = net.numbers.items()
    values = (_over_examples(value, examples[key]) if key in examples else value for key, value in numbers)
    return net.group, net.checkpoint, net.member, net.clean_loss, *values


def _over_examples(accuracy: float | None, examples: list[float]) -> Estimate | None:
    """Return an accuracy with the interval of the examples' hit rates: Wilson's of hits, else that of a share."""
    if accuracy is None:
        return None
    if examples and set(examples) <= {0, 1}:
        return wilson(int(sum(examples)), len(examples))
    return replace(as_share(mean(examples)), value=accuracy)


def sources(found: InspectionFound) -> tuple[Element, ...]:
    """Return the nets, what was read, and the settings in full."""
    runs = found.runs
    words = [f"{key}={','.join(values)}" for key, values in runs.settings.items() if key != "models"]
    command = " ".join(("muonlab inspect", *runs.settings.get("models", ()), *words))
    records = (
        config_in_full(command, runs.asked.model_dump(mode="json")),
        *environment(() if runs.record is None else (runs.record,)),
    )
    if not found.cases:
        return records
    notes = tuple((note,) for note in runs.result.get("notes", ()))
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

"""Margins and ranks by layer, in a report."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import product
from statistics import fmean
from typing import Any

from muonlab.report.findings import Axis, Column, Element, Figure, Lines, Table, Value
from muonlab.stats.results import Estimate
from muonlab.studies.features.nets import CLEAN, CORRUPTED, Compared, Measured, Place
from muonlab.study.sections import columns, columns_of, line_of, over_runs
from muonlab.study.study import Arm

KINDS = {"by_norm": "by norm", "raw": "raw", "by_distance": "by distance"}
COUNTS = tuple(
    (form, count, words if form == "raw" else f"{words}, centred")
    for count, words in (
        ("effective_rank", "effective rank"),
        ("effective_rank_sigma", "effective rank of Roy & Vetterli"),
        ("stable_rank", "stable rank"),
        ("participation_ratio", "participation ratio"),
    )
    for form in ("raw", "centred")
)
Layer = dict[str, Any]


def margins(compared: Compared) -> tuple[Element, ...]:
    """Return figures and tables of the probes' margins; none where nothing is measured."""
    panels = tuple(
        _panel(compared, place, "margins", f"{place.name}, {where}", partial(_median, where=where))
        for place in compared.places
        for where in _inputs(compared, place)
    )
    if not panels:
        return ()
    severity = " and ".join(map(str, sorted({place.margin_severity for place in compared.places})))
    caption = (
        f"Median margin of each layer’s probe over held-out examples, divided by the norm of the probe, with "
        f"{compared.layer_spread}{_grey(compared)}. Corrupted: the same probes on inputs under all corruptions at "
        f"severity {severity}. Below 0, the median example is misjudged."
    )
    if compared.of_examples:
        caption += (
            " On corrupted inputs an example counts again under every corruption, so those intervals are too narrow."
        )
    figure = _figure(compared, "margins", "Margins by layer", caption, "margin / norm", panels)
    return figure, below_zero(compared), every_margin(compared)


def ranks(compared: Compared) -> tuple[Element, ...]:
    """Return figures and tables of the ranks of hidden states; none where nothing is measured."""
    measured = [place for place in compared.places if _whose(compared, place, "raw")]
    if not measured:
        return ()
    panels = tuple(_panel(compared, place, "raw", place.name, _effective_rank) for place in measured)
    caption = (
        "Effective rank of the hidden states of test examples as the paper counts it (squared singular values, not "
        f"centred), with {compared.layer_spread}{_grey(compared)}."
    )
    figure = _figure(compared, "ranks", "Effective rank by layer", caption, "effective rank", panels)
    return figure, mean_ranks(compared), every_rank(compared)


# -- who has what ----------------------------------------------------------------------------------


def _whose(compared: Compared, place: Place, key: str) -> list[Arm]:
    """Return the arms whose layers have "margins", or ranks ("raw")."""
    return [arm for arm in compared.everyone if any(layer.get(key) for m in place.of(arm) for layer in m.layers)]


def _inputs(compared: Compared, place: Place) -> list[str]:
    """Return the inputs on which there are margins: clean ones, corrupted ones, both or none."""
    layers = [arm.label for arm in _whose(compared, place, "margins")]
    found = {where for key in layers for model in place.models[key] for where in model.layers[0]["margins"]}
    return [where for where in (CLEAN, CORRUPTED) if where in found]


def _with_layer(place: Place, arm: Arm, number: int) -> list[Measured]:
    return [model for model in place.of(arm) if number < len(model.layers)]


def _layers(compared: Compared, place: Place, key: str) -> Iterator[tuple[int, Arm, list[Measured]]]:
    """Yield each layer's number and the nets of each arm that have it."""
    for number in range(place.depth):
        for arm in _whose(compared, place, key):
            if models := _with_layer(place, arm, number):
                yield number, arm, models


def _grey(compared: Compared) -> str:
    return "; grey, without an interval: the net before training" if compared.baseline else ""


def _is_alike(compared: Compared) -> bool:
    return all(place.is_alike for place in compared.places)


# -- figures ---------------------------------------------------------------------------------------


def _figure(compared: Compared, name: str, title: str, caption: str, y: str, panels: tuple[Lines, ...]) -> Figure:
    x = "layer"
    if not _is_alike(compared):
        x = "layer / number of layers"
        caption += " The nets differ, so layers are drawn by their relative depth: 1 is the last of each net."
    return Figure(name, title, caption, Axis(x), Axis(y), panels)


def _median(layer: Layer, where: str) -> tuple[float, list[float]]:
    found = layer["margins"][where]["by_norm"]
    return found["median"], found["median_interval"]


def _effective_rank(layer: Layer) -> tuple[float, list[float]]:
    return layer["raw"]["effective_rank"], _rank_bounds(layer)


def _rank_bounds(layer: Layer) -> list[float]:
    return layer.get("effective_rank_interval") or [layer["raw"]["effective_rank"]] * 2


def _panel(
    compared: Compared, place: Place, key: str, title: str, measure: Callable[[Layer], tuple[float, list[float]]]
) -> Lines:
    lines = []
    for arm in _whose(compared, place, key):
        models = place.of(arm)
        depth = range(len(models[0].layers))
        places = [number + 1 if _is_alike(compared) else (number + 1) / len(depth) for number in depth]
        found = [[measure(model.layers[layer]) for model in models] for layer in depth]
        points = [_point(compared, each) for each in found]
        drawn = line_of(arm.series, len(models), places, points)
        if arm == compared.baseline:  # its band may be so wide that nothing else is seen; the tables have it
            drawn = replace(drawn, lower=(None,) * len(depth), upper=(None,) * len(depth))
        lines.append(drawn)
    return Lines(title, tuple(lines))


def _point(compared: Compared, found: list[tuple[float, list[float]]]) -> Estimate:
    """Return the mean over runs; of one run, where that is all, its own interval over examples."""
    if compared.of_examples:
        value, (lower, upper) = found[0]
        return Estimate(value, lower, upper)
    return over_runs([value for value, _ in found])


# -- tables ----------------------------------------------------------------------------------------


def _over_examples(values: list[float], intervals: list[list[float]]) -> Estimate:
    """Return the mean over runs of a value and of the bounds of its interval over examples."""
    return Estimate(fmean(values), fmean(each[0] for each in intervals), fmean(each[1] for each in intervals))


def below_zero(compared: Compared) -> Table:
    """Return the share of examples that the probe of each layer misjudges."""
    rows = []
    for place in compared.places:
        for where, number in product(_inputs(compared, place), range(place.depth)):
            shares = (
                [model.layers[number]["margins"][where]["below_zero"] for model in _with_layer(place, arm, number)]
                for arm in compared.everyone
            )
            cells = (over_runs(each, "accuracy") if each else None for each in shares)
            rows.append((place.name, where, number + 1, *cells))
    head = *columns("inputs: Inputs; layer: Layer [count]"), *columns_of(compared.everyone, "accuracy")
    note = f"Share of held-out examples that the layer’s probe misjudges, with {compared.spread}."
    if not _is_alike(compared):
        note += " The nets differ: layers of one number have little else in common."
    return Table("below-zero", "Margins below zero", (compared.place, *head), tuple(rows), note)


def every_margin(compared: Compared) -> Table:
    """Return every kind of margin of every layer, with intervals over runs and over examples."""
    rows = tuple(
        (place.name, where, words, number + 1, *_margin(models, arm, number, where, kind))
        for place in compared.places
        for where, (kind, words) in product(_inputs(compared, place), KINDS.items())
        for number, arm, models in _layers(compared, place, "margins")
    )
    head = (
        *(compared.place, *columns("inputs: Inputs; margin: Margin; layer: Layer [count]; tap: Tap"), compared.arm),
        *columns("median: Median [number]; median_examples: Median, over examples [number]; mean: Mean [number]"),
        *columns("mean_examples: Mean, over examples [number]; n: n [count]"),
    )
    note = (
        f"Median and mean: over the {compared.runs}, n runs, with 95% intervals between {compared.runs}. “Over "
        "examples”: how sure one run is of its own number, the mean over runs of its value and of the bounds of its "
        "95% bootstrap interval over examples."
    )
    return Table("margins-by-layer", "Every margin of every layer", head, rows, note, folded=True)


def _margin(models: list[Measured], arm: Arm, number: int, where: str, kind: str) -> tuple[Value, ...]:
    cells: list[Value] = [models[0].layers[number]["tap"], arm.name]
    for what in ("median", "mean"):
        own = [model.layers[number]["margins"][where][kind] for model in models]
        values = [each[what] for each in own]
        cells += [over_runs(values), _over_examples(values, [each[f"{what}_interval"] for each in own])]
    return *cells, len(models)


def mean_ranks(compared: Compared) -> Table:
    """Return every count of directions, mean over layers."""
    rows = []
    for place in compared.places:
        if _whose(compared, place, "raw"):
            for form, count, words in COUNTS:
                ranks = ([model.rank(count, form) for model in place.of(arm)] for arm in compared.everyone)
                rows.append((place.name, words, *(over_runs(each) if each else None for each in ranks)))
    head = compared.place, Column("count", "Count"), *columns_of(compared.everyone, "ratio")
    note = f"Mean over layers, with {compared.spread}. The first count of each net is the claim’s."
    return Table("ranks-mean", "Ranks, mean over layers", head, tuple(rows), note)


def every_rank(compared: Compared) -> Table:
    """Return every count of directions of every layer."""
    rows = tuple(
        (place.name, number + 1, *_rank([model.layers[number] for model in models], arm))
        for place in compared.places
        for number, arm, models in _layers(compared, place, "raw")
    )
    head = (
        *(compared.place, *columns("layer: Layer [count]; tap: Tap"), compared.arm),
        *(Column(f"{count}_{form}", words.capitalize(), "ratio") for form, count, words in COUNTS),
        *columns("effective_rank_examples: Effective rank, over examples [ratio]; examples: Examples [count]"),
        *columns("width: Width [count]; examples_per_width: Examples / width [ratio]; n: n [count]"),
    )
    note = (
        f"95% intervals over {compared.runs}; “over examples”: the mean over runs of the 95% interval of one run. No "
        "count can exceed the width or the number of examples."
    )
    return Table("ranks-by-layer", "Every rank of every layer", head, rows, note, folded=True)


def _rank(own: list[Layer], arm: Arm) -> tuple[Value, ...]:
    counts = (over_runs([each[form][count] for each in own]) for form, count, _ in COUNTS)
    of_examples = _over_examples([each["raw"]["effective_rank"] for each in own], [_rank_bounds(each) for each in own])
    examples, width = own[0]["num_examples"], own[0]["width"]
    return own[0]["tap"], arm.name, *counts, of_examples, examples, width, examples / width, len(own)

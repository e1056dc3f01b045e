"""Margins and ranks by layer, in the report."""

from collections.abc import Callable
from dataclasses import replace
from statistics import fmean
from typing import Any

from muonlab.runs.findings import Axis, Column, Element, Figure, Interval, Lines, Table, Value
from muonlab.studies.features.readings import CLEAN, FamilyRuns, FeatureRuns, Model
from muonlab.studies.features.rounds import FINAL, UNTRAINED
from muonlab.studies.features.seeds import columns_of, line, over_seeds, series_of

CORRUPTED = "corrupted"
KINDS = {"by_norm": "by norm", "raw": "raw", "by_distance": "by distance"}
COUNTS = (
    ("raw", "effective_rank", "effective rank"),
    ("centred", "effective_rank", "effective rank, centred"),
    ("raw", "effective_rank_sigma", "effective rank of Roy & Vetterli"),
    ("centred", "effective_rank_sigma", "the same, centred"),
    ("raw", "stable_rank", "stable rank"),
    ("centred", "stable_rank", "stable rank, centred"),
    ("raw", "participation_ratio", "participation ratio"),
    ("centred", "participation_ratio", "participation ratio, centred"),
)
Layer = dict[str, Any]


def margins(runs: FeatureRuns) -> tuple[Element, ...]:
    """Return figures and tables of the probes' margins; none where nothing is measured."""
    if not any(_whose(family) for family in runs.families):
        return ()
    panels = tuple(
        _panel(
            family, f"{family.name}, {where}", lambda layer, where=where: layer["margins"][where]["by_norm"]["median"]
        )
        for family in runs.families
        if _whose(family)
        for where in (CLEAN, CORRUPTED)
    )
    severities = {family.plan.measuring.margin_severity for family in runs.families}
    severity = " and ".join(map(str, sorted(severities)))
    caption = (
        "Median margin of each layer’s probe over held-out examples, divided by the norm of the probe, with 95% "
        "intervals over seeds; grey, without an interval: the net before training. Corrupted: the same probes on "
        f"inputs under all corruptions at severity {severity}. Below 0, the median example is misjudged."
    )
    figure = Figure("margins", "Margins by layer", caption, Axis("layer"), Axis("margin / norm"), panels)
    return figure, below_zero(runs), every_margin(runs)


def ranks(runs: FeatureRuns) -> tuple[Element, ...]:
    """Return figures and tables of the ranks of hidden states; none where nothing is measured."""
    measured = [family for family in runs.families if _whose(family)]
    if not measured:
        return ()
    panels = tuple(_panel(family, family.name, lambda layer: layer["raw"]["effective_rank"]) for family in measured)
    caption = (
        "Effective rank of the hidden states of test examples as the paper counts it (squared singular values, not "
        "centred), with 95% intervals over seeds; grey, without an interval: the net before training."
    )
    figure = Figure("ranks", "Effective rank by layer", caption, Axis("layer"), Axis("effective rank"), panels)
    return figure, mean_ranks(runs), every_rank(runs)


def _whose(family: FamilyRuns) -> list[str]:
    """Return the optimizers that have measured runs, and UNTRAINED."""
    found = [name for name in family.optimizers if family.of(name, FINAL)]
    return [*found, UNTRAINED] if _models(family, UNTRAINED) else found


def _models(family: FamilyRuns, name: str) -> list[Model]:
    return family.of(family.optimizers[0], UNTRAINED) if name == UNTRAINED else family.of(name, FINAL)


def _panel(family: FamilyRuns, title: str, measure: Callable[[Layer], float]) -> Lines:
    lines = []
    for name in _whose(family):
        models = _models(family, name)
        depth = range(len(models[0].layers))
        values = [[measure(model.layers[layer]) for model in models] for layer in depth]
        drawn = line(name, [layer + 1 for layer in depth], values)
        if name == UNTRAINED:  # its band may be so wide that nothing else is seen; the tables have it
            drawn = replace(drawn, lower=(None,) * len(depth), upper=(None,) * len(depth))
        lines.append(drawn)
    return Lines(title, tuple(lines))


def _layers(family: FamilyRuns) -> list[tuple[int, str]]:
    """Return the number and name of every layer."""
    models = [model for name in _whose(family) for model in _models(family, name)]
    return [(number, layer["tap"]) for number, layer in enumerate(models[0].layers)] if models else []


def _mean(values: list[float]) -> Interval | None:
    return over_seeds(values) if values else None


def _over_examples(values: list[float], intervals: list[list[float]]) -> Interval:
    """Return the mean over runs of a value and of the bounds of its interval over examples."""
    return Interval(fmean(values), fmean(each[0] for each in intervals), fmean(each[1] for each in intervals))


def below_zero(runs: FeatureRuns) -> Table:
    """Return the share of examples that the probe of each layer misjudges."""
    everyone = (runs.first, *runs.rivals, UNTRAINED)
    rows = []
    for family in runs.families:
        for where in (CLEAN, CORRUPTED):
            for number, _ in _layers(family):
                cells = [
                    _mean([model.layers[number]["margins"][where]["below_zero"] for model in _models(family, name)])
                    for name in everyone
                ]
                rows.append((family.name, where, number + 1, *cells))
    columns = (
        Column("family", "Net and data"),
        Column("inputs", "Inputs"),
        Column("layer", "Layer", "count"),
        *columns_of(everyone, "accuracy"),
    )
    note = "Share of held-out examples that the layer’s probe misjudges, with 95% intervals over seeds."
    return Table("below-zero", "Margins below zero", columns, tuple(rows), note)


def every_margin(runs: FeatureRuns) -> Table:
    """Return every kind of margin of every layer, with intervals over seeds and over examples."""
    rows = tuple(
        (family.name, where, words, number + 1, tap, series_of(name).label, *_margin(family, name, number, where, kind))
        for family in runs.families
        for where in (CLEAN, CORRUPTED)
        for kind, words in KINDS.items()
        for number, tap in _layers(family)
        for name in _whose(family)
    )
    columns = (
        Column("family", "Net and data"),
        Column("inputs", "Inputs"),
        Column("margin", "Margin"),
        Column("layer", "Layer", "count"),
        Column("tap", "Tap"),
        Column("optimizer", "Optimizer"),
        Column("median", "Median", "number"),
        Column("median_examples", "Median, over examples", "number"),
        Column("mean", "Mean", "number"),
        Column("mean_examples", "Mean, over examples", "number"),
        Column("n", "n", "count"),
    )
    note = (
        "Median and mean: over the seeds, n runs, with 95% intervals between seeds. “Over examples”: how sure one run "
        "is of its own number, the mean over runs of its value and of the bounds of its 95% bootstrap interval over "
        "examples."
    )
    return Table("margins-by-layer", "Every margin of every layer", columns, rows, note, folded=True)


def _margin(family: FamilyRuns, name: str, layer: int, where: str, kind: str) -> tuple[Value, ...]:
    models = _models(family, name)
    cells: list[Value] = []
    for what in ("median", "mean"):
        own = [model.layers[layer]["margins"][where][kind] for model in models]
        values = [each[what] for each in own]
        cells += [over_seeds(values), _over_examples(values, [each[f"{what}_interval"] for each in own])]
    return *cells, len(models)


def mean_ranks(runs: FeatureRuns) -> Table:
    """Return every count of directions, mean over layers."""
    everyone = (runs.first, *runs.rivals, UNTRAINED)
    rows = tuple(
        (
            family.name,
            words,
            *(_mean([model.rank(count, form) for model in _models(family, name)]) for name in everyone),
        )
        for family in runs.families
        if _whose(family)
        for form, count, words in COUNTS
    )
    columns = Column("family", "Net and data"), Column("count", "Count"), *columns_of(everyone, "ratio")
    note = "Mean over layers, with 95% intervals over seeds. The first count of each net is the claim’s."
    return Table("ranks-mean", "Ranks, mean over layers", columns, rows, note)


def every_rank(runs: FeatureRuns) -> Table:
    """Return every count of directions of every layer."""
    rows = tuple(
        (family.name, number + 1, tap, series_of(name).label, *_rank(family, name, number))
        for family in runs.families
        for number, tap in _layers(family)
        for name in _whose(family)
    )
    columns = (
        Column("family", "Net and data"),
        Column("layer", "Layer", "count"),
        Column("tap", "Tap"),
        Column("optimizer", "Optimizer"),
        *(Column(f"{count}_{form}", words.capitalize(), "ratio") for form, count, words in COUNTS),
        Column("effective_rank_examples", "Effective rank, over examples", "ratio"),
        Column("examples", "Examples", "count"),
        Column("width", "Width", "count"),
        Column("examples_per_width", "Examples / width", "ratio"),
        Column("n", "n", "count"),
    )
    note = (
        "95% intervals over seeds; “over examples”: the mean over runs of the 95% interval of one run. No "
        "count can exceed the width or the number of examples."
    )
    return Table("ranks-by-layer", "Every rank of every layer", columns, rows, note, folded=True)


def _rank(family: FamilyRuns, name: str, layer: int) -> tuple[Value, ...]:
    own = [model.layers[layer] for model in _models(family, name)]
    values = [each["raw"]["effective_rank"] for each in own]
    examples, width = own[0]["num_examples"], own[0]["width"]
    return (
        *(over_seeds([each[form][count] for each in own]) for form, count, _ in COUNTS),
        _over_examples(values, [each["effective_rank_interval"] for each in own]),
        examples,
        width,
        examples / width,
        len(own),
    )

"""Sections of the features report: claims, states, robustness beyond clean accuracy, transfer, data and settings."""

from collections.abc import Sequence
from statistics import fmean

from muonlab.report.findings import Axis, Column, Element, Figure, Series, Table, Text, Value
from muonlab.stats.results import Estimate
from muonlab.studies.features.claims import BEYOND_CLEAN, CLAIMS, EQUAL, MATCHED
from muonlab.studies.features.jobs import FINAL, LINEAR, NEW, UNTRAINED, matched
from muonlab.studies.features.nets import Compared, Place
from muonlab.studies.features.readings import FamilyRuns, FeaturesFound, Model, Transferred
from muonlab.studies.features.robustness import sheet_of
from muonlab.study.compare import compare
from muonlab.study.judge import Judged
from muonlab.study.sections import (
    columns_of,
    comparison_columns,
    comparison_values,
    every_job,
    forest,
    in_full,
    optimizer_settings,
    over_runs,
)
from muonlab.study.study import ALPHA, Arm

MOST_ROWS = 20  # that stand open
BASELINE = Arm(UNTRAINED, Series("untrained", "none"))
FAMILY = Column("family", "Net and data")
TASKS = {"classes": "other classes", "language": "another text"}


def at_the_end(found: FeaturesFound) -> Compared:
    """Return every arm at the end of training, and the nets before it, as layers.py and robustness.py take them."""
    return Compared(
        arms=found.arms,
        places=tuple(_place(family) for family in found.runs.families.values()),
        baseline=BASELINE,
        when="at the end of training",
        accuracy_note="Of a text, accuracy is that of the next token.",
    )


def _place(family: FamilyRuns) -> Place:
    models = {label: family.of(label, FINAL) for label in family.arms}
    models[UNTRAINED] = family.of(family.arms[0], UNTRAINED)
    return Place(family.name, models, family.sizes.get("chance"), family.plan.measuring.margin_severity)


# -- claims ----------------------------------------------------------------------------------------


def claims(found: FeaturesFound, judged: Sequence[tuple[Judged, Judged]]) -> tuple[Element, ...]:
    """Return the figures and tables of all claims, each at equal budget and at matched loss."""
    if not any(equal.comparisons for equal, _ in judged):
        return (Text("No case has measured runs of two arms yet."),)
    figures = [figure for both in judged for figure in _forests(found, both)]
    return (*figures, _comparisons(found, judged), _other_counts(found))


def _forests(found: FeaturesFound, both: tuple[Judged, Judged]) -> list[Figure]:
    """Return a figure per quantity of a claim, with a panel per state."""
    claim, figures = both[0].claim, []
    for quantity in claim.quantities:
        panels = []
        for judged, title in zip(both, ("at equal budget", "at matched clean validation loss"), strict=True):
            rows = [
                (f"{pair.case.name}, {found.name(pair.rival)}", pair)
                for pair in judged.comparisons
                if pair.quantity is quantity
            ]
            if rows:
                panels.append(forest(found, title, rows))
        if not panels:
            continue
        is_one = len(claim.quantities) == 1
        name = f"claim-{claim.letter}" + ("" if is_one else f"-{quantity.short.replace(' ', '-')}")
        title = f"({claim.letter}) {claim.title}" + ("" if is_one else f", {quantity.short}")
        caption = f"Difference of {quantity.name}, {found.first.name} minus each rival, with its 95% interval (Welch)."
        if not quantity.is_asked(found.cases[0], MATCHED):
            caption += " Mean over fine-tuning optimizers; only weights of the end are fine-tuned."
        axis = Axis(f"difference of {quantity.unit}")
        figures.append(Figure(name, title, caption, axis, Axis(""), tuple(panels)))
    return figures


def _columns(found: FeaturesFound) -> tuple[Column, ...]:
    place = Column("claim", "Claim"), Column("comparison", "Comparison"), FAMILY, Column("rival", "Rival")
    return *place, *comparison_columns(found)


def _comparisons(found: FeaturesFound, judged: Sequence[tuple[Judged, Judged]]) -> Table:
    rows = tuple(
        (
            f"({each.claim.letter}) {quantity.short}",
            str(each.state),
            pair.case.name,
            found.name(pair.rival),
            *comparison_values(pair),
        )
        for both in judged
        for each in both
        for quantity in each.claim.quantities
        for pair in each.comparisons
        if pair.quantity is quantity
    )
    note = (
        f"Holm’s p is adjusted over the comparisons of a claim, at equal budget and at matched loss separately; a side "
        f"is named where it is at most {ALPHA:g}. Intervals are 95%, each for itself. n: runs of {found.first.name} + "
        "of the rival."
    )
    return Table("claims", "Every comparison", _columns(found), rows, note, folded=len(rows) > MOST_ROWS)


def _other_counts(found: FeaturesFound) -> Table:
    columns = _columns(found)
    shown = [number for number, column in enumerate(columns) if column.key not in ("p_holm", "side")]
    rows = []
    for claim in CLAIMS:
        for state in (EQUAL, MATCHED):
            for pair in compare(found, claim.others, state):
                where = f"({claim.letter}) {pair.quantity.name}", state, pair.case.name, found.name(pair.rival)
                row = (*where, *comparison_values(pair))
                rows.append(tuple(row[number] for number in shown))
    note = "These do not enter the verdict; p is not adjusted."
    kept = tuple(columns[number] for number in shown)
    return Table("other-counts", "Other ways to count", kept, tuple(rows), note, folded=True)


def beyond_clean(found: FeaturesFound) -> tuple[Element, ...]:
    """Return what clean accuracy does not explain of robustness; none where that is not known."""
    pairs = compare(found, (BEYOND_CLEAN,))
    if not pairs:
        return ()
    rows = []
    for pair in pairs:
        family = found.runs.families[pair.case.name]
        both = (over_runs(family.effective_robustness(each).values()) for each in (found.first.label, pair.rival))
        p = pair.effect.p, pair.adjusted_p, pair.side
        rows.append((family.name, found.name(pair.rival), *both, pair.estimate, *p, pair.n, _line(family)))
    columns = (
        FAMILY,
        Column("rival", "Rival"),
        Column("first", found.first.name, "ratio"),
        Column("rival_value", "Rival’s", "ratio"),
        Column("difference", "Difference", "ratio"),
        Column("p", "p", "p"),
        Column("p_holm", "p, Holm", "p"),
        Column("side", f"{found.first.name} is"),
        Column("n", "n"),
        Column("line", "Rivals’ line"),
    )
    severities = {case.measuring.path_severity for case in found.cases}
    note = (
        f"In log-odds, at severity {' and '.join(map(str, sorted(severities)))}; 95% intervals over seeds, which do "
        "not include the uncertainty of the fit itself. The rivals’ own evaluations made the fit, so theirs are near 0 "
        "by construction where they follow a line."
    )
    words = (
        "Nets that are better on clean inputs are mostly better on corrupted ones too. Effective robustness is what is "
        "left: how far corrupted accuracy at the end lies above what clean accuracy predicts, on the line through all "
        f"evaluations of {found.names()} during training. Above 0, a net is more robust than its clean accuracy "
        "explains."
    )
    return Text(words), Table("effective-robustness", "Effective robustness", columns, tuple(rows), note)


def _line(family: FamilyRuns) -> str:
    if family.fit is None:
        return ""
    slope, intercept = family.fit
    return f"{slope:.2f} x {'+' if intercept >= 0 else '−'} {abs(intercept):.2f}"


# -- states ----------------------------------------------------------------------------------------


def states(found: FeaturesFound) -> tuple[Element, ...]:
    """Return each arm at the end of training and at matched loss; none where nothing is measured."""
    rows = [row for family in found.runs.families.values() for row in _states(found, family)]
    if not rows:
        return ()
    columns = (
        FAMILY,
        Column("state", "State"),
        Column("optimizer", "Optimizer"),
        Column("step", "Step", "number"),
        Column("validation_loss", "Validation loss met", "number"),
        Column("test_loss", "Clean test loss", "number"),
        Column("clean", "Clean accuracy", "accuracy"),
        Column("corrupted", "Corrupted accuracy", "accuracy"),
        Column("margin", "Margin / norm", "ratio"),
        Column("rank", "Effective rank", "ratio"),
        Column("n", "n", "count"),
    )
    note = (
        "Means over seeds, with 95% intervals. Matched: each run at its first evaluation at or below the smallest "
        "clean validation loss that every run of both optimizers reached. Evaluations are some steps apart, so a run "
        "may meet a smaller loss than asked for; the loss that it met is shown, on up to 256 examples, or 96 windows "
        "of text, of validation."
    )
    return (Table("states", "At the end, and at matched loss", columns, tuple(rows), note),)


def _states(found: FeaturesFound, family: FamilyRuns) -> list[tuple[Value, ...]]:
    first = found.first
    groups = [("end", arm, family.of(arm.label, FINAL)) for arm in found.arms]
    for rival in found.rivals:
        groups += [(f"matched to {rival.name}", first, family.of(first.label, matched(rival.label)))]
        groups += [(f"matched to {first.name}", rival, family.of(rival.label, matched(first.label)))]
    return [
        (family.name, words, arm.name, *_state(family, arm.label, models)) for words, arm, models in groups if models
    ]


def _state(family: FamilyRuns, label: str, models: Sequence[Model]) -> tuple[Value, ...]:
    met = [loss for model in models if (loss := family.validation_loss(label, model)) is not None]
    return (
        fmean(model.step for model in models),
        fmean(met) if met else None,
        fmean(model.clean_loss for model in models),
        over_runs(model.clean_accuracy for model in models),
        over_runs(model.corrupted_accuracy for model in models),
        over_runs(model.margin("by_norm") for model in models),
        over_runs(model.rank() for model in models),
        len(models),
    )


# -- transfer --------------------------------------------------------------------------------------


def transfer(found: FeaturesFound) -> tuple[Element, ...]:
    """Return whose weights reach what on another task, and the searches behind it; none where nothing is done."""
    if not any(family.transfers for family in found.runs.families.values()):
        return ()
    return _matrix(found), _ways(found)


def _task(family: FamilyRuns, task: str) -> str:
    return "classes of texts" if task == "classes" and family.plan.family.data.kind == "text" else TASKS[task]


def _weights(found: FeaturesFound, label: str) -> str:
    return "new weights" if label == NEW else found.name(label)


def _matrix(found: FeaturesFound) -> Table:
    rows = []
    for family in found.runs.families.values():
        for task in family.plan.tasks:
            for weights in (*family.arms, NEW):
                ways = [family.transferred(task, weights, by) for by in (*family.arms, LINEAR)]
                chance = next((way.chance for way in ways if way), None)
                if chance is not None:
                    place = family.name, _task(family, task), _weights(found, weights)
                    rows.append((*place, *map(_accuracy, ways), chance))
    columns = (
        FAMILY,
        Column("task", "Transferred to"),
        Column("weights", "Weights of"),
        *(
            Column(f"by_{column.key}", f"Fine-tuned by {column.title}", column.kind)
            for column in columns_of(found.arms, "accuracy")
        ),
        Column("linear", "Linear probe", "accuracy"),
        Column("chance", "Chance", "accuracy"),
    )
    note = (
        "Test accuracy with 95% intervals over seeds. Each way of fine-tuning has a learning rate of its own, chosen "
        "on validation, and is stopped at its best evaluation on validation. A probe reads the last hidden states, "
        "whose weights stay as they are; of another text there is none."
    )
    return Table("transfer", "Test accuracy after transfer", columns, tuple(rows), note)


def _accuracy(way: Transferred | None) -> Estimate | None:
    return over_runs(way.accuracies.values()) if way and way.accuracies else None


def _ways(found: FeaturesFound) -> Table:
    rows = tuple(
        (
            family.name,
            _task(family, way.task),
            _weights(found, way.weights),
            found.name(way.by),
            way.rate,
            (way.search.edge or "no") if way.search else None,
            way.search.num_runs if way.search else None,
            len(way.accuracies),
            way.num_last,
        )
        for family in found.runs.families.values()
        for way in family.transfers
        if way.by != LINEAR
    )
    columns = (
        FAMILY,
        Column("task", "Transferred to"),
        Column("weights", "Weights of"),
        Column("by", "Fine-tuned by"),
        Column("rate", "Learning rate", "exact"),
        Column("edge", "On an edge"),
        Column("searched", "Runs of the search", "count"),
        Column("n", "n", "count"),
        Column("num_last", "Best at the last evaluation", "count"),
    )
    note = (
        "On an edge: no rate beyond it was tried. Best at the last evaluation: runs, of n, that were still getting "
        "better when their budget ended."
    )
    return Table("transfer-rates", "Learning rates of fine-tuning", columns, rows, note, folded=True)


# -- data, settings and jobs -----------------------------------------------------------------------


def sheets(found: FeaturesFound) -> tuple[Element, ...]:
    """Return a sheet of the corruptions per data set, however many nets read it."""
    held: dict[tuple[str, str], Element] = {}
    for family in found.runs.families.values():
        data = family.plan.family.data
        if family.sheet is not None and (data.kind, data.name) not in held:
            name = f"sheet-{data.kind}" + (f"-{len(held) + 1}" if held else "")
            held[data.kind, data.name] = sheet_of(data.name, family.sheet, name)
    return tuple(held.values())


def sources(found: FeaturesFound) -> tuple[Element, ...]:
    """Return the data, the settings, the jobs and the config in full."""
    families, asked = list(found.runs.families.values()), found.runs.asked
    note = "One value each, not tuned; the learning rate is searched (see Tuning)."
    return (
        *((_data(families),) if any(family.finals for family in families) else ()),
        *((_read(families),) if any(map(_notes, families)) else ()),
        optimizer_settings(found.arms, note),
        every_job(found.records),
        *in_full("features", asked, found.records),
    )


def _notes(family: FamilyRuns) -> list[str]:
    return next((result.get("notes", []) for result in family.finals.values()), [])


def _read(families: Sequence[FamilyRuns]) -> Table:
    rows = tuple((family.name, note) for family in families for note in _notes(family))
    columns = FAMILY, Column("note", "Read, and skipped")
    return Table("read", "What was read, and what was skipped", columns, rows)


def _data(families: Sequence[FamilyRuns]) -> Table:
    counts = (
        Column("num_train", "Train", "count"),
        Column("num_validation", "Validation", "count"),
        Column("num_test", "Test", "count"),
        Column("chance", "Chance", "accuracy"),
        Column("num_examples", "Corrupted", "count"),
        Column("num_probe_train", "Probe’s train", "count"),
        Column("num_probe_test", "Probe’s test", "count"),
    )
    rows = []
    for family in families:
        for result in list(family.finals.values())[:1]:
            training = family.plan.training
            budget = training.budget, training.batch, training.schedule
            sizes = (family.sizes.get(column.key) for column in counts)
            reason = next((r["why_sequential"] for r in family.finals.values() if r.get("why_sequential")), "")
            rows.append((family.name, result["num_parameters"], *budget, *sizes, reason))
    columns = (
        FAMILY,
        Column("num_parameters", "Parameters", "count"),
        Column("budget", "Steps", "count"),
        Column("batch", "Batch", "count"),
        Column("schedule", "Schedule"),
        *counts,
        Column("why_sequential", "Trained one by one, because"),
    )
    note = "Train to test and corrupted are numbers of examples: images, or windows of text."
    return Table("data", "Nets and data", columns, tuple(rows), note)

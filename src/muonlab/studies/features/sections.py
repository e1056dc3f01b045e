"""Sections of the features report: claims, robustness beyond clean accuracy, states, transfer, tuning, data."""

from collections.abc import Sequence
from itertools import compress, product
from statistics import fmean
from typing import Any

from muonlab.report.findings import Axis, Column, Element, Figure, Line, Lines, Series, Table, Text, Value
from muonlab.studies.features.answers import means
from muonlab.studies.features.claims import CLAIMS
from muonlab.studies.features.jobs import FINAL, LINEAR, NEW, UNTRAINED, in_words
from muonlab.studies.features.matched import matched_budgets
from muonlab.studies.features.nets import Compared, Place
from muonlab.studies.features.readings import EQUAL, MATCHED, FamilyRuns, FeaturesFound, Model
from muonlab.studies.features.robustness import sheet_of
from muonlab.study import tuning as shared
from muonlab.study.compare import compare
from muonlab.study.judge import Judged
from muonlab.study.sections import (
    columns,
    comparison_columns,
    comparison_values,
    every_job,
    forest,
    in_full,
    line,
    optimizer_settings,
    over_runs,
)
from muonlab.study.study import ALPHA, Arm, Comparison

MOST_ROWS = 20  # that stand open
BASELINE = Arm(UNTRAINED, Series("untrained", "none"))
FAMILY = Column("family", "Net and data")


def at_the_end(found: FeaturesFound) -> Compared:
    """Return every arm at the end of training, and the nets before it, as layers.py and robustness.py take them."""
    return Compared(
        arms=found.arms,
        places=tuple(_measured(family) for family in found.runs.families.values()),
        baseline=BASELINE,
        when="at the end of training",
        accuracy_note="Of a text, accuracy is that of the next token.",
    )


def _measured(family: FamilyRuns) -> Place:
    models = {label: family.of(label, FINAL) for label in family.arms}
    models[UNTRAINED] = family.of(family.arms[0], UNTRAINED)
    return Place(family.name, models, family.sizes.get("chance"), family.plan.measuring.margin_severity)


# -- claims ----------------------------------------------------------------------------------------


def claims(found: FeaturesFound, judged: Sequence[tuple[Judged, Judged]]) -> tuple[Element, ...]:
    """Return the figures and tables of all claims, each at equal budget and at matched loss."""
    if not any(equal.comparisons for equal, _ in judged):
        return (Text("No case has measured runs of two arms yet."),)
    figures = [figure for both in judged for figure in _forests(found, both)]
    return (means(found, judged), *figures, _comparisons(found, judged), _other_counts(found))


def _forests(found: FeaturesFound, both: tuple[Judged, Judged]) -> list[Figure]:
    """Return a figure per quantity of a claim, with a panel per state."""
    claim, figures = both[0].claim, []
    for quantity in claim.quantities:
        panels = []
        for judged, title in zip(both, ("at equal budget", "at matched clean validation loss"), strict=True):
            rows = [
                (f"{pair.case.name}, {found.name(pair.rival)}", pair)
                for pair in compare(found, claim.quantities, judged.state)
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
            caption += " Mean over fine-tuning optimizers; only the final weights are fine-tuned."
        axis = Axis(f"difference of {quantity.unit}")
        figures.append(Figure(name, title, caption, axis, Axis(""), tuple(panels)))
    return figures


def _comparisons(found: FeaturesFound, judged: Sequence[tuple[Judged, Judged]]) -> Table:
    rows = tuple(
        _row(found, f"({each.claim.letter}) {quantity.short}", pair)
        for both in judged
        for each in both
        for quantity in each.claim.quantities
        for pair in compare(found, each.claim.quantities, each.state)
        if pair.quantity is quantity
    )
    note = (
        f"Holm’s p is adjusted over the comparisons of a claim, at equal budget and at matched loss separately; a side "
        f"is named where it is at most {ALPHA:g}. Intervals are 95%, each for itself. n: runs of {found.first.name} + "
        "of the rival."
    )
    return Table("claims", "Every comparison", _head(found), rows, note, folded=len(rows) > MOST_ROWS)


def _other_counts(found: FeaturesFound) -> Table:
    rows = [
        _row(found, f"({claim.letter}) {pair.quantity.name}", pair)
        for claim in CLAIMS
        for state in (EQUAL, MATCHED)
        for pair in compare(found, claim.others, state)
    ]
    is_shown = [column.key not in ("p_holm", "side") for column in _head(found)]
    head, shown = tuple(compress(_head(found), is_shown)), tuple(tuple(compress(row, is_shown)) for row in rows)
    note = "These do not enter the verdict; p is not adjusted."
    return Table("other-counts", "Other ways to count", head, shown, note, folded=True)


def _head(found: FeaturesFound) -> tuple[Column, ...]:
    place = columns("claim: Claim; comparison: Comparison; family: Net and data; rival: Rival")
    return *place, *comparison_columns(found)


def _row(found: FeaturesFound, what: str, pair: Comparison) -> tuple[Value, ...]:
    return what, str(pair.state), pair.case.name, found.name(pair.rival), *comparison_values(pair)


# -- states ----------------------------------------------------------------------------------------


def states(found: FeaturesFound) -> tuple[Element, ...]:
    """Return each arm at the end of training and at matched loss; none where nothing is measured."""
    rows = [row for family in found.runs.families.values() for row in _states(found, family)]
    if not rows:
        return ()
    head = (
        *columns("state: State; optimizer: Optimizer; step: Step [number]; flops: FLOPs of training [number]"),
        *columns("validation_loss: Validation loss met [number]; test_loss: Clean test loss [number]"),
        *columns("clean: Clean accuracy [accuracy]; corrupted: Corrupted accuracy [accuracy]"),
        *columns("margin: Margin / norm [ratio]; rank: Effective rank [ratio]; n: n [count]"),
    )
    note = (
        "Means over seeds, with 95% intervals. The loss that a run met is shown, on up to 256 examples, or 96 windows "
        "of text, of validation. "
    )
    if found.runs.asked.matched == "checkpoints":
        note += (
            "Matched: each run at its first evaluation at or below the smallest clean validation loss that every run "
            "of both optimizers reached. Evaluations are some steps apart, so a run may meet a smaller loss than asked."
        )
        return (Table("states", "At the end, and at matched loss", (FAMILY, *head), tuple(rows), note),)
    note += (
        "Matched: the optimizer that ends lower trained again for fewer steps, until the mean of its last validation "
        "losses was that of the other."
    )
    table = Table("states", "At the end, and at matched loss", (FAMILY, *head), tuple(rows), note)
    return table, *matched_budgets(found)


def _states(found: FeaturesFound, family: FamilyRuns) -> list[tuple[Value, ...]]:
    first = found.first
    groups = [("end", arm, family.of(arm.label, FINAL)) for arm in found.arms]
    for rival in found.rivals:
        for arm, other in ((first, rival), (rival, first)):
            groups.append((f"matched to {other.name}", arm, family.compared(arm.label, other.label, MATCHED)))
    return [
        (family.name, words, arm.name, *_state(family, arm.label, models)) for words, arm, models in groups if models
    ]


def _state(family: FamilyRuns, label: str, models: Sequence[Model]) -> tuple[Value, ...]:
    met = [loss for model in models if (loss := family.validation_loss(label, model)) is not None]
    steps = fmean(model.step for model in models)
    return (
        steps,
        steps * family.finals[label]["flops_per_step"],
        fmean(met) if met else None,
        fmean(model.clean_loss for model in models),
        over_runs((model.clean_accuracy for model in models), "accuracy"),
        over_runs((model.corrupted_accuracy for model in models), "accuracy"),
        over_runs(model.margin("by_norm") for model in models),
        over_runs(model.rank() for model in models),
        len(models),
    )


# -- transfer --------------------------------------------------------------------------------------

PLACE = (FAMILY, *columns("task: Transferred to; weights: Weights of"))


def transfer(found: FeaturesFound) -> tuple[Element, ...]:
    """Return whose weights reach what on another task, and the searches behind it; none where nothing is done."""
    if not any(family.transfers for family in found.runs.families.values()):
        return ()
    return _matrix(found), _ways(found)


def _place(found: FeaturesFound, family: FamilyRuns, task: str, weights: str) -> tuple[str, str, str]:
    if task == "classes":
        words = "classes of texts" if family.plan.family.data.kind == "text" else "other classes"
    else:
        words = "another text"
    return family.name, words, "new weights" if weights == NEW else found.name(weights)


def _matrix(found: FeaturesFound) -> Table:
    rows = []
    for family in found.runs.families.values():
        for task, weights in product(family.plan.tasks, (*family.arms, NEW)):
            ways = [family.transfers.get((task, weights, by)) for by in (*family.arms, LINEAR)]
            chance = next((way.chance for way in ways if way), None)
            if chance is not None:
                cells = [
                    over_runs(way.accuracies.values(), "accuracy") if way and way.accuracies else None for way in ways
                ]
                rows.append((*_place(found, family, task, weights), *cells, chance))
    by = [Column(f"by_{arm.label}", f"Fine-tuned by {arm.name}", "accuracy") for arm in found.arms]
    last = columns("linear: Linear probe [accuracy]; chance: Chance [accuracy]")
    note = (
        "Test accuracy with 95% intervals over seeds. Each way of fine-tuning has a learning rate of its own, chosen "
        "on validation, and is stopped at its best evaluation on validation. A probe reads the last hidden states, "
        "whose weights stay as they are; of another text there is none."
    )
    return Table("transfer", "Test accuracy after transfer", (*PLACE, *by, *last), tuple(rows), note)


def _ways(found: FeaturesFound) -> Table:
    rows = tuple(
        (
            *_place(found, family, task, weights),
            found.name(by),
            way.rate,
            (way.search.edge or "no") if way.search else None,
            way.num_tried if way.search else None,
            len(way.accuracies),
            way.num_last,
        )
        for family in found.runs.families.values()
        for (task, weights, by), way in family.transfers.items()
        if by != LINEAR
    )
    head = columns(
        "by: Fine-tuned by; rate: Learning rate [exact]; edge: On an edge; searched: Runs of the search [count]; "
        "n: n [count]; num_last: Best at the last evaluation [count]"
    )
    note = (
        "On an edge: no rate beyond it was tried. Best at the last evaluation: runs, of n, that were still getting "
        "better when their budget ended."
    )
    return Table("transfer-rates", "Learning rates of fine-tuning", (*PLACE, *head), rows, note, folded=True)


# -- learning rates and curves ---------------------------------------------------------------------


def tuning(found: FeaturesFound) -> tuple[Element, ...]:
    """Return the figure and table of the searches; none where nothing is tried."""
    families = found.runs.families.values()
    searches = {family.name: family.searches for family in families}
    chosen = {family.name: {label: family.chosen(label) for label in family.arms} for family in families}
    note = "The best is chosen by clean validation loss, on which no measure of the report is taken."
    loss = "Clean validation loss at the end of training"
    if any(found.runs.asked.variants.values()):
        loss += ", at the best other settings"
    return *shared.tuning(found.arms, searches, FAMILY, loss, note, chosen), *_settings(found)


def _settings(found: FeaturesFound) -> tuple[Table, ...]:
    """Return every setting that was tried, with the best rate of each; none where rates alone were searched."""
    rows = [
        (
            family.name,
            arm.name,
            in_words(optimizer, found.runs.asked.tried(arm)),
            search.best,
            shared.product(search.best, optimizer),
            search.loss,
            search.edge or "no",
            search.num_runs,
            search is family.searches[arm.label],
        )
        for family in found.runs.families.values()
        for arm in found.arms
        if arm.label in found.runs.asked.variants
        for optimizer, search in family.settings[arm.label]
        if search.scores
    ]
    if not rows:
        return ()
    head = (
        *(FAMILY, *columns("optimizer: Optimizer; setting: Setting; rate: Its best learning rate [exact]")),
        *columns("product: lr × decay [exact]; loss: Validation loss [number]; edge: On an edge"),
        *columns("num_runs: Runs [count]; chosen: Chosen"),
    )
    note = (
        "Each setting has a search for its learning rate, with as many rates; the final runs have the best of all. A "
        "step shrinks a weight by lr × decay, so that a decay is good with one rate and not with another."
    )
    return (Table("tuning-settings", "Every setting that was tried", head, tuple(rows), note),)


def learning_curves(found: FeaturesFound) -> tuple[Element, ...]:
    """Return the validation loss of the final runs against steps and FLOPs; none where none is done."""
    figures = []
    caption = (
        "Clean validation loss of the final runs, mean with 95% intervals over seeds; runs that diverged are left out."
    )
    for name, words, per_step in (("learning", "step", False), ("learning-flops", "FLOPs", True)):
        panels = [
            Lines(family.name, lines)
            for family in found.runs.families.values()
            if (lines := _learning(found, family, per_step))
        ]
        if panels:
            title = "Validation loss of the final runs" + (", by FLOPs" if per_step else "")
            more = f" {FLOPS}" if per_step else ""
            figures.append(Figure(name, title, caption + more, Axis(words), Axis("validation loss"), tuple(panels)))
    return tuple(figures)


FLOPS = (
    "FLOPs are those of matrix products and convolutions as executed, of training alone: forward, backward and the "
    "optimizer’s own. Seconds are no axis here: members train together and jobs beside each other, so that no second "
    "belongs to one optimizer."
)


def _learning(found: FeaturesFound, family: FamilyRuns, by_flops: bool) -> tuple[Line, ...]:
    lines = []
    for arm in found.arms:
        whole = [run["validation_loss"] for run in family.ended(arm.label)] if arm.label in family.finals else []
        if whole:
            final = family.finals[arm.label]
            steps = [step * final["flops_per_step"] if by_flops else step for step in final["steps"]]
            values = [[curve[i] for curve in whole if curve[i] is not None] for i in range(len(steps))]
            lines.append(line(arm.series, steps, values))
    return tuple(lines)


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
    notes = [
        (each.name, words) for each in families for final in _first_final(each) for words in final.get("notes", ())
    ]
    read = FAMILY, Column("note", "Read, and skipped")
    return (
        *((_data(families),) if any(family.finals for family in families) else ()),
        *((Table("read", "What was read, and what was skipped", read, tuple(notes)),) if notes else ()),
        optimizer_settings(found.arms, note),
        every_job(found.records),
        *in_full("features", asked, found.records),
    )


def _first_final(family: FamilyRuns) -> list[dict[str, Any]]:
    """Return the final runs of the first arm that has some, which say how large net and data are; none without."""
    return list(family.finals.values())[:1]


def _data(families: Sequence[FamilyRuns]) -> Table:
    sizes = columns(
        "num_train: Train [count]; num_validation: Validation [count]; num_test: Test [count]; chance: Chance "
        "[accuracy]; num_examples: Corrupted [count]; num_probe_train: Probe’s train [count]; "
        "num_probe_test: Probe’s test [count]"
    )
    rows = []
    for family, final in ((each, final) for each in families for final in _first_final(each)):
        training = family.plan.training
        reason = next((r["why_sequential"] for r in family.finals.values() if r.get("why_sequential")), "")
        budget = training.budget, training.batch, training.schedule
        held = (family.sizes.get(column.key) for column in sizes)
        rows.append((family.name, final["num_parameters"], *budget, *held, reason))
    first = columns(
        "num_parameters: Parameters [count]; budget: Steps [count]; batch: Batch [count]; schedule: Schedule"
    )
    last = Column("why_sequential", "Trained one by one, because")
    note = "Train to test and corrupted are numbers of examples: images, or windows of text."
    return Table("data", "Nets and data", (FAMILY, *first, *sizes, last), tuple(rows), note)

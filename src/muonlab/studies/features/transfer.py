"""Transfer in the report: whose weights, fine-tuned by whom, reach what on another task."""

from muonlab.report.findings import Column, Element, Table, Value
from muonlab.stats.results import Estimate
from muonlab.studies.features.readings import FamilyRuns, FeatureRuns, Transferred
from muonlab.studies.features.rounds import LINEAR, NAMES
from muonlab.studies.features.seeds import columns_of
from muonlab.study.measures.compared import over_runs

NEW = "none"  # as `Transferred.weights`
NEW_WEIGHTS = "new weights"
TASKS = {"classes": "other classes", "language": "another text"}


def transfer(runs: FeatureRuns) -> tuple[Element, ...]:
    """Return the matrix and the searches behind it; none where nothing is done."""
    if not any(family.transfers for family in runs.families):
        return ()
    return matrix(runs), ways(runs)


def _task(family: FamilyRuns, task: str) -> str:
    return "classes of texts" if task == "classes" and family.plan.family.data.kind == "text" else TASKS[task]


def _weights(name: str) -> str:
    return NEW_WEIGHTS if name == NEW else NAMES[name]


def matrix(runs: FeatureRuns) -> Table:
    """Return test accuracy: whose weights by whose fine-tuning, and by a linear probe."""
    rows = []
    for family in runs.families:
        for task in family.plan.tasks:
            for weights in (*family.optimizers, NEW):
                found = [family.transferred(task, weights, by) for by in (*family.optimizers, LINEAR)]
                chance = next((each.chance for each in found if each), None)
                if chance is not None:
                    rows.append((family.name, _task(family, task), _weights(weights), *map(_cell, found), chance))
    columns = (
        Column("family", "Net and data"),
        Column("task", "Transferred to"),
        Column("weights", "Weights of"),
        *(
            Column(f"by_{column.key}", f"Fine-tuned by {column.title}", column.kind)
            for column in columns_of((runs.first, *runs.rivals), "accuracy")
        ),
        Column("linear", "Linear probe", "accuracy"),
        Column("chance", "Chance", "accuracy"),
    )
    note = (
        "Test accuracy with 95% intervals over seeds. Each way of fine-tuning has a learning rate of its own, chosen "
        "on validation, and is stopped at its best look on validation. A probe reads the last hidden states, whose "
        "weights stay as they are; of another text there is none."
    )
    return Table("transfer", "Test accuracy after transfer", columns, tuple(rows), note)


def _cell(found: Transferred | None) -> Estimate | None:
    return over_runs(found.accuracies.values()) if found and found.accuracies else None


def ways(runs: FeatureRuns) -> Table:
    """Return the learning rate of every way of fine-tuning, and whether it could have gone on."""
    rows = tuple(_way(family, each) for family in runs.families for each in family.transfers if each.by != LINEAR)
    columns = (
        Column("family", "Net and data"),
        Column("task", "Transferred to"),
        Column("weights", "Weights of"),
        Column("by", "Fine-tuned by"),
        Column("rate", "Learning rate", "exact"),
        Column("edge", "On an edge"),
        Column("searched", "Runs of the search", "count"),
        Column("n", "n", "count"),
        Column("num_last", "Best at the last look", "count"),
    )
    note = (
        "On an edge: no rate beyond it was tried. Best at the last look: runs, of n, that were still getting better "
        "when their budget ended."
    )
    return Table("transfer-rates", "Learning rates of fine-tuning", columns, rows, note, folded=True)


def _way(family: FamilyRuns, each: Transferred) -> tuple[Value, ...]:
    search = each.search
    return (
        family.name,
        _task(family, each.task),
        _weights(each.weights),
        NAMES[each.by],
        each.rate,
        (search.edge or "no") if search else None,
        search.num_runs if search else None,
        len(each.accuracies),
        each.num_last,
    )

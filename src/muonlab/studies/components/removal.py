"""What is left of the accuracy when the strongest components are taken away, or those of another class."""

from muonlab.report.findings import Column, Element, Table
from muonlab.studies.components.comparisons import compare
from muonlab.studies.components.maps import figure
from muonlab.studies.components.plan import middle
from muonlab.studies.components.quantities import REMOVED, ROBUST, SWAPPED
from muonlab.studies.components.readings import ComponentRuns
from muonlab.studies.components.rounds import NAMES
from muonlab.study.measures.compared import over_runs


def removal(runs: ComponentRuns) -> tuple[Element, ...]:
    """Return maps of both accuracies, and the accuracies themselves in the middle of every map."""
    found = []
    for quantity in (REMOVED, SWAPPED):
        pairs = compare(runs, runs.mapped, runs.rivals, quantity, runs.asked.main)
        if pairs:
            found.append(figure(runs, quantity, pairs))
    table = accuracies(runs)
    return (*found, *((table,) if table.rows else ()))


def accuracies(runs: ComponentRuns) -> Table:
    """Return test accuracies of every optimizer, as it is, without and with wrong strongest components."""
    rows = []
    for name, cases in runs.maps.items():
        case = middle(cases)
        for optimizer in runs.asked.optimizers:
            own = runs.of(case, optimizer)
            if own is not None:
                values = [over_runs(own.values(runs.asked.main, quantity).values()) for quantity in ROBUST]
                rows.append((name, NAMES[optimizer], *values, own.chance))
    columns = (
        Column("map", "Map"),
        Column("optimizer", "Optimizer"),
        Column("test", "Test accuracy", "accuracy"),
        Column("removed", "Strongest removed", "accuracy"),
        Column("swapped", "Strongest of another class", "accuracy"),
        Column("chance", "Chance", "accuracy"),
    )
    note = (
        "In the middle of every map, at the main loss: means over seeds with 95% intervals. With the strongest "
        "components of another class an accuracy below chance says that the net goes by them."
    )
    return Table("removal", "Accuracy in the middle of the map", columns, tuple(rows), note)

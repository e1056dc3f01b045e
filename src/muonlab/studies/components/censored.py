"""Runs that never came down to a loss, in the report: counted, never dropped in silence."""

from muonlab.report.findings import Column, Element, Table, Text
from muonlab.studies.components.readings import ComponentRuns
from muonlab.studies.components.rounds import NAMES


def censored(runs: ComponentRuns) -> tuple[Element, ...]:
    """Return how many runs of every optimizer never came down to each loss, problem by problem."""
    if not runs.own:
        return ()
    rows = []
    for own in runs.own.values():
        for place, eps in enumerate(runs.asked.eps_of(own.case)):
            missed = own.missed(place)
            diverged = missed.get("diverged", 0)
            if missed:
                numbers = sum(missed.values()) - diverged, diverged, len(own.compared(place))
                rows.append((own.case.name, NAMES[own.optimizer], eps, *numbers))
    if not rows:
        return (Text("Every compared run came down to every loss.", "good"),)
    columns = (
        Column("case", "Problem"),
        Column("optimizer", "Optimizer"),
        Column("eps", "eps", "exact"),
        Column("not_reached", "Not reached", "count"),
        Column("diverged", "Diverged", "count"),
        Column("n", "Compared runs", "count"),
    )
    note = (
        "Of the rate that is compared at that loss. A pair in which one side is missing is in no difference: what a "
        "cell says, it says of the seeds in which both came down. Problems that no row names have no such runs."
    )
    return summary(runs), Table("censored", "Problem by problem", columns, tuple(rows), note, folded=True)


def summary(runs: ComponentRuns) -> Table:
    """Return the numbers over the whole map, by optimizer and loss."""
    rows = []
    for place, eps in enumerate(runs.asked.eps):
        for name in runs.asked.optimizers:
            found = [own for own in runs.own.values() if own.optimizer == name and own.case.role == "map"]
            missed = [own.missed(place) for own in found]
            diverged = sum(each.get("diverged", 0) for each in missed)
            total = sum(sum(each.values()) for each in missed)
            rows.append((eps, NAMES[name], total - diverged, diverged, sum(len(own.compared(place)) for own in found)))
    columns = (
        Column("eps", "eps", "exact"),
        Column("optimizer", "Optimizer"),
        Column("not_reached", "Not reached", "count"),
        Column("diverged", "Diverged", "count"),
        Column("n", "Compared runs", "count"),
    )
    note = "Over the problems of the map: runs that did not come down to the loss within the budget, or diverged."
    return Table("censored-map", "Censored and diverged", columns, tuple(rows), note)

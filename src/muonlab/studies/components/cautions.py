"""What weakens the answer of a study of components, a sentence each; said beside the verdict."""

from collections.abc import Sequence

from muonlab.studies.components.controls import MIN_HALF, judge_controls
from muonlab.studies.components.readings import ComponentRuns
from muonlab.studies.components.rounds import NAMES
from muonlab.studies.components.search import CLEAR
from muonlab.studies.components.sensitivity import Spread

NOTABLE = 0.1  # share of compared runs that are censored


def cautions(runs: ComponentRuns, spreads: Sequence[Spread]) -> list[str]:
    """Return what weakens the answer."""
    return [*_missing(runs), *_edges(runs), *_censored(runs), *_turning(spreads), *_uncontrolled(runs)]


def _missing(runs: ComponentRuns) -> list[str]:
    done = sum(record.status == "done" for record in runs.records)
    if done == runs.expected:
        return []
    failed = sum(record.status == "failed" for record in runs.records)
    return [
        f"{runs.expected - done} of {runs.expected} jobs known so far are not done, {failed} of them failed: figures "
        "may change."
    ]


def _edges(runs: ComponentRuns) -> list[str]:
    places = []
    for name in runs.asked.optimizers:
        found = [own for own in runs.own.values() if own.optimizer == name and own.case.role == "map"]
        edges = [own.edge(runs.asked.main) for own in found]
        on_edge = len(edges) - edges.count(None)
        if on_edge:
            low, high = edges.count("low"), edges.count("high")
            places.append(f"{NAMES[name]} on {on_edge} of {len(found)} problems ({low} low, {high} high)")
    if not places:
        return []
    return [
        f"A best learning rate lies on the edge of what was tried, so a better one may lie beyond: {'; '.join(places)}."
    ]


def _censored(runs: ComponentRuns) -> list[str]:
    """Return where many runs never came down to the main loss."""
    places = []
    for name in runs.asked.optimizers:
        found = [own for own in runs.own.values() if own.optimizer == name and own.case.role == "map"]
        total = sum(len(own.compared(runs.asked.main)) for own in found)
        missed = sum(sum(own.missed(runs.asked.main).values()) for own in found)
        if total and missed > NOTABLE * total:
            places.append(f"{missed} of {total} of {NAMES[name]}")
    if not places:
        return []
    return [
        f"Runs that never came down to the main loss are in no pair: {'; '.join(places)}. Cells say nothing of them, "
        "and those in which fewer pairs remain are less sure."
    ]


def _turning(spreads: Sequence[Spread]) -> list[str]:
    """Return how many decided cells hang on the choice between rates that are as good."""
    decided = [each for each in spreads if each.pair.side != "undecided"]
    turned = [each for each in decided if each.turns]
    if not turned:
        return []
    parts = ", ".join(
        f"{sum(each.pair.quantity.name == name for each in turned)} of "
        f"{sum(each.pair.quantity.name == name for each in decided)} in {name}"
        for name in dict.fromkeys(each.pair.quantity.name for each in turned)
    )
    return [
        f"Some decided cells would turn with another learning rate whose validation loss is within {CLEAR:.0%} of the "
        f"best one’s: {parts} (see Tuning)."
    ]


def _uncontrolled(runs: ComponentRuns) -> list[str]:
    names = {control.name for control in judge_controls(runs) if control.state != "cannot tell"}
    found = []
    if "same optimizer" not in names:
        found.append(
            f"No control of {NAMES[runs.first]} against itself: it takes {2 * MIN_HALF} seeds that come down to the "
            "loss."
        )
    if runs.control.name not in names:
        found.append("The control of labels without information is not done or cannot tell.")
    return found

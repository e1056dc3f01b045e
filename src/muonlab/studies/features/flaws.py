"""Runs that make no fair side of a comparison: of an optimizer that learnt nothing, that had less tuning, or copies."""

from collections.abc import Iterator, Sequence
from statistics import fmean

from muonlab.report.findings import as_text
from muonlab.stats.proportions import chance_limit
from muonlab.studies.features.config import TextData
from muonlab.studies.features.jobs import FINAL
from muonlab.studies.features.plan import FeatureStudy
from muonlab.studies.features.readings import FamilyRuns
from muonlab.study.controls import ERROR
from muonlab.study.recorded import same_runs

WORSE, NOTABLE = 1.5, 0.05  # times the search's loss, and nats above it, from which final runs break its promise
LOST = 0.5  # share of the final runs that diverged from which the others are too lucky to speak for all


def flaws(asked: FeatureStudy, families: Sequence[FamilyRuns]) -> dict[tuple[str, str], str]:
    """Return (name of a family, label of an arm) -> why its runs there are out of the verdict, as "learnt nothing"."""
    found: dict[tuple[str, str], str] = {}
    for family in families:
        for arm in family.arms:
            if words := "; ".join((*_flaws(family, arm), *_outnumbered(asked, family, arm))):
                found[family.name, arm] = words
    return found


def settings_tried(asked: FeatureStudy) -> dict[str, int]:
    """Return label -> settings of the first grid, rates times all else that is searched: what was asked for."""
    return {arm.label: len(asked.searches[arm.label].rates) * len(asked.tried(arm)) for arm in asked.arms}


def _outnumbered(asked: FeatureStudy, family: FamilyRuns, arm: str) -> Iterator[str]:
    """Yield that a rival had fewer settings to choose from than the first arm: more settings, better luck."""
    tried, first = settings_tried(asked), asked.arms[0]
    if arm in family.finals and tried[arm] < tried[first.label]:
        yield f"was tried with {tried[arm]} settings, and {first.name} with {tried[first.label]}"


def _flaws(family: FamilyRuns, arm: str) -> Iterator[str]:
    if arm not in family.finals:
        return
    members, ended = family.finals[arm]["members"], family.ended(arm)
    if len(members) - len(ended) >= LOST * len(members):
        yield f"diverged in {len(members) - len(ended)} of {len(members)} final runs"
    if copies := same_runs(members):
        yield f"has runs that are one run, bit by bit (seeds {copies[0][0]} and {copies[0][1]})"
    if models := family.of(arm, FINAL):
        accuracy, chance = fmean(model.clean_accuracy for model in models), family.sizes["chance"]
        data, number = family.plan.family.data, family.sizes["num_examples"]
        guesses = number * data.length if isinstance(data, TextData) else number
        if accuracy <= (limit := chance_limit(chance, guesses, 1, ERROR)):
            numbers = f"accuracy {as_text(accuracy, 'accuracy')}, and guessing explains {as_text(limit, 'accuracy')}"
            yield f"learnt nothing ({numbers})"
    if (loss := broken(family, arm)) is not None:
        expected, met = loss
        yield f"lost its tuning (validation loss {as_text(expected)} in the search, {as_text(met)} in the final runs)"


def broken(family: FamilyRuns, arm: str) -> tuple[float, float] | None:
    """Return the validation loss of the search and that of the final runs, where they are much worse; else None."""
    search, ends = family.searches[arm], [run["validation_loss"][-1] for run in family.ended(arm)]
    if not ends or search.best is None:
        return None
    (_, expected), met = search.scores[search.best], fmean(ends)
    return (expected, met) if met > WORSE * expected and met - expected > NOTABLE else None

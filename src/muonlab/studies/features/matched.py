"""How close matched losses are, and how much of a difference at matched loss what is left of them explains.

From the shorter budget to the common one an optimizer's loss falls and its measures change. That change, in proportion
to the logarithm of the loss, says how much of a difference the residual of the losses accounts for.
"""

import math
from collections.abc import Iterator, Sequence
from statistics import fmean

from muonlab.report.findings import Column, Element, Table, Value
from muonlab.studies.features.claims import CLAIMS
from muonlab.studies.features.readings import EQUAL, MATCHED, FamilyRuns, FeaturesFound, Match
from muonlab.study.compare import compare_one
from muonlab.study.sections import columns
from muonlab.study.study import Quantity, Values

QUANTITIES = tuple(claim.quantities[0] for claim in CLAIMS)  # of (c) the probe: only ends are fine-tuned


def matched_budgets(found: FeaturesFound) -> tuple[Element, ...]:
    """Return the budgets at which losses are matched, with residuals; none where none is known yet."""
    rows = tuple(row for family in found.runs.families.values() for row in _rows(found, family))
    if not rows:
        return ()
    head = (
        *columns("family: Net and data; rival: Rival; arm: Trained for fewer steps; steps: Steps [count]"),
        *columns("budget: Of [count]; tried: Budgets tried [count]; loss: Its validation loss [number]"),
        *columns("target: The other’s [number]; residual: Residual, % [number]"),
        *(
            column
            for quantity in QUANTITIES
            for column in (
                Column(f"{quantity.key}_difference", f"Difference of {quantity.short}", "number"),
                Column(f"{quantity.key}_residual", "of it by the residual", "number"),
            )
        ),
    )
    first = found.first.name
    note = (
        "Residual: by how much the loss of the one that trained for fewer steps lies above the other’s. Difference: "
        f"{first} minus the rival at matched loss. Of it by the residual: what the measure changes between the shorter "
        "and the common budget, per logarithm of the loss, times the residual; a part that no features explain."
    )
    return (Table("matched-budgets", "Matched loss: budgets and residuals", head, rows, note),)


def _rows(found: FeaturesFound, family: FamilyRuns) -> Iterator[tuple[Value, ...]]:
    for rival, match in family.matches.items():
        search, cells = match.search, []
        for quantity in QUANTITIES:
            pair = compare_one(found, quantity, family.plan, rival, MATCHED)
            part = explained(found, family, match, quantity)
            if part is not None and match.arm != found.first.label:
                part = -part  # a difference is the first's minus the rival's
            cells += [None if pair is None else pair.estimate.value, part]
        budget = family.plan.training.budget
        whose = found.name(match.arm) if search.best != budget else "neither"
        met = search.tried[search.best], search.target, 100 * search.residual
        yield family.name, found.name(rival), whose, search.best, budget, len(search.tried) - 1, *met, *cells


def explained(found: FeaturesFound, family: FamilyRuns, match: Match, quantity: Quantity) -> float | None:
    """Return how much a measure of the optimizer with fewer steps would change if its loss met the target."""
    search, budget = match.search, family.plan.training.budget
    if search.best == budget:
        return None
    at_loss, at_end = (
        _mean(quantity.values(found, family.plan, match.arm, match.other, state)) for state in (MATCHED, EQUAL)
    )
    shorter, longer = (search.tried[each] for each in (search.best, budget))
    if at_loss is None or at_end is None or min(shorter, longer, search.target) <= 0 or shorter == longer:
        return None
    return (at_loss - at_end) / math.log(shorter / longer) * math.log(shorter / search.target)


def _mean(values: Values) -> float | None:
    numbers: Sequence[float] = list(values.values()) if isinstance(values, dict) else []
    return fmean(numbers) if numbers else None

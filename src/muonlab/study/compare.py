"""Comparisons of the first arm with its rivals, case by case, with p adjusted over those that are judged together."""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from statistics import fmean

from muonlab.stats.effects import Effect, difference, difference_of_estimates, paired
from muonlab.stats.p_values import holm
from muonlab.stats.pooled import Pooled, Runs, pooled_difference
from muonlab.stats.results import Estimate
from muonlab.study.study import Case, Comparison, Found, Quantity, Test, Values

Numbers = Mapping[int, float]


def compare(
    found: Found,
    quantities: Sequence[Quantity],
    state: Hashable = None,
    cases: Sequence[Case] | None = None,
) -> tuple[Comparison, ...]:
    """Return every case with every rival in every quantity where both have runs, p adjusted over all of them.

    Args:
        found: the study. What was compared before is not computed again.
        quantities: what is compared.
        state: of the runs, such as "end".
        cases: by default those that the claims are about.
    """
    chosen = found.cases if cases is None else tuple(cases)
    key = (tuple(quantity.key for quantity in quantities), state, tuple(case.name for case in chosen))
    if key not in found.compared:
        pairs = [
            compare_one(found, quantity, case, rival.label, state)
            for case in chosen
            for rival in found.rivals
            for quantity in quantities
            if quantity.is_asked(case, state)
        ]
        found.compared[key] = adjusted([pair for pair in pairs if pair is not None])
    return found.compared[key]


def compare_one(found: Found, quantity: Quantity, case: Case, rival: str, state: Hashable = None) -> Comparison | None:
    """Return one comparison, its p not adjusted; None where one side is not measured."""
    first = found.first.label
    own, other = quantity.values(found, case, first, rival, state), quantity.values(found, case, rival, first, state)
    if own is None or other is None:
        return None
    rule = found.rule.test
    test: Test = rule(found, case, rival) if callable(rule) else rule
    effect, means = _effect(own, other, test)
    missing = (0, 0)
    if test == "paired" and not isinstance(own, Estimate) and not isinstance(other, Estimate):
        missing = found.num_runs - len(own), found.num_runs - len(other)
    aside = "; ".join(
        f"{found.name(arm)} {found.aside[case.name, arm]}" for arm in (first, rival) if (case.name, arm) in found.aside
    )
    return Comparison(case, rival, quantity, state, effect, means, missing, test, found.rule, aside=aside)


def _effect(
    own: Numbers | Estimate, other: Numbers | Estimate, test: Test
) -> tuple[Effect, tuple[float | None, float | None]]:
    if isinstance(own, Estimate) or isinstance(other, Estimate):
        assert isinstance(own, Estimate), "a quantity returns estimates of both sides, or of none"
        assert isinstance(other, Estimate), "a quantity returns estimates of both sides, or of none"
        return difference_of_estimates(own, other), (own.value, other.value)
    first, second = list(own.values()), list(other.values())
    if test == "paired":
        seeds = sorted(set(own) & set(other))
        first, second = [own[seed] for seed in seeds], [other[seed] for seed in seeds]
    # Examples are paired where there are as many: then they are the same ones.
    effect = (difference if test == "welch" or len(first) != len(second) else paired)(first, second)
    return effect, (fmean(first) if first else None, fmean(second) if second else None)


def adjusted(comparisons: Iterable[Comparison]) -> tuple[Comparison, ...]:
    """Return comparisons with p adjusted over all of them (Holm 1979).

    Those of too few runs, and those that are set aside, are not counted.
    """
    known = list(comparisons)
    counted = [each.effect.p if min(each.effect.n) >= each.rule.min_runs and not each.aside else None for each in known]
    p = holm({str(number): each for number, each in enumerate(counted)})
    judged = sum(each is not None for each in counted)
    return tuple(replace(each, adjusted_p=p[str(number)], num_judged=judged) for number, each in enumerate(known))


def pool(
    found: Found, quantities: Sequence[Quantity], state: Hashable, comparisons: Sequence[Comparison]
) -> dict[str, Pooled]:
    """Return the mean difference over cases, by rival, of the comparisons that have enough runs.

    In a case it is that of the means over the quantities, run by run. Cases of one `cluster`, such as one net at
    several budgets, count as one, by their mean. Each rival has a mean of its own, as all are compared with the same
    runs of the first arm: nothing is added up over rivals.
    """
    pooled = {}
    for rival in (each.label for each in found.rivals):
        clusters: dict[str, list[Runs]] = {}
        for case in {each.case.name: each.case for each in comparisons if each.rival == rival}.values():
            own = [each.quantity for each in comparisons if each.rival == rival and each.case.name == case.name]
            measured = [quantity for quantity in quantities if quantity in own]
            both = tuple(
                _mean_of(quantity.values(found, case, arm, other, state) for quantity in measured)
                for arm, other in ((found.first.label, rival), (rival, found.first.label))
            )
            if min(map(len, both)) >= found.rule.min_runs:
                clusters.setdefault(getattr(case, "cluster", case.name), []).append((both[0], both[1]))
        pooled[rival] = pooled_difference(list(clusters.values()))
    return pooled


def _mean_of(quantities: Iterable[Values]) -> list[float]:
    """Return the mean over quantities of each seed that all of them have."""
    known = [dict(values) for values in quantities if isinstance(values, Mapping)]
    seeds = sorted(set.intersection(*(set(values) for values in known))) if known else []
    return [fmean(values[seed] for values in known) for seed in seeds]


def by_seed(values: Iterable[float]) -> dict[int, float] | None:
    """Return numbers as `Quantity.values` takes them where seeds do not matter; None where there are none."""
    return dict(enumerate(values)) or None

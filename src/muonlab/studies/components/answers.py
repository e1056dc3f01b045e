"""The first screen of a study of components: mean differences over each map, and what its problems say one by one."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean

from muonlab.report.findings import Answer, Element, ForestRow, excludes
from muonlab.stats.effects import Effect, paired
from muonlab.stats.p_values import holm
from muonlab.studies.components.claims import per_rival
from muonlab.studies.components.readings import ComponentsFound
from muonlab.study.controls import failed
from muonlab.study.judge import Judged
from muonlab.study.screen import answers, figure
from muonlab.study.study import ALPHA, MIN_RUNS, Comparison
from muonlab.study.words import several

Key = tuple[str, str, str]  # quantity, map and rival
TITLE = "Claim (e) of arXiv 2606.09658"
WORDS: dict[Answer, str] = {"yes": "higher", "no": "lower", "mixed": "mixed", "inconclusive": "open"}


def first_screen(found: ComponentsFound, judged: Sequence[Judged]) -> tuple[Element, ...]:
    """Return the mean differences over each map, drawn, and a table of the answers; none where nothing is compared."""
    means = over_maps(found, judged)
    maps = [name for name in found.runs.asked.maps if all(_on_map(each, name) for each in judged)]
    if not means or not maps:
        return ()

    def rows(one: Judged) -> list[ForestRow]:
        keys = [(one.claim.quantities[0].key, one.comparisons[0].case.map, rival.label) for rival in found.rivals]
        return [means[key] for key in keys if key in means]

    states = {name: [_part(found, each, name, means) for each in judged] for name in maps}
    number = len(found.runs.asked.mapped) // len(found.runs.asked.maps)
    caption = (
        f"{found.first.name} minus each rival, mean over the {number} problems of a map, with 95% intervals over "
        f"seeds. Filled: p, adjusted for the {len(means)} means, is at most {ALPHA:g}."
    )
    note = "Under each answer: its problems against each rival, one by one. The maps below show them."
    table = answers(TITLE, states, rows, note, lambda one: WORDS[one.answer].capitalize())
    return figure(found, "Mean differences", states, rows, caption), table


def in_words(found: ComponentsFound, judged: Sequence[Judged]) -> str:
    """Return "Worst-class margin: higher at depth 0, open at depth 1. Effective rank: ..."; empty without means."""
    means, parts = over_maps(found, judged), []
    for each in judged:
        sides: dict[str, list[str]] = {}
        for name in found.runs.asked.maps if means else ():
            if _on_map(each, name):
                sides.setdefault(WORDS[_part(found, each, name, means).answer], []).append(name)
        if sides:
            said = ", ".join(f"{side} at {several(names)}" for side, names in sides.items())
            parts.append(f"{each.claim.title[0].upper()}{each.claim.title[1:]}: {said}.")
    return " ".join(parts)


def over_maps(found: ComponentsFound, judged: Sequence[Judged]) -> dict[Key, ForestRow]:
    """Return the mean difference over the problems of a map, by quantity, map and rival.

    Problems share their seeds, so a seed counts once: it gives the mean over the problems that every seed has reached.
    p is adjusted over all of them (Holm).
    """
    effects: dict[Key, tuple[Effect, float, str]] = {}
    for each in judged:
        for name in found.runs.asked.maps:
            for rival, own in per_rival(found, _on_map(each, name)):
                effects[each.claim.quantities[0].key, name, rival.label] = *_mean(found, own), f"minus {rival.name}"
    p = holm({str(key): effect.p if effect.n[0] >= MIN_RUNS else None for key, (effect, _, _) in effects.items()})
    rows = {}
    for key, (effect, size, label) in effects.items():
        adjusted, estimate = p[str(key)], effect.estimate
        is_negligible = abs(estimate.value or 0.0) < found.rule.negligible * size
        is_decided = adjusted is not None and adjusted <= ALPHA and not is_negligible
        if not is_decided and excludes(estimate, 0.0):
            why = f"the interval stands for itself, and p is adjusted for {len(effects)} means"
            if is_negligible:
                why = f"less than {found.rule.negligible:.0%} of the larger mean"
            estimate = replace(estimate, reason=f"Undecided: {why}")
        rows[key] = ForestRow(label, estimate, f"{effect.n[0]} seeds", decided=is_decided)
    return rows


def _mean(found: ComponentsFound, pairs: Sequence[Comparison]) -> tuple[Effect, float]:
    """Return the mean difference over problems, in pairs of one seed, and the size of the larger mean."""
    both = [(_values(found, pair, found.first.label), _values(found, pair, pair.rival)) for pair in pairs]
    shared = [own.keys() & other.keys() for own, other in both]
    most = max(map(len, shared))
    whole = [values for values, seeds in zip(both, shared, strict=True) if len(seeds) == most]
    seeds = sorted(set.intersection(*(set(own) & set(other) for own, other in whole)))
    first, second = ([fmean(values[side][seed] for values in whole) for seed in seeds] for side in (0, 1))
    return paired(first, second), max((abs(fmean(own)) for own in (first, second) if own), default=0.0)


def _values(found: ComponentsFound, pair: Comparison, arm: str) -> Mapping[int, float]:
    other = pair.rival if arm == found.first.label else found.first.label
    values = pair.quantity.values(found, pair.case, arm, other, pair.state)
    assert isinstance(values, Mapping), "quantities of components are numbers by seed"
    return values


def _on_map(judged: Judged, name: str) -> list[Comparison]:
    return [pair for pair in judged.comparisons if pair.case.map == name]


def _part(found: ComponentsFound, judged: Judged, name: str, means: Mapping[Key, ForestRow]) -> Judged:
    """Return a quantity on one map, answered by its means against all rivals: both are of one claim, so no letter."""
    (quantity,), own = judged.claim.quantities, tuple(_on_map(judged, name))
    rows = [means[key] for rival in found.rivals if (key := (quantity.key, name, rival.label)) in means]
    said = "inconclusive" if failed(found.controls) or len(rows) < len(found.rivals) else _answer(rows)
    title = judged.claim.title[0].upper() + judged.claim.title[1:]
    claim = replace(judged.claim, letter="", title=title)
    return replace(judged, comparisons=own, answer=said, claim=claim)


def _answer(rows: Sequence[ForestRow]) -> Answer:
    """Return yes where all means are higher, no where all are lower, mixed where both occur; else it is open."""
    decided = [row.estimate.value or 0.0 for row in rows if row.is_decided(0.0)]
    if decided and min(decided) < 0 < max(decided):
        return "mixed"
    if not rows or len(decided) < len(rows):
        return "inconclusive"
    return "yes" if min(decided) > 0 else "no"

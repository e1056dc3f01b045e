"""Probes, margins and ranks of the hidden states of every layer, and their controls."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from muonlab.data.dataset import DATA_SEED, Dataset
from muonlab.measure.margins import Margins, margins, summarise
from muonlab.measure.probes import Probes, probe
from muonlab.measure.spectra import Spectrum, bootstrap, jackknife
from muonlab.studies.features.config import Measuring
from muonlab.studies.features.work.states import Subject, hidden_states

RESAMPLES = 200
BOOTSTRAPPED = 256  # widest hidden states whose rank is bootstrapped: eigenvalues take the cube of the width
PARTS = 20  # of the examples, for the jackknife of wider ones
TOLERANCE = 0.002  # of the probes' weights; a strength is chosen at ten times of it
MEASURES = ("margins", "rank")
LISTED = ("by_norm", "raw")  # kinds of margins that are given for each example


def layers(
    subjects: Sequence[Subject],
    data: Dataset,
    corrupted: Sequence[dict[str, list[Tensor]]],
    settings: Measuring,
    *,
    measures: Collection[str] = MEASURES,
    by_example: bool = False,
    advance: Callable[[int], None] = lambda number: None,
) -> list[list[dict[str, Any]]]:
    """Return a row per tap of each net.

    Args:
        subjects: nets of the same taps and widths.
        data: what is probed.
        corrupted: of each net, `robustness.Robustness.states`; not read without margins.
        settings: how many examples.
        measures: "margins", "rank" or both.
        by_example: whether rows also have the margins of each clean test example.
        advance: called with the number of nets that are done with a half of the work.
    """
    sets = (
        data.train.first(settings.probe_train),
        data.validation.first(settings.probe_validation),
        data.test.first(settings.examples),
    )
    states: list[list[dict[str, Tensor]]] = []
    rows: list[dict[str, dict[str, Any]]] = [{tap: {"tap": tap} for tap in each.taps} for each in subjects]
    for measured, row in zip(subjects, rows, strict=True):
        probed = sets if "margins" in measures else ()
        states.append([hidden_states(measured, part.inputs, measured.pool) for part in probed])
        if "rank" in measures:
            is_there = bool(probed) and measured.rank_pool == measured.pool
            own = states[-1][2] if is_there else hidden_states(measured, sets[2].inputs, measured.rank_pool)
            for tap, hidden in own.items():
                row[tap].update(spectrum(hidden))
        advance(1)
    if "margins" in measures:
        labels = [part.labels for part in sets]
        for tap in subjects[0].taps:
            fitted = fit([[each[tap] for each in own] for own in states], labels)
            clean = of_probes(fitted, [own[2][tap] for own in states], labels[2])
            many = labels[2].repeat(len(corrupted[0][tap]))
            others = of_probes(fitted, [torch.cat(own[tap]) for own in corrupted], many)
            both = zip(rows, summaries(clean), summaries(others), strict=True)
            for k, (row, own, other) in enumerate(both):
                row[tap].update({"probe": probe_row(fitted, k), "margins": {"clean": own, "corrupted": other}})
                if by_example:
                    row[tap]["margins_by_example"] = {kind: _numbers(getattr(clean, kind)[k]) for kind in LISTED}
    advance(len(subjects))
    return [list(row.values()) for row in rows]


def fit(states: list[list[Tensor]], labels: list[Tensor]) -> Probes:
    """Return a probe for each problem, given as states of train, validation and test."""
    parts = [([problem[k] for problem in states], labels[k]) for k in range(3)]
    return probe(*parts, num_classes=int(max(own.max() for own in labels)) + 1, tolerance=TOLERANCE)


def probe_row(fitted: Probes, k: int) -> dict[str, Any]:
    """Return what a result holds of one probe."""
    return {
        "strength": fitted.strength[k].item(),
        "is_edge": bool(fitted.is_edge[k]),
        "converged": bool(fitted.converged[k]),
        "validation_accuracy": fitted.validation_accuracy[k].item(),
        "test_accuracy": fitted.test_accuracy[k].item(),
        "weight_norm": fitted.weights[k].norm().item(),
    }


def of_probes(fitted: Probes, states: list[Tensor], labels: Tensor) -> Margins:
    """Return the margins of the states (N, D) of each problem."""
    return margins(fitted.logits(states), labels, fitted.weights)


def summaries(found: Margins) -> list[dict[str, Any]]:
    """Return for each problem the mean and median of every kind of margin, with intervals over examples."""
    rows: list[dict[str, Any]] = [{} for _ in found.raw]
    for kind in ("raw", "by_norm", "by_distance"):
        values = getattr(found, kind)
        # The probe of a layer that is dead has weights of zero, and no boundary to be far from.
        has_boundary = values.isfinite().all(1, keepdim=True)
        summary = summarise(values.where(has_boundary, 0.0), resamples=RESAMPLES)
        for k, row in enumerate(rows):
            row[kind] = {}
            for name in ("mean", "median"):
                own = getattr(summary, name)
                value, interval = own.value[k].item(), [own.lower[k].item(), own.upper[k].item()]
                row[kind] |= (
                    dict.fromkeys((name, f"{name}_interval"))
                    if not has_boundary[k]
                    else {
                        name: value,
                        f"{name}_interval": interval,
                    }
                )
    for k, row in enumerate(rows):
        row["below_zero"] = (found.raw[k] < 0).double().mean().item()
    return rows


def spectrum(hidden: Tensor) -> dict[str, Any]:
    """Return the ranks of hidden states (N, D), as they are and centred, with an interval over examples."""
    accumulated = Spectrum()
    accumulated.update(hidden)
    found = accumulated.result()
    lower, upper = _rank_interval(hidden)
    return {
        "width": found.width,
        "num_examples": found.num_examples,
        "raw": asdict(found.raw.ranks),
        "centred": asdict(found.centred.ranks),
        "effective_rank_interval": [lower, upper],
    }


def _rank_interval(hidden: Tensor) -> tuple[float, float]:
    """Return a 95% interval of the effective rank, not centred, over examples."""
    if hidden.shape[1] <= BOOTSTRAPPED:
        interval = bootstrap(hidden, centred=False, resamples=RESAMPLES)["effective_rank"]
        return interval.lower, interval.upper
    parts = []
    for rows in hidden.chunk(PARTS):
        parts.append(Spectrum())
        parts[-1].update(rows)
    value, error = jackknife(parts, centred=False)["effective_rank"]
    return value - 1.96 * error, value + 1.96 * error


def _numbers(values: Tensor) -> list[float] | None:
    return values.tolist() if values.isfinite().all() else None


# -- controls: what the measures say where there is nothing to find ---------------------------------------


def controls(
    measured: Subject, data: Dataset, settings: Measuring, measures: Collection[str] = MEASURES
) -> dict[str, Any]:
    """Return what probes say of shuffled labels, and spectra of a representation of rank one, at the last tap."""
    sets = data.train.first(settings.probe_train), data.validation.first(settings.probe_validation), data.test
    tap = measured.taps[-1]
    states = [hidden_states(measured, part.inputs, measured.pool)[tap] for part in sets]
    found: dict[str, Any] = {"tap": tap}
    if "margins" in measures:
        generator = torch.Generator().manual_seed(DATA_SEED)
        shuffled = [part.labels[torch.randperm(len(part.labels), generator=generator)] for part in sets]
        fitted = fit([states], shuffled)
        below_zero = summaries(of_probes(fitted, [states[2]], shuffled[2]))[0]["below_zero"]
        found["shuffled_labels"] = {**probe_row(fitted, 0), "below_zero": below_zero, "num_test": len(shuffled[2])}
    if "rank" in measures:
        line = states[2] @ states[2].mean(0)
        found["rank_one"] = spectrum(line[:, None] * states[2].mean(0))
    return found

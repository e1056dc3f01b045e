"""Controls of the measures: what they say where there is nothing to find; and a sheet of all corruptions."""

import base64
from collections.abc import Collection
from typing import Any

import torch

from muonlab.studies.features.config import Measuring
from muonlab.studies.features.work.layers import MEASURES, fit, of_probes, probe_row, spectrum, summaries
from muonlab.studies.features.work.material import DATA_SEED, Probing, Sheet
from muonlab.studies.features.work.states import Subject, hidden_states


def controls(
    measured: Subject, probing: Probing, settings: Measuring, measures: Collection[str] = MEASURES
) -> dict[str, Any]:
    """Return what probes say of shuffled labels, and spectra of a representation of rank one, at the last tap."""
    sets = (
        probing.train.first(settings.probe_train),
        probing.validation.first(settings.probe_validation),
        probing.test,
    )
    tap = measured.taps[-1]
    states = [hidden_states(measured, part.inputs, measured.pool)[tap] for part in sets]
    found: dict[str, Any] = {"tap": tap}
    if "margins" in measures:
        generator = torch.Generator().manual_seed(DATA_SEED)
        shuffled = [part.labels[torch.randperm(len(part.labels), generator=generator)] for part in sets]
        fitted = fit([states], shuffled)
        below_zero = summaries(of_probes(fitted, [states[2]], shuffled[2]))[0]["below_zero"]
        found["shuffled_labels"] = {
            **probe_row(fitted, 0),
            "below_zero": below_zero,
            "num_test": len(shuffled[2]),
        }
    if "rank" in measures:
        line = states[2] @ states[2].mean(0)
        found["rank_one"] = spectrum(line[:, None] * states[2].mean(0))
    return found


def sheet(made: Sheet) -> dict[str, Any]:
    """Return a sheet as JSON; docs/files.md states the keys."""
    found: dict[str, Any] = {"rows": list(made.rows), "columns": list(made.columns)}
    if made.picture is None:
        return {**found, "lines": [list(line) for line in made.lines]}
    channels, height, width = made.picture.shape
    pixels = (made.picture * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous()
    data = base64.b64encode(bytes(pixels.flatten().tolist())).decode()
    return {**found, "width": width, "height": height, "channels": channels, "pixels": data}

"""Folders of inspections as `muonlab inspect` leaves them, with planted differences and without any net."""

import hashlib
from pathlib import Path
from typing import Any

import synthetic_features as synthetic
from muonlab.jobs import store
from muonlab.jobs.files import write_json
from muonlab.studies import checkpoints as inspection
from muonlab.studies.checkpoints.config import Checkpoint, Group, Images, Inspect
from muonlab.studies.checkpoints.plan import Asked
from muonlab.studies.features.config import Measuring

EVERY = ("robustness", "margins", "rank", "transfer")
CORRUPTIONS = ("fog", "gaussian_noise")
NUM = 40  # test examples
SHIFTS = {"corrupted": 0.0, "margin": 0.0, "rank": 0.0, "transfer": 0.0, "loss": 0.0}


def group(name: str, number: int = 1, color: str | None = None) -> Group:
    """Return a group of that many checkpoints."""
    paths = [f"{name}-{k}.safetensors" for k in range(number)]
    checkpoints = [Checkpoint(path=path, sha256=hashlib.sha256(path.encode()).hexdigest()) for path in paths]
    return Group(name=name, color=color, checkpoints=tuple(checkpoints), net="package.nets:build")


def asked(**sizes: int) -> Asked:
    """Return an inspection of groups of those sizes."""
    groups = tuple(group(name, number) for name, number in sizes.items())
    data = Images(source="digits", transfer_source="other")
    job = Inspect(groups=groups, data=data, measures=EVERY, measuring=Measuring())
    return Asked(job, {"models": [f"{each.name}=..." for each in groups], "data": ["digits"]}, sum(sizes.values()))


def write(folder: Path, what: Asked, planted: dict[str, dict[str, float]] | None = None, **others: Any) -> Path:
    """Write an inspection with its result; `planted` has by group what is added to each quantity."""
    inspection.begin(what, folder)
    (one,) = inspection.jobs_of(what, {})
    store.add(folder, one)
    write_json(folder / one.id / "result.json", result(what.job, planted or {}, **others))
    write_json(folder / one.id / "env.json", {"device": "cpu", "sessions": [{"seconds": 2.0}]})
    return folder


def result(
    job: Inspect,
    planted: dict[str, dict[str, float]],
    *,
    depth: dict[str, int] | None = None,
    shuffled: float = 0.2,
    line: float = 1.0,
) -> dict[str, Any]:
    """Return what result.json holds."""
    counts = ("effective_rank", "effective_rank_sigma", "stable_rank", "participation_ratio", "numerical_rank")
    ranks = {form: dict.fromkeys(counts, line) for form in ("raw", "centred")}
    taps = {each.name: _taps((depth or {}).get(each.name, 2)) for each in job.groups}
    models = [
        _model(job, each, k, SHIFTS | planted.get(each.name, {}), taps[each.name])
        for each in job.groups
        for k in range(len(each.checkpoints))
    ]
    about = {"net": "nets:build", "num_parameters": 5000}
    return {
        "corruptions": list(CORRUPTIONS),
        "chance": 0.2,
        "probe_chance": 0.2,
        "num_examples": NUM,
        "num_probe_train": 120,
        "num_probe_test": NUM,
        "kind": "classes",
        "notes": ["read 700 examples, 2 skipped"],
        "groups": [{"name": g.name, "color": g.color, **about, "taps": taps[g.name]} for g in job.groups],
        "models": models,
        "controls": {
            "tap": "blocks.1",
            "untrained": {"clean_accuracies": [0.15, 0.2, 0.22], "num_examples": 200},
            "shuffled_labels": {"test_accuracy": shuffled, "num_test": 200, "below_zero": 0.8},
            "rank_one": {"width": 8, "num_examples": 200, **ranks},
        },
        "sheet": synthetic.sheet("images"),
    }


def _taps(depth: int) -> list[str]:
    return [f"{'blocks' if depth == 2 else 'stages'}.{number}" for number in range(depth)]


def _spread(whose: Group, n: int) -> float:
    """Return by how much a test example differs, for every group in another order; the mean is 0."""
    return 0.002 * (n * (1 + ord(whose.name[0]) % 4) % 5 - 2)


def _model(job: Inspect, whose: Group, k: int, shift: dict[str, float], taps: list[str]) -> dict[str, Any]:
    seed = 0.01 * (-1.5, -0.5, 0.5, 1.5)[(k + len(whose.name)) % 4]
    corrupted, moved = 0.6 + seed + shift["corrupted"], 0.5 + shift["transfer"]
    found: dict[str, Any] = {"group": whose.name, "checkpoint": whose.checkpoints[k].path, "member": None}
    if "robustness" in job.measures:
        found |= {
            "clean_loss": 1.0 + seed + shift["loss"],
            "clean_accuracy": 0.7,
            "accuracy": {
                name: [corrupted + offset + 0.02 * (3 - severity) for severity in range(1, 6)]
                for name, offset in zip(CORRUPTIONS, (-0.05, 0.05), strict=True)
            },
            "clean_by_example": [float(n % 10 < 7) for n in range(NUM)],
            "corrupted_by_example": [corrupted + 0.05 * (-1) ** n + _spread(whose, n) for n in range(NUM)],
        }
    if "transfer" in job.measures:
        hits = [float(n < NUM * moved) for n in range(NUM)]
        found["transfer"] = {"accuracy": moved + seed, "by_example": hits, "chance": 0.25}
    return found | {"layers": [_layer(job, whose, *each, seed, shift) for each in enumerate(taps)]}


def _layer(job: Inspect, whose: Group, number: int, tap: str, seed: float, shift: dict[str, float]) -> dict[str, Any]:
    margin, rank = 1.0 + number + seed + shift["margin"], 4.0 + number + seed + shift["rank"]
    values = [margin + 0.3 * (-1) ** n + 5 * _spread(whose, n) for n in range(NUM)]
    own = {"by_norm": values, "raw": [5 * value for value in values]}
    found = {**synthetic.layer(tap, margin, rank), "margins_by_example": own}
    keys = {
        "rank": ("raw", "centred", "effective_rank_interval"),
        "margins": ("probe", "margins", "margins_by_example"),
    }
    lost = [key for measure in keys if measure not in job.measures for key in keys[measure]]
    return {key: value for key, value in found.items() if key not in lost}

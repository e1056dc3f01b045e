"""A measuring job: robustness, probes, margins and ranks of the weights that a pretraining job kept."""

import base64
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from muonlab.measure.features import gather
from muonlab.measure.margins import margins, summarise
from muonlab.measure.probes import Probes, probe
from muonlab.measure.spectra import Spectrum, bootstrap, jackknife
from muonlab.runs.features import Measure, State
from muonlab.train.features import weights
from muonlab.train.features.material import DATA_SEED, Material, Probing, Set, Task, example_loss

ROWS = 64  # examples of a forward pass: small enough for the cache
SEVERITIES = (1, 2, 3, 4, 5)
RESAMPLES = 200
BOOTSTRAPPED = 256  # widest hidden states whose rank is bootstrapped: eigenvalues take the cube of the width
PARTS = 20  # of the examples, for the jackknife of wider ones
# Of the probes' weights: at the default the choice of a strength, made at ten times of it, may hang on what else is
# fitted in the same batch.
TOLERANCE = 0.002

Report = Callable[[dict], None]


@dataclass(frozen=True, eq=False)
class Model:
    """One member at one look."""

    state: str
    seed: int
    step: int
    net: nn.Module


def run(job: Measure, material: Material, folder: Path, *, report: Report) -> dict[str, Any]:
    """Measure, and return what result.json holds."""
    task, probing = material.pretraining(), material.probing()
    models = load_models(distinct(job.states), job.seeds, folder.parent / job.weights, task.build)
    stages = len(material.corruptions) * len(SEVERITIES) + 2 * len(models) + len(job.looks) * len(job.seeds)
    done = 0

    def advance(number: int) -> None:
        nonlocal done
        done += number
        report({"step": done, "budget": stages, "alive": len(models)})

    settings = job.measuring
    robustness, states = _robustness(job, material, models, probing, advance)
    layers = _layers(
        models, probing, states, settings.probe_train, settings.probe_validation, settings.examples, advance
    )
    measured = {(m.seed, m.step): {**robustness[k], "layers": layers[k]} for k, m in enumerate(models)}
    result: dict[str, Any] = {
        "corruptions": list(material.corruptions),
        "chance": task.chance,
        "probe_chance": probing.test.labels.bincount().max().item() / len(probing.test.labels),
        "num_examples": min(settings.examples, len(task.test.labels)),
        "num_probe_test": min(settings.examples, len(probing.test.labels)),
        "num_probe_train": min(settings.probe_train, len(probing.train.labels)),
        "models": [
            {"state": state.name, "seed": seed, "step": step, **measured[seed, step]}
            for state in job.states
            for seed, step in zip(state.seeds, state.steps, strict=True)
        ],
        "path": _path(job, material, task, folder, advance),
    }
    if job.control:
        result["controls"] = _controls(models[0], probing, settings.probe_train, settings.probe_validation)
        result["sheet"] = _sheet(material)
    return result


def distinct(states: Sequence[State]) -> list[State]:
    """Return the weights of several states, each once: a run may be matched to two rivals at one step."""
    pairs = sorted({pair for state in states for pair in zip(state.seeds, state.steps, strict=True)})
    return [State(name="", seeds=tuple(seed for seed, _ in pairs), steps=tuple(step for _, step in pairs))]


def load_models(
    states: Sequence[State], seeds: Sequence[int], folder: Path, build: Callable[[], nn.Module]
) -> list[Model]:
    """Return every seed of every state.

    Args:
        states: which weights.
        seeds: of the pretraining job, in the order of its members.
        folder: of that job.
        build: returns the net.
    """
    kept = {step: weights.load(folder, step) for step in sorted({step for state in states for step in state.steps})}
    models = []
    for state in states:
        for seed, step in zip(state.seeds, state.steps, strict=True):
            net = build()
            weights.put(net, weights.of_member(kept[step], list(seeds).index(seed)))
            models.append(Model(state.name, seed, step, net.eval()))
    return models


# -- robustness: accuracy under every corruption ---------------------------------------------------


def _robustness(
    job: Measure, material: Material, models: list[Model], probing: Probing, advance: Callable[[int], None]
) -> tuple[list[dict[str, Any]], list[dict[str, list[Tensor]]]]:
    """Return for each model its accuracies, and its hidden states of the probed examples under all corruptions."""
    number, severity = job.measuring.examples, job.measuring.margin_severity
    clean, _ = material.corrupted(material.corruptions[0], 0, number)
    found: list[dict[str, Any]] = []
    for model in models:
        loss, accuracy = judge(model.net, clean)
        found.append({"clean_loss": loss, "clean_accuracy": accuracy, "accuracy": {}})
    states: list[dict[str, list[Tensor]]] = [{} for _ in models]
    for name in material.corruptions:
        for each in SEVERITIES:
            examples, probed = material.corrupted(name, each, number)
            for model, own, kept in zip(models, found, states, strict=True):
                own["accuracy"].setdefault(name, []).append(judge(model.net, examples)[1])
                if each == severity:
                    for tap, hidden in hidden_states(model.net, probed, probing, probing.pool).items():
                        kept.setdefault(tap, []).append(hidden)
            advance(1)
    return found, states


@torch.no_grad()
def judge(net: nn.Module, examples: Set) -> tuple[float, float]:
    """Return mean loss and accuracy."""
    losses, hits = [], []
    for inputs, labels in zip(examples.inputs.split(ROWS), examples.labels.split(ROWS), strict=True):
        logits = net(inputs)
        losses.append(example_loss(logits, labels))
        hits.append((logits.argmax(-1) == labels).double())
    return torch.cat(losses).double().mean().item(), torch.cat(hits).mean().item()


def hidden_states(net: nn.Module, examples: Set, probing: Probing, pool: str) -> dict[str, Tensor]:
    """Return the hidden states (N, D) of every tap in one pass."""
    mask = None if probing.padding is None else probing.mask
    taps: tuple[str, ...] = net.taps  # pyright: ignore[reportAssignmentType]
    return gather(net, examples.inputs.split(ROWS), taps, pool=pool, forward=lambda net, rows: net(rows), mask=mask)


# -- probes, margins and ranks of every layer ------------------------------------------------------


def _layers(
    models: list[Model],
    probing: Probing,
    corrupted: list[dict[str, list[Tensor]]],
    num_train: int,
    num_validation: int,
    num_test: int,
    advance: Callable[[int], None],
) -> list[list[dict[str, Any]]]:
    sets = (probing.train.first(num_train), probing.validation.first(num_validation), probing.test.first(num_test))
    taps: tuple[str, ...] = models[0].net.taps  # pyright: ignore[reportAssignmentType]
    states: list[list[dict[str, Tensor]]] = []
    ranks: list[dict[str, dict[str, Any]]] = []
    for model in models:
        states.append([hidden_states(model.net, part, probing, probing.pool) for part in sets])
        own = states[-1][2]
        if probing.rank_pool != probing.pool:
            own = hidden_states(model.net, sets[2], probing, probing.rank_pool)
        ranks.append({tap: spectrum(hidden) for tap, hidden in own.items()})
        advance(1)
    labels = [part.labels for part in sets]
    many = labels[2].repeat(len(next(iter(corrupted[0].values()))))
    rows: list[list[dict[str, Any]]] = [[] for _ in models]
    for tap in taps:
        fitted = fit([[each[tap] for each in own] for own in states], labels)
        clean = _margins(fitted, [own[2][tap] for own in states], labels[2])
        spoilt = _margins(fitted, [torch.cat(own[tap]) for own in corrupted], many)
        for k in range(len(models)):
            own = {"clean": clean[k], "corrupted": spoilt[k]}
            row = {"tap": tap, **ranks[k][tap], "probe": _probe(fitted, k), "margins": own}
            rows[k].append(row)
    advance(len(models))
    return rows


def fit(states: list[list[Tensor]], labels: list[Tensor]) -> Probes:
    """Return a probe for each problem, given as states of train, validation and test."""
    parts = [([problem[k] for problem in states], labels[k]) for k in range(3)]
    return probe(*parts, num_classes=int(max(own.max() for own in labels)) + 1, tolerance=TOLERANCE)


def _probe(fitted: Probes, k: int) -> dict[str, Any]:
    return {
        "strength": fitted.strength[k].item(),
        "is_edge": bool(fitted.is_edge[k]),
        "converged": bool(fitted.converged[k]),
        "validation_accuracy": fitted.validation_accuracy[k].item(),
        "test_accuracy": fitted.test_accuracy[k].item(),
        "weight_norm": fitted.weights[k].norm().item(),
    }


def _margins(fitted: Probes, states: list[Tensor], labels: Tensor) -> list[dict[str, Any]]:
    """Return for each problem the mean and median of every kind of margin, with intervals over examples."""
    logits = fitted.logits(states)
    found = margins(logits, labels, fitted.weights)
    rows: list[dict[str, Any]] = [{} for _ in states]
    for kind in ("raw", "by_norm", "by_distance"):
        values = getattr(found, kind)
        # The probe of a layer that is dead has weights of zero, and no boundary to be far from.
        has_boundary = values.isfinite().all(1, keepdim=True)
        summary = summarise(values.where(has_boundary, 0.0), resamples=RESAMPLES)
        for k, row in enumerate(rows):
            mean, median = summary.mean, summary.median
            row[kind] = {
                "mean": mean.value[k].item(),
                "mean_interval": [mean.lower[k].item(), mean.upper[k].item()],
                "median": median.value[k].item(),
                "median_interval": [median.lower[k].item(), median.upper[k].item()],
            }
            if not has_boundary[k]:
                row[kind] = {"mean": None, "mean_interval": None, "median": None, "median_interval": None}
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


# -- the way there: clean and corrupted accuracy at every look -------------------------------------


def _path(
    job: Measure, material: Material, task: Task, folder: Path, advance: Callable[[int], None]
) -> list[dict[str, Any]]:
    number, severity = job.measuring.path_examples, job.measuring.path_severity
    clean, _ = material.corrupted(material.corruptions[0], 0, number)
    spoilt = [material.corrupted(name, severity, number)[0] for name in material.corruptions]
    rows = []
    net = task.build().eval()
    for step in job.looks:
        kept = weights.load(folder.parent / job.weights, step)
        for member, seed in enumerate(job.seeds):
            weights.put(net, weights.of_member(kept, member))
            accuracies = [judge(net, examples)[1] for examples in spoilt]
            corrupted = sum(accuracies) / len(accuracies)
            rows.append({"seed": seed, "step": step, "clean": judge(net, clean)[1], "corrupted": corrupted})
            advance(1)
    return rows


# -- controls: what every measure says where there is nothing to find ------------------------------


def _controls(model: Model, probing: Probing, num_train: int, num_validation: int) -> dict[str, Any]:
    """Return what probes say of shuffled labels, and spectra of a representation of rank one."""
    sets = (probing.train.first(num_train), probing.validation.first(num_validation), probing.test)
    tap: str = model.net.taps[-1]  # pyright: ignore[reportIndexIssue, reportAssignmentType]
    states = [hidden_states(model.net, part, probing, probing.pool)[tap] for part in sets]
    generator = torch.Generator().manual_seed(DATA_SEED)
    shuffled = [part.labels[torch.randperm(len(part.labels), generator=generator)] for part in sets]
    fitted = fit([states], shuffled)
    own = _margins(fitted, [states[2]], shuffled[2])[0]
    line = states[2] @ states[2].mean(0)
    return {
        "tap": tap,
        "shuffled_labels": {**_probe(fitted, 0), "below_zero": own["below_zero"], "num_test": len(shuffled[2])},
        "rank_one": spectrum(line[:, None] * states[2].mean(0)),
    }


def _sheet(material: Any) -> dict[str, Any]:
    sheet = material.sheet()
    found: dict[str, Any] = {"rows": list(sheet.rows), "columns": list(sheet.columns)}
    if sheet.picture is None:
        return {**found, "lines": [list(line) for line in sheet.lines]}
    channels, height, width = sheet.picture.shape
    pixels = (sheet.picture * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous()
    data = base64.b64encode(bytes(pixels.flatten().tolist())).decode()
    return {**found, "width": width, "height": height, "channels": channels, "pixels": data}

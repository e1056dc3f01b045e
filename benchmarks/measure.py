"""The measures of features beside scikit-learn, numpy and the loops that one would write, in one process on one thread.

    python benchmarks/measure.py [--rounds 5] [--layers 12] [--examples 10000] [--width 128] [--classes 10] [--json]

Seconds are those of the thread's processor, medians over rounds and their range, all variants in turn within a round.
Set OMP_NUM_THREADS=1 and OPENBLAS_NUM_THREADS=1: other threads would not be counted. A peer that is too slow for the
whole does a stated part, and its time is multiplied. Hidden states are made: classes with a mean each, in noise of a
falling spectrum that grows from layer to layer, through a GELU, so that probes reach from all to some of the test
examples.
"""

import argparse
import json
import random
import statistics
import sys
import time
import warnings
from collections.abc import Callable

import numpy as np
import torch
from optimizer.machine import machine
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import nn

from muonlab.measure.features import gather
from muonlab.measure.margins import logit_margins, summarise
from muonlab.measure.probes import Examples, Probes, probe
from muonlab.measure.spectra import Spectrum

HELD_OUT = 2000  # validation, and as many for the test
SPECTRUM_SHAPE = (10_000, 768)
RESAMPLES = 1000
LOOP_RESAMPLES = 50
Variants = dict[str, tuple[Callable[[], object], float]]  # what is timed, and what its time is multiplied by


def hidden_states(layers: int, examples: int, width: int, classes: int) -> list[Examples]:
    """Return train, validation and test."""
    generator = torch.Generator().manual_seed(0)
    total = examples + 2 * HELD_OUT
    labels = torch.randint(classes, (total,), generator=generator)
    features = torch.empty(layers, total, width)
    falling = torch.arange(1.0, width + 1) ** -1 * width**0.5
    for layer, noise in enumerate(torch.logspace(-0.5, 0.5, layers).tolist()):
        means = 0.3 * torch.randn(classes, width, generator=generator)
        mix = torch.randn(width, width, generator=generator) / width**0.5
        states = means[labels] + noise * falling * torch.randn(total, width, generator=generator)
        features[layer] = nn.functional.gelu(states @ mix) + 0.1 * (states @ mix)
    cuts = (slice(examples), slice(examples, examples + HELD_OUT), slice(examples + HELD_OUT, total))
    return [Examples(features[:, cut], labels[cut]) for cut in cuts]


def scikit_learn_path(splits: list[Examples], layer: int, strengths: list[float], **options) -> LogisticRegression:
    """Return the best on validation of a path with warm starts, as `probe` chooses it."""
    scaler = StandardScaler().fit(splits[0].features[layer].numpy())
    train, validation = (scaler.transform(split.features[layer].numpy()) for split in splits[:2])
    labels = splits[1].labels.numpy()
    best, lowest = None, np.inf
    model = LogisticRegression(warm_start=True, max_iter=1000, **options)
    for strength in strengths:
        model.set_params(C=strength).fit(train, splits[0].labels.numpy())
        loss = -model.predict_log_proba(validation)[np.arange(len(labels)), labels].mean()
        if loss < lowest:
            best, lowest = (model.coef_.copy(), model.intercept_.copy()), loss
    model.coef_, model.intercept_ = best  # pyright: ignore[reportGeneralTypeIssues]
    return model


def probe_variants(splits: list[Examples], found: Probes) -> Variants:
    layers = len(found.strength)
    peer_layers = sorted({0, layers // 2, layers - 1})

    def peers(tolerance: float):
        for layer in peer_layers:
            tried = found.strengths[~found.losses[layer].isnan()].tolist()
            scikit_learn_path(splits, layer, tried, tol=tolerance)

    part = layers / len(peer_layers)

    return {
        "ours, float32": (lambda: probe(*splits), 1),
        "ours, float64": (lambda: probe(*splits, dtype=torch.float64), 1),
        f"scikit-learn, tol=1e-4 ({len(peer_layers)} layers, scaled)": (lambda: peers(1e-4), part),
        f"scikit-learn, tol=1e-6 ({len(peer_layers)} layers, scaled)": (lambda: peers(1e-6), part),
    }


def agreement(splits: list[Examples], found: Probes) -> dict:
    """Return the distances to the optimum, which is scikit-learn's Newton at a tolerance of 1e-10."""
    layer = int((~found.is_edge).nonzero()[-1])
    top = found.strength[layer].item()
    one = [Examples(split.features[layer, None], split.labels) for split in splits]
    strength, grid = [top], {"strengths": (top / 10, top), "bounds": (top / 10, top)}
    exact = scikit_learn_path(splits, layer, strength, solver="newton-cholesky", tol=1e-10).coef_
    plain, tight = (scikit_learn_path(splits, layer, strength, tol=tolerance).coef_ for tolerance in (1e-4, 1e-6))
    single, double = (probe(*one, dtype=dtype, **grid).weights[0].numpy() for dtype in (torch.float32, torch.float64))
    found_by = {"ours, float32": single, "ours, float64": double}
    found_by |= {"scikit-learn, tol=1e-4": plain, "scikit-learn, tol=1e-6": tight}
    return {name: float(np.linalg.norm(weights - exact) / np.linalg.norm(exact)) for name, weights in found_by.items()}


def margin_variants(values: torch.Tensor) -> Variants:
    array, generator = values.numpy(), np.random.default_rng(0)

    def loop():
        for _ in range(LOOP_RESAMPLES):
            drawn = array[:, generator.integers(array.shape[1], size=array.shape[1])]
            drawn.mean(1), np.median(drawn, axis=1)

    return {
        f"ours, {RESAMPLES} resamples": (lambda: summarise(values, resamples=RESAMPLES), 1),
        f"numpy's loop ({LOOP_RESAMPLES} resamples, scaled)": (loop, RESAMPLES / LOOP_RESAMPLES),
    }


def spectrum_variants() -> Variants:
    hidden = torch.randn(*SPECTRUM_SHAPE, generator=torch.Generator().manual_seed(0))

    def ours():
        spectrum = Spectrum()
        for batch in hidden.split(500):
            spectrum.update(batch)
        return spectrum.result()

    def theirs():
        wide = hidden.double().numpy()
        return [np.linalg.svd(matrix, compute_uv=False) for matrix in (wide, wide - wide.mean(0))]

    return {"ours, batches of 500, centred and not": (ours, 1), "numpy.linalg.svd, float64, both": (theirs, 1)}


def tap_variants(layers: int, width: int) -> Variants:
    blocks = [nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)) for _ in range(layers)]
    model, inputs = nn.Sequential(*blocks), torch.randn(2048, width).split(256)
    names = [str(layer) for layer in range(layers)]
    return {
        "ours, all taps in one pass": (lambda: gather(model, inputs, names, pool="flatten"), 1),
        "a pass for each tap": (lambda: [gather(model, inputs, [name], pool="flatten") for name in names], 1),
        "the model alone": (lambda: [model(batch) for batch in inputs], 1),
    }


def time_rounds(variants: Variants, rounds: int) -> dict[str, list[float]]:
    """Return the seconds of each variant in each round, in random order; a first round is not counted."""
    order, seconds = random.Random(0), {name: [] for name in variants}
    for number in range(rounds + 1):
        for name in order.sample(sorted(variants), len(variants)):
            call, factor = variants[name]
            start = time.thread_time()
            with torch.no_grad():
                call()
            if number:
                seconds[name].append(factor * (time.thread_time() - start))
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("rounds", 5), ("layers", 12), ("examples", 10_000), ("width", 128), ("classes", 10)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    splits = hidden_states(options.layers, options.examples, options.width, options.classes)
    found = probe(*splits)
    values = logit_margins(found.logits(splits[2].features), splits[2].labels)
    tables = {
        f"probes, {options.layers} x {options.examples} x {options.width}, {options.classes} classes, "
        f"{int((~found.losses.isnan()).sum())} strengths in all": probe_variants(splits, found),
        f"margins, {tuple(values.shape)}": margin_variants(values),
        f"spectrum, {SPECTRUM_SHAPE}": spectrum_variants(),
        f"taps, {options.layers} of 2048 x {options.width}": tap_variants(options.layers, options.width),
    }
    seen = {}
    for title, variants in tables.items():
        print(f"timing {title}", file=sys.stderr, flush=True)
        seen[title] = time_rounds(variants, options.rounds)
    distances = agreement(splits, found)
    if options.json:
        print(json.dumps({"environment": machine("cpu", 1), "seconds": seen, "distances": distances}, indent=1))
        return
    for title, rows in seen.items():
        print(f"\n{title}: seconds, median of n = {options.rounds} (range)")
        for name, each in rows.items():
            print(f"  {name:56} {statistics.median(each):8.3f} ({min(each):.3f}-{max(each):.3f})")
    print("\ndistance of the weights to the optimum, as a share of their norm, last layer, chosen strength")
    for name, distance in distances.items():
        print(f"  {name:56} {distance:8.1e}")
    print(f"\nconverged: {found.converged.all().item()}; test accuracies", end=" ")
    print(", ".join(f"{accuracy:.3f}" for accuracy in found.test_accuracy.tolist()))


if __name__ == "__main__":
    main()

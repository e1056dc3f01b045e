"""Coverage of the intervals of `muonlab.stats.tuned`, by simulated comparisons of optimizers whose difference is known.

    python benchmarks/coverage.py --save records/coverage/tuning.json

Each simulated study tunes two optimizers on loss landscapes over the unit cube, as `muonlab compare` does: trials at
points of a scrambled Sobol sequence with one seed each, the best three again with three fresh seeds, final runs of the
winner. The true difference is that of the losses which the procedure reaches on average, over `TRUTH` repetitions.

With --pooled, each study is of the five landscapes of `SUITE`, on which both optimizers are tuned, and the true ratio
of their losses is 1 or .8 on each.
"""

import argparse
import json
import sys
import time
import zlib
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
from scipy import stats
from scipy.stats import qmc

from muonlab.stats.tuned import Tuned, pooled_ratio, tuned_difference

FINALISTS, FRESH = 3, 3
TRUTH = 5000
BEST = 0.35  # of every setting, in the unit cube


def bowl(points):
    """Return a quadratic in every setting."""
    return ((points - BEST) ** 2).sum(-1)


def cliff(points):
    """Return a loss that falls with the first setting until it diverges, and hardly depends on the others."""
    rate = points[..., 0]
    return np.where(rate < 0.7, (0.7 - rate) + 0.1 * ((points[..., 1:] - BEST) ** 2).sum(-1), np.inf)


def valley(points):
    """Return a narrow valley: the product of the first two settings matters, as of learning rate and decay."""
    diagonal = points[..., 0] + points[..., 1 % points.shape[-1]] - 2 * BEST
    return 4 * diagonal**2 + 0.1 * ((points - BEST) ** 2).sum(-1)


LANDSCAPES = {"bowl": bowl, "cliff": cliff, "valley": valley}


def tune(rng, common, landscape, *, trials, dimensions, seeds, noise, shift=0.0) -> Tuned | None:
    """Return the tuning and final runs of one optimizer; None where every trial diverged.

    Half of a run's variance is of its seed, which both optimizers share (`common`), and half its own.
    """
    points = qmc.Sobol(dimensions, rng=rng).random(trials)
    means = shift + LANDSCAPES[landscape](points)
    own = noise * np.sqrt(0.5)
    search = means + own * (common[0] + rng.normal(size=trials))
    best = [int(trial) for trial in np.argsort(search)[:FINALISTS] if np.isfinite(search[trial])]
    if not best:
        return None
    again = {trial: means[trial] + own * (common[1 : 1 + FRESH] + rng.normal(size=FRESH)) for trial in best}
    winner = min(again, key=lambda trial: again[trial].mean())
    final = means[winner] + own * (common[1 + FRESH : 1 + FRESH + seeds] + rng.normal(size=seeds))
    return Tuned(search, np.argsort(points[:, 0]), again, winner, dict(enumerate(final)))


@cache
def reached(landscape: str, trials: int, dimensions: int, noise: float) -> float:
    """Return the expected loss of the winner, over repetitions of the tuning."""
    rng, total, count = np.random.default_rng(7), 0.0, 0
    for _repetition in range(TRUTH):
        points = qmc.Sobol(dimensions, rng=rng).random(trials)
        means = LANDSCAPES[landscape](points)
        search = means + noise * np.sqrt(0.5) * rng.normal(size=trials)
        best = np.argsort(search)[:FINALISTS]
        fresh = means[best] + noise * np.sqrt(0.5 / FRESH) * rng.normal(size=len(best))
        if np.isfinite(fresh).any():
            total, count = total + means[best[fresh.argmin()]], count + 1
    return total / count


def coverage(number, studies, landscapes, **scenario) -> dict:
    """Return how often intervals contain the true difference, and how often they call one where there is none."""
    known = scenario["trials"], scenario["dimensions"], scenario["noise"]
    truth = 0.0 if landscapes[0] == landscapes[1] else np.subtract(*(reached(each, *known) for each in landscapes))
    hits, alone, called, widths = [], [], [], []
    for study in range(studies):
        rng = np.random.default_rng([number, study])
        common = rng.normal(size=1 + FRESH + scenario["seeds"])
        first, second = (tune(rng, common, each, **scenario) for each in landscapes)
        if first is None or second is None:
            continue
        effect = tuned_difference(first, second)
        found = effect.estimate
        hits.append(found.lower <= truth <= found.upper)
        called.append(effect.p <= 0.05)
        widths.append(found.upper - found.lower)
        differences = [first.final[seed] - second.final[seed] for seed in first.final]
        interval = stats.ttest_1samp(differences, 0).confidence_interval()
        alone.append(interval.low <= truth <= interval.high)
    share = float(np.mean(hits))
    return {
        "landscapes": list(landscapes),
        **scenario,
        "studies": len(hits),
        "true_difference": float(truth),
        "coverage": share,
        "standard_error": float(np.sqrt(share * (1 - share) / len(hits))),
        "coverage_of_seeds_alone": float(np.mean(alone)),
        "called": float(np.mean(called)),
        "median_width": float(np.median(widths)),
    }


SUITE = (("bowl", 2), ("cliff", 4), ("valley", 2), ("bowl", 4), ("valley", 4))
FLOOR = 1.0  # added to every landscape, so that losses are above 0


def coverage_of_pooled(number, studies, *, ratio, **scenario) -> dict:
    """Return how often intervals of a ratio over the suite contain the true one, and how often it is not called 1."""
    hits, called, widths = [], [], []
    for study in range(studies):
        rng = np.random.default_rng([number, study])
        pairs = []
        for landscape, dimensions in SUITE:
            common = rng.normal(size=1 + FRESH + scenario["seeds"])
            both = [
                tune(rng, common, landscape, dimensions=dimensions, shift=FLOOR, **scenario) for _optimizer in range(2)
            ]
            if None not in both:
                pairs.append((_times(both[0], ratio), both[1]))
        effect = pooled_ratio(pairs)
        found = effect.estimate
        hits.append(found.lower <= ratio <= found.upper)
        called.append(effect.p <= 0.05)
        widths.append(found.upper / found.lower)
    return {
        "ratio": ratio,
        **scenario,
        "studies": len(hits),
        "coverage": float(np.mean(hits)),
        "called": float(np.mean(called)),
        "median_width": float(np.median(widths)),
    }


def _times(tuned: Tuned, ratio: float) -> Tuned:
    again = {trial: [ratio * loss for loss in runs] for trial, runs in tuned.again.items()}
    final = {seed: ratio * loss for seed, loss in tuned.final.items()}
    return Tuned([ratio * loss for loss in tuned.search], tuned.order, again, tuned.winner, final)


def pooled(studies: int, save: Path | None) -> None:
    """Print the coverage of ratios over the suite, and save it."""
    keys = "trials", "seeds", "noise", "ratio"
    table = []
    for values in product((8, 16), (3, 5, 10), (0.003, 0.03, 0.1), (1.0, 0.8)):
        scenario = dict(zip(keys, values, strict=True))
        key = json.dumps(scenario, sort_keys=True)
        table.append(coverage_of_pooled(zlib.crc32(key.encode()), studies, **scenario))
        print(json.dumps(table[-1]), flush=True)
        if save:
            save.write_text(json.dumps({"asked": studies, "table": table}, indent=1) + "\n")


def _key(pair, scenario) -> str:
    return json.dumps([list(pair), scenario], sort_keys=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=1000, help="simulated studies per scenario")
    parser.add_argument("--save", type=Path, help="a JSON file, written as scenarios end; those in it are kept")
    parser.add_argument("--pooled", action="store_true", help="the ratio over several trainings")
    options = parser.parse_args()
    if options.pooled:
        pooled(options.studies, options.save)
        return
    keys = "trials", "dimensions", "seeds", "noise"
    scenarios = [
        (pair, dict(zip(keys, values, strict=True)))
        for pair in (("bowl", "bowl"), ("cliff", "cliff"), ("valley", "valley"), ("bowl", "valley"))
        for values in product((8, 16), (1, 2, 4), (3, 10), (0.003, 0.03, 0.3))
        if values[1] > 1 or "valley" not in pair
    ]
    saved = options.save and options.save.exists() and json.loads(options.save.read_text())
    rows = saved["table"] if saved and saved["asked"] == options.studies else []
    known = {_key(row["landscapes"], {key: row[key] for key in keys}): row for row in rows}
    table = []
    started = time.perf_counter()
    for pair, scenario in scenarios:
        key = _key(pair, scenario)
        if key not in known:
            known[key] = coverage(zlib.crc32(key.encode()), options.studies, pair, **scenario)
            print(json.dumps(known[key]), flush=True)
        table.append(known[key])
        if options.save:
            options.save.parent.mkdir(parents=True, exist_ok=True)
            options.save.write_text(json.dumps({"asked": options.studies, "table": table}, indent=1) + "\n")
    print(summary(table))
    sys.stderr.write(f"{len(table)} scenarios, {time.perf_counter() - started:.0f} s\n")


def summary(table: list[dict]) -> str:
    """Return the coverage by landscapes and dimensions as Markdown: least, median and largest over the scenarios."""
    rows = [
        "| landscapes | dimensions | scenarios | coverage | of the seeds alone | calls a winner where there is none |",
        "|---|---|---|---|---|---|",
    ]
    groups: dict[tuple, list[dict]] = {}
    for row in table:
        groups.setdefault((" and ".join(row["landscapes"]), row["dimensions"]), []).append(row)
        groups.setdefault(("all", ""), []).append(row)
    for (landscapes, dimensions), own in sorted(groups.items(), key=lambda item: (item[0][0] == "all", item[0])):
        null = [row for row in own if row["true_difference"] == 0]
        figures = _spread(own, "coverage"), _spread(own, "coverage_of_seeds_alone"), _spread(null, "called")
        cells = landscapes, dimensions, len(own), *figures
        rows.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(rows)


def _spread(rows: list[dict], key: str) -> str:
    values = np.array([row[key] for row in rows])
    if not len(values):
        return ""
    return f"{values.min():.3f} {np.median(values):.3f} {values.max():.3f}"


if __name__ == "__main__":
    main()

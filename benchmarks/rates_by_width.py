"""Where the good learning rates of AdamW and Muon lie on the pocket GPT of three widths, and what ranges hold of them.

    python benchmarks/rates_by_width.py --save records/widths/rates.json    # trains what is missing, prints the table
    python benchmarks/rates_by_width.py --read records/widths/rates.json    # prints it again

`muonlab compare` draws learning rates from one range whatever the net's width. A range around a centre that falls with
the width could be narrower. Every optimizer is trained at each rate, all else at its defaults.
"""

import argparse
import json
import math
from functools import partial
from pathlib import Path

import numpy as np
import torch

from muonlab.studies.compare.config import Task, Train, Training
from muonlab.studies.compare.work import builtin
from muonlab.studies.compare.work.task import TaskMaterial
from muonlab.study.dotted import find
from muonlab.study.optimizers import SEARCHED
from muonlab.study.space import SPACES
from muonlab.train.schedule import pace

WIDTHS = (32, 128, 256)
OPTIMIZERS = ("adamw", "muon")
RATES = tuple(float(f"{10 ** (-4 + k / 3):.2g}") for k in range(12))  # 1e-4 to 0.46
TRAINING = Training(batch=16, budget=100, evaluations=1)
SEED, NEAR = 0, 0.05  # seed of all runs; share of the best loss within which a rate is good
CENTRES = {"none": 0.0, "1/sqrt(width)": 0.5, "1/width": 1.0}  # rule -> power of the width


class OfWidth:
    """The pocket GPT at a width, as the task of a comparison."""

    def __init__(self, width):
        self.name, self._width = f"gpt, width {width}", width

    def load(self, key):
        """Return the function of a seed."""
        return partial(builtin.gpt, None, width=self._width)


def losses(width, name):
    """Return the validation loss at the end for each rate; None where it diverged."""
    points = [{**SPACES[name][1], "lr": rate} for rate in RATES]
    optimizer, seeds = SEARCHED[name](), [SEED] * len(points)
    material = TaskMaterial(OfWidth(width), TRAINING.batch)
    trained = Task(task=find("task", "muonlab.studies.compare.work.builtin:gpt"))  # its name alone is needed
    job = Train(trained=trained, training=TRAINING, optimizer=optimizer, points=points, seeds=(SEED,))
    members, draw, reader = material.members(optimizer, points, seeds, job, "cpu")
    for step in range(TRAINING.budget):
        members.step(*draw(step), step, pace(step, TRAINING.budget, warmup=TRAINING.warmup, kind=TRAINING.schedule))
    found = reader.evaluate(members, TRAINING.budget)[:, 2].tolist()
    return [loss if math.isfinite(loss) else None for loss in found]


def measure(path):
    """Train what is not in the file yet, and keep each part when it is done."""
    found = json.loads(path.read_text()) if path.exists() else {}
    for width in WIDTHS:
        for name in OPTIMIZERS:
            if (key := f"{name} {width}") not in found:
                found[key] = losses(width, name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(json.dumps(found, indent=1) + "\n")
    return found


def good(own):
    """Return the ends of the interval of rates within `NEAR` of the best, and the best, as log10.

    The loss is taken as linear in the logarithm of the rate between two rates, and as infinite where a run diverged.
    """
    x, y = np.log10(RATES), np.array([math.inf if loss is None else loss for loss in own])
    fine = np.linspace(x[0], x[-1], 4001)
    between = np.interp(fine, x, np.where(np.isfinite(y), y, 1e6))
    inside = fine[between <= (1 + NEAR) * y.min()]
    return inside[0], inside[-1], x[int(y.argmin())]


def share(ends, low, high):
    """Return the share of a log-uniform range that lies within the good interval."""
    return max(0.0, min(ends[1], high) - max(ends[0], low)) / (high - low)


def show(found):
    """Print the good rates, then what ranges hold of them: today's, and narrower ones around a centre."""
    print("| optimizer | width | best rate | good rates | today's range | of it good |\n|---|---|---|---|---|---|")
    known = {key: good(own) for key, own in found.items()}
    for key, ends in known.items():
        name, width = key.split()
        today = SPACES[name][0]["lr"]
        low, high, best = (f"{10**each:.2g}" for each in ends)
        held = share(ends, *np.log10([today.low, today.high]))
        print(f"| {name} | {width} | {best} | {low} to {high} | {today.low:g} to {today.high:g} | {held:.0%} |")
    widths = " | ".join(f"at {width}" for width in WIDTHS)
    print(f"\n| optimizer | centre falls as | decades | good {widths} |\n|---|---|---|{'---|' * len(WIDTHS)}")
    for name in OPTIMIZERS:
        first = known[f"{name} {WIDTHS[0]}"]
        for rule, power in CENTRES.items():
            centres = [(first[0] + first[1]) / 2 - power * math.log10(width / WIDTHS[0]) for width in WIDTHS]
            for half in (0.5, 0.75, 1.25):
                at = [
                    share(known[f"{name} {width}"], centre - half, centre + half)
                    for width, centre in zip(WIDTHS, centres, strict=True)
                ]
                print(f"| {name} | {rule} | {2 * half:g} | {' | '.join(f'{each:.0%}' for each in at)} |")


def main():
    """Train, or read, and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--save", type=Path)
    parser.add_argument("--read", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    show(measure(given.save) if given.save else json.loads(given.read.read_text()))


if __name__ == "__main__":
    main()

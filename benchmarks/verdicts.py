"""Verdicts of `muonlab compare` on tasks whose answer is known: how often they are right, and what intervals cover.

    python benchmarks/verdicts.py --save records/coverage/verdicts.json

Each comparison runs the jobs of a study, one after the other in this process: trials, the best again, final runs. Its
task is a noisy quadratic with weights and noise of its own, and each optimizer has Sobol points of its own: with the
same points, two copies of one optimizer would be one run twice.
"""

import argparse
import json
import math
import os
import sys
import tempfile
import time
from pathlib import Path
from statistics import fmean

import torch
from torch import nn

from muonlab.report.findings import as_text
from muonlab.stats.proportions import wilson
from muonlab.studies.compare.analysis import find
from muonlab.studies.compare.ask import ask
from muonlab.studies.compare.config import CompareStudy
from muonlab.studies.compare.jobs import steps
from muonlab.studies.compare.switch import Switch
from muonlab.studies.compare.work.job import run

CURVATURE = torch.linspace(1.0, 8.0, 32)
STEPS, BATCH, NOISE = 30, 4, 1.0
NUMBER = "MUONLAB_COMPARISON"  # which comparison a task is of: muonlab passes it the seed alone
HERE = Path(__file__).resolve()


# -- tasks and optimizers ---------------------------------------------------------------------------------------------


class Point(nn.Module):
    """Weights that are to be near the inputs."""

    def __init__(self, start):
        super().__init__()
        self.weight = nn.Parameter(start)

    def forward(self, inputs):
        return self.weight - inputs


def bowl(outputs, targets):
    """Return the quadratic of each example."""
    return (CURVATURE * outputs**2).sum(-1) / 2


def quadratic(seed):
    """Return a start and noisy minima of a comparison and a seed; the validation loss is exact."""
    generator = torch.Generator().manual_seed(10_000 * int(os.environ.get(NUMBER, "0")) + seed)
    start = torch.randn(len(CURVATURE), generator=generator)
    inputs = NOISE * torch.randn(STEPS, BATCH, len(CURVATURE), generator=generator)
    batches = [(each, torch.zeros(BATCH)) for each in inputs]
    return Point(start), batches, [(torch.zeros(1, len(CURVATURE)), torch.zeros(1))], bowl


class Preconditioned(torch.optim.SGD):
    """Gradient descent on a quadratic whose curvatures are all made 1."""

    def step(self, closure=None):
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.grad /= CURVATURE
        return super().step(closure)


class Diverging(torch.optim.SGD):
    """Gradient descent that diverges in half of its runs: which, follows from the first gradient and the rate."""

    def step(self, closure=None):
        for group in self.param_groups:
            for parameter in group["params"]:
                bits = int(parameter.grad.double().sum().abs().item() * group["lr"] * 1e9)
                if not self.state[parameter].setdefault("is_begun", False) and (bits * 2654435761 >> 16) % 2:
                    parameter.data.fill_(torch.nan)
                self.state[parameter]["is_begun"] = True
        return super().step(closure)


def expected_loss(rate, is_preconditioned):
    """Return the exact expected validation loss of gradient descent with a constant rate."""
    scale = torch.ones_like(CURVATURE) if is_preconditioned else CURVATURE
    shrink = (1 - rate * scale.double()) ** 2
    noise = (rate * scale.double()) ** 2 * NOISE**2 / BATCH
    left = shrink**STEPS + noise * (1 - shrink**STEPS) / (1 - shrink)
    return float((CURVATURE * left).sum() / 2)


# -- what is compared -------------------------------------------------------------------------------------------------

CONSTANT = ("schedule=constant", "warmup=0")
PLAIN = ("sgd.momentum=0", "sgd.weight_decay=0", "sgd.lr=0.01..1")
SCENARIOS = {
    # name: words, and which optimizer the candidate is a copy of
    "tie, AdamW": (("optimizers=adamw,copy=adamw", "copy.beta2=0.99", "adamw.lr=0.003..1"), "adamw"),
    "tie, AdamW, best rate beyond the range": (("optimizers=adamw,copy=adamw", "copy.beta2=0.99"), "adamw"),
    "tie, gradient descent": (("optimizers=sgd,copy=sgd", "copy.lr=0.02..1", *PLAIN, *CONSTANT), "sgd"),
    "better by a known amount": (
        (f"optimizers=sgd,better={HERE}:Preconditioned", "better.lr=0.01..1", *PLAIN, *CONSTANT),
        None,
    ),
    "diverges in half of the runs": (
        (f"optimizers=sgd,half={HERE}:Diverging", "half.lr=0.01..1", "seeds=16", *PLAIN, *CONSTANT),
        None,
    ),
}


def asked_of(name, number):
    """Return what a comparison asks: with Sobol points of its own for each optimizer, and copies that are copies."""
    words, original = SCENARIOS[name]
    plain = ask([f"{HERE}:quadratic", f"steps={STEPS}", "evaluations=2", "horizons=1", *words])[1].model_dump()
    if original:
        copy = next(label for label in plain["optimizers"] if label != original)
        for part in ("optimizers", "searches"):
            plain[part][copy] = dict(plain[part][original])
    for place, space in enumerate(plain["searches"].values()):
        space["seed"] = 2 * number + place
    return CompareStudy.model_validate(plain)


def compare(name, number):
    """Return what one comparison decided."""
    os.environ[NUMBER] = str(number)
    asked, found = asked_of(name, number), {}
    with tempfile.TemporaryDirectory() as folder:
        while todo := [step.job for step in steps(asked, found) if step.job.id not in found]:
            for job in todo:
                found[job.id] = run(config=job.config, folder=f"{folder}/{job.id}", compile="never")
    (known,) = find(asked, steps(asked, found), found)
    (candidate,) = Switch(known, known.arm(asked.baseline or "")).candidates
    estimate = candidate.effect.estimate if candidate.effect else None
    row = {"scenario": name, "comparison": number, "outcome": candidate.outcome, "why": candidate.why, "p": candidate.p}
    row |= {key: getattr(estimate, key, None) for key in ("value", "lower", "upper")}
    row = {key: float(f"{value:.4g}") if isinstance(value, float) else value for key, value in row.items()}
    if name == "better by a known amount":
        rates = {label: known.runs.points[label]["lr"] for label in ("better", "sgd")}
        row["expected"] = {label: round(expected_loss(rate, label == "better"), 4) for label, rate in rates.items()}
    return row


# -- all of them ------------------------------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--comparisons", type=int, default=200, help="of each scenario")
    parser.add_argument("--save", type=Path, help="a JSON file, written as comparisons end; those in it are kept")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = json.loads(options.save.read_text())["rows"] if options.save and options.save.exists() else []
    done = {(row["scenario"], row["comparison"]) for row in rows}
    started = time.process_time()
    for number in range(options.comparisons):
        for name in SCENARIOS:
            if (name, number) in done:
                continue
            rows.append(compare(name, number))
        if options.save:
            partial = options.save.with_suffix(".partial")
            lines = ",\n".join(json.dumps(row) for row in rows)
            partial.write_text(f'{{"asked": {options.comparisons}, "rows": [\n{lines}\n]}}\n')
            partial.replace(options.save)
    print(summary(rows))
    sys.stderr.write(f"{time.process_time() - started:.0f} s of CPU\n")


def summary(rows) -> str:
    """Return the counts of each scenario as Markdown."""
    lines = [
        "| scenario | comparisons | better | worse | equal | inconclusive | true difference | intervals with it |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in SCENARIOS:
        own = [row for row in rows if row["scenario"] == name]
        if not own:
            continue
        counts = [sum(row["outcome"] == each for row in own) for each in ("better", "worse", "equal", "undecided")]
        truth = 0.0 if "tie" in name else math.nan
        if all("expected" in row for row in own):
            truth = fmean(row["expected"]["better"] - row["expected"]["sgd"] for row in own)
        bounds = [(row["lower"], row["upper"]) for row in own if row["lower"] is not None]
        covers = sum(low <= truth <= high for low, high in bounds)
        cells = name, len(own), *counts, "–", "–"
        if not math.isnan(truth):
            cells = *cells[:-2], f"{truth:.4g}", f"{covers} of {len(bounds)}, {_share(covers, len(bounds))}"
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def _share(number, total):
    return as_text(wilson(number, total), "accuracy")


if __name__ == "__main__":
    main()

"""How far rounding takes a run: at another height, with two threads, with the kernels of other processors.

    python benchmarks/rounding.py [--save FILE]

Prints, for each optimizer and dtype, by how much the weights of a member differ from those of the first run, as a share
of the way that they have come: the largest over members, after 1, 8 and 64 steps.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from optimizer.machine import machine
from safetensors.torch import load_file, save_file

from muonlab.studies.grokking.config import CellConfig, NetConfig, ProtocolConfig, TaskConfig
from muonlab.studies.grokking.work.cell import build_population, build_rows
from muonlab.studies.grokking.work.material import build_task
from muonlab.study.optimizers import RatedAdamW, RatedMuon, RatedSGD

OPTIMIZERS = {"muon": RatedMuon(), "adamw": RatedAdamW(), "sgd": RatedSGD()}
MEMBERS = 4
STEPS = (0, 1, 8, 64)
BASELINE = {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_CBWR": "COMPATIBLE"}
VARIANTS = {  # name -> height (0: all members), environment
    "again": (0, {}),
    "height 1": (1, {}),
    "height 3": (3, {}),
    "two threads": (0, {"OMP_NUM_THREADS": "2"}),
    "kernels without AVX": (0, BASELINE),
}


def train(height: int) -> dict[str, torch.Tensor]:
    """Return the weights of all members, (S, all), by optimizer, dtype and step."""
    found = {}
    for name, optimizer in OPTIMIZERS.items():
        for dtype in ("float32", "float64"):
            config = CellConfig(
                study="grokking",
                task=TaskConfig(name="add", modulus=23, train_share=0.8),
                net=NetConfig(width=32, heads=2, ff_width=32, dropout=0.1),
                loss="softmax",
                optimizer=optimizer,
                protocol=ProtocolConfig(batch=32, dtype=dtype),
                seeds=tuple(range(MEMBERS)),
            )
            task = build_task(config)
            population = build_population(config, task, config.seeds, "cpu")
            rows = build_rows(config, task, config.seeds, "cpu")
            population.gradients.height = height or MEMBERS
            for step in range(STEPS[-1] + 1):
                if step in STEPS:
                    weights = [p.flatten(1) for p in population.parameters.values()]
                    found[f"{name} {dtype} {step}"] = torch.cat(weights, 1).clone()
                population.step(*rows(step), step)
    return found


def distances(first: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> dict[str, float]:
    """Return the largest |W - W'| / |W - W_0| over members; of step 0 there is none."""
    found = {}
    for run in sorted({key.rsplit(" ", 1)[0] for key in first}):
        for key in (f"{run} {step}" for step in STEPS[1:]):
            way = (first[key] - first[f"{run} 0"]).norm(dim=1)
            found[key] = ((first[key] - other[key]).norm(dim=1) / way).max().item()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--save", type=Path)
    parser.add_argument("--train", nargs=2, help=argparse.SUPPRESS)  # a height, and the file for the weights
    asked = parser.parse_args()
    if asked.train:
        save_file(train(int(asked.train[0])), asked.train[1])
        return
    runs = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, (height, environment) in {"first": (0, {}), **VARIANTS}.items():
            command = [sys.executable, __file__, "--train", str(height), f"{folder}/weights"]
            subprocess.run(command, check=True, env={"OMP_NUM_THREADS": "1"} | os.environ | environment)
            runs[name] = {key: tensor.clone() for key, tensor in load_file(f"{folder}/weights").items()}
    found = {name: distances(runs["first"], runs[name]) for name in VARIANTS}
    for name, shares in found.items():
        print(name)
        for run in dict.fromkeys(key.rsplit(" ", 1)[0] for key in shares):
            own = {key.rsplit(" ", 1)[1]: share for key, share in shares.items() if key.startswith(f"{run} ")}
            print(f"  {run:14}" + "".join(f"  {step}: {share:.0e}" for step, share in own.items()))
    if asked.save:
        asked.save.write_text(json.dumps({"environment": machine("cpu", 1), **found}, indent=1) + "\n")


if __name__ == "__main__":
    main()

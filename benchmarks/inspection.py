"""Peak memory and seconds of an inspection of two checkpoints of GPT-2's size, 124 million parameters, random weights.

    OMP_NUM_THREADS=1 python benchmarks/inspection.py [--examples 2] [--length 256] [--save FILE]

The checkpoints are written to a temporary folder, which takes 1 GB, and inspected by a process of its own, whose peak
is that of `muonlab inspect`'s worker. Tokens are bytes, of a vocabulary of 50257: logits are as large as GPT-2's. The
labelled texts are pieces of Python's documentation under labels that mean nothing: figures of the report are no result.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from optimizer.machine import machine
from safetensors.torch import save_file
from torch import nn

from muonlab.data import text
from muonlab.jobs.files import read_json
from muonlab.nets.gpt import GPT
from muonlab.studies.checkpoints.config import Checkpoint, Group, Inspect, Texts
from muonlab.studies.checkpoints.work import checkpoints, job
from muonlab.studies.features.config import Measuring

NET = "inspection:build"  # this file
NAMES = ("first", "second")


def build() -> nn.Module:
    return GPT(50257)


def write(folder: Path) -> None:
    """Write two checkpoints, of weights drawn from two seeds."""
    paths = [folder / f"{name}.safetensors" for name in NAMES]
    for seed, path in enumerate(paths):
        torch.manual_seed(seed)
        save_file(build().state_dict(), path)


def write_texts(path: Path) -> None:
    """Write 36 pieces of text under three labels in turn."""
    words = text.language("documentation").text.split()
    pieces = [" ".join(words[50 * k : 50 * (k + 1)]) for k in range(36)]
    path.write_text("".join(f"label{k % 3} {piece}\n" for k, piece in enumerate(pieces)))


def config(paths: list[Path], examples: Path, number: int, length: int) -> Inspect:
    groups = [
        Group(name=Path(own.path).stem, net=NET, checkpoints=(Checkpoint(path=own.path, sha256=own.sha256),))
        for own in map(checkpoints.describe, paths)
    ]
    return Inspect(
        groups=tuple(groups),
        data=Texts(source="documentation", examples=str(examples), length=length),
        measuring=Measuring(examples=number, probe_train=10 * number, probe_validation=5 * number),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=2)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--save", type=Path)
    parser.add_argument("--write", type=Path, metavar="FOLDER", help="what a first process does")
    parser.add_argument("--inspect", nargs=2, metavar=("CONFIG", "FOLDER"), help="what a second process does")
    options = parser.parse_args()
    if options.write:
        write(options.write)
        return
    if options.inspect:
        place, folder = options.inspect
        job.run(config=json.loads(Path(place).read_text()), folder=folder)
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_texts(folder / "examples.txt")
        # Not in this process: the peak of one that starts another counts for that, too.
        subprocess.run([sys.executable, __file__, "--write", str(folder)], check=True)
        paths = [folder / f"{name}.safetensors" for name in NAMES]
        made = config(paths, folder / "examples.txt", options.examples, options.length)
        (folder / "asked.json").write_text(made.model_dump_json())
        command = [sys.executable, __file__, "--inspect", str(folder / "asked.json"), str(folder / "inspection")]
        subprocess.run(command, check=True)
        record = read_json(folder / "inspection/env.json")
        result = read_json(folder / "inspection/result.json")
    found = {
        "machine": machine("cpu", torch.get_num_threads()),
        "num_parameters": [group["num_parameters"] for group in result["groups"]],
        "taps": [len(group["taps"]) for group in result["groups"]],
        "measuring": made.measuring.model_dump(),
        "length": options.length,
        "peak_memory_mb": record["peak_memory_mb"],
        "seconds": record["sessions"][-1]["seconds"],
    }
    print(json.dumps(found, indent=1))
    if options.save:
        options.save.parent.mkdir(parents=True, exist_ok=True)
        options.save.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""What the height of stacks costs: the gradients of eight members of the feature study's nets, some at once.

    OMP_NUM_THREADS=1 python benchmarks/heights.py [--members 8] [--repeats 5] [--save FILE]

Times are the best of a few, interleaved, as shares of the fastest height; the last column is the height that
`Population.choose_height` takes by FLOPs.
"""

import argparse
import json
import math
import time
from pathlib import Path

import torch
from optimizer.machine import machine

from muonlab.studies.features.config import CNNConfig, Family, GPTConfig, ImageData, TextData, ViTConfig
from muonlab.studies.features.work import material
from muonlab.studies.features.work.pretraining import build_engine, count_flops
from muonlab.study.optimizers import Muon
from muonlab.train.batches import Batches

DIGITS = ImageData(name="digits", source="digits")
TEXTS = {"name": "sources", "source": "sources", "transfer_source": "documentation", "examples": "packages"}
SHORT, LONG = (
    TextData.model_validate({**TEXTS, "length": length, "limit": 100_000, "transfer_limit": 30_000, "per_class": 60})
    for length in (48, 64)
)
CASES = {
    "CNN 8, batch 16": (Family(net=CNNConfig(width=8, depths=(1,), groups=4), data=DIGITS), 16),
    "CNN 16, batch 32": (Family(net=CNNConfig(width=16, depths=(1, 1, 1)), data=DIGITS), 32),
    "ViT 3 x 48, batch 32": (Family(net=ViTConfig(depth=3, width=48, heads=3, patch=2), data=DIGITS), 32),
    "ViT 4 x 64, batch 32": (Family(net=ViTConfig(depth=4, width=64, heads=4, patch=4), data=DIGITS), 32),
    "GPT 2 x 64, batch 16": (Family(net=GPTConfig(depth=2, width=64, heads=4), data=SHORT), 16),
    "GPT 3 x 64, batch 16": (Family(net=GPTConfig(depth=3, width=64, heads=4), data=LONG), 16),
}


def measure(family: Family, batch: int, members: int, repeats: int) -> dict:
    """Return FLOPs of a member, seconds by height, and the height that is taken."""
    read = material.read(family)
    engine, _ = build_engine(read, read.judged, Muon(), [0.01] * members, list(range(members)))
    batches = Batches(*read.judged.train, list(range(members)), batch)
    flops = count_flops(engine, batches) / members
    arguments = engine.parameters, *engine._batch(*batches(0), 0)
    chosen = engine.choose_height(*batches(0))
    heights = sorted({chosen, *(2**power for power in range(members.bit_length()))})
    seconds = dict.fromkeys(heights, math.inf)
    for repeat in range(repeats + 1):
        for height in heights:
            engine.gradients.height = height
            start = time.perf_counter()
            engine.gradients(*arguments)
            if repeat:  # the first pays for more than itself
                seconds[height] = min(seconds[height], time.perf_counter() - start)
    return {"flops": flops, "seconds": seconds, "chosen": chosen}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--members", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--save", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    found = {}
    for name, (family, batch) in CASES.items():
        found[name] = own = measure(family, batch, asked.members, asked.repeats)
        fastest = min(own["seconds"].values())
        shares = "  ".join(f"{height}: {each / fastest:.2f}" for height, each in own["seconds"].items())
        print(f"{name:22} {own['flops']:.1e} FLOPs   {shares}   taken: {own['chosen']}", flush=True)
    if asked.save:
        asked.save.write_text(json.dumps({"environment": machine("cpu", 1), **found}, indent=1) + "\n")


if __name__ == "__main__":
    main()

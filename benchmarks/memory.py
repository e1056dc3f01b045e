"""Memory of a step of torch.optim.Muon and muonlab's, beyond parameters, gradients and state, by torch's profiler.

python benchmarks/memory.py --save records/optimizer/memory.txt    # a minute or two; counts bytes, times nothing
"""

import argparse
from functools import partial
from pathlib import Path

import torch
from eight_bit import peak
from torch import nn

from muonlab import Muon

CASES = {
    "float32, 24 of 512 x 512 (24 MiB)": ([(512, 512)] * 24, torch.float32),
    "bfloat16, 24 of 1024 x 1024 (48 MiB)": ([(1024, 1024)] * 24, torch.bfloat16),
    "bfloat16, 96 of 512 x 512 (48 MiB)": ([(512, 512)] * 96, torch.bfloat16),
    "bfloat16 experts, 16 of 512 x 512 in one (8 MiB)": ([(16, 512, 512)], torch.bfloat16),
    "float32, one of 1024 x 2048 (8 MiB)": ([(1024, 2048)], torch.float32),
    "bfloat16, one of 1024 x 2048 (4 MiB)": ([(1024, 2048)], torch.bfloat16),
    "float32, one of 4096 x 1024 (16 MiB)": ([(4096, 1024)], torch.float32),
    "bfloat16, one of 4096 x 1024 (8 MiB)": ([(4096, 1024)], torch.bfloat16),
}


def counted(make, shapes, dtype):
    """Return the MiB of a second step at most, with all that it keeps, and what is kept."""
    params = [nn.Parameter(torch.randn(shape).to(dtype)) for shape in shapes]
    for p in params:
        p.grad = torch.randn(p.shape).to(dtype)
    optimizer = make(params)
    optimizer.step()
    getattr(optimizer, "free_workspace", lambda: None)()
    most = peak(optimizer.step)
    workspace = getattr(optimizer, "_workspace", None)
    return most / 2**20, (0 if workspace is None else workspace.num_bytes) / 2**20


def table():
    """Return the table as Markdown."""
    names = ("parameters", "torch.optim.Muon", "muonlab", "of it kept between steps", "muonlab, products in bfloat16")
    lines = ["| " + " | ".join(names) + " |", "|---" * len(names) + "|"]
    for name, (shapes, dtype) in CASES.items():
        apart = [shape[1:] for shape in shapes for _ in range(shape[0])] if len(shapes[0]) == 3 else shapes
        theirs, _ = counted(torch.optim.Muon, apart, dtype)
        ours, kept = counted(Muon, shapes, dtype)
        narrow, _ = counted(partial(Muon, ns_dtype=torch.bfloat16), shapes, dtype)
        lines.append(f"| {name} | {theirs:.1f} | {ours:.1f} | {kept:.1f} | {narrow:.1f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--save", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    found = table()
    if asked.save is not None:
        asked.save.write_text(found + "\n")
    print(found)

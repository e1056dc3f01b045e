"""Float32 matrix products of a Transformer's step by MKL, as torch has them by itself, and by oneDNN.

    python benchmarks/products.py [--rounds 60] [--save FILE]

GFLOP/s of one thread by the processor's time, medians, both libraries in turn in one process; and the largest error
against float64, in units of float32's eps times the root of the length of the sums.
"""

import argparse
import contextlib
import json
import statistics
import time
from pathlib import Path

import torch
from optimizer.machine import machine
from torch import Tensor

from muonlab.rules import products

# name: rows, sums, columns, whether the first and the second matrix are transposed, how many at once
KINDS = {
    "forward, feed-forward": (512, 128, 512, False, True, 1),
    "backward, its input": (512, 512, 128, False, False, 1),
    "backward, its weight": (512, 512, 128, True, False, 1),
    "projection": (512, 128, 128, False, True, 1),
    "16 of 128 x 128": (128, 128, 128, False, True, 16),
    "large": (1024, 1024, 1024, False, True, 1),
}


def operands(kind: str) -> tuple[Tensor, Tensor]:
    rows, sums, columns, first, second, count = KINDS[kind]
    generator = torch.Generator().manual_seed(0)
    A = torch.randn(count, *((sums, rows) if first else (rows, sums)), generator=generator)
    B = torch.randn(count, *((columns, sums) if second else (sums, columns)), generator=generator)
    return A.mT if first else A, B.mT if second else B


def measure(kind: str, rounds: int) -> dict[str, dict[str, float]]:
    """Return the rate and the error of each library."""
    (A, B), (rows, sums, columns, _, _, count) = operands(kind), KINDS[kind]
    exact = torch.bmm(A.double(), B.double())
    found = {
        library: torch.empty(count, rows, columns) for library in ("MKL", "oneDNN")
    }  # memory that is there already
    seconds: dict[str, list[float]] = {library: [] for library in found}
    for _ in range(rounds):
        for library, times in seconds.items():
            with products.fast_products() if library == "oneDNN" else contextlib.nullcontext():
                out = found[library]
                start = time.thread_time()
                torch.bmm(A, B, out=out) if count > 1 else torch.mm(A[0], B[0], out=out[0])
                times.append(time.thread_time() - start)
    unit = torch.finfo(torch.float32).eps * sums**0.5
    return {
        library: {
            "gflops": 2e-9 * count * rows * sums * columns / statistics.median(times),
            "error": ((found[library] - exact).abs().max() / unit).item(),
        }
        for library, times in seconds.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--save", type=Path, help="write JSON to this file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if not products.pays():
        raise SystemExit("on this processor muonlab leaves products to MKL: there is nothing to compare")
    found = {kind: measure(kind, options.rounds) for kind in KINDS}
    for kind, both in found.items():
        words = [
            f"{library} {each['gflops']:4.0f} GFLOP/s, error {each['error']:.2f}" for library, each in both.items()
        ]
        print(f"{kind:24} {'   '.join(words)}")
    if options.save:
        result = {"environment": machine("cpu", 1), "rounds": options.rounds, "products": found}
        options.save.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()

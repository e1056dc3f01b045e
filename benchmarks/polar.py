"""Which method is the cheapest that is accurate enough, by shape: the measurements behind rules/polar.py.

    python benchmarks/polar.py [--json] [--dtypes bfloat16,float32] [--threads 1] [--device cpu]

Accurate enough is a cosine to the exact polar factor of .99 for Gaussian matrices, .995 for singular values 1/i and .93
for singular values from 1 to 1e-3, evenly in their logarithm. All candidates of a shape are timed in one process,
interleaved; the figure is the first quartile, in milliseconds a matrix.
"""

import argparse
import json
import statistics
import time

import torch
from torch import Tensor

from muonlab.jobs.environment import record
from muonlab.rules.operands import Workspace
from muonlab.rules.polar import orthogonalize_

SHAPES = [(64, 64), (128, 128), (192, 192), (256, 256), (512, 512), (768, 768)]
ASPECTS = [1, 1.25, 1.5, 2, 4, 9]
COUNTS = [1, 8]
CANDIDATES = [("quintic", 5), ("polar_express", 4), ("polar_express", 5), ("gram", 4), ("gram", 5), ("exact", None)]
FLOORS = {"gaussian": 0.99, "1/i": 0.995, "condition 1e3": 0.93}


def spectrum(name: str, side: int) -> Tensor | None:
    index = torch.arange(side, dtype=torch.float64)
    if name == "1/i":
        return 1 / (index + 1)
    return None if name == "gaussian" else 10 ** (-3 * index / max(1, side - 1))


def examples(rows: int, columns: int, device: str) -> dict[str, tuple[Tensor, Tensor]]:
    """Return matrices and their polar factors, both float32."""
    found = {}
    for name in FLOORS:
        noise = torch.randn(rows, columns, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        U, s, Vt = torch.linalg.svd(noise, full_matrices=False)
        wanted = spectrum(name, rows)
        G = U * (s if wanted is None else wanted) @ Vt
        found[name] = (G.float().to(device), (U @ Vt).float().to(device))
    return found


def cosine(a: Tensor, b: Tensor) -> float:
    return float((a * b).sum() / (a.norm() * b.norm()))


def measure(rows: int, columns: int, count: int, dtype: torch.dtype, device: str, seconds: float) -> dict[str, dict]:
    matrices = examples(rows, columns, device)
    work = Workspace()

    def run(G: Tensor, method: str, steps: int | None) -> Tensor:
        products = torch.float32 if method == "exact" else dtype
        return orthogonalize_([G], method, steps=steps, dtype=products, workspace=work)[0]

    accuracy = {
        (method, steps): {
            name: cosine(run(G[None].clone(), method, steps)[0].float(), exact) for name, (G, exact) in matrices.items()
        }
        for method, steps in CANDIDATES
    }
    times: dict[tuple[str, int | None], list[float]] = {candidate: [] for candidate in CANDIDATES}
    stack = matrices["gaussian"][0].expand(count, -1, -1).contiguous()
    start = time.perf_counter()
    while time.perf_counter() - start < seconds or len(times["gram", 4]) < 4:
        for candidate, seen in times.items():
            G = stack.clone()
            before = time.perf_counter()
            run(G, *candidate)
            if device != "cpu":
                torch.cuda.synchronize()
            seen.append(time.perf_counter() - before)
    return {
        f"{method}{'' if steps is None else f' {steps}'}": {
            "ms": statistics.quantiles(times[method, steps], n=4)[0] * 1e3 / count,
            "accuracy": accuracy[method, steps],
            "enough": all(accuracy[method, steps][name] >= floor for name, floor in FLOORS.items()),
        }
        for method, steps in CANDIDATES
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--dtypes", default="bfloat16,float32")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seconds", type=float, default=0.5, help="for each shape")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    lines = []
    for name in options.dtypes.split(","):
        for side, _ in SHAPES:
            for aspect in ASPECTS:
                for count in COUNTS if side <= 256 else COUNTS[:1]:
                    columns = round(side * aspect)
                    found = measure(side, columns, count, getattr(torch, name), options.device, options.seconds)
                    best = min((key for key in found if found[key]["enough"]), key=lambda key: found[key]["ms"])
                    shape = {"dtype": name, "rows": side, "columns": columns, "count": count}
                    lines.append(shape | {"best": best} | found)
                    if not options.json:
                        cells = "  ".join(
                            f"{key} {cell['ms']:.2f}{'' if cell['enough'] else '*'}" for key, cell in found.items()
                        )
                        print(f"{name:9} {count} x {side}x{columns:<5} {best:16} {cells}", flush=True)
    if options.json:
        print(
            json.dumps(
                {"environment": record(threads=options.threads), "threads": options.threads, "lines": lines}, indent=1
            )
        )
    else:
        print("* not accurate enough")


if __name__ == "__main__":
    main()

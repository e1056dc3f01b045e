"""Where a step of a population goes: operations by their own time, eager and compiled, beside the floor.

python benchmarks/where.py [--depth 1] [--optimizer muon] [--members 4] [--json]
"""

import argparse
import json
import os
import tempfile
import time
import warnings

import torch
import torch._inductor.config
from optimizer.machine import machine, matrix_peak
from torch.profiler import ProfilerActivity, profile
from training.populations import Variant, cell, flops

from muonlab.rules.products import fast_products

NUM_STEPS = 20
NUM_SHOWN = 14


def measure(variant: Variant) -> dict:
    """Return milliseconds a member-step: as they are, and by operation under the profiler, which adds to each call."""
    for number in range(3):
        variant.step(number)
    start = time.thread_time()
    for number in range(NUM_STEPS):
        variant.step(number)
    own = 1e3 * (time.thread_time() - start) / NUM_STEPS / variant.count
    with profile(activities=[ProfilerActivity.CPU]) as recorded:
        for number in range(NUM_STEPS):
            variant.step(number)
    events = sorted(recorded.key_averages(), key=lambda event: -event.self_cpu_time_total)
    per = 1e3 * NUM_STEPS * variant.count
    operations = {
        event.key.removeprefix("aten::").replace("graph_0_cpp_fused_", "fused: ")[:90]: {
            "ms": event.self_cpu_time_total / per,
            "calls": event.count / NUM_STEPS / variant.count,
        }
        for event in events
    }
    return {"ms": own, "profiled_ms": sum(each["ms"] for each in operations.values()), "operations": operations}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--depth", type=int, default=1)
    parser.add_argument("--optimizer", default="muon")
    parser.add_argument("--members", type=int, default=4)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    torch._inductor.config.cpp.enable_kernel_profile = True  # of a program of its own, not the one that others load
    os.environ["MUONLAB_CACHE"] = tempfile.mkdtemp()
    with fast_products():
        single, half = (matrix_peak("cpu", dtype) for dtype in (torch.float32, torch.bfloat16))
    work = flops(cell(options.optimizer, options.depth, 1))
    floor = 1e-6 * (work["net"] / single + work["orthogonalization"] / half)
    found = {
        engine: measure(Variant(cell(options.optimizer, options.depth, options.members), compiled=engine == "compiled"))
        for engine in ("eager", "compiled")
    }
    if options.json:
        print(
            json.dumps({"environment": machine("cpu", 1), "floor_ms": floor, "flops": work, "engines": found}, indent=1)
        )
        return
    what = f"depth {options.depth}, {options.optimizer}, S = {options.members}"
    print(f"{what}: its products alone, at the peak, would take {floor:.2f} ms")
    for engine, seen in found.items():
        print(f"\n{engine}: {seen['ms']:.2f} ms a member-step ({seen['profiled_ms']:.2f} under the profiler)")
        for name, each in list(seen["operations"].items())[:NUM_SHOWN]:
            print(f"  {name:90} {each['ms']:6.2f} ms {each['calls']:8.1f} calls")


if __name__ == "__main__":
    main()

"""Member-steps per second: the loop that a researcher would write beside a population, eager and compiled.

    python benchmarks/engine.py [--json] [--depths 1,2] [--members 1,4,16] [--threads 1,2] [--rounds 12] [--save FILE]
    python benchmarks/engine.py --device cuda --engines eager --members 1,16,64,256 --threads 1 --no-memory

All variants are timed in one process, interleaved in random order; the figure is the median over the rounds of the
ratio to the plain loop's step of the same round, for one thread of a CPU in time of the processor. Floor: the FLOPs of
the matrix products that must be done, at the highest rate of a matrix product that was seen on this machine, in float32
for the net and bfloat16 for Muon's orthogonalization (benchmarks/floor.py measures a floor). Memory a member is what 16
of them take more than 4, in processes of their own.
"""

import argparse
import json
import random
import statistics
import subprocess
import sys
from pathlib import Path

import torch
from optimizer.machine import clock, machine, matrix_peak, synchronize
from training.plain import PlainLoop
from training.populations import Variant, cell, flops

from muonlab.rules.products import fast_products

CADENCE = 50  # steps between two evaluations, as in the study
WARM_UP = 2


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def variants(config_of, members: list[int], engines: list[str], device: str) -> dict[str, object]:
    """Return what is timed, by name; the plain loop first."""
    found: dict[str, object] = {"plain": PlainLoop(config_of(1), device)}
    for engine in engines:
        for count in members:
            say(f"  {engine} S={count}: first steps")
            found[f"{engine} S={count}"] = Variant(config_of(count), compiled=engine == "compiled", device=device)
    return found


def time_rounds(found: dict[str, object], rounds: int, device: str) -> dict[str, list[float]]:
    """Return the seconds of each step, interleaved in random order."""
    order, seconds = random.Random(0), {name: [] for name in found}
    for number in range(rounds + WARM_UP):
        for name in order.sample(sorted(found), len(found)):
            synchronize(device)
            start = clock(device)()
            found[name].step(number)  # pyright: ignore[reportAttributeAccessIssue]
            synchronize(device)
            if number >= WARM_UP:
                seconds[name].append(clock(device)() - start)
    return seconds


def peak_memory(depth: int, optimizer: str, engine: str, count: int) -> float:
    """Return the peak MB of a process that makes a few steps and one evaluation."""
    command = [sys.executable, __file__, "--probe", f"{depth},{optimizer},{engine},{count}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def probe(text: str) -> None:
    depth, optimizer, engine, count = text.split(",")
    torch.set_num_threads(1)
    variant = Variant(cell(optimizer, int(depth), int(count)), compiled=engine == "compiled")
    for number in range(3):
        variant.step(number)
    variant.evaluate()
    status = Path("/proc/self/status").read_text()  # ru_maxrss begins with that of the process that started this one
    print(int(status.split("VmHWM:")[1].split()[0]) / 2**10)


def measure(depth: int, optimizer: str, options, peaks: dict[str, float]) -> list[dict]:
    """Return the rows of the table for one net and one optimizer."""
    say(f"depth {depth}, {optimizer}")
    config_of = lambda count: cell(optimizer, depth, count)  # noqa: E731
    found = variants(config_of, options.members, options.engines, options.device)
    work = flops(config_of(1))
    floor = work["net"] / peaks["float32"] + work["orthogonalization"] / peaks["bfloat16"]
    memory = {
        engine: (peak_memory(depth, optimizer, engine, 16) - peak_memory(depth, optimizer, engine, 4)) / 12
        for engine in (options.engines if options.memory else ())
    }
    rows = []
    for threads in options.threads:
        torch.set_num_threads(threads)
        seconds = time_rounds(found, options.rounds, options.device)
        for name, times in seconds.items():
            count = getattr(found[name], "count", 1)
            ratios = [count * plain / own for own, plain in zip(times, seconds["plain"], strict=True)]
            q1, ratio, q3 = statistics.quantiles(ratios, n=4, method="inclusive")
            each = statistics.median(times) / count
            row = {
                "depth": depth,
                "optimizer": optimizer,
                "threads": threads,
                "engine": name.split()[0],
                "members": count,
                "member_steps_per_second": 1 / each,
                "ratio_to_plain": ratio,
                "ratio_quartiles": [q1, q3],
                "rounds": len(times),
                "gflop_per_member_step": (work["net"] + work["orthogonalization"]) / 1e9,
                "share_of_floor": floor / threads / each,
            }
            if isinstance(found[name], Variant):
                row |= found[name].shares(CADENCE) | {"mb_per_member": memory.get(row["engine"])}
            rows.append(row)
    return rows


def text_of(result: dict) -> str:
    environment, (single, half) = result["environment"], (result["peaks"][t] / 1e9 for t in ("float32", "bfloat16"))
    where = environment["device"].replace("cpu", environment["hardware"]["cpu"])
    lines = [
        f"{where}, torch {environment['versions']['torch']}; peak of a matrix product on one "
        f"thread {single:.0f} GFLOP/s in float32, {half:.0f} in bfloat16",
        "",
        "depth optimizer threads engine       S  member-steps/s  times plain (quartiles)  of floor  optimizer"
        "  evaluation  MB/member  compiling",
    ]
    for row in result["table"]:
        q1, q3 = row["ratio_quartiles"]
        rest = "".join(
            f"{'-' if row.get(key) is None else format(row[key], kind):>{width}}"
            for key, kind, width in (
                ("optimizer_share", ".0%", 11),
                ("evaluation_share", ".0%", 12),
                ("mb_per_member", ".1f", 11),
                ("compile_seconds", ".0f", 11),
            )
        )
        lines.append(
            f"{row['depth']:5} {row['optimizer']:9} {row['threads']:7} {row['engine']:9} {row['members']:5} "
            f"{row['member_steps_per_second']:15.1f} {row['ratio_to_plain']:9.2f} ({q1:.2f}-{q3:.2f})"
            f"{row['share_of_floor']:14.0%}{rest}"
        )
    return "\n".join(lines)


def numbers(text: str) -> list[int]:
    return [int(each) for each in text.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--save", type=Path, help="write the JSON to this file, too")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--depths", type=numbers, default=[1, 2])
    parser.add_argument("--members", type=numbers, default=[1, 4, 16])
    parser.add_argument("--threads", type=numbers, default=[1, 2])
    parser.add_argument("--optimizers", type=lambda text: text.split(","), default=["adamw", "muon"])
    parser.add_argument("--engines", type=lambda text: text.split(","), default=["eager", "compiled"])
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--no-memory", dest="memory", action="store_false", help="leave out the peak memory")
    parser.add_argument("--probe", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.probe:
        probe(options.probe)
        return
    torch.set_num_threads(1)
    with fast_products():
        peaks = {
            str(t).removeprefix("torch."): 1e9 * matrix_peak(options.device, t) for t in (torch.float32, torch.bfloat16)
        }
    table = [
        row
        for depth in options.depths
        for optimizer in options.optimizers
        for row in measure(depth, optimizer, options, peaks)
    ]
    result = {"environment": machine(options.device, max(options.threads)), "peaks": peaks, "table": table}
    if options.save:
        options.save.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1) if options.json else text_of(result))


if __name__ == "__main__":
    main()

"""One step of muonlab's Muon beside torch.optim.Muon and the Muons of timm, pytorch_optimizer and heavyball.

    pip install 'muonlab[bench]'
    python benchmarks/optim.py [--json] [--sets gpt2,width128,...] [--methods auto,quintic] [--peers timm]

All contenders are timed in one process, interleaved in random order; the figure is the median of the ratio to torch's
step of the same round. Launches, memory and readiness are seen in a process of its own for each
contender. A peer that is missing or fails has a line that says why. Further peers, on request: timm_default,
timm_polar_express, pytorch_optimizer_gram, heavyball_compiled; products and torch_products, which are not optimizers:
the matrix products of a step of muonlab and of torch alone, the floor of its time.

At scale (records/optimizer): --sets many10,many100,many1000,many10000 --peers products --skip accuracy,probe
--seconds 10, and --sets llama --layers 1 --peers products --skip accuracy --seconds 1.
"""

import argparse
import json
import math
import statistics
import sys
from pathlib import Path

import torch
from optimizer.accuracy import accuracy
from optimizer.contenders import DEFAULT_PEERS, FLOORS, PEERS, TORCH, Contender, muonlab
from optimizer.machine import machine, matrix_peak
from optimizer.parameters import DEFAULT_SETS, TITLES, quintic_operations, shapes, tensors, title
from optimizer.probe import probe
from optimizer.table import report_text
from optimizer.timing import time_set

SEED = 0
METHODS = ("auto", "quintic", "polar_express", "cubic", "gram", "aol", "exact")


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def loadable(contenders: list[Contender]) -> dict[str, str]:
    """Return why each contender that cannot be imported cannot."""
    problems = {}
    for contender in contenders:
        try:
            contender.load()
        except Exception as error:  # whatever a package raises on import
            problems[contender.name] = f"{type(error).__name__}: {error}".splitlines()[0]
    return problems


def measure_set(name: str, contenders: list[Contender], missing: dict[str, str], options, peak: float) -> dict:
    """Return everything that was seen on one set of parameters."""
    say(title(name, options.layers))
    of = shapes(name, options.layers)
    problems = dict(missing)
    present = [contender for contender in contenders if contender.name not in problems]
    start, gradients = tensors(of, options.device, SEED)
    times = time_set(
        present,
        start,
        gradients,
        repeats=options.repeats,
        seconds=options.seconds,
        seed=SEED,
        problems=problems,
        say=say,
    )
    del start, gradients
    operations = quintic_operations(of)
    rows = {}
    for contender in contenders:
        if contender.name in problems:
            rows[contender.name] = {"problem": problems[contender.name]}
            continue
        row = times[contender.name]
        row["gflops"] = operations / row["ms"]["median"] / 1e6
        row["share_of_peak"] = row["gflops"] / peak
        if "probe" not in options.skip and contender not in FLOORS:
            say(f"  {contender.name}: launches and memory")
            context = {"device": options.device, "dtype": options.ns_dtype, "threads": options.threads, "seed": SEED}
            row["probe"] = probe(contender, of, **context)
        rows[contender.name] = row
    return {
        "name": name,
        "title": title(name, options.layers),
        "matrices": len(of),
        "parameters": sum(math.prod(shape) for shape in of),
        "quintic_operations": operations,
        "rounds": len(times[TORCH.name]["times_ms"]),
        "rows": rows,
    }


def geometric_mean(sets: list[dict], kind: str) -> dict[str, float]:
    """Return the geometric mean over the sets of a median ratio, of those contenders that ran on all of them."""
    means = {}
    for name in sets[0]["rows"] if sets else ():
        rows = [one["rows"][name] for one in sets]
        if all(kind in row for row in rows):
            means[name] = statistics.geometric_mean(row[kind]["median"] for row in rows)
    return means


def measure(options) -> dict:
    contenders = [TORCH, *(muonlab(method, options.ns_dtype) for method in options.methods)]
    contenders += [PEERS[name] for name in options.peers]
    missing = loadable(contenders)
    dtypes = dict.fromkeys((options.ns_dtype, "float32"))
    peaks = {dtype: matrix_peak(options.device, getattr(torch, dtype)) for dtype in dtypes}
    sets = [measure_set(name, contenders, missing, options, peaks[options.ns_dtype]) for name in options.sets]
    table, problems = [], dict(missing)
    if "accuracy" not in options.skip:
        say("Accuracy")
        table = accuracy(contenders, options.device, problems)
    return {
        "environment": machine(options.device, options.threads),
        "settings": vars(options),
        "peak_gflops": peaks,
        "contenders": {c.name: {"about": c.about, "problem": missing.get(c.name)} for c in contenders},
        "sets": sets,
        "geometric_mean": {kind: geometric_mean(sets, kind) for kind in ("ratio", "cpu_ratio")},
        "accuracy": table,
        "accuracy_problems": problems,
    }


def names(*allowed: str):
    """Return a reader of names that are joined by commas."""

    def read(text: str) -> list[str]:
        given = [name for name in text.split(",") if name]
        unknown = [name for name in given if name not in allowed]
        if unknown:
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: expected some of {', '.join(allowed)}")
        return given

    return read


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print JSON with everything, raw times too")
    parser.add_argument("--save", help="write that JSON to a file as well")
    parser.add_argument("--sets", type=names(*TITLES), default=list(DEFAULT_SETS), help=",".join(TITLES))
    parser.add_argument("--layers", type=int, help="of GPT-2-small or Llama, instead of all")
    parser.add_argument("--methods", type=names(*METHODS), default=["auto"], help=f"of muonlab: {','.join(METHODS)}")
    parser.add_argument("--peers", type=names(*PEERS), default=list(DEFAULT_PEERS), help=",".join(PEERS))
    parser.add_argument("--repeats", type=int, default=200, help="rounds at most, for each set")
    parser.add_argument("--seconds", type=float, default=60, help="for the rounds of a set; three rounds at least")
    parser.add_argument("--ns-dtype", default="bfloat16", choices=("bfloat16", "float32", "float16"), help="of muonlab")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--skip", type=names("probe", "accuracy"), default=[], help="probe,accuracy: to be quick")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(SEED)  # heavyball rounds with the global generator
    report = measure(options)
    if options.save:
        Path(options.save).write_text(json.dumps(report, indent=1))
    print(json.dumps(report, indent=1) if options.json else report_text(report))


if __name__ == "__main__":
    main()

"""All that is to be measured on a GPU, in under eight minutes: `make gpu`.

    python benchmarks/gpu.py [--save records/gpu] [--device cuda] [--minutes 2.5]

- optimizer: a step on GPT-2-small's hidden matrices beside torch, timm, pytorch_optimizer, heavyball, dion and compiled
- engine: populations of 1, 16, 64 and 256 members beside a plain loop
- paper: the preset of grokking's paper, as much of it as is done in so many minutes
- kernels: the Triton kernels, for symmetric products beside torch's product and for the passes around the iteration
  beside those of the step, where Triton is installed
- nccl: a sharded step of one process beside a step of whole parameters

Each writes a file of its own, with the device named; what fails says why and does not stop the others. `--device cpu`
is a rehearsal with small sizes; its kernels run in Triton's interpreter.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist
from optimizer.machine import machine
from torch import nn

PEERS = (
    "timm,pytorch_optimizer,heavyball,dion,torch_compiled,muonlab_compiled,muonlab_graphed,muonlab_fused,"
    "muonlab_fused_graphed"
)
LIMITS = {
    "optimizer": 150.0,
    "engine": 90.0,
    "nccl": 45.0,
    "kernels": 30.0,
}  # seconds; with the paper's 2.5 minutes 7.75 in all
HERE = Path(__file__).parent


def commands(device: str, folder: Path, seconds: float) -> dict[str, tuple[list[str], float]]:
    """Return what is run, by name, and the seconds after which it is ended."""
    python, is_small = sys.executable, device == "cpu"
    optimizer = ["optim.py", "--device", device, "--sets", "gpt2", "--methods", "auto,quintic", "--peers", PEERS]
    optimizer += [
        "--skip",
        "probe,accuracy",
        *(["--seconds", "2", "--layers", "1"] if is_small else ["--seconds", "30"]),
    ]
    engine = ["engine.py", "--device", device, "--engines", "eager", "--threads", "1", "--no-memory"]
    engine += ["--members", "1,4", "--depths", "1", "--rounds", "2"] if is_small else ["--members", "1,16,64,256"]
    of_python = {"optimizer": optimizer, "engine": engine}
    of_python |= {name: ["gpu.py", "--only", name, "--device", device] for name in ("nccl", "kernels")}
    paper = ["-m", "muonlab", "run", "grokking", "preset=paper", f"device={device}", f"out={folder / 'paper'}"]
    paper += ["tasks=add", "losses=softmax", "seeds=1", "budget=20", "workers=1"] if is_small else []
    found = {
        name: ([python, str(HERE / script), *rest, "--save", str(folder / f"{name}.json")], LIMITS[name])
        for name, (script, *rest) in of_python.items()
    }
    return found | {"paper": ([python, *paper], seconds)}


def run(name: str, command: list[str], seconds: float, folder: Path) -> dict:
    """Run a command, its output in a file; return how it ended."""
    print(f"{name}: at most {seconds:.0f} s", file=sys.stderr, flush=True)
    start, log = time.perf_counter(), folder / f"{name}.txt"
    with log.open("w") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
        try:
            status = process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.terminate()
            process.wait()
            status = "ended by its time"
    ended = {"seconds": round(time.perf_counter() - start, 1), "status": status}
    return ended if status in (0, "ended by its time") else {**ended, "why": last_line(log)}


def last_line(log: Path) -> str:
    return (log.read_text().strip().splitlines() or [""])[-1][:200]


def sharded_beside_whole(device: str) -> dict:
    """Return the largest difference of three sharded steps, of one process, from those on whole parameters."""
    from torch.distributed.fsdp import fully_shard

    from muonlab import MuonAdamW

    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="29531", RANK="0", WORLD_SIZE="1")
    backend = "nccl" if device == "cuda" else "gloo"
    dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    ends = []
    for is_sharded in (False, True):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(256, 512), nn.ReLU(), nn.Linear(512, 512), nn.Linear(512, 10)).to(device)
        if is_sharded:
            fully_shard(net, mesh=dist.init_device_mesh(device, (1,)))
        optimizer = MuonAdamW(net, rules={})
        for step in range(3):
            inputs = torch.randn(32, 256, generator=torch.Generator().manual_seed(step)).to(device)
            net(inputs).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
        ends.append([(p.full_tensor() if is_sharded else p).detach() for p in net.parameters()])
    dist.destroy_process_group()
    return {
        "backend": backend,
        "largest_difference": max(float((a - b).abs().max()) for a, b in zip(*ends, strict=True)),
    }


def milliseconds(function: Callable[[], object], device: str) -> float:
    """Return the milliseconds of a call; of a rehearsal those of a single one."""
    if device == "cuda":
        from triton.testing import do_bench

        return do_bench(function)
    start = time.perf_counter()
    function()
    return 1e3 * (time.perf_counter() - start)


def kernels_beside_torch(device: str) -> dict[str, list[dict]]:
    """Return what the Triton kernels take beside torch on GPT-2-small's stacks, and their largest relative error."""
    if device == "cpu":
        os.environ["TRITON_INTERPRET"] = "1"  # before Triton is imported; its products in bfloat16 are wrong
    shapes = [(72, 768, 768), (12, 768, 3072)] if device == "cuda" else [(2, 64, 64), (1, 64, 96)]
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    return {
        "symmetric": [symmetric_beside_torch(shape, dtype, device) for shape in shapes],
        "passes": [passes_beside_torch(shape, dtype, device) for shape in shapes],
    }


def symmetric_beside_torch(shape: tuple[int, int, int], dtype: torch.dtype, device: str) -> dict:
    from muonlab.kernels.symmetric import symmetric_product

    X = torch.randn(shape, device=device).to(dtype)
    out, expected = X.new_empty(shape[0], shape[1], shape[1]), torch.bmm(X, X.mT)
    error = float((symmetric_product(X, out) - expected).abs().max() / expected.abs().max())
    ms = {
        "kernel_ms": milliseconds(partial(symmetric_product, X, out), device),
        "torch_ms": milliseconds(partial(torch.bmm, X, X.mT), device),
    }
    return {"shape": shape, "error": error, **ms}


def passes_beside_torch(shape: tuple[int, int, int], dtype: torch.dtype, device: str) -> dict:
    """Return what the passes around the iteration take, by kernels and by foreach calls, without the iteration."""
    from muonlab.kernels import fused
    from muonlab.rules import muon, passes
    from muonlab.rules.operands import Workspace

    ends, ms = [], {}
    for name, kernels in (("torch_ms", None), ("kernel_ms", fused)):
        torch.manual_seed(0)
        drawn = [[torch.randn(shape[1:], device=device) for _ in range(shape[0])] for _ in range(3)]
        ps, grads, momenta = drawn
        states, workspace = [{"momentum": each} for each in momenta], Workspace()
        hyper = {"lr": 0.02, "weight_decay": 0.1, "method": "polar_express", "polar_dtype": dtype}
        flag = torch.ones((), dtype=torch.bool, device=device)
        passes.KERNELS, iterated = kernels, muon.orthogonalize_
        muon.orthogonalize_ = lambda stacks, *_, **__: list(stacks)
        try:
            step = partial(muon.update_, grads, states, ps, workspace, **hyper, finite=flag)
            step()
            ends.append(torch.stack(momenta))  # what is subtracted is at another scale, as nothing is orthogonalized
            ms[name] = milliseconds(step, device)
        finally:
            passes.KERNELS, muon.orthogonalize_ = None, iterated
    error = float((ends[0] - ends[1]).abs().max() / ends[0].abs().max())
    return {"shape": shape, "error": error, **ms}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--save", type=Path, default=HERE.parent / "records" / "gpu")
    parser.add_argument("--minutes", type=float, default=2.5, help="for the paper's preset")
    parser.add_argument("--only", choices=("nccl", "kernels"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit(
            f"make gpu: torch {torch.__version__} sees no CUDA device, and nothing was written; expected a machine "
            "with one and a torch that is built for it, or a rehearsal: python benchmarks/gpu.py --device cpu"
        )
    if options.only:
        measure = sharded_beside_whole if options.only == "nccl" else kernels_beside_torch
        found = measure(options.device)
        options.save.write_text(json.dumps(found, indent=1) + "\n")
        return
    options.save.mkdir(parents=True, exist_ok=True)
    report = {"environment": machine(options.device, torch.get_num_threads()), "parts": {}}
    for name, (command, seconds) in commands(options.device, options.save, 60 * options.minutes).items():
        report["parts"][name] = run(name, command, seconds, options.save)
        (options.save / "gpu.json").write_text(json.dumps(report, indent=1) + "\n")
    print(f"{report['environment']['device']}: {options.save}")
    for name, ended in report["parts"].items():
        print(f"  {name:10} {ended['seconds']:6.0f} s  {ended.get('why', ended['status'])}")


if __name__ == "__main__":
    main()

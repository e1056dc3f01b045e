"""All that is to be measured on a GPU, in under eight minutes: `make gpu`.

    python benchmarks/gpu.py [--save records/gpu] [--device cuda] [--minutes 3]

- optimizer: a step on GPT-2-small's hidden matrices beside torch, timm, pytorch_optimizer, heavyball, dion and compiled
- engine: populations of 1, 16, 64 and 256 members beside a plain loop
- paper: the preset of grokking's paper, as much of it as is done in so many minutes
- nccl: a sharded step of one process beside a step of whole parameters

Each writes a file of its own, with the device named; what fails says why and does not stop the others. `--device cpu`
is a rehearsal with small sizes.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist
from optimizer.machine import machine
from torch import nn

PEERS = "timm,pytorch_optimizer,heavyball,dion,torch_compiled,muonlab_compiled,muonlab_graphed"
LIMITS = {"optimizer": 150.0, "engine": 90.0, "nccl": 45.0}  # seconds; with the paper's 3 minutes 7.75 in all
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
    of_python = {"optimizer": optimizer, "engine": engine, "nccl": ["gpu.py", "--only-nccl", "--device", device]}
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--save", type=Path, default=HERE.parent / "records" / "gpu")
    parser.add_argument("--minutes", type=float, default=3, help="for the paper's preset")
    parser.add_argument("--only-nccl", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit(
            f"make gpu: torch {torch.__version__} sees no CUDA device, and nothing was written; expected a machine "
            "with one and a torch that is built for it, or a rehearsal: python benchmarks/gpu.py --device cpu"
        )
    if options.only_nccl:
        options.save.write_text(json.dumps(sharded_beside_whole(options.device), indent=1) + "\n")
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

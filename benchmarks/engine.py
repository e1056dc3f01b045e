"""Member-steps per second: a population of S members beside the plain loop that a researcher would write.

    python benchmarks/engine.py [--json] [--width 64] [--batch 256] [--repeats 20]

All variants are timed in one process on one thread, interleaved; the figure is the median over the repeats.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch

from muonlab.losses import LOSSES
from muonlab.runs.config import AdamWConfig, CellConfig, MuonConfig, NetConfig, ProtocolConfig, TaskConfig
from muonlab.runs.environment import record
from muonlab.train.cell import build_net, build_population, build_rows, build_task

STACKS = (1, 5, 10)


def cell(optimizer: str, width: int, batch: int) -> CellConfig:
    return CellConfig(
        study="benchmark",
        task=TaskConfig(name="add", modulus=59, train_share=0.8),
        net=NetConfig(depth=1, width=width, ff_width=4 * width),
        loss="softmax",
        optimizer=MuonConfig() if optimizer == "muon" else AdamWConfig(),
        protocol=ProtocolConfig(batch=batch),
        seeds=(0,),
    )


def plain_loop(config: CellConfig) -> Callable[[int], None]:
    """Return one step of an nn.Module with torch.optim, one run at a time."""
    task = build_task(config)
    rows, net = build_rows(config, task, (0,), "cpu"), build_net(config, task)
    net.reset_parameters(torch.Generator().manual_seed(0))
    if config.optimizer.name == "muon":
        hidden = [p for name, p in net.named_parameters() if p.ndim == 2 and name.startswith("blocks")]
        rest = [p for p in net.parameters() if not any(p is h for h in hidden)]
        optimizers = [torch.optim.Muon(hidden, lr=0.02, weight_decay=0.01), torch.optim.AdamW(rest)]
    else:
        optimizers = [torch.optim.AdamW(net.parameters())]

    def step(number: int) -> None:
        inputs, labels = rows.take(number)
        for optimizer in optimizers:
            optimizer.zero_grad()
        LOSSES["softmax"](net(inputs[0]), labels[0]).mean().backward()
        for optimizer in optimizers:
            optimizer.step()

    return step


def population(config: CellConfig, members: int) -> Callable[[int], None]:
    """Return one step of a population."""
    task, seeds = build_task(config), tuple(range(members))
    rows, made = build_rows(config, task, seeds, "cpu"), build_population(config, task, seeds, "cpu")
    return lambda number: made.step(*rows.take(number), number)


def measure(width: int, batch: int, repeats: int) -> list[dict]:
    table = []
    for optimizer in ("adamw", "muon"):
        config = cell(optimizer, width, batch)
        variants = {("plain loop", 1): plain_loop(config)}
        variants |= {("population", members): population(config, members) for members in STACKS}
        seconds: dict[tuple[str, int], list[float]] = {key: [] for key in variants}
        for repeat in range(repeats + 2):
            for key, step in variants.items():
                start = time.perf_counter()
                step(repeat)
                if repeat >= 2:  # the first two warm up
                    seconds[key].append(time.perf_counter() - start)
        rates = {key: key[1] / statistics.median(times) for key, times in seconds.items()}
        for (kind, members), rate in rates.items():
            ratio = rate / rates["plain loop", 1]
            table.append(
                {
                    "optimizer": optimizer,
                    "engine": kind,
                    "members": members,
                    "member_steps_per_second": round(rate, 1),
                    "ratio_to_plain_loop": round(ratio, 2),
                    "repeats": repeats,
                }
            )
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=20)
    options = parser.parse_args()
    torch.set_num_threads(1)
    table = measure(options.width, options.batch, options.repeats)
    if options.json:
        print(json.dumps({"environment": record(threads=1), "table": table}, indent=1))
        return
    for row in table:
        print(
            f"{row['optimizer']:6} {row['engine']:10} S={row['members']:<3} "
            f"{row['member_steps_per_second']:8.1f} member-steps/s   {row['ratio_to_plain_loop']:.2f} of the plain loop"
        )


if __name__ == "__main__":
    main()

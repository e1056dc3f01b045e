"""In float32, do stacks, single members and compiled steps cross when the plain module does?

    python benchmarks/agreement.py [--seeds 20] [--json]

Trains the tiny preset (Muon and AdamW on addition) once by the plain module, one member at a time, every position
computed, and once by each way that the population has; then compares the evaluation at which each run first crosses.
"""

import argparse
import json

import torch
from optimizer.machine import machine

from muonlab.losses import LOSSES
from muonlab.studies import grokking
from muonlab.studies.grokking.config import CellConfig
from muonlab.studies.grokking.work.cell import build_population, build_rows, streams
from muonlab.studies.grokking.work.material import build_net, build_task, treatments
from muonlab.train.sequential import Sequential

ENGINES = ("plain module", "whole stack", "members", "compiled")


def build(engine: str, config: CellConfig, rows):
    """Return what trains the members of a cell."""
    task = build_task(config)
    if engine == "plain module":
        net = build_net(config, task)
        net.shortcuts = False
        given = (LOSSES[config.loss], treatments(net, config), streams(config, config.seeds))
        return Sequential(net, *given, dtype=torch.float32)
    population = build_population(config, task, config.seeds, "cpu")
    if engine == "compiled" and not population.compile(*rows(0)):
        raise SystemExit("there is no compiler on this machine")
    if engine == "members":
        population.gradients.height = 1
    return population


def crossings(engine: str, config: CellConfig) -> list[int | None]:
    """Return for each member the step of the first evaluation at or above the threshold, or None."""
    task, protocol = build_task(config), config.protocol
    rows = build_rows(config, task, config.seeds, "cpu")
    members, found = build(engine, config, rows), [None] * len(config.seeds)
    for step in range(protocol.budget + 1):
        if step % protocol.cadence == 0:
            _, hits = members.evaluate(rows.inputs, rows.labels)
            accuracies = hits.gather(1, rows.validation).double().mean(dim=1).tolist()
            for member, accuracy in enumerate(accuracies):
                if found[member] is None and accuracy >= protocol.threshold:
                    found[member] = step
        if step < protocol.budget:
            members.step(*rows(step), step)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20, help="runs of each optimizer")
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    options = parser.parse_args()
    torch.set_num_threads(1)
    cells = grokking.plan("tiny", {"seeds": options.seeds, "control_seeds": 0}).cells
    found = {
        engine: {
            f"{config.optimizer.name}, seed {seed}": step
            for config in cells
            for seed, step in zip(config.seeds, crossings(engine, config), strict=True)
        }
        for engine in ENGINES
    }
    plain = found["plain module"]
    differing = {
        engine: {run: (plain[run], step) for run, step in runs.items() if step != plain[run]}
        for engine, runs in found.items()
    }
    if options.json:
        result = {"environment": machine("cpu", 1), "crossings": found, "differing": differing}
        print(json.dumps(result, indent=1))
        return
    for engine in ENGINES[1:]:
        same = len(plain) - len(differing[engine])
        print(f"{engine}: {same} of {len(plain)} runs cross at the plain module's evaluation")
        for run, (before, after) in differing[engine].items():
            print(f"  {run}: {before} plain, {after} here")


if __name__ == "__main__":
    main()

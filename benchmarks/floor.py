"""A compiled step of the grokking Transformer beside its floor, the time of its matrix products alone.

    python benchmarks/floor.py [--members 16] [--rounds 15] [--optimizers adamw,muon] [--save FILE]

The net and the batch of the paper (one layer, width 128, batch 512). Milliseconds of the processor per member and step,
one thread, everything in one process and in random order, medians over the rounds; ratios are medians of the ratios of
a round. "torch's products" are those that torch makes by itself, by MKL; all else has the faster of its libraries
(`muonlab.rules.products`), and so has the floor. The products alone are the calls of a step with operands of the same
layout: one member's forward and backward, as often as there are members, and those of Muon's iteration.
"""

import argparse
import contextlib
import json
import random
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from optimizer.machine import machine
from training.plain import PlainLoop
from training.populations import Variant, cell
from training.products import Recorder

from muonlab.rules import adamw, muon, products
from muonlab.train.by_rule import Treatment
from muonlab.train.optimizers import by_member

WARM_UP = 1
PURE = "step, rates by member, pure rule"
PLAIN, ONEDNN, TORCHS = "plain loop", "plain loop, oneDNN", "step, torch's products"


@contextlib.contextmanager
def torchs_products() -> Iterator[None]:
    before, products.pays = products.pays, lambda: False
    try:
        yield
    finally:
        products.pays = before


@contextlib.contextmanager
def by_pure_rules() -> Iterator[None]:
    """Step by the pure rules, as members with rates of their own did."""
    before = {rule: rule.takes for rule in (muon, adamw)}
    for rule in before:
        rule.takes = lambda *_: False
    try:
        yield
    finally:
        for rule, takes in before.items():
            rule.takes = takes


def of_step(variant: Variant) -> tuple[list[Callable], list[Callable]]:
    """Return the products of one member's gradient, and those of a step of the optimizer of all."""
    population, batch = variant.population, variant.rows(0)
    inside, whole = Recorder(), Recorder()
    plain = population.optimizer.step_stacked

    def recorded(*arguments) -> None:
        with inside:
            plain(*arguments)

    alone = {name: p[:1].squeeze(0) for name, p in population.parameters.items()}
    one = [each[0] for each in population._batch(*batch, 0)]
    with whole:
        leaves = {name: p.detach().requires_grad_() for name, p in alone.items()}
        loss = population.gradients._loss(leaves, *one)
        torch.autograd.grad(loss, list(leaves.values()))
    population.optimizer.step_stacked = recorded
    population.step(*batch, 0)
    population.optimizer.step_stacked = plain
    return whole.calls, inside.calls


def by_rates(variant: Variant) -> None:
    """Give every member a learning rate of its own."""
    optimizer, new = variant.population.optimizer, {}
    for each in {id(each): each for each in optimizer.treatments.values()}.values():
        rates = by_member([each.hyper["lr"] * (1 + k / variant.count) for k in range(variant.count)])
        new[id(each)] = Treatment(each.rule, {**each.hyper, "lr": rates}, each.flatten)
    optimizer.treatments = {name: new[id(each)] for name, each in optimizer.treatments.items()}


def jobs(optimizer: str, count: int) -> tuple[dict[str, tuple[int, Callable[[int], object]]], dict[str, Variant]]:
    """Return what is timed, for how many members each, as functions of the step; and whose steps some of them are."""
    config = cell(optimizer, 1, count)
    variant, own, stacks = (
        Variant(config, compiled=True),
        Variant(config, compiled=True),
        Variant(config, compiled=True),
    )
    plain, onednn = PlainLoop(cell(optimizer, 1, 1)), PlainLoop(cell(optimizer, 1, 1))
    net, iteration = of_step(own)
    by_rates(own)
    variant.population.compile_evaluations(0)
    variant.evaluate()

    def within(context, function: Callable[[int], object]) -> Callable[[int], object]:
        def run(step: int) -> None:
            with context():
                function(step)

        return run

    def alone(calls: list[Callable], times: int) -> Callable[[int], object]:
        def run(step: int) -> None:
            for _ in range(times):
                for call in calls:
                    call()

        return within(products.fast_products, run)

    found = {
        PLAIN: (1, plain.step),
        ONEDNN: (1, within(products.fast_products, onednn.step)),
        TORCHS: (count, within(torchs_products, variant.step)),
        "step": (count, variant.step),
        "step, rates by member": (count, own.step),
        PURE: (count, within(by_pure_rules, own.step)),
        "floor: products of the net": (count, alone(net, count)),
        "evaluation, torch's products": (count, within(torchs_products, lambda step: stacks.evaluate())),
        "evaluation, stacks": (count, lambda step: stacks.evaluate()),
        "evaluation, compiled": (count, lambda step: variant.evaluate()),
    }
    if iteration:
        found["floor: products of the iteration"] = count, alone(iteration, 1)
    return found, {TORCHS: variant, "step": variant, "step, rates by member": own, PURE: own}


def measure(optimizer: str, count: int, rounds: int) -> dict:
    """Return milliseconds per member, and the figures that follow from them round by round."""
    (found, steps_of), order = jobs(optimizer, count), random.Random(0)
    ms: dict[str, list[float]] = {name: [] for name in [*found, *(f"optimizer in {name}" for name in steps_of)]}
    for number in range(rounds + WARM_UP):
        for name in order.sample(sorted(found), len(found)):
            members, function = found[name]
            start = time.thread_time()
            function(number)
            if number >= WARM_UP:
                ms[name].append(1e3 * (time.thread_time() - start) / members)
                if name in steps_of:
                    ms[f"optimizer in {name}"].append(1e3 * steps_of[name].in_optimizer[-1] / members)
    floors = [name for name in found if name.startswith("floor")]
    floor = [sum(each) for each in zip(*(ms[name] for name in floors), strict=True)]
    paired = {
        "share of the floor": (floor, ms["step"]),
        "share of the floor, torch's products": (floor, ms[TORCHS]),
        "times the plain loop": (ms[PLAIN], ms["step"]),
        "times the plain loop, torch's products": (ms[PLAIN], ms[TORCHS]),
        "times the plain loop with oneDNN": (ms[ONEDNN], ms["step"]),
        "rates by member, over one rate": (ms["step, rates by member"], ms["step"]),
        "rates by member by the pure rule, over one rate": (ms[PURE], ms["step"]),
        "share of the optimizer": (ms["optimizer in step"], ms["step"]),
        "share of the optimizer, torch's products": (ms[f"optimizer in {TORCHS}"], ms[TORCHS]),
    }
    shares = {name: _quartiles([a / b for a, b in zip(*pair, strict=True)]) for name, pair in paired.items()}
    for name in ("torch's products", "stacks", "compiled"):
        steps = ms[TORCHS if name == "torch's products" else "step"]
        own = ms[f"evaluation, {name}"]
        shares[f"evaluations every 50 steps, {name}"] = _quartiles(
            [a / (a + 50 * b) for a, b in zip(own, steps, strict=True)]
        )
    return {"ms": {name: _quartiles(times) for name, times in ms.items()}, "ratios": shares}


def _quartiles(values: list[float]) -> list[float]:
    """Return median and quartiles."""
    q1, middle, q3 = statistics.quantiles(values, n=4, method="inclusive")
    return [middle, q1, q3]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--members", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--optimizers", type=lambda text: text.split(","), default=["adamw", "muon"])
    parser.add_argument("--save", type=Path, help="write JSON to this file; optimizers that it has are kept")
    options = parser.parse_args()
    torch.set_num_threads(1)
    result = json.loads(options.save.read_text()) if options.save and options.save.exists() else {}
    for optimizer in options.optimizers:
        key = f"{optimizer}, S = {options.members}"
        if key not in result:
            result[key] = {
                "environment": machine("cpu", 1),
                "rounds": options.rounds,
                **measure(optimizer, options.members, options.rounds),
            }
            if options.save:
                options.save.write_text(json.dumps(result, indent=1) + "\n")
        print(key)
        for name, (middle, q1, q3) in result[key]["ms"].items():
            print(f"  {name:42} {middle:7.2f} ms ({q1:.2f}-{q3:.2f})")
        for name, (middle, q1, q3) in result[key]["ratios"].items():
            print(f"  {name:42} {middle:7.2f} ({q1:.2f}-{q3:.2f})")


if __name__ == "__main__":
    main()

"""Member-steps per second of the search of `muonlab compare`, as multiples of those of a user's own loop.

    python benchmarks/compare.py [--json] [--tasks gpt,mlp] [--members 4,16,64] [--threads 1,2] [--rounds 12]
        [--compile gpt] [--save FILE]

Each member has settings of its own: learning rate, weight decay, momentum and, with Muon, the rate of AdamW for the
rest. The plain loop trains one run of the same model, loader and loss, with a scheduler. All variants are timed in one
process, interleaved in random order; the figure is the median over the rounds of the ratio to the plain loop's time per
member-step in the same round. A round is a few steps of each; the last column adds evaluations, one in 15 steps.
"""

import argparse
import json
import random
import statistics
import sys
import time
from collections.abc import Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any, Protocol

import torch
from optimizer.machine import machine

import muonlab
from muonlab.studies.compare.ask import ask
from muonlab.studies.compare.config import CompareStudy, Task, Train
from muonlab.studies.compare.jobs import steps
from muonlab.studies.compare.work.reading import EVALUATED
from muonlab.studies.compare.work.task import TaskMaterial
from muonlab.study.space import Point
from muonlab.train.population import Population
from muonlab.train.schedule import pace

TASKS = Path(__file__).parent / "training" / "compared.py"
NAMES = ("gpt", "gpt32", "mlp", "cnn", "batchnorm")
# What the plain loop makes of a model: it does what the search does. "own" is torch's AdamW as an optimizer of a user's
# own, which muonlab does not step by kernels of its own.
PLAIN: dict[str, tuple[Any, dict[str, Any]]] = {
    "adamw": (lambda model, **more: torch.optim.AdamW(model.parameters(), **more), {"lr": 1e-3, "betas": (0.9, 0.98)}),
    "muon": (muonlab.MuonAdamW, {"lr": 1e-3, "adamw_lr": 1e-3, "adjust_lr_fn": "match_rms_adamw", "method": "quintic"}),
    "own": (lambda model, **more: torch.optim.AdamW(model.parameters(), **more), {"lr": 1e-3}),
}
WORDS = {"own": "own=torch.optim:AdamW"}
CADENCE = 15  # steps between two evaluations by default: 20 in 300 steps
BUDGET, WARM_UP = 300, 1


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


class Variant(Protocol):
    """What is timed.

    Attributes:
        count: members that a step trains.
        how: how it trains them.
    """

    count: int
    how: str

    def step(self) -> None: ...
    def evaluate(self) -> None: ...


def _material(asked: CompareStudy) -> TaskMaterial:
    assert isinstance(asked.trained, Task)
    return TaskMaterial(asked.trained.task, 32)


class Plain:
    """A user's own loop of one run."""

    count, how = 1, "one run"

    def __init__(self, material: TaskMaterial, optimizer: str):
        given = material.call(0)
        self._model, self._train, self._validation, self._loss = (
            given.model, given.train, given.validation, given.loss,
        )  # fmt: skip
        make, arguments = PLAIN[optimizer]
        self._optimizer = make(given.model, **arguments)
        self._schedule = torch.optim.lr_scheduler.LambdaLR(self._optimizer, lambda step: pace(step % BUDGET, BUDGET))
        self._batches = (batch for _ in iter(int, 1) for batch in self._train)

    def step(self) -> None:
        self._model.train()
        inputs, targets = next(self._batches)
        self._optimizer.zero_grad()
        self._loss(self._model(inputs), targets).backward()
        self._optimizer.step()
        self._schedule.step()

    @torch.no_grad()
    def evaluate(self) -> None:
        self._model.eval()
        seen, loss, hits = 0, 0.0, 0.0
        for inputs, targets in self._validation:
            outputs = self._model(inputs)
            loss += self._loss(outputs, targets).item() * len(targets)
            hits += (outputs.argmax(-1) == targets).float().mean().item() * len(targets)
            seen += len(targets)
            if seen >= EVALUATED:
                break


class Search:
    """The first so many trials of a search, as a job trains them."""

    def __init__(self, material: TaskMaterial, job: Train, points: Sequence[Point], *, compile: bool):
        self.count, self._step = len(points), 0
        self._members, self._draw, self._reader = material.members(
            job.optimizer, points, [job.seeds[0]] * len(points), job, "cpu"
        )
        self.how = "one after the other"
        inputs, targets = self._draw(0)
        if compile and self._members.compile(inputs, targets):
            self.how = "a compiled program"
        elif isinstance(self._members, Population):
            self.how = f"stacks of {self._members.choose_height(inputs, targets)}"

    def step(self) -> None:
        inputs, targets = self._draw(self._step)
        self._members.step(inputs, targets, self._step, pace(self._step % BUDGET, BUDGET))
        self._step += 1

    def evaluate(self) -> None:
        self._reader.evaluate(self._members, self._step)


def time_rounds(found: dict[str, Variant], options: argparse.Namespace, threads: int) -> dict[str, list[list[float]]]:
    """Return the seconds of a step in each round, and those of evaluations in a few, interleaved in random order.

    Of one thread they are seconds of the processor, which other work on the machine changes less.
    """
    clock = time.process_time if threads == 1 else time.perf_counter
    order, seconds = random.Random(0), {name: [list[float](), list[float]()] for name in found}
    for number in range(options.rounds + WARM_UP):
        for name in order.sample(sorted(found), len(found)):
            own, start = found[name], clock()
            num_steps = max(1, options.steps // own.count)
            for _ in range(num_steps):
                own.step()
            middle = clock()
            if number >= WARM_UP:
                seconds[name][0].append((middle - start) / num_steps)
            if number < options.evaluations:
                own.evaluate()
                seconds[name][1].append(clock() - middle)
    return seconds


def measure(task: str, optimizer: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the rows of the table for one task and one optimizer."""
    asked = ask([f"{TASKS}:{task}", f"optimizers={WORDS.get(optimizer, optimizer)}", f"trials={max(options.members)}"])[
        1
    ]
    job = steps(asked, {})[0].config
    assert isinstance(job, Train)
    torch.manual_seed(0)
    found: dict[str, Variant] = {"plain": Plain(_material(asked), optimizer)}
    for count in options.members:
        own = list(islice(cycle(job.points), count))  # trials come in jobs of some each
        found[f"S={count}"] = Search(_material(asked), job, own, compile=task in options.compile)
    rows = []
    for threads in options.threads:
        say(f"{task}, {optimizer}, {threads} threads")
        torch.set_num_threads(threads)
        seconds = time_rounds(found, options, threads)
        plain_step, plain_evaluation = seconds["plain"][0], statistics.median(seconds["plain"][1])
        for name, (own, evaluations) in seconds.items():
            count, evaluation = found[name].count, statistics.median(evaluations)
            both = list(zip(plain_step, own, strict=True))
            ratios = {
                "steps": [count * a / b for a, b in both],
                "search": [count * (CADENCE * a + plain_evaluation) / (CADENCE * b + evaluation) for a, b in both],
            }
            rows.append(
                {
                    "task": task,
                    "optimizer": optimizer,
                    "threads": threads,
                    "members": count if name != "plain" else None,
                    "how": found[name].how,
                    "member_steps_per_second": count / statistics.median(own),
                    **{f"{key}_ratio": statistics.median(values) for key, values in ratios.items()},
                    **{f"{key}_quartiles": statistics.quantiles(v, n=4)[::2] for key, v in ratios.items()},
                    "rounds": len(own),
                    "evaluations": len(evaluations),
                    "evaluation_share": evaluation / (CADENCE * statistics.median(own) + evaluation),
                }
            )
    return rows


def text_of(table: list[dict[str, Any]]) -> str:
    lines = [
        "task       optimizer threads    S  how                  member-steps/s  steps (quartiles)    with evaluations"
    ]
    for row in table:
        if row["members"] is not None:
            both = (
                f"{row[f'{key}_ratio']:6.2f} ({row[f'{key}_quartiles'][0]:.2f}-{row[f'{key}_quartiles'][1]:.2f})"
                for key in ("steps", "search")
            )
            lines.append(
                f"{row['task']:10} {row['optimizer']:9} {row['threads']:7} {row['members']:4}  {row['how']:20} "
                f"{row['member_steps_per_second']:14.1f}  {'  '.join(both)}"
            )
    return "\n".join(lines)


def words(text: str) -> list[str]:
    return text.split(",")


def numbers(text: str) -> list[int]:
    return [int(each) for each in words(text)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=words, default=NAMES)
    parser.add_argument("--optimizers", type=words, default=list(PLAIN))
    parser.add_argument("--members", type=numbers, default=[4, 16, 64])
    parser.add_argument("--threads", type=numbers, default=[1, 2])
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--steps", type=int, default=48, help="of all members together, in a round")
    parser.add_argument("--evaluations", type=int, default=3, help="that are timed")
    parser.add_argument("--compile", type=words, default=[], help="tasks whose gradient is compiled")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--save", type=Path, help="write JSON to a file, too")
    options = parser.parse_args()
    table = [row for task in options.tasks for name in options.optimizers for row in measure(task, name, options)]
    result = {"environment": machine("cpu", max(options.threads)), "table": table}
    if options.save:
        options.save.parent.mkdir(parents=True, exist_ok=True)
        options.save.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1) if options.json else text_of(table))


if __name__ == "__main__":
    main()

"""Verdicts of whole grokking studies whose truth is known: how often they are wrong, and what their intervals cover.

    python benchmarks/grokking_verdicts.py --save records/coverage/grokking.json

Nothing is trained. Each study is made of crossing times drawn from lognormal distributions, seen at evaluations and cut
at a budget as a run would be, and goes through the real analysis: choice of the learning rate, ratio, interval, test,
answers by task, verdict. The true ratio is that of the restricted means of the times as they are, not as they are seen.
"""

import argparse
import json
import sys
import time
from dataclasses import replace
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
from scipy import optimize, stats

from muonlab.jobs.job import JobRecord, Request, StudyFile
from muonlab.report.findings import Series
from muonlab.studies.grokking.analysis import find
from muonlab.studies.grokking.comparison import pairs_of
from muonlab.studies.grokking.conditions import Condition, GrokkingRuns
from muonlab.studies.grokking.config import TASKS, CellConfig, NetConfig, ProtocolConfig, TaskConfig
from muonlab.studies.grokking.reading import Cell
from muonlab.studies.grokking.result import CellResult, Crossing, MemberResult
from muonlab.studies.grokking.verdict import decide
from muonlab.study.optimizers import RatedAdamW, RatedMuon
from muonlab.study.study import arms_of

MEAN = 1000.0  # steps of Muon, of which the cadence is a share
CADENCES = {"fine": 0.02, "coarse": 0.2}
SPREADS = {"equal": (0.25, 0.25), "unequal": (0.15, 0.35)}  # standard deviation over the mean, of Muon and of AdamW
SEARCH_SEEDS = 3  # runs of each rate in a search with seeds of its own
WITHDRAWN = 0.05  # share of studies below which an interval is shown too seldom for a coverage

# -- the truth ---------------------------------------------------------------------------------------------------------


def restricted(location, sigma, horizon):
    """Return the mean of min(time, horizon) of a lognormal time."""
    z = (np.log(horizon) - location) / sigma
    return np.exp(location + sigma**2 / 2) * stats.norm.cdf(z - sigma) + horizon * stats.norm.sf(z)


def never(location, sigma, horizon):
    """Return the share of runs that have not crossed by then."""
    return stats.norm.sf((np.log(horizon) - location) / sigma)


def sigmas_of(spread):
    """Return both standard deviations of log times."""
    return [np.sqrt(np.log1p(own**2)) for own in SPREADS[spread]]


def location_of_rival(first, sigmas, horizon, ratio):
    """Return the location at which restricted means are in that ratio; None where the horizon is too short for it."""
    wanted = restricted(first, sigmas[0], horizon) / ratio
    if wanted >= 0.999 * horizon:
        return None
    return optimize.brentq(lambda location: restricted(location, sigmas[1], horizon) - wanted, 0, 20)


def blocks_of(scenario):
    """Return (locations, cadence, budget) of each block; cadences differ, so that no two blocks are off alike."""
    sigmas = sigmas_of(scenario["spread"])
    first = np.log(MEAN) - sigmas[0] ** 2 / 2

    def censored(horizon):
        rival = location_of_rival(first, sigmas, horizon, scenario["ratio"])
        return 1.0 if rival is None else (never(first, sigmas[0], horizon) + never(rival, sigmas[1], horizon)) / 2

    horizon = 8 * MEAN
    if scenario["censored"]:
        horizon = optimize.brentq(lambda each: censored(each) - scenario["censored"], MEAN / 3, 4 * MEAN)
    found = []
    for block in range(scenario["blocks"]):
        cadence = round(MEAN * CADENCES[scenario["cadence"]] * np.exp(-0.07 * block))
        budget = round(horizon / cadence) * cadence
        while (rival := location_of_rival(first, sigmas, budget, scenario["ratio"])) is None:
            budget += cadence  # a coarse cadence had rounded it to less than the ratio needs
        found.append(((first, rival), cadence, budget))
    return found


# -- a study -----------------------------------------------------------------------------------------------------------


class Maker:
    """Studies of one scenario. What does not differ between them is made once."""

    def __init__(self, scenario):
        self.scenario, self.sigmas, self.blocks = scenario, sigmas_of(scenario["spread"]), blocks_of(scenario)
        self.arms = arms_of({"muon": RatedMuon(), "adamw": RatedAdamW()})
        self.rates = {"muon": scenario["rates"], "adamw": 1}
        request = Request(preset="paper", settings={}, config={})
        self.file = StudyFile(study="grokking", requests=(request,))
        self._kept = {}
        self.record = JobRecord("0" * 16, "", {}, Path(), "done", None, None, {})

    def draw(self, number) -> GrokkingRuns:
        """Return the runs of a study."""
        rng, scenario = np.random.default_rng([number, *map(ord, repr(scenario_key(self.scenario)))]), self.scenario
        held, searched = [], []
        for place in range(scenario["blocks"]):
            for side, arm in enumerate(self.arms):
                for rate in range(self.rates[arm.label]):
                    own = self._condition(rng, place, side, rate, scenario["n"], 0)
                    held.append(own)
                    if scenario["chosen_on"] == "other seeds" and self.rates[arm.label] > 1:
                        searched.append(self._condition(rng, place, side, rate, SEARCH_SEEDS, 1000))
        return GrokkingRuns(self.file, (), self.arms, tuple(held), (), tuple(searched))

    def _condition(self, rng, place, side, rate, n, first_seed):
        locations, cadence, budget = self.blocks[place]
        times = np.exp(locations[side] + self.sigmas[side] * rng.normal(size=n))
        steps = (np.ceil(times / cadence) * cadence).astype(int)
        members = tuple(_member(first_seed + i, int(step), cadence, budget) for i, step in enumerate(steps))
        block, series, cell = self._template(place, side, rate, cadence, budget)
        result = cell.result.model_copy(update={"members": members})
        cell = replace(cell, result=result, is_search=first_seed > 0)
        condition = Condition(block, self.arms[side].label, series, (cell,), members)
        condition.__dict__["_evaluations"] = {}, {}, {}  # there are no curves to read
        return condition

    def _template(self, place, side, rate, cadence, budget):
        key = place, side, rate
        if key not in self._kept:
            arm, task = self.arms[side], TASKS[place]
            several = self.rates[arm.label] > 1
            optimizer = arm.optimizer.model_copy(update={"lr": 0.01 * 2**rate}) if several else arm.optimizer
            config = CellConfig(
                study="grokking",
                task=TaskConfig(name=task, train_share=0.5),
                net=NetConfig(),
                loss="softmax",
                optimizer=optimizer,
                protocol=ProtocolConfig(budget=budget, cadence=cadence),
                seeds=tuple(range(self.scenario["n"])),
            )
            result = CellResult(
                cell="",
                chance=0.01,
                num_train=5000,
                num_validation=4000,
                num_parameters=10_000,
                num_evaluations=budget // cadence + 1,
                flops_per_step=1e9,
                members=(),
            )
            name = f"{arm.name} lr={optimizer.lr:g}" if several else arm.name
            series = Series(name, arm.series.role, rate)
            self._kept[key] = f"{task} · softmax", series, Cell(self.record, config, result)
        return self._kept[key]


@cache
def _member(seed, step, cadence, budget):
    crossing = Crossing(step=step, after_step=step - cadence, epoch=step / 10, flops=step * 1e9)
    crossed = step <= budget
    reason = None if crossed else "validation accuracy did not reach 0.95 within the budget"
    return MemberResult(
        seed=seed,
        first_crossing=crossing if crossed else None,
        first_crossing_reason=reason,
        sustained_crossing=crossing if crossed else None,
        sustained_crossing_reason=reason,
        minimum_after_crossing=0.97 if crossed else None,
        best_validation_accuracy=0.99 if crossed else 0.5,
        last_step=budget,
        last_train_accuracy=1.0,
        last_validation_accuracy=0.99 if crossed else 0.5,
        diverged_at=None,
    )


# -- what it says ------------------------------------------------------------------------------------------------------


def scenario_key(scenario):
    """Return what names a scenario."""
    return tuple(scenario.values())


def evaluate(scenario, studies) -> dict:
    """Return how often a scenario's intervals contain the truth, and how often its verdicts are wrong."""
    maker, truth = Maker(scenario), scenario["ratio"]
    counts = dict.fromkeys(("shown", "covered", "wrong", "right", "mixed", "called_a_task"), 0)
    widths = []
    for number in range(studies):
        found = find(maker.draw(number))
        (pair,) = pairs_of(found.runs)
        ratio = pair.ratio
        if ratio.lower is not None:
            counts["shown"] += 1
            counts["covered"] += ratio.lower <= truth <= ratio.upper
            widths.append(np.log(ratio.upper / ratio.lower))
        if truth < 1:  # only the answer over all blocks is asked for
            counts["right"] += pair.side == "sooner"
            counts["wrong"] += pair.side == "later"
            continue
        answer = decide(found, pair)
        counts["wrong"] += answer[1] in ("Sooner", "Later", "Depends on the task")
        counts["mixed"] += answer[0] == "mixed"
        sides = [part.side for part in pair.by_task.values()] if len(pair.blocks) > 1 else []
        counts["called_a_task"] += any(side != "undecided" for side in sides)
    return scenario | {"studies": studies, **counts, "median_log_width": float(np.median(widths)) if widths else None}


def scenarios():
    """Return every scenario: of one rate, then of several, of which the best was chosen."""
    found = []
    for censored, cadence, spread, blocks, n in product((0.0, 0.5), CADENCES, SPREADS, (1, 7), (3, 5, 10, 20)):
        ratios = (1.0, 0.8) if blocks == 1 else (1.0,)
        found += [(ratio, n, blocks, censored, cadence, spread, 1, "one rate") for ratio in ratios]
    for rates, censored, blocks, n in product((3, 9), (0.0, 0.5), (1, 7), (3, 5, 10, 20)):
        ways = ("other seeds", "judged runs") if n < 20 else ("other seeds",)
        found += [(1.0, n, blocks, censored, "fine", "equal", rates, chosen_on) for chosen_on in ways]
    names = "ratio", "n", "blocks", "censored", "cadence", "spread", "rates", "chosen_on"
    return [dict(zip(names, each, strict=True)) for each in found]


# -- all of them -------------------------------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=1000, help="of each scenario")
    parser.add_argument("--save", type=Path, help="a JSON file, written as scenarios end; those in it are kept")
    parser.add_argument("--only", default="", help="part of the words of a scenario, such as 'judged runs'")
    parser.add_argument("--part", default="0/1", help="which of how many parts, to run several processes: 0/2 and 1/2")
    options = parser.parse_args()
    place, number = map(int, options.part.split("/"))
    files = sorted(options.save.parent.glob(f"{options.save.stem}*.json")) if options.save else []
    rows = [row for file in files for row in json.loads(file.read_text())["rows"]]
    done = {scenario_key(row)[:8] for row in rows}
    own = json.loads(options.save.read_text())["rows"] if options.save and options.save.exists() else []
    started = time.process_time()
    for scenario in scenarios()[place::number]:
        if scenario_key(scenario) in done or options.only not in " ".join(map(str, scenario_key(scenario))):
            continue
        own.append(evaluate(scenario, options.studies))
        rows.append(own[-1])
        if options.save:
            partial = options.save.with_suffix(".partial")
            lines = ",\n".join(json.dumps(row) for row in own)
            partial.write_text(f'{{"studies": {options.studies}, "rows": [\n{lines}\n]}}\n')
            partial.replace(options.save)
    print(summary(rows))
    sys.stderr.write(f"{time.process_time() - started:.0f} s of CPU\n")


def summary(rows) -> str:
    """Return coverage and wrong verdicts as Markdown, or the right ones where there is a difference."""
    numbers = sorted({row["n"] for row in rows})
    heads = "true ratio", "rates, chosen on", "blocks", "censored", "cadence", "spread", *(f"n = {n}" for n in numbers)
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    kinds: dict[tuple, dict] = {}
    for row in sorted(rows, key=lambda row: (-row["ratio"], row["rates"], row["chosen_on"])):
        kind = f"{row['ratio']:g}", f"{row['rates']}, {row['chosen_on']}", row["blocks"], f"{row['censored']:.0%}"
        kinds.setdefault((*kind, row["cadence"], row["spread"]), {})[row["n"]] = row
    for kind, own in kinds.items():
        cells = [_cell(own[n]) if n in own else "–" for n in numbers]
        lines.append(f"| {' | '.join(map(str, (*kind, *cells)))} |")
    return "\n".join(lines)


def _cell(row) -> str:
    studies, shown = row["studies"], row["shown"]
    share = "" if shown > 0.95 * studies else f" of {shown / studies:.0%}"
    covered = f"{row['covered'] / shown:.3f}{share}" if shown >= WITHDRAWN * studies else "withdrawn"
    outcome = "right" if row["ratio"] < 1 else "wrong"
    return f"{covered}; {outcome} {row[outcome] / studies:.3f}"


if __name__ == "__main__":
    main()

"""What the recipes of MuonAdamW lose or gain against a tuned AdamW, on the five pocket workloads and a larger GPT.

    python benchmarks/defaults.py --save records/defaults/defaults.json    # trains what is missing, prints the tables
    python benchmarks/defaults.py --read records/defaults/defaults.json    # prints them again
    python benchmarks/defaults.py --widths --save records/defaults/widths.json    # the GPT at twice that width

AdamW has one rate; "keep" gives it to both halves with match_rms_adamw; "original" leaves Muon's rate at .02 and
varies adamw_lr alone. Each of them is trained at each rate: rates are chosen on the first seeds and judged on the
others. Delete the folder of jobs after a change of what trains.
"""

import argparse
import copy
import json
import math
from functools import cache, partial
from pathlib import Path
from statistics import fmean

import torch

from muonlab import MuonAdamW
from muonlab.report.findings import as_text
from muonlab.stats.effects import mean
from muonlab.stats.results import Estimate
from muonlab.studies.compare.builtin import TASKS, data_of
from muonlab.studies.compare.config import BuiltIn, Task, Train, Training
from muonlab.studies.compare.work import builtin
from muonlab.studies.compare.work.job import run
from muonlab.study.dotted import find
from muonlab.study.optimizers import AdamW, Custom

HERE = Path(__file__).resolve()
RATES = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
CHOSEN_ON, JUDGED_ON = range(1000, 1003), range(5)
DECAY, LR = 0.01, 0.02  # MuonAdamW's defaults
ADAMW_LR, BEFORE = 3e-3, 3e-4  # its default, and what it was when this was measured
LARGER = "gpt, width 64"
WORKLOADS = (*TASKS, LARGER)
WIDTHS, OF_WIDTHS = ("gpt, width 128",), range(3)  # without "keep", and rates judged where chosen


# -- what is trained ---------------------------------------------------------------------------------------------------


def larger_gpt(seed, width=64):
    """Return the GPT of the pocket suite, of width 32, at another width."""
    return builtin.gpt(None, seed, width=width)


gpt_of_128 = partial(larger_gpt, width=128)
LARGER_GPTS = dict(zip((LARGER, *WIDTHS), ("larger_gpt", "gpt_of_128"), strict=True))


@cache
def skeleton(workload):
    """Return a model of a workload, for its modules: they decide which parameters Muon takes, and how."""
    larger = LARGER_GPTS.get(workload)
    return (globals()[larger](0) if larger else builtin.TASKS[workload](None, 0))[0]


def muon_adamw(named_parameters, workload, **options):
    """Return MuonAdamW(model, ...) for a member, from its named parameters."""
    model = copy.deepcopy(skeleton(workload))
    for name, parameter in named_parameters:
        module, _, own = name.rpartition(".")
        setattr(model.get_submodule(module), own, parameter)
    return MuonAdamW(model, weight_decay=DECAY, adamw_weight_decay=DECAY, **options)


def both(workload, **arguments):
    """Return MuonAdamW as the config of a job holds it."""
    return Custom(call=find("optimizer", f"{HERE}:muon_adamw"), arguments={"workload": workload, **arguments})


RECIPES = {
    # name: workload -> optimizer, and rate -> what members differ in
    "adamw": (lambda workload: AdamW(weight_decay=DECAY, beta2=0.999), lambda rate: {"lr": rate}),
    "keep": (partial(both, adjust_lr_fn="match_rms_adamw"), lambda rate: {"lr": rate, "adamw_lr": rate}),
    "original": (partial(both, adjust_lr_fn="original"), lambda rate: {"lr": LR, "adamw_lr": rate}),
}


def job(workload, recipe, seeds):
    """Return a job: every rate with every seed, in the workload's own steps, with its linear schedule."""
    larger = LARGER_GPTS.get(workload)
    known = TASKS["gpt" if larger else workload]
    optimizer, point = RECIPES[recipe]
    return Train(
        trained=Task(task=find("task", f"{HERE}:{larger}"))
        if larger
        else BuiltIn(builtin=workload, data=data_of(workload, None)),
        training=Training(batch=known.batch, budget=known.budget, evaluations=2),
        optimizer=optimizer(workload),
        points=tuple(point(rate) for rate in RATES),
        seeds=seeds,
    )


def measured(folder, workloads=WORKLOADS, recipes=tuple(RECIPES), seeds=(*CHOSEN_ON, *JUDGED_ON)):
    """Train what is missing; return workload -> recipe -> rate -> final validation losses by seed, NaN if diverged."""
    found = {workload: {recipe: {} for recipe in recipes} for workload in workloads}
    for workload in workloads:
        for recipe in recipes:
            place = folder / f"{workload}-{recipe}".replace(", ", "-").replace(" ", "-")
            config = job(workload, recipe, seeds).model_dump(mode="json")
            result = run(config=config, folder=str(place), compile="auto")
            for member in result["members"]:
                loss = member["validation_loss"][-1] if member["diverged_at"] is None else None
                rate = RATES[member["point"]]
                found[workload][recipe].setdefault(rate, []).append(loss)
    return found


# -- what is judged ----------------------------------------------------------------------------------------------------

NUM_CHOSEN = len(CHOSEN_ON)


class Losses:
    """Final losses of one workload, by recipe and rate."""

    def __init__(self, found):
        self._found = {
            (recipe, rate): [math.inf if loss is None else loss for loss in losses]
            for recipe, own in found.items()
            for rate, losses in own.items()
        }

    def best(self, recipe):
        """Return the rate with the lowest mean loss on the seeds that choose."""
        return min(RATES, key=lambda rate: fmean(self._found[recipe, rate][:NUM_CHOSEN]))

    def judged(self, recipe, rate):
        """Return the losses on the other seeds."""
        return self._found[recipe, rate][NUM_CHOSEN:]

    def near(self, shift):
        """Return the rate that many places above AdamW's best; the last where the grid ends before."""
        return RATES[min(max(RATES.index(self.best("adamw")) + shift, 0), len(RATES) - 1)]


def by_best(recipe, own, shift=0):
    return recipe, own.near(shift)


def fixed(recipe, rate, own):
    return recipe, rate


def tuned(recipe, own):
    return recipe, own.best(recipe)


def words(rate):
    return f"{rate:g}".replace("e-0", "e-")


ROWS = {
    "AdamW, a third of its best rate": partial(by_best, "adamw", shift=-1),
    "AdamW, three times its best rate": partial(by_best, "adamw", shift=1),
    "keep AdamW's best rate": partial(by_best, "keep"),
    "keep a third of it": partial(by_best, "keep", shift=-1),
    "keep three times it": partial(by_best, "keep", shift=1),
    "keep, its own best of six rates": partial(tuned, "keep"),
    "lr .02, adamw_lr 3e-4: the default before": partial(fixed, "original", BEFORE),
    "lr .02, adamw_lr 3e-3: the default": partial(fixed, "original", ADAMW_LR),
    "lr .02, adamw_lr AdamW's best": partial(by_best, "original"),
    "lr .02, its own best of six adamw_lr": partial(tuned, "original"),
    **{f"AdamW at {words(rate)}": partial(fixed, "adamw", rate) for rate in RATES},
    **{f"keep at {words(rate)}": partial(fixed, "keep", rate) for rate in RATES},
    **{
        f"lr .02, adamw_lr {words(rate)}": partial(fixed, "original", rate)
        for rate in RATES
        if rate not in (ADAMW_LR, BEFORE)
    },
}


IN_DETAIL = (
    "keep AdamW's best rate",
    "lr .02, adamw_lr 3e-4: the default before",
    "lr .02, adamw_lr 3e-3: the default",
    "lr .02, adamw_lr 0.01",
    "lr .02, adamw_lr AdamW's best",
)
PAIRS = {
    **{
        f"keep / AdamW, both at {words(rate)}": (partial(fixed, "keep", rate), partial(fixed, "adamw", rate))
        for rate in RATES
    },
    "keep / lr .02, both with AdamW's best rate": (partial(by_best, "keep"), partial(by_best, "original")),
    "lr .02, adamw_lr 3e-3 / 3e-4": (partial(fixed, "original", ADAMW_LR), partial(fixed, "original", BEFORE)),
    "lr .02, adamw_lr 1e-2 / 3e-3": (partial(fixed, "original", 1e-2), partial(fixed, "original", ADAMW_LR)),
}
TUNED_ADAMW = partial(tuned, "adamw")


def logs(found, row, against=TUNED_ADAMW):
    """Return the log of the ratio of two rules' final losses: by workload, a number for each seed that judges."""
    ratios = {}
    for workload, recipes in found.items():
        own = Losses(recipes)
        pairs = zip(own.judged(*row(own)), own.judged(*against(own)), strict=True)
        ratios[workload] = [math.log(loss / other) for loss, other in pairs]
    return ratios


def geometric(logs_of_ratios) -> Estimate:
    """Return a geometric mean with Student's interval; without a value where a run has diverged."""
    if not all(map(math.isfinite, logs_of_ratios)):
        return Estimate(None, None, None, n=len(logs_of_ratios), reason="a run has diverged")
    found = mean(logs_of_ratios)
    value, lower, upper = (None if each is None else math.exp(each) for each in (found.value, found.lower, found.upper))
    return Estimate(value, lower, upper, found.level, found.n, found.reason)


def over_seeds(ratios) -> str:
    """Return the geometric mean over workloads, with its interval for other seeds of the same workloads."""
    return as_text(geometric([fmean(each) for each in zip(*ratios.values(), strict=True)]))


def over_workloads(ratios) -> str:
    """Return the interval of the same mean for other workloads, as if these had been drawn at random."""
    found = geometric([fmean(own) for own in ratios.values()])
    return "–" if found.lower is None or found.upper is None else f"[{found.lower:.2f}, {found.upper:.2f}]"


def table(found) -> str:
    """Return the rates that were chosen, and the regret of each row, as Markdown."""
    names = list(found)
    lines = ["| best rate | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for recipe in RECIPES:
        lines.append(f"| {recipe} | " + " | ".join(words(Losses(found[name]).best(recipe)) for name in names) + " |")
    tuned_losses = [fmean(Losses(found[name]).judged(*tuned("adamw", Losses(found[name])))) for name in names]
    lines.append("| loss of tuned AdamW | " + " | ".join(f"{loss:.3f}" for loss in tuned_losses) + " |")
    head = "| final loss / tuned AdamW's | geometric mean, over seeds | over workloads | worst | above 1 | "
    lines += ["", head + " | ".join(names) + " |", "|---" * (len(names) + 5) + "|"]
    for name, row in ROWS.items():
        ratios = logs(found, row)
        each = [math.exp(fmean(own)) for own in ratios.values()]
        cells = [over_seeds(ratios), over_workloads(ratios), f"{max(each):.2f}", str(sum(one > 1 for one in each))]
        lines.append(f"| {name} | " + " | ".join([*cells, *(f"{one:.2f}" for one in each)]) + " |")
    lines += ["", "| final loss / tuned AdamW's | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for name in IN_DETAIL:
        cells = [as_text(geometric(own)) for own in logs(found, ROWS[name]).values()]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines += ["", "| one recipe / another | geometric mean, over seeds | over workloads | " + " | ".join(names) + " |"]
    lines.append("|---" * (len(names) + 3) + "|")
    for name, (first, second) in PAIRS.items():
        ratios = logs(found, first, second)
        each = [f"{math.exp(fmean(own)):.2f}" for own in ratios.values()]
        lines.append(f"| {name} | " + " | ".join([over_seeds(ratios), over_workloads(ratios), *each]) + " |")
    return "\n".join(lines)


def table_of_widths(found) -> str:
    """Return the final losses over those of AdamW's best rate, as Markdown; the best rate is of the same seeds."""
    names = [(workload, recipe) for workload, recipes in found.items() for recipe in recipes]
    titles = [f"{workload}: {'AdamW' if recipe == 'adamw' else 'lr .02, adamw_lr'}" for workload, recipe in names]
    lines = ["| rate | " + " | ".join(titles) + " |", "|---" * (len(names) + 1) + "|"]
    for rate in RATES:
        cells = []
        for workload, recipe in names:
            best = min(found[workload]["adamw"].values(), key=lambda losses: fmean(x or math.inf for x in losses))
            own = [x or math.inf for x in found[workload][recipe][rate]]
            cells.append(as_text(geometric([math.log(x / y) for x, y in zip(own, best, strict=True)])))
        lines.append(f"| {words(rate)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def saved(found, about) -> str:
    """Return the JSON: a line for each workload, recipe and rate."""
    rows = [
        {"workload": workload, "recipe": recipe, "rate": rate, "losses": [x and float(f"{x:.5g}") for x in losses]}
        for workload, recipes in found.items()
        for recipe, own in recipes.items()
        for rate, losses in own.items()
    ]
    lines = ",\n".join(json.dumps(row) for row in rows)
    return f'{{"about": {json.dumps(about)}, "rows": [\n{lines}\n]}}\n'


def read(path):
    """Return what `saved` wrote, as `measured` returns it."""
    found = {}
    for row in json.loads(path.read_text())["rows"]:
        found.setdefault(row["workload"], {}).setdefault(row["recipe"], {})[row["rate"]] = row["losses"]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=Path, default=Path("runs/defaults"), help="their folder; a killed run goes on")
    parser.add_argument("--save", type=Path, help="a JSON file of all final losses")
    parser.add_argument("--read", type=Path, help="print the tables of such a file, and train nothing")
    parser.add_argument("--widths", action="store_true", help="the GPT at a width of 128")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.widths:
        asked = WIDTHS, ("adamw", "original"), tuple(OF_WIDTHS)
        about = {"seeds": list(OF_WIDTHS), "torch": torch.__version__}
    else:
        asked = ()
        about = {"chosen_on": list(CHOSEN_ON), "judged_on": list(JUDGED_ON), "torch": torch.__version__}
    found = read(options.read) if options.read else measured(options.jobs, *asked)
    if options.save:
        options.save.parent.mkdir(parents=True, exist_ok=True)
        options.save.write_text(saved(found, about))
    print((table_of_widths if options.widths else table)(found))


if __name__ == "__main__":
    main()

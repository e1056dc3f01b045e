"""Answers of a claim that is pooled over cases, by simulated studies whose truth is known: coverage, errors, power.

    python benchmarks/pooled.py --save records/coverage/claims.json

Each simulated study has nets and data ("cases"), runs of a first optimizer and of rivals on each, and one quantity. It
is judged as a claim of `muonlab run features` is. The first's runs are the same against every rival. Differences are in
standard deviations of a rival's runs.
"""

import argparse
import json
import sys
import time
import zlib
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import scipy

from muonlab.report.findings import as_text
from muonlab.stats.effects import Effect
from muonlab.stats.pooled import pooled_difference
from muonlab.stats.proportions import wilson
from muonlab.stats.results import Estimate
from muonlab.studies.features.analysis import RULE
from muonlab.study.compare import adjusted
from muonlab.study.judge import answer_of_means
from muonlab.study.study import Claim, Comparison, Quantity

SPREADS = {  # of the standard deviations of runs over K cases
    "equal": lambda num: np.ones(num),
    "unequal": lambda num: np.geomspace(0.5, 2, num),
    "very unequal": lambda num: np.geomspace(0.25, 4, num),
    "one noisy": lambda num: np.r_[np.full(num - 1, 0.3), 3.0],
}
FIRST = {"as noisy": 1.0, "twice as noisy": 2.0}  # the first's runs, next to those of a rival
TRUTHS = {  # (mean difference, its standard deviation over cases)
    "none": (0.0, 0.0),
    "none in the mean": (0.0, 1.0),
    "none in the mean, far apart": (0.0, 4.0),
    "two everywhere": (2.0, 0.0),  # of each case's own standard deviation
}
RIVALS = (1, 2)


@dataclass(frozen=True)
class Case:
    """A net and its data."""

    name: str


CLAIM = Claim("a", "Claim", "it is higher", (Quantity("q", "quantity", "unit", lambda *_: None),))


def simulate(rng, studies, cases, runs, spread, first, truth, rivals):
    """Return runs of all studies and arms (studies, arms, cases, runs), true means here (studies,), and beyond."""
    mean, between = TRUTHS[truth]
    scale = SPREADS[spread](cases)
    true = mean * scale + between * rng.normal(size=(studies, cases))
    held = rng.normal(size=(studies, 1 + rivals, cases, runs)) * scale[:, None]
    held[:, 0] = true[:, :, None] + FIRST[first] * held[:, 0]
    return held, true.mean(-1), mean * float(scale.mean())


def scenario(number, studies, **asked):
    """Return what the studies of one scenario said."""
    counts = dict.fromkeys(("here", "beyond", "yes", "no", "mixed", "yes beyond", "no beyond", "wrong", "voted"), 0)
    held, truths, beyond = simulate(np.random.default_rng(number), studies, **asked)
    tests = scipy.stats.ttest_ind(held[:, :1], held[:, 1:], axis=-1, equal_var=False)
    named = [Case(f"case {number}") for number in range(asked["cases"])]
    for groups, p, here in zip(held, tests.pvalue, truths, strict=True):
        pooled = {
            f"rival {rival}": pooled_difference([[pair] for pair in zip(groups[0], groups[1 + rival], strict=True)])
            for rival in range(asked["rivals"])
        }
        # As `muonlab.study.compare.compare` makes them, with all tests of all studies in one call.
        comparisons = adjusted(
            comparison(case, f"rival {rival}", means, p[rival, place])
            for place, case in enumerate(named)
            for rival, means in enumerate(groups[0, place].mean() - groups[1:, place].mean(-1))
        )
        answer, reach = answer_of_means(pooled, comparisons, len(comparisons))
        counts["here"] += _holds(pooled["rival 0"].here.estimate, here)
        counts["beyond"] += _holds(pooled["rival 0"].beyond.estimate, beyond)
        if answer != "inconclusive":
            counts[answer] += 1
        if answer in ("yes", "no") and reach == "beyond":
            counts[f"{answer} beyond"] += 1
        counts["wrong"] += _is_wrong(answer, reach, here, beyond)
        sides = [each.side for each in comparisons]
        counts["voted"] += 2 * sides.count("higher") > len(sides) and "lower" not in sides
    return {**asked, "studies": studies, **counts}


def comparison(case, rival, value, p):
    """Return a comparison of as many runs as decide something."""
    effect = Effect(Estimate(float(value), None, None), float(p), (RULE.min_runs, RULE.min_runs))
    return Comparison(case, rival, CLAIM.quantities[0], None, effect, (None, None), (0, 0), "welch", RULE)


def _holds(estimate, truth):
    return bool(estimate.lower is not None and estimate.lower <= truth <= estimate.upper)


def _is_wrong(answer, reach, here, beyond):
    """Return whether the answer is not that of the truth: of these cases, and where it reaches beyond, of others."""
    if answer == "mixed":
        return bool(here == 0.0 and beyond == 0.0)  # where cases truly differ, it may depend on them
    if answer not in ("yes", "no"):
        return False
    sign = 1 if answer == "yes" else -1
    return bool(sign * here <= 0 or (reach == "beyond" and sign * beyond <= 0))


def scenarios():
    """Yield every scenario."""
    keys = "cases", "runs", "spread", "first", "truth", "rivals"
    for each in product((1, 2, 3, 5, 10), (3, 5, 10), SPREADS, FIRST, TRUTHS, RIVALS):
        asked = dict(zip(keys, each, strict=True))
        if asked["cases"] > 1 or (asked["spread"] == "equal" and asked["truth"] in ("none", "two everywhere")):
            yield asked


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=1000, help="simulated studies per scenario")
    parser.add_argument("--save", type=Path, help="a JSON file, written as scenarios end; those in it are kept")
    options = parser.parse_args()
    held = json.loads(options.save.read_text()) if options.save and options.save.exists() else {}
    rows = held.get("table", []) if held.get("asked") == options.studies else []
    keys = "cases", "runs", "spread", "first", "truth", "rivals"
    done = {json.dumps([row[key] for key in keys]) for row in rows}
    started = time.process_time()
    for asked in scenarios():
        key = json.dumps(list(asked.values()))
        if key in done:
            continue
        rows.append(scenario(zlib.crc32(key.encode()), options.studies, **asked))
        if options.save:
            partial = options.save.with_suffix(".partial")
            lines = ",\n".join(json.dumps(row) for row in rows)
            partial.write_text(f'{{"asked": {options.studies}, "table": [\n{lines}\n]}}\n')
            partial.replace(options.save)
    print(summary(rows))
    sys.stderr.write(f"{len(rows)} scenarios, {time.process_time() - started:.0f} s of CPU\n")


def summary(rows) -> str:
    """Return coverage, wrong answers and power as Markdown."""
    lines = [
        "| cases | spread of the runs | coverage here | coverage beyond | wrong answers, one rival | two rivals |",
        "|---|---|---|---|---|---|",
    ]
    for cases, spread in product((1, 2, 3, 5, 10), SPREADS):
        own = [row for row in rows if (row["cases"], row["spread"]) == (cases, spread)]
        if own:
            beyond = _spread(own, "beyond") if cases > 2 else "–"
            wrong = [_spread([row for row in own if row["rivals"] == rivals], "wrong") for rivals in RIVALS]
            lines.append(f"| {cases} | {spread} | {_spread(own, 'here')} | {beyond} | {' | '.join(wrong)} |")
    lines += ["", "| cases | runs | spread of the runs | yes | yes, beyond | by votes |", "|---|---|---|---|---|---|"]
    for cases, runs, spread in product((1, 2, 3, 5, 10), (3, 5, 10), SPREADS):
        own = [
            row
            for row in rows
            if (row["cases"], row["runs"], row["spread"]) == (cases, runs, spread)
            and (row["truth"], row["first"], row["rivals"]) == ("two everywhere", "as noisy", 2)
        ]
        for row in own:
            cells = [as_text(wilson(row[key], row["studies"]), "accuracy") for key in ("yes", "yes beyond", "voted")]
            lines.append(f"| {cases} | {runs} | {spread} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _spread(rows, key):
    shares = np.array([row[key] / row["studies"] for row in rows])
    return f"{shares.min():.3f} {np.median(shares):.3f} {shares.max():.3f}"


if __name__ == "__main__":
    main()

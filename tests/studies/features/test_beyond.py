"""Effective robustness: the height above a rival's line, only where both have been, with the error of the line."""

import math
from dataclasses import replace
from itertools import product

import numpy as np
import pytest

import synthetic_features as synthetic
from muonlab.studies.features.beyond import beyond, beyond_clean


def odds(share):
    return math.log(share / (1 - share))


def share(log_odds):
    return 1 / (1 + math.exp(-log_odds))


def walks(height=0.0, low=0.3, high=0.8, seed=0):
    """Return evaluations of four runs whose corrupted log-odds lie above 0.8 x - 0.5 by a height."""
    rng, rows = np.random.default_rng(seed), []
    for run, step in product(range(4), range(1, 7)):
        x = odds(low) + (odds(high) - odds(low)) * (step - 1) / 5 + 0.05 * rng.normal()
        y = 0.8 * x - 0.5 + height + 0.02 * rng.normal()
        rows.append({"seed": run, "step": step, "clean": share(x), "corrupted": share(y)})
    return rows


@pytest.fixture(scope="module")
def heights():
    """Return what is found of given walks of Muon and AdamW."""
    found = synthetic.found(synthetic.study(families=["cnn"]))
    family = found.runs.families["cnn on digits"]

    def of(own, others):
        sizes = family.sizes | {"path_examples": 10**6}
        return beyond(replace(family, path={"muon": own, "adamw": others}, sizes=sizes), "muon", "adamw")

    return of


def test_a_planted_height_is_found_and_none_where_there_is_none(heights):
    found = heights(walks(height=0.1, seed=1), walks())
    assert found.effect.estimate.lower < 0.1 < found.effect.estimate.upper
    assert found.effect.p < 1e-3
    assert heights(walks(seed=1), walks()).effect.p > 0.05


def test_the_line_is_least_squares_and_every_run_of_the_first_counts_the_same(heights):
    own, others = walks(height=0.1, seed=1), walks()
    found = heights(own, others)
    low, high = (odds(end) for end in found.shared)
    points = [(run["seed"], odds(run["clean"]), odds(run["corrupted"])) for run in others]
    slope, intercept = np.polyfit(*zip(*[(x, y) for _, x, y in points if low <= x <= high], strict=True), 1)
    by_run = {}
    for row in own:
        if low <= odds(row["clean"]) <= high:
            by_run.setdefault(row["seed"], []).append(odds(row["corrupted"]) - slope * odds(row["clean"]) - intercept)
    assert found.effect.estimate.value == pytest.approx(np.mean([np.mean(run) for run in by_run.values()]))
    assert found.num_points[0] == sum(map(len, by_run.values()))


# Bug: the line of rivals at clean accuracies of .10 to .73 was read at Muon's .93 to 1.0.
def test_no_line_is_read_where_one_of_the_two_has_never_been(heights):
    apart = heights(walks(low=0.9, high=0.99), walks())
    assert (apart.effect.estimate.value, apart.shared) == (None, None)
    bent = [{**row, "corrupted": 0.99 if row["clean"] > 0.75 else row["corrupted"]} for row in walks(high=0.95, seed=1)]
    over = heights(bent, walks(high=0.7))
    assert over.shared[1] < 0.75
    assert over.effect.p > 0.05
    assert over.num_points[0] < len(bent)


# Bug: intervals over seeds of the first took the line as known.
def test_the_error_of_the_line_is_in_the_interval(heights):
    noisy = [{**row, "corrupted": share(odds(row["corrupted"]) + row["seed"] / 3)} for row in walks()]
    widths = [
        found.upper - found.lower
        for found in (heights(walks(seed=1), others).effect.estimate for others in (walks(), noisy))
    ]
    assert widths[1] > 5 * widths[0]


def test_the_table_names_the_shared_range(rows_of):
    planted = synthetic.Planted(shift=lambda what, net, name: 0.05 * (what == "path" and name == "muon"))
    _, table = beyond_clean(synthetic.found(planted=planted))
    rows = rows_of(table)
    assert [(row["family"], row["rival"], row["side"]) for row in rows] == [
        ("cnn on digits", "AdamW", "higher"),
        ("gpt on sources", "AdamW", "higher"),
    ]
    assert rows[0]["shared"].startswith("0.3")
    assert (rows[0]["points"], rows[0]["n"]) == (rows[0]["rival_points"], "4 + 4")

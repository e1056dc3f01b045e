"""Estimates of a study of transfer, on curves whose minimum is known."""

import math

import numpy as np
import pytest
import scipy
from numpy.testing import assert_allclose

from muonlab.studies.transfer.shift import (
    MISSED,
    best_octave,
    best_octaves,
    chosen_by_others,
    per_doubling,
    regret,
    widening,
)

GRID = tuple(0.02 * 2**k for k in range(6))
WIDTHS = (16, 32, 64, 128)


def losses_of(minima, grid=GRID, curve=lambda x: x**2):
    """Return rate -> loss of each seed, of curves with the given minima in octaves."""
    return {rate: [2 + curve(math.log2(rate) - own) for own in minima] for rate in grid}


def test_the_minimum_of_a_parabola_is_found_exactly_on_an_uneven_grid():
    grid, minima = (0.01, 0.03, 0.05, 0.2, 0.3), [-4.7, -3.1, -2.4]
    assert_allclose(best_octaves(losses_of(minima, grid)), minima)


def lopsided(left, right):
    """Return a smooth curve with its minimum at 0, which rises by other rates on its two sides."""
    return lambda x: (math.exp(right * x) - 1) / right + (math.exp(-left * x) - 1) / left


@pytest.mark.parametrize("ratio", [1, 1.5, 2, 1 / 2])
def test_of_a_lopsided_curve_the_parabola_misses_at_most_an_eighth_of_a_step(ratio):
    curve = lopsided(0.5, 0.5 * ratio)
    assert scipy.optimize.minimize_scalar(curve, bounds=(-1, 1), method="bounded").x == pytest.approx(0, abs=1e-4)
    minima = np.linspace(-3.6, -2.4, 25).tolist()
    assert np.abs(np.array(best_octaves(losses_of(minima, curve=curve))) - minima).max() <= MISSED


def test_next_to_a_divergence_or_an_edge_the_best_of_the_grid_is_taken():
    assert best_octave((1, 2, 4), (3.0, 2.0, None)) == 1
    assert best_octave((1, 2, 4), (3.0, 2.0, 1.0)) == 2
    assert best_octave((1, 2, 4), (2.0, 2.0, 2.0)) == 0
    assert best_octave((1, 2), (None, None)) is None


def test_a_known_shift_is_found_with_the_interval_of_scipy_over_seeds():
    rng = np.random.default_rng(0)
    start = -3 + 0.2 * rng.standard_normal(5)
    drawn = [[each - 0.5 * k + 0.1 * rng.standard_normal() for each in start] for k in range(4)]
    octaves = [best_octaves(losses_of(own)) for own in drawn]
    slopes = [scipy.stats.linregress(np.log2(WIDTHS), own).slope for own in zip(*drawn, strict=True)]
    lower, upper = scipy.stats.t.interval(0.95, 4, np.mean(slopes), scipy.stats.sem(slopes))
    found = per_doubling(WIDTHS, octaves)
    assert_allclose((found.value, found.lower, found.upper), (np.mean(slopes), lower, upper))
    assert found.lower < -0.5 < found.upper


def test_the_interval_is_wider_by_the_worst_that_errors_of_a_size_can_do_to_a_slope():
    values, error = [[-3.0, -3.1], [-3.6, -3.5], [-4.0, -4.2], [-4.5, -4.4]], 0.125
    signs = np.array(np.meshgrid(*[(-1, 1)] * len(WIDTHS))).reshape(len(WIDTHS), -1)
    worst = max(abs(np.polyfit(np.log2(WIDTHS), error * own, 1)[0]) for own in signs.T)
    assert widening(WIDTHS, error) == pytest.approx(worst)
    narrow, wide = per_doubling(WIDTHS, values), per_doubling(WIDTHS, values, error)
    assert_allclose((wide.lower, wide.upper), (narrow.lower - worst, narrow.upper + worst))


def test_no_seed_judges_the_rate_that_it_chose():
    own = {0.1: [1.0, 5.0, 5.0], 0.2: [4.0, 2.0, 4.0], 0.4: [9.0, None, 1.0]}
    assert chosen_by_others(own) == [0.2, 0.1, 0.1]
    assert chosen_by_others({0.1: [3.0], 0.2: [2.0]}) == [0.2]
    assert chosen_by_others({0.1: [None, 1.0], 0.2: [None, 1.0]}) == [0.1, None]


def test_regret_is_none_where_the_rate_transfers_and_known_where_it_moves():
    seeds = [-3.0, -2.9, -3.1]
    assert regret(losses_of(seeds), losses_of(seeds)).value == 0
    found = regret(losses_of(seeds), losses_of([own - 1 for own in seeds]))
    kept, best = (2 + (np.array(seeds) + shift + 3) ** 2 for shift in (-1, 0))
    at = math.log2(GRID[3]), math.log2(GRID[2])  # 2^-2.64, nearest to the minima, and one below
    kept, best = (np.array([2 + (each - (own - 1)) ** 2 for own in seeds]) for each in at)
    assert_allclose(found.value, 100 * (kept / best - 1).mean())
    missing = regret(losses_of(seeds), losses_of(seeds, GRID[:2]))
    assert missing.value is None
    assert "missing" in missing.reason

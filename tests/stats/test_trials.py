"""What trials of a search show: the best of k of them, and the width of the region of good rates."""

import math

import numpy as np
import pytest
from scipy.stats import qmc

from muonlab.stats.trials import expected_best, region


@pytest.mark.parametrize("always", [None, 3])
def test_the_expected_best_of_k_is_that_of_many_draws(always):
    rng = np.random.default_rng(0)
    losses, values = rng.normal(size=6), rng.normal(size=6)
    others = [place for place in range(6) if place != always]
    for k, found in enumerate(expected_best(losses, values, always), start=1):
        total = 0.0
        for _ in range(4000):
            own = list(rng.choice(others, k - (always is not None), replace=False)) + [always] * (always is not None)
            total += values[min(own, key=lambda place: losses[place])]
        assert found == pytest.approx(total / 4000, abs=0.06)


def test_one_trial_is_worth_their_mean_and_all_are_worth_the_best():
    found = expected_best([3.0, 1.0, 2.0, 6.0])
    assert found[0] == pytest.approx(3.0)
    assert found[-1] == 1.0
    assert expected_best([3.0, 1.0, 2.0], always=0)[0] == 3.0


def test_where_all_of_k_trials_may_diverge_there_is_no_mean():
    assert [value is None for value in expected_best([1.0, math.inf, math.inf, 2.0])] == [True, True, False, False]
    assert None not in expected_best([1.0, math.inf, math.inf, 2.0], always=0)


def landscape(points):
    """Return the loss at points (T, d) of the unit cube; the first axis is the learning rate, over 2.5 decades."""
    return 1 + 0.5 * ((points - 0.4) ** 2).sum(1)


def widths(trials, dimensions, noise, within, studies=200):
    """Return found and true widths in decades, the true one relative to the loss of the best trial found."""
    found, true = [], []
    for study in range(studies):
        rng = np.random.default_rng([study, trials])
        points = qmc.Sobol(dimensions, rng=rng).random(trials)
        means = landscape(points)
        losses = means + noise * rng.normal(size=trials)
        own = region(10 ** (2.5 * points[:, 0]), losses, within)
        assert own is not None
        found.append(own.decades)
        reach = math.sqrt(max(0, (1 + within) * means[losses.argmin()] - 1) / 0.5)
        true.append(2.5 * (min(1, 0.4 + reach) - max(0, 0.4 - reach)))
    return found, true


@pytest.mark.parametrize(("dimensions", "noise"), [(1, 0.0), (3, 0.0), (4, 0.0), (4, 0.005)])
def test_the_width_of_the_region_is_a_lower_bound_with_16_trials(dimensions, noise):
    """Noise of half of the share, the most for which a width is said, may move a trial over its edge: at most 5 %."""
    found, true = widths(16, dimensions, noise, 0.01)
    known = [(own, real) for own, real in zip(found, true, strict=True) if own is not None]
    assert np.mean([own <= real + 1e-9 for own, real in known]) >= (1 if not noise else 0.95)
    # In four dimensions few of 16 trials come near the best: most studies show no width, which is then not said.
    assert (len(known) > 190) == (dimensions == 1)


def test_with_many_trials_it_is_the_width():
    found, true = widths(1024, 2, 0.0, 0.01, studies=20)
    assert np.mean(found) == pytest.approx(np.mean(true), rel=0.1)


def test_a_region_of_trials_that_diverged_is_none():
    assert region([1e-3, 1e-2], [math.inf, math.inf], 0.01) is None
    alone = region([1e-3, 1e-2, 1e-1], [1.0, math.inf, 2.0], 0.01)
    assert alone is not None
    assert (alone.num, alone.decades) == (1, None)

"""Intervals of differences between tuned optimizers: coverage by simulation, and what the luck of tuning adds."""

import math

import numpy as np
import pytest
from scipy import stats
from scipy.stats import qmc

from muonlab.stats.tuned import Tuned, expected_losses, noise, pooled_ratio, tuned_difference, tuning_variance


def tuned(rng, shift=0.0, trials=8, seeds=5, noise=0.03, dimensions=3, shared=None):
    """Tune on a quadratic bowl with scrambled Sobol points; seeds of both optimizers share their noise in part."""
    points = qmc.Sobol(dimensions, rng=rng).random(trials)
    means = shift + ((points - 0.35) ** 2).sum(1)

    def runs(mean, count):
        common = 0.0 if shared is None else shared.normal(size=count) * noise
        return mean + common + rng.normal(size=count) * noise / 2

    search = means + rng.normal(size=trials) * noise
    again = {int(trial): runs(means[trial], 3) for trial in np.argsort(search)[:3]}
    winner = min(again, key=lambda trial: again[trial].mean())
    final = dict(enumerate(map(float, runs(means[winner], seeds))))
    return Tuned(search, np.argsort(points[:, 0]), again, winner, final)


def test_the_interval_covers_where_that_of_the_seeds_alone_does_not():
    """records/coverage has the table; here the coverage of 300 studies, which 95 % leaves within .92 and .98."""
    covered = alone = 0
    for study in range(300):
        common = np.random.default_rng([study, 1]).integers(2**32)
        first = tuned(np.random.default_rng([study, 2]), shared=np.random.default_rng(common))
        second = tuned(np.random.default_rng([study, 3]), shared=np.random.default_rng(common))
        found = tuned_difference(first, second).estimate
        assert found.lower is not None
        assert found.upper is not None
        covered += found.lower <= 0 <= found.upper
        differences = [first.final[seed] - second.final[seed] for seed in first.final]
        alone += stats.ttest_1samp(differences, 0).pvalue > 0.05
    assert 0.92 <= covered / 300 <= 0.98
    assert alone / 300 < 0.8


def test_without_luck_of_tuning_it_is_the_paired_t_interval():
    first = Tuned([1.0, 9.0], [0, 1], {0: [1.0, 1.1]}, 0, {0: 1.0, 1: 1.2, 2: 0.9, 3: 1.1})
    second = Tuned([2.0, 2.0], [0, 1], {0: [2.0, 2.1], 1: [2.0, 2.1]}, 0, {0: 2.0, 1: 2.1, 2: 2.05, 3: 2.05})
    flat = Tuned([1.0, 1.0], [0, 1], {0: [1.05, 1.05], 1: [1.05, 1.05]}, 0, first.final)
    found = tuned_difference(flat, second)
    expected = stats.ttest_rel(list(flat.final.values()), list(second.final.values()))
    interval = expected.confidence_interval()
    assert (found.estimate.lower, found.estimate.upper) == pytest.approx((interval.low, interval.high))
    assert found.p == pytest.approx(expected.pvalue)
    assert tuning_variance(first) > 1, "half of the neighbours of the winner lose by 8"


def test_the_winner_of_a_draw_is_chosen_as_it_was():
    """Two pairs of trials: the winner is missing in a quarter of the draws, and then the other pair's best wins."""
    apart = Tuned([1.0, 50.0, 2.0, 60.0], [0, 1, 2, 3], {0: [1.0] * 2, 2: [2.0] * 2}, 0, {0: 1.0, 1: 1.0})
    # Trial 0 wins in 3/4; trial 2 in 1/4 * 3/4; 50 + 0, the shift of fresh seeds, in 1/16.
    values, shares = np.array([1.0, 2.0, 50.0]), np.array([3 / 4, 3 / 16, 1 / 16])
    expected = (shares * values**2).sum() - (shares * values).sum() ** 2
    assert tuning_variance(apart, resamples=200_000) == pytest.approx(expected, rel=0.03)


@pytest.mark.parametrize(
    ("final", "reason"),
    [
        ({}, "no seeds in common"),
        ({0: 1.0}, "one seed: no interval"),
        ({0: 1.0, 1: math.inf}, "1 of 4 final runs diverged: a mean would hide it"),
        ({0: 1.0, 1: 1.0}, "no difference varies: no interval"),
    ],
)
def test_no_interval_comes_with_a_reason(final, reason):
    of_two = Tuned([1.0, 1.0], [0, 1], {0: [1.0], 1: [1.0]}, 0, {0: 1.0, 1: 1.0})
    found = tuned_difference(Tuned([1.0, 1.0], [0, 1], {0: [1.0], 1: [1.0]}, 0, final), of_two)
    assert (found.estimate.reason, found.estimate.lower, found.p) == (reason, None, None)


def test_trials_that_diverged_never_win():
    some = Tuned([1.0, math.inf, 1.5, math.inf], [0, 1, 2, 3], {0: [1.0, 1.1], 2: [1.5, 1.4]}, 0, {0: 1.0, 1: 1.1})
    assert 0 < tuning_variance(some) < 1


def test_the_noise_of_a_run_is_what_neither_trial_nor_seed_explains():
    rng = np.random.default_rng(0)
    trials, seeds = 10 * rng.normal(size=(40, 1)), 10 * rng.normal(size=(1, 30))
    table = trials + seeds + 0.5 * rng.normal(size=(40, 30))
    found = noise(dict(enumerate(table)))
    assert found == pytest.approx(0.5, rel=0.05)
    assert noise({0: [1.0, 2.0], 1: [1.0, math.inf]}) is None


def test_expected_losses_are_those_with_fresh_seeds_where_there_are_any():
    some = Tuned([1.0, 9.0, 2.0], [0, 1, 2], {0: [3.0, 3.0], 2: [3.5, 3.5]}, 0, {0: 2.5, 1: 2.7})
    assert expected_losses(some) == pytest.approx([2.6, 9 + 1.75, 3.5])


def test_the_ratio_over_trainings_of_which_one_counts_is_that_of_the_logarithms_there():
    rng = np.random.default_rng(3)
    first, second = tuned(rng, shift=1.0), tuned(rng, shift=1.5)

    def on_logs(one):
        again = {trial: np.log(runs) for trial, runs in one.again.items()}
        final = {seed: math.log(loss) for seed, loss in one.final.items()}
        return Tuned(np.log(one.search), one.order, again, one.winner, final)

    expected = tuned_difference(on_logs(first), on_logs(second))
    alone = pooled_ratio([(first, second)])
    bounds = [getattr(expected.estimate, key) for key in ("value", "lower", "upper")]
    assert [alone.estimate.value, alone.estimate.lower, alone.estimate.upper] == pytest.approx(np.exp(bounds))
    assert alone.p == pytest.approx(expected.p)
    # The same training four times as if they were four: the same ratio, half the error, four times the degrees.
    four = pooled_ratio([(first, second)] * 4)
    assert four.estimate.value == pytest.approx(alone.estimate.value)
    assert four.p is not None
    assert four.p < expected.p


def test_the_ratio_over_trainings_covers():
    """benchmarks/coverage.py --pooled has the table; of 120 studies 95 % leaves .88 to .99."""
    covered = 0
    for study in range(120):
        rng = np.random.default_rng([study, 7])
        pairs = [
            (tuned(rng, 1.0, dimensions=d, noise=0.01), tuned(rng, 1.0, dimensions=d, noise=0.01)) for d in (1, 2, 3)
        ]
        found = pooled_ratio(pairs).estimate
        assert found.lower is not None
        assert found.upper is not None
        covered += found.lower <= 1 <= found.upper
    assert 106 <= covered <= 120


def test_no_ratio_comes_with_a_reason():
    fine = Tuned([1.0, 1.1], [0, 1], {0: [1.0], 1: [1.0]}, 0, {0: 1.0, 1: 1.1})
    lost = Tuned([1.0, 1.1], [0, 1], {0: [1.0], 1: [1.0]}, 0, {0: 1.0, 1: math.inf})
    assert pooled_ratio([(fine, fine), (fine, lost)]).estimate.reason == "a final run diverged: a mean would hide it"
    zero = Tuned([1.0, 1.1], [0, 1], {0: [1.0], 1: [1.0]}, 0, {0: 1.0, 1: 0.0})
    assert pooled_ratio([(fine, zero)]).estimate.reason == "a final loss is 0 or below, which has no ratio"
    assert pooled_ratio([]).estimate.reason == "a training has no final runs yet"

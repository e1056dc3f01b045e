"""Means of shares: within their range, symmetric under exchange of hits and misses, and honest near the ends."""

import numpy as np
import pytest
from scipy import stats
from scipy.special import expit

from muonlab.stats.effects import mean
from muonlab.stats.proportions import as_share


def test_an_interval_of_shares_stays_within_their_range_where_students_does_not():
    near_one = [1.0, 0.995, 1.0, 0.99, 1.0]
    assert mean(near_one).upper > 1
    found = as_share(mean(near_one))
    assert 0 < found.lower < found.value == np.mean(near_one) < found.upper < 1
    mirrored = as_share(mean([1 - each for each in near_one]))
    assert (1 - mirrored.upper, 1 - mirrored.lower) == pytest.approx((found.lower, found.upper))


def test_in_the_middle_it_is_students():
    values = [0.49, 0.5, 0.51, 0.5, 0.495]
    own, students = as_share(mean(values)), mean(values)
    assert (own.lower, own.upper) == pytest.approx((students.lower, students.upper), abs=1e-4)


def test_the_delta_method_of_the_log_odds():
    values = [0.9, 0.95, 0.97]
    arm = stats.t.ppf(0.975, 2) * stats.sem(values) / (np.mean(values) * (1 - np.mean(values)))
    middle = np.log(np.mean(values) / (1 - np.mean(values)))
    assert (as_share(mean(values)).lower, as_share(mean(values)).upper) == pytest.approx(
        (expit(middle - arm), expit(middle + arm))
    )


@pytest.mark.parametrize("values", [[], [0.5], [1.0, 1.0]])
def test_what_has_no_interval_keeps_its_reason(values):
    assert as_share(mean(values)) == mean(values)


def test_it_covers_better_than_students_near_one():
    rng = np.random.default_rng(0)
    logits = rng.normal(4, 1, (2000, 5))  # accuracies of five runs, about .97
    true = expit(rng.normal(4, 1, 10**6)).mean()
    students = [mean(row) for row in expit(logits)]
    own = list(map(as_share, students))
    covered = [np.mean([each.lower <= true <= each.upper for each in found]) for found in (students, own)]
    assert covered[0] < 0.86 < 0.88 < covered[1]  # measured with 40,000 studies: .836 and .897

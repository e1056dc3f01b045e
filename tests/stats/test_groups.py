import numpy as np
import pytest
from scipy import stats

from muonlab.stats.groups import finite_group, satterthwaite, variance_of_mean


@pytest.mark.parametrize("bad", [[1.0, np.nan], [1.0, np.inf], [[1.0, 2.0]], 1.0])
def test_a_bad_group_is_refused_with_its_shape(bad):
    with pytest.raises(ValueError, match=r"must be \(n,\) finite numbers, got shape"):
        finite_group(bad)


def test_a_group_may_be_empty():
    assert finite_group([]).shape == (0,)


def test_the_variance_of_a_mean_is_its_standard_error_squared():
    group = np.random.default_rng(0).normal(size=7)
    assert variance_of_mean(group) == pytest.approx(stats.sem(group) ** 2)
    assert variance_of_mean(np.full(3, 0.1)) == 0  # though the mean of three tenths is rounded


def test_satterthwaite_of_one_and_of_equal_variances():
    assert satterthwaite([0.3], [7]) == pytest.approx(7)
    assert satterthwaite([2.0, 2.0, 2.0], [4, 4, 4]) == pytest.approx(12)
    assert satterthwaite([0.0, 2.0], [4, 9]) == pytest.approx(9)

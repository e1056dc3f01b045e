import numpy as np
import pytest

from muonlab.stats.arrangements import arrange, fewest_runs, smallest_p
from muonlab.stats.blocked import permutation_test


@pytest.mark.parametrize(
    ("sizes", "p"), [([(3, 3)], 0.1), ([(5, 5)], 2 / 252), ([(3, 3)] * 2, 2 / 400), ([(2, 3)], 0.1)]
)
def test_the_smallest_p_is_that_of_groups_apart(sizes, p):
    is_first = np.concatenate([[True] * first + [False] * second for first, second in sizes])
    blocks = np.repeat(range(len(sizes)), [sum(each) for each in sizes])
    assert smallest_p(sizes) == pytest.approx(p)
    assert permutation_test(np.where(is_first, 0, 10) + 0.1 * np.arange(len(blocks)), is_first, blocks).p >= p - 1e-12
    assert smallest_p([(20, 20)]) == 1 / 10_001


def test_the_fewest_runs_that_can_decide():
    assert [fewest_runs(1), fewest_runs(1, comparisons=7), fewest_runs(3), fewest_runs(7)] == [4, 6, 2, 2]
    assert smallest_p([(4, 4)]) <= 0.05 < smallest_p([(3, 3)])


def test_random_arrangements_are_as_likely_as_every_one():
    values = np.arange(12.0)[:, None] ** 2
    blocks = [(values, 5), (values[:8], 4)]
    every = arrange(blocks, lambda _, sums: sums, resamples=10**6)
    drawn = arrange(blocks, lambda _, sums: sums, resamples=5000)
    assert (every.is_exact, drawn.is_exact, len(every.others)) == (True, False, 792 * 70)
    assert (drawn.observed == every.observed).all()
    assert drawn.others.mean() == pytest.approx(every.others.mean(), rel=0.02)
    assert drawn.others.std() == pytest.approx(every.others.std(), rel=0.05)

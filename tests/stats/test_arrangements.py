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
    blocks = [(np.roll(np.arange(12.0)[:, None] ** 2, 8), 5), (np.arange(8.0)[:, None] ** 2, 4)]
    arguments = blocks, lambda _, sums: sums, lambda sums: np.abs(sums[..., 0] - 281)
    every = arrange(*arguments, resamples=10**6)
    assert (every.is_exact, every.number) == (True, 792 * 70)
    assert every.p > 0.1  # so that a thousand are enough
    for resamples, number in ((20_000, 1000), (500, 500)):
        drawn = arrange(*arguments, resamples=resamples)
        assert (drawn.is_exact, drawn.number) == (False, number)
        assert drawn.p == pytest.approx(every.p, abs=4 * np.sqrt(every.p / number))
    assert drawn.p == arrange(*arguments, resamples=500).p
    assert drawn.p != arrange(*arguments, resamples=500, seed=1).p

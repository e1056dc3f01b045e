import pytest
from scipy import stats

from muonlab.stats.recomputation import smallest_two_sided_p


def test_the_printed_pair_of_the_paper_is_impossible():
    smallest = smallest_two_sided_p(5.0175)
    assert smallest == pytest.approx(5.23e-7, rel=1e-3)
    assert smallest > 6.33e-8


@pytest.mark.parametrize("t", [0.0, 0.3, -2.0, 5.0175])
def test_no_degrees_of_freedom_give_less(t):
    smallest = smallest_two_sided_p(t)
    for degrees_of_freedom in (1, 5, 100, 1e6):
        assert 2 * stats.t.sf(abs(t), degrees_of_freedom) >= smallest
    assert 2 * stats.t.sf(abs(t), 1e9) == pytest.approx(smallest, rel=1e-6)


def test_not_a_number_is_refused():
    with pytest.raises(ValueError, match="not a number"):
        smallest_two_sided_p(float("nan"))

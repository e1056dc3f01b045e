from statistics import fmean

import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

import synthetic_components as synthetic
from muonlab.studies.components.comparisons import MIN_PAIRS, compare, pair_of
from muonlab.studies.components.quantities import MARGIN, RANK, TEST


def test_a_difference_is_of_pairs_of_one_seed(runs):
    case = runs.mapped[0]
    pair = pair_of(runs, case, "sgd", MARGIN, 1)
    mine, its = (list(runs.of(case, name).values(1, MARGIN).values()) for name in ("muon", "sgd"))
    expected = stats.ttest_rel(mine, its)
    assert pair.effect.p == pytest.approx(expected.pvalue)
    interval = expected.confidence_interval()
    assert (pair.interval.lower, pair.interval.upper) == pytest.approx((interval.low, interval.high))
    assert pair.means == pytest.approx((fmean(mine), fmean(its)))
    assert (pair.eps, pair.num_pairs, pair.n, pair.censored) == (0.5, 6, "6", (0, 0))


def test_p_is_adjusted_over_all_cells_of_all_rivals(runs):
    pairs = compare(runs, runs.mapped, runs.rivals, TEST, 1)
    assert len(pairs) == 16
    expected = multipletests([pair.effect.p for pair in pairs], method="holm")[1]
    assert [pair.adjusted_p for pair in pairs] == pytest.approx(list(expected))


def test_sides(runs):
    sides = {
        (pair.case.components.ratio, pair.case.components.noise): pair.side
        for pair in compare(runs, runs.mapped, ["adamw"], MARGIN, 1)
    }
    assert sides == {(2, 0.1): "higher", (2, 0.3): "higher", (8, 0.1): "higher", (8, 0.3): "lower"}
    assert {pair.side for pair in compare(runs, runs.mapped, ["adamw"], TEST, 1)} == {"undecided"}


def test_a_difference_that_is_sure_and_tiny_is_undecided():
    planted = synthetic.Planted(shift=lambda f, case, name: 0.005 * (name == "muon"), noise=1e-5)
    runs = synthetic.runs(planted=planted)
    pair = compare(runs, runs.mapped[:1], ["sgd"], MARGIN, 1)[0]
    assert pair.adjusted_p < 1e-6
    assert pair.side == "undecided"


@pytest.mark.parametrize(("lost", "side"), [(3, "higher"), (4, "undecided"), (6, "undecided")])
def test_a_cell_is_undecided_where_too_few_pairs_remain(lost, side):
    def censored(case, name, rate, seed, place):
        return "not reached" if name == "sgd" and seed < lost else None

    shift = synthetic.Planted(shift=lambda f, case, name: 0.3 * (name == "muon"), noise=1e-3, censored=censored)
    runs = synthetic.runs(planted=shift)
    pair = compare(runs, runs.mapped[:1], ["sgd"], MARGIN, 1)[0]
    assert (pair.num_pairs, pair.censored, pair.side) == (6 - lost, (0, lost), side)
    assert pair.n == f"{6 - lost} (0 + {lost} censored)"
    assert (pair.num_pairs < MIN_PAIRS) is (pair.adjusted_p is None)


def test_what_is_not_done_is_no_cell():
    runs = synthetic.runs(undone=lambda step: step.optimizer == "sgd")
    assert compare(runs, runs.mapped, ["sgd"], RANK, 1) == ()
    assert len(compare(runs, runs.mapped, runs.rivals, RANK, 1)) == 8

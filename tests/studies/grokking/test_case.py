import pytest

import synthetic_study as synthetic
from muonlab.stats.results import Estimate
from muonlab.studies.grokking.case import Case, measured, share, side
from muonlab.studies.grokking.comparison import compare
from muonlab.studies.grokking.conditions import read


@pytest.mark.parametrize(
    ("lower", "upper", "expected"),
    [
        (0.5, 0.9, "sooner"),
        (1.1, 1.3, "later"),
        (0.9, 1.1, "undecided"),
        (0.5, 1.0, "undecided"),
        (None,) * 2 + ("undecided",),
    ],
)
def test_the_side_is_that_of_the_whole_interval(lower, upper, expected):
    assert side(Estimate(0.8, lower, upper, 0.95, 10)) == expected


def test_a_share_has_its_interval():
    assert share(8, 10) == "80%, interval 49% to 94%"
    assert share(0, 0) == "no runs"


def case(folder, fate, cells):
    runs = read(synthetic.write(folder, cells, fate))
    return Case.of(runs, compare(runs, "muon", "adamw"))


def test_the_number_comes_with_interval_n_and_p(tmp_path):
    cells = synthetic.usual_cells(["add"])
    found = measured(case(tmp_path, synthetic.usual_fate, cells), "Muon")
    assert found.startswith("Muon needed 0.")
    for part in ("95% interval", "in 1 block, 5 Muon and 5 AdamW runs", "permutation p = "):
        assert part in found


def test_without_a_crossing_there_is_no_number(tmp_path):
    found = case(tmp_path, lambda *_: None, synthetic.usual_cells(["add"]))
    assert measured(found, "Muon") == "the ratio of times could not be had (no run crossed)"
    assert not found.is_torn


def test_a_case_is_torn_where_ranks_and_means_point_in_opposite_directions(tmp_path):
    def fate(config, seed):
        if config.optimizer.name == "adamw":
            return 400 + 50 * (seed % 2)
        return None if seed < 3 else 300

    found = case(tmp_path, fate, synthetic.usual_cells(num_seeds=10))
    assert (found.ratio.lower > 1, found.test.statistic < 0, found.test.p < 0.05) == (True,) * 3
    assert (found.is_torn, found.side) == (True, "undecided")
    assert "of ranks that point the OTHER way" in measured(found, "Muon")

import pytest
from scipy import stats

from muonlab.studies.measures.controls import ERROR, failed, of_probes, untrained

RANKS = dict.fromkeys(("effective_rank", "effective_rank_sigma", "stable_rank", "participation_ratio"), 1.0)


def test_a_net_that_was_never_trained_must_guess():
    found = untrained("net", [0.2, 0.25], 0.2, 100)
    assert (found.state, found.value, found.n) == ("passed", 0.25, 2)
    assert found.limit == pytest.approx(stats.binom.isf(ERROR / 2, 100, 0.2) / 100)
    assert failed([found, untrained("net", [0.9], 0.2, 100)])[0].value == 0.9
    assert untrained("net", [1.0], 0.5, 3).state == "cannot tell"


def test_controls_of_probes_are_those_that_were_made():
    assert of_probes("net", {}, 0.1) == []
    line = {"raw": RANKS, "centred": {**RANKS, "stable_rank": 1.5}, "num_examples": 40}
    (found,) = of_probes("net", {"rank_one": line, "shuffled_labels": None}, 0.1)
    assert (found.name, found.value, found.state) == ("rank one", 1.5, "failed")

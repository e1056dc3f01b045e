import pytest
from scipy import stats

from muonlab.study.measures.controls import ERROR, failed, of_probes, untrained

RANKS = dict.fromkeys(("effective_rank", "effective_rank_sigma", "stable_rank", "participation_ratio"), 1.0)


# Bug: one net of random weights that was above chance by luck made a control fail, as if it guessed anew each time.
def test_nets_that_were_never_trained_must_guess_in_the_mean():
    lucky = [0.05, 0.17, 0.08, 0.12, 0.09]
    found = untrained("net", lucky, 0.1, 450)
    assert (found.state, found.value, found.n) == ("passed", pytest.approx(0.102), 5)
    assert found.limit == pytest.approx(0.1 + stats.t.isf(ERROR, 4) * stats.sem(lucky))
    alike = untrained("net", [0.1, 0.1, 0.1], 0.1, 100)
    assert alike.limit == pytest.approx(stats.binom.isf(ERROR, 100, 0.1) / 100)
    assert failed([found, untrained("net", [0.5, 0.51, 0.49, 0.5], 0.1, 100)])[0].value == 0.5
    assert untrained("net", [0.17], 0.1, 450).state == "cannot tell"


def test_controls_of_probes_are_those_that_were_made():
    assert of_probes("net", {}, 0.1) == []
    line = {"raw": RANKS, "centred": {**RANKS, "stable_rank": 1.5}, "num_examples": 40}
    (found,) = of_probes("net", {"rank_one": line, "shuffled_labels": None}, 0.1)
    assert (found.name, found.value, found.state) == ("rank one", 1.5, "failed")

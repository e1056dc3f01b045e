"""How claims are measured on two nets or on groups of them. What comparisons decide is tested in tests/study."""

import numpy as np
import pytest
from scipy import stats

import synthetic_inspection as synthetic
from muonlab.studies.checkpoints.claims import judged
from muonlab.studies.checkpoints.readings import read


def by_letter(found):
    return {each.claim.letter: each.comparisons[0] for each in judged(found)}


def test_two_checkpoints_are_compared_over_pairs_of_examples(pair):
    own, other = (pair.runs.nets[name][0].corrupted_by_example for name in "AB")
    found = by_letter(pair)["a"]
    oracle = stats.ttest_rel(own, other)
    bounds = oracle.confidence_interval()
    assert (found.estimate.lower, found.estimate.upper) == pytest.approx((bounds.low, bounds.high))
    assert found.effect.p == pytest.approx(oracle.pvalue)
    assert found.means == pytest.approx((np.mean(own), np.mean(other)))
    assert (found.test, found.n, found.side) == ("examples", "40 pairs", "higher")


def test_margins_of_two_checkpoints_are_means_over_the_layers_of_each_example(pair):
    rows = [
        np.mean([layer["margins_by_example"]["by_norm"] for layer in pair.runs.nets[name][0].layers], axis=0)
        for name in "AB"
    ]
    assert by_letter(pair)["b"].estimate.value == pytest.approx(np.mean(rows[0] - rows[1]))


def test_ranks_of_two_checkpoints_combine_their_own_intervals(pair):
    found = by_letter(pair)["d"]
    width = np.hypot(0.2, 0.2)  # half of it, planted
    assert (found.estimate.value, found.estimate.upper) == pytest.approx((1.0, 1.0 + width))


def test_groups_are_compared_by_welch_over_their_checkpoints(seeds):
    own, other = ([net.transfer["accuracy"] for net in seeds.runs.nets[name]] for name in "AB")
    found = by_letter(seeds)["c"]
    assert (found.effect.p, found.n) == (pytest.approx(stats.ttest_ind(own, other, equal_var=False).pvalue), "4 + 4")
    assert {each.claim.letter: each.answer for each in judged(seeds)} == dict.fromkeys("abcd", "yes")


def test_the_test_is_chosen_for_each_pair(tmp_path):
    found = read(synthetic.write(tmp_path, synthetic.asked(A=1, B=1, C=3)))
    assert [pair.test for pair in judged(found)[0].comparisons] == ["examples", "welch"]
    assert judged(found)[0].comparisons[1].estimate.lower is None


def test_nets_of_different_depth_are_compared_by_means_over_their_own_layers(tmp_path):
    found = by_letter(read(synthetic.write(tmp_path, synthetic.asked(A=4, B=4), depth={"B": 3})))
    assert found["d"].means == pytest.approx((4.5, 5.0))
    assert found["b"].means == pytest.approx((1.5, 2.0))


def test_layers_whose_probes_find_nothing_are_left_out_of_both(pair):
    pair.runs.nets["A"][0].layers[0]["margins"]["clean"]["below_zero"] = 0.9
    assert by_letter(pair)["b"].means[1] == pytest.approx(2.0, abs=0.05)

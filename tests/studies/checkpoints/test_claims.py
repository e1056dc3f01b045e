import numpy as np
import pytest
from scipy import stats

import synthetic_inspection as synthetic
from muonlab.studies.checkpoints.claims import controls, judged
from muonlab.studies.checkpoints.readings import read


def by_letter(found):
    return {each.claim.letter: each for each in judged(found)}


def test_one_checkpoint_a_side_is_compared_over_pairs_of_examples(pair):
    own, other = (pair.nets[name][0] for name in "AB")
    block = by_letter(pair)["a"].blocks[0]
    oracle = stats.ttest_rel(own.corrupted_by_example, other.corrupted_by_example)
    bounds = oracle.confidence_interval()
    assert (block.interval.lower, block.interval.upper) == pytest.approx((bounds.low, bounds.high))
    assert block.effect.p == pytest.approx(oracle.pvalue)
    assert block.effect.n == (synthetic.NUM, synthetic.NUM)
    assert block.means == pytest.approx((np.mean(own.corrupted_by_example), np.mean(other.corrupted_by_example)))


def test_margins_of_a_pair_are_means_over_layers_of_every_example(pair):
    rows = [
        np.mean([layer["margins_by_example"]["by_norm"] for layer in pair.nets[name][0].layers], axis=0)
        for name in "AB"
    ]
    block = by_letter(pair)["b"].blocks[0]
    assert block.interval.value == pytest.approx(np.mean(rows[0] - rows[1]))
    assert block.side == "higher"


def test_ranks_of_a_pair_have_the_root_of_summed_squares(pair):
    block = by_letter(pair)["d"].blocks[0]
    width = np.hypot(0.2, 0.2)  # half of it, planted
    assert (block.interval.value, block.interval.upper) == pytest.approx((1.0, 1.0 + width))


def test_several_checkpoints_are_compared_by_welch(seeds):
    own, other = ([net.transfer["accuracy"] for net in seeds.nets[name]] for name in "AB")
    block = by_letter(seeds)["c"].blocks[0]
    oracle = stats.ttest_ind(own, other, equal_var=False)
    assert (block.effect.p, block.effect.n) == (pytest.approx(oracle.pvalue), (4, 4))
    assert {letter: each.answer for letter, each in by_letter(seeds).items()} == dict.fromkeys("abcd", "yes")


def test_two_checkpoints_a_side_decide_nothing(tmp_path):
    found = read(synthetic.write(tmp_path, synthetic.asked(A=2, B=2), {"A": {"corrupted": 0.4}}))
    assert by_letter(found)["a"].answer == "inconclusive"


def test_one_against_several_has_no_interval(tmp_path):
    found = read(synthetic.write(tmp_path, synthetic.asked(A=1, B=3)))
    block = by_letter(found)["a"].blocks[0]
    assert (block.effect.n, block.interval.lower, block.side) == ((1, 3), None, "undecided")


def test_p_is_adjusted_over_the_rivals(tmp_path):
    found = read(synthetic.write(tmp_path, synthetic.asked(A=4, B=4, C=4), {"A": {"corrupted": 0.02}}))
    first, second = by_letter(found)["a"].blocks
    low, high = sorted((first.effect.p, second.effect.p))
    assert sorted(b.adjusted_p for b in (first, second)) == pytest.approx([2 * low, max(2 * low, high)])


def test_only_what_was_measured_is_judged(tmp_path):
    what = synthetic.asked(A=1, B=1)
    few = what.job.model_copy(update={"measures": ("rank",)})
    found = read(synthetic.write(tmp_path, synthetic.Asked(few, what.settings, 2)))
    assert list(by_letter(found)) == ["d"]


@pytest.mark.parametrize("broken", [{"shuffled": 0.6}, {"line": 1.5}])
def test_where_a_control_fails_nothing_is_concluded(tmp_path, broken):
    better = {"A": {"corrupted": 0.1}}
    found = read(synthetic.write(tmp_path, synthetic.asked(A=4, B=4), better, **broken))
    assert [each.answer for each in judged(found)] == ["inconclusive"] * 4
    assert [control.state for control in controls(found)].count("failed") == 1


def test_nets_of_other_depth_are_compared_by_means_over_their_own_layers(tmp_path):
    found = read(synthetic.write(tmp_path, synthetic.asked(A=4, B=4), depth={"B": 3}))
    blocks = {letter: each.blocks[0] for letter, each in by_letter(found).items()}
    assert blocks["d"].means == pytest.approx((4.5, 5.0))
    assert blocks["b"].means == pytest.approx((1.5, 2.0))


def test_layers_whose_probes_find_nothing_are_left_out(pair):
    for nets in pair.nets.values():
        nets[0].layers[0]["margins"]["clean"]["below_zero"] = 0.9
    assert pair.sighted("A", "B") == {"A": [1], "B": [1]}
    assert by_letter(pair)["b"].blocks[0].means[1] == pytest.approx(2.0, abs=0.05)

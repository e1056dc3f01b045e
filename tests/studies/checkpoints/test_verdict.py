import pytest

import synthetic_inspection as synthetic
from muonlab.studies.checkpoints.claims import judged
from muonlab.studies.checkpoints.readings import read
from muonlab.studies.checkpoints.verdict import SINGLE, verdict


def verdict_of(found):
    return verdict(found, judged(found))


def test_one_checkpoint_a_side_is_never_a_plain_answer(pair):
    found = verdict_of(pair)
    assert (found.answer, found.label) == ("inconclusive", "These two checkpoints alone")
    assert found.cautions[0] == SINGLE
    assert "not of the optimizers or recipes that made them" in SINGLE
    assert "3 checkpoints or more of each" in SINGLE
    assert found.sentence.startswith("A against B, one checkpoint each, on digits: (a) robustness: higher; (b)")
    assert "of these checkpoints, higher. Accuracy on corrupted inputs, A less B: 0.100 [" in found.more[0]
    assert "over 40 pairs of test examples" in found.more[0]
    assert "over 40 examples each" in found.more[3]
    assert not any(": yes" in words for words in (found.sentence, *found.more))


def test_several_checkpoints_a_side_are_an_answer(seeds):
    found = verdict_of(seeds)
    assert (found.answer, found.label) == ("yes", "Yes")
    assert found.sentence.startswith("A against B, 4 and 4 checkpoints, on digits: (a) robustness: yes;")
    assert found.more[0].endswith("(n = 4 + 4 checkpoints).")
    assert SINGLE not in found.cautions


def test_claim_by_claim(tmp_path):
    found = read(synthetic.write(tmp_path, synthetic.asked(A=4, B=4), {"A": {"rank": -1.0}}))
    said = verdict_of(found)
    assert (said.answer, said.label) == ("mixed", "Claim by claim")
    assert "because no comparison tells the groups apart (p > 0.05" in said.more[0]
    assert "(d) Rank, “hidden states have a higher effective rank”: no: the opposite." in said.more[3]


def test_three_checkpoints_of_three_groups(tmp_path):
    found = read(synthetic.write(tmp_path, synthetic.asked(A=1, B=1, C=1), {"A": {"rank": 1.0}}))
    said = verdict_of(found)
    assert said.label == "These three checkpoints alone"
    assert "(d) rank: higher than B, higher than C" in said.sentence


def test_one_checkpoint_against_one_and_against_several(tmp_path):
    said = verdict_of(read(synthetic.write(tmp_path, synthetic.asked(A=1, B=1, C=3))))
    assert said.label == "These checkpoints alone"
    assert said.sentence.startswith("A against B and C, 1 and 1 and 3 checkpoints, on digits: ")
    assert "over 40 pairs of test examples" in said.more[0]
    assert "n = 1 + 3 checkpoints" in said.more[0]


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ({"A": 2, "B": 2}, "because there are fewer than 3 checkpoints of each group"),
        ({"A": 1, "B": 3}, "because there are fewer than 3 checkpoints of each group"),
    ],
)
def test_too_few_checkpoints(tmp_path, sizes, words):
    said = verdict_of(read(synthetic.write(tmp_path, synthetic.asked(**sizes))))
    assert said.answer == "inconclusive"
    assert words in said.more[0]


def test_probes_that_find_nothing_anywhere_are_the_reason(seeds):
    for nets in seeds.nets.values():
        for layer in (layer for net in nets for layer in net.layers):
            layer["margins"]["clean"]["below_zero"] = 0.9
    said = verdict_of(seeds)
    assert "inconclusive, because no layer has probes that find anything in both." in said.more[1]


def test_what_could_not_be_compared_of_a_pair_has_its_reason(pair):
    for nets in pair.nets.values():
        for layer in nets[0].layers:
            layer["margins"]["clean"]["below_zero"] = 0.9
    words = "of these checkpoints, not compared, because no layer has probes that find anything in both."
    assert verdict_of(pair).more[1].endswith(words)


def test_a_failed_control_is_the_reason(tmp_path):
    better = {"A": {"corrupted": 0.1}}
    many = verdict_of(read(synthetic.write(tmp_path / "a", synthetic.asked(A=4, B=4), better, shuffled=0.7)))
    assert "because a control failed (shuffled labels): no measure can be trusted" in many.more[0]
    one = verdict_of(read(synthetic.write(tmp_path / "b", synthetic.asked(A=1, B=1), better, shuffled=0.7)))
    assert "(a) robustness: nothing, for a control failed" in one.sentence


def test_one_group_alone_is_described(tmp_path):
    said = verdict_of(read(synthetic.write(tmp_path, synthetic.asked(A=2))))
    assert (said.answer, said.label) == ("inconclusive", "No comparison")
    assert said.more == (
        "A: accuracy 0.700, 0.600 on corrupted inputs, probe margin / norm 1.50, effective rank 4.50, "
        "linear probe on another task 0.500.",
    )


def test_not_measured_yet(tmp_path):
    synthetic.inspection.begin(synthetic.asked(A=1, B=1), tmp_path)
    said = verdict_of(read(tmp_path))
    assert (said.answer, said.label) == ("inconclusive", "Not measured yet")


def test_what_it_holds_for_says_what_is_not_known(pair):
    scope = dict(verdict_of(pair).scope)
    assert scope["nets"] == "A nets:build, 5,000 parameters; B nets:build, 5,000 parameters"
    assert "whether they have seen the test examples" in scope["not known here"]
    assert "seeds alone" not in scope["not known here"]


def test_that_a_group_may_differ_in_more_than_seeds_is_not_known(tmp_path):
    several = read(synthetic.write(tmp_path, synthetic.asked(A=3, B=3)))
    assert (
        "whether the checkpoints of a group differ in their seeds alone"
        in dict(verdict_of(several).scope)["not known here"]
    )

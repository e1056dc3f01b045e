import numpy as np
import pytest
from scipy import stats

import synthetic_features as synthetic
from muonlab.studies.features.claims import CLAIMS, compare, effective_robustness, fine_tuned, judge
from muonlab.studies.features.readings import read

CLAIM = {claim.letter: claim for claim in CLAIMS}
QUANTITY = {"a": "corrupted", "b": "margin", "c": "tuned", "d": "rank"}


def planted_for(letter, size, **sizes_by_net):
    names = ("probe", "tuned") if letter == "c" else (QUANTITY[letter],)

    def shift(quantity, net, optimizer):
        return sizes_by_net.get(net, size) if quantity in names and optimizer == "muon" else 0.0

    return synthetic.Planted(shift=shift)


@pytest.mark.parametrize("letter", "abcd")
@pytest.mark.parametrize(("size", "answer"), [(0.1, "yes"), (-0.1, "no"), (0.0, "inconclusive")])
def test_a_planted_effect_is_found_and_no_other_claim(tmp_path, letter, size, answer):
    runs = read(synthetic.write(tmp_path, planted=planted_for(letter, size)))
    found = {claim.letter: judge(runs, claim, is_matched=False).answer for claim in CLAIMS}
    assert found == {**dict.fromkeys("abcd", "inconclusive"), letter: answer}
    at_loss = judge(runs, CLAIM[letter], is_matched=True)
    assert at_loss.answer == answer
    assert len(at_loss.blocks) == 2  # of transfer at matched loss only the probe


def test_families_that_disagree(tmp_path):
    runs = read(synthetic.write(tmp_path, planted=planted_for("a", 0, cnn=0.1, gpt=-0.1)))
    judged = judge(runs, CLAIM["a"], is_matched=False)
    assert (judged.answer, judged.count("higher"), judged.count("lower")) == ("mixed", 1, 1)


def test_half_of_the_comparisons_are_not_enough(tmp_path):
    runs = read(synthetic.write(tmp_path, planted=planted_for("a", 0, cnn=0.1, gpt=0)))
    judged = judge(runs, CLAIM["a"], is_matched=False)
    assert (judged.answer, judged.count("higher", "adamw"), judged.count("undecided")) == ("inconclusive", 1, 1)


def test_a_family_that_cannot_be_compared_counts_as_undecided(tmp_path):
    folder = synthetic.write(
        tmp_path, planted=planted_for("a", 0.1), undone=lambda step: step.plan.family.net.kind == "gpt"
    )
    judged = judge(read(folder), CLAIM["a"], is_matched=False)
    assert (len(judged.blocks), judged.num_asked, judged.count("higher")) == (1, 2, 1)
    assert judged.answer == "inconclusive"


def test_a_rival_that_is_not_beaten(tmp_path):
    planted = synthetic.Planted(shift=lambda what, net, name: 0.1 * (what == "corrupted" and name != "adamw"))
    asked = synthetic.study(optimizers=["muon", "adamw", "sgd"], families=["cnn"])
    runs = read(synthetic.write(tmp_path, asked, planted))
    judged = judge(runs, CLAIM["a"], is_matched=False)
    assert (judged.answer, judged.count("higher", "adamw"), judged.count("higher", "sgd")) == ("inconclusive", 1, 0)


def test_two_runs_are_too_few(tmp_path):
    runs = read(synthetic.write(tmp_path, synthetic.study(seeds=2), planted_for("a", 0.2)))
    judged = judge(runs, CLAIM["a"], is_matched=False)
    assert judged.answer == "inconclusive"
    assert [block.adjusted_p for block in judged.blocks] == [None, None]


@pytest.mark.parametrize("control", [{"shuffled": 0.5}, {"untrained": 0.5}, {"line": 1.2}])
def test_where_a_control_fails_nothing_is_concluded(tmp_path, control):
    planted = synthetic.Planted(shift=planted_for("a", 0.1).shift, **control)
    judged = judge(read(synthetic.write(tmp_path, planted=planted)), CLAIM["a"], is_matched=False)
    assert (judged.answer, judged.count("higher")) == ("inconclusive", 2)


def test_equal_values_have_no_interval(tmp_path):
    planted = synthetic.Planted(noise=0.0, shift=planted_for("a", 0.1).shift)
    judged = judge(read(synthetic.write(tmp_path, planted=planted)), CLAIM["a"], is_matched=False)
    assert judged.answer == "inconclusive"
    assert all(block.interval.lower is None and "no interval" in block.interval.reason for block in judged.blocks)


def test_a_block_agrees_with_scipy_and_holm(tmp_path):
    runs = read(synthetic.write(tmp_path, planted=planted_for("a", 0, cnn=0.02, gpt=0.04)))
    blocks = judge(runs, CLAIM["a"], is_matched=False).blocks
    p = []
    for family, block in zip(runs.families, blocks, strict=True):
        own, other = ([model.corrupted_accuracy for model in family.of(n, "final")] for n in ("muon", "adamw"))
        test = stats.ttest_ind(own, other, equal_var=False)
        bounds = test.confidence_interval()
        p.append(test.pvalue)
        assert block.interval.value == pytest.approx(np.mean(own) - np.mean(other))
        assert (block.interval.lower, block.interval.upper) == pytest.approx((bounds.low, bounds.high))
        assert block.means == pytest.approx((np.mean(own), np.mean(other)))
        assert block.effect.p == pytest.approx(test.pvalue)
    low, high = sorted(p)
    assert sorted(block.adjusted_p for block in blocks) == pytest.approx([2 * low, max(2 * low, high)])


def test_fine_tuning_is_the_mean_over_ways_of_every_seed(tmp_path):
    gpt = read(synthetic.write(tmp_path)).families[1]
    for task in ("classes", "language"):
        ways = [gpt.transferred(task, "muon", by) for by in ("muon", "adamw")]
        by_seed = [np.mean([way.accuracies[seed] for way in ways]) for seed in range(4)]
        assert fine_tuned(gpt, task, "muon") == pytest.approx(by_seed)


def test_fine_tuning_waits_for_all_of_its_ways(tmp_path):
    undone = synthetic.write(tmp_path, undone=lambda step: step.role == "transfer" and step.by == "adamw")
    runs = read(undone)
    assert fine_tuned(runs.families[0], "classes", "muon") == []
    assert {block.quantity for block in compare(runs, CLAIM["c"].quantities, is_matched=False)} == {
        "accuracy of a linear probe on another classification"
    }


def test_effective_robustness_has_blocks_of_its_own(tmp_path):
    planted = synthetic.Planted(shift=lambda what, net, name: 0.1 * (what == "path" and name == "muon"))
    blocks = effective_robustness(read(synthetic.write(tmp_path, planted=planted)))
    assert [(block.place, block.side) for block in blocks] == [
        ("cnn on digits", "higher"),
        ("gpt on sources", "higher"),
    ]

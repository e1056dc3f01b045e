import pytest

import synthetic_features as synthetic
from muonlab.studies.features.verdict import cautions, judge_all, verdict

ONE = {"families": ["cnn"]}


def verdict_of(asked=None, planted=None, **others):
    found = synthetic.found(asked, planted, **others)
    return verdict(found, judge_all(found))


def cautions_of(asked=None, planted=None, **others):
    found = synthetic.found(asked, planted, **others)
    return cautions(found, judge_all(found))


def on(*quantities, size=0.1):
    return synthetic.Planted(shift=lambda what, net, name: size * (what in quantities and name == "muon"))


@pytest.mark.parametrize(("size", "answer", "label"), [(0.1, "yes", "Yes"), (-0.1, "no", "No: the opposite")])
def test_all_claims_one_way(size, answer, label):
    said = verdict_of(planted=on("corrupted", "margin", "rank", "probe", "tuned", size=size))
    assert (said.answer, said.label) == (answer, label)
    assert said.sentence.startswith("Muon against AdamW, at equal budget")


def test_claim_by_claim():
    said = verdict_of(planted=on("corrupted"))
    assert (said.answer, said.label) == ("mixed", "Claim by claim")
    assert "(a) robustness: yes (at matched loss: yes); (b) margins: inconclusive (at" in said.sentence
    assert said.more[0].startswith("(a) Robustness, “accuracy on corrupted inputs is higher”: yes. Muon minus AdamW: ")
    assert "cnn on digits 0.100 [0.078, 0.122], gpt on sources 0.100 [0.078, 0.122] (n = 4 + 4)." in said.more[0]
    assert said.more[0].endswith("At matched clean validation loss: yes (2 higher, 0 lower, 0 undecided of 2).")
    assert "because none of 2 comparisons is decided (p > 0.05" in said.more[1]


def test_what_cannot_be_compared_is_counted():
    said = verdict_of(planted=on("corrupted"), undone=lambda step: step.case.family.net.kind == "gpt")
    assert "because only 1 of 2 comparisons are decided" in said.more[0]
    assert said.more[0].endswith("inconclusive (1 higher, 0 lower, 0 undecided, 1 not measured of 2).")


def test_a_study_just_begun():
    said = verdict_of(undone=lambda step: True)
    assert said.answer == "inconclusive"
    assert said.cautions == ("10 of 10 jobs known so far are not done, 0 of them failed: numbers may change.",)
    assert ("nets and data", "none yet") in said.scope


def test_another_arm_first():
    asked = synthetic.study(optimizers=["sgd", "muon"], **ONE, **{"sgd.rates": [1, 2]})
    assert verdict_of(asked).sentence.startswith("SGD against Muon")


# -- cautions --------------------------------------------------------------------------------------


def loss_of(muon, adamw):
    own = {"muon": muon, "adamw": adamw}
    return synthetic.Planted(loss=lambda optimizer, rate, seed, part: own[optimizer](part, seed))


def test_edges_and_runs_that_diverged():
    planted = loss_of(lambda part, seed: 2 - part, lambda part, seed: None if seed == 1 and part > 0.5 else 2 - part)
    said = " ".join(cautions_of(planted=planted))
    assert "Muon on cnn on digits (low, 0.003)" in said
    assert "Diverged, and left out of every measure: 1 of 4 AdamW runs of cnn on digits" in said


def test_untrained_nets_of_higher_rank():
    planted = synthetic.Planted(shift=lambda what, net, name: -1.0 * (what == "rank"))
    assert any("never trained" in caution for caution in cautions_of(planted=planted))


def test_probes_at_chance(monkeypatch):
    layer = synthetic.layer

    def blind(*values):
        found = layer(*values)
        found["margins"]["clean"]["below_zero"] = 0.85
        return found

    monkeypatch.setattr(synthetic, "layer", blind)
    assert (
        "Probes are no better than chance, so these layers are left out of (b): Muon on cnn on digits (2 of 2 layers), "
        "AdamW on cnn on digits (2 of 2 layers)."
    ) in cautions_of(synthetic.study(**ONE))


def test_other_ways_to_count_that_are_reversed(monkeypatch):
    layer = synthetic.layer

    def turned(tap, margin, rank):
        found = layer(tap, margin, rank)
        found["raw"]["stable_rank"] = 10 - rank
        return found

    monkeypatch.setattr(synthetic, "layer", turned)
    sentence = "(d) depends on how it is counted: decided comparisons are reversed by stable rank in 2 of 2."
    assert sentence in cautions_of(planted=on("rank"))


def test_losses_that_differ_at_matched_loss():
    planted = loss_of(lambda part, seed: 0.2 if part > 0.5 else 2 - part, lambda part, seed: 2 - part)
    assert (
        "Matched in name more than in fact, since evaluations are steps apart; validation losses met: cnn on digits "
        "(Muon 0.200, AdamW 1)."
    ) in cautions_of(synthetic.study(**ONE), planted)


def test_losses_that_differ_at_the_end():
    planted = loss_of(lambda part, seed: 2 - part, lambda part, seed: 3 - part)
    said = cautions_of(synthetic.study(**ONE), planted)
    assert any(each.endswith("clean validation losses at the end: cnn on digits (Muon 1, AdamW 2).") for each in said)
    # Matched: AdamW's last evaluation, Muon's first, where its learning rate is another.
    assert any(each.endswith("share of the budget: cnn on digits (Muon 0%, AdamW 100%).") for each in said)
    assert not any("schedule" in each for each in cautions_of(synthetic.study(schedule="constant", **ONE), planted))


def test_final_runs_that_do_worse_than_their_search():
    # The search has seed 0 alone.
    planted = loss_of(lambda part, seed: 2 - part, lambda part, seed: 2 - part + 0.8 * (seed in (1, 2, 3)))
    said = cautions_of(synthetic.study(**ONE), planted)
    assert any(each.endswith("Validation loss: AdamW on cnn on digits (1 in the search, 1.60 after).") for each in said)


def test_comparisons_before_their_controls():
    said = cautions_of(synthetic.study(**ONE), undone=lambda step: step.role == "measure")
    assert "No control is measured yet of cnn on digits: nothing shows that measures can fail." in said

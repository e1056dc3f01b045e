import pytest

import synthetic_features as synthetic
from muonlab.studies.features.readings import read
from muonlab.studies.features.verdict import verdict, verdicts


def verdict_of(folder, asked=None, planted=None, **others):
    runs = read(synthetic.write(folder, asked, planted, **others))
    return verdict(runs, verdicts(runs))


def on(*quantities, size=0.1, whose="muon"):
    return synthetic.Planted(shift=lambda what, net, name: size * (what in quantities and name == whose))


@pytest.mark.parametrize(("size", "answer", "label"), [(0.1, "yes", "Yes"), (-0.1, "no", "No: the opposite")])
def test_all_claims_one_way(tmp_path, size, answer, label):
    found = verdict_of(tmp_path, planted=on("corrupted", "margin", "rank", "probe", "tuned", size=size))
    assert (found.answer, found.label) == (answer, label)
    assert found.sentence.startswith("Muon against AdamW, at equal budget")


def test_claim_by_claim(tmp_path):
    found = verdict_of(tmp_path, planted=on("corrupted"))
    assert (found.answer, found.label) == ("mixed", "Claim by claim")
    assert "(a) robustness: yes (at matched loss: yes); (b) margins: inconclusive (at" in found.sentence
    assert found.more[0].startswith("(a) Robustness, “accuracy on corrupted inputs is higher”: yes. Muon less AdamW: ")
    assert "cnn on digits 0.100 [0.078, 0.122], gpt on sources 0.100 [0.078, 0.122] (n = 4 + 4)." in found.more[0]
    assert found.more[0].endswith("At matched clean validation loss: yes (2 higher, 0 lower, 0 undecided of 2).")
    assert "because none of 2 comparisons tells the optimizers apart (p > 0.05" in found.more[1]


def test_a_failed_control_is_the_reason(tmp_path):
    planted = synthetic.Planted(shift=on("corrupted").shift, shuffled=0.6)
    found = verdict_of(tmp_path, planted=planted)
    assert found.answer == "inconclusive"
    assert all("because a control failed (shuffled labels): no measure can be trusted" in words for words in found.more)


def test_too_few_runs_and_too_few_optimizers(tmp_path):
    few = verdict_of(tmp_path / "few", synthetic.study(seeds=2))
    assert "because there are fewer than 3 runs of each optimizer" in few.more[0]
    alone = verdict_of(tmp_path / "alone", synthetic.study(optimizers=["muon"]))
    assert "because there is no other optimizer to compare with" in alone.more[0]
    equal = verdict_of(tmp_path / "equal", planted=synthetic.Planted(noise=0.0))
    assert "because no difference has an interval (" in equal.more[0]
    half = verdict_of(tmp_path / "half", planted=synthetic.Planted(shift=lambda w, net, n: (net, n) == ("cnn", "muon")))
    assert "because only 1 of 2 comparisons are decided" in half.more[0]


def test_what_cannot_be_compared_is_counted(tmp_path):
    found = verdict_of(tmp_path, planted=on("corrupted"), undone=lambda step: step.plan.family.net.kind == "gpt")
    assert "because only 1 of 2 comparisons are decided" in found.more[0]
    assert "because none of 2 comparisons tells" in found.more[1]
    assert found.more[0].endswith("inconclusive (1 higher, 0 lower, 0 undecided, 1 not measured of 2).")


def test_a_study_just_begun(tmp_path):
    found = verdict_of(tmp_path, undone=lambda step: True)
    assert found.answer == "inconclusive"
    assert "because no family has measured runs of both optimizers" in found.more[0]
    assert found.cautions == ("10 of 10 jobs known so far are not done, 0 of them failed: figures may change.",)
    assert ("nets and data", "none yet") in found.scope


def test_another_optimizer_first(tmp_path):
    found = verdict_of(tmp_path, synthetic.study(optimizers=["sgd", "muon"], families=["cnn"], **{"sgd.rates": [1, 2]}))
    assert found.sentence.startswith("SGD against Muon")

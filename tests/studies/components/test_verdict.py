import pytest

import synthetic_components as synthetic
from muonlab.studies.components.closed import flows
from muonlab.studies.components.tuning import spreads
from muonlab.studies.components.verdict import cautions, judge_all, verdict


def of(found):
    judged = judge_all(found)
    return verdict(found, judged, flows(found.runs.asked), spreads(found, judged))


def shifted(**fields):
    return synthetic.Planted(shift=lambda field, case, name: fields.get(field, 0.0) * (name == "muon"))


def test_mixed_with_counts_by_rival(found):
    said = of(found)
    assert (said.answer, said.label) == ("mixed", "It depends")
    assert said.sentence == (
        "Claim (e) of arXiv 2606.09658, “Muon attains larger margins and effective rank at the first time the loss is "
        "at most eps”: it depends. Muon against AdamW and SGD at the first time the train loss is at most 0.5: "
        "worst-class margin higher in 6, lower in 2, undecided in 0 of 8 comparisons against AdamW, higher in 6, lower "
        "in 2, undecided in 0 of 8 comparisons against SGD; effective rank higher in 8, lower in 0, undecided in 0 of "
        "8 comparisons against AdamW, higher in 8, lower in 0, undecided in 0 of 8 comparisons against SGD."
    )
    assert len(said.more) > 5


@pytest.mark.parametrize(
    ("asked", "planted", "why"),
    [
        ({}, shifted(margin_worst=0.5), "because in effective rank none of 16 comparisons is decided"),
        ({"seeds": 2}, shifted(), "because there are fewer than 3 pairs of runs"),
        ({"optimizers": "muon"}, shifted(), "because there is nothing to compare with"),
        ({}, synthetic.Planted(informed=0.9), "because a control failed (labels without information)"),
    ],
)
def test_inconclusive_says_why(asked, planted, why):
    said = of(synthetic.found(synthetic.study(variations="none", **asked), planted))
    assert said.answer == "inconclusive"
    assert why in said.sentence


def test_nothing_done(nothing):
    assert "inconclusive, because no case has measured runs of both (Muon against AdamW and SGD" in of(nothing).sentence


def test_the_scope(found):
    scope = dict(of(found).scope)
    assert scope["problems"] == "ratio 2, 8 × noise 0.1, 0.3; depth 0, depth 1"
    assert scope["data"].startswith("4 classes, 8 inputs, 3 components, 64 train and 64 test examples; softmax loss")
    assert "6 seeds" in scope["runs"]


# -- cautions --------------------------------------------------------------------------------------


def cautions_of(found):
    return " ".join(cautions(found, spreads(found, judge_all(found))))


def test_a_whole_study_without_flaws_has_none(found):
    assert cautions_of(found) == ""


def lost_sgd(case, name, rate, seed, place):
    return "not reached" if name == "sgd" and seed < 2 and place == 1 else None


@pytest.mark.parametrize(
    ("asked", "planted", "words"),
    [
        ({}, {"loss": lambda name, rate, seed: 1 / (1 + rate)}, "Muon on 8 of 8 problems (0 low, 8 high)"),
        ({}, {"censored": lost_sgd}, "16 of 48 of SGD"),
        ({"seeds": 4}, {}, "No control of Muon against itself: it takes 6 seeds"),
    ],
)
def test_what_weakens_an_answer(asked, planted, words):
    assert words in cautions_of(synthetic.found(synthetic.study(**asked), synthetic.Planted(**planted)))


def test_what_is_missing():
    part = synthetic.found(failed=lambda step: step.arm == "sgd")
    assert f"11 of {part.expected} jobs known so far are not done, 11 of them failed" in cautions_of(part)
    part = synthetic.found(undone=lambda step: step.case is not None and step.case.role == "control")
    assert "The control of labels without information is not done" in cautions_of(part)


def test_cells_that_depend_on_a_rate():
    tied = synthetic.found(planted=synthetic.Planted(loss=lambda name, rate, seed: 0.5))
    for (_, name), own in tied.runs.own.items():
        for member in own.members if name == "muon" else ():
            for at in member["at"]:
                at["values"]["margin_worst"] += 0.3 if member["rate"] == 0.03 else -0.3
    assert "within 1% of the best one’s: 16 of 16 in worst-class margin" in cautions_of(tied)

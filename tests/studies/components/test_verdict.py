import pytest

import synthetic_components as synthetic
from muonlab.studies.components.claims import judge
from muonlab.studies.components.closed import flows
from muonlab.studies.components.sensitivity import spreads
from muonlab.studies.components.verdict import verdict


def of(runs):
    judged = judge(runs)
    return verdict(runs, judged, flows(runs), spreads(runs, judged))


def shifted(**fields):
    return synthetic.Planted(shift=lambda field, case, name: fields.get(field, 0.0) * (name == "muon"))


def test_mixed_with_counts_by_rival(runs):
    found = of(runs)
    assert (found.answer, found.label) == ("mixed", "It depends")
    assert found.sentence == (
        "Claim (e) of arXiv 2606.09658, “Muon attains larger margins and effective rank at the first time the loss is "
        "at most eps”: it depends. Muon against AdamW and SGD at the first time the train loss is at most 0.5: "
        "worst-class margin higher in 6, lower in 2, undecided in 0 of 8 cells against AdamW, higher in 6, lower in 2, "
        "undecided in 0 of 8 cells against SGD; effective rank higher in 8, lower in 0, undecided in 0 of 8 cells "
        "against AdamW, higher in 8, lower in 0, undecided in 0 of 8 cells against SGD."
    )
    assert len(found.more) > 5


def test_yes_and_no():
    asked = synthetic.study(variations="none")
    up, down = (
        of(synthetic.runs(asked, shifted(margin_worst=by, rank_weights=by, rank_hidden=by))) for by in (0.5, -0.5)
    )
    assert (up.answer, down.answer) == ("yes", "no")
    assert "most eps”: no: the opposite. Muon" in down.sentence


@pytest.mark.parametrize(
    ("asked", "planted", "why"),
    [
        ({}, shifted(margin_worst=0.5), "because none of 16 cells tells the optimizers apart in effective rank"),
        ({"seeds": 2}, shifted(), "because no cell has 3 pairs of runs that both came down"),
        ({"optimizers": "muon"}, shifted(), "because there is no other optimizer to compare with"),
        ({}, synthetic.Planted(informed=0.9), "because a control failed (labels without information)"),
    ],
)
def test_inconclusive_says_why(asked, planted, why):
    found = of(synthetic.runs(synthetic.study(variations="none", **asked), planted))
    assert found.answer == "inconclusive"
    assert why in found.sentence


def test_a_minority_of_decided_cells_is_inconclusive():
    def rarely(field, case, name):
        return 0.5 * (name == "muon" and case.name.startswith("ratio 2, noise 0.1, depth 0"))

    found = of(synthetic.runs(planted=synthetic.Planted(shift=rarely)))
    assert "because only 2 of 16 cells are decided in worst-class margin and only 2 of 16" in found.sentence


def test_against_one_rival_alone_is_inconclusive():
    planted = synthetic.Planted(shift=lambda f, case, name: {"muon": 0.5, "sgd": 0.5}.get(name, 0.0))
    asked = synthetic.study(optimizers=["muon", "adamw", "sgd"])
    found = of(synthetic.runs(asked, planted))
    assert found.answer == "inconclusive"
    assert "only 8 of 16 cells are decided" in found.sentence


def test_nothing_done():
    found = of(synthetic.runs(undone=lambda step: True))
    assert "inconclusive, because no problem has runs of two optimizers (Muon against AdamW and SGD" in found.sentence


def test_the_scope(runs):
    scope = dict(of(runs).scope)
    assert scope["problems"] == "ratio 2, 8 × noise 0.1, 0.3; depth 0, depth 1"
    assert scope["data"].startswith("4 classes, 8 inputs, 3 components, 64 train and 64 test examples; softmax loss")
    assert "6 seeds" in scope["runs"]

import pytest

import synthetic_components as synthetic
from muonlab.studies.components.closed import flows
from muonlab.studies.components.remarks import remarks
from muonlab.studies.components.verdict import judge_all


def remarks_on(found):
    return remarks(found, judge_all(found), flows(found.runs.asked))


@pytest.fixture(scope="module")
def said(found):
    return remarks_on(found)


def about(said, start):
    return next(sentence for sentence in said if sentence.startswith(start))


def test_how_large_the_differences_are(said):
    sentence = about(said, "Worst-class margin, Muon minus AdamW from −0.3")
    assert "nats" in sentence
    assert "minus SGD" in sentence


def test_every_map(said):
    assert about(said, "At depth 0: ").startswith(
        "At depth 0: worst-class margin higher in 6, lower in 2, undecided in 0 of 8 comparisons; effective rank higher"
    )


def test_where_it_is_lower(said):
    sentence = about(said, "Muon’s worst-class margin is lower in 4 of 16 cells, by most in")
    assert sentence.count("ratio 8, noise 0.3") == 3
    assert "against SGD (−0.3" in sentence
    assert not any(each.startswith("Muon’s effective rank is lower") for each in said)


def test_many_lower_cells_are_counted():
    planted = synthetic.Planted(shift=lambda f, case, name: -0.3 * (name == "muon" and f == "margin_worst"))
    sentence = about(remarks_on(synthetic.found(planted=planted)), "Muon’s worst-class margin is lower")
    assert sentence.endswith("and 13 more.")


def test_other_losses(said):
    sentence = about(said, "At other losses the worst-class margin")
    assert "is higher and lower in 12 and 4 of 16 at 1. Lowest: ratio 8, noise 0.3, depth" in sentence
    assert sentence.count("against SGD at 1 (−0.3") + sentence.count("against AdamW at 1 (−0.3") == 1
    assert sentence.endswith("and 3 more.")
    assert "Lowest:" not in about(said, "At other losses the effective rank")


def test_the_rank_before_training_stands_beside_that_at_the_loss(said):
    sentence = about(said, "At depth 1 the effective rank of the hidden states is 9 before training")
    assert sentence.count(", with ") + sentence.count("loss, with ") >= 3
    assert not any(each.startswith("At depth 0 the effective rank") for each in said)


def test_closed_forms(said):
    sentence = about(said, "By the closed forms")
    assert "at the loss 0.5, the worst margin of spectral flow is larger at ratio 2, 8" in sentence
    assert "At losses below 0.0483 at ratio 2, below 0.288 at ratio 8 gradient flow has the larger" in sentence


def test_closed_forms_that_turn_twice():
    asked = synthetic.study(loss="squared", patterns="random", classes=8, dimension=8, ratio=4, depth=0)
    assert "At losses of 0.0248 to 0.00879 at ratio 4 gradient flow" in about(
        remarks_on(synthetic.found(asked)), "By the closed"
    )


def test_other_measures(said):
    sentence = about(said, "Measured otherwise, the worst-class margin, divided by the norms of the weights is ")
    assert "the effective rank of the logits is higher in 0, lower in 0, undecided in 16 of 16 comp" in sentence


def test_weak_components_that_are_pure_noise():
    def shift(field, case, name):
        return 0.1 * (name == "sgd" and case.map == "spurious" and field == "test_accuracy")

    sentence = about(
        remarks_on(synthetic.found(planted=synthetic.Planted(shift=shift))), "Where the weakest 2 components"
    )
    assert "minus SGD’s −0.097 [−0.105, −0.089] (lower, n = 6)" in sentence
    assert "(undecided, n = 6)" in sentence


def test_the_basis_is_compared_at_one_rate():
    study = synthetic.found(
        planted=synthetic.Planted(
            shift=lambda f, case, name: 1.0 * (name == "adamw" and case.map == "aligned" and f == "rank_weights")
        )
    )
    sentence = about(remarks_on(study), "Components along the axes instead of in a random basis")
    adamw, muon, sgd = sentence.split(";")
    assert "of AdamW" in adamw
    assert "effective rank 1.0" in adamw or "effective rank 0.99" in adamw
    assert "of Muon" in muon
    assert "effective rank −0.0" in sgd or "effective rank 0.0" in sgd


def test_whether_a_larger_margin_goes_with_accuracy():
    def shift(field, case, name):
        return 0.3 * (name == "muon" and field in ("margin_worst", "test_accuracy") and case.components.ratio == 2)

    sentence = about(
        remarks_on(synthetic.found(planted=synthetic.Planted(shift=shift))), "A larger margin and a better"
    )
    assert "in the 8 cells" in sentence
    assert "is higher in 8, lower in 0 and undecided in 0" in sentence


def test_nothing_done(nothing):
    assert remarks_on(nothing)[0].startswith("By the closed forms")

import pytest

import synthetic_components as synthetic
from muonlab.studies.components.claims import Judged, judge, whole


def shifted(margin, rank):
    def shift(field, case, name):
        if name != "muon":
            return 0.0
        by = {"margin_worst": margin, "rank_weights": rank, "rank_hidden": rank}.get(field, lambda case: 0.0)
        return by(case)

    return synthetic.Planted(shift=shift)


def up(case):
    return 0.5


def down(case):
    return -0.5


def nowhere(case):
    return 0.0


def both(case):
    return 0.5 if case.components.ratio == 2 else -0.5


def rarely(case):
    return 0.5 * (case.components.ratio == 2 and case.components.noise == 0.1)


@pytest.mark.parametrize(
    ("margin", "rank", "answers", "claim"),
    [
        (up, up, ("yes", "yes"), "yes"),
        (down, down, ("no", "no"), "no"),
        (up, down, ("yes", "no"), "mixed"),
        (both, up, ("mixed", "yes"), "mixed"),
        (up, nowhere, ("yes", "inconclusive"), "inconclusive"),
        (rarely, rarely, ("inconclusive", "inconclusive"), "inconclusive"),
        (both, nowhere, ("mixed", "inconclusive"), "mixed"),
    ],
)
def test_answers(margin, rank, answers, claim):
    asked = synthetic.study(variations="none")
    judged = judge(synthetic.runs(asked, shifted(margin, rank)))
    assert tuple(each.answer for each in judged) == answers
    assert whole(judged) == claim


def test_yes_must_hold_against_every_rival():
    planted = synthetic.Planted(
        shift=lambda field, case, name: {"muon": 0.5, "sgd": 0.5}.get(name, 0.0) if field == "margin_worst" else 0.0
    )
    (margin, _) = judge(synthetic.runs(synthetic.study(variations="none"), planted))
    assert (margin.count("higher", "adamw"), margin.count("higher", "sgd")) == (8, 0)
    assert margin.answer == "inconclusive"


def test_a_control_that_fails_leaves_no_answer():
    planted = synthetic.Planted(shift=shifted(up, up).shift, informed=0.9)
    assert {each.answer for each in judge(synthetic.runs(planted=planted))} == {"inconclusive"}


def test_cells_that_are_lost_decide_nothing():
    def undone(step):
        return step.case is not None and step.case.components.ratio == 8 and step.optimizer != "muon"

    runs = synthetic.runs(synthetic.study(variations="none"), shifted(up, up), undone=undone)
    for each in judge(runs):
        assert (each.count("higher"), each.num_asked, each.answer) == (8, 16, "inconclusive")


def test_cells_on_a_side(runs):
    margin, rank = judge(runs)
    assert {pair.case.components.ratio for pair in margin.on("lower")} == {8}
    assert (margin.count("higher"), margin.count("lower"), margin.count("lower", "sgd")) == (12, 4, 2)
    assert rank.count("higher") == 16
    assert whole([Judged(margin.quantity, (), "inconclusive", 0)]) == "inconclusive"

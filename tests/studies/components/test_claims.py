"""Claim (e) on the map, its controls, and near-ties; the judge's own rules are tested in tests/study."""

import pytest
from scipy import stats

import synthetic_components as synthetic
from muonlab.stats.proportions import chance_limit
from muonlab.studies.components.claims import CLAIMED, MARGIN, OTHERS, ROBUST, TEST, on_map
from muonlab.studies.components.readings import FIELDS, value_of
from muonlab.studies.components.tuning import spreads, tuning
from muonlab.studies.components.verdict import judge_all
from muonlab.study.controls import ERROR, failed
from muonlab.study.judge import whole


def shifted(**fields):
    """Muon's fields are higher, by a number or by what a function says of a case."""

    def shift(field, case, name):
        by = fields.get(field.replace("rank_hidden", "rank_weights"), 0.0) if name == "muon" else 0.0
        return by(case) if callable(by) else by

    return synthetic.Planted(shift=shift)


def both(case):
    return 0.5 if case.components.ratio == 2 else -0.5


@pytest.mark.parametrize(
    ("margin", "rank", "answers", "claim"),
    [
        (0.5, 0.5, ["yes", "yes"], "yes"),
        (0.5, -0.5, ["yes", "no"], "mixed"),
        (both, 0.5, ["mixed", "yes"], "mixed"),
        (0.5, 0.0, ["yes", "inconclusive"], "inconclusive"),
    ],
)
def test_a_planted_effect_is_found_in_its_quantity(margin, rank, answers, claim):
    planted = shifted(margin_worst=margin, rank_weights=rank)
    judged = judge_all(synthetic.found(synthetic.study(variations="none"), planted))
    assert [each.answer for each in judged] == answers
    assert whole(answers) == claim
    assert {each.num_asked for each in judged} == {16}


def test_a_difference_is_of_pairs_of_one_seed(found):
    pair = on_map(found, MARGIN)[8]
    assert pair.rival == "sgd"  # rival by rival
    mine, its = (list(found.runs.of(pair.case, name).values(1, "margin").values()) for name in ("muon", "sgd"))
    assert pair.effect.p == pytest.approx(stats.ttest_rel(mine, its).pvalue)
    assert (pair.n, pair.missing) == ("6", (0, 0))
    assert {pair.side for pair in on_map(found, TEST)} == {"undecided"}


def test_a_difference_that_is_sure_and_tiny_is_undecided():
    planted = synthetic.Planted(shift=lambda f, case, name: 0.005 * (name == "muon"), noise=1e-5)
    (pair, *_) = on_map(synthetic.found(planted=planted), MARGIN)
    assert pair.adjusted_p < 1e-6
    assert pair.side == "undecided"


def test_quantities_have_names_and_fields_of_their_own(found):
    quantities = (*CLAIMED, *OTHERS, *ROBUST)
    assert [each.key for each in quantities] != FIELDS
    assert {each.key for each in quantities} == set(FIELDS)
    linear, deep = (next(case for case in found.cases if case.net.depth == depth) for depth in (0, 1))
    values = {"rank_weights": 2.0, "rank_hidden": None}
    assert (value_of(values, linear, "rank"), value_of(values, deep, "rank")) == (2.0, None)


# -- controls --------------------------------------------------------------------------------------


def test_controls_pass_where_there_is_nothing_to_find(found):
    names = [control.name for control in found.controls]
    assert names == ["same optimizer"] * 2 + ["labels without information"] * 3
    assert {control.state for control in found.controls} == {"passed"}
    assert (found.controls[0].n, found.controls[2].limit) == (8, chance_limit(0.25, 64 * 6, 1, ERROR))


def test_an_arm_that_differs_from_itself_fails(monkeypatch):
    real = synthetic.values

    def uneven(case, name, seed, planted):
        found = real(case, name, seed, planted)
        return found | {"margin_worst": found["margin_worst"] + 5.0 * (seed % 2) * (name == "muon")}

    monkeypatch.setattr(synthetic, "values", uneven)
    (control,) = failed(synthetic.found(synthetic.study(variations="none")).controls)
    assert (control.name, control.value, control.limit) == ("same optimizer", 1, chance_limit(0.05, 8, 1, ERROR))
    assert "differs from itself is 1.000, more than the 0.375 that chance explains" in control.in_words


def test_labels_that_can_be_told_fail_and_leave_no_answer():
    planted = synthetic.Planted(shift=shifted(margin_worst=0.5, rank_weights=0.5).shift, informed=0.4)
    found = synthetic.found(planted=planted)
    assert [control.name for control in failed(found.controls)] == ["labels without information"] * 3
    assert {each.answer for each in judge_all(found)} == {"inconclusive"}


@pytest.mark.parametrize("seeds", [2, 5])
def test_halves_of_few_seeds_are_no_control(seeds):
    names = {control.name for control in synthetic.found(synthetic.study(seeds=seeds)).controls}
    assert names == {"labels without information"}


# -- near-ties in the search -----------------------------------------------------------------------


@pytest.mark.parametrize(("loss", "turned", "alternatives"), [(0.501, 8, 8), (0.6, 0, 0)])
def test_a_side_may_turn_with_a_rate_that_is_as_good(rows_of, loss, turned, alternatives):
    """Muon's margin is higher by 0.3 at the rate 0.03 and lower by 0.3 at 0.1, whose validation loss is given."""
    planted = synthetic.Planted(loss=lambda name, rate, seed: 0.5 if rate == 0.03 else loss)
    found = synthetic.found(synthetic.study(variations="none"), planted)
    for (_, name), own in found.runs.own.items():
        for member in own.members if name == "muon" else ():
            for at in member["at"]:
                at["values"]["margin_worst"] += 0.3 if member["rate"] == 0.03 else -0.3
    tables = {each.name: each for each in tuning(found, spreads(found, judge_all(found)))}
    rows = rows_of(tables["sensitivity"])
    adamw = next(row for row in rows if (row["quantity"], row["rival"]) == ("worst-class margin", "AdamW"))
    assert (adamw["decided"], adamw["turned"], adamw["kept"]) == (8, turned, 8 - turned)
    assert adamw["alternatives"] == alternatives


def test_undecided_cells_do_not_turn(found):
    near_ties = spreads(found, judge_all(found))
    assert len(near_ties) == 32
    assert not any(each.turns for each in near_ties)
    assert all(each.smallest <= each.pair.estimate.value <= each.largest for each in near_ties)

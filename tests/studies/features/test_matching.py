"""Matched loss: budgets at which two optimizers end at one loss, each at the end of a schedule of its own."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import synthetic_features as synthetic
from muonlab.studies.features.claims import CLAIMS
from muonlab.studies.features.jobs import FINAL, completed, outline, steps
from muonlab.studies.features.matched import matched_budgets
from muonlab.studies.features.matching import TRIES, WITHIN, Matching, ahead, last_loss, matching
from muonlab.studies.features.readings import MATCHED
from muonlab.studies.features.verdict import cautions, judge_all, verdict
from muonlab.study.compare import compare

LETTERS = {claim.letter: claim for claim in CLAIMS}


def member(*losses, diverged=None):
    return {"validation_loss": list(losses), "diverged_at": diverged}


def searched(loss_of, budget, target, passed):
    """Search to the end, with the loss of every budget given by a function."""
    found = Matching(target, {budget: loss_of(budget)}, passed)
    while (step := found.next) is not None:
        assert 1 <= step < budget
        assert step not in found.tried
        found = Matching(target, {**found.tried, step: loss_of(step)}, passed)
    return found


# -- the search for a budget -----------------------------------------------------------------------


@settings(max_examples=60)
@given(
    budget=st.integers(100, 5000),
    power=st.floats(0.2, 2),
    floor=st.floats(0, 0.5),
    share=st.floats(0.03, 0.97),
    passed=st.floats(0.01, 1),
)
def test_a_smooth_curve_is_met_within_two_percent_in_a_few_tries(budget, power, floor, share, passed):
    def loss(steps):
        return floor + (steps / budget) ** -power

    target = loss(max(1, round(share * budget)))
    found = searched(loss, budget, target, max(1, passed * budget))
    steepest = loss(found.best) / loss(found.best + 1) - 1  # one step may change more than two percent
    assert abs(found.residual) <= max(WITHIN, steepest)
    assert len(found.tried) <= TRIES + 1


def test_the_search_ends_where_nothing_is_left_to_try_and_says_how_close_it_came():
    found = searched(lambda steps: 3.0 - steps, 2, 1.5, 2)
    assert (found.best, found.next) == (1, None)
    assert abs(found.residual) == pytest.approx(1 / 3)
    rough = searched(lambda steps: 2.0 if steps % 2 else 0.5, 1000, 1.0, 400)  # no budget ends near 1
    assert (rough.next, abs(rough.residual)) == (None, 0.5)


def test_runs_that_diverge_at_a_budget_are_worse_than_any_loss():
    assert last_loss([member(2.0, 1.0), member(2.0, None, diverged=10)]) == math.inf
    found = searched(lambda steps: math.inf if steps < 500 else 1000 / steps, 1000, 1.6, 900)
    assert found.best >= 500
    assert abs(found.residual) <= WITHIN


def test_equal_ends_need_no_other_budget():
    runs = [member(3.0, 2.0, 1.0)]
    found = matching(runs, [member(3.0, 2.5, 1.01)], (0, 5, 10), {})
    assert (found.next, found.best, found.passed) == (None, 10, 10)
    assert found.residual == pytest.approx(-0.01 / 1.01)


def test_who_is_ahead():
    assert ahead([member(1.0)], [member(2.0)]) is True
    assert ahead([member(3.0)], [member(2.0)]) is False
    assert ahead([], [member(2.0)]) is None


# -- in a study ------------------------------------------------------------------------------------

BEHIND = {"muon": 0.0, "adamw": 1.0}


def planted(behind=None, **shift):
    """Losses fall with steps alone, and one optimizer ends behind; seeds differ a little."""
    behind = BEHIND if behind is None else behind
    return synthetic.Planted(
        loss=lambda optimizer, rate, seed, part: 3 - 2 * part + behind[optimizer] + 0.001 * seed,
        shift=lambda what, net, name: shift.get(what, 0.0) * (name == "muon"),
    )


@pytest.fixture
def by_budget(monkeypatch):
    """A shorter schedule ends higher: at 3 - 2 b / 12 of the common budget."""
    real = synthetic.pretrained

    def pretrained(step, config, planted):
        found = real(step, config, planted)
        for each in found["members"]:
            gone = config.training.budget / 48
            each["validation_loss"] = [
                None if loss is None else loss + 2 * (1 - gone) * at / found["steps"][-1]
                for loss, at in zip(each["validation_loss"], found["steps"], strict=True)
            ]
        return found

    monkeypatch.setattr(synthetic, "pretrained", pretrained)


def asked(**others):
    return synthetic.study(families=["cnn"], matched="schedules", budget=48, **others)


@pytest.mark.usefixtures("by_budget")
def test_the_one_that_ends_lower_trains_for_fewer_steps_and_is_measured_at_its_end():
    for behind, short in ((BEHIND, "muon"), ({"muon": 1.0, "adamw": 0.0}, "adamw")):
        found = synthetic.found(asked(), planted(behind, corrupted=0.1))
        family = found.runs.families["cnn on digits"]
        match = family.matches["adamw"]
        other = {"muon": "adamw", "adamw": "muon"}[short]
        assert (match.arm, match.other, match.search.best) == (short, other, 24)
        assert abs(match.search.residual) <= WITHIN
        states = {
            arm: {m.state for m in family.compared(arm, rest, MATCHED)}
            for arm, rest in ((short, other), (other, short))
        }
        assert states == {short: {completed(other)}, other: {FINAL}}
        assert {model.step for model in family.compared(short, other, MATCHED)} == {24}
        (pair,) = compare(found, LETTERS["a"].quantities, MATCHED)
        assert (pair.side, pair.n) == ("higher", "4 + 4")
        (probe,) = compare(found, LETTERS["c"].quantities, MATCHED)
        assert probe.n == "4 + 4"


@pytest.mark.usefixtures("by_budget")
def test_residuals_stand_in_a_table_and_a_rate_that_was_not_tuned_there_is_named(rows_of):
    found = synthetic.found(asked(), planted())
    (table,) = matched_budgets(found)
    (row,) = rows_of(table)
    assert (row["arm"], row["steps"], row["budget"], row["rival"]) == ("Muon", 24, 48, "AdamW")
    assert abs(row["residual"]) <= 100 * WITHIN
    assert row["corrupted_residual"] == pytest.approx(0.0, abs=1e-9)  # the measure does not change with the budget
    said = " ".join(cautions(found, judge_all(found)))
    assert "transferred and not tuned again: cnn on digits (Muon to meet AdamW, 24 of 48 steps)." in said
    assert "unfinished" not in said
    sentence = verdict(found, judge_all(found)).sentence
    assert sentence.endswith("At matched loss: Inconclusive.")
    assert "unfinished" not in sentence


@pytest.mark.usefixtures("by_budget")
def test_what_the_residual_explains_follows_from_the_way_to_the_common_budget(monkeypatch, rows_of):
    real = synthetic.model

    def model(step, planted, state, seed, at):
        found = real(step, planted, state, seed, at)
        drop = 0.3 if state == completed("adamw") else 0.0
        return found | {"accuracy": {name: [v - drop for v in own] for name, own in found["accuracy"].items()}}

    monkeypatch.setattr(synthetic, "model", model)
    found = synthetic.found(asked(), planted())
    search = found.runs.families["cnn on digits"].matches["adamw"].search
    slope = -0.3 / math.log(search.tried[24] / search.tried[48])
    (row,) = rows_of(matched_budgets(found)[0])
    assert row["corrupted_residual"] == pytest.approx(slope * math.log(search.tried[24] / search.target))


def test_a_study_matched_by_checkpoints_says_so_and_whom_it_favours():
    study = synthetic.study(families=["cnn"])
    found = synthetic.found(study, planted())
    assert study.matched == "checkpoints"
    assert matched_budgets(found) == ()
    said = verdict(found, judge_all(found))
    assert " At matched loss (at checkpoints of unfinished schedules): " in said.sentence
    assert any("Muon has the lower validation loss in 1 of 1 such pairs." in each for each in said.cautions)


@pytest.mark.usefixtures("by_budget")
def test_jobs_of_a_study_matched_by_checkpoints_stand_in_one_matched_by_schedules():
    plain = synthetic.study(families=["cnn"], budget=48)
    before = synthetic.results(plain, planted())
    added = {step.job.id: step.role for step in steps(asked(), synthetic.results(asked(), planted(), known=before))}
    assert before.keys() < added.keys()
    assert {added[each] for each in added.keys() - before.keys()} == {"match", "match measure", "match transfer"}


def test_the_outline_counts_one_shorter_budget_for_each_rival():
    names = [name for name, _ in outline(asked(optimizers=["muon", "adamw", "sgd"]))]
    assert sum("steps to meet" in name for name in names) == 2
    assert sum("that meets" in name for name in names) == 4

"""Claim (e) on the map, its controls, the verdict and its remarks; the judge's own rules are tested in tests/study."""

import numpy as np
import pytest
from scipy import stats

import synthetic_components as synthetic
from muonlab.stats.proportions import chance_limit
from muonlab.studies.components.answers import first_screen, over_maps
from muonlab.studies.components.claims import CLAIMED, MARGIN, OTHERS, ROBUST, TEST, on_map
from muonlab.studies.components.closed import flows
from muonlab.studies.components.jobs import steps
from muonlab.studies.components.readings import FIELDS, value_of
from muonlab.studies.components.remarks import remarks
from muonlab.studies.components.tuning import spreads, tuning
from muonlab.studies.components.verdict import cautions, judge_all, out_of_the_verdict, verdict
from muonlab.studies.components.work import job
from muonlab.study.controls import ERROR, failed


def shifted(**fields):
    """Muon's fields are higher, by a number or by what a function says of a case."""

    def shift(field, case, name):
        by = fields.get(field.replace("rank_hidden", "rank_weights"), 0.0) if name == "muon" else 0.0
        return by(case) if callable(by) else by

    return synthetic.Planted(shift=shift)


def of(asked=None, **planted):
    return synthetic.found(synthetic.study(**asked or {}), synthetic.Planted(**planted))


# -- what the results hold -------------------------------------------------------------------------


def test_every_problem_has_the_runs_of_every_arm(found):
    asked = found.runs.asked
    assert set(found.runs.own) == {(case.name, name) for case in asked.cases for name in asked.optimizers}
    assert [arm.label for arm in found.arms] == ["muon", "adamw", "sgd"]
    assert (len(found.cases), list(asked.maps)) == (8, ["depth 0", "depth 1"])
    assert [case.map for case in asked.varied] == ["aligned", "spurious"]
    assert len(found.runs.agreements) == 5
    assert found.expected == len(found.records)


def test_values_are_those_of_the_best_rate_and_of_the_seeds_that_are_compared(found):
    own = found.runs.of(found.cases[0], "muon")
    assert own.best(1) == 0.03
    assert set(own.compared(1)) == set(range(6))
    assert all(member["rate"] == 0.03 for member in own.compared(1).values())
    assert all(1.2 < value < 1.4 for value in own.values(1, "margin").values())
    assert own.missed(1) == {}
    # the rank of a net with hidden layers is that of its hidden states
    ranks = [found.runs.of(next(c for c in found.cases if c.net.depth == d), "sgd").values(0, "rank") for d in (0, 1)]
    assert [round(sum(each.values()) / 6, 1) for each in ranks] == [3.0, 5.0]


def test_runs_that_never_reached_a_loss_are_counted_by_reason_and_the_rate_is_chosen_at_each_loss():
    def censored(case, name, rate, seed, place):
        if name == "muon" and rate == 0.03 and place == 1:
            return "not reached"
        return {0: "not reached", 1: "diverged"}.get(seed) if name == "sgd" and place == 1 else None

    runs = of(censored=censored).runs
    sgd, muon = (runs.of(runs.asked.base, name) for name in ("sgd", "muon"))
    assert (sgd.missed(1), sgd.missed(0)) == ({"not reached": 1, "diverged": 1}, {})
    assert set(sgd.values(1, "margin")) == {2, 3, 4, 5}
    assert (muon.best(0), muon.best(1)) == (0.03, 0.1)


def test_rates_beyond_an_edge_are_read_with_the_first_ones():
    asked = {"extensions": 1, "ratio": 2, "noise": 0.1, "depth": 0, "variations": "none"}
    runs = of(asked, loss=lambda name, rate, seed: 1 / (1 + rate)).runs
    own = runs.of(runs.asked.base, "muon")
    assert list(own.search(1).scores) == [0.03, 0.1, 0.33, 1.1]
    assert (own.best(1), own.edge(1)) == (1.1, "high")


@pytest.mark.parametrize("depth", [0, 1])
def test_results_of_a_worker_have_what_is_read(tmp_path, depth):
    asked = synthetic.study(seeds=1, search_seeds=1, budget=3, looks=2, depth=depth, variations="none")
    step = next(step for step in steps(asked, {}) if step.case is not None)
    result = job.run(config=step.job.config, folder=str(tmp_path))
    invented = synthetic.result(step, synthetic.Planted())
    assert set(result) == set(invented)
    (member, *_), (invented_member, *_) = result["members"], invented["members"]
    assert set(member) == set(invented_member)
    assert set(member["at"][0]) == set(invented_member["at"][0])
    assert set(member["end"]) == set(invented_member["end"])
    assert all(isinstance(value_of(member["end"], step.case, quantity), float) for quantity in FIELDS)


# -- the claim -------------------------------------------------------------------------------------


def on_half(case):
    return 0.5 if case.components.ratio == 2 else -0.5


@pytest.mark.parametrize(
    ("margin", "rank", "answers", "claim"),
    [
        (0.5, 0.5, ["yes", "yes"], "yes"),
        (0.5, -0.5, ["yes", "no"], "mixed"),
        (on_half, 0.5, ["mixed", "yes"], "mixed"),
        (0.5, 0.0, ["yes", "inconclusive"], "inconclusive"),
    ],
)
def test_a_planted_effect_is_found_in_its_quantity(margin, rank, answers, claim):
    found = synthetic.found(synthetic.study(variations="none"), shifted(margin_worst=margin, rank_weights=rank))
    judged = judge_all(found)
    assert [each.answer for each in judged] == answers
    assert verdict(found, judged, [], []).answer == claim
    assert {each.num_asked for each in judged} == {16}


def test_a_difference_is_of_pairs_of_one_seed(found):
    pair = on_map(found, MARGIN)[8]
    assert pair.rival == "sgd"  # rival by rival
    mine, its = (list(found.runs.of(pair.case, name).values(1, "margin").values()) for name in ("muon", "sgd"))
    assert pair.effect.p == pytest.approx(stats.ttest_rel(mine, its).pvalue)
    assert (pair.n, pair.missing) == ("6", (0, 0))
    assert {pair.side for pair in on_map(found, TEST)} == {"undecided"}
    assert {each.key for each in (*CLAIMED, *OTHERS, *ROBUST)} == set(FIELDS)


def test_a_difference_that_is_sure_and_tiny_is_undecided():
    (pair, *_) = on_map(of(shift=lambda f, case, name: 0.005 * (name == "muon"), noise=1e-5), MARGIN)
    assert pair.adjusted_p < 1e-6
    assert pair.side == "undecided"


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
    (control,) = failed(of({"variations": "none"}).controls)
    assert (control.name, control.value, control.limit) == ("same optimizer", 1, chance_limit(0.05, 8, 1, ERROR))
    assert "differs from itself is 1.000, more than the 0.375 that chance explains" in control.in_words


def test_labels_that_can_be_told_fail_and_leave_no_answer():
    found = of(shift=shifted(margin_worst=0.5, rank_weights=0.5).shift, informed=0.4)
    assert [control.name for control in failed(found.controls)] == ["labels without information"] * 3
    assert {each.answer for each in judge_all(found)} == {"inconclusive"}


# -- near-ties in the search -----------------------------------------------------------------------


def tied(loss, **asked):
    """Muon's margin is higher by 0.3 at the rate 0.03 and lower by 0.3 at 0.1, whose validation loss is given."""
    found = of(asked, loss=lambda name, rate, seed: 0.5 if rate == 0.03 else loss)
    for (_, name), own in found.runs.own.items():
        for member in own.members if name == "muon" else ():
            for at in member["at"]:
                at["values"]["margin_worst"] += 0.3 if member["rate"] == 0.03 else -0.3
    return found


@pytest.mark.parametrize(("loss", "turned"), [(0.501, 8), (0.6, 0)])
def test_a_side_may_turn_with_a_rate_that_is_as_good(rows_of, loss, turned):
    found = tied(loss, variations="none")
    tables = {each.name: each for each in tuning(found, spreads(found, judge_all(found)))}
    rows = rows_of(tables["sensitivity"])
    adamw = next(row for row in rows if (row["quantity"], row["rival"]) == ("worst-class margin", "AdamW"))
    assert [adamw[key] for key in ("decided", "turned", "kept", "alternatives")] == [8, turned, 8 - turned, turned]


def test_undecided_cells_do_not_turn(found):
    near_ties = spreads(found, judge_all(found))
    assert len(near_ties) == 32
    assert not any(each.turns for each in near_ties)
    assert all(min(each.differences) <= each.pair.estimate.value <= max(each.differences) for each in near_ties)


# -- the verdict -----------------------------------------------------------------------------------


def verdict_of(found):
    judged = judge_all(found)
    return verdict(found, judged, flows(found.runs.asked), spreads(found, judged))


@pytest.fixture(scope="module")
def said(found):
    return verdict_of(found)


def test_mixed_with_counts_by_rival_and_its_scope(said):
    assert (said.answer, said.label, said.cautions) == ("mixed", "It depends", ())
    assert said.sentence == (
        "Muon against AdamW and SGD at the first time the train loss is at most 0.5 (0 and 1 hidden layers, "
        "width 64, 8 inputs, at most 60 steps). Worst-class margin: higher at depth 0 and depth 1. Effective rank: "
        "higher at depth 0 and depth 1."
    )
    assert said.more[0] == (
        "“Muon attains larger margins and effective rank at the first time the loss is at most eps” (e), in "
        "worst-class margin, problem by problem: higher in 6, lower in 2, undecided in 0 of 8 comparisons against "
        "AdamW, higher in 6, lower in 2, undecided in 0 of 8 comparisons against SGD."
    )
    scope = dict(said.scope)
    assert scope["problems"] == "ratio 2, 8 × noise 0.1, 0.3; depth 0, depth 1"
    assert scope["data"].startswith("4 classes, 8 inputs, 3 components, 64 train and 64 test examples; softmax loss")
    assert "6 seeds" in scope["runs"]
    assert scope["Muon"].startswith("best learning rate 0.03 in the median of 8 problems (0.03 to 0.03); train loss at")


@pytest.mark.parametrize(
    ("asked", "planted", "why"),
    [
        ({}, {"shift": shifted(margin_worst=0.5).shift}, "because in effective rank none of 16 comparisons is decided"),
        ({"seeds": 2}, {}, "because there are fewer than 3 pairs of runs"),
        ({"optimizers": "muon"}, {}, "because there is nothing to compare with"),
        ({}, {"informed": 0.9}, "because a control failed (labels without information)"),
    ],
)
def test_inconclusive_says_why(asked, planted, why):
    said = verdict_of(of({"variations": "none", **asked}, **planted))
    assert said.answer == "inconclusive"
    assert why in said.sentence


def test_nothing_done(nothing):
    said = verdict_of(nothing)
    assert said.sentence.endswith("at most 60 steps): inconclusive, because no case has measured runs of both.")
    assert said.more[0].startswith("By the closed forms")


def test_means_over_a_map_are_of_seeds_and_decide_after_adjustment_over_all_of_them(found):
    judged = judge_all(found)
    means = over_maps(found, judged)
    assert len(means) == 2 * 2 * 2
    case_means = [
        np.mean([each.values(1, "margin")[seed] for each in found.runs.on_map(label) if each.case.map == "depth 0"])
        for label in ("muon", "adamw")
        for seed in range(6)
    ]
    oracle = stats.ttest_rel(case_means[:6], case_means[6:])
    row, bounds = means["margin", "depth 0", "adamw"], oracle.confidence_interval()
    assert (row.label, row.n, row.decided) == ("minus AdamW", "6 seeds", True)
    assert (row.estimate.lower, row.estimate.upper) == pytest.approx((bounds.low, bounds.high))
    figure, table = first_screen(found, judged)
    assert [panel.title for panel in figure.panels] == ["Worst-class margin", "Effective rank"]
    assert table.states == ("depth 0", "depth 1")
    reply = table.claims[0].replies[0]
    assert (reply.label, reply.answer, reply.sides) == ("Higher", "yes", (6, 2, 0))


def test_a_first_screen_answers_nothing_where_a_control_failed_or_runs_are_few(nothing):
    failing = of({"variations": "none"}, informed=0.9)
    labels = {reply.label for claim in first_screen(failing, judge_all(failing))[1].claims for reply in claim.replies}
    assert labels == {"Open"}
    few = of({"seeds": 2, "variations": "none"}, shift=shifted(margin_worst=5.0).shift)
    assert {row.decided for row in over_maps(few, judge_all(few)).values()} == {False}
    assert first_screen(nothing, judge_all(nothing)) == ()


def lost_sgd(case, name, rate, seed, place):
    return "not reached" if name == "sgd" and seed < 2 and place == 1 else None


@pytest.mark.parametrize(
    ("study", "words"),
    [
        (lambda: of(loss=lambda name, rate, seed: 1 / (1 + rate)), "Muon on 8 of 8 problems (0 low, 8 high)"),
        (lambda: of(censored=lost_sgd), "16 of 48 of SGD"),
        (lambda: of({"seeds": 5}), "No control of Muon against itself: it takes 6 seeds"),
        (lambda: synthetic.found(failed=lambda step: step.arm == "sgd"), "11 of 38 jobs known so far are not done, 11"),
        (
            lambda: synthetic.found(undone=lambda step: step.case is not None and step.case.role == "control"),
            "The control of labels without information is not done",
        ),
        (lambda: tied(0.5), "within 1% of the best one’s: 16 of 16 in worst-class margin"),
    ],
)
def test_what_weakens_an_answer(study, words):
    found = study()
    assert words in " ".join(cautions(found, spreads(found, judge_all(found))))


# -- remarks ---------------------------------------------------------------------------------------


def about(said, start):
    return next(sentence for sentence in said if sentence.startswith(start))


def remarks_on(found):
    return remarks(found, judge_all(found), flows(found.runs.asked))


@pytest.mark.parametrize(
    ("start", "words"),
    [
        ("Worst-class margin, Muon minus AdamW from −0.3", "nats"),
        ("At depth 0: worst-class margin higher in 6, lower in 2, undecided in 0 of 8 comparisons; effective rank", ""),
        ("Muon’s worst-class margin is lower in 4 of 16 cells, by most in ratio 8, noise 0.3", "against SGD (−0.3"),
        (
            "At other losses the worst-class margin is higher and lower in 12 and 4 of 16 at 1. Lowest: ratio 8",
            "3 more.",
        ),
        ("At depth 1 the effective rank of the hidden states is 9 before training", ", with SGD"),
        ("By the closed forms", "at the loss 0.5, the worst margin of spectral flow is larger at ratio 2, 8"),
        ("By the closed forms", "At losses below 0.0483 at ratio 2, below 0.288 at ratio 8 gradient flow has the la"),
        (
            "Measured otherwise, the worst-class margin, divided by the norms of the weights is ",
            "the effective rank of the logits is higher in 0, lower in 0, undecided in 16 of 16 comp",
        ),
    ],
)
def test_remarks_on_the_map(said, start, words):
    assert words in about(said.more, start)


def test_there_is_no_remark_where_there_is_nothing_to_say(said):
    assert not any(each.startswith("Muon’s effective rank is lower") for each in said.more)
    assert not any(each.startswith("At depth 0 the effective rank") for each in said.more)
    assert "Lowest:" not in about(said.more, "At other losses the effective rank")


def test_many_lower_cells_are_counted():
    found = of(shift=lambda f, case, name: -0.3 * (name == "muon" and f == "margin_worst"))
    assert about(remarks_on(found), "Muon’s worst-class margin is lower").endswith("and 13 more.")


def test_what_variations_and_accuracy_say():
    def shift(field, case, name):
        if field == "rank_weights":
            return 1.0 * (name == "adamw" and case.map == "aligned")
        if name == "muon" and case.components.ratio == 2 and case.role == "map":
            return 0.3 * (field in ("margin_worst", "test_accuracy"))
        return 0.1 * (name == "sgd" and case.map == "spurious" and field == "test_accuracy")

    more = remarks_on(of(shift=shift))
    spurious = about(more, "Where the weakest 2 components")
    assert "minus SGD’s −0.097 [−0.105, −0.089] (lower, n = 6)" in spurious
    assert "(undecided, n = 6)" in spurious
    adamw, muon, sgd = about(more, "Components along the axes instead of in a random basis").split(";")
    assert "of AdamW" in adamw
    assert "effective rank 1.0" in adamw or "effective rank 0.99" in adamw
    assert "of Muon" in muon
    assert "effective rank −0.0" in sgd or "effective rank 0.0" in sgd
    accuracy = about(more, "A larger margin and a better")
    assert "in the 8 cells" in accuracy
    assert "is higher in 8, lower in 0 and undecided in 0" in accuracy


# -- answers that a hostile reader would turn round -------------------------------------------------


def up(field, case, name):
    return 0.3 * (name == "muon")


# Bug: "yes" on the half of Muon's runs that reached the loss: those that never get there were dropped.
def test_an_arm_half_of_whose_runs_never_reached_the_loss_is_out_of_the_verdict():
    def censored(case, name, rate, seed, place):
        return "not reached" if name == "muon" and seed % 2 else None

    said = verdict_of(synthetic.found(planted=synthetic.Planted(shift=up, censored=censored)))
    assert said.answer == "inconclusive"
    assert "Out of the verdict: Muon on 8 problems reached the loss in 3 of 6 runs." in said.sentence
    assert "no comparison is left (Muon reached the loss in 3 of 6 runs, in 8 cases)" in said.sentence
    never = synthetic.Planted(shift=up, censored=lambda case, name, *_: "diverged" if name == "adamw" else None)
    said = verdict_of(synthetic.found(planted=never))
    assert said.answer == "inconclusive"
    assert said.sentence.endswith("Out of the verdict: AdamW on 8 problems diverged at every learning rate.")
    found = synthetic.found(planted=synthetic.Planted(shift=up))
    assert (out_of_the_verdict(found), verdict_of(found).answer) == ({}, "yes")


# Bug: "none of 16 comparisons is decided", and in the next sentence "higher at depth 0 and depth 1".
def test_a_mean_over_a_map_that_is_sure_and_tiny_is_open():
    def tiny(field, case, name):
        return 0.001 * (name == "muon")

    said = verdict_of(synthetic.found(planted=synthetic.Planted(shift=tiny, noise=1e-6)))
    assert said.sentence.endswith(
        "Worst-class margin: open at depth 0 and depth 1. Effective rank: open at depth 0 and depth 1."
    )

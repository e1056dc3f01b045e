"""The quantities of the four claims, and the controls; the judge's own rules are tested in tests/study."""

from statistics import fmean

import numpy as np
import pytest
from scipy import stats

import synthetic_features as synthetic
from muonlab.studies.features.claims import BEYOND_CLEAN, CLAIMS, EQUAL, MATCHED, fine_tuned, of_probes, untrained
from muonlab.study.compare import compare
from muonlab.study.controls import ERROR, failed
from muonlab.study.judge import judge

CLAIM = {claim.letter: claim for claim in CLAIMS}
QUANTITY = {"a": ("corrupted",), "b": ("margin",), "c": ("probe", "tuned"), "d": ("rank",)}
RANKS = dict.fromkeys(("effective_rank", "effective_rank_sigma", "stable_rank", "participation_ratio"), 1.0)


def on(letter, size):
    return synthetic.Planted(shift=lambda what, net, name: size * (what in QUANTITY[letter] and name == "muon"))


@pytest.mark.parametrize("letter", "abcd")
@pytest.mark.parametrize(("size", "answer"), [(0.1, "yes"), (-0.1, "no")])
def test_a_planted_effect_is_found_and_no_other_claim(letter, size, answer):
    found = synthetic.found(planted=on(letter, size))
    answers = {claim.letter: judge(found, claim, EQUAL).answer for claim in CLAIMS}
    assert answers == {**dict.fromkeys("abcd", "inconclusive"), letter: answer}
    at_loss = judge(found, CLAIM[letter], MATCHED)
    assert (at_loss.answer, at_loss.num_asked) == (answer, 2)  # of transfer at matched loss only the probe


def test_a_family_that_is_not_measured_counts_as_undecided():
    found = synthetic.found(planted=on("a", 0.1), undone=lambda step: step.case.family.net.kind == "gpt")
    judged = judge(found, CLAIM["a"], EQUAL)
    assert (len(judged.comparisons), judged.num_asked, judged.answer) == (1, 2, "inconclusive")


def test_a_comparison_is_of_the_means_over_seeds(found):
    (cnn, _) = judge(found, CLAIM["a"], EQUAL).comparisons
    family = found.runs.families["cnn on digits"]
    own, other = ([model.corrupted_accuracy for model in family.of(name, "final")] for name in ("muon", "adamw"))
    assert cnn.effect.p == pytest.approx(stats.ttest_ind(own, other, equal_var=False).pvalue)
    assert (cnn.means, cnn.n) == (pytest.approx((np.mean(own), np.mean(other))), "4 + 4")


def test_fine_tuning_is_the_mean_over_ways_of_every_seed_once_all_are_done(found):
    gpt = found.runs.families["gpt on sources"]
    for task in ("classes", "language"):
        ways = [gpt.transferred(task, "muon", by) for by in ("muon", "adamw")]
        assert fine_tuned(gpt, task, "muon") == pytest.approx(
            [np.mean([way.accuracies[seed] for way in ways]) for seed in range(4)]
        )
    part = synthetic.found(undone=lambda step: step.role == "transfer" and step.by == "adamw")
    assert {pair.quantity.key for pair in compare(part, CLAIM["c"].quantities, EQUAL)} == {"linear"}


def test_layers_whose_probes_find_nothing_in_either_do_not_enter_margins(monkeypatch):
    layer = synthetic.layer

    def blind(tap, margin, rank):
        found = layer(tap, margin, rank)
        if tap.endswith("0"):
            found["margins"]["clean"]["below_zero"] = 0.85
            found["margins"]["clean"]["by_norm"]["median"] = 1e6
        return found

    monkeypatch.setattr(synthetic, "layer", blind)
    (pair,) = judge(synthetic.found(synthetic.study(families=["cnn"])), CLAIM["b"], EQUAL).comparisons
    assert max(pair.means) < 100


def test_effective_robustness_is_compared_too():
    planted = synthetic.Planted(shift=lambda what, net, name: 0.1 * (what == "path" and name == "muon"))
    pairs = compare(synthetic.found(planted=planted), (BEYOND_CLEAN,))
    assert {pair.case.name: pair.side for pair in pairs} == {"cnn on digits": "higher", "gpt on sources": "higher"}


# -- controls --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("planted", "words"),
    [
        ({"shuffled": 0.4}, "shuffled labels of cnn on digits: test accuracy of the probe is 0.400, more"),
        ({"untrained": 0.4}, "untrained net of cnn on digits: mean test accuracy before training is 0.400, more"),
        ({"line": 2.0}, "rank one of cnn on digits: largest count of directions is 2.000, more"),
    ],
)
def test_each_control_can_fail_and_leaves_no_answer(planted, words):
    found = synthetic.found(synthetic.study(families=["cnn"]), synthetic.Planted(shift=on("a", 0.1).shift, **planted))
    (control,) = failed(found.controls)
    assert control.in_words.startswith(words)
    assert judge(found, CLAIM["a"], EQUAL).answer == "inconclusive"


def test_controls_pass_at_chance_and_are_not_there_before_they_are_measured(found, nothing):
    assert [(c.name, c.state) for c in found.controls[:3]] == [
        ("untrained net", "passed"),
        ("shuffled labels", "passed"),
        ("rank one", "passed"),
    ]
    assert nothing.controls == ()


# Bug: one net of random weights that was above chance by luck made a control fail, as if it guessed each example.
def test_nets_that_were_never_trained_must_guess_in_the_mean():
    lucky = [0.05, 0.17, 0.08, 0.12, 0.09]
    control = untrained("net", lucky, 0.1, 450)
    assert (control.state, control.value, control.n) == ("passed", pytest.approx(fmean(lucky)), 5)
    assert control.limit == pytest.approx(0.1 + stats.t.isf(ERROR, 4) * stats.sem(lucky))
    alike = untrained("net", [0.1, 0.1, 0.1], 0.1, 100)
    assert alike.limit == pytest.approx(stats.binom.isf(ERROR, 100, 0.1) / 100)
    assert untrained("net", [0.5, 0.51, 0.49, 0.5], 0.1, 100).state == "failed"
    assert untrained("net", [0.17], 0.1, 450).state == "cannot tell"


def test_controls_of_probes_are_those_that_were_made():
    assert of_probes("net", {}, 0.1) == []
    line = {"raw": RANKS, "centred": {**RANKS, "stable_rank": 1.5}, "num_examples": 40}
    (control,) = of_probes("net", {"rank_one": line, "shuffled_labels": None}, 0.1)
    assert (control.name, control.value, control.state) == ("rank one", 1.5, "failed")

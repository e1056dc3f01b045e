"""Comparisons, and what they say together: tested once, for every study."""

from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats
from statsmodels.stats.multitest import multipletests

from muonlab.report.findings import Series
from muonlab.stats.results import Estimate
from muonlab.study.compare import adjusted, compare, compare_one
from muonlab.study.controls import Control
from muonlab.study.judge import answer, in_counts, judge, votes, whole
from muonlab.study.study import Arm, Claim, Found, Quantity, Rule, arms_of, of_case

BASE = {0: 0.97, 1: 1.0, 2: 1.03, 3: 1.01}


@dataclass(frozen=True)
class Case:
    name: str


CASES = (Case("x"), Case("y"))
FAILED = Control("shuffled labels", "accuracy", 0.9, 0.1, 0.2, 3)


def values(found, case, arm, rival, state):
    return found.runs.get((case.name, arm))


QUANTITY = Quantity("q", "accuracy", "accuracy", values, "accuracy")
CLAIM = Claim("a", "Robustness", "accuracy is higher", (QUANTITY,))


def study(shifts, rule=None, rivals=("b",), *, base=None, **fields):
    """Return a study whose first arm is higher than each rival by the shift of the case; None: not measured."""
    base = base or BASE
    arms = tuple(Arm(label, Series(label.upper(), "other")) for label in ("a", *rivals))
    runs = {(case.name, "a"): base for case in CASES}
    for case in CASES:
        for rival in rivals:
            shift = shifts[case.name, rival] if isinstance(shifts, dict) else shifts
            if shift is not None:
                noise = [0.001, -0.001, 0.002, -0.002]
                runs[case.name, rival] = {seed: v - shift + noise[seed % 4] for seed, v in base.items()}
    return Found(runs=runs, arms=arms, cases=CASES, num_runs=len(base), rule=rule or Rule(), **fields)


# -- a comparison ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "test"),
    [
        (Rule("welch"), partial(scipy_stats.ttest_ind, equal_var=False)),
        (Rule("paired"), scipy_stats.ttest_rel),
    ],
)
def test_a_comparison_agrees_with_scipy_and_holm(rule, test):
    found = study({("x", "b"): 0.01, ("y", "b"): 0.02}, rule)
    pairs = compare(found, (QUANTITY,), "end")
    expected = [test(*(list(found.runs[case.name, arm].values()) for arm in "ab")) for case in CASES]
    assert [pair.effect.p for pair in pairs] == pytest.approx([each.pvalue for each in expected])
    bounds = expected[0].confidence_interval()
    assert (pairs[0].estimate.lower, pairs[0].estimate.upper) == pytest.approx((bounds.low, bounds.high))
    holm = multipletests([each.pvalue for each in expected], method="holm")[1]
    assert [pair.adjusted_p for pair in pairs] == pytest.approx(list(holm))
    assert pairs[0].n == ("4 + 4" if rule.test == "welch" else "4")


def test_a_comparison_is_made_once_and_only_where_both_are_measured():
    found = study({("x", "b"): 0.5, ("y", "b"): None})
    first = compare(found, (QUANTITY,), "end")
    assert [pair.case.name for pair in first] == ["x"]
    assert compare(found, (QUANTITY,), "end") is first
    assert compare_one(found, QUANTITY, CASES[1], "b") is None
    assert of_case(first, CASES[0], "b") is first[0]
    assert of_case(first, CASES[1], "b") is None


def test_pairs_are_of_one_seed_and_what_is_in_none_is_counted():
    found = study(0.5, Rule("paired"))
    found.runs["x", "b"] = {seed: v for seed, v in found.runs["x", "b"].items() if seed != 2}
    pair = compare_one(found, QUANTITY, CASES[0], "b")
    assert (pair.n, pair.missing, pair.effect.n) == ("3 (0 + 1 censored)", (0, 1), (3, 3))
    assert pair.means[0] == pytest.approx((0.97 + 1.0 + 1.01) / 3)


def test_examples_are_paired_where_both_sides_saw_the_same():
    same, other = study(0.1, Rule("examples")), study(0.1, Rule("examples"))
    del other.runs["x", "b"][0]
    p = [compare_one(each, QUANTITY, CASES[0], "b").effect.p for each in (same, other)]
    own = list(BASE.values())
    assert p[0] == pytest.approx(scipy_stats.ttest_rel(own, list(same.runs["x", "b"].values())).pvalue)
    expected = scipy_stats.ttest_ind(own, list(other.runs["x", "b"].values()), equal_var=False)
    assert p[1] == pytest.approx(expected.pvalue)
    chosen = study(0.1, Rule(lambda found, case, rival: "examples" if case.name == "x" else "welch"))
    assert [pair.test for pair in compare(chosen, (QUANTITY,))] == ["examples", "welch"]


def test_numbers_with_intervals_of_their_own_are_compared_by_them():
    found = study(0.0)
    found.runs.update({("x", "a"): Estimate(2.0, 1.9, 2.1, n=50), ("x", "b"): Estimate(1.0, 0.9, 1.1, n=50)})
    pair = compare_one(found, QUANTITY, CASES[0], "b")
    assert (pair.estimate.value, pair.means) == (1.0, (2.0, 1.0))
    assert pair.estimate.lower == pytest.approx(1 - 0.1 * 2**0.5)


def test_two_runs_are_too_few_and_sure_but_negligible_differences_are_undecided():
    few = compare(study(0.5, base={0: 1.0, 1: 1.01}), (QUANTITY,))
    assert [(pair.adjusted_p, pair.side) for pair in few] == [(None, "undecided")] * 2
    tiny = study(0.008, Rule("paired", negligible=0.01))
    assert [pair.side for pair in compare(tiny, (QUANTITY,))] == ["undecided"] * 2
    plain = replace(tiny, rule=Rule("paired"), compared={})
    assert [pair.side for pair in compare(plain, (QUANTITY,))] == ["higher"] * 2


# -- what comparisons say together -----------------------------------------------------------------


PAIR = compare(study(0.5), (QUANTITY,))[0]
SIDES = {
    "higher": PAIR,
    "lower": replace(PAIR, effect=replace(PAIR.effect, estimate=replace(PAIR.estimate, value=-0.5))),
    "undecided": replace(PAIR, adjusted_p=0.5),
}


def sides(*names, rival="b"):
    return [replace(SIDES[name], rival=rival) for name in names]


@pytest.mark.parametrize(
    ("names", "num_asked", "expected"),
    [
        (["higher", "higher"], 2, "yes"),
        (["lower", "lower"], 2, "no"),
        (["higher", "lower"], 2, "mixed"),
        (["higher", "undecided"], 2, "inconclusive"),  # half is not enough
        (["higher"], 2, "inconclusive"),  # one was not measured
        ([], 0, "inconclusive"),
    ],
)
def test_an_answer(names, num_asked, expected):
    assert answer(sides(*names), ["b"], num_asked) == expected


def test_yes_must_hold_against_every_rival():
    pairs = [*sides("higher", "higher", "higher"), *sides("undecided", rival="c")]
    assert answer(pairs, ["b", "c"], 4) == "inconclusive"
    assert answer(pairs, ["b"], 4) == "yes"


names = st.lists(st.sampled_from(["higher", "lower", "undecided"]), min_size=1, max_size=8)


@settings(deadline=None)
@given(names, st.randoms())
def test_an_answer_does_not_depend_on_order_and_turns_with_its_sides(given_names, random):
    opposite = {"higher": "lower", "lower": "higher", "undecided": "undecided"}
    found = answer(sides(*given_names), ["b"], len(given_names))
    shuffled = random.sample(given_names, len(given_names))
    assert answer(sides(*shuffled), ["b"], len(shuffled)) == found
    turned = answer(sides(*(opposite[name] for name in given_names)), ["b"], len(given_names))
    assert turned == {"yes": "no", "no": "yes"}.get(found, found)


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        (["yes", "yes"], "yes"),
        (["yes", "no"], "mixed"),
        (["yes", "inconclusive"], "inconclusive"),
        (["mixed", "inconclusive"], "mixed"),
        (["inconclusive"], "inconclusive"),
    ],
)
def test_the_whole_of_several_answers(answers, expected):
    assert whole(answers) == expected


# -- the judge -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (study(0.5, controls=(FAILED,)), "a control failed (shuffled labels): no measure can be trusted"),
        (study(0.5, rivals=()), "there is nothing to compare with"),
        (study(None), "no case has measured runs of both"),
        (study(0.5, base={0: 1.0, 1: 1.1}), "there are fewer than 3 runs of each"),
        (study(0.5, Rule("paired"), base={0: 1.0, 1: 1.1}), "there are fewer than 3 pairs of runs"),
        (study(0.0), "none of 2 comparisons is decided (p > 0.05, adjusted for their number)"),
        (study({("x", "b"): 0.5, ("y", "b"): None}), "only 1 of 2 comparisons are decided"),
        (
            study({("x", "b"): 0.5, ("y", "b"): 0.5, ("x", "c"): 0, ("y", "c"): 0}, rivals=("b", "c")),
            "only 2 of 4 comparisons are decided, none of them against C",
        ),
    ],
)
def test_inconclusive_says_why(found, why):
    judged = judge(found, CLAIM, "end")
    assert (judged.answer, judged.why) == ("inconclusive", why)


def test_equal_runs_have_no_interval():
    found = study(0.0, base=dict.fromkeys(range(4), 1.0))
    found.runs.update({(case.name, "b"): dict.fromkeys(range(4), 0.5) for case in CASES})
    assert judge(found, CLAIM).why.startswith("no difference has an interval (")


def test_a_claim_is_judged_in_what_is_asked():
    asked = replace(QUANTITY, is_asked=lambda case, state: case.name == "x")
    judged = judge(study(0.5), replace(CLAIM, quantities=(asked,)), "end")
    assert (judged.answer, judged.num_asked, judged.why, judged.count("higher", "b")) == ("yes", 1, "", 1)
    assert in_counts(judged.comparisons) == "higher in 1, lower in 0, undecided in 0 of 1 comparisons"
    assert adjusted([]) == ()


# -- arms ------------------------------------------------------------------------------------------


def test_arms_of_one_optimizer_share_its_colour_and_differ_in_style():
    @dataclass(frozen=True)
    class Recipe:
        name: str

    muon, lion = Recipe("muon"), Recipe("lion")
    arms = arms_of({"muon": muon, "few": muon, "lion": lion})
    assert [arm.series for arm in arms] == [Series("Muon", "muon"), Series("few", "muon", 1), Series("lion", "other")]
    found = Found(runs=None, arms=arms, cases=(), num_runs=1, rule=Rule())
    assert (found.first.name, found.names(), found.name("few")) == ("Muon", "few and lion", "few")


# -- a study whose cases are pooled ----------------------------------------------------------------

POOLS = Rule(pools=True)
NOISE = {0: -0.01, 1: 0.0, 2: 0.01, 3: 0.004}


def pooled_study(shifts, rivals=("b",), **fields):
    """Return a study of a case for each shift, by which the first arm is higher there."""
    named = tuple(Case(f"case {number}") for number in range(len(shifts)))
    arms = tuple(Arm(label, Series(label.upper(), "other")) for label in ("a", *rivals))
    runs = {(case.name, "a"): dict(NOISE) for case in named}
    for case, shift in zip(named, shifts, strict=True):
        for rival in rivals:
            runs[case.name, rival] = {seed: -noise - shift for seed, noise in NOISE.items()}
    return Found(runs=runs, arms=arms, cases=named, num_runs=len(NOISE), rule=POOLS, **fields)


# Bug: a difference too small for every single comparison, but present in all, was never called: votes have no power.
def test_the_mean_over_cases_answers_where_no_single_comparison_does():
    found = judge(pooled_study([0.013, 0.012, 0.014, 0.013, 0.012]), CLAIM)
    assert (found.count("undecided"), found.answer, found.reach, found.label) == (5, "yes", "beyond", "Yes")
    assert judge(replace(pooled_study([0.013] * 5), rule=Rule()), CLAIM).answer == "inconclusive"
    lower = judge(pooled_study([-0.013, -0.012, -0.014]), CLAIM)
    assert (lower.answer, lower.label) == ("no", "No: the opposite")


def test_cases_that_differ_give_an_answer_here_and_none_beyond():
    found = judge(pooled_study([0.02, 0.4, 0.03]), CLAIM)
    assert (found.answer, found.reach, found.label) == ("yes", "here", "Yes, here")
    assert judge(pooled_study([0.4]), CLAIM).label == "Yes, here"
    loss = replace(CLAIM, quantities=(replace(QUANTITY, expects="lower"),))
    assert judge(pooled_study([0.02, 0.4, 0.03]), loss).label == "No, here: the opposite"


def test_decided_comparisons_that_contradict_each_other_or_the_mean_make_it_depend():
    for shifts in ([0.4, -0.4, 0.4], [0.4, -0.1, 0.4]):
        assert judge(pooled_study(shifts), CLAIM).answer == "mixed"
    found = pooled_study([0.1] * 3, rivals=("b", "c"))
    for case in found.cases:
        found.runs[case.name, "c"] = {seed: 0.3 - noise for seed, noise in NOISE.items()}
    assert judge(found, CLAIM).answer == "mixed"


def test_the_answer_needs_every_rival_and_more_than_half_of_the_comparisons():
    found = pooled_study([0.1] * 3, rivals=("b", "c"))
    for case in found.cases:
        found.runs[case.name, "c"] = {seed: -noise for seed, noise in NOISE.items()}
    judged = judge(found, CLAIM)
    assert (judged.answer, votes(judged)) == ("inconclusive", "3 higher, 0 lower, 3 undecided of 6")
    assert judged.why.startswith("the mean over these cases may lie on either side of zero (minus C 0.002 [")
    half = pooled_study([0.1] * 2)
    del half.runs["case 1", "b"]
    assert judge(half, CLAIM).why == "only 1 of 2 comparisons are measured"


def test_a_comparison_that_is_set_aside_is_no_vote_and_in_no_mean():
    found = pooled_study([0.1, 0.1, -0.4], aside={("case 2", "b"): "learnt nothing"})
    judged = judge(found, CLAIM)
    assert (judged.answer, judged.pooled["b"].num_cases) == ("yes", 2)
    assert votes(judged) == "2 higher, 0 lower, 0 undecided of 2; 1 set aside"
    assert [(each.aside, each.adjusted_p) for each in judged.aside] == [("B learnt nothing", None)]
    own = pooled_study([0.1, 0.1], aside={("case 0", "a"): "diverged", ("case 1", "a"): "diverged"})
    assert judge(own, CLAIM).why == "no comparison is left (case 0: A diverged; case 1: A diverged)"


def test_cases_of_one_cluster_count_as_one():
    @dataclass(frozen=True)
    class Horizon(Case):
        cluster: str

    found = pooled_study([0.1, 0.1, 0.4])
    named = tuple(Horizon(case.name, "net") if number < 2 else case for number, case in enumerate(found.cases))
    mean = judge(replace(found, cases=named, compared={}), CLAIM).pooled["b"]
    assert (mean.num_cases, mean.here.estimate.value) == (2, pytest.approx(0.25, abs=0.01))
    assert judge(found, CLAIM).pooled["b"].here.estimate.value == pytest.approx(0.202)


def test_a_claim_of_several_quantities_is_pooled_by_the_mean_of_each_run_over_them():
    def other(found, case, arm, rival, state):
        return {seed: 3 * value for seed, value in values(found, case, arm, rival, state).items() if seed != 1}

    both = replace(CLAIM, quantities=(QUANTITY, Quantity("r", "thrice", "accuracy", other)))
    mean = judge(pooled_study([0.1, 0.1, 0.1]), both).pooled["b"].here
    assert mean.estimate.value == pytest.approx(2 * (0.1 + 2 * np.mean([-0.01, 0.01, 0.004])))
    assert mean.n == (9, 9)

"""What is asked: presets, settings, problems and their variations, and the jobs that follow."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

import synthetic_components as synthetic
from muonlab.jobs import store
from muonlab.jobs.job import identity
from muonlab.nets import mlp
from muonlab.rules import polar
from muonlab.studies.components import KEYS, PRESETS, ComponentStudy, begin, jobs_of, outline, plan, trials
from muonlab.studies.components.cases import VARIATIONS, agreements, closed_form, vary, weakest
from muonlab.studies.components.config import Agree, Components, Muon, Net, Simulate, read
from muonlab.studies.components.jobs import POLICY, cost, loss_at, scores, steps
from muonlab.study.search import SEARCH_FROM, best
from muonlab.study.settings import UsageError

# -- presets ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_has_known_settings_fair_searches_and_comes_back_from_its_file(preset, tmp_path):
    study = plan(preset, {"seeds": 9})
    assert set(PRESETS[preset]) <= set(KEYS)
    assert len({(len(search.rates), search.extensions) for search in study.searches.values()}) == 1
    begin(study, tmp_path)
    file = store.read(tmp_path)
    assert (file.study, file.preset, file.settings) == ("components", preset, {"seeds": ["9"]})
    assert ComponentStudy.model_validate({**file.config, "preset": preset, "settings": file.settings}) == study


@pytest.mark.parametrize("preset", ["laptop", "full"])
def test_what_answers_the_question_has_depths_noises_and_halves_of_the_seeds(preset):
    study = plan(preset)
    assert {case.net.depth for case in study.mapped} >= {0, 1}
    assert {case.components.noise for case in study.cases} >= {0, 0.1}
    assert study.seeds >= 6
    assert study.base.components.ratio == 4


def test_the_presets_rise_in_cost():
    costs = [sum(cost for _, cost in outline(plan(preset))) for preset in ("tiny", "laptop", "full")]
    assert costs == sorted(costs)
    assert 110 <= len(outline(plan("laptop"))) <= 150  # about as many as four minutes hold


# -- the map ---------------------------------------------------------------------------------------


def test_the_map_has_every_ratio_at_every_noise_and_depth_and_one_control():
    study = plan("tiny", {"ratio": [1, 4], "noise": [0, 0.3], "depth": [0, 1]})
    found = {(c.map, c.components.noise, c.components.ratio) for c in study.mapped}
    assert found == {(f"depth {d}", n, r) for d in (0, 1) for r in (1, 4) for n in (0, 0.3)}
    assert len(study.mapped) == 8
    (control,) = [case for case in study.cases if case.role == "control"]
    assert control.components.spurious == control.components.num_components == 3


def test_every_field_is_an_axis_and_makes_a_map_of_its_own():
    study = plan("tiny", {"patterns": ["tree", "random"], "depth": [0, 1], "dimension": [8, 16], "variations": "none"})
    assert {case.map for case in study.mapped} == {
        f"depth {depth}, dimension {dimension}, patterns {patterns}"
        for depth in (0, 1)
        for dimension in (8, 16)
        for patterns in ("tree", "random")
    }
    assert len({case.name for case in study.cases}) == len(study.cases)


@pytest.mark.parametrize(("ratios", "expected"), [([1, 2, 4], 2), ([4, 1, 2, 8], 2), ([3], 3)])
def test_variations_start_from_the_middle_of_the_first_map(ratios, expected):
    base = plan("tiny", {"ratio": ratios, "noise": [0, 0.1, 0.2], "depth": [1, 0]}).base
    assert (base.components.ratio, base.components.noise, base.net.depth) == (expected, 0.1, 1)


SQUARED = {"loss": ["softmax", "squared"]}


def test_given_losses_bring_their_middle_and_the_same_shares_of_the_squared_loss():
    study = plan("tiny", {"eps": [1, 0.5, 0.1]})
    assert study.main == 1
    assert study.squared_eps == pytest.approx([eps / math.log(4) * 0.75 / 2 for eps in study.eps], rel=0.01)


def test_losses_fall_and_the_main_one_has_its_place_among_those_of_squared_loss():
    study = plan("tiny", {"eps": [0.1, 1, 0.5], "squared_eps": [0.1, 0.3, 0.2], "main_eps": 0.5, **SQUARED})
    assert (study.eps, study.squared_eps, study.main) == ((1, 0.5, 0.1), (0.3, 0.2, 0.1), 1)
    assert {study.eps_of(case) for case in study.mapped if case.loss == "squared"} == {study.squared_eps}


def test_strengths_and_the_tree_are_lists_of_one_problem():
    study = plan("tiny", {"strengths": [2, 0.5], "variations": "none"})
    assert [case.components.strengths for case in study.mapped] == [(2.0, 0.5)]
    (first, *_) = plan("tiny", {"classes": 6, "tree": [3, 2], "dimension": 8}).cases
    assert first.components.tree == (3, 2)


# -- settings --------------------------------------------------------------------------------------

# For every key, a value that is not its default in the preset tiny, and what must be given with it.
VALUES: dict[str, tuple[object, dict[str, object]]] = {
    "optimizers": (["sgd", "muon"], {}),
    **{key: (value, {}) for key, value in {"seeds": 7, "search_seeds": 3, "budget": 70, "looks": 10}.items()},
    "extensions": (1, {}),
    "eps": ([0.9, 0.4], {}),
    "squared_eps": ([0.34, 0.2], {"loss": "squared"}),
    "main_eps": (1, {}),
    "variations": ("random", {}),
    "agree_steps": ([8, 16], {}),
    "rank": (1, {}),
    "tree": ([4], {"classes": 4}),
    **{key: (value, {}) for key, value in {"classes": 6, "dimension": 9, "ratio": 3, "scale": 3, "noise": 0.2}.items()},
    **{key: (value, {}) for key, value in {"rotation": 0.5, "imbalance": 2, "spurious": 1, "depth": 1}.items()},
    **{key: (value, {}) for key, value in {"patterns": "random", "strengths": "power", "loss": "squared"}.items()},
    **{key: (65, {}) for key in ("train", "validation", "test")},
    "batch": (16, {}),
    "width": (32, {"depth": 1}),
    "activation": ("gelu", {"depth": 1}),
    **{
        f"muon.{key}": (v, {})
        for key, v in {
            "momentum": 0.5,
            "nesterov": "false",
            "steps": 3,
            "variant": "normuon",
            "equilibrate": "row",
            "renormalize": "col",
            "update_floor": 0.5,
            "hyperball": "true",
            "decay": "l2",
            "lookahead": 0.5,
            "method": "exact",
        }.items()
    },
    **{
        f"{name}.{key}": (value, {})
        for name in ("muon", "adamw")
        for key, value in {"beta1": 0.5, "beta2": 0.5, "eps": 1e-6}.items()
    },
    **{f"sgd.{key}": (value, {}) for key, value in {"momentum": 0.5, "nesterov": "true"}.items()},
    **{f"{name}.weight_decay": (0.2, {}) for name in ("muon", "adamw", "sgd")},
    **{f"{name}.rates": ([0.5, 0.7], {}) for name in ("muon", "adamw", "sgd")},
}


def test_every_setting_changes_what_is_asked():
    def asked(settings):  # as few problems as there can be
        study = plan("tiny", {"ratio": 2, "variations": "none", **settings})
        # extensions and the main loss decide what follows from results
        return {job.id for job in jobs_of(study, {})}, study.searches, study.main

    assert set(VALUES) == set(KEYS)
    plain = asked({})
    for key, (value, others) in VALUES.items():
        assert asked({**others, key: value}) != (asked(others) if others else plain), key


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"nois": 1}, "unknown setting 'nois'; did you mean 'noise'?"),
        ({"optimizers": "muom"}, "unknown optimizer 'muom'; did you mean 'muon'?"),
        ({"optimizers": ["muon", "muon"]}, "names muon twice"),
        ({"variations": "alined"}, "unknown variation 'alined'; did you mean 'aligned'?"),
        ({"variations": ["none", "deep"]}, "names none and others"),
        ({"rank": 9}, "rank=9 for 4 classes: expected 1 to 3"),
        ({"dimension": 2}, "3 components in 2 inputs: directions are orthonormal, so raise dimension to 3"),
        ({"strengths": [3, 2, 1], "variations": "none"}, "expected 2 numbers, one for each level of the tree"),
        ({"strengths": [3, 2], "variations": "random"}, "variation random: strengths=[3.0, 2.0]: expected 3 numbers"),
        ({"strengths": [3, 2], "variations": "random"}, "leave it out of variations, or give variations=none"),
        ({"strengths": "geometrc"}, "unknown strengths 'geometrc'; did you mean 'geometric'?"),
        ({"strengths": ["power", "equal"]}, "strengths=power,equal is not valid"),
        ({"tree": [2, 3]}, "tree=(2, 3) has 6 classes, but classes=4"),
        ({"tree": [4], "patterns": "random"}, "tree has no effect: patterns=random have no tree"),
        ({"tree": [4], "patterns": ["tree", "random"]}, "tree=(4,) without patterns='tree': leave it out"),
        ({"ratio": 0.5}, "ratio=0.5 is not valid; expected at least 1"),
        ({"ratio": 3, "strengths": "equal"}, "ratio has no effect: strengths=equal say it all"),
        ({"spurious": 4}, "spurious=4 of 3 components: expected 0 to 3"),
        ({"spurious": -1}, "spurious=-1 is not valid; expected at least 0"),
        ({"batch": 65}, "batch=65 of 64 training examples: expected at most as many, or all"),
        ({"width": 32}, "width has no effect: depth=0 has no hidden layers"),
        ({"main_eps": 0.3}, "main_eps=0.3 is not valid; expected one of eps: 1 or 0.5"),
        ({"eps": [1, 0]}, "eps=1,0 is not valid; expected numbers above 0"),
        (
            {"eps": [3, 2.5]},
            "the main softmax loss 3 cannot be reached from above: at W = 0, with 4 classes, it is 1.39",
        ),
        ({"loss": "squared", "eps": 0.1, "squared_eps": 0.4}, "it is 0.375; give a smaller squared_eps"),
        ({"squared_eps": 0.3, "loss": "squared"}, "eps has 2 values and squared_eps 1"),
        ({"squared_eps": [0.3, 0.2]}, "squared_eps has no effect: no problem has squared loss"),
        ({"agree_steps": [10, 30]}, "expected whole numbers, each twice the last"),
        ({"agree_steps": [0.5, 1]}, "expected whole numbers, each twice the last"),
        ({"looks": 1001}, "looks=1001 is not valid; expected one whole number from 1 to 1000"),
        ({"muon.rates": 0.1}, "muon.rates=0.1 is not valid; expected two numbers or more"),
        ({"muon.momentum": [0, 0.5]}, "muon.momentum=0,0.5 is not valid; expected one value, not 2"),
        ({"sgd.rates": [1, 2], "optimizers": "muon"}, "sgd.rates has no effect"),
        ({"seeds": 0}, "seeds=0 is not valid; expected one whole number from 1"),
        ({"preset": "tinny"}, "unknown preset 'tinny'; did you mean 'tiny'"),
    ],
)
def test_what_cannot_be_is_said(settings, message):
    with pytest.raises(UsageError) as error:
        plan(settings.pop("preset", "tiny"), settings)
    assert message in str(error.value)


def test_the_schema_names_what_the_nets_and_rules_offer():
    assert set(Net.model_json_schema()["properties"]["activation"]["enum"]) <= set(mlp.ACTIVATIONS)
    assert set(Muon.model_json_schema()["properties"]["method"]["enum"]) <= set(polar.METHODS)


# -- closed forms and variations -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "softmax", "squared"),
    [
        ({}, True, True),
        ({"patterns": "random"}, False, True),
        ({"rank": 5}, False, True),  # a part of the last level
        ({"rank": 3}, True, True),
        ({"imbalance": 2.0}, False, False),
    ],
)
def test_agreements_are_of_what_has_a_closed_form_without_noise(settings, softmax, squared):
    components = Components(**settings)
    assert (closed_form(components) is not None) is softmax
    assert (closed_form(components, "squared") is not None) is squared
    found = agreements(components.model_copy(update={"spurious": 2}), (10, 20))  # with equal priors
    assert {(each.components.noise, each.components.spurious, each.components.imbalance) for each in found} == {
        (0, 0, 1)
    }
    with_softmax = softmax or "imbalance" in settings
    assert {each.loss for each in found} == {"squared"} | ({"softmax"} if with_softmax else set())


BASE = plan("laptop").base


def test_a_variation_changes_one_factor_and_what_is_so_already_is_none():
    varied = {name: vary(name, BASE) for name in VARIATIONS}
    for name, case in varied.items():
        changed = [
            key
            for key in ("components", "net", "loss", "batch", "optimizers")
            if getattr(case, key) != getattr(BASE, key)
        ]
        assert len(changed) == 1, name
        if name not in ("few", "batches"):
            assert vary(name, BASE.model_copy(update={changed[0]: getattr(case, changed[0])})) is None
    fields = {name: case.components.model_dump() for name, case in varied.items()}
    assert [fields["random"]["patterns"], fields["aligned"]["rotation"], fields["few"]["train"]] == ["random", 0, 32]
    assert [fields["imbalance"]["imbalance"], fields["power"]["strengths"]] == [10, "power"]
    still = {each.name: each for each in varied["momentum"].optimizers}
    assert (still["muon"].momentum, still["sgd"].momentum, still["adamw"].beta1) == (0, 0, 0)
    assert {each.weight_decay for each in varied["decay"].optimizers} == {0.1}
    assert (varied["batches"].batch, varied["deep"].net.depth, varied["squared"].loss) == (32, 2, "squared")
    names = {name: case.name for name, case in varied.items()}
    assert (names["spurious"], names["few"]) == ("weakest 4 are pure noise", "32 examples")
    study = plan("laptop", {"patterns": "random", "rotation": 0})
    assert not {"random", "aligned"} & {case.map for case in study.varied}


@pytest.mark.parametrize(
    ("settings", "number"),
    [({}, 4), ({"classes": 2}, 1), ({"patterns": "random"}, 1), ({"rank": 5}, 2), ({"classes": 5, "dimension": 8}, 1)],
)
def test_the_weakest_are_those_of_the_last_level_or_the_last_one(settings, number):
    assert weakest(Components(**settings)) == number


# -- jobs ------------------------------------------------------------------------------------------


def test_every_problem_has_a_job_for_each_optimizer_with_the_same_seeds_losses_and_budget():
    study = synthetic.study()
    known = steps(study, {})
    held = [step for step in known if step.case is not None]
    assert {(step.case.name, step.arm) for step in held} == {
        (case.name, name) for case in study.cases for name in study.optimizers
    }
    assert len(held) == 3 * len(study.cases)
    (common,) = {(each.config.seeds, each.config.search_seeds, each.config.budget, each.config.eps) for each in held}
    assert common[:2] == (tuple(range(6)), (SEARCH_FROM, SEARCH_FROM + 1))
    assert sum(isinstance(step.config, Agree) for step in known) == len(study.agreements) == 5
    assert trials(study) == []


def test_jobs_are_what_workers_read():
    for job in jobs_of(plan("tiny"), {}):
        assert read(job.config).model_dump(mode="json") == job.config
        assert job.id == identity(job.config)
        assert job.cost > 0
    with pytest.raises(ValueError, match="'simulate', 'agree'"):
        read(job.config | {"kind": "measure"})


def test_a_search_goes_on_beyond_the_edge_until_its_extensions_are_used_up():
    study = synthetic.study(extensions=2, ratio=2, noise=0.1, depth=0, variations="none")
    planted = synthetic.Planted(loss=lambda name, rate, seed: 1 / (1 + rate))
    results = {}
    rounds = []
    while new := [step for step in steps(study, results) if step.job.id not in results]:
        rounds.append({(step.arm, step.config.rates) for step in new if step.case is not None})
        results |= {step.job.id: synthetic.result(step, planted) for step in new}
    assert [dict(each)["sgd"] for each in rounds] == [(0.1, 0.3), (0.9, 2.7), (8.1, 24.0)]
    names = [step.job.name for step in steps(study, results)]
    assert sum(name.endswith("rates beyond the edge") for name in names) == 2 * 3 * 2  # of the map and of the control


def test_two_cases_that_ask_for_one_job_share_it():
    study = plan("tiny", {"depth": [0, 2], "variations": "deep"})
    found = jobs_of(study, {})
    assert len({job.id for job in found}) == len(found) == len(outline(study)) < len(steps(study, {}))


def test_more_members_steps_and_layers_cost_more():
    def of(**settings):
        study = plan("tiny", {"variations": "none", **settings})
        return sum(cost(step.config) for step in steps(study, {}) if step.case is not None)

    assert of() < of(budget=600) < of(budget=600, seeds=20) < of(budget=600, seeds=20, depth=1)


@given(budget=st.integers(1, 10_000), looks=st.integers(1, 200))
def test_evaluations_begin_at_zero_grow_apart_geometrically_and_end_at_the_budget(budget, looks):
    given = {"components": {}, "optimizer": {"name": "sgd"}, "eps": (0.1,), "rates": (0.1,), "seeds": (0,)}
    found = Simulate.model_validate(given | {"budget": budget, "looks": looks}).steps
    assert (found[0], found[1], found[-1]) == (0, 1, budget)
    assert len(found) <= looks + 2
    assert all(first < second for first, second in pairwise(found))
    factor = budget ** (1 / looks)
    assert all(second <= factor * (first + 0.5) + 0.5 + 1e-6 for first, second in pairwise(found[1:]))


# -- scores of the search --------------------------------------------------------------------------


def member(rate, loss, *, is_search=True, end=0.7, diverged=None, step=20.0):
    values = None if loss is None else {"validation_loss": loss}
    at = [{"values": values, "step": None if loss is None else step}]
    curve = [1.0, None if diverged else end]
    return {"rate": rate, "is_search": is_search, "diverged_at": diverged, "train_loss": curve, "at": at}


@pytest.mark.parametrize(
    ("members", "expected", "chosen"),
    [
        # the mean over the seeds that choose
        ([member(0.1, 0.25), member(0.1, 0.75), member(0.1, 9.0, is_search=False)], {0.1: (0, 0.5)}, 0.1),
        # rates at which a seed does not reach the loss come after all that do
        (
            [member(0.1, 0.9), member(0.1, 0.9), member(0.3, 0.1), member(0.3, None)],
            {0.1: (0, 0.9), 0.3: (1, 0.1)},
            0.1,
        ),
        # Bug: a rate that leapt from a loss of 2 to 0.2 and to 1e-7 was the best, by a validation loss read between
        # the leaps. Rates that leap over the loss come after all that step down to it.
        (
            [member(0.1, 0.5), member(0.1, 0.5), member(1.0, 0.4, step=4.9), member(1.0, 0.4, step=5.0)],
            {0.1: (0, 0.5), 1.0: (1, 0.4)},
            0.1,
        ),
        # where none reaches it, the smallest train loss at the end counts
        (
            [member(0.1, None, end=0.7), member(0.3, None, end=0.6), member(1.0, None, diverged=3)],
            {0.1: (1, 0.7), 0.3: (1, 0.6), 1.0: (1, math.inf)},
            0.3,
        ),
        (
            [member(0.1, None, diverged=1), member(0.3, None, diverged=1)],
            {0.1: (1, math.inf), 0.3: (1, math.inf)},
            None,
        ),
    ],
)
def test_a_rate_is_scored_by_the_validation_loss_at_the_loss(members, expected, chosen):
    found = scores(members, 0)
    assert found == expected
    assert best(found, POLICY) == chosen


def test_values_that_are_no_numbers_are_not_reached():
    assert loss_at({"at": [{"values": {"validation_loss": None}}]}, 0) is None

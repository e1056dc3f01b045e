import math

import pytest

from muonlab.jobs import store
from muonlab.studies.components import KEYS, PRESETS, ComponentStudy, begin, plan
from muonlab.studies.components.config import Agree, Simulate
from muonlab.studies.components.jobs import steps
from muonlab.studies.components.plan import middle
from muonlab.study.settings import UsageError


def mapped(study):
    return [case for case in study.cases if case.role == "map"]


def test_the_map_has_every_ratio_at_every_noise_and_depth():
    study = plan("tiny", {"ratio": [1, 4], "noise": [0, 0.3], "depth": [0, 1]})
    found = {(c.map, c.components.noise, c.components.ratio) for c in mapped(study)}
    assert found == {(f"depth {d}", n, r) for d in (0, 1) for r in (1, 4) for n in (0, 0.3)}
    assert len(mapped(study)) == 8


def test_every_field_is_an_axis_and_makes_a_map_of_its_own():
    study = plan("tiny", {"patterns": ["tree", "random"], "depth": [0, 1], "dimension": [8, 16], "variations": "none"})
    assert {case.map for case in mapped(study)} == {
        f"depth {depth}, dimension {dimension}, patterns {patterns}"
        for depth in (0, 1)
        for dimension in (8, 16)
        for patterns in ("tree", "random")
    }
    assert len({case.name for case in study.cases}) == len(study.cases)


@pytest.mark.parametrize(("ratios", "expected"), [([1, 2, 4], 2), ([4, 1, 2, 8], 2), ([3], 3)])
def test_variations_start_from_the_middle_of_the_first_map(ratios, expected):
    study = plan("tiny", {"ratio": ratios, "noise": [0, 0.1, 0.2], "depth": [1, 0]})
    base = study.base
    assert (base.components.ratio, base.components.noise, base.net.depth) == (expected, 0.1, 1)
    assert middle(reversed([c for c in mapped(study) if c.map == base.map])) == base


def test_there_is_one_control():
    study = plan("tiny")
    (control,) = [case for case in study.cases if case.role == "control"]
    assert control.components.spurious == control.components.num_components == 3


SQUARED = {"loss": ["softmax", "squared"]}


def test_given_losses_bring_their_middle_and_the_same_shares_of_the_squared_loss():
    study = plan("tiny", {"eps": [1, 0.5, 0.1]})
    assert study.main == 1
    assert study.squared_eps == pytest.approx([eps / math.log(4) * 0.75 / 2 for eps in study.eps], rel=0.01)


def test_losses_fall_and_the_main_one_has_its_place_among_those_of_squared_loss():
    study = plan("tiny", {"eps": [0.1, 1, 0.5], "squared_eps": [0.1, 0.3, 0.2], "main_eps": 0.5, **SQUARED})
    assert (study.eps, study.squared_eps, study.main) == ((1, 0.5, 0.1), (0.3, 0.2, 0.1), 1)
    squared = plan("tiny", SQUARED)
    assert {squared.eps_of(case) for case in mapped(squared) if case.loss == "squared"} == {squared.squared_eps}


def test_strengths_are_a_name_or_numbers_of_one_problem_and_then_have_no_ratio():
    study = plan("tiny", {"strengths": [2, 0.5], "variations": "none"})
    assert [case.components.strengths for case in mapped(study)] == [(2.0, 0.5)]
    assert {case.components.strengths for case in mapped(plan("tiny", {"strengths": "power"}))} == {"power"}


def test_the_tree_is_a_list():
    (first, *_) = plan("tiny", {"classes": 6, "tree": [3, 2], "dimension": 8}).cases
    assert first.components.tree == (3, 2)


def test_closed_forms_are_held_against_simulation_where_there_are_any():
    flows = [(each.loss, each.flow) for each in plan("tiny").agreements]
    assert ("softmax", "gradient") in flows
    assert ("squared", "spectral") in flows
    assert {each.loss for each in plan("tiny", {"patterns": "random"}).agreements} == {"squared"}


# For every key, a value that is not its default in the preset tiny, and what must be given beside it.
VALUES: dict[str, tuple[object, dict[str, object]]] = {
    "optimizers": (["sgd", "muon"], {}),
    "seeds": (7, {}),
    "search_seeds": (3, {}),
    "extensions": (1, {}),
    "eps": ([0.9, 0.4], {}),
    "squared_eps": ([0.34, 0.2], {"loss": "squared"}),
    "main_eps": (1, {}),
    "budget": (70, {}),
    "looks": (10, {}),
    "variations": ("random", {}),
    "agree_steps": ([8, 16], {}),
    "classes": (6, {}),
    "dimension": (9, {}),
    "rank": (1, {"variations": "none"}),
    "patterns": ("random", {}),
    "tree": ([4], {"classes": 4}),
    "strengths": ("power", {}),
    "ratio": (3, {}),
    "scale": (3, {}),
    "rotation": (0.5, {}),
    "imbalance": (2, {}),
    "noise": (0.2, {}),
    "spurious": (1, {}),
    "train": (65, {}),
    "validation": (65, {}),
    "test": (65, {}),
    "depth": (1, {}),
    "width": (32, {"depth": 1}),
    "activation": ("gelu", {"depth": 1}),
    "loss": ("squared", {}),
    "batch": (16, {}),
    "muon.momentum": (0.5, {}),
    "muon.nesterov": ("false", {}),
    "muon.weight_decay": (0.2, {}),
    "muon.steps": (3, {}),
    "muon.method": ("exact", {}),
    "adamw.beta1": (0.5, {}),
    "adamw.beta2": (0.5, {}),
    "adamw.eps": (1e-6, {}),
    "adamw.weight_decay": (0.2, {}),
    "sgd.momentum": (0.5, {}),
    "sgd.weight_decay": (0.2, {}),
    "sgd.nesterov": ("true", {}),
    "muon.rates": ([0.5, 0.7], {}),
    "adamw.rates": ([0.5, 0.7], {}),
    "sgd.rates": ([0.5, 0.7], {}),
}


def test_every_key_has_a_value_here():
    assert set(VALUES) == set(KEYS)


@pytest.mark.parametrize("key", [key for key in KEYS if key not in ("extensions", "main_eps")])
def test_every_setting_changes_the_jobs(key):
    value, beside = VALUES[key]
    jobs_before, jobs_after = (
        {step.job.id for step in steps(plan("tiny", settings), {})} for settings in (beside, {**beside, key: value})
    )
    assert jobs_before != jobs_after


def test_extensions_and_the_main_loss_change_the_study():
    assert plan("tiny", {"extensions": 1}).searches["sgd"].extensions == 1
    assert plan("tiny", {"main_eps": 1}).main != plan("tiny").main


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"nois": 1}, "unknown setting 'nois'; did you mean 'noise'?"),
        ({"optimizers": "muom"}, "unknown optimizer 'muom'; did you mean 'muon'?"),
        ({"optimizers": ["muon", "muon"]}, "names muon twice"),
        ({"variations": "alined"}, "unknown variation 'alined'; did you mean 'aligned'?"),
        ({"variations": ["none", "deep"]}, "names none and others"),
        ({"rank": 9}, "rank=9 for 4 classes: expected 1 to 3"),
        ({"rank": 4}, "rank=4 for 4 classes: expected 1 to 3"),
        ({"dimension": 2}, "3 components in 2 inputs: directions are orthonormal, so raise dimension to 3"),
        ({"classes": 1}, "classes=1: expected two or more"),
        ({"strengths": [1, 2]}, "expected numbers above 0 that do not rise"),
        ({"strengths": [3, 2, 1], "variations": "none"}, "expected 2 numbers, one for each level of the tree"),
        ({"strengths": [3, 2], "variations": "random"}, "variation random: strengths=[3.0, 2.0]: expected 3 numbers"),
        ({"strengths": "geometrc"}, "unknown strengths 'geometrc'; did you mean 'geometric'?"),
        ({"strengths": ["power", "equal"]}, "strengths=power,equal is not valid"),
        ({"tree": [2, 3]}, "tree=(2, 3) has 6 classes, but classes=4"),
        ({"tree": [4], "patterns": "random"}, "tree has no effect: patterns=random have no tree"),
        ({"ratio": 0.5}, "ratio=0.5 is not valid; expected at least 1"),
        ({"ratio": 3, "strengths": "equal"}, "ratio has no effect: strengths=equal say it all"),
        ({"noise": -1}, "noise=-1 is not valid; expected at least 0"),
        ({"spurious": 4}, "spurious=4 of 3 components"),
        ({"batch": 65}, "batch=65 of 64 training examples"),
        ({"depth": 3}, "depth=3 is not valid; expected at most 2"),
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
        ({"muon.rates": 0.1}, "muon.rates=0.1 is not valid; expected two numbers or more"),
        ({"muon.momentum": [0, 0.5]}, "muon.momentum=0,0.5 is not valid; expected one value, not 2"),
        ({"sgd.rates": [1, 2], "optimizers": "muon"}, "sgd.rates has no effect"),
        ({"seeds": 0}, "seeds=0 is not valid; expected one whole number from 1"),
    ],
)
def test_what_cannot_be_is_said(settings, message):
    with pytest.raises(UsageError) as error:
        plan("tiny", settings)
    assert message in str(error.value)


def test_an_unknown_preset_is_named():
    with pytest.raises(UsageError, match="unknown preset 'tinny'; did you mean 'tiny'"):
        plan("tinny")


@pytest.mark.parametrize("preset", PRESETS)
def test_a_study_comes_back_from_its_file(preset, tmp_path):
    study = plan(preset, {"seeds": 9})
    begin(study, tmp_path)
    file = store.read(tmp_path)
    assert (file.study, file.preset, file.settings) == ("components", preset, {"seeds": ["9"]})
    assert ComponentStudy.model_validate({**file.config, "preset": preset, "settings": file.settings}) == study


def test_optimizers_of_one_problem_share_seeds_losses_and_budget():
    held = [step.config for step in steps(plan("laptop"), {}) if isinstance(step.config, Simulate)]
    assert len({(each.seeds, each.search_seeds, len(each.rates), each.budget) for each in held}) == 1
    assert not set(held[0].seeds) & set(held[0].search_seeds)
    assert {type(step.config) for step in steps(plan("tiny"), {})} == {Simulate, Agree}

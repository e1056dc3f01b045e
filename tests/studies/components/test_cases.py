import numpy as np
import pytest

from muonlab.studies.components import plan
from muonlab.studies.components.cases import (
    VARIATIONS,
    agreements,
    check,
    closed_form,
    problem_of,
    shuffled,
    vary,
    weakest,
)
from muonlab.studies.components.config import Components
from muonlab.study.settings import UsageError


def test_a_problem_has_the_strengths_and_patterns_that_its_config_says():
    problem = problem_of(Components(classes=8, ratio=4.0, scale=2.0))
    assert problem.strengths.tolist() == [2, 1, 1, 0.5, 0.5, 0.5, 0.5]
    assert np.allclose(problem.patterns.T @ problem.patterns, np.eye(7))


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
def test_where_flows_have_a_closed_form(settings, softmax, squared):
    components = Components(**settings)
    assert (closed_form(components) is not None) is softmax
    assert (closed_form(components, "squared") is not None) is squared


def test_agreements_are_without_noise_and_of_what_has_a_closed_form():
    found = agreements(Components(noise=0.3, spurious=2, imbalance=3.0), (10, 20))
    assert {(each.components.noise, each.components.spurious, each.components.imbalance) for each in found} == {
        (0, 0, 1)
    }
    assert {each.loss for each in agreements(Components(patterns="random"), (10, 20))} == {"squared"}


def test_the_control_has_no_component_with_information():
    control = shuffled(plan("tiny").base)
    assert (control.role, control.components.spurious) == ("control", 3)


def test_a_variation_that_cannot_be_is_named_with_what_to_do():
    base = plan("tiny").base
    wrong = base.components.model_copy(update={"dimension": 2})
    case = base.model_copy(update={"role": "variation", "map": "random", "components": wrong})
    with pytest.raises(UsageError, match=r"variation random: 3 components in 2 inputs.*leave it out of variations"):
        check(case, (0.5,), 0, 10, 5)


# -- variations ------------------------------------------------------------------------------------

BASE = plan("laptop").base


def difference(name):
    """Return the fields in which a variation differs from the base."""
    varied = vary(name, BASE)
    assert varied is not None
    before, after = (case.model_dump(exclude={"name", "role", "map"}) for case in (BASE, varied))
    return {
        (*((part,) if part != "optimizers" else ()), key): value
        for part in after
        for key, value in (after[part].items() if isinstance(after[part], dict) else [("", after[part])])
        if value != (before[part][key] if isinstance(after[part], dict) else before[part])
    }


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("random", {("components", "patterns"): "random"}),
        ("aligned", {("components", "rotation"): 0.0}),
        ("spurious", {("components", "spurious"): 4}),
        ("imbalance", {("components", "imbalance"): 10.0}),
        ("few", {("components", "train"): 32}),
        ("batches", {("batch", ""): 32}),
        ("squared", {("loss", ""): "squared"}),
        ("deep", {("net", "depth"): 2}),
        ("power", {("components", "strengths"): "power"}),
    ],
)
def test_a_variation_changes_one_factor(name, changed):
    assert difference(name) == changed


def test_momentum_and_weight_decay_change_every_optimizer():
    still = {each.name: each for each in vary("momentum", BASE).optimizers}
    assert (still["muon"].momentum, still["sgd"].momentum, still["adamw"].beta1) == (0, 0, 0)
    assert {each.weight_decay for each in vary("decay", BASE).optimizers} == {0.1}


@pytest.mark.parametrize("name", VARIATIONS)
def test_a_variation_of_itself_is_none(name):
    varied = vary(name, BASE)
    again = None if name in ("few", "batches") else vary(name, varied.model_copy(update={"role": "map"}))
    assert varied.role == "variation"
    assert (varied.map, varied.name) == (name, VARIATIONS[name][0](varied))
    if again is not None:  # only names differ, which are no factor
        assert again.model_dump(exclude={"name", "map", "role"}) == varied.model_dump(exclude={"name", "map", "role"})


def test_a_setting_that_is_a_variation_already_is_left_out():
    study = plan("laptop", {"patterns": "random", "rotation": 0})
    assert not {"random", "aligned"} & {case.map for case in study.cases if case.role == "variation"}


@pytest.mark.parametrize(
    ("settings", "number"),
    [({}, 4), ({"classes": 2}, 1), ({"patterns": "random"}, 1), ({"rank": 5}, 2), ({"classes": 5, "dimension": 8}, 1)],
)
def test_the_weakest_are_those_of_the_last_level_or_the_last_one(settings, number):
    assert weakest(Components(**settings)) == number


def test_a_problem_that_cannot_be_has_no_weakest():
    with pytest.raises(UsageError, match="expected 3 numbers"):
        weakest(Components(strengths=(1.0,)))

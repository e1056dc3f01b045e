import numpy as np
import pytest

from muonlab.studies.components import plan
from muonlab.studies.components.config import Components
from muonlab.studies.components.problems import agreements, check, closed_form, problem_of, shuffled
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


def test_a_case_knows_the_settings_of_each_optimizer():
    assert plan("tiny", {"sgd.momentum": 0.5}).base.optimizer("sgd").momentum == 0.5


def test_a_variation_that_cannot_be_is_named_with_what_to_do():
    base = plan("tiny").base
    wrong = base.components.model_copy(update={"dimension": 2})
    case = base.model_copy(update={"role": "variation", "map": "random", "components": wrong})
    with pytest.raises(UsageError, match=r"variation random: 3 components in 2 inputs.*leave it out of variations"):
        check(case, (0.5,), 0, 10, 5)

import dataclasses
import json

import pytest

from muonlab.stats import blocked, comparison, effects, multiplicity, proportions, recomputation, survival
from muonlab.stats.results import Estimate, TestResult, upper_probability

TIMES = [10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0]
CROSSED = [True, True, False, True, True, True, True, False]
IS_FIRST = [True, True, False, False] * 2
BLOCKS = ["add"] * 4 + ["mul"] * 4
FIRST, SECOND = [1, 2, 3, 4, 6], [3, 5, 7, 8]


def every_result():
    yield survival.median_time(survival.kaplan_meier(TIMES, CROSSED))
    yield survival.restricted_mean(TIMES, CROSSED, 60)
    yield survival.log_rank(TIMES, CROSSED, IS_FIRST, BLOCKS)
    for compare in (
        comparison.welch,
        comparison.mann_whitney,
        comparison.hodges_lehmann,
        comparison.cliffs_delta,
    ):
        yield compare(FIRST, SECOND)
    yield comparison.cliffs_delta([1, 2], [3, 4])
    yield blocked.permutation_test(TIMES, IS_FIRST, BLOCKS)
    yield blocked.permutation_test(TIMES, IS_FIRST, BLOCKS, resamples=10)
    yield blocked.blocked_ratio(TIMES, CROSSED, IS_FIRST, BLOCKS, 60, resamples=100)
    yield proportions.wilson(3, 4)
    yield effects.mean(FIRST)
    yield effects.difference(FIRST, SECOND).estimate
    yield effects.pooled([effects.difference(FIRST, SECOND)]).estimate


def test_results_hold_python_numbers_only():
    for result in every_result():
        assert result.reason is None, result
        plain = dataclasses.asdict(result)
        for field, value in plain.items():
            numbers = value if isinstance(value, tuple) else (value,)
            assert {type(number) for number in numbers} <= {int, float, str, type(None)}, (field, result)
        assert json.loads(json.dumps(plain, allow_nan=False)) == {
            field: list(value) if isinstance(value, tuple) else value for field, value in plain.items()
        }


def test_numbers_outside_of_results_are_python_numbers_too():
    assert type(proportions.chance_limit(0.5, 100, 10)) is float
    assert type(recomputation.smallest_two_sided_p(2.0)) is float
    assert type(multiplicity.holm({"only": 0.5})["only"]) is float
    assert {type(number) for number in effects.linear_fit(FIRST[:4], SECOND)} == {float}
    assert type(effects.logit(1, 10)) is float


def test_results_are_frozen():
    for result in (Estimate(1.0, None, None, 0.95, 1), TestResult("test", None, None, (0, 0))):
        with pytest.raises(dataclasses.FrozenInstanceError):
            result.reason = "changed"


@pytest.mark.parametrize("level", [0, 1, 95, -0.5, float("nan")])
def test_a_level_outside_zero_to_one_is_refused(level):
    with pytest.raises(ValueError, match="level"):
        upper_probability(level)


def test_upper_probability():
    assert upper_probability(0.95) == 0.975

"""What every function of this room returns and refuses."""

import dataclasses
import json

import numpy as np
import pytest

from muonlab.stats import blocked, comparison, effects, p_values, proportions, survival
from muonlab.stats.results import upper_probability

TIMES = [10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0]
CROSSED = [True, True, False, True, True, True, True, False]
IS_FIRST = [True, True, False, False] * 2
BLOCKS = ["add"] * 4 + ["mul"] * 4
FIRST, SECOND = [1, 2, 3, 4, 6], [3, 5, 7, 8]
OF_TWO_GROUPS = {
    "welch": comparison.welch,
    "mann_whitney": comparison.mann_whitney,
    "hodges_lehmann": comparison.hodges_lehmann,
    "cliffs_delta": comparison.cliffs_delta,
    "difference": effects.difference,
    "paired": effects.paired,
}


def every_result():
    yield survival.median_time(survival.kaplan_meier(TIMES, CROSSED))
    yield survival.restricted_mean(TIMES, CROSSED, 60)
    yield survival.log_rank(TIMES, CROSSED, IS_FIRST, BLOCKS)
    for name in ("welch", "mann_whitney", "hodges_lehmann", "cliffs_delta", "difference"):
        yield OF_TWO_GROUPS[name](FIRST, SECOND)
    yield effects.paired(FIRST[:4], SECOND)
    yield comparison.cliffs_delta([1, 2], [3, 4])
    yield blocked.permutation_test(TIMES, IS_FIRST, BLOCKS)
    yield blocked.permutation_test(TIMES, IS_FIRST, BLOCKS, resamples=10)
    yield blocked.blocked_ratio(TIMES, [True] * len(TIMES), IS_FIRST, BLOCKS, 60)
    yield blocked.ratio_test(TIMES, CROSSED, IS_FIRST, BLOCKS, 60)
    yield blocked.permuted_log_rank(TIMES, CROSSED, IS_FIRST, BLOCKS)
    yield proportions.wilson(3, 4)
    yield effects.mean(FIRST)


def test_results_are_frozen_and_hold_python_numbers_only():
    for result in every_result():
        plain = dataclasses.asdict(result)
        assert json.loads(json.dumps(plain, allow_nan=False)) == {
            field: list(value) if isinstance(value, tuple) else value for field, value in plain.items()
        }
        parts = plain.pop("estimate", {}) | plain
        assert parts["reason"] is None
        for field, value in parts.items():
            numbers = value if isinstance(value, tuple) else (value,)
            assert {type(number) for number in numbers} <= {int, float, str, type(None)}, (field, result)
        with pytest.raises(dataclasses.FrozenInstanceError):
            result.n = 0


def test_numbers_outside_of_results_are_python_numbers_too():
    assert type(proportions.chance_limit(0.5, 100, 10)) is float
    assert type(p_values.smallest_two_sided_p(2.0)) is float
    assert type(p_values.holm({"only": 0.5})["only"]) is float
    assert type(effects.logit(1, 10)) is float


@pytest.mark.parametrize("use", OF_TWO_GROUPS.values(), ids=OF_TWO_GROUPS)
def test_numbers_that_are_not_a_group_are_refused_on_both_sides(use):
    for bad in ([1.0, np.nan], [1.0, np.inf], [[1.0, 2.0]]):
        for arguments in ((bad, [1.0, 2.0]), ([1.0, 2.0], bad)):
            with pytest.raises(ValueError, match=r"must be \(n,\) finite numbers, got shape"):
                use(*arguments)


@pytest.mark.parametrize(
    "use",
    [
        upper_probability,
        lambda level: effects.difference([], [], level),
        lambda level: effects.paired([], [], level),
        lambda level: effects.mean([], level),
        lambda level: proportions.wilson(0, 0, level),
        lambda level: comparison.hodges_lehmann([], [], level),
        lambda level: comparison.cliffs_delta([], [], level),
    ],
)
def test_a_wrong_level_is_refused_where_there_is_no_interval_too(use):
    for level in (0, 1, 95, -0.5, float("nan")):
        with pytest.raises(ValueError, match=r"level is .*, such as 0\.95"):
            use(level)


@pytest.mark.parametrize(
    ("times", "crossed", "message"),
    [
        ([1, 2], [True], "must both be"),
        ([[1, 2]], [[True, False]], "must both be"),
        ([1, np.inf], [True, False], "not finite"),
        ([1, np.nan], [True, False], "not finite"),
        ([1, -2], [True, False], "negative"),
    ],
)
def test_bad_durations_are_refused(times, crossed, message):
    for use in (
        survival.kaplan_meier,
        lambda t, c: survival.restricted_mean(t, c, 5),
        lambda t, c: survival.log_rank(t, c, c),
    ):
        with pytest.raises(ValueError, match=message):
            use(times, crossed)


@pytest.mark.parametrize("horizon", [0, -1, np.inf, np.nan])
def test_an_impossible_horizon_is_refused(horizon):
    with pytest.raises(ValueError, match="horizon"):
        survival.restricted_mean([3], [True], horizon)
    with pytest.raises(ValueError, match="horizon"):
        blocked.blocked_ratio(TIMES, CROSSED, IS_FIRST, BLOCKS, horizon)


def test_values_of_a_permutation_test_that_are_not_numbers_are_refused():
    for bad in ([1.0, np.nan, 2.0, 3.0], [1.0, 2.0, 3.0]):
        with pytest.raises(ValueError, match=r"not a number|must be \(n,\)"):
            blocked.permutation_test(bad, [True, True, False, False], [0] * 4)

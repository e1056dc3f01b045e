"""The pace is what its formula says at every step, and never 0 before the floor."""

import math

import pytest
import torch

from muonlab.train.schedule import pace

BUDGET = 40  # with a twentieth of warm-up: 2 steps


def paces(budget=BUDGET, **options):
    return [pace(step, budget, **options) for step in range(budget)]


def test_the_warm_up_climbs_from_its_share_of_one_step_to_one():
    assert paces(warmup=0.1)[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert paces(warmup=1.0) == [(step + 1) / BUDGET for step in range(BUDGET)]
    assert paces()[:3] == [0.5, 1.0, 1.0]


def test_a_constant_stays_and_has_no_floor():
    assert paces(kind="constant", warmup=0.0, floor=0.5) == [1.0] * BUDGET
    assert paces(kind="constant", warmup=0.5)[20:] == [1.0] * 20


@pytest.mark.parametrize("floor", [0.0, 0.3, 1.0])
def test_linear_goes_down_by_equal_parts_of_which_the_last_is_left(floor):
    found = paces(warmup=0.5, floor=floor)[20:]
    assert found == pytest.approx([1 - (1 - floor) * step / 20 for step in range(20)], rel=1e-15)
    assert found[0] == 1.0
    assert found[-1] - floor == pytest.approx((1 - floor) / 20)


@pytest.mark.parametrize("floor", [0.0, 0.3])
def test_cosine_is_the_scheduler_of_torch(floor):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=BUDGET, eta_min=floor)
    for found in paces(kind="cosine", warmup=0.0, floor=floor):
        assert found == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12)
        optimizer.step()
        scheduler.step()
    assert paces(kind="cosine", warmup=0.0, floor=floor)[BUDGET // 2] == pytest.approx((1 + floor) / 2)


@pytest.mark.parametrize("floor", [0.0, 0.3])
def test_stable_stays_until_the_last_fifth_and_is_linear_there(floor):
    found = paces(kind="stable", warmup=0.0, floor=floor)
    assert found[:33] == [1.0] * 33
    assert found[32:] == pytest.approx(paces(budget=8, kind="linear", warmup=0.0, floor=floor))


def test_a_budget_too_short_for_a_warm_up_has_none():
    assert paces(budget=3) == pytest.approx([1, 2 / 3, 1 / 3])
    assert paces(budget=1) == [1.0]


@pytest.mark.parametrize(
    ("step", "budget", "options", "message"),
    [
        (BUDGET, BUDGET, {}, "step=40 is outside of a budget of 40 steps; expected 0 to 39"),
        (-1, BUDGET, {}, "step=-1 is outside"),
        (0, 0, {}, "step=0 is outside of a budget of 0"),
        (0, BUDGET, {"warmup": -0.1}, "warmup=-0.1 is out of range; expected a number from 0 to 1"),
        (0, BUDGET, {"floor": 1.1}, "floor=1.1 is out of range"),
        (0, BUDGET, {"floor": math.nan}, "floor=nan is out of range"),
        (0, BUDGET, {"kind": "step"}, "kind='step' is unknown; expected one of constant, linear, cosine"),
    ],
)
def test_arguments_out_of_range_are_refused(step, budget, options, message):
    with pytest.raises(ValueError, match=message):
        pace(step, budget, **options)

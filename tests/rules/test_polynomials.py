from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from matrices import with_spectrum
from muonlab.rules import polynomials
from muonlab.rules.polar import orthogonalize
from muonlab.rules.polynomials import ERROR, JORDAN, SAFETY, cubic, evaluate, polar_express

QUINTIC, CUBIC = polynomials._minimax_quintic, polynomials._minimax_cubic
INTERVALS = [(0.05, 1.0), (0.02, 1.9), (0.3, 1.7), (0.6, 1.3), (0.93, 1.07)]
SCHEDULES = [polar_express, cubic]
# Amsel et al. 2025, arXiv 2505.16932, listing of algorithm 1, without the safety factor of 1.01.
PUBLISHED = [
    (8.28721201814563, -23.595886519098837, 17.300387312530933),
    (4.107059111542203, -2.9478499167379106, 0.5448431082926601),
    (3.9486908534822946, -2.908902115962949, 0.5518191394370137),
    (3.3184196573706015, -2.488488024314874, 0.51004894012372),
    (2.300652019954817, -1.6689039845747493, 0.4188073119525673),
    (1.891301407787398, -1.2679958271945868, 0.37680408948524835),
    (1.8750014808534479, -1.2500016453999487, 0.3750001645474248),
    (1.875, -1.25, 0.375),
]


def compose(found, x):
    for polynomial in found:
        x = evaluate(polynomial, x)
    return x


def without_safety(found):
    return [(a * SAFETY, b * SAFETY**3, c * SAFETY**5) for a, b, c in found[:-1]] + [found[-1]]


def reach(found):
    """Return the smallest number down to which all come within ERROR of one, on a grid of steps of .02 %."""
    x = np.logspace(-6, 0, 70_001)
    inside = np.abs(compose(found, x) - 1) <= ERROR * (1 + 1e-6)
    return x[np.flatnonzero(~inside)[-1] + 1]


def by_linear_program(low, high, powers):
    """Return coefficients and error of the odd polynomial nearest to one: min E with |p(x) - 1| <= E on a grid."""
    x = (low + high) / 2 - (high - low) / 2 * np.cos(np.linspace(0, np.pi, 2001))
    V, ones = np.stack([x**power for power in powers], axis=1), np.ones((len(x), 1))
    found = linprog(
        [0] * len(powers) + [1],
        A_ub=np.block([[V, -ones], [-V, -ones]]),
        b_ub=np.concatenate([np.ones(len(x)), -np.ones(len(x))]),
        bounds=[(None, None)] * len(powers) + [(0, None)],
        method="highs",
    )
    assert found.success
    return found.x[:-1], found.x[-1]


@pytest.mark.parametrize(("minimax", "powers"), [(QUINTIC, (1, 3, 5)), (CUBIC, (1, 3))])
def test_no_other_polynomial_is_nearer_to_one(minimax, powers):
    for low, high in INTERVALS:
        found, peak = minimax(low, high)
        coefficients, error = by_linear_program(low, high, powers)
        assert peak - 1 == pytest.approx(error, rel=1e-4)
        np.testing.assert_allclose(found[: len(powers)], coefficients, rtol=1e-4)


@given(st.floats(0.01, 0.99), st.floats(0.1, 10))
@settings(deadline=None)
@pytest.mark.parametrize("minimax", [QUINTIC, CUBIC])
def test_a_wider_interval_of_the_same_shape_has_the_same_polynomial_in_its_own_unit(minimax, low, unit):
    (a, b, c), peak = minimax(low, 1.0)
    scaled, scaled_peak = minimax(low * unit, unit)
    assert scaled_peak == pytest.approx(peak, rel=1e-9)
    assert scaled == pytest.approx((a / unit, b / unit**3, c / unit**5), rel=1e-6)


@pytest.mark.parametrize(
    ("minimax", "limit"), [(QUINTIC, (15 / 8, -10 / 8, 3 / 8)), (CUBIC, (1.5, -0.5, 0.0))], ids=["quintic", "cubic"]
)
def test_on_a_narrow_interval_it_is_the_polynomial_flat_at_one(minimax, limit):
    for width in [1e-3, 4.9e-3, 5.1e-3, 1e-5, 1e-12]:
        found, peak = minimax(1 - width, 1.0)
        x = np.linspace(1 - width, 1, 101)
        np.testing.assert_allclose(evaluate(found, x), evaluate(limit, x), rtol=0, atol=2 * width**2 + 1e-15)
        np.testing.assert_allclose(evaluate(found, x), 1, rtol=0, atol=3 * width ** (3 if limit[2] else 2) + 1e-15)
        assert peak == pytest.approx(1, abs=width**2 + 1e-15)


def test_the_published_coefficients_are_reproduced_with_the_constants_of_the_paper(monkeypatch):
    monkeypatch.setattr(polynomials, "CUSHION", 0.02407327424182761)
    found, error = polynomials._greedy(1e-3, len(PUBLISHED), QUINTIC)
    for ours, theirs in zip(found[:6], PUBLISHED, strict=False):
        assert ours == pytest.approx(theirs, rel=1e-12)
    # The seventh interval is so narrow that ours is the polynomial flat at its upper end, theirs still the minimax one.
    low = compose(PUBLISHED[:6], 1e-3)
    x = np.linspace(low, 2 - low, 1001)
    np.testing.assert_allclose(evaluate(found[6], x), evaluate(PUBLISHED[6], x), rtol=0, atol=1e-6)
    assert found[7] == pytest.approx(PUBLISHED[7], rel=1e-6)
    assert error < 1e-6


@pytest.mark.parametrize("minimax", [QUINTIC, CUBIC])
def test_the_reported_error_is_the_largest_on_the_interval(minimax):
    for smallest in [0.3, 0.05, 1e-3, 1e-5]:
        for steps in [1, 2, 5]:
            found, error = polynomials._greedy(smallest, steps, minimax)
            assert len(found) == steps
            x = np.logspace(np.log10(smallest), 0, 30_001)
            assert np.abs(compose(found, x) - 1).max() == pytest.approx(error, rel=1e-4)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_schedule_stays_within_its_error_down_to_where_it_reaches(schedule):
    for steps in [1, 2, 3, 4, 5, 6, 7]:
        found = without_safety(schedule(steps))
        assert len(found) == steps
        end = reach(found)
        x = np.logspace(np.log10(end), 0, 30_001)
        assert np.abs(compose(found, x) - 1).max() == pytest.approx(ERROR, rel=1e-3)
        below = np.logspace(-9, np.log10(end), 30_001)[:-1]
        left = compose(found, below)
        assert ((left > 0) & (left < 1 - ERROR * (1 - 1e-3))).all()  # what lies below has not got there, nor overshot
        assert (np.diff(left) > 0).all()


def test_the_stated_reach_of_four_five_and_six_quintics():
    ends = [reach(without_safety(polar_express(steps))) for steps in (4, 5, 6)]
    assert ends == pytest.approx([0.006, 0.0014, 0.0003], rel=0.2)


@given(st.lists(st.floats(1 / SAFETY, SAFETY), min_size=7, max_size=7), st.floats(1e-4, 1))
@settings(deadline=None)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_safety_factor_takes_up_errors_of_its_size_before_each_polynomial(schedule, factors, x):
    for steps in (4, 5, 7):
        value = x
        for polynomial, factor in zip(schedule(steps)[:-1], factors, strict=False):
            value = evaluate(polynomial, value * factor)
            assert 0 < value < 2
        assert evaluate(schedule(steps)[-1], value) < 1 + 1.1 * ERROR


@given(st.floats(-1, 1), st.integers(0, 2))
def test_jordan_maps_the_unit_interval_into_itself_and_a_fifth(x, repeats):
    assume(abs(x) > 1e-3)
    value = compose([JORDAN] * (repeats + 1), abs(x))
    assert 0 < value < 1.21


@pytest.mark.parametrize("method", ["polar_express", "gram", "cubic", "aol"])
def test_many_steps_converge(method):
    spectrum = torch.logspace(0, -2, 24, dtype=torch.float64)
    G, expected = with_spectrum(spectrum, 40)
    # The polar factor of aol is that of the scaled matrix.
    errors = [
        (torch.linalg.svdvals(orthogonalize(G, method, steps=steps)) - 1).abs().max() for steps in (5, 8, 12, 16, 32)
    ]
    assert all(later <= earlier + 1e-12 for earlier, later in pairwise(errors))
    assert errors[1] < 0.01
    assert errors[-1] < 1e-6  # cubics: what the safety factor leaves
    if method != "aol":
        torch.testing.assert_close(orthogonalize(G, method, steps=16), expected, rtol=0, atol=1e-6)

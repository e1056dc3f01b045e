import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from matrices import cosine, draw, layer, with_spectrum
from muonlab.rules.iterations import bounded, newton_schulz, newton_schulz_
from muonlab.rules.polynomials import JORDAN, SAFETY, cubic, evaluate, polar_express
from muonlab.rules.workspace import Workspace

SHAPES = [(4, 4), (3, 7), (7, 3), (1, 5), (5, 1), (1, 1), (16, 40)]
each_dtype = pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])


def run(X, polynomials, stages, **hyper):
    """Return what `bounded` makes of one stack, which keeps its memory."""
    return bounded([X.clone()], polynomials, stages, **hyper)[0]


def compose(polynomials, s):
    for polynomial in polynomials:
        s = evaluate(polynomial, s)
    return s


def through_singular_values(X, function):
    """Return U f(s) V^H for each matrix of a stack."""
    U, s, Vh = np.linalg.svd(X.resolve_conj().numpy(), full_matrices=False)
    s = np.stack([function(each) for each in s.reshape(-1, s.shape[-1])]).reshape(s.shape)
    return torch.from_numpy((U * s[..., None, :]) @ Vh)


def bound(s):
    return SAFETY * (s**8).sum() ** (1 / 8)


def preconditioned(X):
    """Divide each row, or column of a tall X, by SAFETY and the root of its sum of magnitudes in the Gram matrix."""
    is_tall = X.shape[-2] > X.shape[-1]
    A = X.mH @ X if is_tall else X @ X.mH
    roots = SAFETY * A.abs().sum(-1).sqrt()
    scale = torch.where(roots > 0, 1 / roots, 0)
    return X * scale[..., None, :] if is_tall else X * scale[..., :, None]


coefficients = st.tuples(st.floats(0.5, 3), st.floats(-2, 0.5), st.floats(-0.5, 0.5))


@given(st.lists(coefficients, max_size=4), st.integers(1, 6), st.integers(0, 4), st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_newton_schulz_acts_on_the_singular_values(polynomials, rows, more, seed):
    X = draw(2, 3, rows, rows + more, seed=seed)
    X /= torch.linalg.matrix_norm(X, keepdim=True)
    copy = X.clone()
    actual = newton_schulz(X, polynomials)
    expected = through_singular_values(X, lambda s: compose(polynomials, s))
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-11 * max(1, expected.abs().max().item()))
    assert torch.equal(X, copy)


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128, torch.bfloat16])
@pytest.mark.parametrize("polynomials", [[JORDAN] * 5, [(1.5, -0.5, 0.0)] * 6], ids=["quintic", "cubic"])
def test_newton_schulz_in_place_is_the_same_but_for_rounding(polynomials, dtype):
    """Of a cubic too: in bfloat16 on a CPU, torch 2.13 ignores beta in baddbmm where alpha is zero."""
    for shape in [*SHAPES, (40, 60), (60, 40)]:
        X = draw(3, *shape).to(dtype)
        X /= torch.linalg.matrix_norm(X, keepdim=True)
        is_tall = shape[0] > shape[1]
        wide = X.to(torch.complex128 if dtype.is_complex else torch.float64)
        expected = newton_schulz(wide.mH, polynomials).mH if is_tall else newton_schulz(wide, polynomials)
        work = Workspace()
        for G in (X, X, X.mT.contiguous().mT):  # in memory that was used before as well
            actual = newton_schulz_(G.clone(), polynomials, work, "Y")
            assert actual.is_contiguous()  # into another layout, torch's products in bfloat16 take 5000 times as long
            actual = actual.to(wide.dtype)
            torch.testing.assert_close(actual, expected, rtol=0, atol=0.05 if dtype == torch.bfloat16 else 1e-11)


@given(st.data(), st.integers(1, 7), st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
@pytest.mark.parametrize("schedule", [polar_express, cubic])
@each_dtype
def test_bounded_acts_on_the_singular_values_over_their_bound_in_any_stages(
    dtype, schedule, data, steps, rows, columns, seed
):
    stages = []
    while sum(stages) < steps:
        stages.append(data.draw(st.integers(1, steps - sum(stages))))
    X = draw(3, rows, columns, seed=seed, dtype=dtype)
    expected = through_singular_values(X, lambda s: compose(schedule(steps), s / bound(s)))
    torch.testing.assert_close(run(X, schedule(steps), stages), expected, rtol=0, atol=1e-9)
    answer = run(X.mT.contiguous().mT, schedule(steps), stages)
    torch.testing.assert_close(answer, expected, rtol=0, atol=1e-9)
    assert answer.is_contiguous()  # into another layout, torch's products in bfloat16 take 5000 times as long


@pytest.mark.parametrize("shape", SHAPES)
@each_dtype
def test_bounded_acts_on_the_singular_values_of_the_preconditioned_matrix(shape, dtype):
    X = draw(3, *shape, dtype=dtype)
    for polynomials, stages in ((polar_express(4), (1, 1, 1, 1)), (polar_express(5), (2, 3)), (cubic(2), (1, 1))):
        expected = through_singular_values(preconditioned(X), lambda s, p=polynomials: compose(p, s))
        actual = run(X, polynomials, stages, preconditioned=True)
        torch.testing.assert_close(actual, expected, rtol=0, atol=1e-9)


@given(st.integers(1, 9), st.integers(1, 9), st.floats(0, 5), st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
@pytest.mark.parametrize("is_preconditioned", [False, True])
def test_the_bound_is_one(is_preconditioned, rows, columns, digits, seed):
    """With p(x) = x what comes out is what the first polynomial sees."""
    G = draw(1, rows, columns, seed=seed) * torch.logspace(0, -digits, columns, dtype=torch.float64)
    reached = torch.linalg.svdvals(run(G, [(1.0, 0.0, 0.0)], (1,), preconditioned=is_preconditioned))
    assert reached.max() <= 1 / SAFETY + 1e-12
    if not is_preconditioned:
        assert reached.max() >= min(rows, columns) ** (-1 / 8) / SAFETY - 1e-12


def test_the_stated_tightness_of_the_bound_for_a_random_matrix_of_768_rows():
    s = torch.linalg.svdvals(draw(768, 768))
    assert (s**8).sum() ** (1 / 8) / s[0] == pytest.approx(1.6, abs=0.05)
    assert s.norm() / s[0] == pytest.approx(14, abs=0.5)


def test_preconditioning_evens_out_rows_of_different_lengths():
    X = draw(1, 6, 30) * torch.logspace(0, -6, 6, dtype=torch.float64)[:, None]
    assert torch.linalg.cond(X).item() > 3e5
    for stack in (X, X.mT):
        scaled = run(stack, [(1.0, 0.0, 0.0)], (1,), preconditioned=True)
        assert torch.linalg.cond(scaled).item() < 1e3  # a row of length r beside one of length 1 becomes sqrt(r)


@pytest.mark.parametrize("is_preconditioned", [False, True])
@pytest.mark.parametrize("shape", [(5, 8), (8, 5), (4, 4)])
def test_zero_matrices_and_rows_stay_zero_beside_others(shape, is_preconditioned):
    X = draw(3, *shape)
    X[1] = 0
    X[0, 2] = 0
    X[2, :, 1] = 0
    alone = run(X[2:], polar_express(5), (2, 3), preconditioned=is_preconditioned)
    answer = run(X, polar_express(5), (2, 3), preconditioned=is_preconditioned)
    assert torch.equal(answer[1], torch.zeros(shape, dtype=torch.float64))
    torch.testing.assert_close(answer[0, 2], torch.zeros_like(answer[0, 2]), rtol=0, atol=1e-12)
    torch.testing.assert_close(answer[2, :, 1], torch.zeros_like(answer[2, :, 1]), rtol=0, atol=1e-12)
    torch.testing.assert_close(answer[2:], alone, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.complex64])
@pytest.mark.parametrize("size", [1e-15, 1e-7, 1e7, 1e15])
@pytest.mark.parametrize("is_preconditioned", [False, True])
def test_over_the_stated_range_of_norms_the_answer_is_the_same(is_preconditioned, size, dtype):
    X = draw(2, 12, 20, dtype=torch.complex64 if dtype.is_complex else torch.float32)
    X /= torch.linalg.matrix_norm(X, keepdim=True)
    expected, actual = (
        run((X * factor).to(dtype), polar_express(5), (2, 3), preconditioned=is_preconditioned)
        for factor in (1.0, size)
    )
    error = torch.linalg.matrix_norm((actual - expected).to(X.dtype)) / torch.linalg.matrix_norm(expected.to(X.dtype))
    assert error.max() < (0.1 if dtype == torch.bfloat16 else 1e-4)  # 2^-8 and 2^-23 times the slope at zero


@pytest.mark.parametrize("polynomials", [polar_express(5), polar_express(4), cubic(7)], ids=["five", "four", "cubic"])
def test_bfloat16_products_give_polar_factors(polynomials):
    for shape in [(1, 6, 9), (1, 9, 6), (3, 40, 64), (3, 64, 40), (2, 32, 32)]:
        small, large = sorted(shape[1:])
        stack = [with_spectrum(torch.linspace(1, 0.2, small), large, seed) for seed in range(shape[0])]
        X, expected = (
            torch.stack(each) if shape[1] <= shape[2] else torch.stack(each).mT for each in zip(*stack, strict=True)
        )
        for stages in ((1,) * len(polynomials), (2,) * (len(polynomials) // 2) + (1,) * (len(polynomials) % 2)):
            actual = run(X.bfloat16(), polynomials, stages)
            for one, other in zip(actual, expected, strict=True):
                assert cosine(one, other) > 0.997
                assert one.double().norm().item() == pytest.approx(other.norm().item(), rel=0.08)


@pytest.mark.parametrize(("rows", "columns"), [(64, 576), (128, 128), (256, 1024)])
def test_in_bfloat16_stages_of_two_and_three_keep_small_singular_values_and_one_stage_of_all_does_not(rows, columns):
    G, polar = layer("condition 1e3", rows, columns)
    found = {stages: cosine(run(G[None].bfloat16(), polar_express(5), stages)[0], polar) for stages in STAGES}
    assert found[(1, 1, 1, 1, 1)] > 0.97
    assert found[(2, 3)] > 0.97
    assert not found[(5,)] > 0.9


STAGES = [(1, 1, 1, 1, 1), (2, 3), (5,)]


@pytest.mark.parametrize("shape", [(512, 1024), (1100, 520)])
def test_large_matrices_in_bfloat16_of_which_half_a_gram_matrix_may_be_computed(shape):
    X, expected = layer("condition 1e3", *shape)
    for stages in STAGES[:2]:
        assert cosine(run(X[None].bfloat16(), polar_express(5), stages)[0], expected) > 0.985


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_memory_that_was_used_before_changes_nothing(dtype):
    work = Workspace()
    run(torch.full((2, 30, 50), torch.nan, dtype=dtype), polar_express(5), (2, 3), workspace=work)
    for shape in SHAPES:
        for stages, is_preconditioned in ((STAGES[0], False), ((2, 3), True)):
            X = draw(2, *shape).to(dtype)
            expected = run(X, polar_express(5), stages, preconditioned=is_preconditioned)
            actual = run(X, polar_express(5), stages, preconditioned=is_preconditioned, workspace=work)
            assert torch.equal(actual, expected)
            actual.fill_(torch.nan)


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128, torch.bfloat16])
@pytest.mark.parametrize("is_preconditioned", [False, True])
def test_stacks_whose_smaller_side_is_the_same_go_through_together_as_they_would_alone(is_preconditioned, dtype):
    stacks = [draw(count, *shape, seed=count).to(dtype) for count, shape in enumerate([(5, 8), (5, 5), (8, 5)], 1)]
    stacks[2][1] = 0
    together = bounded(
        [X.clone() for X in stacks],
        polar_express(5),
        (1, 2, 2),
        preconditioned=is_preconditioned,
        workspace=Workspace(),
    )
    assert [X.shape for X in together] == [X.shape for X in stacks]
    for X, answer in zip(stacks, together, strict=True):
        alone = run(X, polar_express(5), (1, 2, 2), preconditioned=is_preconditioned)
        torch.testing.assert_close(answer, alone, rtol=0, atol=0.08 if dtype == torch.bfloat16 else 1e-11)


def test_one_polynomial_for_all_steps_is_as_good_as_many():
    X = draw(2, 4, 6)
    expected = through_singular_values(X, lambda s: compose([JORDAN] * 3, s / bound(s)))
    torch.testing.assert_close(run(X, [JORDAN] * 3, (3,)), expected, rtol=0, atol=1e-10)

from itertools import product

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from matrices import draw, frame
from muonlab.rules import choice, polar
from muonlab.rules.polar import METHODS, STEPS, normalize, orthogonalize, orthogonalize_
from muonlab.rules.polynomials import JORDAN, SAFETY, cubic, evaluate, polar_express
from muonlab.rules.workspace import Workspace

ITERATIONS = tuple(STEPS)
SHAPES = [(4, 4), (3, 7), (7, 3), (1, 5), (5, 1), (1, 1), (16, 64)]
each_method = pytest.mark.parametrize("method", METHODS)
each_iteration = pytest.mark.parametrize("method", ITERATIONS)
LOW_PRECISION = [torch.float16, torch.bfloat16]


def polynomials(method, steps, coefficients=JORDAN):
    if method == "quintic":
        return [coefficients] * steps
    return cubic(steps) if method == "cubic" else polar_express(steps)


def by_svd(G, method, steps=None, coefficients=JORDAN):
    """Return what a method is said to be, in float64, from the singular values that LAPACK's QR iteration finds."""
    if method == "auto":
        method, steps = choice.choose(*G.shape)
    X = G.resolve_conj().numpy()
    X = X / np.abs(X).max()
    if method == "aol":
        is_tall = X.shape[0] > X.shape[1]
        A = X.conj().T @ X if is_tall else X @ X.conj().T
        scale = 1 / (SAFETY * np.sqrt(np.abs(A).sum(axis=1)))
        X = X * scale if is_tall else scale[:, None] * X
    U, s, Vh = scipy.linalg.svd(X, full_matrices=False, lapack_driver="gesvd")
    if method == "exact":
        s = (s > max(X.shape) * np.finfo(float).eps * s[0]).astype(float)
    else:
        if method == "quintic":
            s = s / (np.sqrt((s**2).sum()) + 1e-7)
        elif method != "aol":
            s = s / (SAFETY * (s**8).sum() ** (1 / 8))
        for polynomial in polynomials(method, steps or STEPS[method], coefficients):
            s = evaluate(polynomial, s)
    return torch.from_numpy((U * s) @ Vh)


def close(actual, expected, tolerance):
    torch.testing.assert_close(actual, expected.to(actual.dtype), rtol=0, atol=tolerance)


# What each method does to singular values


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
@each_method
def test_acts_on_the_singular_values_as_its_scalar_polynomials(method, dtype, rows, columns, seed):
    G = draw(rows, columns, seed=seed, dtype=dtype)
    close(orthogonalize(G, method), by_svd(G, method), 1e-9)


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 8), st.integers(0, 2**32 - 1))
@settings(max_examples=15, deadline=None)
@each_iteration
def test_takes_as_many_steps_as_it_is_told(method, rows, columns, steps, seed):
    G = draw(rows, columns, seed=seed)
    close(orthogonalize(G, method, steps=steps), by_svd(G, method, steps), 1e-8)


def test_the_stated_numbers_of_steps():
    G = draw(5, 8)
    stated = {"quintic": 5, "polar_express": 5, "cubic": 7, "gram": 5, "aol": 4}
    assert set(stated) == set(ITERATIONS)
    for method, steps in stated.items():
        assert torch.equal(orthogonalize(G, method), orthogonalize(G, method, steps=steps))


def test_the_quintic_takes_other_coefficients():
    for coefficients in [(1.5, -0.5, 0.0), (2.0, -1.5, 0.5)]:
        for shape in SHAPES:
            G = draw(*shape)
            actual = orthogonalize(G, "quintic", steps=3, coefficients=coefficients)
            close(actual, by_svd(G, "quintic", 3, coefficients), 1e-10)


def test_auto_is_the_method_of_the_table():
    for shape in [(2, 40, 40), (3, 20, 90), (90, 20)]:
        G = draw(*shape, dtype=torch.float32)
        method, steps = choice.choose(*shape[-2:])
        assert torch.equal(orthogonalize(G), orthogonalize(G, method, steps=steps))


# The study's iteration, bit for bit


def as_the_study_had_it(G, dtype=None):
    """The quintic iteration as rules/polar.py had it when the records of the first study were made."""
    a, b, c = 3.4445, -4.7750, 2.0315
    peak = G.abs().amax(dim=(-2, -1), keepdim=True)
    X = G / torch.where(peak > 0, peak, torch.ones_like(peak))
    X = X / (torch.linalg.matrix_norm(X, keepdim=True) + 1e-7)
    X = X.to(dtype or G.dtype)
    is_tall = G.shape[-2] > G.shape[-1]
    if is_tall:
        X = X.mT
    for _ in range(5):
        A = X @ X.mT
        X = a * X + (b * A + c * (A @ A)) @ X
    return (X.mT if is_tall else X).to(G.dtype)


@pytest.mark.parametrize(
    ("dtype", "products"),
    [(torch.float32, None), (torch.float64, None), (torch.bfloat16, None), (torch.float32, torch.bfloat16)],
)
@pytest.mark.parametrize(
    "shape",
    [
        *[(1, 4, 6), (1, 6, 4), (1, 1, 5), (3, 5, 1), (1, 1, 1), (2, 3, 7, 5), (1, 1, 2, 8, 8), (2, 9, 128, 64)],
        *[(5, 128, 128), (65, 128, 128), (9, 512, 128), (3, 128, 512)],  # more than a chunk; the study's net
    ],
)
def test_the_quintic_gives_the_bits_that_the_study_had_in_stacks_of_one_chunk(shape, dtype, products):
    G = draw(*shape, dtype=torch.float32).to(dtype)
    G[..., 0, :] *= 1e-3
    if shape[0] > 1:
        G[-1] = 0
    found, expected = orthogonalize(G, "quintic", dtype=products), as_the_study_had_it(G, products)
    if G.shape[:-2].numel() <= polar.chunk(*shape[-2:], G.element_size(), "cpu"):
        assert torch.equal(found, expected)
    else:  # stacks of another height
        close(found, expected, 0.06 if torch.bfloat16 in (dtype, products) else 1e-5)


def test_the_quintic_of_one_matrix_differs_from_a_population_of_one_by_rounding_alone():
    """Torch has other kernels for small products of matrices than for stacks of them."""
    for shape in SHAPES:
        G = draw(*shape, dtype=torch.float32)
        assert torch.equal(orthogonalize(G, "quintic"), as_the_study_had_it(G[None])[0])
        close(orthogonalize(G, "quintic"), as_the_study_had_it(G), 1e-5)


# Shapes, layouts, zeros


@each_method
def test_shape_and_dtype_are_kept(method):
    for dtype in [torch.float64, torch.float32, torch.complex128, torch.complex64, *LOW_PRECISION]:
        for shape, products in product([*SHAPES, (3, 4, 6), (2, 1, 3, 6, 4)], [None, torch.float64]):
            answer = orthogonalize(draw(*shape, dtype=dtype), method, dtype=products)
            assert (answer.shape, answer.dtype) == (shape, dtype)
            assert answer.isfinite().all()
            assert answer.abs().max() > 0.01


@each_method
def test_there_are_no_products_in_float16_unless_they_are_asked_for(method):
    G = draw(8, 5, dtype=torch.float16)
    assert torch.equal(orthogonalize(G, method), orthogonalize(G, method, dtype=torch.float32))


@each_method
def test_the_answer_to_the_transpose_is_the_transpose(method):
    for shape in SHAPES[method == "aol" :]:  # of a square matrix aol scales the rows, whichever they are
        G, Z = draw(*shape), draw(*shape, dtype=torch.complex128)
        close(orthogonalize(G.mT, method), orthogonalize(G, method).mT, 1e-11)
        close(orthogonalize(Z.mH, method), orthogonalize(Z, method).mH, 1e-11)


@each_method
def test_each_matrix_of_a_stack_is_treated_alone(method):
    for axes in [(3,), (1, 2, 2)]:
        for shape in [(4, 6), (6, 4), (5, 5)]:
            G = draw(*axes, *shape) * torch.logspace(-5, 5, axes[-1], dtype=torch.float64)[:, None, None]
            stacked = orthogonalize(G, method).flatten(0, -3)
            for matrix, answer in zip(G.flatten(0, -3), stacked, strict=True):
                close(answer, orthogonalize(matrix, method), 1e-11)


@each_method
def test_chunks_of_a_stack_are_put_together_in_order(monkeypatch, method):
    G = draw(7, 4, 6)
    whole = orthogonalize(G, method)
    monkeypatch.setattr(polar, "chunk", lambda *_: 3)
    close(orthogonalize(G, method), whole, 1e-11)


@each_method
def test_a_zero_matrix_stays_zero_also_beside_others(method):
    for dtype in [torch.float64, torch.float32, torch.bfloat16, torch.complex64]:
        for shape, function in product(
            [(4, 6), (6, 4), (3, 3), (1, 4)], [lambda G: orthogonalize(G, method), normalize]
        ):
            G = draw(3, *shape, dtype=dtype)
            G[1] = 0
            answer = function(G)
            assert torch.equal(answer[1], torch.zeros(shape, dtype=dtype))
            norms = torch.linalg.matrix_norm(answer[[0, 2]].to(torch.complex128))
            assert ((norms > 0.69) & (norms < 1.2 * min(shape) ** 0.5)).all()
            assert torch.equal(function(G[1]), torch.zeros(shape, dtype=dtype))


@each_method
def test_a_matrix_that_is_not_finite_does_not_spread(method):
    for bad in [torch.nan, torch.inf]:
        G = draw(3, 4, 6)
        expected = orthogonalize(G, method)
        G[1, 2, 3] = bad
        answer = orthogonalize(G, method)
        assert answer[1].isnan().any()
        close(answer[[0, 2]], expected[[0, 2]], 1e-11)


@each_method
def test_an_empty_stack_is_its_own_answer(method):
    for shape in [(0, 3, 5), (2, 0, 4, 4), (3, 0, 5), (3, 5, 0), (0, 0)]:
        G = torch.empty(shape)
        answer = orthogonalize(G, method)
        assert answer.shape == shape
        assert answer is not G


@each_method
def test_a_single_row_or_column_keeps_its_direction(method):
    for shape in [(1, 5), (5, 1), (1, 1)]:
        G = draw(*shape)
        answer = orthogonalize(G, method)
        close(answer / answer.norm(), G / G.norm(), 1e-12)
        assert 0.69 < answer.norm() < 1.2
        if method == "exact":
            close(answer, G / G.norm(), 1e-14)


VIEWS = {
    "contiguous": lambda G: G,
    "transposed": lambda G: G.mT.contiguous().mT,
    "members last": lambda G: G.permute(1, 2, 0).contiguous().permute(2, 0, 1),
    "strided": lambda G: G.repeat_interleave(2, -1)[..., ::2],
    "sliced": lambda G: torch.nn.functional.pad(G, (1, 2, 3, 4))[..., 3:-4, 1:-2],
    "expanded": lambda G: G[:1].expand(3, -1, -1),
}


@each_method
def test_the_layout_in_memory_does_not_matter_and_the_matrix_is_never_changed(method):
    for dtype in [torch.float64, torch.complex128]:
        for view in VIEWS:
            for shape in [(4, 6), (6, 4)]:
                G = VIEWS[view](draw(3, *shape, dtype=dtype))
                copy = G.clone(memory_format=torch.contiguous_format)
                expected = orthogonalize(copy, method)
                answer = orthogonalize(G, method)
                close(answer, expected, 1e-11)
                answer.add_(1)
                assert torch.equal(G, copy)


# Complex matrices


@each_method
def test_of_real_numbers_the_complex_answer_is_the_real_one(method):
    for shape in SHAPES:
        G = draw(*shape)
        answer = orthogonalize(G.to(torch.complex128), method)
        close(answer.real, orthogonalize(G, method), 1e-11)
        close(answer.imag, torch.zeros_like(G), 1e-11)
        close(orthogonalize(G * 1j, method).imag, orthogonalize(G, method), 1e-11)


@each_method
def test_unitary_matrices_on_either_side_go_through(method):
    for shape in SHAPES:
        G = draw(*shape, dtype=torch.complex128)
        U, V = (frame(size, size, seed=2, dtype=torch.complex128) for size in shape)
        if method == "aol":  # it has the rows, or columns of a tall matrix, single: those can but turn their phases
            short = 0 if shape[0] <= shape[1] else 1
            phases = torch.diag(torch.exp(1j * draw(min(shape), seed=3)))
            U, V = (phases, V) if short == 0 else (U, phases)
        answer = orthogonalize(G, method)
        assert answer.imag.abs().max() > 0.01
        # The eps of the quintic, 1e-7 of the largest entry, is another part of the norm then.
        close(orthogonalize(U @ G @ V, method), U @ answer @ V, 1e-5 if method == "quintic" else 1e-9)


@each_method
def test_complex_matrices_have_complex_products_whatever_real_dtype_is_named(method):
    for products in [torch.bfloat16, torch.float32]:
        G = draw(4, 6, dtype=torch.complex64)
        assert torch.equal(orthogonalize(G, method, dtype=products), orthogonalize(G, method))
        wide = orthogonalize(G, method, dtype=torch.float64)
        assert wide.dtype == torch.complex64
        close(wide, by_svd(G.to(torch.complex128), method), 1e-6)


@each_method
def test_a_complex_answer_has_its_numbers_in_memory(method):
    """Neither numpy nor view_as_real takes a lazily conjugated tensor."""
    for shape in [(4, 6), (6, 4)]:
        for G in (draw(*shape, dtype=torch.complex64), draw(*shape, dtype=torch.complex64).mH):
            assert not orthogonalize(G, method).is_conj()


# In place


@pytest.mark.parametrize("method", METHODS[:-1])
def test_in_place_with_memory_that_was_used_before_it_is_the_same(method):
    for products in [None, torch.bfloat16]:
        work = Workspace()
        for shape in [(3, 20, 30), (2, 30, 20), (4, 5, 5), (1, 40, 50)]:
            G = draw(*shape, dtype=torch.float32)
            expected = orthogonalize_([G.clone()], method, dtype=products, workspace=Workspace())[0]
            answer = orthogonalize_([G.clone()], method, dtype=products, workspace=work)[0]
            assert torch.equal(answer, expected)
            close(answer, orthogonalize(G, method, dtype=products), 1e-5 if products is None else 0.06)
            answer.fill_(torch.nan)


@each_method
def test_in_place_stacks_of_several_shapes_are_what_each_is_alone(method):
    for dtype in [torch.float32, torch.float64, torch.complex128, torch.bfloat16]:
        stacks = [
            draw(count, *shape, seed=count).to(dtype) for count, shape in enumerate([(9, 9), (9, 14), (14, 9)], 1)
        ]
        stacks[1][0] = 0
        hyper = {"method": method if method != "auto" else "gram"}  # auto may choose another method for one of them
        answers = orthogonalize_([G.clone() for G in stacks], workspace=Workspace(), **hyper)
        for G, answer in zip(stacks, answers, strict=True):
            assert (answer.shape, answer.dtype) == (G.shape, dtype)
            tolerance = {torch.bfloat16: 0.06, torch.float32: 1e-5}.get(dtype, 1e-11)
            close(answer, orthogonalize(G, **hyper), tolerance)


@each_method
def test_what_is_said_to_be_scaled_need_not_be_scaled_again(method):
    for size in [1e-15, 1e-6, 1.0, 1e15]:
        G = draw(2, 6, 9, dtype=torch.float32)
        G /= torch.linalg.matrix_norm(G, keepdim=True)
        close(orthogonalize_([G * size], method, is_scaled=True)[0], orthogonalize(G, method), 1e-4)


# Bad input


@pytest.mark.parametrize(
    ("hyper", "message"),
    [
        ({"method": "newton"}, "method='newton' is unknown; expected one of auto, quintic, .*, exact"),
        ({"method": "quintic", "steps": 0}, "steps=0 is out of range; expected a whole number, at least one"),
        ({"method": "gram", "steps": -1}, "steps=-1 is out of range"),
        ({"method": "cubic", "steps": 2.5}, "steps=2.5 is out of range"),
        ({"method": "cubic", "steps": True}, "steps=True is out of range"),
        ({"steps": 5}, "steps=5 with method='auto', which has none"),
        ({"method": "exact", "steps": 5}, "steps=5 with method='exact', which has none"),
        ({"method": "gram", "coefficients": JORDAN}, r"coefficients=\(3.4.*\) with method='gram'; .* quintic alone"),
        ({"coefficients": JORDAN}, "with method='auto'; they are for quintic alone"),
        ({"method": "quintic", "coefficients": (1.5, -0.5)}, r"coefficients=\(1.5, -0.5\): expected three numbers"),
    ],
)
def test_arguments_that_a_method_does_not_have_are_refused(hyper, message):
    with pytest.raises(ValueError, match=message):
        orthogonalize(torch.eye(3), **hyper)


@each_method
def test_what_holds_no_matrices_of_numbers_is_refused(method):
    with pytest.raises(ValueError, match=r"shape \(3,\) holds no matrices; expected at least two axes"):
        orthogonalize(torch.ones(3), method)
    with pytest.raises(ValueError, match=r"shape \(\) holds no matrices"):
        orthogonalize(torch.tensor(1.0), method)
    for dtype in (torch.int64, torch.uint8, torch.bool):
        with pytest.raises(ValueError, match=f"matrices of {dtype} have no polar factor; expected floating point"):
            orthogonalize(torch.ones(3, 3, dtype=dtype), method)


def test_a_chunk_is_never_empty():
    for device in ["cpu", "cuda", "mps"]:
        assert polar.chunk(10**5, 10**5, 8, device) == 1
        assert polar.chunk(1, 1, 4, device) > 1000

"""Polar factors: what each method does to singular values, for any shape, dtype, layout and scale."""

from itertools import product

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import muonlab
from matrices import draw, frame, with_spectrum
from muonlab.rules import iterations, polar
from muonlab.rules.iterations import bounded
from muonlab.rules.operands import Workspace
from muonlab.rules.polar import METHODS, STEPS, normalize, orthogonalize, orthogonalize_
from muonlab.rules.polynomials import JORDAN, SAFETY, cubic, evaluate, polar_express
from muonlab.rules.products import fast_products

SHAPES = [(4, 4), (3, 7), (7, 3), (1, 5), (5, 1), (1, 1), (16, 64)]
each_method = pytest.mark.parametrize("method", METHODS)


def polynomials(method, steps, coefficients=JORDAN):
    if method == "quintic":
        return [coefficients] * steps
    return cubic(steps) if method == "cubic" else polar_express(steps)


def by_svd(G, method, steps=None, coefficients=JORDAN):
    """Return what a method is said to be, in float64, from the singular values that LAPACK's QR iteration finds."""
    if method == "auto":
        method, steps = polar.choose(*G.shape)
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


@given(st.integers(1, 9), st.integers(1, 9), st.one_of(st.none(), st.integers(1, 8)), st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None)
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
@each_method
def test_acts_on_the_singular_values_as_its_scalar_polynomials(method, dtype, rows, columns, steps, seed):
    steps = steps if method in STEPS else None
    G = draw(rows, columns, seed=seed, dtype=dtype)
    close(orthogonalize(G, method, steps=steps), by_svd(G, method, steps), 1e-8)


def test_the_stated_steps_coefficients_and_choice():
    G = draw(5, 8)
    for method, steps in {"quintic": 5, "polar_express": 5, "cubic": 7, "gram": 5, "aol": 4}.items():
        assert torch.equal(orthogonalize(G, method), orthogonalize(G, method, steps=steps))
    for coefficients, shape in product([(1.5, -0.5, 0.0), (2.0, -1.5, 0.5)], SHAPES):
        G = draw(*shape)
        actual = orthogonalize(G, "quintic", steps=3, coefficients=coefficients)
        close(actual, by_svd(G, "quintic", 3, coefficients), 1e-10)
    for shape in [(2, 40, 40), (3, 20, 90), (90, 20)]:
        G, (method, steps) = draw(*shape, dtype=torch.float32), polar.choose(*shape[-2:])
        assert torch.equal(orthogonalize(G), orthogonalize(G, method, steps=steps))
        assert polar.choose(*reversed(shape[-2:])) == (method, steps)  # an optimizer puts them into one batch


@given(st.data(), st.integers(1, 7), st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
@pytest.mark.parametrize("schedule", [polar_express, cubic])
def test_polynomials_may_be_applied_in_any_stages(schedule, data, steps, rows, columns, seed):
    lengths = []
    while sum(lengths) < steps:
        lengths.append(data.draw(st.integers(1, steps - sum(lengths))))
    X = draw(3, rows, columns, seed=seed, dtype=torch.complex128)
    whole, staged = (bounded([X.clone()], schedule(steps), each)[0] for each in ((1,) * steps, lengths))
    close(staged, whole, 1e-9)


# The study's iteration, bit for bit


def as_the_study_had_it(G, dtype=None):
    """The quintic iteration as rules/polar.py had it when the records of the first study were made."""
    a, b, c = 3.4445, -4.7750, 2.0315
    peak = G.abs().amax(dim=(-2, -1), keepdim=True)
    X = G / torch.where(peak > 0, peak, torch.ones_like(peak))
    X = X / (torch.linalg.matrix_norm(X, keepdim=True) + 1e-7)
    X = X.to(dtype or G.dtype)
    is_tall = G.shape[-2] > G.shape[-1]
    X = X.mT if is_tall else X
    for _ in range(5):
        with fast_products():  # the library is a matter of the processor
            A = X @ X.mT
            X = a * X + (b * A + c * (A @ A)) @ X
    return (X.mT if is_tall else X).to(G.dtype)


@pytest.mark.parametrize("shape", [(1, 40, 40), (2, 40, 56), (2, 88, 40)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 0.05)])
@pytest.mark.parametrize("method", ["polar_express", "gram", "cubic", "aol"])
def test_symmetric_products_by_their_lower_halves_are_the_whole_ones(monkeypatch, method, dtype, tolerance, shape):
    G = draw(*shape, dtype=torch.float32)
    whole = orthogonalize(G, method, dtype=dtype)
    strips = []
    monkeypatch.setattr(iterations, "_strip", lambda left: strips.append(left) or 16)
    halves = orthogonalize(G, method, dtype=dtype)
    assert strips
    close(halves, whole, tolerance)


@pytest.mark.parametrize(
    "shape",
    [
        *[(1, 4, 6), (1, 6, 4), (1, 1, 5), (3, 5, 1), (1, 1, 1), (2, 3, 7, 5), (2, 9, 128, 64)],
        *[(65, 128, 128), (9, 512, 128), (3, 128, 512)],  # more than a chunk; the study's net
    ],
)
def test_the_quintic_gives_the_bits_that_the_study_had_in_stacks_of_one_chunk(shape):
    cases = [(torch.float32, None), (torch.float64, None), (torch.bfloat16, None), (torch.float32, torch.bfloat16)]
    for dtype, products in cases if max(shape) < 128 else cases[:1]:  # bfloat16 is slow without its instructions
        G = draw(*shape, dtype=torch.float32).to(dtype)
        G[..., 0, :] *= 1e-3
        if shape[0] > 1:
            G[-1] = 0
        found, expected = orthogonalize(G, "quintic", dtype=products), as_the_study_had_it(G, products)
        if G.shape[:-2].numel() <= polar.chunk(*shape[-2:], G.element_size(), G.device):
            assert torch.equal(found, expected)
        else:  # stacks of another height
            close(found, expected, 1e-5)


# Shapes, layouts, zeros


@each_method
def test_shape_and_dtype_are_kept(method):
    dtypes = [torch.float64, torch.float32, torch.complex128, torch.complex64, torch.float16, torch.bfloat16]
    for dtype, shape, products in product(dtypes, [*SHAPES, (2, 1, 3, 6, 4)], [None, torch.float64]):
        G = draw(*shape, dtype=dtype)
        for X in (G, G.mH) if dtype.is_complex else (G,):
            answer = orthogonalize(X, method, dtype=products)
            assert (answer.shape, answer.dtype) == (X.shape, dtype)
            assert answer.isfinite().all()
            assert answer.abs().max() > 0.01
            assert not answer.is_conj()  # neither numpy nor view_as_real takes a lazily conjugated tensor
    G = draw(8, 5, dtype=torch.float16)  # no products in float16 unless they are asked for
    assert torch.equal(orthogonalize(G, method), orthogonalize(G, method, dtype=torch.float32))
    for shape in [(0, 3, 5), (2, 0, 4, 4), (3, 0, 5), (3, 5, 0), (0, 0)]:
        G = torch.empty(shape)
        assert orthogonalize(G, method).shape == shape
        assert orthogonalize(G, method) is not G


@each_method
def test_matrices_of_a_stack_are_treated_alone_and_the_transpose_gives_the_transpose(monkeypatch, method):
    for axes, shape in product([(7,), (1, 2, 2)], [(4, 6), (6, 4), (5, 5)]):
        G = draw(*axes, *shape) * torch.logspace(-5, 5, axes[-1], dtype=torch.float64)[:, None, None]
        stacked = orthogonalize(G, method).flatten(0, -3)
        for matrix, answer in zip(G.flatten(0, -3), stacked, strict=True):
            close(answer, orthogonalize(matrix, method), 1e-11)
            if shape != (5, 5) or method != "aol":  # of a square matrix aol scales the rows, whichever they are
                close(answer.mT, orthogonalize(matrix.mT, method), 1e-11)
    G = draw(7, 4, 6)
    G[2] = 0
    G[3, 1] = 0
    whole = orthogonalize(G, method)
    monkeypatch.setattr(polar, "chunk", lambda *_: 3)
    close(orthogonalize(G, method), whole, 1e-11)
    close(whole[3, 1], torch.zeros(6), 1e-12)  # a row of zeros


@each_method
def test_zeros_stay_and_what_is_not_finite_does_not_spread(method):
    for dtype, shape in product([torch.float64, torch.bfloat16, torch.complex64], [(4, 6), (6, 4), (3, 3), (1, 4)]):
        for function in (lambda G: orthogonalize(G, method), normalize):
            G = draw(3, *shape, dtype=dtype)
            G[1] = 0
            answer = function(G)
            assert torch.equal(answer[1], torch.zeros(shape, dtype=dtype))
            norms = torch.linalg.matrix_norm(answer[[0, 2]].to(torch.complex128))
            assert ((norms > 0.69) & (norms < 1.2 * min(shape) ** 0.5)).all()
            assert torch.equal(function(G[1]), torch.zeros(shape, dtype=dtype))
    for bad in [torch.nan, torch.inf]:
        G = draw(3, 4, 6)
        expected = orthogonalize(G, method)
        G[1, 2, 3] = bad
        answer = orthogonalize(G, method)
        assert answer[1].isnan().any()
        close(answer[[0, 2]], expected[[0, 2]], 1e-11)


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
    for dtype, view, shape in product([torch.float64, torch.complex128], VIEWS, [(4, 6), (6, 4)]):
        G = VIEWS[view](draw(3, *shape, dtype=dtype))
        copy = G.clone(memory_format=torch.contiguous_format)
        answer = orthogonalize(G, method)
        close(answer, orthogonalize(copy, method), 1e-11)
        answer.add_(1)
        assert torch.equal(G, copy)


@each_method
def test_complex_matrices(method):
    for shape in SHAPES:
        G = draw(*shape)
        real, answer = orthogonalize(G, method), orthogonalize(G.to(torch.complex128), method)
        close(answer.real, real, 1e-11)
        close(answer.imag, torch.zeros_like(G), 1e-11)
        close(orthogonalize(G * 1j, method).imag, real, 1e-11)
        # Unitary matrices on either side go through.
        G = draw(*shape, dtype=torch.complex128)
        U, V = (frame(size, size, seed=2, dtype=torch.complex128) for size in shape)
        if method == "aol":  # its rows, or columns of a tall matrix, stand alone: those can only turn their phases
            phases = torch.diag(torch.exp(1j * draw(min(shape), seed=3)))
            U, V = (phases, V) if shape[0] <= shape[1] else (U, phases)
        # The eps of the quintic, 1e-7 of the largest entry, is another part of the norm then.
        tolerance = 1e-5 if method == "quintic" else 1e-9
        close(orthogonalize(U @ G @ V, method), U @ orthogonalize(G, method) @ V, tolerance)
    G = draw(4, 6, dtype=torch.complex64)  # products are complex whatever real dtype is named
    assert torch.equal(orthogonalize(G, method, dtype=torch.bfloat16), orthogonalize(G, method))
    close(orthogonalize(G, method, dtype=torch.float64), by_svd(G.to(torch.complex128), method), 1e-6)


# Scale


@each_method
def test_a_power_of_two_in_front_of_the_matrix_changes_no_bit(method):
    for dtype in [torch.float32, torch.float64, torch.bfloat16, torch.complex64]:
        G = draw(2, 5, 3, dtype=torch.complex64 if dtype.is_complex else torch.float64).to(dtype)
        for exponent in (-900, 900) if dtype == torch.float64 else (-100, -7, 60, 120):
            assert torch.equal(orthogonalize(G * 2.0**exponent, method), orthogonalize(G, method))


@each_method
def test_the_answer_does_not_depend_on_the_norm_over_the_range_of_the_dtype(method):
    G = with_spectrum(torch.linspace(1, 0.3, 6), 9)[0]
    G = (G / G.norm()).float()
    for products, norm in product((None, torch.bfloat16), [1e-41, 1e-38, 1e-20, 1e20, 1e38]):
        if method == "exact" and products is not None:
            continue
        # Below 2^-126 numbers are 2^-149 apart. A change E of a matrix moves its polar factor by up to 2 |E| over its
        # smallest singular value, and the steepest of these polynomials are less than 1.2 times as steep as that.
        spacing = 2.0**-149 * 54**0.5 / 2 / norm
        tolerance = (0.06 if products == torch.bfloat16 else 1e-5) + 2.4 * spacing / torch.linalg.svdvals(G)[-1].item()
        for X in (G, G.T):
            close(orthogonalize(X * norm, method, dtype=products), orthogonalize(X, method, dtype=products), tolerance)
            assert torch.linalg.matrix_norm(normalize(X * norm)).item() == pytest.approx(1, abs=1e-5)
    for norm in [6e-5, 1e-3, 1e3, 3e4]:
        answer = orthogonalize((G.double() * norm).half(), method)
        assert answer.dtype == torch.float16
        close(answer.double(), orthogonalize(G.double(), method), 0.03)
    for size in [1e-15, 1e-6, 1e15]:  # what is said to be scaled need not be scaled again
        close(orthogonalize_([G[None] * size], method, is_scaled=True)[0][0], orthogonalize(G, method), 1e-4)


@each_method
def test_a_complex_number_may_be_larger_than_the_largest_float(method):
    """|z| overflows where the parts of z do not."""
    parts = torch.rand(2, 3, 5, 2, generator=torch.Generator().manual_seed(0)) * 2 - 1
    parts[:, 0, 0] = 1.0
    G, huge = torch.view_as_complex(parts), torch.view_as_complex(parts * 2.0**127.9)
    assert huge.abs().max() == torch.inf
    for view in (lambda X: X, lambda X: X.mT, lambda X: X.mH):
        close(orthogonalize(view(huge), method), orthogonalize(view(G), method), 1e-5)


# In place


@each_method
def test_in_place_with_memory_that_was_used_before_it_is_the_same(method):
    for products in [None, torch.bfloat16] if method != "exact" else [None]:
        work = Workspace()
        for shape in [(3, 20, 30), (2, 30, 20), (4, 5, 5), (1, 40, 50)]:
            G = draw(*shape, dtype=torch.float32)
            for X in (G, G.mT.contiguous().mT):
                expected = orthogonalize_([X.clone()], method, dtype=products, workspace=Workspace())[0]
                answer = orthogonalize_([X.clone()], method, dtype=products, workspace=work)[0]
                assert torch.equal(answer, expected)
                close(answer, orthogonalize(G, method, dtype=products), 1e-5 if products is None else 0.06)
                answer.fill_(torch.nan)


@each_method
def test_in_place_stacks_of_several_shapes_are_what_each_is_alone(method):
    for dtype in [torch.float32, torch.float64, torch.complex128, torch.bfloat16]:
        stacks = [draw(k, *shape, seed=k).to(dtype) for k, shape in enumerate([(9, 9), (9, 14), (14, 9)], 1)]
        stacks[1][0] = 0
        hyper = {"method": method if method != "auto" else "gram"}  # auto may choose another method for one of them
        answers = orthogonalize_([G.clone() for G in stacks], workspace=Workspace(), **hyper)
        for G, answer in zip(stacks, answers, strict=True):
            assert (answer.shape, answer.dtype) == (G.shape, dtype)
            close(answer, orthogonalize(G, **hyper), {torch.bfloat16: 0.06, torch.float32: 1e-5}.get(dtype, 1e-11))


def test_names_and_dtypes_have_memory_of_their_own_in_a_workspace():
    work, like = Workspace(), torch.zeros(1)
    taken = [work.take("A", (8,), like), work.take("B", (8,), like), work.take("A", (8,), like, torch.bfloat16)]
    for number, tensor in enumerate(taken):
        tensor.fill_(number)
    assert [tensor[0].item() for tensor in taken] == [0, 1, 2]
    assert work.take("A", (3, 2), like).data_ptr() == taken[0].data_ptr()
    assert work.take("A", (50, 2), like).shape == (50, 2)


# Bad input


@pytest.mark.parametrize(
    ("hyper", "message"),
    [
        ({"method": "newton"}, "method='newton' is out of range; expected one of auto, quintic, .*, exact"),
        *(
            ({"method": "cubic", "steps": steps}, f"steps={steps} is out of range; expected a whole number from 1")
            for steps in (0, -1, 2.5, True, 100)
        ),
        ({"steps": 5}, "steps=5 with method='auto', which chooses them"),
        ({"method": "exact", "steps": 5}, "steps=5 with method='exact', which does not iterate"),
        ({"method": "gram", "coefficients": JORDAN}, r"coefficients=\(3.4.*\) with method='gram'; .*'quintic' alone"),
        ({"coefficients": JORDAN}, "with method='auto'; they are for method='quintic' alone"),
        ({"method": "quintic", "coefficients": (1.5, -0.5)}, r"coefficients=\(1.5, -0.5\); expected three finite"),
        ({"method": "exact", "dtype": torch.bfloat16}, "dtype=torch.bfloat16 with method='exact'"),
        ({"dtype": torch.int32}, "dtype=torch.int32 for matrix products; expected a floating point"),
    ],
)
def test_arguments_that_a_method_does_not_have_are_refused(hyper, message):
    with pytest.raises(ValueError, match=message):
        orthogonalize(torch.eye(3), **hyper)


def test_what_holds_no_matrices_of_numbers_is_refused():
    with pytest.raises(ValueError, match=r"shape \(3,\) holds no matrices; expected at least two axes"):
        orthogonalize(torch.ones(3))
    for dtype in (torch.int64, torch.uint8, torch.bool):
        with pytest.raises(ValueError, match=f"matrices of {dtype} have no polar factor; expected floating point"):
            orthogonalize(torch.ones(3, 3, dtype=dtype))


def test_it_is_there_under_the_packages_name():
    assert muonlab.orthogonalize is orthogonalize
    assert "orthogonalize" in dir(muonlab)

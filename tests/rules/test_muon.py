"""Muon's formula, its variants and its control, against numpy."""

from itertools import product

import numpy as np
import pytest
import scipy.linalg
import torch

from matrices import draw
from muonlab.rules import muon
from muonlab.rules.muon import ADJUSTMENTS, VARIANTS, adjustment
from muonlab.rules.polar import METHODS, orthogonalize


def polar(G):
    """Return U V^H, over the singular values that are not zero."""
    U, s, Vh = scipy.linalg.svd(G, full_matrices=False, lapack_driver="gesvd")
    return (U * (s > 1e-12 * s[0])) @ Vh


def stepped(p, grads, variant=None, **hyper):
    """Return the parameter and the state after a step for each gradient."""
    state = muon.init(p, variant=variant)
    for grad in grads:
        p, state = muon.update(grad, state, p, variant=variant, **hyper)
    return p, state


def normuon(O, v, beta2):
    """Li et al. 2025, arXiv 2510.05491, algorithm 1: v of the rows, O / (sqrt(v) + eps), at O's Frobenius norm."""
    v = beta2 * v + (1 - beta2) * (np.abs(O) ** 2).mean(axis=1, keepdims=True)
    return O / (np.sqrt(v) + 1e-8), v


def adamuon(O, v, beta2):
    """Si et al. 2025, arXiv 2507.11005v3, algorithm 1: v of the entries, no bias correction."""
    v = beta2 * v + (1 - beta2) * np.abs(O) ** 2
    return O / (np.sqrt(v) + 1e-8), v


FACTORS = {
    "original": lambda rows, columns: max(1, rows / columns) ** 0.5,
    "match_rms_adamw": lambda rows, columns: 0.2 * max(rows, columns) ** 0.5,
    "spectral": lambda rows, columns: (rows / columns) ** 0.5,
    "none": lambda rows, columns: 1,
}
SETTINGS = [
    *({"adjust_lr_fn": name} for name in ADJUSTMENTS),
    {"nesterov": False},
    {"cautious": True},
    *({"variant": variant, "adjust_lr_fn": "match_rms_adamw"} for variant in VARIANTS),
    *({"variant": variant, "nesterov": False} for variant in VARIANTS),
]


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_equals_the_formula_in_numpy(setting, dtype):
    """Of a variant both papers have p - lr (0.2 sqrt(rows columns) / |scaled|_F) scaled, and no nesterov."""
    for rows, columns in [(17, 17), (13, 6), (6, 13)]:  # a small square of signs may be singular
        lr, momentum, weight_decay, beta2 = 0.1, 0.6, 0.3, 0.8
        start, grads = draw(rows, columns, dtype=dtype), draw(6, rows, columns, seed=1, dtype=dtype)
        variant = setting.get("variant")
        hyper = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "beta2": beta2, "method": "exact"}
        actual, state = stepped(start, grads, **hyper, **setting)
        p, b = start.numpy(), np.zeros((rows, columns))
        v = np.zeros((rows, 1) if variant == "normuon" else (rows, columns))
        num_decayed = 0
        for g in grads.numpy():
            b = momentum * b + (1 - momentum) * g
            seen = momentum * b + (1 - momentum) * g if setting.get("nesterov", True) else b
            O = polar(seen / np.abs(seen) if variant == "adamuon" else seen)
            if variant is not None:
                scaled, v = {"normuon": normuon, "adamuon": adamuon}[variant](O, v, beta2)
                O = scaled * min(rows, columns) ** 0.5 / np.linalg.norm(scaled)
            decays = np.abs(p - 1e-6 * O) < np.abs(p) if setting.get("cautious") else np.ones((rows, columns))
            num_decayed += decays.mean() / len(grads)
            factor = FACTORS[setting.get("adjust_lr_fn", "original")](rows, columns)
            p = p - lr * weight_decay * p * decays - lr * factor * O
        torch.testing.assert_close(actual, torch.from_numpy(p), rtol=0, atol=1e-11)
        torch.testing.assert_close(state["momentum"], torch.from_numpy(b).to(dtype), rtol=0, atol=1e-13)
        if variant is not None:
            assert state["second_moment"].dtype == torch.float64
            torch.testing.assert_close(state["second_moment"], torch.from_numpy(v), rtol=0, atol=1e-12)
        if setting.get("cautious"):
            assert 0.2 < num_decayed < 0.8


@pytest.mark.parametrize("method", METHODS)
def test_the_method_its_steps_and_its_dtype_are_those_of_orthogonalize(method):
    p, grad = draw(6, 9), draw(6, 9, seed=1)
    for steps, dtype in product((None, 3), (None, torch.bfloat16)):
        if (steps is None or method not in ("auto", "exact")) and (dtype is None or method != "exact"):
            actual, _ = stepped(p, [grad], lr=1.0, weight_decay=0.0, method=method, steps=steps, polar_dtype=dtype)
            expected = p - orthogonalize(grad, method, steps=steps, dtype=dtype)
            torch.testing.assert_close(actual, expected, rtol=0, atol=1e-8 if dtype is None else 0.06)


def test_adjustments_of_some_shapes_and_of_the_users_own():
    assert [adjustment(100, 25, name) for name in ADJUSTMENTS] == pytest.approx([2.0, 2.0, 2.0, 1.0])
    assert [adjustment(25, 100, name) for name in ADJUSTMENTS] == pytest.approx([1.0, 2.0, 0.5, 1.0])
    assert adjustment(25, 100) == 1.0
    p, grad = draw(3, 4, 6), draw(3, 4, 6, seed=1)
    actual, _ = stepped(p, [grad], lr=0.4, weight_decay=0.5, adjust_lr_fn=lambda shape: shape[0] / (10 + shape[1]))
    expected, _ = stepped(p, [grad], lr=0.1, weight_decay=2.0, adjust_lr_fn="none")
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_variant_has_the_norm_of_what_it_divides_and_rests_without_gradient(variant):
    for method in ["quintic", "polar_express", "exact"]:
        p, grads = torch.zeros(2, 9, 6, dtype=torch.float64), draw(3, 2, 9, 6)
        grads[:, 1] *= 1e-6
        hyper = {"lr": 1.0, "weight_decay": 0.0, "method": method, "momentum": 0.0, "adjust_lr_fn": "none"}
        state = muon.init(p, variant=variant)
        for grad in grads:
            new, state = muon.update(grad, state, p, variant=variant, **hyper)
            whole = orthogonalize(grad.sgn() if variant == "adamuon" else grad, method)
            norms = torch.linalg.matrix_norm(new), torch.linalg.matrix_norm(whole)
            torch.testing.assert_close(*norms, rtol=1e-9, atol=0)
    p, grads = draw(2, 5, 8), draw(3, 2, 5, 8, seed=1)
    grads[:, 0] = 0
    grads[:, 1, 2] = 0
    new, state = stepped(p, grads, variant, lr=0.1, weight_decay=0.0, method="exact")
    assert torch.equal(new[0], p[0])
    torch.testing.assert_close(new[1, 2], p[1, 2], rtol=0, atol=1e-6)
    assert all(x.isfinite().all() for x in (new, state["second_moment"]))
    assert ((new - p)[1, [0, 1, 3, 4]].abs() > 1e-4).all()


def test_without_orthogonalization_the_step_is_the_momentum_in_the_norm_of_a_polar_factor():
    for size, shape in product([1e-38, 1e-25, 1e-10, 1.0, 1e25, 1e37], [(8, 4), (4, 8), (1, 5)]):
        grad = draw(*shape, dtype=torch.float32) * size
        hyper = {"lr": 1.0, "weight_decay": 0.0, "adjust_lr_fn": "none", "is_orthogonal": False}
        p, _ = stepped(torch.zeros(shape), [grad], **hyper)
        expected = -(grad.double() / torch.linalg.matrix_norm(grad.double())) * min(shape) ** 0.5
        torch.testing.assert_close(p.double(), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("variant", [None, *VARIANTS])
def test_of_real_numbers_the_complex_run_is_the_real_one(variant):
    for cautious in [False, True]:
        p, grads = draw(4, 6), draw(5, 4, 6, seed=1)
        hyper = {"lr": 0.1, "method": "exact", "cautious": cautious}
        real, _ = stepped(p, grads, variant, **hyper)
        wide, _ = stepped(p.to(torch.complex128), grads.to(torch.complex128), variant, **hyper)
        torch.testing.assert_close(wide, real.to(torch.complex128), rtol=0, atol=1e-11)
        turned, _ = stepped(1j * p, 1j * grads, variant, **hyper)
        torch.testing.assert_close(turned, 1j * real, rtol=0, atol=1e-11)

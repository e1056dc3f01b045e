"""The parts of Muon's step and the rules around a rule, against numpy in float64, written from their papers."""

import numpy as np
import pytest
import scipy.linalg
import torch

from matrices import draw
from muonlab.rules import adamw, muon, parts
from muonlab.rules.wrapped import Ahead, Independent

LR, MOMENTUM, DECAY, STEPS = 0.1, 0.6, 0.3, 6
SHAPES = [(17, 17), (13, 6), (6, 13)]


def polar(G):
    U, _, Vh = scipy.linalg.svd(G, full_matrices=False, lapack_driver="gesvd")
    return U @ Vh


def rows(X):
    return X / np.sqrt((np.abs(X) ** 2).sum(axis=1, keepdims=True))


def columns(X):
    return X / np.sqrt((np.abs(X) ** 2).sum(axis=0, keepdims=True))


def both(X):
    """MuonEq's RC: D_r^(-1/2) X D_c^(-1/2), either of X itself."""
    squares = np.abs(X) ** 2
    return np.diag(squares.sum(axis=1) ** -0.5) @ X @ np.diag(squares.sum(axis=0) ** -0.5)


def same(X):
    return X


def plain(p, O):
    """The step of Muon with "original" as its adjustment."""
    factor = max(1, p.shape[0] / p.shape[1]) ** 0.5
    return p - LR * DECAY * p - LR * factor * O


def floored(p, O):
    """modded-nanogpt: update *= max(1, target * |p| / |update|), of the update that the learning rate multiplies."""
    u = max(1, p.shape[0] / p.shape[1]) ** 0.5 * O
    u = u * max(1, 0.8 * np.linalg.norm(p) / np.linalg.norm(u))
    return p - LR * DECAY * p - LR * u


class OnBall:
    """Wen et al. 2026: R is the norm at the start."""

    def __init__(self):
        self.radius = None

    def __call__(self, p, O):
        self.radius = self.radius or np.linalg.norm(p)
        moved = p - LR * self.radius * O / np.linalg.norm(O)
        return self.radius * moved / np.linalg.norm(moved)


ORACLES = {
    "equilibrate=row": (rows, same, plain),
    "equilibrate=col": (columns, same, plain),
    "equilibrate=rowcol": (both, same, plain),
    "renormalize=row": (same, rows, plain),
    "renormalize=col": (same, columns, plain),
    "renormalize=col_row": (same, lambda O: rows(columns(O)), plain),
    "renormalize=row_col": (same, lambda O: columns(rows(O)), plain),
    "update_floor=0.8": (same, same, floored),
    "hyperball=True": (same, same, OnBall()),
}


def value_of(text):
    return {"True": True, "0.8": 0.8}.get(text, text)


@pytest.mark.parametrize("name", ORACLES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_equals_the_formula_in_numpy(name, dtype):
    first, last, apply = ORACLES[name]
    option, text = name.split("=")
    differs = 0.0
    for shape in SHAPES:
        start, grads = draw(*shape, dtype=dtype), draw(STEPS, *shape, seed=1, dtype=dtype)
        hyper = {"lr": LR, "momentum": MOMENTUM, "weight_decay": DECAY, "method": "exact"}
        actual, without = (start, muon.init(start)), (start, muon.init(start))
        p, b, apply = start.numpy(), 0, OnBall() if option == "hyperball" else apply
        for grad in grads:
            actual = muon.update(grad, actual[1], actual[0], **hyper, **{option: value_of(text)})
            without = muon.update(grad, without[1], without[0], **hyper)
            b = MOMENTUM * b + (1 - MOMENTUM) * grad.numpy()
            seen = first(MOMENTUM * b + (1 - MOMENTUM) * grad.numpy())
            p = apply(p, last(polar(seen)))
        torch.testing.assert_close(actual[0], torch.from_numpy(p), rtol=0, atol=1e-11)
        differs = max(differs, float((actual[0] - without[0]).abs().max()))
    assert differs > 1e-3


def test_the_norm_is_held_over_many_steps_and_in_float32():
    p, state = draw(3, 20, 12, dtype=torch.float32), None
    start, state = p.clone(), muon.init(p)
    for step in range(300):
        grad = draw(3, 20, 12, seed=step + 1, dtype=torch.float32)
        p, state = muon.update(grad, state, p, lr=0.05, hyperball=True)
    norms = [torch.linalg.matrix_norm(each.double()) for each in (p, start)]
    torch.testing.assert_close(*norms, rtol=1e-5, atol=0)


def test_a_floor_is_reached_exactly_where_steps_are_shorter_and_nothing_where_they_are_longer():
    p, O = 100 * draw(2, 8, 5), draw(2, 8, 5, seed=1)
    p[1] /= 1e4
    seen = torch.linalg.matrix_norm(3.0 * parts.raised(O, p, 3.0, 0.5))
    norms = torch.linalg.matrix_norm(p), torch.linalg.matrix_norm(O)
    torch.testing.assert_close(seen, torch.stack([0.5 * norms[0][0], 3.0 * norms[1][1]]))


@pytest.mark.parametrize("size", [1e-38, 1e-20, 1e20, 1e37])
def test_rows_of_any_size_and_of_zeros_are_normalized(size):
    X = draw(4, 6, dtype=torch.float32)
    expected = rows(X.double().numpy())
    X = X * size
    X[2] = 0
    expected[2] = 0
    found = parts.equilibrate(X, "row")
    torch.testing.assert_close(found.double(), torch.from_numpy(expected), rtol=0, atol=1e-4 if size < 1e-37 else 1e-6)


def test_an_independent_decay_does_not_depend_on_the_learning_rate():
    p, grad = draw(4, 3), torch.zeros(4, 3, dtype=torch.float64)
    for rule in (adamw, muon):
        for lr in (0.0, 0.5):
            found, _ = Independent(rule).update(grad, rule.init(p), p, lr=lr, weight_decay=0.25)
            torch.testing.assert_close(found, 0.75 * p)


@pytest.mark.parametrize("rule", [adamw, muon])
def test_gradients_are_taken_ahead_by_the_mean_change(rule):
    """x_{t+1} = A_t(x_t + beta_t m_t), m_{t+1} = gamma m_t + (1 - gamma) (x_{t+1} - x_t): Yau et al. 2026."""
    start, matrix, gamma = draw(5, 4), draw(5, 5, seed=2), 0.7

    def gradient(y):
        return matrix @ y

    hyper, betas = {"lr": 0.05, "weight_decay": 0.1}, [0.0, 0.6, 0.9, 0.3, 0.0]
    ahead = Ahead(rule, gamma)
    p, state = start, ahead.init(start)
    x, m, inner = start, torch.zeros_like(start), rule.init(start)
    for now, following in zip(betas, [*betas[1:], 0.0], strict=True):
        y = x + now * m
        torch.testing.assert_close(p, y, rtol=0, atol=1e-12)
        p, state = ahead.update(gradient(p), state, p, lookahead=following, **hyper)
        new, inner = rule.update(gradient(y), inner, y, **hyper)
        x, m = new, gamma * m + (1 - gamma) * (new - x)
    torch.testing.assert_close(p, x, rtol=0, atol=1e-12)

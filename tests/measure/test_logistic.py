import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from muonlab.measure import logistic
from muonlab.measure.logistic import Logistic

EXACT = {"tolerance": 1e-9, "max_iterations": 2000}


def examples(num_problems=3, num_examples=300, width=7, num_classes=4, seed=0):
    """Return standardised features of overlapping classes (P, N, D), correlated, and labels (N,)."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(num_classes, (num_examples,), generator=generator)
    means = torch.randn(num_problems, num_classes, width, generator=generator, dtype=torch.float64)
    mix = torch.randn(num_problems, width, width, generator=generator, dtype=torch.float64)
    noise = torch.randn(num_problems, num_examples, width, generator=generator, dtype=torch.float64)
    X = (means[:, y] + noise) @ mix
    return (X - X.mean(1, keepdim=True)) / X.std(1, keepdim=True, correction=0), y


def fitted(X, y, strength, dtype=torch.float64, **options):
    model = Logistic(X, y, int(y.max()) + 1, dtype)
    strengths = torch.as_tensor(strength, dtype=torch.float64).expand(len(X))
    found = model.fit(strengths, model.start(), **EXACT | options)
    return found, *model.weights(found.point)


@pytest.mark.parametrize("strength", [1e-3, 10.0])
def test_coefficients_and_predictions_are_scikit_learns(strength):
    X, y = examples()
    found, W, b = fitted(X, y, strength)
    assert found.converged.all()
    for problem in range(len(X)):
        theirs = LogisticRegression(C=strength, tol=1e-10, max_iter=10_000).fit(X[problem].numpy(), y.numpy())
        np.testing.assert_allclose(W[problem], theirs.coef_, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(b[problem], theirs.intercept_, rtol=1e-4, atol=1e-6)
        ours = (X[problem] @ W[problem].mT + b[problem]).argmax(1)
        assert np.array_equal(ours, theirs.predict(X[problem].numpy()))


def test_two_classes_are_scikit_learns_with_twice_the_strength():
    X, y = examples(num_classes=2)
    _, W, b = fitted(X, y, 0.05)
    theirs = LogisticRegression(C=0.1, tol=1e-10, max_iter=10_000).fit(X[0].numpy(), y.numpy())
    np.testing.assert_allclose(W[0, 1] - W[0, 0], theirs.coef_[0], rtol=1e-4)
    np.testing.assert_allclose(b[0, 1] - b[0, 0], theirs.intercept_[0], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("rows", [7, 1000])
def test_value_and_gradient_are_autograds_whatever_the_block(rows, monkeypatch):
    X, y = examples(num_examples=50)
    monkeypatch.setattr(logistic, "BLOCK_BYTES", 8 * 7 * rows)
    model = Logistic(X, y, 4, torch.float64)
    points = torch.randn_like(model.start()).requires_grad_()
    W, b = model.weights(points)
    losses = torch.stack([torch.nn.functional.cross_entropy(X[p] @ W[p].mT + b[p], y) for p in range(3)])
    expected = torch.autograd.grad(losses.sum(), points)[0]
    values, gradients = model._loss(points.detach()[[2, 0]], torch.tensor([2, 0]))
    torch.testing.assert_close(values, losses.detach()[[2, 0]])
    torch.testing.assert_close(gradients, expected[[2, 0]])


def test_weights_sum_to_zero_over_classes_and_the_bias_is_not_penalised():
    X, y = examples()
    y = y.clamp(min=2) - 2  # three of four are the first class
    _, W, b = fitted(X, y, 1e-8)
    assert W.sum(1).abs().max() < 1e-12
    assert W.abs().max() < 1e-5
    share = (y == 1).double().mean()
    torch.testing.assert_close((b[:, 1] - b[:, 0]).exp(), (share / (1 - share)).expand(3), rtol=1e-5, atol=0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("strength", [1e-3, 10.0])
def test_the_tolerance_bounds_the_distance_of_the_weights_to_the_optimum(strength, dtype):
    X, y = examples()
    _, best, _ = fitted(X, y, strength)
    for tolerance in (0.1, 0.01):
        found, W, _ = fitted(X, y, strength, dtype, tolerance=tolerance)
        assert found.converged.all()
        assert ((W - best).flatten(1).norm(dim=1) <= tolerance * best.flatten(1).norm(dim=1)).all()


def test_more_features_than_examples_and_features_that_repeat():
    X, y = examples(num_examples=20, width=30)
    X = torch.cat([X, X[..., :5], torch.zeros_like(X[..., :1])], 2)
    found, W, _ = fitted(X, y, 0.1)
    theirs = LogisticRegression(C=0.1, tol=1e-10, max_iter=10_000).fit(X[1].numpy(), y.numpy())
    assert found.converged.all()
    np.testing.assert_allclose(W[1], theirs.coef_, rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(W[:, :, :5], W[:, :, 30:35])
    assert W[..., -1].abs().max() < 1e-9

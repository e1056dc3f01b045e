"""Oracles of the theory: gradients by torch.autograd, polar factors by scipy, and flows solved with them; and trees."""

import math

import numpy as np
import scipy.linalg
import torch
from hypothesis import strategies as st
from scipy.integrate import solve_ivp
from torch.nn import functional as F

TREES = st.lists(st.integers(2, 6), min_size=1, max_size=4).filter(lambda tree: math.prod(tree) <= 24).map(tuple)


def loss_of(problem, w, kind="softmax", noise=0.0):
    """Return the loss of torch weights (K, d) at the class means; noise adds its second moment to the squared loss."""
    means, priors = torch.from_numpy(problem.means), torch.from_numpy(problem.priors)
    logits, labels = means @ w.T, torch.arange(len(means))
    if kind == "softmax":
        return priors @ F.cross_entropy(logits, labels, reduction="none")
    targets = torch.eye(len(means), dtype=torch.float64) - 1 / len(means)
    return priors @ (logits - targets).square().sum(1) / 2 + noise**2 * w.square().sum() / 2


def descent(problem, weights, kind="softmax", noise=0.0):
    """Return -dL/dW (K, d) of weights (K, d)."""
    w = torch.tensor(weights, requires_grad=True)
    (gradient,) = torch.autograd.grad(loss_of(problem, w, kind, noise), w)
    return -gradient.numpy()


def polar(problem, matrix):
    """Return the polar factor of a matrix whose rows lie in the span of the directions, by scipy."""
    return scipy.linalg.polar(matrix @ problem.directions)[0] @ problem.directions.T


def flow(problem, times, direction=lambda descent: descent, kind="softmax", noise=0.0):
    """Return W (T, K, d) from 0 along dW/dt = direction(-dL/dW), by scipy's Runge-Kutta rule of order 8."""
    shape = problem.num_classes, problem.dimension

    def slope(_, w):
        return direction(descent(problem, w.reshape(shape), kind, noise)).ravel()

    solved = solve_ivp(
        slope, (0, max(times)), np.zeros(math.prod(shape)), method="DOP853", t_eval=times, rtol=1e-11, atol=1e-12
    )
    assert solved.success, solved.message
    return solved.y.T.reshape(len(times), *shape)

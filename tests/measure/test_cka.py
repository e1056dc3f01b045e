"""Linear alignment of hidden states: the paper's formula, its invariances, and its interval."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from muonlab.measure.cka import linear_cka, similarity


def randn(seed, *shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def by_features(X, Y):
    """The paper's equation in the space of features, in NumPy."""
    X, Y = (each.numpy() - each.numpy().mean(0) for each in (X, Y))
    return np.linalg.norm(Y.T @ X) ** 2 / (np.linalg.norm(X.T @ X) * np.linalg.norm(Y.T @ Y))


@pytest.mark.parametrize(("num", "widths"), [(40, (5, 7)), (12, (30, 3))])
def test_it_is_the_papers_formula_for_every_pair_of_layers(num, widths):
    shared = randn(0, num, 4)
    first = [shared @ randn(1, 4, width) + randn(width, num, width) for width in (*widths, 6)]
    second = [shared @ randn(2, 4, width) + 3 + randn(width + 50, num, width) for width in widths]
    expected = [[by_features(X, Y) for Y in second] for X in first]
    torch.testing.assert_close(linear_cka(first, second), torch.tensor(expected, dtype=torch.float64))


seeds, scales = st.integers(0, 10**6), st.floats(1e-6, 1e6)


@settings(max_examples=50, deadline=None)
@given(seeds, st.integers(2, 40), st.integers(1, 20), st.integers(1, 20), scales, st.floats(-1e3, 1e3))
def test_rotating_scaling_and_moving_change_nothing(seed, num, width, other, scale, shift):
    X, Y = randn(seed, num, width), randn(seed + 1, num, other)
    rotation = torch.linalg.qr(randn(seed + 2, width, width)).Q
    before, after = linear_cka([X], [Y]).item(), linear_cka([scale * X @ rotation + scale * shift], [Y]).item()
    assert after == pytest.approx(before, abs=1e-6)
    assert linear_cka([Y], [X]).item() == pytest.approx(before, abs=1e-12)
    assert 0 <= before <= 1


@settings(max_examples=50, deadline=None)
@given(seeds, st.integers(2, 40), st.integers(1, 60), scales)
def test_the_distance_of_a_model_to_itself_is_zero(seed, num, width, scale):
    X = randn(seed, num, width)
    rotation = torch.linalg.qr(randn(seed + 2, width, width)).Q
    found = linear_cka([X, X.square()], [X, scale * X @ rotation])
    assert 1 - found[0, 0].item() == pytest.approx(0, abs=1e-12)
    assert 1 - found[0, 1].item() == pytest.approx(0, abs=1e-9)


def test_a_map_that_is_not_orthogonal_changes_it():
    X = randn(0, 50, 6)
    assert linear_cka([X], [X * torch.tensor([10.0, 1, 1, 1, 1, 1])]).item() < 0.95


def test_the_interval_covers_the_population():
    """Noisy views X = F A + E, Y = F B + G of four factors, whose covariances say the truth."""
    first, second = randn(1001, 4, 5), randn(1002, 4, 6)
    variances = [view.mT @ view + 0.49 * torch.eye(view.shape[1], dtype=torch.float64) for view in (first, second)]
    truth = (first.mT @ second).square().sum() / (variances[0].norm() * variances[1].norm())

    def study(seed):
        factors = randn(seed, 150, 4)
        return [[factors @ view + 0.7 * randn(seed + k, 150, view.shape[1])] for k, view in ((1, first), (2, second))]

    found = [similarity(*study(10 * number)) for number in range(100)]
    hits = sum(bool((each.lower <= truth) & (truth <= each.upper)) for each in found)
    assert 85 <= hits <= 99
    assert all(0 < each.lower < each.value < each.upper < 1 for each in found)


def test_unrelated_states_are_as_alike_as_shuffled_ones():
    """Fewer examples than the width: alike by chance, and the shuffled examples say so."""
    found = similarity([randn(0, 40, 200)], [randn(1, 40, 200)])
    assert found.value.item() > 0.7
    assert found.shuffled.item() == pytest.approx(found.value.item(), abs=0.02)
    itself = similarity([randn(0, 40, 5)], [randn(0, 40, 5)])
    assert (itself.lower.item(), itself.value.item(), itself.upper.item()) == pytest.approx((1, 1, 1), abs=1e-12)
    assert itself.shuffled.item() < 0.3


def test_constant_states_have_no_similarity():
    found = linear_cka([torch.ones(10, 3), randn(0, 10, 3).float()], [randn(1, 10, 4).float()])
    assert found[0].isnan().all()
    assert found[1].isfinite().all()


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ([], [torch.ones(3, 2)], "no layer is given"),
        ([torch.ones(3, 2)], [torch.ones(4, 2)], r"second\[0\] is \(4, 2\) .*; expected 3 examples"),
        ([torch.ones(3)], [torch.ones(3, 2)], r"first\[0\] is \(3,\) of torch.float32; expected floating"),
        ([torch.ones(3, 2)], [torch.full((3, 2), torch.nan)], "not all are finite"),
    ],
)
def test_states_that_do_not_fit_are_refused(first, second, message):
    with pytest.raises(ValueError, match=message):
        linear_cka(first, second)


def test_intervals_need_examples():
    with pytest.raises(ValueError, match="19 examples: intervals need 20 or more"):
        similarity([randn(0, 19, 2)], [randn(1, 19, 2)])

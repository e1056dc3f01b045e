import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from muonlab.measure.margins import logit_margins, margins, summarise

# Sums of 203 numbers of about one in another order, in float64: 203 * 1.1e-16, with room.
ROUNDING = {"rtol": 1e-12, "atol": 1e-12}


def classifiers(num_problems=2, num_examples=30, num_classes=4, width=3, seed=0):
    """Return features, logits (P, N, C), labels (N,), weights (P, C, D) and biases (P, C)."""
    generator = torch.Generator().manual_seed(seed)
    X = torch.randn(num_examples, width, generator=generator, dtype=torch.float64)
    W = torch.randn(num_problems, num_classes, width, generator=generator, dtype=torch.float64)
    b = torch.randn(num_problems, num_classes, generator=generator, dtype=torch.float64)
    y = torch.randint(num_classes, (num_examples,), generator=generator)
    return X, X @ W.mT + b[:, None], y, W, b


def test_two_classes_have_the_margins_of_geometry():
    """The boundary of W = (-u, u), b = (-c, c) is u'x + c = 0, |u'x + c| / |u| away; |W|_F is sqrt(2) |u|."""
    u, c = torch.tensor([3.0, 4.0]), -10.0
    X = torch.tensor([[2.0, 1.0], [6.0, 8.0], [0.0, 0.0]])  # on it; 8 beyond; 2 before
    W, b = torch.stack([-u, u])[None], torch.tensor([-c, c])
    found = margins((X @ W[0].mT + b)[None], torch.tensor([1, 1, 1]), W)
    torch.testing.assert_close(found.by_distance[0], torch.tensor([0.0, 8.0, -2.0], dtype=torch.float64))
    torch.testing.assert_close(found.raw[0], 2 * torch.tensor([0.0, 40.0, -10.0], dtype=torch.float64))
    torch.testing.assert_close(found.by_norm[0], math.sqrt(2) * torch.tensor([0.0, 8.0, -2.0], dtype=torch.float64))


def test_raw_is_the_loop_over_classes():
    _, logits, y, W, _ = classifiers()
    found = margins(logits, y, W)
    for p in range(2):
        for n, label in enumerate(y.tolist()):
            others = [logits[p, n, j].item() for j in range(4) if j != label]
            assert found.raw[p, n].item() == pytest.approx(logits[p, n, label].item() - max(others))
            assert (found.raw[p, n] > 0) == (logits[p, n].argmax() == label)
    assert torch.equal(logit_margins(logits, y), found.raw)


def test_the_distance_is_that_to_the_nearest_point_of_another_class():
    """scipy projects each example on each half-space where another class is ahead."""
    X, logits, y, W, b = classifiers(num_problems=1, num_examples=12)
    found = margins(logits, y, W).by_distance[0]
    for n in range(12):
        if found[n] <= 0:
            continue
        nearest = math.inf
        for j in set(range(4)) - {int(y[n])}:
            gap = (W[0, y[n]] - W[0, j]).numpy(), (b[0, y[n]] - b[0, j]).item()
            ahead = {"type": "ineq", "fun": lambda v, gap=gap: -(gap[0] @ v + gap[1])}
            point = optimize.minimize(
                lambda v, n=n: ((v - X[n].numpy()) ** 2).sum(), np.zeros(3), constraints=ahead, tol=1e-14
            )
            nearest = min(nearest, math.sqrt(point.fun))
        assert found[n].item() == pytest.approx(nearest, rel=1e-4)
    assert (found > 0).any()


@given(scale=st.floats(0.01, 100), seed=st.integers(0, 50))
@settings(max_examples=20, deadline=None)
def test_normalised_margins_do_not_know_the_scale_or_a_common_part_of_the_weights(scale, seed):
    X, logits, y, W, _ = classifiers(seed=seed)
    common = X.new_ones(3)
    first = margins(logits, y, W)
    second = margins(scale * (logits + (X @ common)[None, :, None]), y, scale * (W + common))
    torch.testing.assert_close(second.raw, scale * first.raw)
    torch.testing.assert_close(second.by_norm, first.by_norm)
    torch.testing.assert_close(second.by_distance, first.by_distance)


def test_classes_of_one_weight_vector_have_no_boundary():
    W = torch.tensor([[[1.0, 0.0], [1.0, 0.0], [0.0, 0.0]]])
    y = torch.tensor([0, 0, 0])
    logits = torch.tensor([[[2.0, 1.0, 0.0], [1.0, 2.0, 0.0], [2.0, 2.0, 0.0]]])
    assert margins(logits, y, W).by_distance.tolist() == [[2.0, -math.inf, 0.0]]
    assert margins(logits, y, 0 * W).by_norm.isnan().all()


def test_the_figures_are_numpys_and_their_intervals_scipys_bootstrap():
    values = torch.randn(2, 201, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 0.3
    found = summarise(values, resamples=2000)
    statistics = {
        "mean": np.mean,
        "median": lambda x, axis: np.quantile(x, 0.5, axis=axis, method="inverted_cdf"),
    }
    for name, statistic in statistics.items():
        ours = getattr(found, name)
        np.testing.assert_allclose(ours.value, statistic(values.numpy(), axis=1))
        for problem in range(2):
            theirs = stats.bootstrap(
                (values[problem].numpy(),), statistic, n_resamples=2000, method="percentile", rng=1
            ).confidence_interval
            assert ours.lower[problem].item() == pytest.approx(theirs.low, abs=0.025), name
            assert ours.upper[problem].item() == pytest.approx(theirs.high, abs=0.025), name
    assert summarise(torch.tensor([[-1.0, 0.0, 1.0, 2.0]]), resamples=5).median.value.tolist() == [0.0]


def test_a_seed_names_its_resamples_and_chunks_do_not_change_them(monkeypatch):
    values = torch.randn(2, 50, generator=torch.Generator().manual_seed(0))
    first, again, other = summarise(values), summarise(values), summarise(values, seed=1)
    assert torch.equal(first.mean.lower, again.mean.lower)
    assert not torch.equal(first.mean.lower, other.mean.lower)
    monkeypatch.setattr("muonlab.measure.margins.CHUNK_BYTES", 8 * 50 * 7)
    torch.testing.assert_close(summarise(values).median.upper, first.median.upper)


@pytest.mark.parametrize(
    ("shape", "labels", "weights"),
    [
        ((3, 4), [0, 0, 0], (1, 4, 2)),
        ((1, 3, 1), [0, 0, 0], (1, 1, 2)),
        ((1, 3, 4), [0, 0], (1, 4, 2)),
        ((1, 3, 4), [4, 4, 4], (1, 4, 2)),
        ((1, 3, 4), [0, 0, 0], (1, 3, 2)),
    ],
)
def test_bad_shapes_get_a_message(shape, labels, weights):
    with pytest.raises(ValueError, match="expected"):
        margins(torch.zeros(shape), torch.tensor(labels), torch.zeros(weights))


def test_bad_settings_get_a_message():
    values = torch.zeros(1, 3)
    for bad, change in ((values, {"level": 1.0}), (values, {"resamples": 1}), (values + torch.nan, {})):
        with pytest.raises(ValueError, match="expected"):
            summarise(bad, **change)


@pytest.mark.kernels
def test_a_problem_has_the_margins_and_intervals_that_it_has_alone():
    _, logits, y, W, _ = classifiers(num_problems=7, num_examples=203, num_classes=5, width=9)
    together = margins(logits, y, W)
    for p in range(7):
        alone = margins(logits[[p]], y, W[[p]])
        for kind in ("raw", "by_norm", "by_distance"):
            torch.testing.assert_close(getattr(alone, kind)[0], getattr(together, kind)[p], **ROUNDING)
        own, all_of_them = summarise(alone.raw, resamples=50), summarise(together.raw, resamples=50)
        for figure in ("mean", "median"):
            for end in ("value", "lower", "upper"):
                mine, theirs = (getattr(getattr(each, figure), end) for each in (own, all_of_them))
                torch.testing.assert_close(mine[0], theirs[p], **ROUNDING, msg=f"{end} of {figure}")

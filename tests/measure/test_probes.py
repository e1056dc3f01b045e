import itertools

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.preprocessing import StandardScaler

from muonlab.measure.probes import Examples, probe

GRID = (1e-4, 1e-3, 1e-2)
EXACT = {"dtype": torch.float64, "tolerance": 1e-6}


def make(noises=(0.8, 2.0, 8.0), num=(200, 150, 150), width=6, num_classes=3, seed=0):
    """Return train, validation and test of one problem a noise, on scales and means of their own."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(num_classes, (sum(num),), generator=generator)
    means = torch.randn(num_classes, width, generator=generator)
    noise = torch.randn(len(noises), len(y), width, generator=generator)
    scale = torch.logspace(-2, 2, width)
    X = (means[y] + torch.tensor(noises)[:, None, None] * noise) * scale + 30 * scale
    cuts = np.cumsum((0, *num))
    return [Examples(X[:, a:b], y[a:b]) for a, b in itertools.pairwise(cuts)]


def test_the_grid_and_its_best_are_scikit_learns():
    train, validation, test = make()
    found = probe(train, validation, test, strengths=GRID, **EXACT)
    for problem in range(3):
        X, held_out, tested = (split.features[problem].double().numpy() for split in (train, validation, test))
        scaler, strengths = StandardScaler().fit(X), found.strengths[~found.losses[problem].isnan()].tolist()
        fits = [
            LogisticRegression(C=each, tol=1e-10, max_iter=10_000).fit(scaler.transform(X), train.labels.numpy())
            for each in strengths
        ]
        losses = [log_loss(validation.labels, fit.predict_proba(scaler.transform(held_out))) for fit in fits]
        np.testing.assert_allclose(found.losses[problem][~found.losses[problem].isnan()], losses, rtol=1e-4)
        best = int(np.argmin(losses))
        assert found.strength[problem] == strengths[best]
        for accuracy, features, split in (
            (found.validation_accuracy, held_out, validation),
            (found.test_accuracy, tested, test),
        ):
            expected = fits[best].score(scaler.transform(features), split.labels.numpy())
            assert accuracy[problem] == pytest.approx(expected)


def test_problems_go_on_beyond_the_grid_each_its_own_way_until_the_best_is_inside():
    train, validation, test = make(noises=(0.8, 8.0))
    found = probe(train, validation, test, strengths=(0.25, 1.0), **EXACT)
    assert found.strength[0] > 1.0
    assert found.strength[1] < 0.25
    assert not found.is_edge.any()
    for problem in range(2):
        losses = found.losses[problem][~found.losses[problem].isnan()]
        assert 0 < losses.argmin() < len(losses) - 1
    assert found.losses.isnan().any(1).all()


def test_a_bound_is_met_and_said():
    train, validation, test = make(noises=(0.8, 8.0))
    found = probe(train, validation, test, strengths=(0.1, 0.3), bounds=(0.1, 0.9), **EXACT)
    assert found.is_edge.all()
    assert found.strength.tolist() == pytest.approx([0.9, 0.1])
    assert found.strengths.tolist() == pytest.approx([0.1, 0.3, 0.9])


def test_the_probe_returned_is_the_one_that_was_scored():
    train, validation, test = make()
    found = probe(train, validation, test)
    for split, accuracy in ((validation, found.validation_accuracy), (test, found.test_accuracy)):
        right = found.logits(split.features).argmax(2) == split.labels
        torch.testing.assert_close(right.double().mean(1), accuracy)
    losses = torch.nn.functional.cross_entropy(
        found.logits(validation.features).mT, validation.labels.expand(3, -1), reduction="none"
    ).mean(1)
    torch.testing.assert_close(losses, found.losses[found.strengths == found.strength[:, None]], rtol=1e-5, atol=1e-6)


def test_the_chosen_fit_is_to_the_tolerance_though_the_grid_is_not():
    train, validation, test = make()
    exact = probe(train, validation, test, **EXACT)
    size = exact.weights.flatten(1).norm(dim=1)
    for dtype, tolerance in ((torch.float64, 0.1), (torch.float32, 0.01)):
        found = probe(train, validation, test, dtype=dtype, tolerance=tolerance)
        assert torch.equal(found.strength, exact.strength)
        assert ((found.weights - exact.weights).flatten(1).norm(dim=1) <= tolerance * size).all()


def test_standardisation_is_scikit_learns_with_constant_columns_left_alone_and_inputs_not_written():
    train, validation, test = make(noises=(1.0,))
    train, validation, test = (
        Examples(
            torch.cat([split.features.double(), torch.full((1, len(split.labels), 1), 0.1).double()], 2), split.labels
        )
        for split in (train, validation, test)
    )
    validation.features[..., -1] = 1e6  # varies elsewhere only
    before = train.features.clone()
    found = probe(train, validation, test, **EXACT)
    scaler = StandardScaler().fit(before[0].numpy())
    np.testing.assert_allclose(found.mean[0], scaler.mean_)
    np.testing.assert_allclose(found.scale[0], scaler.scale_)
    assert found.weights[..., -1].abs().max() < 1e-12
    assert torch.equal(train.features, before)


def test_fits_that_run_out_of_steps_are_flagged():
    train, validation, test = make()
    found = probe(train, validation, test, max_iterations=1, **EXACT)
    assert not found.converged.any()


def test_classes_that_can_be_told_apart_end_at_an_edge_and_say_so():
    """Without a best strength, the loss falls to the bound, or to where float32 can resolve no gradient."""
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(300) % 2
    X = torch.randn(1, 300, 4, generator=generator) * 0.1
    X[0, :, 0] += 2.0 * y
    splits = [Examples(X[:, cut], y[cut]) for cut in (slice(0, 100), slice(100, 200), slice(200, 300))]
    for dtype in (torch.float32, torch.float64):
        found = probe(*splits, dtype=dtype)
        assert found.is_edge.all()
        assert found.converged.all()
        assert found.test_accuracy.item() == 1


def test_features_that_say_nothing_give_the_best_constant_answer():
    y = torch.tensor([0] * 60 + [1] * 40)
    X = torch.full((1, 100, 3), 7.0)
    found = probe((X, y), (X, y), (X, y))
    assert found.test_accuracy.item() == pytest.approx(0.6)
    assert found.weights.abs().max() == 0
    assert found.is_edge.all()


@pytest.mark.parametrize(
    ("examples", "settings", "message"),
    [
        ({"features": torch.zeros(200, 6)}, {}, "expected"),
        ({"labels": torch.zeros(7, dtype=torch.long)}, {}, r"labels of shape \(7,\)"),
        ({"labels": torch.zeros(200)}, {}, "expected int64 from 0"),
        ({"labels": torch.full((200,), -1)}, {}, "expected int64 from 0"),
        ({"features": torch.full((3, 200, 6), torch.nan)}, {}, "not all finite"),
        ({"features": torch.zeros(3, 200, 5)}, {}, "those of train differ"),
        ({}, {"strengths": (1.0,)}, "strengths"),
        ({}, {"strengths": (1.0, -1.0)}, "strengths"),
        ({}, {"bounds": (1.0, 2.0)}, "bounds"),
        ({}, {"dtype": torch.bfloat16}, "dtype"),
        ({}, {"tolerance": 0.0}, "tolerance"),
        ({}, {"num_classes": 2}, "num_classes"),
    ],
)
def test_bad_input_gets_a_message(examples, settings, message):
    train, validation, test = make()
    with pytest.raises(ValueError, match=message):
        probe(train._replace(**examples), validation, test, **settings)


@pytest.mark.kernels
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-3), (torch.float64, 1e-11)])
def test_a_problem_is_fitted_together_with_others_as_it_is_alone(dtype, tolerance):
    """Problems that end soon, late, or go on beyond the grid are fitted together; each has its own curvature.

    Features moved by one unit in the last place move the weights by 2e-4 of their norm in float32 and 4e-13 in float64.
    """
    splits = make(noises=(0.3, 0.8, 2.0, 8.0, 30.0), num=(300, 150, 150), width=12, num_classes=4)
    together = probe(*splits, dtype=dtype)
    for problem in range(5):
        alone = probe(*(([each.features[problem]], each.labels[None]) for each in splits), dtype=dtype)
        for name in ("weights", "biases"):
            own, other = getattr(alone, name)[0], getattr(together, name)[problem]
            assert (own - other).norm() <= tolerance * together.weights[problem].norm(), (name, problem)
        for name in ("strength", "validation_accuracy", "test_accuracy"):
            assert getattr(alone, name)[0] == getattr(together, name)[problem], (name, problem)

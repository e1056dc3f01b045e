import doctest

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from muonlab.studies.components.theory.problem import build
from muonlab.studies.components.work import examples as components
from muonlab.studies.components.work.examples import draw, means, removed, strongest, swapped


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def problem():
    return build(classes=8, dimension=16, seed=3)


def test_without_noise_an_example_is_its_class_mean(problem):
    examples = draw(problem, 40, generator(), dtype=torch.float64)
    np.testing.assert_allclose(examples.inputs, problem.means[examples.labels], atol=1e-12)
    np.testing.assert_array_equal(examples.coefficients, problem.patterns[examples.labels])


@given(number=st.integers(1, 300), imbalance=st.floats(1, 20), classes=st.integers(2, 9))
def test_every_class_has_its_share_rounded(number, imbalance, classes):
    problem = build(classes=classes, dimension=8, imbalance=imbalance)
    counts = draw(problem, number, generator()).labels.bincount(minlength=classes).numpy()
    assert counts.sum() == number
    assert (abs(counts - number * problem.priors) < 1).all()


def test_the_order_of_the_labels_is_random_and_follows_from_the_generator(problem):
    first, again, other = (draw(problem, 64, generator(seed)).labels for seed in (0, 0, 1))
    assert first.equal(again)
    assert not first.equal(other)
    assert not first.equal(first.sort().values)
    assert draw(problem, 8, generator()).inputs.dtype == torch.float32


def test_noise_is_added_to_the_same_examples_and_has_its_deviation(problem):
    clean, noisy = (draw(problem, 4000, generator(), noise=noise, dtype=torch.float64) for noise in (0.0, 0.3))
    assert clean.labels.equal(noisy.labels)
    away = noisy.inputs - clean.inputs
    assert away.std(dim=0).sub(0.3).abs().max() < 0.3 * 4 / 8000**0.5  # four standard errors of a deviation
    assert away.mean(0).abs().max() < 0.3 * 4 / 4000**0.5


def least_squares_accuracy(inputs, labels, new_inputs, new_labels):
    """Accuracy on new examples of the linear least-squares classifier with an intercept."""
    targets = np.eye(8)[labels]
    weights = np.linalg.lstsq(np.c_[inputs, np.ones(len(inputs))], targets, rcond=None)[0]
    return float((np.c_[new_inputs, np.ones(len(new_inputs))] @ weights).argmax(1).__eq__(new_labels).mean())


def test_spurious_components_tell_nothing_of_the_class_and_the_others_all(problem):
    train, test = (draw(problem, 4000, generator(seed), spurious=4).coefficients.numpy() for seed in (0, 1))
    labels, new = (draw(problem, 4000, generator(seed), spurious=4).labels.numpy() for seed in (0, 1))
    at_chance = least_squares_accuracy(train[:, -4:], labels, test[:, -4:], new)
    assert abs(at_chance - 1 / 8) < 4 * (1 / 8 * 7 / 8 / 4000) ** 0.5
    # Two levels of a tree of eight classes are left: pairs of classes.
    assert abs(least_squares_accuracy(train[:, :3], labels, test[:, :3], new) - 1 / 2) < 4 * (0.25 / 4000) ** 0.5
    np.testing.assert_array_equal(train[:, :3], problem.patterns[labels, :3])
    known = {tuple(row) for row in problem.patterns[:, -4:].round(12)}  # those of an example are of one class
    assert {tuple(row) for row in train[:, -4:].round(12)} <= known


@pytest.mark.parametrize("spurious", [0, 2])
def test_means_are_those_of_many_examples(spurious):
    problem = build(classes=8, dimension=16, imbalance=5.0)
    examples = draw(problem, 80_000, generator(), noise=0.1, spurious=spurious)
    for label, mean in enumerate(means(problem, spurious)):
        seen = examples.inputs[examples.labels == label].double()
        errors = (seen.mean(0) - mean) / (seen.std(0) / len(seen) ** 0.5)
        assert errors.abs().max() < 5
    np.testing.assert_allclose(means(problem), problem.means, atol=1e-12)


def test_the_strongest_components_are_those_of_the_first_level():
    assert strongest(build(classes=12, tree=(3, 4))).tolist() == [True, True] + 9 * [False]
    assert strongest(build(classes=6, patterns="random")).tolist() == [True] + 4 * [False]


def test_what_is_removed_is_gone_and_all_else_stays(problem):
    examples = draw(problem, 60, generator(), noise=0.2, spurious=2, dtype=torch.float64)
    bare = removed(problem, examples, strongest(problem))
    directions = torch.from_numpy(problem.directions)
    lost = (examples.inputs - bare) @ directions
    expected = examples.coefficients * torch.from_numpy(problem.strengths)
    torch.testing.assert_close(lost[:, 0], expected[:, 0])
    assert lost[:, 1:].abs().max() < 1e-12
    torch.testing.assert_close((examples.inputs - bare).norm(dim=1), expected[:, 0].abs())


def test_what_is_swapped_is_that_of_another_class_and_all_else_stays():
    problem = build(classes=6, dimension=8, patterns="random")  # each class has a coefficient of its own
    examples = draw(problem, 600, generator(), dtype=torch.float64)
    other = swapped(problem, examples, strongest(problem), generator(1))
    along = torch.from_numpy(problem.directions).mT
    coefficients = other @ along.mT / torch.from_numpy(problem.strengths)
    torch.testing.assert_close(coefficients[:, 1:], examples.coefficients[:, 1:])
    of_class = torch.from_numpy(problem.patterns[:, 0])
    taken = (coefficients[:, :1] - of_class).abs().argmin(1)
    torch.testing.assert_close(coefficients[:, 0], of_class[taken])
    assert (taken != examples.labels).all()
    pairs = torch.zeros(6, 6).index_put_((examples.labels, taken), torch.ones(600), accumulate=True)
    assert (pairs.fill_diagonal_(20) > 5).all()  # 20 each, drawn evenly


@pytest.mark.parametrize(
    ("number", "options", "message"),
    [
        (0, {}, "0 examples: expected one or more"),
        (5, {"noise": -1.0}, "noise=-1: expected 0 or more"),
        (5, {"spurious": 8}, "spurious=8 of 7 components: expected 0 to 7"),
        (5, {"spurious": -1}, "spurious=-1 of 7 components"),
    ],
)
def test_what_cannot_be_drawn_is_refused(problem, number, options, message):
    with pytest.raises(ValueError, match=message):
        draw(problem, number, generator(), **options)


def test_the_example_runs():
    assert doctest.testmod(components) == (0, 7)

import doctest
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import expm, logm

from muonlab.studies.components.theory import problem as module
from muonlab.studies.components.theory.problem import build, default_tree, random_patterns, tree_patterns
from theory_oracles import TREES


def block_mean(num_classes, size):
    """Return the matrix that puts the mean over its block of `size` classes in the place of every class."""
    return np.kron(np.eye(num_classes // size), np.full((size, size), 1 / size))


@given(TREES)
@settings(max_examples=20, deadline=None)
def test_a_level_of_a_tree_spans_what_its_children_have_over_their_parent(tree):
    columns, levels = tree_patterns(tree)
    num_classes = math.prod(tree)
    assert columns.shape == (num_classes, num_classes - 1)
    assert (np.diff(levels) >= 0).all()
    for level in range(len(tree)):
        here = columns[:, levels == level]
        parent, child = math.prod(tree[level:]), math.prod(tree[level + 1 :])
        projector = block_mean(num_classes, child) - block_mean(num_classes, parent)
        np.testing.assert_allclose(here @ here.T, projector, atol=1e-12)


@given(st.integers(2, 10_000))
@settings(max_examples=50, deadline=None)
def test_the_default_tree_has_prime_factors(num_classes):
    factors = default_tree(num_classes)
    assert math.prod(factors) == num_classes
    assert list(factors) == sorted(factors)
    assert all(factor % divisor for factor in factors for divisor in range(2, math.isqrt(factor) + 1))


def test_random_patterns_favour_no_direction():
    """The mean projector on a uniform subspace, or column, is a multiple of that on vectors of sum zero."""
    draws = np.array([random_patterns(4, 2, seed) for seed in range(1000)])
    centring = np.eye(4) - 1 / 4
    for columns, share in ((draws, 2 / 3), (draws[:, :, :1], 1 / 3)):
        np.testing.assert_allclose((columns @ columns.mT).mean(0), share * centring, atol=0.05)
    np.testing.assert_allclose(draws.mean(0), 0, atol=0.05)  # about 3.3 standard errors


def test_a_whole_rotation_favours_no_direction():
    draws = np.array([build(classes=2, dimension=3, seed=seed).directions[:, 0] for seed in range(200)])
    np.testing.assert_allclose(draws.mean(0), 0, atol=0.135)  # about 3.3 standard errors
    np.testing.assert_allclose(draws.T @ draws / 200, np.eye(3) / 3, atol=0.09)


@given(
    TREES, st.integers(0, 5), st.floats(0, 1), st.floats(1, 100), st.floats(1, 100), st.integers(0, 9), st.booleans()
)
@settings(max_examples=30, deadline=None)
def test_a_problem_is_what_its_settings_say(tree, more, rotation, ratio, imbalance, seed, is_tree):
    classes = math.prod(tree)
    shape = {"tree": tree} if is_tree else {"patterns": "random"}
    given = {"rotation": rotation, "ratio": ratio, "imbalance": imbalance, "seed": seed}
    built = build(classes=classes, dimension=classes - 1 + more, **shape, **given)
    assert (built.num_classes, built.rank, built.dimension) == (classes, classes - 1, classes - 1 + more)
    np.testing.assert_allclose(built.patterns.T @ built.patterns, np.eye(classes - 1), atol=1e-9)
    np.testing.assert_allclose(np.linalg.svd(built.means, compute_uv=False)[: built.rank], built.strengths, atol=1e-9)
    np.testing.assert_allclose(built.means.sum(0), 0, atol=1e-9)
    assert built.strengths[0] == pytest.approx(2)
    if built.levels[-1]:
        assert built.strengths[-1] == pytest.approx(2 / ratio)
    assert built.priors.sum() == pytest.approx(1)
    assert built.priors.max() / built.priors.min() == pytest.approx(imbalance)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"ratio": 3}, [1, 1 / 3, 1 / 3]),
        ({"ratio": 4, "patterns": "random"}, [1, 1 / 2, 1 / 4]),
        ({"ratio": 3, "patterns": "random", "strengths": "power"}, [1, 3 ** (-math.log(2) / math.log(3)), 1 / 3]),
        ({"ratio": 9, "strengths": "equal"}, [1, 1, 1]),
        ({"strengths": (5, 1)}, [5, 1, 1]),
        ({"strengths": (5, 1, 0.5), "patterns": "random"}, [5, 1, 0.5]),
        ({"strengths": (3,), "rank": 1}, [3]),
        # with less components, the ratio is still that of the strongest to the weakest that is there
        ({"classes": 8, "rank": 3, "ratio": 6}, [1, 1 / 6, 1 / 6]),
        ({"rank": 1, "ratio": 6}, [1]),
    ],
)
def test_strengths_fall_by_level_on_a_tree_and_by_component_elsewhere(settings, expected):
    assert build(**{"classes": 4, "scale": 1} | settings).strengths == pytest.approx(expected)


@pytest.mark.parametrize(("dimension", "power"), [(7, 0.5), (8, 0.1), (13, 0.9)])
def test_a_rotation_between_lies_on_one_geodesic(dimension, power):
    """Against scipy's matrix logarithm: Q^p = exp(p log Q); and a Q without reflection, so that both are real."""
    whole, part, none = (build(dimension=dimension, rank=7, rotation=p).directions for p in (1, power, 0))
    np.testing.assert_array_equal(none, np.eye(dimension)[:, :7])
    q = module._rotation(dimension, 1, int(np.random.SeedSequence(0).generate_state(3)[1]))
    np.testing.assert_allclose(q[:, :7], whole)
    assert np.linalg.det(q) == pytest.approx(1)
    np.testing.assert_allclose(expm(power * logm(q))[:, :7], part, atol=1e-9)


def test_streams_of_a_seed_do_not_depend_on_one_another():
    plain, other = build(patterns="random", seed=3), build(patterns="random", seed=3, imbalance=9, rotation=0)
    np.testing.assert_array_equal(plain.patterns, other.patterns)
    np.testing.assert_array_equal(plain.directions, build(seed=3, ratio=9, imbalance=2).directions)
    assert not np.allclose(plain.directions, build(seed=4).directions)
    assert sorted(build(imbalance=9, seed=1).priors) == sorted(build(imbalance=9, seed=2).priors)
    assert build(imbalance=9, seed=1).priors.tolist() != build(imbalance=9, seed=2).priors.tolist()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"classes": 1}, "classes=1: expected two or more"),
        ({"dimension": 5}, "7 components in 5 inputs: .* raise dimension to 7 or more, or lower rank"),
        ({"rank": 8}, "rank=8 for 8 classes: expected 1 to 7"),
        ({"rank": 0}, "rank=0 for 8 classes: expected 1 to 7"),
        ({"strengths": (1, 2, 3)}, "strengths=.*expected numbers above 0 that do not rise"),
        ({"strengths": (3, 2, 0)}, "strengths=.*expected numbers above 0"),
        ({"strengths": (3, 2)}, "expected 3 numbers, one for each level"),
        ({"strengths": (3, 2), "patterns": "random"}, "expected 7 numbers"),
        ({"strengths": 2.0}, "strengths=.2.0.: expected 3 numbers"),
        ({"strengths": "linear"}, "strengths='linear': expected geometric, power or equal, or numbers"),
        ({"ratio": 0.5}, "ratio=0.5: expected 1 or more"),
        ({"ratio": math.inf}, "ratio=inf: expected 1 or more"),
        ({"scale": 0}, "scale=0: expected a finite number above 0"),
        ({"scale": math.inf}, "scale=inf: expected a finite number"),
        ({"tree": (2, 3)}, r"tree=\(2, 3\) has 6 classes, but classes=8"),
        ({"tree": ()}, r"tree=\(\) has 1 classes, but classes=8"),
        ({"tree": (8, 1)}, r"tree \(8, 1\): expected two children or more"),
        ({"tree": (2, 4), "patterns": "random"}, r"tree=\(2, 4\) without patterns='tree'"),
        ({"patterns": "ring"}, "patterns='ring': expected 'tree' or 'random'"),
        ({"rotation": 1.5}, "rotation=1.5: expected 0"),
        ({"imbalance": 0.5}, "imbalance=0.5: expected 1 or more"),
    ],
)
def test_what_cannot_be_is_refused_in_words(settings, message):
    with pytest.raises(ValueError, match=message):
        build(**settings)


def test_the_examples_run():
    assert doctest.testmod(module).failed == 0

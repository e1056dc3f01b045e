import doctest
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import expm, helmert, logm

from muonlab.studies.components.theory import patterns
from muonlab.studies.components.theory import problem as module
from muonlab.studies.components.theory.patterns import (
    check_patterns,
    default_tree,
    random_patterns,
    strengths,
    tree_patterns,
)
from muonlab.studies.components.theory.problem import Problem, build
from theory_oracles import TREES

# ---- patterns and strengths


def block_mean(num_classes, size):
    """Return the matrix that puts the mean over its block of `size` classes in the place of every class."""
    return np.kron(np.eye(num_classes // size), np.full((size, size), 1 / size))


@given(TREES)
@settings(max_examples=50, deadline=None)
def test_a_level_of_a_tree_spans_what_its_children_have_over_their_parent(tree):
    columns, levels = tree_patterns(tree)
    num_classes = math.prod(tree)
    assert columns.shape == (num_classes, num_classes - 1)
    assert (np.diff(levels) >= 0).all()
    check_patterns(columns)
    for level in range(len(tree)):
        here = columns[:, levels == level]
        parent, child = math.prod(tree[level:]), math.prod(tree[level + 1 :])
        projector = block_mean(num_classes, child) - block_mean(num_classes, parent)
        np.testing.assert_allclose(here @ here.T, projector, atol=1e-12)


@given(st.integers(2, 12))
@settings(max_examples=50, deadline=None)
def test_one_level_is_scipys_helmert_matrix(children):
    columns, levels = tree_patterns((children,))
    np.testing.assert_allclose(columns, helmert(children).T, atol=1e-12)
    assert not levels.any()


@given(st.integers(2, 10_000))
@settings(max_examples=50, deadline=None)
def test_the_default_tree_has_prime_factors(num_classes):
    factors = default_tree(num_classes)
    assert math.prod(factors) == num_classes
    assert list(factors) == sorted(factors)
    assert all(factor % divisor for factor in factors for divisor in range(2, math.isqrt(factor) + 1))


@given(st.integers(2, 12), st.data())
@settings(max_examples=50, deadline=None)
def test_random_patterns_are_patterns(num_classes, data):
    number = data.draw(st.integers(1, num_classes - 1))
    columns = random_patterns(num_classes, number, data.draw(st.integers(0, 2**32)))
    assert columns.shape == (num_classes, number)
    check_patterns(columns)


def test_random_patterns_favour_no_direction():
    """The mean projector on a uniform subspace, or column, is a multiple of that on vectors of sum zero."""
    draws = np.array([random_patterns(4, 2, seed) for seed in range(3000)])
    centring = np.eye(4) - 1 / 4
    for columns, share in ((draws, 2 / 3), (draws[:, :, :1], 1 / 3)):
        np.testing.assert_allclose((columns @ columns.mT).mean(0), share * centring, atol=0.03)
    np.testing.assert_allclose(draws.mean(0), 0, atol=0.03)  # about 3.3 standard errors
    np.testing.assert_array_equal(random_patterns(4, 2, 7), draws[7])


GOOD = tree_patterns((2, 2))[0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: check_patterns(GOOD + np.array([0, 1.0, 0])), "pattern 1 sums to 4 over the classes: expected 0"),
        (lambda: check_patterns(GOOD * np.array([1, 1, 2.0])), "patterns 2 and 2 have product 4, expected 1"),
        (
            lambda: check_patterns(np.stack([GOOD[:, 0], (GOOD[:, 0] + GOOD[:, 1]) / math.sqrt(2)], 1)),
            r"patterns 0 and 1 have product (1|0\.7\d+), expected 0",
        ),
        (lambda: check_patterns(GOOD[:, 0]), r"shape \(4,\): expected \(classes, components\)"),
        (lambda: check_patterns(GOOD * math.nan), "finite numbers"),
        (lambda: random_patterns(5, 0, 0), "0 components for 5 classes: expected 1 to 4"),
        (lambda: random_patterns(5, 5, 0), "5 components for 5 classes: expected 1 to 4"),
        (lambda: tree_patterns(()), "two children or more"),
        (lambda: tree_patterns((2, 1)), "two children or more"),
        (lambda: default_tree(1), "classes=1: expected two or more"),
        (lambda: strengths("power", 3, 0.5), "ratio=0.5: expected 1 or more"),
        (lambda: strengths("power", 3, math.inf), "ratio=inf: expected 1 or more"),
        (lambda: strengths("linear", 3, 2), "strengths='linear': expected one of geometric, power, equal"),
    ],
)
def test_bad_patterns_and_strengths_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@given(st.integers(2, 20), st.floats(1, 1e4), st.sampled_from(["geometric", "power"]))
@settings(max_examples=50, deadline=None)
def test_strengths_fall_from_one_by_the_ratio(number, ratio, kind):
    found = strengths(kind, number, ratio)
    assert found[0] == 1
    assert found[-1] == pytest.approx(1 / ratio)
    places = np.arange(number) if kind == "geometric" else np.log(np.arange(number) + 1)
    # a line in its own scale: one slope between all
    np.testing.assert_allclose(np.log(found) * places[-1], np.log(found[-1]) * places, atol=1e-9)


def test_equal_strengths_and_a_single_one_have_no_use_for_a_ratio():
    assert strengths("equal", 3, 7.0).tolist() == [1, 1, 1]
    assert [strengths(kind, 1, 7.0).tolist() for kind in patterns.KINDS] == [[1], [1], [1]]


# ---- problems


@given(TREES, st.integers(0, 5), st.floats(0, 1), st.floats(1, 100), st.floats(1, 100), st.integers(0, 9))
@settings(max_examples=50, deadline=None)
def test_class_means_have_the_strengths_as_singular_values(tree, more, rotation, ratio, imbalance, seed):
    classes = math.prod(tree)
    built = build(
        classes=classes,
        tree=tree,
        dimension=classes - 1 + more,
        rotation=rotation,
        ratio=ratio,
        imbalance=imbalance,
        seed=seed,
    )
    assert (built.num_classes, built.rank, built.dimension) == (classes, classes - 1, classes - 1 + more)
    np.testing.assert_allclose(np.linalg.svd(built.means, compute_uv=False)[: built.rank], built.strengths, atol=1e-9)
    np.testing.assert_allclose(built.means.sum(0), 0, atol=1e-9)
    assert built.strengths[0] == pytest.approx(2)
    if len(tree) > 1:
        assert built.strengths[-1] == pytest.approx(2 / ratio)
    assert built.priors.sum() == pytest.approx(1)
    assert built.priors.max() / built.priors.min() == pytest.approx(imbalance)


def test_strengths_fall_by_level_on_a_tree_and_by_component_elsewhere():
    assert build(classes=4, ratio=3, scale=1).strengths == pytest.approx([1, 1 / 3, 1 / 3])
    assert build(classes=4, ratio=4, scale=1, patterns="random").strengths == pytest.approx([1, 1 / 2, 1 / 4])
    assert build(classes=4, strengths=(5, 1)).strengths.tolist() == [5, 1, 1]
    assert build(classes=4, strengths=(5, 1, 0.5), patterns="random").strengths.tolist() == [5, 1, 0.5]
    # with less components, the ratio is still that of the strongest to the weakest that is there
    assert build(classes=8, rank=3, ratio=6).strengths == pytest.approx([2, 1 / 3, 1 / 3])
    assert build(classes=8, rank=3, strengths=(3, 2)).levels.tolist() == [0, 1, 1]


def test_given_patterns_are_taken_as_they_are():
    columns = tree_patterns((6,))[0]
    built = build(classes=6, patterns=columns, dimension=9, ratio=2)
    np.testing.assert_array_equal(built.patterns, columns)
    assert (built.levels.tolist(), built.tree) == ([0, 1, 2, 3, 4], None)
    assert build(classes=6, patterns=columns, rank=2).rank == 2
    assert build(classes=12).tree == (2, 2, 3)
    assert build(classes=12, tree=[4, 3]).tree == (4, 3)


@pytest.mark.parametrize(("dimension", "power"), [(7, 0.5), (8, 0.1), (13, 0.9)])
def test_a_rotation_between_lies_on_one_geodesic(dimension, power):
    """Against scipy's matrix logarithm: Q^p = exp(p log Q); and a Q without reflection, so that both are real."""
    whole, part, none = (build(dimension=dimension, rank=7, rotation=p).directions for p in (1, power, 0))
    np.testing.assert_array_equal(none, np.eye(dimension)[:, :7])
    q = module._rotation(dimension, 1, int(np.random.SeedSequence(0).generate_state(3)[1]))
    np.testing.assert_allclose(q[:, :7], whole)
    assert np.linalg.det(q) == pytest.approx(1)
    np.testing.assert_allclose(expm(power * logm(q))[:, :7], part, atol=1e-9)


def test_a_whole_rotation_favours_no_direction():
    draws = np.array([build(classes=2, dimension=3, seed=seed).directions[:, 0] for seed in range(1000)])
    np.testing.assert_allclose(draws.mean(0), 0, atol=0.06)  # three standard errors
    np.testing.assert_allclose(draws.T @ draws / 1000, np.eye(3) / 3, atol=0.04)


def test_streams_of_a_seed_do_not_hang_on_one_another():
    plain, other = build(patterns="random", seed=3), build(patterns="random", seed=3, imbalance=9, rotation=0)
    np.testing.assert_array_equal(plain.patterns, other.patterns)
    np.testing.assert_array_equal(plain.directions, build(seed=3, ratio=9, imbalance=2).directions)
    assert not np.allclose(plain.directions, build(seed=4).directions)
    assert sorted(build(imbalance=9, seed=1).priors) == sorted(build(imbalance=9, seed=2).priors)
    assert build(imbalance=9, seed=1).priors.tolist() != build(imbalance=9, seed=2).priors.tolist()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dimension": 5}, "7 components in 5 inputs: .* raise dimension to 7 or more, or lower rank"),
        ({"rank": 8}, "rank=8 for 8 classes: expected 1 to 7"),
        ({"strengths": (1, 2, 3)}, "strengths=.*expected numbers above 0 that do not rise"),
        ({"strengths": (3, 2, 0)}, "strengths=.*expected numbers above 0"),
        ({"strengths": (3, 2)}, "expected 3 numbers, one for each level"),
        ({"strengths": (3, 2), "patterns": "random"}, "expected 7 numbers"),
        ({"scale": 0}, "scale=0: expected more than 0"),
        ({"scale": math.inf}, "scale=inf: expected a finite number"),
        ({"tree": (2, 3)}, r"tree=\(2, 3\) has 6 classes, but classes=8"),
        ({"tree": (2, 4), "patterns": "random"}, r"tree=\(2, 4\) without patterns='tree'"),
        ({"patterns": "ring"}, "patterns='ring': expected 'tree', 'random' or an array"),
        ({"patterns": np.eye(8)[:, :3]}, "pattern 0 sums to 1 over the classes"),
        ({"patterns": np.eye(8)[:, :2] * 1j}, "patterns of complex128: expected real numbers"),
        ({"patterns": np.zeros((8, 0))}, r"patterns of shape \(8, 0\) for 8 classes: expected \(8, components\)"),
        ({"patterns": np.zeros((8, 2)), "rank": 3}, "rank=3 of 2 given patterns: expected 1 to 2"),
        ({"strengths": 2.0}, "strengths=.2.0.: expected 3 numbers"),
        ({"patterns": np.zeros((7, 2))}, r"patterns of shape \(7, 2\) for 8 classes: expected \(8, components\)"),
        ({"rotation": 1.5}, "rotation=1.5: expected 0"),
        ({"imbalance": 0.5}, "imbalance=0.5: expected 1 or more"),
    ],
)
def test_what_is_no_problem_is_refused_in_words(settings, message):
    with pytest.raises(ValueError, match=message):
        build(**settings)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"strengths": np.ones(6)}, "expected 7 components three times, then 8 classes"),
        ({"directions": np.ones((32, 7))}, "directions: expected orthonormal columns"),
        ({"priors": np.full(8, 1.0)}, "expected shares above 0 of sum 1"),
        ({"tree": (8,)}, r"the patterns are not the first of tree_patterns\(\(8,\)\)"),
    ],
)
def test_parts_that_do_not_fit_are_refused(change, message):
    parts = {name: getattr(build(), name) for name in Problem.__dataclass_fields__}
    Problem(**parts)
    with pytest.raises(ValueError, match=message):
        Problem(**parts | change)


def test_the_examples_run():
    assert doctest.testmod(module) == (0, 2)
    assert doctest.testmod(patterns) == (0, 4)

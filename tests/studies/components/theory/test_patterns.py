import doctest
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import helmert

from muonlab.studies.components.theory import patterns
from muonlab.studies.components.theory.patterns import (
    check_patterns,
    default_tree,
    random_patterns,
    strengths,
    tree_patterns,
)
from theory_oracles import TREES


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


@given(TREES)
@settings(max_examples=50, deadline=None)
def test_a_pattern_of_two_children_has_entries_of_one_size(tree):
    columns, levels = tree_patterns(tree)
    for column, level in zip(columns.T, levels, strict=True):
        if tree[level] == 2:
            support = math.prod(tree[level:])
            assert np.count_nonzero(column) == support
            np.testing.assert_allclose(np.abs(column[column != 0]), support**-0.5)


@pytest.mark.parametrize("tree", [(), (2, 1), (0,), (-2, 2)])
def test_a_tree_without_branches_is_refused(tree):
    with pytest.raises(ValueError, match="two children or more"):
        tree_patterns(tree)


@given(st.integers(2, 10_000))
@settings(max_examples=50, deadline=None)
def test_the_default_tree_has_prime_factors(num_classes):
    factors = default_tree(num_classes)
    assert math.prod(factors) == num_classes
    assert list(factors) == sorted(factors)
    assert all(factor % divisor for factor in factors for divisor in range(2, math.isqrt(factor) + 1))


def test_one_class_has_no_tree():
    with pytest.raises(ValueError, match="classes=1: expected two or more"):
        default_tree(1)


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


@pytest.mark.parametrize("number", [0, 5, 9])
def test_random_patterns_need_as_many_classes(number):
    with pytest.raises(ValueError, match=f"{number} components for 5 classes: expected 1 to 4"):
        random_patterns(5, number, 0)


def test_what_is_wrong_with_patterns_is_named():
    good = tree_patterns((2, 2))[0]
    check_patterns(good)
    with pytest.raises(ValueError, match="pattern 1 sums to 4 over the classes: expected 0"):
        check_patterns(good + np.array([0, 1.0, 0]))
    with pytest.raises(ValueError, match="patterns 2 and 2 have product 4, expected 1"):
        check_patterns(good * np.array([1, 1, 2.0]))
    with pytest.raises(ValueError, match=r"patterns 0 and 1 have product (1|0\.7\d+), expected 0"):
        check_patterns(np.stack([good[:, 0], (good[:, 0] + good[:, 1]) / math.sqrt(2)], 1))
    with pytest.raises(ValueError, match=r"shape \(4,\): expected \(classes, components\)"):
        check_patterns(good[:, 0])
    with pytest.raises(ValueError, match="finite numbers"):
        check_patterns(good * math.nan)


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


@pytest.mark.parametrize("ratio", [0.5, -1, math.nan, math.inf])
def test_a_ratio_below_one_is_refused(ratio):
    with pytest.raises(ValueError, match=f"ratio={ratio:g}: expected 1 or more"):
        strengths("power", 3, ratio)


def test_a_kind_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="strengths='linear': expected one of geometric, power, equal"):
        strengths("linear", 3, 2)


def test_the_examples_run():
    assert doctest.testmod(patterns) == (0, 4)

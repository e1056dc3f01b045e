import doctest
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import expm, logm

from muonlab.studies.components.theory import problem as module
from muonlab.studies.components.theory.patterns import tree_patterns
from muonlab.studies.components.theory.problem import Problem, build
from theory_oracles import TREES


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


def test_the_tree_is_that_of_the_classes_or_the_one_asked_for():
    assert build(classes=12).tree == (2, 2, 3)
    assert build(classes=12, tree=[4, 3]).tree == (4, 3)
    assert build(classes=12, patterns="random").tree is None


@pytest.mark.parametrize("dimension", [7, 8, 13])
@pytest.mark.parametrize("power", [0.1, 0.5, 0.9])
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
        ({"classes": 1}, "classes=1: expected two or more"),
        ({"dimension": 5}, "7 components in 5 inputs: .* raise dimension to 7 or more, or lower rank"),
        ({"rank": 8}, "rank=8 for 8 classes: expected 1 to 7"),
        ({"rank": 0}, "rank=0 for 8 classes: expected 1 to 7"),
        ({"strengths": (1, 2, 3)}, "strengths=.*expected numbers above 0 that do not rise"),
        ({"strengths": (3, 2, 0)}, "strengths=.*expected numbers above 0"),
        ({"strengths": (3, 2, math.nan)}, "strengths=.*expected numbers above 0"),
        ({"strengths": (3, 2)}, "expected 3 numbers, one for each level"),
        ({"strengths": (3, 2), "patterns": "random"}, "expected 7 numbers"),
        ({"strengths": "steep"}, "strengths='steep': expected one of"),
        ({"ratio": 0.5}, "ratio=0.5: expected 1 or more"),
        ({"scale": 0}, "scale=0: expected more than 0"),
        ({"scale": math.inf}, "scale=inf: expected a finite number"),
        ({"tree": (2, 3)}, r"tree=\(2, 3\) has 6 classes, but classes=8"),
        ({"tree": (8, 1)}, r"tree \(8, 1\): expected two children"),
        ({"tree": (2, 4), "patterns": "random"}, r"tree=\(2, 4\) without patterns='tree'"),
        ({"patterns": "ring"}, "patterns='ring': expected 'tree', 'random' or an array"),
        ({"patterns": np.eye(8)[:, :3]}, "pattern 0 sums to 1 over the classes"),
        ({"patterns": np.zeros((8, 2))}, "patterns 0 and 0 have product 0, expected 1"),
        ({"patterns": [[1, 0]] * 8}, "pattern 0 sums to 8 over the classes"),
        ({"patterns": np.eye(8)[:, :2] * 1j}, "patterns of complex128: expected real numbers"),
        ({"patterns": np.zeros((8, 0))}, r"patterns of shape \(8, 0\) for 8 classes: expected \(8, components\)"),
        ({"patterns": np.zeros((8, 2)), "rank": 3}, "rank=3 of 2 given patterns: expected 1 to 2"),
        ({"strengths": 2.0}, "strengths=.2.0.: expected 3 numbers"),
        ({"patterns": np.zeros((7, 2))}, r"patterns of shape \(7, 2\) for 8 classes: expected \(8, components\)"),
        ({"rotation": 1.5}, "rotation=1.5: expected 0"),
        ({"rotation": math.nan}, "rotation=nan: expected a finite number"),
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


def test_the_example_runs():
    assert doctest.testmod(module) == (0, 2)

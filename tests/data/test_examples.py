"""Subsets and splits of labelled examples, whatever the examples are."""

from collections import Counter

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from muonlab.data.examples import Labelled, class_order, split, subset

NAMES = ("ant", "bee", "cat")
SEEDS = st.integers(0, 2**63 - 1)


def labels_of(*counts):
    return torch.cat([torch.full((count,), label) for label, count in enumerate(counts)])


def made(labels, is_test=None, groups=None, classes=NAMES):
    """Return examples whose groups are their rows, unless told otherwise."""
    is_test = torch.zeros(len(labels), dtype=torch.bool) if is_test is None else is_test
    return Labelled(labels=labels, classes=classes, is_test=is_test, groups=groups, source="it")


def numbered(labels, is_test=None):
    return made(labels, is_test, torch.arange(len(labels)))


def counts_of(labels):
    return [Counter(labels.tolist())[label] for label in range(len(NAMES))]


def test_classes_are_ordered_as_numbers_where_all_are():
    assert class_order(["10", "9", "10", "0"]) == ("0", "9", "10")
    assert class_order(["b", "10", "9"]) == ("10", "9", "b")


@given(
    counts=st.lists(st.integers(4, 40), min_size=3, max_size=3),
    validation=st.floats(0.01, 0.3),
    test=st.floats(0.01, 0.3),
    own_test=st.integers(0, 5),
    seed=SEEDS,
    order=st.randoms(use_true_random=False),
)
@settings(max_examples=50, deadline=None)
def test_a_split_is_disjoint_whole_stratified_and_that_of_its_seed(counts, validation, test, own_test, seed, order):
    rows = list(range(sum(counts) + own_test))
    order.shuffle(rows)
    labels = torch.cat([labels_of(*counts), torch.zeros(own_test, dtype=torch.int64)])[rows]
    data = made(labels, (torch.arange(len(rows)) >= sum(counts))[rows])
    parts = split(data, validation=validation, test=test, seed=seed)
    assert sorted(torch.cat(parts).tolist()) == list(range(len(rows)))
    assert all(part.tolist() == sorted(part.tolist()) for part in parts)
    assert counts_of(labels[parts.validation]) == [max(1, round(validation * count)) for count in counts]
    if own_test:
        assert parts.test.tolist() == data.is_test.nonzero().squeeze(1).tolist()
    else:
        assert counts_of(labels[parts.test]) == [max(1, round(test * count)) for count in counts]
    assert all(map(torch.equal, parts, split(data, validation=validation, test=test, seed=seed)))


def test_splits_and_limits_differ_by_seed_and_leave_the_global_generator_alone():
    data, before = numbered(labels_of(30, 30, 30)), torch.get_rng_state()
    assert len({tuple(split(data, seed=seed).validation.tolist()) for seed in range(10)}) == 10
    kept = [set(subset(data, per_class=10, seed=seed).groups.tolist()) for seed in range(20)]
    assert set.union(*kept) == set(range(90))
    assert torch.equal(torch.get_rng_state(), before)


@given(st.lists(st.integers(1, 9), min_size=4, max_size=20), st.integers(0, 1000), st.floats(0.05, 0.3))
@settings(max_examples=50, deadline=None)
def test_a_group_is_never_divided_and_a_part_has_its_share_at_most_or_one_group(sizes, seed, share):
    groups = torch.cat([torch.full((size,), 100 + number) for number, size in enumerate(sizes)] * 2)
    labels = labels_of(sum(sizes), sum(sizes))
    parts = split(made(labels, groups=groups, classes=NAMES[:2]), validation=share, test=share, seed=seed)
    for label in (0, 1):
        found = [set(groups[part[labels[part] == label]].tolist()) for part in parts]
        assert sum(map(len, found)) == len(set.union(*found)) == len(sizes)
        for part, units in zip(parts[1:], found[1:], strict=True):
            assert units
            assert (labels[part] == label).sum() <= max(1, round(share * sum(sizes))) or len(units) == 1


def test_a_class_of_as_many_examples_as_parts_has_one_in_each():
    labels, own_test = labels_of(3, 3, 3), torch.arange(9) % 3 == 0
    for shares in ({}, {"validation": 0.45, "test": 0.5}, {"validation": 0.9, "test": 0.05}):
        assert list(map(len, split(made(labels), **shares))) == [3, 3, 3]
    assert list(map(len, split(made(labels, own_test), validation=0.9))) == [3, 3, 3]
    # With a test set the share of the test part does not count.
    assert len(split(made(labels_of(9, 9, 9), torch.arange(27) % 9 == 0), validation=0.5, test=0.5).train) == 12


def test_a_subset_relabels_in_the_order_given_and_keeps_the_rows_in_theirs():
    data = numbered(torch.tensor([0, 1, 2, 0, 1, 2]), torch.arange(6) > 3)
    part = subset(data, classes=["cat", "ant"])
    assert (part.groups.tolist(), part.labels.tolist(), part.classes) == ([0, 2, 3, 5], [1, 0, 1, 0], ("cat", "ant"))
    assert part.is_test.tolist() == [False, False, False, True]
    everything = subset(data)
    assert everything.groups.tolist() == list(range(6))
    assert (everything.labels.tolist(), everything.classes) == (data.labels.tolist(), NAMES)
    digits = made(torch.arange(10), groups=torch.arange(10), classes=tuple("0123456789"))
    part = subset(digits, classes=range(5, 10))
    assert (part.groups.tolist(), part.labels.tolist()) == ([5, 6, 7, 8, 9], [0, 1, 2, 3, 4])


@given(per_class=st.integers(1, 8), test_per_class=st.none() | st.integers(1, 4), seed=SEEDS)
@settings(max_examples=25, deadline=None)
def test_limits_keep_exactly_so_many_of_each_class_in_and_outside_the_test_set(per_class, test_per_class, seed):
    data = numbered(torch.cat([labels_of(8, 9, 10), labels_of(4, 4, 4)]), torch.arange(39) >= 27)
    limits = {"per_class": per_class, "test_per_class": test_per_class, "seed": seed}
    part = subset(data, **limits)
    assert torch.equal(part.labels, data.labels[part.groups])
    assert len(set(part.groups.tolist())) == len(part.groups)
    assert counts_of(part.labels[~part.is_test]) == [per_class] * 3
    assert counts_of(part.labels[part.is_test]) == [test_per_class or 4] * 3
    assert torch.equal(part.groups, subset(data, **limits).groups)

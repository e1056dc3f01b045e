from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from muonlab.data.examples import choose, class_order, split
from muonlab.data.sources import DataError

NAMES = ("ant", "bee", "cat")


def labels_of(*counts):
    return torch.cat([torch.full((count,), label) for label, count in enumerate(counts)])


def no_test(labels):
    return torch.zeros(len(labels), dtype=torch.bool)


def counts_of(labels, rows):
    return [Counter(labels[rows].tolist())[label] for label in range(len(NAMES))]


def test_classes_are_ordered_as_numbers_where_all_are():
    assert class_order(["10", "9", "10", "0"]) == ("0", "9", "10")
    assert class_order(["b", "10", "9"]) == ("10", "9", "b")


@given(
    counts=st.lists(st.integers(4, 60), min_size=3, max_size=3),
    validation=st.floats(0.01, 0.3),
    test=st.floats(0.01, 0.3),
    own_test=st.integers(0, 5),
    seed=st.integers(0, 2**63 - 1),
    order=st.randoms(use_true_random=False),
)
@settings(max_examples=100, deadline=None)
def test_a_split_is_disjoint_whole_stratified_and_that_of_its_seed(counts, validation, test, own_test, seed, order):
    rows = list(range(sum(counts) + own_test))
    order.shuffle(rows)
    labels = torch.cat([labels_of(*counts), torch.zeros(own_test, dtype=torch.int64)])[rows]
    is_test = (torch.arange(len(rows)) >= sum(counts))[rows]
    parts = split(labels, is_test, NAMES, validation=validation, test=test, seed=seed)
    assert sorted([*parts.train.tolist(), *parts.validation.tolist(), *parts.test.tolist()]) == list(range(len(rows)))
    for part in (parts.train, parts.validation, parts.test):
        assert part.tolist() == sorted(part.tolist())
    assert counts_of(labels, parts.validation) == [max(1, round(validation * count)) for count in counts]
    if own_test:
        assert parts.test.tolist() == [row for row in range(len(rows)) if is_test[row]]
    else:
        assert counts_of(labels, parts.test) == [max(1, round(test * count)) for count in counts]
    again = split(labels, is_test, NAMES, validation=validation, test=test, seed=seed)
    assert all(torch.equal(vars(parts)[key], vars(again)[key]) for key in ("train", "validation", "test"))


def test_splits_of_other_seeds_differ_and_the_global_generator_is_left_alone():
    labels = labels_of(50, 50, 50)
    before = torch.get_rng_state()
    found = {tuple(split(labels, no_test(labels), NAMES, seed=seed).validation.tolist()) for seed in range(10)}
    assert len(found) == 10
    assert torch.equal(torch.get_rng_state(), before)


@given(
    sizes=st.lists(st.integers(1, 9), min_size=4, max_size=20),
    seed=st.integers(0, 1000),
    share=st.floats(0.05, 0.3),
)
@settings(max_examples=100, deadline=None)
def test_a_group_is_never_divided_and_a_part_has_its_share_at_most_or_one_group(sizes, seed, share):
    groups = torch.cat([torch.full((size,), 100 + number) for number, size in enumerate(sizes)] * 2)
    labels = labels_of(sum(sizes), sum(sizes))
    parts = split(labels, no_test(labels), NAMES[:2], validation=share, test=share, seed=seed, groups=groups)
    for label in (0, 1):
        found = [
            set(groups[part[labels[part] == label]].tolist()) for part in (parts.train, parts.validation, parts.test)
        ]
        assert sum(map(len, found)) == len(set.union(*found)) == len(sizes)
        for part, units in zip((parts.validation, parts.test), found[1:], strict=True):
            assert units
            assert (labels[part] == label).sum() <= max(1, round(share * sum(sizes))) or len(units) == 1


@pytest.mark.parametrize(
    ("counts", "options", "message"),
    [
        ((9, 9, 9), {"validation": 0}, "validation=0 is out of range"),
        ((9, 9, 9), {"test": 1.5}, "test=1.5 is out of range"),
        ((9, 9, 9), {"validation": 0.5, "test": 0.5}, r"validation=0\.5 and test=0\.5 leave nothing to train on"),
        ((9, 0, 9), {}, "class 'bee' has 0 examples; a split needs 3, to train on and for validation"),
        ((9, 2, 9), {}, "class 'bee' has 2 examples; a split needs 3, to train on and for validation"),
        ((20, 20), {"groups": torch.arange(40) // 10}, "class 'ant' has 20 examples in 2 groups"),
    ],
)
def test_a_split_that_cannot_be_made_is_refused(counts, options, message):
    labels = labels_of(*counts)
    with pytest.raises(DataError, match=message):
        split(labels, no_test(labels), NAMES[: len(counts)], **options)


def test_with_a_test_set_its_share_does_not_count():
    labels = labels_of(9, 9, 9)
    assert len(split(labels, torch.arange(27) % 9 == 0, NAMES, validation=0.5, test=0.5).train) == 12


def test_a_class_of_as_many_examples_as_parts_has_one_in_each():
    labels = labels_of(3, 3, 3)
    for shares in ({}, {"validation": 0.45, "test": 0.5}, {"validation": 0.9, "test": 0.05}):
        parts = split(labels, no_test(labels), NAMES, **shares)
        assert [len(part) for part in (parts.train, parts.validation, parts.test)] == [3, 3, 3]
    parts = split(labels, torch.arange(9) % 3 == 0, NAMES, validation=0.9)
    assert [len(part) for part in (parts.train, parts.validation, parts.test)] == [3, 3, 3]


def test_a_choice_relabels_in_the_order_given_and_keeps_the_rows_in_theirs():
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    choice = choose(labels, no_test(labels), NAMES, "it", classes=["cat", "ant"])
    assert choice.rows.tolist() == [0, 2, 3, 5]
    assert choice.labels.tolist() == [1, 0, 1, 0]
    assert choice.classes == ("cat", "ant")
    everything = choose(labels, no_test(labels), NAMES, "it")
    assert (everything.rows.tolist(), everything.labels.tolist(), everything.classes) == (
        list(range(6)),
        labels.tolist(),
        NAMES,
    )
    digits = torch.arange(10)
    choice = choose(digits, no_test(digits), tuple("0123456789"), "it", classes=range(5, 10))
    assert (choice.rows.tolist(), choice.labels.tolist()) == ([5, 6, 7, 8, 9], [0, 1, 2, 3, 4])


@given(per_class=st.integers(1, 8), test_per_class=st.none() | st.integers(1, 4), seed=st.integers(0, 10**6))
@settings(max_examples=50, deadline=None)
def test_limits_keep_exactly_so_many_of_each_class_in_and_outside_the_test_set(per_class, test_per_class, seed):
    labels = torch.cat([labels_of(8, 9, 10), labels_of(4, 4, 4)])
    is_test = torch.arange(len(labels)) >= 27
    limits = {"per_class": per_class, "test_per_class": test_per_class}
    choice = choose(labels, is_test, NAMES, "it", **limits, seed=seed)
    assert torch.equal(choice.labels, labels[choice.rows])
    assert len(set(choice.rows.tolist())) == len(choice.rows)
    assert counts_of(labels, choice.rows[~is_test[choice.rows]]) == [per_class] * 3
    assert counts_of(labels, choice.rows[is_test[choice.rows]]) == [test_per_class or 4] * 3
    assert torch.equal(choice.rows, choose(labels, is_test, NAMES, "it", **limits, seed=seed).rows)


def test_a_limit_keeps_others_for_other_seeds():
    labels = labels_of(30, 30, 30)
    kept = [
        set(choose(labels, no_test(labels), NAMES, "it", per_class=10, seed=seed).rows.tolist()) for seed in range(20)
    ]
    assert set.union(*kept) == set(range(90))


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"classes": ["ant", "bet"]}, r"unknown class 'bet'; did you mean 'bee'\? it has ant, bee, cat"),
        ({"classes": ["ant", "ant"]}, "class 'ant' is asked for twice"),
        ({"classes": ["ant"]}, "classes=ant has one class only, 'ant'"),
        ({"classes": []}, "has no class"),
        ({"per_class": 0}, "per_class=0 is too small"),
        ({"per_class": 5}, "per_class=5, but it has only 4 examples of class 'bee'"),
        ({"test_per_class": 1}, "test_per_class=1, but it has no test set"),
    ],
)
def test_a_choice_that_cannot_be_made_is_refused(choice, message):
    labels = labels_of(9, 4, 9)
    with pytest.raises(DataError, match=message):
        choose(labels, no_test(labels), NAMES, "it", **choice)


def test_too_few_test_examples_are_refused():
    labels = labels_of(9, 9, 9)
    with pytest.raises(DataError, match="test_per_class=2, but it has only 1 examples of class 'ant' in its test set"):
        choose(labels, torch.arange(27) == 0, NAMES, "it", test_per_class=2)

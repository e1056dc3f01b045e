import pytest
from hypothesis import given
from hypothesis import strategies as st

from muonlab.measure.crossing import Criterion, is_decided, times

TO_BUDGET = Criterion(0.95, 0.99, "budget")
accuracies = st.lists(st.tuples(*[st.sampled_from([0.5, 0.94, 0.95, 0.97, 0.99, 1.0])] * 2), min_size=1, max_size=12)
criteria = st.builds(
    Criterion,
    threshold=st.just(0.95),
    train_threshold=st.just(0.99),
    follow=st.one_of(st.just("budget"), st.integers(0, 4)),
)


@pytest.mark.parametrize(
    ("train", "validation", "first", "sustained"),
    [
        ([1.0] * 4, [0.1, 0.949, 0.95, 0.99], 2, 2),
        ([0.5, 0.98, 0.99, 0.99], [0.96] * 4, 2, 2),  # validation before training has stabilised is not a crossing
        ([0.99, 0.9, 0.9, 0.9], [0.1, 0.2, 0.95, 0.95], 2, 2),  # and training need not stay at its threshold
        ([1.0] * 6, [0.1, 0.96, 0.5, 0.97, 0.96, 0.99], 1, 3),
    ],
)
def test_a_crossing_is_the_first_evaluation_at_the_threshold_or_the_start_of_the_last_stretch(
    train, validation, first, sustained
):
    found = times(train, validation, TO_BUDGET)
    assert (found.first, found.sustained, found.first_reason) == (first, sustained, None)
    assert found.minimum_after == min(validation[first:])


def test_sustained_for_k_evaluations_needs_k_more():
    assert times([1.0] * 3, [0.96] * 3, Criterion(0.95, 0.99, 2)).sustained == 0


@pytest.mark.parametrize(
    ("validation", "follow", "reason"),
    [
        ([0.1, 0.96, 0.6], "budget", "crossed, then fell: below 0.95 at the last evaluation"),
        ([0.96, 0.96], 2, "crossed too late to be followed: the budget ended less than 2 evaluations later"),
        (
            [0.96, 0.5, 0.96, 0.5, 0.5, 0.96],  # it came back late, but had its time and did not stay
            2,
            "crossed, then fell, and was not seen to stay for 2 evaluations",
        ),
        ([0.1, 0.2, 0.96], "budget", "crossed too late to be followed: the budget ended less than 1 evaluations later"),
    ],
)
def test_a_crossing_that_is_not_sustained_says_why(validation, follow, reason):
    found = times([1.0] * len(validation), validation, Criterion(0.95, 0.99, follow))
    assert found.first is not None
    assert (found.sustained, found.sustained_reason) == (None, reason)


def test_a_run_that_never_crosses_says_which_side_failed():
    assert times([0.9], [0.99], TO_BUDGET).first_reason == "train accuracy did not reach 0.99 within the budget"
    assert times([1.0], [0.9], TO_BUDGET).first_reason == "validation accuracy did not reach 0.95 within the budget"
    assert times([0.5, None], [0.5, None], TO_BUDGET, diverged=True).first_reason == "diverged before crossing"
    after = times([1.0, 1.0], [0.96, 0.96], Criterion(0.95, 0.99, 3), diverged=True)
    assert (after.first, after.sustained_reason) == (0, "crossed, then diverged")


@given(accuracies, criteria)
def test_sustained_is_never_before_first_and_the_minimum_is_of_what_follows(curve, criterion):
    train, validation = [t for t, _ in curve], [v for _, v in curve]
    found = times(train, validation, criterion)
    assert (found.first is None) == (found.first_reason is not None)
    assert (found.sustained is None) == (found.sustained_reason is not None)
    if found.first is not None:
        assert found.minimum_after == min(validation[found.first :])
    if found.sustained is not None:
        assert found.first is not None
        assert found.sustained >= found.first
        last = None if criterion.follow == "budget" else found.sustained + criterion.follow + 1
        assert found.sustained + (criterion.follow == "budget") < len(validation)
        assert min(validation[found.sustained : last]) >= criterion.threshold


@given(accuracies, accuracies, criteria)
def test_what_is_decided_cannot_change(curve, future, criterion):
    train, validation = [t for t, _ in curve], [v for _, v in curve]
    if is_decided(train, validation, criterion):
        now = times(train, validation, criterion)
        later = times(train + [t for t, _ in future], validation + [v for _, v in future], criterion)
        assert (now.first, now.sustained) == (later.first, later.sustained)

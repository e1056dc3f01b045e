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


def test_first_crossing_is_the_first_evaluation_at_the_threshold():
    found = times([1.0, 1.0, 1.0, 1.0], [0.1, 0.949, 0.95, 0.99], TO_BUDGET)
    assert found.first == 2
    assert found.first_reason is None


def test_validation_before_training_has_stabilised_is_no_crossing():
    assert times([0.5, 0.98, 0.99], [0.96, 0.96, 0.96], TO_BUDGET).first == 2


def test_train_accuracy_need_not_stay_at_its_threshold():
    assert times([0.99, 0.9, 0.9], [0.1, 0.2, 0.95], TO_BUDGET).first == 2


def test_sustained_crossing_is_the_start_of_the_last_stretch_when_followed_to_the_budget():
    found = times([1.0] * 6, [0.1, 0.96, 0.5, 0.97, 0.96, 0.99], TO_BUDGET)
    assert (found.first, found.sustained, found.minimum_after) == (1, 3, 0.5)


def test_a_fall_before_the_budget_is_not_sustained_and_says_so():
    found = times([1.0] * 3, [0.1, 0.96, 0.6], TO_BUDGET)
    assert found.first == 1
    assert found.sustained is None
    assert found.sustained_reason == "crossed, then fell: below 0.95 at the last evaluation"


def test_sustained_for_k_evaluations_needs_k_more():
    criterion = Criterion(0.95, 0.99, 2)
    assert times([1.0] * 3, [0.96, 0.96, 0.96], criterion).sustained == 0
    short = times([1.0] * 2, [0.96, 0.96], criterion)
    assert short.sustained is None
    assert short.sustained_reason == "crossed too late to be followed: the budget ended less than 2 evaluations later"


def test_a_run_that_came_back_late_had_its_time_and_did_not_stay():
    criterion = Criterion(0.95, 0.99, 2)
    found = times([1.0] * 6, [0.96, 0.5, 0.96, 0.5, 0.5, 0.96], criterion)
    assert found.sustained_reason == "crossed, then fell, and was not seen to stay for 2 evaluations"


def test_a_crossing_at_the_last_evaluation_is_not_known_to_last():
    found = times([1.0] * 3, [0.1, 0.2, 0.96], TO_BUDGET)
    assert (found.first, found.sustained) == (2, None)
    assert found.sustained_reason == "crossed too late to be followed: the budget ended less than 1 evaluations later"


def test_a_run_that_never_crosses_says_which_side_failed():
    assert times([0.9], [0.99], TO_BUDGET).first_reason == "train accuracy did not reach 0.99 within the budget"
    assert times([1.0], [0.9], TO_BUDGET).first_reason == "validation accuracy did not reach 0.95 within the budget"


def test_divergence_is_a_reason_before_and_after_the_crossing():
    assert times([0.5, None], [0.5, None], TO_BUDGET, diverged=True).first_reason == "diverged before crossing"
    after = times([1.0, 1.0], [0.96, 0.96], Criterion(0.95, 0.99, 3), diverged=True)
    assert after.first == 0
    assert after.sustained_reason == "crossed, then diverged"


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

import doctest
import random

import pytest
import torch

from muonlab.testing import CheckError, Report, battery, check_optimizer, checks, extra_checks
from testing.specimens import Plain, failures

WITH_VECTORS = ((6, 4), (4, 6), (6, 4), (5,), (5, 5), (16, 3), (3, 4, 2))


def adamw(params, lr=1e-3, **options):
    return torch.optim.AdamW(params, lr=lr, **options)


class Sleeps(Plain):
    def update(self, p, gradient, state, group):
        """Do nothing."""


class NotAnOptimizer:
    def __init__(self, params):
        """Take them and do nothing."""


@pytest.mark.parametrize(
    ("factory", "dtype"),
    [
        (adamw, torch.float64),
        (lambda params: adamw(params, foreach=True), torch.complex64),
        (lambda params: torch.optim.SGD(params, lr=0.01, momentum=0.9), torch.bfloat16),
        (Plain, torch.float32),
    ],
)
def test_good_optimizers_pass_all_standard_checks(factory, dtype):
    report = check_optimizer(factory, dtype=dtype, shapes=WITH_VECTORS)
    left_out = {"gradient_scaler"} if dtype.is_complex else {"imaginary_part_falls"}
    assert set(report.left_out) == left_out
    assert set(report.passed) == checks().keys() - left_out
    assert (len(checks()), len(extra_checks())) == (30, 11)


def test_what_the_battery_finds_in_torch():
    """torch 2.13's fused AdamW takes a gradient of other strides than its parameter's for one of the same."""
    found = failures(lambda params: adamw(params, fused=True))
    assert set(found) <= {"memory_layout", "channels_last"}


def test_torch_muon_passes_but_for_convolutions():
    """It works in bfloat16 throughout, so it needs the wider tolerance."""
    report = check_optimizer(torch.optim.Muon, rtol=0.05, skip=["channels_last"])
    assert report.left_out["channels_last"] == "skipped on request"


def test_one_error_tells_of_all_that_failed():
    with pytest.raises(CheckError) as caught:
        check_optimizer(Sleeps, only=["loss_falls", "gradients_kept", "closure"])
    lines = str(caught.value).splitlines()
    assert lines == [
        "Sleeps (torch.float32 on cpu) fails 2 of 3 checks:",
        f"  loss_falls: {checks()['loss_falls']}",
        "    Seen: parameter 0 of shape (6, 4) did not move in the first step",
        f"  closure: {checks()['closure']}",
        "    Seen: parameter 0 of shape (6, 4) did not move by the gradients of the closure",
    ]
    assert list(caught.value.failures) == ["loss_falls", "closure"]
    assert isinstance(caught.value, AssertionError)


def test_an_error_of_the_optimizer_is_a_finding_with_its_place():
    class Breaks(Plain):
        def inspect(self):
            raise KeyError("nothing")

    with pytest.raises(CheckError) as caught:
        check_optimizer(Breaks, only=["loss_falls", "deterministic"])
    assert caught.value.failures["loss_falls"].startswith("KeyError: 'nothing' (raised at test_battery.py:")
    assert str(caught.value).count("Seen:") == 1  # two checks saw one thing
    assert isinstance(caught.value.__cause__, KeyError)


def test_only_also_and_skip_choose():
    assert check_optimizer(Plain, only=["closure"]) == Report(("closure",), {})
    report = check_optimizer(Plain, only=["closure", "pickles"], also=["experts_apart"], skip=["pickles"])
    assert report == Report(("closure", "experts_apart"), {"pickles": "skipped on request"})


def test_the_lists_hold_a_sentence_for_each_check():
    both = {**checks(), **extra_checks()}
    assert len(both) == len(checks()) + len(extra_checks())
    for name, expectation in both.items():
        assert name.isidentifier()
        assert expectation.endswith(".")


@pytest.mark.parametrize(
    ("factory", "options", "error", "message"),
    [
        (Plain, {"only": ["momentum"]}, ValueError, "unknown check 'momentum'; there are loss_falls, "),
        (Plain, {"also": ["momentum"]}, ValueError, "unknown check 'momentum'"),
        (Plain, {"skip": ["momentum"]}, ValueError, "unknown check 'momentum'"),
        (Plain, {"shapes": [(2, 2)]}, ValueError, r"shapes must be two at least.*got \(\(2, 2\),\)"),
        (NotAnOptimizer, {}, TypeError, r"factory must return a torch.optim.Optimizer.*NotAnOptimizer"),
    ],
)
def test_bad_arguments_are_refused(factory, options, error, message):
    with pytest.raises(error, match=message):
        check_optimizer(factory, **options)


def test_the_battery_leaves_the_random_generators_alone():
    before = torch.get_rng_state(), random.getstate()
    check_optimizer(Plain, also=extra_checks(), skip=["scale_invariance", "nonfinite_gradient", "foreign_shapes"])
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == random.getstate()


def test_the_example_of_the_docstring_runs():
    assert doctest.testmod(battery, raise_on_error=True).attempted == 5

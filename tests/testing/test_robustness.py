import math

import pytest
import torch

from muonlab.testing import check_optimizer
from testing.specimens import Matrix, Plain, failures


class Raises(Plain):
    def inspect(self):
        super().inspect()
        for group in self.param_groups:
            if not all(p.grad is None or torch.isfinite(p.grad).all() for p in group["params"]):
                raise ValueError("a gradient is not finite")


class RaisesLate(Plain):
    def update(self, p, gradient, state, group):
        if not torch.isfinite(gradient).all():
            raise ValueError("a gradient is not finite")
        super().update(p, gradient, state, group)


class Skips(Plain):
    def update(self, p, gradient, state, group):
        if torch.isfinite(gradient).all():
            super().update(p, gradient, state, group)
        else:
            state["skipped"] = state.get("skipped", 0) + 1


class SkipsButPoisonsMomentum(Plain):
    def update(self, p, gradient, state, group):
        if torch.isfinite(gradient).all():
            super().update(p, gradient, state, group)
        else:
            self.direction(gradient, state, group)


class SkipsAll(Plain):
    """Leaves the other parameters where they are too, in silence."""

    def inspect(self):
        for group in self.param_groups:
            if not all(p.grad is None or torch.isfinite(p.grad).all() for p in group["params"]):
                for p in group["params"]:
                    p.grad = None


class OverwritesMomentum(Matrix):
    """Means to work on a bfloat16 copy of the momentum, which of a bfloat16 momentum is the momentum itself."""

    def direction(self, gradient, state, group):
        copy = Plain.direction(self, gradient, state, group).to(torch.bfloat16)
        return self.polar(copy.div_(copy.norm())).to(gradient.dtype)


class KeepsAMaster(Plain):
    """Sums the updates in float32 and rounds the sum."""

    def update(self, p, gradient, state, group):
        master = state.setdefault("master", p.detach().float().clone())
        super().update(master, gradient.float(), state, group)
        p.copy_(master)


class RoundsUp(KeepsAMaster):
    """Moves a bfloat16 parameter by a whole spacing whenever it should move at all."""

    def update(self, p, gradient, state, group):
        before = p.detach().float().clone()
        super().update(p, gradient, state, group)
        way = state["master"] - before
        if p.dtype == torch.bfloat16:
            state["master"] = (before + way.sign() * torch.finfo(p.dtype).eps * before.abs()).clone()
            p.copy_(state["master"])


class Validates(Plain):
    def __init__(self, params, lr=0.01, **options):
        self.validate("lr", lr)
        super().__init__(params, lr=lr, **options)

    def add_param_group(self, param_group):
        self.validate("lr", param_group.get("lr", 0.0))
        super().add_param_group(param_group)

    def validate(self, name, value):
        if not value >= 0:
            raise ValueError(f"{name} must be a number of at least 0, got {value}")


class ValidatesTheConstructorAlone(Validates):
    def add_param_group(self, param_group):
        Plain.add_param_group(self, param_group)


class ValidatesWithoutAName(Validates):
    def validate(self, name, value):
        if not value >= 0:
            raise ValueError("bad value")


class ValidatesAfterwards(Validates):
    def add_param_group(self, param_group):
        Plain.add_param_group(self, param_group)
        self.validate("lr", param_group["lr"])


BAD = [{"lr": -1.0}, {"lr": math.nan}, {"speed": 3}]


@pytest.mark.parametrize("right", [Raises, Skips])
@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
def test_bad_gradients_may_be_refused_or_skipped(right, dtype):
    assert failures(right, dtype=dtype, also=["nonfinite_gradient"]) == {}


@pytest.mark.parametrize(
    ("broken", "seen"),
    [
        (Plain, "parameter 5 of shape (2, 12) changed in a step with nan in the gradient of parameter 5"),
        (RaisesLate, "after the refusal of nan: parameter 0 of shape (6, 4) moved by"),
        (SkipsButPoisonsMomentum, "'momentum_buffer' in the state of that parameter changed"),
        (SkipsAll, "parameter 0 of shape (6, 4) did not move in a step with nan"),
    ],
)
def test_damage_by_bad_gradients_is_found(broken, seen):
    assert seen in failures(broken, only=["nonfinite_gradient"])["nonfinite_gradient"]


def test_a_loss_of_precision_is_found():
    found = failures(OverwritesMomentum, dtype=torch.bfloat16, only=["precision"])
    assert "parameter 0 of shape (6, 4) in torch.bfloat16 and in torch.float64 differ by" in found["precision"]
    assert failures(OverwritesMomentum, only=["precision"]) == {}  # its copy is one, in float32


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64, torch.complex64])
@pytest.mark.parametrize("right", [Plain, Matrix, torch.optim.AdamW])
def test_precise_optimizers_are_left_in_peace(right, dtype):
    assert failures(right, dtype=dtype, only=["precision"]) == {}


def test_small_updates_that_are_lost_are_found():
    found = failures(Plain, dtype=torch.bfloat16, only=["small_updates"])
    seen = "parameter 0 of shape (6, 4) went 0% of its way in 200 steps of 0.001 at most"
    assert found == {"small_updates": seen}
    assert failures(KeepsAMaster, dtype=torch.bfloat16, only=["small_updates"]) == {}
    assert "small_updates" in failures(RoundsUp, dtype=torch.bfloat16, only=["small_updates"])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64])
def test_small_updates_are_no_matter_of_fine_dtypes(dtype):
    assert check_optimizer(Plain, dtype=dtype, only=["small_updates"]).left_out["small_updates"].endswith("fine enough")


def test_bad_arguments_may_be_refused():
    report = check_optimizer(Validates, bad_arguments=BAD, also=["bad_group_options"])
    assert {"bad_arguments", "bad_group_options"} <= set(report.passed)


@pytest.mark.parametrize(
    ("broken", "check", "seen"),
    [
        (Plain, "bad_arguments", "lr=-1.0 was accepted"),
        (ValidatesWithoutAName, "bad_arguments", "the refusal of lr=-1.0 does not name it: ValueError: bad value"),
        (torch.optim.SGD, "bad_arguments", "the refusal of lr=-1.0 does not name it: ValueError: Invalid learning"),
        (ValidatesTheConstructorAlone, "bad_group_options", "lr=-1.0 was accepted in a group given to the constructor"),
        (ValidatesAfterwards, "bad_group_options", "after add_param_group refused lr=-1.0: 1 groups became 2"),
    ],
)
def test_bad_arguments_that_are_taken_are_found(broken, check, seen):
    assert seen in failures(broken, bad_arguments=BAD, only=[check])[check]


@pytest.mark.parametrize("check", ["bad_arguments", "bad_group_options"])
def test_without_bad_arguments_there_is_nothing_to_check(check):
    assert check_optimizer(Plain, only=[check]).left_out == {check: "no bad_arguments were given"}

"""The checks that run only when asked for: symmetries of Muon, and what bad input does."""

import math

import pytest
import torch

from muonlab.testing import check_optimizer, symmetry
from testing.specimens import Matrix, Plain, failures

EXTRAS = [check.__name__ for check in symmetry.EXTRA]
BAD = [{"lr": -1.0}, {"lr": math.nan}, {"speed": 3}]

# ---- symmetries


class HasAnEpsilon(Matrix):
    """Divides by a norm that is never below 1e-7, as torch.optim.Muon: small gradients move little."""

    def polar(self, x):
        return super().polar(x) * (x.norm() / x.norm().clamp(min=1e-7)).to(x.dtype)


class FlattensExperts(Matrix):
    def direction(self, gradient, state, group):
        flat = super().direction(gradient.flatten(0, 1) if gradient.ndim == 3 else gradient, state, group)
        return flat.reshape(gradient.shape)


class TakesConvolutionsForOne(Matrix):
    """Orthogonalizes the sum of convolutions of one shape."""

    def direction(self, gradient, state, group):
        alike = [p.grad for p in group["params"] if gradient.ndim == 4 and p.shape == gradient.shape]
        return super().direction(sum(alike) if alike else gradient, state, group)


class ScalesByTheKernel(Matrix):
    """Takes the last two axes for rows and columns."""

    def direction(self, gradient, state, group):
        return super().direction(gradient, state, group) * max(1, gradient.shape[-2] / gradient.shape[-1]) ** 0.5


class NormalizesRows(Matrix):
    def polar(self, x):
        x = x / x.abs().max()
        return x / torch.linalg.vector_norm(x, dim=-1, keepdim=True)


class TakesPartsApart(Matrix):
    """Orthogonalizes the real and the imaginary part apart."""

    def polar(self, x):
        return torch.complex(super().polar(x.real), super().polar(x.imag))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.complex64])
def test_an_exact_muon_has_every_symmetry_and_passes_all_standard_checks(dtype):
    assert failures(Matrix, dtype=dtype, also=EXTRAS) == {}


@pytest.mark.parametrize(
    ("broken", "check", "dtype", "seen"),
    [
        (HasAnEpsilon, "scale_invariance", torch.float32, "by gradients times 7.9e-31 and times 1 differ"),
        (FlattensExperts, "experts_apart", torch.float32, "matrix 0 of a parameter of shape (3, 6, 4)"),
        (TakesConvolutionsForOne, "convolutions_flat", torch.float32, "parameter 0 of shape (6, 2, 3, 2) and of"),
        (ScalesByTheKernel, "convolutions_flat", torch.float32, "and of the same as a matrix (6, 12) differ"),
        (NormalizesRows, "transpose", torch.float32, "the updates of parameter 0 of shape (6, 4) and of its transpose"),
        (TakesPartsApart, "complex_phase", torch.complex64, "turned with its gradients"),
        (Plain, "scale_invariance", torch.float32, "differ by"),
    ],
)
def test_a_broken_symmetry_is_found(broken, check, dtype, seen):
    found = failures(broken, dtype=dtype, only=EXTRAS)
    assert set(found) == {check}
    assert seen in found[check]


# ---- gradients that are not finite


class RaisesLate(Plain):
    def update(self, p, gradient, state, group):
        if not torch.isfinite(gradient).all():
            raise ValueError("a gradient is not finite")
        super().update(p, gradient, state, group)


class Raises(RaisesLate):
    def inspect(self):
        for _, p in self.members():
            if not (p.grad is None or torch.isfinite(p.grad).all()):
                raise ValueError("a gradient is not finite")


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
        if not all(p.grad is None or torch.isfinite(p.grad).all() for _, p in self.members()):
            for _, p in self.members():
                p.grad = None


@pytest.mark.parametrize("right", [Raises, Skips])
def test_bad_gradients_may_be_refused_or_skipped(right):
    for dtype in (torch.float32, torch.complex64):
        assert failures(right, dtype=dtype, only=["nonfinite_gradient"]) == {}


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


# ---- precision


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


def test_a_loss_of_precision_is_found_and_precise_optimizers_pass():
    found = failures(OverwritesMomentum, dtype=torch.bfloat16, only=["precision"])
    assert "parameter 0 of shape (6, 4) in torch.bfloat16 and in torch.float64 differ by" in found["precision"]
    assert failures(OverwritesMomentum, only=["precision"]) == {}  # its copy is one, in float32
    for right in (Plain, Matrix, torch.optim.AdamW):
        for dtype in (torch.float32, torch.bfloat16, torch.float64, torch.complex64):
            assert failures(right, dtype=dtype, only=["precision"]) == {}


def test_small_updates_that_are_lost_are_found():
    options = {"dtype": torch.bfloat16, "only": ["small_updates"]}
    seen = "parameter 0 of shape (6, 4) went 0% of its way in 200 steps of 0.001 at most"
    assert failures(Plain, **options) == {"small_updates": seen}
    assert failures(KeepsAMaster, **options) == {}
    assert "small_updates" in failures(RoundsUp, **options)
    for dtype in (torch.float32, torch.float64, torch.complex64):
        report = check_optimizer(Plain, dtype=dtype, only=["small_updates"])
        assert report.left_out["small_updates"].endswith("fine enough")


# ---- bad arguments


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


def test_bad_arguments_may_be_refused_and_without_them_there_is_nothing_to_check():
    both = ["bad_arguments", "bad_group_options"]
    assert check_optimizer(Validates, bad_arguments=BAD, only=both).passed == tuple(both)
    left_out = dict.fromkeys(both, "no bad_arguments were given")
    assert check_optimizer(Plain, only=both).left_out == left_out

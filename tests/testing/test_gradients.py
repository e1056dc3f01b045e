import pytest
import torch

from testing.specimens import Plain, failures


class FillsMissing(Plain):
    """Writes zeros into missing gradients, so that decay and momentum act on them."""

    def inspect(self):
        super().inspect()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    p.grad = torch.zeros_like(p)


class DecaysMissing(Plain):
    def inspect(self):
        super().inspect()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    p.mul_(1 - group["lr"] * group["weight_decay"])


class CarriesMomentumOn(Plain):
    def inspect(self):
        super().inspect()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None and self.state[p]:
                    p.sub_(group["lr"] * self.state[p]["momentum_buffer"])


class MakesStateForMissing(Plain):
    def inspect(self):
        super().inspect()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    self.state[p].setdefault("momentum_buffer", torch.zeros_like(p))


class WritesNesterovIntoGradient(Plain):
    def direction(self, gradient, state, group):
        return gradient.lerp_(super().direction(gradient, state, group), group["momentum"])


class DropsGradients(Plain):
    def update(self, p, gradient, state, group):
        super().update(p, gradient, state, group)
        p.grad = None


class ReplacesGradients(Plain):
    def update(self, p, gradient, state, group):
        super().update(p, gradient, state, group)
        p.grad = gradient.clone()


class DividesByTheNorm(Plain):
    def direction(self, gradient, state, group):
        return super().direction(gradient / gradient.norm(), state, group)


class DividesTheMomentumByItsNorm(Plain):
    def direction(self, gradient, state, group):
        momentum = super().direction(gradient, state, group)
        return momentum / momentum.norm()


class DecaysAtEveryStep(Plain):
    def update(self, p, gradient, state, group):
        super().update(p, gradient, state, group)
        if not gradient.any():
            p.mul_(0.99)


class LeavesOneOut(Plain):
    """Divides by the number of entries but one, as a variance does."""

    def direction(self, gradient, state, group):
        count = gradient.count_nonzero()
        return super().direction(gradient * (count / (count - 1)), state, group)


class Squares(Plain):
    def direction(self, gradient, state, group):
        size = gradient.square().sum().sqrt() + 1e-30  # overflows at 1e+30, and 0 * inf is NaN
        return super().direction(gradient, state, group) * size / size


class RefusesSparseLate(Plain):
    def inspect(self):
        """Refuse nothing before it is too late."""

    def update(self, p, gradient, state, group):
        if gradient.is_sparse:
            raise ValueError("sparse gradients are not supported")
        super().update(p, gradient, state, group)


class RefusesSparseUnclearly(Plain):
    def inspect(self):
        for group in self.param_groups:
            if any(p.grad is not None and p.grad.is_sparse for p in group["params"]):
                raise ValueError("bad gradient")


class MistakesSparse(Plain):
    def inspect(self):
        """Refuse nothing."""

    def update(self, p, gradient, state, group):
        super().update(p, torch.zeros_like(p) if gradient.is_sparse else gradient, state, group)


class TakesSparse(Plain):
    def inspect(self):
        """Refuse nothing."""

    def update(self, p, gradient, state, group):
        super().update(p, gradient.to_dense() if gradient.is_sparse else gradient, state, group)


@pytest.mark.parametrize(
    ("broken", "checks", "seen"),
    [
        (FillsMissing, {"missing_gradient"}, "parameter 1 of shape (4, 6) was given a gradient by the step"),
        (DecaysMissing, {"missing_gradient"}, "after 0 steps with one: parameter 1 of shape (4, 6) moved by"),
        (
            CarriesMomentumOn,
            {"missing_gradient"},
            "in which no parameter had a gradient: parameter 0 of shape (6, 4) moved",
        ),
        (MakesStateForMissing, {"missing_gradient"}, "the state of parameter 1 of shape (4, 6) gained"),
        (WritesNesterovIntoGradient, {"gradients_kept"}, "step 1 changed the gradient of parameter 0 of shape (6, 4)"),
        (DropsGradients, {"gradients_kept"}, "step 1 dropped the gradient of parameter 0 of shape (6, 4)"),
        (ReplacesGradients, {"gradients_kept"}, "step 1 put another tensor in the place"),
        (
            DividesByTheNorm,
            {"zero_gradient", "zero_step", "gradient_scale"},
            "parameter 0 of shape (6, 4) has 24 NaN or Inf",
        ),
        (
            DividesTheMomentumByItsNorm,
            {"zero_step", "zero_gradient", "gradient_scale"},
            "in the zero step: parameter 0 of shape (6, 4)",
        ),
        (LeavesOneOut, {"zero_gradient"}, "parameter 0 of shape (6, 4) has 24 NaN or Inf after zero gradients"),
        (DecaysAtEveryStep, {"zero_step"}, "in the zero step: parameter 0 of shape (6, 4) moved by"),
        (Squares, {"gradient_scale"}, "parameter 0 of shape (6, 4) has 24 NaN or Inf after gradients of 1e+30"),
        (RefusesSparseLate, {"sparse_gradient"}, "after the refusal: parameter 0 of shape (6, 4) moved by"),
        (RefusesSparseUnclearly, {"sparse_gradient"}, "the error does not speak of sparse gradients: bad gradient"),
        (MistakesSparse, {"sparse_gradient"}, "with a sparse and with a dense gradient differ by"),
    ],
)
def test_a_defect_in_the_use_of_gradients_is_found(broken, checks, seen):
    found = failures(broken)
    assert set(found) == checks
    assert any(seen in message for message in found.values())


def test_sparse_gradients_may_be_taken():
    assert failures(TakesSparse) == {}


def test_nan_that_one_zero_gradient_leaves_in_the_state_is_found():
    class PoisonsItsState(Plain):
        def direction(self, gradient, state, group):
            state["norm"] = gradient.norm() / gradient.norm()
            return super().direction(gradient, state, group)

    found = failures(PoisonsItsState, only=["zero_step"])
    assert found == {"zero_step": "'norm' in the state of parameter 0 of shape (6, 4) is not finite"}

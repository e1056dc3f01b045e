import pytest
import torch

from testing.specimens import Plain, failures


class DisablesGradients(Plain):
    @torch.no_grad()
    def step(self, closure=None):
        loss = None if closure is None else closure()
        super().step()
        return loss


class ReturnsNothing(Plain):
    def step(self, closure=None):
        super().step(closure)


class IgnoresTheClosure(Plain):
    def step(self, closure=None):
        return super().step()


class CallsTheClosureLast(Plain):
    def step(self, closure=None):
        super().step()
        if closure is not None:
            with torch.enable_grad():
                return closure()
        return None


class BelievesInNoScale(Plain):
    """Tells GradScaler that it unscales by itself, and does not."""

    _step_supports_amp_scaling = True


class UnscalesButTakesInf(BelievesInNoScale):
    def update(self, p, gradient, state, group):
        super().update(p, gradient / getattr(self, "grad_scale", None) if self.is_scaled() else gradient, state, group)

    def is_scaled(self):
        return getattr(self, "grad_scale", None) is not None


@pytest.mark.parametrize(
    ("broken", "check", "seen"),
    [
        (DisablesGradients, "closure", "the closure was called with gradients disabled"),
        (ReturnsNothing, "closure", "the step returned None"),
        (IgnoresTheClosure, "closure", "the closure was not called"),
        (CallsTheClosureLast, "closure", "parameter 0 of shape (6, 4) did not move by the gradients of the closure"),
        (BelievesInNoScale, "gradient_scaler", "parameter 0 of shape (6, 4)"),
        (UnscalesButTakesInf, "gradient_scaler", "in a step with Inf in a gradient: parameter 0 of shape (6, 4) moved"),
    ],
)
def test_a_defect_in_the_training_loop_is_found(broken, check, seen):
    found = failures(broken)
    assert set(found) == {check}
    assert seen in found[check]


def test_a_closure_may_return_a_number():
    class ReturnsANumber(Plain):
        def step(self, closure=None):
            loss = super().step(closure)
            return None if loss is None else loss.item()

    assert failures(ReturnsANumber, only=["closure"]) == {}

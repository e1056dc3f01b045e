"""The standard checks of a step find the optimizers that are wrong at one point, and those alone."""

import random

import pytest
import torch

from muonlab.testing import gradients, hyperparameters, progress
from muonlab.testing.battery import checks_of
from testing.specimens import Matrix, Plain, failures, of, raised


def missing(act):
    """Return an optimizer that does something with every parameter that has no gradient."""

    def inspect(self, old):
        old()
        for group, p in self.members():
            if p.grad is None:
                act(self, p, group)

    return of(inspect=inspect)


def directed(change):
    """Return an optimizer whose direction is another one."""
    return of(direction=lambda self, old, gradient, *rest: change(old(gradient, *rest), gradient))


def misread(change):
    """Return an optimizer that takes some options of a group for others."""
    return of(update=lambda self, old, p, grad, state, group: old(p, grad, state, {**group, **change(self, group)}))


def afterwards(act):
    """Return an optimizer that does something more after the update of a parameter."""

    def update(self, old, p, gradient, state, group):
        old(p, gradient, state, group)
        act(p, gradient, state)

    return of(update=update)


def assert_found(broken, area, checks, seen, **options):
    found = failures(broken, only=checks_of(area), **options)
    assert set(found) == set(checks.split())
    assert any(seen in message for message in found.values()), found


table = pytest.mark.parametrize
COLUMNS = ("broken", "checks", "seen")

# ---- gradients

TAKES_ALL = of(inspect=lambda self, old: None)  # sparse gradients too


def on_sparse(act):
    def update(self, old, p, gradient, state, group):
        old(p, act(gradient) if gradient.is_sparse else gradient, state, group)

    return of(TAKES_ALL, update=update)


def refuse_unclearly(self, old):
    if any(p.grad is not None and p.grad.is_sparse for _, p in self.members()):
        raised("bad gradient")


def carry_on(self, p, group):
    if self.state[p]:
        p.sub_(group["lr"] * self.state[p]["momentum_buffer"])


def leave_one_out(self, old, gradient, *rest):  # divides by the number of entries but one, as a variance does
    return old(gradient * (gradient.count_nonzero() / (gradient.count_nonzero() - 1)), *rest)


def poison_state(self, old, gradient, state, group):
    state["norm"] = gradient.norm() / gradient.norm()
    return old(gradient, state, group)


def square(direction, gradient):
    size = gradient.square().sum().sqrt() + 1e-30  # overflows at 1e+30, and 0 * inf is NaN
    return direction * size / size


def disable_gradients(self, old, closure=None):
    with torch.no_grad():
        loss = None if closure is None else closure()
    old()
    return loss


def call_last(self, old, closure=None):
    old()
    with torch.enable_grad():
        return None if closure is None else closure()


def return_a_number(self, old, closure=None):
    loss = old(closure)
    return None if loss is None else loss.item()


class BelievesInNoScale(Plain):
    """Tells GradScaler that it unscales by itself, and does not."""

    _step_supports_amp_scaling = True


class UnscalesButTakesInf(BelievesInNoScale):
    def update(self, p, gradient, state, group):
        scale = getattr(self, "grad_scale", None)
        super().update(p, gradient if scale is None else gradient / scale, state, group)


@table(
    COLUMNS,
    [
        (missing(lambda self, p, _: setattr(p, "grad", torch.zeros_like(p))), "missing_gradient", "given a gradient"),
        (missing(lambda self, p, group: p.mul_(0.999)), "missing_gradient", "after 0 steps with one: parameter 1"),
        (missing(carry_on), "missing_gradient", "in which no parameter had a gradient: parameter 0 of shape (6, 4)"),
        (missing(lambda self, p, _: self.state[p].update(more=1)), "missing_gradient", "the state of parameter 1"),
        (directed(lambda direction, gradient: gradient.lerp_(direction, 0.9)), "gradients_kept", "step 1 changed the"),
        (afterwards(lambda p, *_: setattr(p, "grad", None)), "gradients_kept", "step 1 dropped the gradient of"),
        (afterwards(lambda p, *_: setattr(p, "grad", p.grad.clone())), "gradients_kept", "step 1 put another tensor"),
        (directed(lambda d, _: d / d.norm()), "zero_step zero_gradient gradient_scale", "in the zero step: parameter"),
        (of(direction=leave_one_out), "zero_gradient", "(6, 4) has 24 NaN or Inf after zero gradients"),
        (afterwards(lambda p, gradient, _: p.mul_(1 if gradient.any() else 0.99)), "zero_step", "in the zero step:"),
        (of(direction=poison_state), "zero_step", "'norm' in the state of parameter 0 of shape (6, 4) is not finite"),
        (directed(square), "gradient_scale", "(6, 4) has 24 NaN or Inf after gradients of 1e+30"),
        (on_sparse(lambda _: raised("no sparse gradients")), "sparse_gradient", "after the refusal: parameter"),
        (of(inspect=refuse_unclearly), "sparse_gradient", "the error does not speak of sparse gradients: bad gradient"),
        (on_sparse(lambda gradient: 0 * gradient.to_dense()), "sparse_gradient", "a dense gradient differ by"),
        (of(step=disable_gradients), "closure", "the closure was called with gradients disabled"),
        (of(step=lambda self, old, closure=None: old(closure) and None), "closure", "the step returned None"),
        (of(step=lambda self, old, closure=None: old()), "closure", "the closure was not called"),
        (of(step=call_last), "closure", "(6, 4) did not move by the gradients of the closure"),
        (BelievesInNoScale, "gradient_scaler", "parameter 0 of shape (6, 4)"),
        (UnscalesButTakesInf, "gradient_scaler", "in a step with Inf in a gradient: parameter 0 of shape (6, 4) moved"),
    ],
)
def test_a_defect_in_the_use_of_gradients_is_found(broken, checks, seen):
    assert_found(broken, gradients, checks, seen)


# ---- hyperparameters


class HidesMomentum(Plain):
    """Calls its momentum beta, which no scheduler knows."""

    def __init__(self, params):
        torch.optim.Optimizer.__init__(self, params, {"lr": 0.01, "beta": 0.9, "weight_decay": 0.1})

    def direction(self, gradient, state, group):
        return super().direction(gradient, state, {**group, "momentum": group["beta"]})


class KnowsItsFirstParameters(Plain):
    def __init__(self, params, **options):
        super().__init__(params, **options)
        self.known = [p for _, p in self.members()]

    def update(self, p, gradient, state, group):
        if not hasattr(self, "known") or any(p is other for other in self.known):
            super().update(p, gradient, state, group)


class DropsNames(Plain):
    def __init__(self, params, **options):
        super().__init__([p[1] if isinstance(p, tuple) else p for p in params], **options)


def momentum_of_the_constructor(self, old, gradient, state, group):
    return old(gradient, state, {**group, "momentum": self.defaults["momentum"]})


def known_keys(self, group):
    return {key: value for key, value in group.items() if key in {"params", "param_names", *self.defaults}}


def refuse_keys(self, old, group):
    return old(group) if group.keys() <= known_keys(self, group).keys() else raised("unknown keys")


def start_again(self, old, group):
    self.state.clear()
    old(group)


def freeze_tensor_lr(self, old, p, gradient, state, group):
    lr = state.setdefault("lr", float(group["lr"])) if isinstance(group["lr"], torch.Tensor) else group["lr"]
    old(p, gradient, state, {**group, "lr": lr})


def on_tensor_lr(act, method="inspect"):
    """Return an optimizer that does something with the lr of every group, where it is a tensor, after a method."""

    def replaced(self, old, *arguments):
        old(*arguments)
        for group in self.param_groups:
            if isinstance(group["lr"], torch.Tensor):
                act(group["lr"])

    return of(**{method: replaced})


OF_LR = "learning_rate schedulers groups_apart tensor_learning_rate"


@table(
    COLUMNS,
    [
        (misread(lambda self, _: {"lr": self.defaults["lr"]}), OF_LR, "(6, 4) moved by 0.0"),
        (misread(lambda _, group: {"lr": 0.1 * group["lr"] ** 0.1 * (group["lr"] > 0)}), "learning_rate", "half the"),
        (misread(lambda self, _: {"weight_decay": 0.1}), "weight_decay", "(6, 4) by 0 of its length"),
        (misread(lambda _, group: {"weight_decay": -group["weight_decay"]}), "weight_decay", "by 0.49 of its length"),
        (of(direction=momentum_of_the_constructor), "schedulers", "the momentum that OneCycleLR sets makes no"),
        (HidesMomentum, "schedulers", "ValueError: optimizer must support momentum or beta1"),
        (misread(lambda self, _: {"lr": self.param_groups[0]["lr"]}), "groups_apart", "(5, 5) did not move"),
        (of(add_param_group=refuse_keys), "extra_keys", "ValueError: unknown keys"),
        (of(add_param_group=lambda self, old, group: old(known_keys(self, group))), "extra_keys", "lost the key"),
        (misread(lambda _, group: {"lr": group["lr"] * group.get("lr_scale", 1.0)}), "extra_keys", "ends elsewhere"),
        (KnowsItsFirstParameters, "added_group", "of the added parameter 5 of shape (2, 12) and alone differ"),
        (of(add_param_group=start_again), "added_group", "(6, 4) with and without the added group"),
        (DropsNames, "parameter_names", "gave ['layers.0.weight'"),
        (of(update=freeze_tensor_lr), "tensor_learning_rate", "moved after its lr, a tensor, was set to zero in place"),
        (on_tensor_lr(lambda lr: lr.mul_(0.5)), "tensor_learning_rate", "by a tensor and by a number as lr differ"),
        (on_tensor_lr(lambda _: raised("a tensor"), "update"), "tensor_learning_rate", "after the refusal: parameter"),
        (on_tensor_lr(lambda _: raised("no")), "tensor_learning_rate", "the error does not speak of a tensor"),
    ],
)
def test_a_defect_in_the_use_of_hyperparameters_is_found(broken, checks, seen):
    assert_found(broken, hyperparameters, checks, seen)


# ---- the update


def leave_the_last(self, old, p, gradient, state, group):
    if p is not group["params"][-1]:
        old(p, gradient, state, group)


def diverge(p, gradient, state):
    state["count"] = state.get("count", 0) + 1
    p.mul_(1 if state["count"] <= 10 else torch.inf)


def rebind(self, old, p, *rest):
    p.data = p.data.clone()
    old(p, *rest)


def mix_members(self, old, gradient, state, group):  # takes equal shapes together and forgets which is which
    alike = [p.grad for p in group["params"] if p.grad is not None and p.shape == gradient.shape]
    return old(sum(alike) / len(alike), state, group)


def read_storage(self, old, gradient, *rest):  # reads the gradient's memory as if it lay like a contiguous one
    return old(torch.as_strided(gradient, gradient.shape, torch.empty(gradient.shape).stride()), *rest)


def view_convolutions(self, old, gradient, *rest):
    if gradient.ndim == 4:
        gradient.view(len(gradient), -1)
    return old(gradient, *rest)


class TakesTheLastBackward(Plain):
    def __init__(self, params, **options):
        super().__init__(params, **options)
        self.last = {}
        for _, p in self.members():
            p.register_hook(lambda gradient, p=p: self.last.update({p: gradient.clone()}))

    def update(self, p, gradient, state, group):
        super().update(p, self.last.get(p, gradient), state, group)


NOISE = torch.Generator().manual_seed(0)
NOISY = afterwards(lambda p, *_: p.add_(1e-5 * torch.randn(p.shape, generator=NOISE)))


@table(
    COLUMNS,
    [
        (directed(lambda direction, _: -direction), "loss_falls", "the loss of parameter 0 of shape (6, 4) went from"),
        (afterwards(diverge), "loss_falls", "(6, 4) has 24 NaN or Inf after step 11"),
        (of(update=rebind), "storage_kept", "parameter 0 of shape (6, 4) lies elsewhere"),
        (of(inspect=lambda self, old: torch.rand(1)), "random_state_kept", "torch's generator moved on"),
        (of(inspect=lambda self, old: random.random()), "random_state_kept", "Python's random moved on"),
        (of(direction=mix_members), "members_apart", "the updates of parameter 0 of shape (6, 4) in company"),
        (of(direction=read_storage), "memory_layout channels_last", "(contiguous, gradient transposed)"),
        (of(Matrix, direction=view_convolutions), "channels_last", "RuntimeError: view size is not compatible"),
    ],
)
def test_a_defect_of_the_update_is_found(broken, checks, seen):
    assert_found(broken, progress, checks, seen)


@table(
    ("broken", "check", "seen"),
    [
        (of(update=leave_the_last), "loss_falls", "parameter 5 of shape (2, 12) did not move in the first step"),
        (NOISY, "deterministic", "the second run differs from the first: parameter 0 of shape (6, 4) moved by"),
        (TakesTheLastBackward, "accumulation", "against the sum at once: parameter 0 of shape (6, 4) moved by"),
    ],
)
def test_a_defect_that_leaves_little_right_is_found(broken, check, seen):
    assert seen in failures(broken, only=[check])[check]


def test_a_lost_imaginary_part_is_found():
    broken = directed(lambda direction, gradient: direction.real.to(gradient.dtype))
    seen = "the imaginary part of the loss of parameter 0 of shape (6, 4)"
    assert_found(broken, progress, "imaginary_part_falls", seen, dtype=torch.complex64)


# ---- what may be done or left


@pytest.mark.parametrize(
    ("right", "check"),
    [
        (on_sparse(lambda gradient: gradient.to_dense()), "sparse_gradient"),
        (on_tensor_lr(lambda _: raised("lr must be a number, got a tensor")), "tensor_learning_rate"),
        (torch.optim.Rprop, "weight_decay"),  # it has none
        (of(step=return_a_number), "closure"),
    ],
)
def test_a_choice_that_is_left_to_the_optimizer_is_no_defect(right, check):
    assert failures(right, only=[check]) == {}

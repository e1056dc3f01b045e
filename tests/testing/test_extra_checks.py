"""The checks that run only when asked for: symmetries of Muon, and what bad input does."""

import math

import pytest
import torch

from muonlab.testing import battery, check_optimizer, symmetry
from testing.specimens import Matrix, Plain, failures, of, raised

SYMMETRIES = battery.checks_of(symmetry)

# ---- symmetries


def have_an_epsilon(self, old, x):  # as torch.optim.Muon, in which small gradients move little
    return old(x) * (x.norm() / x.norm().clamp(min=1e-7)).to(x.dtype)


def flatten_experts(self, old, gradient, *rest):
    return old(gradient.flatten(0, 1) if gradient.ndim == 3 else gradient, *rest).reshape(gradient.shape)


def take_convolutions_for_one(self, old, gradient, state, group):
    alike = [p.grad for p in group["params"] if gradient.ndim == 4 and p.shape == gradient.shape]
    return old(sum(alike) if alike else gradient, state, group)


def scale_by_the_kernel(self, old, gradient, *rest):  # takes the last two axes for rows and columns
    return old(gradient, *rest) * max(1, gradient.shape[-2] / gradient.shape[-1]) ** 0.5


def normalize_rows(self, old, x):
    x = x / x.abs().max()
    return x / torch.linalg.vector_norm(x, dim=-1, keepdim=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.complex64])
def test_an_exact_muon_has_every_symmetry_and_passes_all_standard_checks(dtype):
    assert failures(Matrix, dtype=dtype, also=SYMMETRIES) == {}


@pytest.mark.parametrize(
    ("broken", "check", "dtype", "seen"),
    [
        (of(Matrix, polar=have_an_epsilon), "scale_invariance", torch.float32, "by gradients times 7.9e-31 and times"),
        (of(Matrix, direction=flatten_experts), "experts_apart", torch.float32, "of a parameter of shape (3, 6, 4)"),
        (of(Matrix, direction=take_convolutions_for_one), "convolutions_flat", torch.float32, "(6, 2, 3, 2) and of"),
        (of(Matrix, direction=scale_by_the_kernel), "convolutions_flat", torch.float32, "as a matrix (6, 12) differ"),
        (of(Matrix, polar=normalize_rows), "transpose", torch.float32, "0 of shape (6, 4) and of its transpose"),
        (
            of(Matrix, polar=lambda self, old, x: torch.complex(old(x.real), old(x.imag))),
            "complex_phase",
            torch.complex64,
            "turned with its gradients",
        ),
        (Plain, "scale_invariance", torch.float32, "differ by"),
    ],
)
def test_a_broken_symmetry_is_found(broken, check, dtype, seen):
    found = failures(broken, dtype=dtype, only=SYMMETRIES)
    assert set(found) == {check}
    assert seen in found[check]


# ---- gradients that are not finite


def where_finite(act):
    """Return an optimizer that does something else with a parameter whose gradient is not finite."""

    def update(self, old, p, gradient, state, group):
        old(p, gradient, state, group) if torch.isfinite(gradient).all() else act(self, gradient, state, group)

    return of(update=update)


def before_all(act):
    """Return an optimizer that does something first where any gradient is not finite."""

    def inspect(self, old):
        if not all(p.grad is None or torch.isfinite(p.grad).all() for _, p in self.members()):
            act(self)

    return of(inspect=inspect)


def drop_gradients(self):
    for _, p in self.members():
        p.grad = None


def drop_some_gradients(self):
    for _, p in (self.members()[0], self.members()[-1]):
        p.grad = None


RIGHT = [
    before_all(lambda self: raised("a gradient")),
    where_finite(lambda self, gradient, state, _: state.update(n=1)),
    before_all(drop_gradients),
]


@pytest.mark.parametrize("right", RIGHT, ids=["refuses", "skips", "leaves out the step"])
def test_bad_gradients_may_be_refused_or_skipped(right):
    for dtype in (torch.float32, torch.complex64):
        assert failures(right, dtype=dtype, only=["nonfinite_gradient"]) == {}


# ---- precision


def overwrite_momentum(self, old, gradient, state, group):
    """Mean to work on a bfloat16 copy of the momentum, which of a bfloat16 momentum is the momentum itself."""
    copy = Plain.direction(self, gradient, state, group).to(torch.bfloat16)
    return self.polar(copy.div_(copy.norm())).to(gradient.dtype)


def keep_a_master(self, old, p, gradient, state, group):
    """Sum the updates in float32 and round the sum."""
    master = state.setdefault("master", p.detach().float().clone())
    old(master, gradient.float(), state, group)
    p.copy_(master)


def round_up(self, old, p, gradient, state, group):
    """Move a bfloat16 parameter by a whole spacing whenever it should move at all."""
    before = p.detach().float().clone()
    keep_a_master(self, old, p, gradient, state, group)
    if p.dtype == torch.bfloat16:
        way = (state["master"] - before).sign() * torch.finfo(p.dtype).eps * before.abs()
        state["master"] = before + way
        p.copy_(state["master"])


def test_precise_optimizers_pass_and_what_keeps_a_master_loses_no_update():
    overwrites = of(Matrix, direction=overwrite_momentum)
    assert failures(overwrites, only=["precision"]) == {}  # in float32 its copy is a copy
    for right in (Plain, Matrix, torch.optim.AdamW):
        for dtype in (torch.float32, torch.bfloat16, torch.float64, torch.complex64):
            assert failures(right, dtype=dtype, only=["precision"]) == {}
    assert failures(of(update=keep_a_master), dtype=torch.bfloat16, only=["small_updates"]) == {}
    for dtype in (torch.float32, torch.float64, torch.complex64):
        report = check_optimizer(Plain, dtype=dtype, only=["small_updates"])
        assert report.left_out["small_updates"].endswith("fine enough")


# ---- bad arguments


class Validates(Plain):
    message = "{name} must be a number of at least 0, got {value}"

    def __init__(self, params, lr=0.01, **options):
        self.validate(lr)
        super().__init__(params, lr=lr, **options)

    def add_param_group(self, param_group):
        self.validate(param_group.get("lr", 0.0))
        super().add_param_group(param_group)

    def validate(self, value):
        if not value >= 0:
            raise ValueError(self.message.format(name="lr", value=value))


class ValidatesWithoutAName(Validates):
    message = "bad value"


def validate_afterwards(self, old, param_group):
    Plain.add_param_group(self, param_group)
    self.validate(param_group["lr"])


BAD = [{"lr": -1.0}, {"lr": math.nan}, {"speed": 3}]
IN_BFLOAT16 = {"dtype": torch.bfloat16}
CONSTRUCTOR_ALONE = of(Validates, add_param_group=lambda self, old, group: Plain.add_param_group(self, group))


@pytest.mark.parametrize(
    ("broken", "options", "check", "seen"),
    [
        (Plain, {}, "nonfinite_gradient", "(2, 12) changed in a step with nan in the gradient of parameter 5"),
        (where_finite(lambda *_: raised("late")), {}, "nonfinite_gradient", "the refusal of nan: parameter 0 of shape"),
        (where_finite(Plain.direction), {}, "nonfinite_gradient", "'momentum_buffer' in the state of that parameter"),
        (before_all(drop_some_gradients), {}, "nonfinite_gradient", "(6, 4) did not move in a step with nan"),
        (of(Matrix, direction=overwrite_momentum), IN_BFLOAT16, "precision", "in torch.bfloat16 and in torch.float64"),
        (Plain, IN_BFLOAT16, "small_updates", "(6, 4) went 0% of its way in 200 steps of 0.001 at most"),
        (of(update=round_up), IN_BFLOAT16, "small_updates", "of its way"),
        (Plain, {"bad_arguments": BAD}, "bad_arguments", "lr=-1.0 was accepted"),
        (ValidatesWithoutAName, {"bad_arguments": BAD}, "bad_arguments", "does not name it: ValueError: bad value"),
        (torch.optim.SGD, {"bad_arguments": BAD}, "bad_arguments", "not name it: ValueError: Invalid learning"),
        (CONSTRUCTOR_ALONE, {"bad_arguments": BAD}, "bad_group_options", "in a group given to the constructor"),
        (
            of(Validates, add_param_group=validate_afterwards),
            {"bad_arguments": BAD},
            "bad_group_options",
            "after add_param_group refused lr=-1.0: 1 groups became 2",
        ),
        (Plain, {}, "foreign_shapes", "a state_dict of other shapes was loaded without an error"),
    ],
)
def test_a_mistake_that_many_make_is_found(broken, options, check, seen):
    assert seen in failures(broken, only=[check], **options)[check]


def test_bad_arguments_may_be_refused_and_without_them_there_is_nothing_to_check():
    both = ["bad_arguments", "bad_group_options"]
    assert check_optimizer(Validates, bad_arguments=BAD, only=both).passed == tuple(both)
    left_out = dict.fromkeys(both, "no bad_arguments were given")
    assert check_optimizer(Plain, only=both).left_out == left_out

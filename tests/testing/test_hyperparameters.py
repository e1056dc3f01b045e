import pytest
import torch

from testing.specimens import Plain, failures


class ReadsLrOnce(Plain):
    def update(self, p, gradient, state, group):
        super().update(p, gradient, state, {**group, "lr": self.defaults["lr"]})


class TakesTheRootOfLr(Plain):
    def update(self, p, gradient, state, group):
        super().update(p, gradient, state, {**group, "lr": 0.1 * group["lr"] ** 0.1 if group["lr"] else 0.0})


class ReadsDecayOnce(Plain):
    def update(self, p, gradient, state, group):
        super().update(p, gradient, state, {**group, "weight_decay": self.defaults["weight_decay"]})


class AddsDecay(Plain):
    def update(self, p, gradient, state, group):
        super().update(p, gradient, state, {**group, "weight_decay": -group["weight_decay"]})


class ReadsMomentumOnce(Plain):
    def direction(self, gradient, state, group):
        return super().direction(gradient, state, {**group, "momentum": self.defaults["momentum"]})


class HidesMomentum(Plain):
    """Calls its momentum beta, which no scheduler knows."""

    def __init__(self, params):
        torch.optim.Optimizer.__init__(self, params, {"lr": 0.01, "beta": 0.9, "weight_decay": 0.1})

    def direction(self, gradient, state, group):
        return super().direction(gradient, state, {**group, "momentum": group["beta"]})


class TakesTheFirstGroupsLr(Plain):
    def update(self, p, gradient, state, group):
        super().update(p, gradient, state, {**group, "lr": self.param_groups[0]["lr"]})


class RefusesKeys(Plain):
    def add_param_group(self, param_group):
        unknown = param_group.keys() - {"params", "param_names", *self.defaults}
        if unknown:
            raise TypeError(f"unknown keys {unknown}")
        super().add_param_group(param_group)


class ForgetsKeys(Plain):
    def add_param_group(self, param_group):
        known = {"params", "param_names", *self.defaults}
        super().add_param_group({key: value for key, value in param_group.items() if key in known})


class ObeysUnknownKeys(Plain):
    def update(self, p, gradient, state, group):
        super().update(p, gradient, state, {**group, "lr": group["lr"] * group.get("lr_scale", 1.0)})


class KnowsItsFirstParameters(Plain):
    def __init__(self, params, **options):
        super().__init__(params, **options)
        self.known = [p for group in self.param_groups for p in group["params"]]

    def update(self, p, gradient, state, group):
        if not hasattr(self, "known") or any(p is other for other in self.known):
            super().update(p, gradient, state, group)


class StartsAnewWithAGroup(Plain):
    def add_param_group(self, param_group):
        self.state.clear()
        super().add_param_group(param_group)


class DropsNames(Plain):
    def __init__(self, params, **options):
        params = [p[1] if isinstance(p, tuple) else p for p in params]
        super().__init__(params, **options)


class FreezesTensorLr(Plain):
    def update(self, p, gradient, state, group):
        lr = state.setdefault("lr", float(group["lr"])) if isinstance(group["lr"], torch.Tensor) else group["lr"]
        super().update(p, gradient, state, {**group, "lr": lr})


class ScalesTensorLr(Plain):
    def inspect(self):
        super().inspect()
        for group in self.param_groups:
            if isinstance(group["lr"], torch.Tensor):
                group["lr"] *= 0.5


class RoundsTensorLr(Plain):
    def update(self, p, gradient, state, group):
        lr = group["lr"].bfloat16() if isinstance(group["lr"], torch.Tensor) else group["lr"]
        super().update(p, gradient, state, {**group, "lr": lr})


class RefusesTensorLr(Plain):
    def inspect(self):
        super().inspect()
        if any(isinstance(group["lr"], torch.Tensor) for group in self.param_groups):
            raise ValueError("lr must be a number, got a tensor")


class RefusesTensorLrLate(Plain):
    def update(self, p, gradient, state, group):
        super().update(p, gradient, state, group)
        if isinstance(group["lr"], torch.Tensor):
            raise ValueError("lr must be a number, got a tensor")


class RefusesTensorLrUnclearly(RefusesTensorLr):
    def inspect(self):
        if any(isinstance(group["lr"], torch.Tensor) for group in self.param_groups):
            raise ValueError("no")


@pytest.mark.parametrize(
    ("broken", "check", "others", "seen"),
    [
        (ReadsLrOnce, "learning_rate", {"schedulers", "groups_apart", "tensor_learning_rate", "zero_step",
                                        "weight_decay"}, "(6, 4) moved by 0.0"),
        (TakesTheRootOfLr, "learning_rate", {"weight_decay", "tensor_learning_rate"}, "with half the lr"),
        (ReadsDecayOnce, "weight_decay", set(), "changed parameter 0 of shape (6, 4) by 0 of its length"),
        (AddsDecay, "weight_decay", set(), "changed parameter 0 of shape (6, 4) by 0.49 of its length"),
        (ReadsMomentumOnce, "schedulers", set(), "the momentum that OneCycleLR sets makes no difference"),
        (HidesMomentum, "schedulers", set(), "ValueError: optimizer must support momentum or beta1"),
        (TakesTheFirstGroupsLr, "groups_apart", set(), "parameter 3 of shape (5, 5) did not move"),
        (RefusesKeys, "extra_keys", set(), "TypeError: unknown keys"),
        (ForgetsKeys, "extra_keys", set(), "group 0 of the state_dict lost the key 'name'"),
        (ObeysUnknownKeys, "extra_keys", set(), "ends elsewhere than without the keys ['lr_scale', 'name']"),
        (KnowsItsFirstParameters, "added_group", set(), "of the added parameter 5 of shape (2, 12) and alone differ"),
        (StartsAnewWithAGroup, "added_group", set(), "parameter 0 of shape (6, 4) with and without the added group"),
        (DropsNames, "parameter_names", set(), "gave ['layers.0.weight'"),
        (FreezesTensorLr, "tensor_learning_rate", set(), "moved after its lr, a tensor, was set to zero in place"),
        (ScalesTensorLr, "tensor_learning_rate", set(), "by a tensor and by a number as lr differ"),
        (RoundsTensorLr, "tensor_learning_rate", set(), "by a tensor and by a number as lr differ"),
        (RefusesTensorLrLate, "tensor_learning_rate", set(), "after the refusal: parameter 0 of shape (6, 4) moved by"),
        (RefusesTensorLrUnclearly, "tensor_learning_rate", {"sparse_gradient"}, "the error does not speak of a tensor"),
    ],
)  # fmt: skip
def test_a_defect_in_the_use_of_hyperparameters_is_found(broken, check, others, seen):
    found = failures(broken)
    assert seen in found[check]
    assert found.keys() - {check} <= others


def test_a_tensor_as_lr_may_be_refused():
    assert failures(RefusesTensorLr) == {}


def test_an_optimizer_without_decay_is_not_asked_about_it():
    assert failures(torch.optim.Rprop, only=["weight_decay"]) == {}

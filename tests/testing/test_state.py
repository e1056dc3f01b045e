"""The checks of saving and loading find the optimizers that are wrong at one point, and those alone."""

import copy

import pytest
import torch

from muonlab.testing import state as saving
from muonlab.testing.battery import checks_of
from testing.specimens import Plain, failures, of

NAMES = checks_of(saving)


class KeepsItsOwnOptions(Plain):
    def load_state_dict(self, state_dict):
        own = [{key: value for key, value in group.items() if key != "params"} for group in self.param_groups]
        super().load_state_dict(state_dict)
        for group, options in zip(self.param_groups, own, strict=True):
            group.update(options)


class KeepsMomentumAside(Plain):
    def update(self, p, gradient, state, group):
        aside = self.__dict__.setdefault("aside", {})
        super().update(p, gradient, aside.setdefault(id(p), {}), group)


class Counter:
    def __eq__(self, other):
        return isinstance(other, Counter)


class KeepsAnObject(Plain):
    def direction(self, gradient, state, group):
        state.setdefault("counter", Counter())
        return super().direction(gradient, state, group)


class KeepsFloat32(Plain):
    """Has a float32 momentum, which torch's own load_state_dict casts to the parameter's dtype."""

    def direction(self, gradient, state, group):
        return super().direction(gradient.float(), state, group).to(gradient.dtype)


class LoadsFloat32(KeepsFloat32):
    def load_state_dict(self, state_dict):
        super().load_state_dict(state_dict)
        params = [p for _, p in self.members()]
        for number, state in state_dict["state"].items():
            self.state[params[number]] = dict(state)


class LoadsAnything(Plain):
    def load_state_dict(self, state_dict):
        pairs = zip(self.param_groups, state_dict["param_groups"], strict=True)
        groups = [{**own, **saved, "params": list(range(len(own["params"])))} for own, saved in pairs]
        super().load_state_dict({"state": {}, "param_groups": groups})


class RefusesTooLate(Plain):
    def load_state_dict(self, state_dict):
        for group, saved in zip(self.param_groups, state_dict["param_groups"], strict=True):
            group["lr"] = saved["lr"]
        super().load_state_dict(state_dict)


class RefusesByKeyError(Plain):
    def load_state_dict(self, state_dict):
        if len(state_dict["state"]) != len(self.state) and self.state:
            raise KeyError("parameters")
        super().load_state_dict(state_dict)


class PicklesWithoutState(Plain):
    def __reduce__(self):
        return type(self), (self.param_groups, self.defaults["lr"])

    def __deepcopy__(self, memo):
        duplicate = Plain.__new__(type(self))
        memo[id(self)] = duplicate
        duplicate.__setstate__(copy.deepcopy(self.__getstate__(), memo))
        return duplicate


class SharesWithItsCopy(Plain):
    def __deepcopy__(self, memo):
        duplicate = Plain.__new__(type(self))
        duplicate.__setstate__(self.__getstate__())
        return duplicate


@pytest.mark.parametrize(
    ("broken", "checks", "seen"),
    [
        (KeepsItsOwnOptions, {"state_dict_restores"}, "'lr' of group 0 was 0.005 and became 0.01"),
        (KeepsMomentumAside, {"state_dict_restores", "pickles", "deep_copies"}, "three steps"),
        (KeepsAnObject, {"state_dict_restores", "state_precision"}, "UnpicklingError: Weights only load failed"),
        (LoadsAnything, {"state_dict_restores", "foreign_state_dict"}, "was loaded without an error"),
        (RefusesTooLate, {"foreign_state_dict"}, "after refusing the state_dict of 5 parameters, for 6,: 'lr' of"),
        (RefusesByKeyError, {"foreign_state_dict"}, "KeyError: 'parameters'"),
        (PicklesWithoutState, {"pickles"}, "the state of parameter 0 of shape (6, 4) lost 'momentum_buffer'"),
        (SharesWithItsCopy, {"deep_copies"}, "the original, after steps of the deep copy: parameter 0"),
    ],
)
def test_a_defect_of_saving_and_loading_is_found(broken, checks, seen):
    found = failures(broken, only=NAMES)
    assert set(found) == checks
    assert any(seen in message for message in found.values())


def test_a_state_cast_to_bfloat16_is_found():
    found = failures(KeepsFloat32, dtype=torch.bfloat16, only=NAMES)
    assert set(found) == {"state_dict_restores", "state_precision"}
    seen = "'momentum_buffer' of parameter 0 (torch.bfloat16) was torch.float32 and is torch.bfloat16"
    assert found["state_precision"] == seen
    assert failures(LoadsFloat32, dtype=torch.bfloat16, only=NAMES) == {}


def test_a_state_of_other_shapes_may_be_refused():
    def load(self, old, saved):
        for (_, p), state in zip(self.members(), saved["state"].values(), strict=False):
            if state["momentum_buffer"].shape != p.shape:
                raise ValueError(f"momentum_buffer is {tuple(state['momentum_buffer'].shape)}")
        old(saved)

    assert (
        failures(of(load_state_dict=load), only=["foreign_shapes", "state_dict_restores", "foreign_state_dict"]) == {}
    )

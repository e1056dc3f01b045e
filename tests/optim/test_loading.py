"""States of other orders, other splits, other optimizers: matched by name, changed by hooks, or refused."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)

from muonlab import Muon, MuonAdamW
from optim.training import draw, give, parameter, train

SHAPE = (6, 4)


def pairs(names, dtype=torch.float32):
    return [(name, parameter(*SHAPE, seed=ord(name[0]), dtype=dtype)) for name in names]


def marked(optimizer):
    """Give every momentum the number of its parameter's name, and return them by name."""
    for group in optimizer.param_groups:
        for name, p in zip(group["param_names"], group["params"], strict=True):
            state = optimizer.state[p]
            for entry in ("momentum_buffer", "exp_avg"):
                if entry in state:
                    state[entry].fill_(sum(map(ord, name)))


def momenta(optimizer):
    return {
        name: optimizer.state[p].get("momentum_buffer", optimizer.state[p].get("exp_avg"))[0, 0].item()
        for group in optimizer.param_groups
        for name, p in zip(group["param_names"], group["params"], strict=True)
    }


def trained(names, make=Muon, **options):
    optimizer = make(pairs(names), **options)
    train(optimizer, optimizer.param_groups[0]["params"], 1)
    marked(optimizer)
    return optimizer


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod."])
def test_a_state_is_matched_by_the_names_of_its_parameters(prefix):
    saved = trained("abcd")
    for order in ("abcd", "dcba", "bdac"):
        optimizer = Muon([(prefix + name, p) for name, p in pairs(order)])
        optimizer.load_state_dict(copy.deepcopy(saved.state_dict()))
        assert optimizer.param_groups[0]["param_names"] == [prefix + name for name in order]
        assert momenta(optimizer) == {prefix + name: float(ord(name)) for name in order}
        train(optimizer, optimizer.param_groups[0]["params"], 1)


def test_layers_that_change_their_order_keep_their_state():
    class Net(nn.Module):
        def __init__(self, names):
            super().__init__()
            for name in names:
                self.add_module(name, nn.Linear(4, 4))
            self.head = nn.Linear(4, 3)

    nets = [Net("qk"), Net("kq")]
    saved, optimizer = map(MuonAdamW, nets)
    for group in saved.param_groups:
        give(group["params"])
    saved.step()
    optimizer.load_state_dict(saved.state_dict())
    for name, p in nets[0].named_parameters():
        state = optimizer.state[nets[1].get_parameter(name)]
        assert saved.state[p].keys() == state.keys()
        assert all(torch.equal(value, state[entry]) for entry, value in saved.state[p].items()), name


def test_a_state_of_other_names_is_refused_before_anything_is_changed():
    optimizer, saved = trained("abcd"), trained("abce")
    before = momenta(optimizer)
    with pytest.raises(ValueError, match=r"lacks 'd' and has 'e', which it does not.*matched by name"):
        optimizer.load_state_dict(saved.state_dict())
    assert momenta(optimizer) == before
    unnamed = Muon([p for _, p in pairs("wxyz")])  # without names on a side, by order
    unnamed.load_state_dict(saved.state_dict())
    nets = [nn.ModuleDict({name: nn.Linear(4, 4) for name in "ab"} | {"head": nn.Linear(4, 3)}) for _ in range(2)]
    whole, apart = MuonAdamW(nets[0]), MuonAdamW(nets[1], overrides={"a": {"lr": 1.0}})
    with pytest.raises(ValueError, match=r"has in its groups \[\[0\], \[1\], \[0\], \[1\]\] what the optimizer has in"):
        apart.load_state_dict(whole.state_dict())


@pytest.mark.parametrize("variant", [None, "normuon"])
def test_the_split_of_the_constructor_stands(variant):
    saved = trained("ab", split={"a": 2}, variant=variant)
    optimizer = Muon(pairs("ab"), split={"a": 3, "b": 2}, variant=variant)
    optimizer.load_state_dict(saved.state_dict())
    assert optimizer.param_groups[0]["layouts"] == [(None, 3), (None, 2)]
    gradient = draw(*SHAPE, seed=5, dtype=torch.float32)
    twin = Muon(pairs("ab"), split={"a": 3, "b": 2}, variant=variant)
    for each in (optimizer, twin):
        each.param_groups[0]["momentum"] = 0.0
        for p in each.param_groups[0]["params"]:
            p.grad = gradient.clone()
        each.step()
    if variant is None:  # the steps of a constructor's split, whatever the file says
        for p, q in zip(optimizer.param_groups[0]["params"], twin.param_groups[0]["params"], strict=True):
            torch.testing.assert_close(p, q)


# --- hooks


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_hook_that_matches_by_name_is_heard(dtype):
    """The recipe of torch's documentation, for files that have parameters in another order and others besides."""

    def adapt(optimizer, state_dict):
        names = state_dict["param_groups"][0]["param_names"]
        wanted = optimizer.param_groups[0]["param_names"]
        numbers = {name: number for number, name in enumerate(names)}
        group = {**state_dict["param_groups"][0], "params": list(range(len(wanted))), "param_names": list(wanted)}
        group.pop("layouts")
        state = {k: state_dict["state"][numbers[name]] for k, name in enumerate(wanted) if name in numbers}
        return {"state": state, "param_groups": [group]}

    saved = Muon(pairs("abcd", dtype))
    train(saved, saved.param_groups[0]["params"], 1)
    marked(saved)
    optimizer = Muon(pairs("dxb", dtype))  # a model that has lost two and grown one
    optimizer.register_load_state_dict_pre_hook(adapt)
    optimizer.load_state_dict(saved.state_dict())
    d, x, b = optimizer.param_groups[0]["params"]
    assert [optimizer.state[p]["momentum_buffer"][0, 0].item() for p in (d, b)] == [100.0, 98.0]
    assert {optimizer.state[p]["momentum_buffer"].dtype for p in (d, b)} == {torch.float32}
    assert x not in optimizer.state
    train(optimizer, [d, x, b], 1)


def test_what_a_hook_returns_is_checked():
    optimizer, saved = trained("ab"), trained("ab")
    optimizer.register_load_state_dict_pre_hook(
        lambda _, state_dict: {
            **state_dict,
            "state": {n: {"momentum_buffer": torch.zeros(4, 6)} for n in state_dict["state"]},
        }
    )
    with pytest.raises(ValueError, match=r"momentum_buffer of shape \(4, 6\) for parameter a"):
        optimizer.load_state_dict(saved.state_dict())


def test_hooks_after_loading_and_saving_have_the_last_word():
    optimizer, seen = trained("ab", adjust_lr_fn=lambda shape: 1.0), []
    optimizer.register_load_state_dict_post_hook(
        lambda each: seen.append([each.state[p]["momentum_buffer"].zero_() for p in each.param_groups[0]["params"]])
    )
    optimizer.load_state_dict(optimizer.state_dict())
    assert len(seen) == 1
    assert set(momenta(optimizer).values()) == {0.0}
    inner = []
    for each in (optimizer, copy.deepcopy(optimizer)):
        each.register_state_dict_post_hook(lambda _, state_dict: inner.append(state_dict) or {"mine": state_dict})
        assert list(each.state_dict()) == ["mine"]
        assert "adjust_lr_fn" not in inner[-1]["param_groups"][0]  # no function, or a file could not be read back


# --- other optimizers, other numbers


def test_steps_of_adamw_that_are_numbers_are_counted_on():
    params, twins = ([parameter(*SHAPE), parameter(5)] for _ in range(2))
    oracle = torch.optim.AdamW(params, lr=0.03)
    train(oracle, params, 2)
    state_dict = copy.deepcopy(oracle.state_dict())
    for kind in (int, float, np.int64):
        for state in state_dict["state"].values():
            state["step"] = kind(2)
        optimizer = MuonAdamW([{"params": twins, "rule": "adamw"}])
        optimizer.load_state_dict(copy.deepcopy(state_dict))
        with torch.no_grad():
            for p, q in zip(twins, params, strict=True):
                p.copy_(q)
    for seen, expected in zip(train(optimizer, twins, 2, first=3), train(oracle, params, 2, first=3), strict=True):
        torch.testing.assert_close(seen, expected, rtol=0, atol=1e-6)


def lora():
    """A model of which adapters are trained, and nothing of AdamW's."""
    layers = {"lora_A": nn.Linear(4, 3, bias=False), "lora_B": nn.Linear(3, 5, bias=False), "norm": nn.LayerNorm(4)}
    net = nn.ModuleDict(layers)
    net.norm.requires_grad_(False)
    return net


@pytest.mark.parametrize("make", [lora, lambda: nn.ModuleDict({"norm": nn.LayerNorm(4), "head": nn.Linear(4, 3)})])
@pytest.mark.parametrize("flatten", [True, False])
def test_a_distributed_state_goes_round_where_a_rule_has_no_parameters(make, flatten):
    options, nets = StateDictOptions(flatten_optimizer_state_dict=flatten), [make(), make()]
    first, second = (MuonAdamW(net, rules={}) for net in nets)
    params = [p for group in first.param_groups for p in group["params"]]
    train(first, params, 2)
    state_dict = get_optimizer_state_dict(nets[0], first, options=options)
    set_optimizer_state_dict(nets[1], second, state_dict, options=options)
    with torch.no_grad():
        for p, q in zip(nets[1].parameters(), nets[0].parameters(), strict=True):
            p.copy_(q)
    others = [p for group in second.param_groups for p in group["params"]]
    for p, q in zip(train(first, params, 2, first=3), train(second, others, 2, first=3), strict=True):
        assert torch.equal(p, q)


@pytest.mark.parametrize("given", [{}, {"weight": torch.ones(1), "bias": torch.ones(1)}, {"state": {}}])
def test_what_is_no_state_of_an_optimizer_is_said_to_be_none(given):
    optimizer = trained("ab")
    with pytest.raises(
        ValueError, match=r"no state_dict of an optimizer: it has .*expected 'state' and 'param_groups'"
    ):
        optimizer.load_state_dict(given)


def test_files_from_before_have_an_empty_group():
    net = lora()
    optimizer = MuonAdamW(net, rules={})
    train(optimizer, optimizer.param_groups[0]["params"], 1)
    state_dict = optimizer.state_dict()
    state_dict["param_groups"].append({"rule": "adamw", "lr": 3e-4, "params": [], "param_names": []})
    twin = MuonAdamW(lora(), rules={})
    twin.load_state_dict(state_dict)
    assert len(twin.param_groups) == 1
    assert torch.equal(
        twin.state[twin.param_groups[0]["params"][0]]["momentum_buffer"],
        optimizer.state[net.lora_A.weight]["momentum_buffer"],
    )


class ListLike(list):
    """As a config library has it."""


def test_numbers_of_numpy_and_of_config_libraries_are_taken():
    net = nn.Linear(4, 3)
    lr = torch.tensor([1e-3])
    optimizer = MuonAdamW(
        net, lr=lr, ns_steps=np.int64(5), betas=ListLike([0.9, np.float32(0.5)]), momentum=np.float64(0.9)
    )
    of_muon, of_adamw = optimizer.param_groups
    assert (of_muon["ns_steps"], type(of_muon["ns_steps"])) == (5, int)
    assert of_adamw["betas"] == (0.9, 0.5)
    assert type(of_muon["momentum"]) in (float, np.float64)
    start = net.weight.detach().clone()
    train(optimizer, list(net.parameters()), 1)
    first = (net.weight.detach() - start).norm()
    lr.mul_(2)  # what is written to the tensor is seen
    assert of_muon["lr"] == 2e-3
    assert first > 0
    optimizer.add_param_group(
        {"params": [("b", parameter(3, 2))], "rule": "muon", "lr": np.float32(0.5), "ns_steps": np.int32(3)}
    )
    assert (optimizer.param_groups[-1]["lr"], optimizer.param_groups[-1]["ns_steps"]) == (0.5, 3)
    assert Muon([parameter(4, 3)], lr=torch.tensor([[0.1]])).param_groups[0]["lr"].ndim == 0

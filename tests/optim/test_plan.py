"""Groups: overrides, parameters that are unfrozen or added later, groups without a rule."""

import copy
import gc
import pickle
import weakref

import pytest
import torch
from torch import nn

from muonlab import MuonAdamW, hf_factory, split_params
from optim.training import draw, give


class Net(nn.Module):
    """A backbone with convolutions, an attention, a GRU and norms; and a head."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv1d(4, 6, 3, groups=2), nn.BatchNorm1d(6), nn.Conv1d(6, 8, 2))
        self.attention = nn.MultiheadAttention(8, 2)
        self.gru = nn.GRU(8, 8)
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, 5)


def layouts(optimizer):
    return {
        name: layout
        for group in optimizer.param_groups
        if group["rule"] == "muon"
        for name, layout in zip(group["param_names"], group["layouts"], strict=True)
    }


def named(optimizer):
    return [
        (group["rule"], group["lr"], group["weight_decay"], group["param_names"]) for group in optimizer.param_groups
    ]


def net_of(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Net().double()


# --- overrides


@pytest.mark.parametrize(
    "overrides",
    [
        {"vector": {"weight_decay": 0.0}, "head.weight": {"lr": 0.5}},
        lambda route: (
            {"weight_decay": 0.0} if route.parameter.ndim < 2 else {"lr": 0.5} if route.name == "head.weight" else None
        ),
    ],
)
def test_overrides_make_groups_that_keep_their_layouts(overrides):
    net, plain = net_of(), net_of()
    optimizer, twin = (
        MuonAdamW(net, lr=0.1, adamw_lr=0.01, overrides=overrides),
        MuonAdamW(plain, lr=0.1, adamw_lr=0.01),
    )
    assert layouts(optimizer) == layouts(twin)
    assert layouts(optimizer)["attention.in_proj_weight"] == ("matrix", 3)
    vectors = [name for name, p in net.named_parameters() if p.ndim < 2]
    found = named(optimizer)
    assert [(rule, lr, decay) for rule, lr, decay, _ in found] == [
        ("muon", 0.1, 0.01),
        ("adamw", 0.01, 0.0),
        ("adamw", 0.5, 0.01),
    ]
    assert [names for *_, names in found[1:]] == [vectors, ["head.weight"]]
    for each in (net, plain):  # the matrices of Muon make the same steps
        give(each.parameters())
    optimizer.step(), twin.step()
    expected = dict(plain.named_parameters())
    for name, p in net.named_parameters():
        if name in layouts(optimizer):
            torch.testing.assert_close(p, expected[name], rtol=0, atol=0)


def test_the_first_pattern_of_overrides_wins_and_muons_groups_have_them_too():
    overrides = {"backbone": {"lr": 0.25}, "vector": {"weight_decay": 0.0}, "gru": {"lr": 0.75}}
    found = named(MuonAdamW(net_of(), lr=0.1, adamw_lr=0.01, overrides=overrides))
    rates = {name: (rule, lr, decay) for rule, lr, decay, names in found for name in names}
    assert rates["backbone.2.weight"] == ("muon", 0.25, 0.01)
    assert rates["backbone.0.bias"] == ("adamw", 0.25, 0.01)
    assert rates["gru.weight_hh_l0"] == ("muon", 0.75, 0.01)
    assert rates["gru.bias_hh_l0"] == ("adamw", 0.01, 0.0)
    assert rates["attention.in_proj_weight"] == ("muon", 0.1, 0.01)


def test_wrong_overrides_are_refused():
    for overrides, words in [
        ({"norms": {"lr": 1.0}}, "overrides has the pattern 'norms', which matches no parameter; did you mean 'norm'"),
        ({"norm": {"weigth_decay": 0.0}}, r"'weigth_decay' for parameter norm\.weight; did you mean 'weight_decay'"),
        ({"norm": 0.0}, r"overrides has 0\.0 for parameter norm\.weight; expected a dict"),
        ({"norm": {"lr": -1.0}}, r"lr=-1\.0 is out of range"),
        (lambda route: 3, "overrides has 3 for parameter backbone"),
    ]:
        with pytest.raises(ValueError, match=words):
            MuonAdamW(net_of(), overrides=overrides)
    with pytest.raises(ValueError, match="overrides with groups"):
        MuonAdamW([{"params": [draw(3, 2)], "rule": "muon"}], overrides={"a": {"lr": 1.0}})


def test_groups_made_of_routes_keep_their_layouts():
    net, plain = net_of(), net_of()
    split = split_params(net)
    adamw = split.named("adamw")
    groups = [
        {"params": split.named("muon")},
        {"params": [route for route in adamw if route.parameter.ndim > 1], "rule": "adamw", "lr": 0.5},
        {"params": [route for route in adamw if route.parameter.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer, twin = MuonAdamW(groups, lr=0.1), MuonAdamW(plain, lr=0.1)
    assert layouts(optimizer) == layouts(twin)
    assert [rule for rule, *_ in named(optimizer)] == ["muon", "adamw", "adamw"]
    assert MuonAdamW([{"params": list(split.routes)}], lr=0.1).param_groups[0]["layouts"] == list(
        layouts(twin).values()
    )


# --- unfrozen later


def test_what_is_unfrozen_later_is_trained_as_if_it_had_been_there():
    net, plain = net_of(), net_of()
    net.backbone.requires_grad_(False)
    net.attention.requires_grad_(False)
    overrides = {"vector": {"weight_decay": 0.0}}
    optimizer = MuonAdamW(net, lr=0.1, adamw_lr=0.01, overrides=overrides)
    twin = MuonAdamW(plain, lr=0.1, adamw_lr=0.01, overrides=overrides)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step)
    assert not any("backbone" in name for *_, names in named(optimizer) for name in names)
    for p in (*net.backbone.parameters(), *net.attention.parameters()):
        p.requires_grad_(True)
    optimizer.zero_grad()
    for each in (net, plain):
        give(each.parameters())
    optimizer.step(), twin.step()
    for (name, p), q in zip(net.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=0, msg=name)
    assert layouts(optimizer) == layouts(twin)
    assert sorted(name for *_, names in named(optimizer) for name in names) == sorted(dict(net.named_parameters()))
    assert len(optimizer.param_groups) == len(twin.param_groups)
    scheduler.step()


def test_a_head_alone_and_then_its_backbone():
    """Muon has no parameter at first: its group and its learning rate are there for a scheduler."""
    net = nn.ModuleDict({"body": nn.Linear(6, 6), "head": nn.Linear(6, 3)})
    net.body.requires_grad_(False)
    optimizer = MuonAdamW(net, lr=0.1)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)
    start = net.body.weight.detach().clone()
    for frozen in (True, False):
        net.body.requires_grad_(not frozen)
        net.head(net.body(torch.ones(2, 6))).square().sum().backward()
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        assert torch.equal(net.body.weight, start) is frozen


@pytest.mark.parametrize(
    "copied", [lambda optimizer: optimizer, lambda optimizer: pickle.loads(pickle.dumps(optimizer))]
)
def test_a_group_without_a_rule_is_routed_by_the_model(copied):
    """As Lightning's BaseFinetuning adds one."""
    net = net_of()
    net.backbone.requires_grad_(False)
    net.gru.requires_grad_(False)
    optimizer = copied(MuonAdamW(net, lr=0.1))
    before = len(optimizer.param_groups)
    params = [route.parameter for route in optimizer._plan.later]
    for p in params:
        p.requires_grad_(True)
    optimizer.add_param_group({"params": params, "lr": 0.025})
    added = named(optimizer)[before:]
    assert [(rule, lr) for rule, lr, *_ in added] == [("muon", 0.025), ("adamw", 0.025)]
    assert layouts(optimizer)["gru.weight_ih_l0"] == ("matrix", 3)
    assert layouts(optimizer)["backbone.2.weight"] == ("convolution", None)
    for group in optimizer.param_groups:
        give(group["params"])
    optimizer.step()
    assert len(optimizer.param_groups) == before + 2  # each parameter once
    with pytest.raises(ValueError, match="more than one parameter group"):
        optimizer.add_param_group({"params": params})
    assert len(optimizer.param_groups) == before + 2


# --- groups without a rule


def test_groups_of_trainer_say_what_to_do():
    net = net_of()
    trainers = [
        {"params": [p for p in net.parameters() if p.ndim > 1], "weight_decay": 0.1},
        {"params": [p for p in net.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]
    with pytest.raises(ValueError, match=r"rule=None in a group.*'rule': 'muon'.*model=.*rule=.*hf_factory"):
        MuonAdamW(trainers)
    optimizer = MuonAdamW(trainers, lr=0.25, adamw_lr=0.125, model=net)
    twin = MuonAdamW(net, overrides=lambda route: {"weight_decay": 0.1 if route.parameter.ndim > 1 else 0.0})
    assert layouts(optimizer) == layouts(twin)
    assert [(rule, lr, decay) for rule, lr, decay, _ in named(optimizer)] == [
        ("muon", 0.25, 0.1),
        ("adamw", 0.125, 0.1),
        ("adamw", 0.125, 0.0),
    ]
    with_rules = [{"rule": "muon", "params": [net.attention.in_proj_weight, net.gru.weight_hh_l0]}]
    assert MuonAdamW(with_rules, model=net).param_groups[0]["layouts"] == [("matrix", 3), ("matrix", 3)]
    optimizer = MuonAdamW([{"params": [draw(4, 3)]}, {"params": [draw(3)], "rule": "adamw"}], rule="muon")
    assert [rule for rule, *_ in [(group["rule"],) for group in optimizer.param_groups]] == ["muon", "adamw"]
    with pytest.raises(ValueError, match="rule='sgd' for groups without one; expected 'muon', 'adamw' or None"):
        MuonAdamW([{"params": [draw(4, 3)]}], rule="sgd")
    assert hf_factory(overrides={"vector": {"weight_decay": 0.0}})(net).param_groups[-1]["weight_decay"] == 0.0


def test_parameters_that_are_replaced_do_not_stay_in_memory():
    """As Accelerate puts sharded parameters into the groups of an optimizer that is there."""
    net = nn.Linear(6, 6)
    optimizer = MuonAdamW(net)
    seen = weakref.ref(net.weight)
    del net
    for group in optimizer.param_groups:
        group["params"] = [nn.Parameter(torch.zeros_like(p)) for p in group["params"]]
    gc.collect()
    assert seen() is None


def test_a_copy_knows_what_is_frozen():
    net = nn.ModuleDict({"body": nn.Linear(6, 6), "head": nn.Linear(6, 3)})
    net.body.requires_grad_(False)
    net, optimizer = copy.deepcopy((net, MuonAdamW(net)))
    net.body.requires_grad_(True)
    optimizer.zero_grad()
    assert net.body.weight is optimizer.param_groups[0]["params"][0]

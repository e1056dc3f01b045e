import pytest
import torch
import torch.nn.functional as F
from torch import nn

from muonlab import MuonAdamW, hf_factory, split_params
from muonlab.rules import muon
from muonlab.testing import check_optimizer, extra_checks
from muonlab.testing.battery import checks
from optim.test_arguments import ADAMW, MUON, UNKNOWN
from optim.training import NOT_FOR, adamw_half, draw, give, muon_half, parameter, train


def test_the_battery_of_checks_on_the_half_of_muon():  # test_muon has the checks of the step
    options = {"group_options": {"rule": "muon"}, "bad_arguments": [*MUON, *ADAMW, *UNKNOWN]}
    only = [name for name in {**checks(), **extra_checks()} if "group" in name or "state" in name or "bad_" in name]
    check_optimizer(muon_half, only=only, **options)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.complex64])
def test_the_battery_of_checks_on_the_half_of_adamw(dtype):
    also = ("nonfinite_gradient", "precision", "small_updates", "foreign_shapes", "bad_group_options")
    bad = [{name: value} for name in ("lr", "weight_decay", "eps") for value in (-1.0, float("nan"))]
    options = {"group_options": {"rule": "adamw"}, "bad_arguments": [*bad, *ADAMW, *UNKNOWN]}
    report = check_optimizer(adamw_half, dtype=dtype, also=also, **options)
    assert set(report.left_out) == NOT_FOR[dtype] - {"complex_phase"}


def test_the_battery_of_checks_on_both_halves():
    def make(params, **options):
        """Every other parameter goes to AdamW, whatever the battery gives."""
        params = list(params)
        if not isinstance(params[0], dict):
            halves = [{"params": params[::2], "rule": "muon"}, {"params": params[1::2], "rule": "adamw"}]
            params = [half for half in halves if half["params"]]
        return MuonAdamW(params, **{"lr": 0.02, "adamw_lr": 0.02, **options})

    # These give groups, or compare a parameter with itself as another one, which would be in the other half.
    skip = ("foreign_state_dict", "members_apart", "added_group", "groups_apart", "extra_keys", "parameter_names")
    check_optimizer(make, dtype=torch.bfloat16, also=("nonfinite_gradient", "precision"), skip=skip)


# --------------------------------------------------------------------------------------------------------------- models


class Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.c_attn, self.c_proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.fc, self.proj = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.heads = heads

    def forward(self, x):
        B, T, D = x.shape
        q, k, v = self.c_attn(self.ln_1(x)).view(B, T, 3, self.heads, D // self.heads).permute(2, 0, 3, 1, 4)
        x = x + self.c_proj(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(B, T, D))
        return x + self.proj(F.gelu(self.fc(self.ln_2(x))))


class GPT(nn.Module):
    """Head and embedding are one tensor."""

    def __init__(self, vocabulary=11, width=16, depth=2, heads=2, length=8):
        super().__init__()
        self.wte, self.wpe = nn.Embedding(vocabulary, width), nn.Embedding(length, width)
        self.h = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.ln_f = nn.LayerNorm(width)
        self.lm_head = nn.Linear(width, vocabulary, bias=False)
        self.lm_head.weight = self.wte.weight

    def forward(self, tokens):
        x = self.wte(tokens) + self.wpe(torch.arange(tokens.shape[1]))
        for block in self.h:
            x = block(x)
        return self.lm_head(self.ln_f(x))


class ConvNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.depthwise, self.bn2 = nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.BatchNorm2d(8)
        self.pointwise = nn.Conv2d(8, 16, 1)
        self.classifier = nn.Linear(16, 4)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.pointwise(self.bn2(self.depthwise(x))))
        return self.classifier(x.mean(dim=(-2, -1)))


class Mixture(nn.Module):
    def __init__(self, width=8, num_experts=4):
        super().__init__()
        self.inner = nn.Linear(6, width)
        self.router = nn.Linear(width, num_experts)
        self.up = nn.Parameter(torch.randn(num_experts, 12, width) / width**0.5)
        self.down = nn.Parameter(torch.randn(num_experts, width, 12) / 12**0.5)
        self.head = nn.Linear(width, 3)

    def forward(self, x):
        x = self.inner(x)
        weights = self.router(x).softmax(dim=-1)
        hidden = torch.einsum("ehw,bw->beh", self.up, x).relu()
        return self.head(torch.einsum("be,ewh,beh->bw", weights, self.down, hidden))


class Attention(nn.Module):
    def __init__(self, width=8):
        super().__init__()
        self.attention = nn.MultiheadAttention(width, 2, batch_first=True)
        self.head = nn.Linear(width, 3)

    def forward(self, x):
        return self.head(self.attention(x, x, x, need_weights=False)[0].mean(dim=1))


def tokens():
    return (torch.arange(8)[None] * torch.arange(1, 9)[:, None]) % 11


def labelled(*shape, num_classes):
    x = draw(32, *shape, dtype=torch.float32)
    return x, x.flatten(1).sum(dim=1).mul(3).long() % num_classes


MODELS = {
    "a GPT whose head is its embedding": (
        GPT,
        lambda: (tokens()[:, :-1], tokens()[:, 1:]),
        {f"h.{layer}.{name}.weight" for layer in range(2) for name in ("c_attn", "c_proj", "fc", "proj")},
        {"h.0.c_attn.weight": ("matrix", 3), "h.0.fc.weight": ("matrix", None)},
    ),
    "convolutions": (
        lambda: ConvNet().to(memory_format=torch.channels_last),
        lambda: labelled(3, 6, 6, num_classes=4),
        {"conv1.weight", "pointwise.weight"},
        {"conv1.weight": ("convolution", None)},
    ),
    "a mixture of experts": (
        Mixture,
        lambda: labelled(6, num_classes=3),
        {"inner.weight", "router.weight", "up", "down"},
        {"up": ("experts", None), "inner.weight": ("matrix", None)},
    ),
    "nn.MultiheadAttention": (
        Attention,
        lambda: labelled(5, 8, num_classes=3),
        {"attention.in_proj_weight", "attention.out_proj.weight"},
        {"attention.in_proj_weight": ("matrix", 3)},
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_model_is_routed_and_learns(name):
    make, data, expected, layouts = MODELS[name]
    options = {"capturable": True, "nonfinite": "skip"} if "GPT" in name else {}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = make()
    x, y = data()
    optimizer = MuonAdamW(net, lr=0.05, adamw_lr=0.01, **options)
    of_muon, of_adamw = optimizer.param_groups
    assert set(of_muon["param_names"]) == expected
    names = dict(net.named_parameters())  # a tied one once
    assert sorted([*of_muon["param_names"], *of_adamw["param_names"]]) == sorted(names)
    for group in optimizer.param_groups:
        assert all(names[each] is p for each, p in zip(group["param_names"], group["params"], strict=True))
    found = dict(zip(of_muon["param_names"], of_muon["layouts"], strict=True))
    assert {each: found[each] for each in layouts} == layouts
    losses = []
    for _ in range(25):
        optimizer.zero_grad()
        output = net(x.to(memory_format=torch.channels_last) if x.ndim == 4 else x)
        loss = F.cross_entropy(output.flatten(0, -2), y.flatten())
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


def test_what_each_half_takes_can_be_overridden_by_rules():
    net = GPT()
    optimizer = MuonAdamW(net, rules={"h.1": "adamw", "wpe": "muon"}, split={"h.0.fc": 4})
    of_muon = optimizer.param_groups[0]
    assert set(of_muon["param_names"]) == {"wpe.weight"} | {
        f"h.0.{each}.weight" for each in ("c_attn", "c_proj", "fc", "proj")
    }
    assert dict(zip(of_muon["param_names"], of_muon["layouts"], strict=True))["h.0.fc.weight"] == ("matrix", 4)


def test_a_model_may_be_given_in_several_ways():
    for given in [
        lambda net: net,
        lambda net: net.named_parameters(),
        lambda net: dict(net.named_parameters()),
        split_params,
        lambda net: split_params(net.named_parameters()),
    ]:
        net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        optimizer = MuonAdamW(given(net), lr=0.5, adamw_lr=0.25)
        assert [(group["rule"], group["lr"], group["param_names"]) for group in optimizer.param_groups] == [
            ("muon", 0.5, ["0.weight"]),
            ("adamw", 0.25, ["0.bias", "2.weight", "2.bias"]),
        ]


def test_a_half_without_parameters_has_no_group():
    for net, rule in [(nn.Linear(4, 3, bias=False), "muon"), (nn.LayerNorm(4), "adamw")]:
        optimizer = MuonAdamW(net, rules={})
        assert [group["rule"] for group in optimizer.param_groups] == [rule]
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=5)
        train(optimizer, list(net.parameters()))
        scheduler.step()
        optimizer.load_state_dict(optimizer.state_dict())


# ------------------------------------------------------------------------------------------------------------- refusals


def test_parameters_that_say_too_little_are_refused():
    for given, words in [
        (lambda net: net.parameters(), "without names.*model.named_parameters"),
        (lambda net: list(net.parameters()), "embeddings and heads cannot be told"),
        (lambda net: [{"params": list(net.parameters())}], "rule=None.*expected 'muon' or 'adamw'"),
        (lambda net: [{"params": list(net.parameters()), "rule": "sgd"}], "rule='sgd'.*expected 'muon' or 'adamw'"),
        (lambda net: [{"params": list(net.parameters()), "rule": "muon"}], r"parameter 1: .*shape \(8,\)"),
        (lambda net: [], "nothing to train|empty"),
        (lambda net: [("0.weight", net[0].weight), ("0.weight", net[2].weight)], "'0.weight' occurs twice"),
        (lambda net: net.requires_grad_(False), "nothing to train"),
    ]:
        with pytest.raises(ValueError, match=words):
            MuonAdamW(given(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))))


def test_rules_with_what_has_rules_already_are_refused():
    net = nn.Linear(4, 3)
    with pytest.raises(ValueError, match="rules with groups"):
        MuonAdamW([{"params": [net.weight], "rule": "muon"}], rules={"weight": "muon"})
    with pytest.raises(ValueError, match="rules with what split_params returned"):
        MuonAdamW(split_params(net), rules={"weight": "muon"})
    with pytest.raises(ValueError, match="'weigth' matches no parameter"):
        MuonAdamW(net, rules={"weigth": "muon"})
    with pytest.raises(ValueError, match="pattern 'qvk', which matches no parameter"):
        MuonAdamW(net, split={"qvk": 3})


# --------------------------------------------------------------------------------------------------------------- groups


def test_groups_have_their_own_options_and_the_rest_from_the_arguments():
    params = [parameter(4, 3, seed=seed) for seed in range(3)]
    groups = [
        {"params": [params[0]], "rule": "muon", "lr": 0.5, "momentum": 0.5},
        {"params": [params[1]], "rule": "muon"},
        {"params": [params[2]], "rule": "adamw", "betas": (0.5, 0.6)},
    ]
    optimizer = MuonAdamW(groups, lr=0.25, adamw_lr=0.125, adamw_weight_decay=0.75, adamw_eps=1e-3)
    first, second, third = optimizer.param_groups
    assert (first["lr"], first["momentum"]) == (0.5, 0.5)
    assert (second["lr"], second["momentum"], second["eps"]) == (0.25, 0.95, 1e-7)
    assert (third["lr"], third["weight_decay"], third["betas"], third["eps"]) == (0.125, 0.75, (0.5, 0.6), 1e-3)


def test_groups_with_names_may_be_added():
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    optimizer = MuonAdamW(net, lr=0.5, adamw_lr=0.25, split={"0": 2})
    late = [("late.0.weight", parameter(8, 4)), ("late.1.weight", parameter(8, 4))]
    optimizer.add_param_group({"params": late, "rule": "muon", "lr": 0.125})
    optimizer.add_param_group({"params": [("late.bias", parameter(4))], "rule": "adamw"})
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 0.25, 0.125, 0.25]
    assert optimizer.param_groups[2]["param_names"] == ["late.0.weight", "late.1.weight"]
    assert optimizer.param_groups[2]["layouts"] == [(None, 2), (None, None)]
    for group in ({"params": [("more", parameter(4, 3))]}, {"params": [("more", parameter(4))], "rule": "muon"}):
        with pytest.raises(ValueError, match=r"expected 'muon' or 'adamw'|Muon takes matrices"):
            optimizer.add_param_group(group)
    assert len(optimizer.param_groups) == 4
    train(optimizer, [p for group in optimizer.param_groups for p in group["params"]])


def test_a_state_of_torchs_adamw_goes_into_the_group_of_adamw():
    params, twins = ([parameter(*shape, seed=seed) for seed, shape in enumerate([(6, 4), (5,)])] for _ in range(2))
    oracle = torch.optim.AdamW(params, lr=0.03, betas=(0.7, 0.8), eps=1e-5, weight_decay=0.3)
    starts = train(oracle, params)
    optimizer = MuonAdamW([{"params": twins, "rule": "adamw"}])
    optimizer.load_state_dict(oracle.state_dict())
    group = optimizer.param_groups[0]
    assert (group["lr"], group["betas"], group["eps"], group["weight_decay"]) == (0.03, (0.7, 0.8), 1e-5, 0.3)
    with torch.no_grad():
        for p, start in zip(twins, starts, strict=True):
            p.copy_(start)
    for seen, expected in zip(train(optimizer, twins, first=4), train(oracle, params, first=4), strict=True):
        torch.testing.assert_close(seen, expected, rtol=0, atol=1e-6)


# ----------------------------------------------------------------------------------------------------------- schedulers


@pytest.mark.parametrize("name", ["OneCycleLR", "CyclicLR"])
def test_schedulers_cycle_both_halves(name):
    p, vector = parameter(6, 4, dtype=torch.float64), parameter(5, dtype=torch.float64)
    twin = nn.Parameter(vector.detach().clone())
    groups = [{"params": [p], "rule": "muon"}, {"params": [vector], "rule": "adamw"}]
    optimizer = MuonAdamW(groups, lr=0.1, adamw_lr=0.01, method="exact", weight_decay=0.0, adamw_weight_decay=0.0)
    oracle = torch.optim.AdamW([twin], lr=0.01, weight_decay=0.0)
    cycle = {"base_momentum": 0.5, "max_momentum": 0.9}

    def scheduler_of(optimizer, rates):
        if name == "OneCycleLR":
            return torch.optim.lr_scheduler.OneCycleLR(optimizer, rates, total_steps=8, **cycle)
        return torch.optim.lr_scheduler.CyclicLR(optimizer, [r / 2 for r in rates], rates, step_size_up=3, **cycle)

    scheduler, other = scheduler_of(optimizer, [0.1, 0.01]), scheduler_of(oracle, [0.01])
    state, expected, seen = {"momentum": torch.zeros(6, 4, dtype=torch.float64)}, p.detach().clone(), set()
    for step in range(1, 7):
        give([p, vector], step)
        twin.grad = vector.grad
        hyper = {"lr": optimizer.param_groups[0]["lr"], "momentum": oracle.param_groups[0]["betas"][0]}
        expected, state = muon.update(p.grad, state, expected, weight_decay=0.0, method="exact", **hyper)
        seen.add(round(hyper["momentum"], 3))
        for each in (optimizer, oracle, scheduler, other):
            each.step()
    torch.testing.assert_close(p.detach(), expected, rtol=0, atol=1e-10)
    torch.testing.assert_close(vector.detach(), twin.detach(), rtol=0, atol=1e-12)
    assert len(seen) > 3


def test_one_scheduler_multiplies_both_rates():
    optimizer = MuonAdamW(nn.Linear(4, 3), lr=0.5, adamw_lr=0.25)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step)
    train(optimizer, optimizer.param_groups[0]["params"], 1)
    scheduler.step()
    assert [group["lr"] for group in optimizer.param_groups] == [0.25, 0.125]


@pytest.mark.parametrize("given", [{}, {"betas": (0.7, 0.8)}])
def test_a_momentum_that_is_set_by_hand_stands(given):
    p = parameter(6, 4, dtype=torch.float64)
    optimizer = MuonAdamW([{"params": [p], "rule": "muon", **given}], lr=0.1, method="exact", weight_decay=0.0)
    start = p.detach().clone()
    optimizer.param_groups[0]["momentum"] = 0.5
    train(optimizer, [p], 2)
    state, expected = {"momentum": torch.zeros(6, 4, dtype=torch.float64)}, start
    for step in (1, 2):
        gradient = draw(6, 4, seed=1000 * step)
        expected, state = muon.update(gradient, state, expected, lr=0.1, momentum=0.5, weight_decay=0.0, method="exact")
    torch.testing.assert_close(p.detach(), expected, rtol=0, atol=1e-10)
    optimizer.load_state_dict(optimizer.state_dict())
    train(optimizer, [p], 1, first=3)
    assert optimizer.param_groups[0]["momentum"] == 0.5


# ---------------------------------------------------------------------------------------------- Trainer of Hugging Face


def test_hf_factory_makes_an_optimizer_of_a_model():
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    optimizer = hf_factory()(net, lr=0.5, adamw_lr=0.25)
    assert isinstance(optimizer, MuonAdamW)
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 0.25]
    assert hf_factory(lr=0.125, momentum=0.5)(net, lr=0.5).param_groups[0]["lr"] == 0.5
    assert hf_factory(lr=0.125, momentum=0.5)(net).param_groups[0]["momentum"] == 0.5
    with pytest.raises(TypeError, match="speed"):
        hf_factory(speed=1)(net)

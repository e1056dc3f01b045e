import pytest
import torch
from torch import nn

from muonlab import Muon
from muonlab.optim import muon_step
from muonlab.optim.shell import Item
from muonlab.rules import muon
from muonlab.rules.operands import Workspace
from muonlab.testing import check_optimizer, extra_checks
from optim.test_arguments import MUON, UNKNOWN
from optim.training import NOT_FOR, draw, follow_the_rule, muon_alone, parameter, train


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_battery_of_checks(dtype):
    report = check_optimizer(muon_alone, dtype=dtype, also=extra_checks(), bad_arguments=[*MUON, *UNKNOWN])
    assert set(report.left_out) == NOT_FOR[dtype]


VARIED = [
    ({"method": "exact", "nesterov": False, "nonfinite": "skip"}, (), torch.complex64),
    # NorMuon takes means over rows, so columns are something else to it.
    ({"variant": "normuon", "cautious": True, "adjust_lr_fn": "match_rms_adamw"}, ("transpose",), torch.float32),
    ({"variant": "adamuon", "capturable": True, "nonfinite": "skip"}, (), torch.float32),
]


@pytest.mark.parametrize(("options", "skip", "dtype"), VARIED, ids=str)
def test_the_battery_with_other_options(options, skip, dtype):
    def make(params, **more):
        return muon_alone(params, **options, **more)

    check_optimizer(make, dtype=dtype, also=extra_checks(), skip=skip)


# ----------------------------------------------------------------------------------------------------- torch.optim.Muon


def regression(num: int = 256):
    """Synthetic data that no linear map fits."""
    x = draw(num, 16, seed=1, dtype=torch.float32)
    return x, torch.tanh(x @ draw(16, 8, seed=2, dtype=torch.float32)) @ draw(8, 4, seed=3, dtype=torch.float32)


def mlp() -> nn.Sequential:
    net = nn.Sequential(
        nn.Linear(16, 32, bias=False), nn.Tanh(), nn.Linear(32, 32, bias=False), nn.Tanh(), nn.Linear(32, 4, bias=False)
    )
    with torch.no_grad():
        for seed, p in enumerate(net.parameters()):
            p.copy_(draw(*p.shape, seed=seed, dtype=torch.float32) / p.shape[1] ** 0.5)
    return net


def losses_of(make, num_steps: int = 80, noise: float = 0.0):
    x, y = regression()
    net = mlp()
    optimizer = make(net.parameters())
    losses = []
    for step in range(num_steps):
        batch = slice(32 * (step % 8), 32 * (step % 8) + 32)
        loss = (net(x[batch]) - y[batch]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        if noise:
            for number, p in enumerate(net.parameters()):
                p.grad += (
                    noise
                    * p.grad.norm()
                    / p.numel() ** 0.5
                    * draw(*p.shape, seed=7 * step + number, dtype=torch.float32)
                )
        optimizer.step()
        losses.append(loss.item())
    return torch.tensor(losses), torch.cat([p.detach().flatten() for p in net.parameters()])


OF_TORCH = [
    {"lr": 0.01, "weight_decay": 0.1},
    {"lr": 0.01, "momentum": 0.9, "nesterov": False},
    {"lr": 0.02, "adjust_lr_fn": "match_rms_adamw", "ns_steps": 4},
    {"lr": 0.01, "ns_coefficients": (3.0, -3.2, 1.2), "ns_steps": 7},
]


@pytest.mark.parametrize("options", OF_TORCH[1:3], ids=str)
def test_80_steps_follow_torchs_muon_to_what_bfloat16_makes_of_it(options):
    """Both round products to bfloat16, torch after fused additions, so a step is 1 % off, and training magnifies that.

    The yardstick is torch.optim.Muon itself with gradients that are off by half a spacing of bfloat16, 2^-9.
    """
    bfloat16 = {"method": "quintic", "ns_dtype": torch.bfloat16}
    start = torch.cat([p.detach().flatten() for p in mlp().parameters()])
    losses, end = losses_of(lambda params: Muon(params, **bfloat16, **options))
    other_options = {**options, "nesterov": not options.get("nesterov", True)}
    _, other = losses_of(lambda params: Muon(params, **bfloat16, **other_options))
    expected_losses, expected = losses_of(lambda params: torch.optim.Muon(params, **options))
    jittered_losses, jittered = losses_of(lambda params: torch.optim.Muon(params, **options), noise=2**-9)
    assert expected_losses[-8:].mean() < 0.5 * expected_losses[0]  # it learns
    allowed = 3 * (jittered - expected).norm() + 0.01 * (expected - start).norm()
    assert (end - expected).norm() < allowed < (other - expected).norm()  # and what is not the same is told from it
    allowed = 3 * (jittered_losses - expected_losses).abs().max() + 0.01 * losses[0]
    assert (losses - expected_losses).abs().max() < allowed


@pytest.mark.parametrize("options", OF_TORCH, ids=str)
def test_a_state_of_torchs_muon_is_loaded_and_goes_on_the_same(options):
    params, twins = (
        [parameter(*shape, seed=seed) for seed, shape in enumerate([(24, 16), (16, 24)])] for _ in range(2)
    )
    oracle = torch.optim.Muon(params, **options)
    starts = train(oracle, params)
    optimizer = Muon(twins, lr=0.7, momentum=0.1, ns_dtype=torch.bfloat16)
    optimizer.load_state_dict(oracle.state_dict())
    group = optimizer.param_groups[0]
    assert {name: group[name] for name in options} == options
    assert (group["ns_dtype"], group["method"], group["nonfinite"]) == (
        torch.bfloat16,
        "auto",
        "raise",
    )  # not said there
    with torch.no_grad():
        for p, start in zip(twins, starts, strict=True):
            p.copy_(start)
    for p, q in zip(params, twins, strict=True):
        assert torch.equal(oracle.state[p]["momentum_buffer"], optimizer.state[q]["momentum_buffer"])
    ends = train(optimizer, twins, first=4), train(oracle, params, first=4)
    for seen, expected, start in zip(*ends, starts, strict=True):
        assert (seen - expected).norm() < 0.05 * (expected - start).norm()


def test_the_arguments_of_torchs_muon_are_taken_in_their_order():
    given = ([parameter(6, 4)], 0.1, 0.2, 0.3, False, (2.0, -1.5, 0.5), 1e-3, 4, "match_rms_adamw")
    theirs, ours = torch.optim.Muon(*given).param_groups[0], Muon(*given).param_groups[0]
    assert all(ours[name] == theirs[name] for name in theirs if name != "params")
    theirs, ours = torch.optim.Muon(given[0]).param_groups[0], Muon(given[0]).param_groups[0]
    for name in ("lr", "weight_decay", "momentum", "nesterov", "eps", "adjust_lr_fn"):
        assert ours[name] == theirs[name]


# ------------------------------------------------------------------------------------------ what is given as parameters


def test_what_is_no_matrix_is_refused_by_name_or_number_before_anything_is_made():
    with pytest.raises(ValueError, match=r"parameter 1: .*shape \(5,\).*MuonAdamW"):
        Muon([parameter(4, 3), parameter(5)])
    with pytest.raises(ValueError, match=r"parameter inner\.bias: .*shape \(5,\)"):
        Muon([("inner.weight", parameter(5, 3)), ("inner.bias", parameter(5))])
    with pytest.raises(ValueError, match=r"shape \(\)"):
        Muon([parameter()])
    optimizer = Muon([parameter(4, 3)])
    with pytest.raises(ValueError, match=r"shape \(5,\)"):
        optimizer.add_param_group({"params": [parameter(4, 3), parameter(5)]})
    assert len(optimizer.param_groups) == 1


def test_what_muon_cannot_take_is_refused():
    with pytest.raises(ValueError, match=r"MuonAdamW\(model\)"):
        Muon(nn.Linear(3, 3))
    with pytest.raises(ValueError, match=r"rule='adamw'.*MuonAdamW"):
        Muon([{"params": [parameter(4, 3)], "rule": "adamw"}])
    Muon([{"params": [parameter(4, 3)], "rule": "muon"}])
    for wrong in [[], parameter(4, 3), [None], ["weight"], [("a", 3)], 5]:  # as torch refuses it
        with pytest.raises((ValueError, TypeError)):
            Muon(wrong)


# -------------------------------------------------------------------------------------------------------------- a split


NAMED = {"attn.qkv.weight": (12, 4), "attn.out.weight": (4, 4), "other.qkv.weight": (12, 4)}


def named():
    return [(name, parameter(*shape, seed=seed)) for seed, (name, shape) in enumerate(NAMED.items())]


def test_a_split_goes_by_patterns_or_is_a_function():
    for split in [
        {"qkv": 3},
        {"attn.qkv": 3, "other.qkv": (4, 4, 4)},
        lambda name, p: 3 if "qkv" in name and len(p) == 12 else None,
        {"attn.qkv": 3, "qkv": 3},  # the first that matches
    ]:
        params = named()
        starts = [p.detach().clone() for _, p in params]
        train(Muon(params, split=split, lr=0.1, method="exact"), [p for _, p in params], 1)
        for number, ((name, p), start) in enumerate(zip(params, starts, strict=True)):
            shape = (3, 4, 4) if "qkv" in name else (4, 4)
            gradient = draw(*p.shape, seed=1000 + number, dtype=torch.float32)
            expected = follow_the_rule(
                start.reshape(shape), [gradient.reshape(shape)], lr=0.1, weight_decay=0.1, method="exact"
            )
            torch.testing.assert_close(p.detach(), expected.reshape(p.shape), rtol=0, atol=1e-5)


def test_a_split_that_does_not_fit_is_refused():
    for split, words in [
        ({"qkv": 5}, r"parameter attn\.qkv\.weight: split=5 does not divide the 12 rows"),
        ({"out": (1, 2)}, r"parameter attn\.out\.weight: split=\(1, 2\) does not sum to the 4 rows"),
        ({"qvk": 3}, "the pattern 'qvk', which matches no parameter of Muon; did you mean 'qkv'"),
        ({"qkv": 3, "key": 2}, r"the pattern 'key', which matches no parameter"),
        (lambda name, p: 7, r"split=7 does not divide"),
        (lambda name, p: "three", r"split='three'"),
    ]:
        with pytest.raises(ValueError, match=words):
            Muon(named(), split=split)
        if not words.startswith("par"):
            with pytest.raises(ValueError, match="give named parameters"):
                Muon([p for _, p in named()], split=split)


def test_an_added_group_is_split_too():
    optimizer = Muon(named(), split={"qkv": 3})
    optimizer.add_param_group({"params": [("late.qkv", parameter(6, 4)), ("late.out", parameter(4, 4))]})
    assert optimizer.param_groups[1]["layouts"] == [(None, 3), (None, None)]
    with pytest.raises(ValueError, match=r"parameter later\.qkv: split=3 does not divide the 4 rows"):
        optimizer.add_param_group({"params": [("later.qkv", parameter(4, 4))]})


# ------------------------------------------------------------------------------------------------------------ products


def stepped(grad, **options):
    p = torch.nn.Parameter(torch.zeros_like(grad))
    p.grad = grad
    Muon([p], lr=1.0, weight_decay=0.0, **options).step()
    return p.detach()


def test_without_eps_a_zero_gradient_still_gives_a_zero_update():
    for method in ["quintic", "auto"]:
        assert not stepped(torch.zeros(8, 8), eps=0.0, method=method).any()


@pytest.mark.parametrize("method", ["quintic", "auto"])
def test_products_in_float16_are_of_scaled_directions(method):
    for scale in [1e-10, 1e-3, 1.0, 1e5]:
        grad = torch.randn(64, 64, generator=torch.Generator().manual_seed(0))
        update = stepped(grad * scale, method=method, ns_dtype=torch.float16)
        expected = stepped(grad, method=method, ns_dtype=torch.float32)
        assert torch.cosine_similarity(update.flatten(), expected.flatten(), dim=0) > 0.99


@pytest.mark.parametrize(("method", "dtype"), [("auto", torch.bfloat16), ("exact", None)])
def test_products_on_another_device_are_in_bfloat16_but_for_exact_ones(monkeypatch, method, dtype):
    seen = []
    monkeypatch.setattr(muon, "update_", lambda *_, polar_dtype, **__: seen.append(polar_dtype))
    p = torch.nn.Parameter(torch.empty(8, 8, device="meta"))
    group = Muon([p], method=method).param_groups[0]
    item = Item("p", p, 0, 0, torch.empty(8, 8, device="meta"), work=p.detach())
    muon_step.update(group, [item], None, Workspace())
    assert seen == [dtype]


def test_a_name_that_occurs_twice_in_a_group_is_refused():
    """As of two models: their states could not be told apart by name."""
    models = [nn.Linear(4, 3, bias=False) for _ in range(2)]
    with pytest.raises(ValueError, match=r"the name 'weight' occurs twice.*nn\.ModuleList"):
        Muon([pair for model in models for pair in model.named_parameters()])
    Muon(nn.ModuleList(models).named_parameters())

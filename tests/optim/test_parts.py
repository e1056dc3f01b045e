"""Parts of the step as arguments of the optimizers: the battery, the rules that they stand for, schedules, messages."""

import pytest
import torch
from torch import nn

from muonlab import Muon, MuonAdamW
from muonlab.rules import adamw, muon
from muonlab.rules.wrapped import Ahead, Coupled, Independent
from muonlab.testing import check_optimizer, extra_checks
from optim.training import adamw_half, draw, follow_the_rule, muon_alone, parameter, train

OF_MUON = {
    "equilibrate": {"equilibrate": "row"},
    "renormalize": {"renormalize": "col_row"},
    "floor": {"update_floor": 1.0},
    "hyperball": {"hyperball": True, "lr": 0.1},
}
AHEAD = {"lookahead": 0.5, "lookahead_decay": 0.9}
# Several at once, as they compose, and what they leave out of the battery: rows are not columns to them; a norm that is
# held does not decay, and is not zero; a decay in the gradient does not grow with it.
BATTERIES = [
    (muon_alone, {"equilibrate": "row", "renormalize": "col_row", "update_floor": 1.0}, ["transpose"]),
    (muon_alone, {"hyperball": True, "lr": 0.1, **AHEAD}, ["weight_decay", "transpose"]),
    (muon_alone, {"decay": "independent"}, []),
    (muon_alone, {"decay": "l2"}, ["scale_invariance"]),
    (adamw_half, {"decay": "independent", "rule": "adamw", **AHEAD}, None),
    (adamw_half, {"decay": "l2", "rule": "adamw"}, None),
]


@pytest.mark.parametrize(("make", "options", "skip"), BATTERIES)
def test_the_battery_of_checks(make, options, skip):
    also = {"also": extra_checks(), "skip": skip} if skip is not None else {}
    check_optimizer(lambda params, **more: make(params, **options, **more), rtol=0.01, **also)


@pytest.mark.parametrize("name", OF_MUON)
def test_equals_the_rule_in_every_layout(name):
    options = {"method": "exact", "lr": 0.1, "weight_decay": 0.2, **OF_MUON[name]}
    shapes = {"a": (6, 4), "experts": (3, 4, 6), "conv": (8, 2, 1, 3), "qkv": (12, 4), "large": (96, 64)}
    params = {
        key: parameter(*shape, seed=seed, dtype=torch.float64) for seed, (key, shape) in enumerate(shapes.items())
    }
    train(Muon(params.items(), split={"qkv": 3}, **options), params.values(), 3)
    for number, (key, p) in enumerate(params.items()):
        seen = (3, 4, 4) if key == "qkv" else (p.shape[0], -1) if key == "conv" else p.shape
        grads = [draw(*p.shape, seed=1000 * step + number).view(seen) for step in (1, 2, 3)]
        expected = follow_the_rule(draw(*p.shape, seed=number).view(seen), grads, **options)
        torch.testing.assert_close(p.detach().view(expected.shape), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("make", [muon_alone, adamw_half])
def test_rules_around_a_rule_equal_their_pure_form(make):
    rule, name = (muon, "lr") if make is muon_alone else (adamw, "adamw_lr")
    decay = "weight_decay" if make is muon_alone else "adamw_weight_decay"
    for wrap, options in (
        (Coupled, {"decay": "l2"}),
        (Independent, {"decay": "independent"}),
        (
            lambda rule: Ahead(Independent(rule), 0.8),
            {"decay": "independent", "lookahead": 0.6, "lookahead_decay": 0.8},
        ),
    ):
        own = {"method": "exact"} if rule is muon else {}
        p = parameter(6, 4, dtype=torch.float64)
        train(make([p], **{name: 0.05, decay: 0.2}, **options, **own), [p], 4)
        pure, hyper = wrap(rule), {"lr": 0.05, "weight_decay": 0.2, **own}
        if "lookahead" in options:
            hyper["lookahead"] = options["lookahead"]
        q = draw(6, 4)
        state = pure.init(q)
        for step in (1, 2, 3, 4):
            q, state = pure.update(draw(6, 4, seed=1000 * step), state, q, **hyper)
        torch.testing.assert_close(p.detach(), q, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", ["lambda", "one cycle"])
def test_a_scheduler_multiplies_an_independent_decay_and_the_lookahead(kind):
    """As it does the learning rate, as a share of the largest: algorithm 2 of arXiv 1711.05101."""
    p = parameter(4, 4, dtype=torch.float64)
    optimizer = Muon([p], lr=0.1, momentum=0.0, nesterov=False, decay="independent", weight_decay=0.1, method="exact")
    if kind == "lambda":
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / 4)
    else:
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.2, total_steps=4, cycle_momentum=False)
    top = 0.1 if kind == "lambda" else 0.2
    for step in range(4):
        lr, before = optimizer.param_groups[0]["lr"], p.detach().clone()
        p.grad = torch.eye(4, dtype=torch.float64)
        optimizer.step()
        scheduler.step()
        expected = (1 - 0.1 * lr / top) * before - lr * torch.eye(4, dtype=torch.float64)
        torch.testing.assert_close(p.detach(), expected, rtol=0, atol=1e-12), step


def test_where_the_lookahead_ends_at_zero_the_parameter_is_where_the_rule_left_it():
    p, q = parameter(4, 3, dtype=torch.float64), parameter(4, 3, dtype=torch.float64)
    optimizer, plain = Muon([p], lookahead=0.5, lr=0.1), Muon([q], lr=0.1)
    train(optimizer, [p], 3)
    with torch.no_grad():
        q.copy_(p)
    plain.load_state_dict({**plain.state_dict(), "state": optimizer.state_dict()["state"]})
    plain.param_groups[0]["lookahead"] = optimizer.param_groups[0]["lookahead"] = 0.0
    assert optimizer.state[p]["reach"] == 0.5
    train(optimizer, [p], 1, first=4)
    train(plain, [q], 1, first=4)
    assert torch.equal(p, q)
    assert optimizer.state[p]["reach"] == 0


def test_a_learning_rate_of_zero_changes_nothing():
    """As torch makes a state to load a distributed checkpoint into: with gradients of zeros and this learning rate."""
    for options in ({"decay": "independent"}, {"lookahead": 0.5}, {"hyperball": True}, {"update_floor": 1.0}):
        for lr in (0.0, torch.tensor(0.0)):
            p = parameter(4, 3)
            before = p.detach().clone()
            p.grad = torch.zeros_like(p)
            Muon([p], lr=lr, **options).step()
            assert torch.equal(p, before), options


def test_a_step_that_is_not_made_leaves_everything_as_it_is():
    for options in ({"decay": "independent", "lookahead": 0.5}, {"hyperball": True}, {"update_floor": 1.0}):
        p = parameter(4, 3)
        optimizer = Muon([p], lr=0.1, capturable=True, nonfinite="skip", **options)
        train(optimizer, [p], 2)
        before, state = p.detach().clone(), {name: value.clone() for name, value in optimizer.state[p].items()}
        p.grad = torch.full_like(p, torch.nan)
        optimizer.step()
        assert torch.equal(p, before)
        assert all(torch.equal(value, state[name]) for name, value in optimizer.state[p].items())


def test_what_would_have_no_effect_is_refused():
    p = parameter(4, 3)
    for options, message in (
        ({"hyperball": True, "update_floor": 0.1}, "update_floor=0.1 with hyperball=True"),
        ({"cautious": True, "decay": "l2"}, "cautious=True with decay='l2'"),
        ({"equilibrate": "rows"}, "equilibrate='rows' is out of range; expected one of None, row, col, rowcol"),
        ({"lookahead": -0.1}, "lookahead=-0.1 is out of range"),
    ):
        with pytest.raises(ValueError, match=message):
            Muon([p], **options)


def test_a_matrix_of_zeros_cannot_be_held_at_its_norm():
    net = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    nn.init.zeros_(net[2].weight)
    with pytest.raises(ValueError, match=r"the norm of parameter 2\.weight, which is zero.*overrides="):
        MuonAdamW(net, hyperball=True)
    optimizer = MuonAdamW(net, hyperball=True, overrides={"2.weight": {"hyperball": False}})
    for p in net.parameters():
        p.grad = torch.ones_like(p)
    optimizer.step()
    assert net[2].weight.any()

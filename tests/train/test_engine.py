"""A net is stacked where that changes nothing, and where it is not, the reason is said."""

import re

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from muonlab.losses import softmax
from muonlab.nets.transformer import Transformer
from muonlab.rules import sgd
from muonlab.train.by_rule import Treatment
from muonlab.train.engine import build
from muonlab.train.population import Population
from muonlab.train.sequential import Sequential

INPUTS = torch.randn(12, 3, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(12) % 4


def factory(named):
    # Not one that divides by the size of the gradient: of a bias before a norm that is rounding and nothing else.
    return torch.optim.SGD([p for _, p in named], lr=0.1, momentum=0.9)


class Net(nn.Module):
    """A linear layer; each kind does one thing more that may stand in the way of a stack."""

    def __init__(self, kind: str):
        super().__init__()
        self.kind = kind
        self.linear = nn.Linear(3, 4)
        self.register_buffer("seen", torch.randn(4) if kind == "random buffer" else torch.zeros(4))
        if kind == "unused":
            self.other = nn.Linear(3, 4)
        if kind == "frozen":
            self.linear.bias.requires_grad_(False)
        if kind == "hook":
            self.linear.weight.register_hook(lambda gradient: 2 * gradient)

    def forward(self, x):
        y = self.linear(x) + self.seen
        if self.kind == "branch":
            return y if y.sum() > 0 else -y
        if self.kind == "branch in evaluation" and not self.training:
            return y if y.sum() > 0 else -y
        if self.kind == "number":
            return y * x.sum().item()
        if self.kind == "assigns":
            self.seen = self.seen + y.detach().mean(dim=0)
        if self.kind in OPERATIONS:
            return y * OPERATIONS[self.kind](x).sum()
        return y


# Operations that torch.func cannot stack, and what is written instead of the first.
OPERATIONS = {
    "one_hot": lambda x: F.one_hot(x.argmax(dim=1))[:, :1],
    "comparison": lambda x: (x.argmax(dim=1).unsqueeze(-1) == torch.arange(3, device=x.device)).float()[:, :1],
    "unique": lambda x: x.unique(),
    "nonzero": lambda x: (x > 0).nonzero(),
    "mask": lambda x: x[x > 0],
    "masked_select": lambda x: x.masked_select(x > 0),
}


def kind(name):
    return lambda: Net(name)


STACKED = {
    "plain": nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 4)),
    "constant buffer": kind("plain"),
    "comparison with an arange": kind("comparison"),
    "statistics of the batch alone": nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4, track_running_stats=False)),
}
NOT_STACKED = {
    "batch norm": (
        nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)),
        "changes its buffers as it trains .1.running_mean, 1.running_var, 1.num_batches_tracked; nn.BatchNorm",
    ),
    "dropout": (nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5)), "random numbers .* unlike muonlab.nets.dropout"),
    "branch": (kind("branch"), "branches on one"),
    "branch in evaluation": (kind("branch in evaluation"), "branches on one"),
    "number": (kind("number"), "takes a number out of a tensor"),
    "assigns": (kind("assigns"), r"changes its buffers as it trains \(seen;"),
    "random buffer": (kind("random buffer"), r"draws values of buffers at random \(seen\)"),
    "frozen": (kind("frozen"), r"requires_grad=False \(linear.bias\)"),
    "unused": (kind("unused"), r"without part in the loss \(other.weight, other.bias\)"),
    "hook": (kind("hook"), r"other gradients in a stack than alone \(linear.weight\)"),
    "one_hot": (kind("one_hot"), r"F.one_hot without num_classes, .*; write \(tokens.unsqueeze\(-1\) == torch.arange"),
    "unique": (kind("unique"), "the net calls torch.unique, whose result has as many entries as the data decide"),
    "nonzero": (kind("nonzero"), "the net calls torch.nonzero, whose .* torch.where with three arguments"),
    "mask": (kind("mask"), r"selects by a boolean mask, .*; write torch.where\(mask, x, 0\)"),
    "masked_select": (kind("masked_select"), r"selects by a boolean mask, .*; write torch.where\(mask, x, 0\)"),
}


def steps(engine) -> dict[str, torch.Tensor]:
    for step in range(3):
        engine.step(INPUTS.expand(2, -1, -1), LABELS.expand(2, -1), step)
    engine.evaluate(INPUTS, LABELS.expand(2, -1))
    return engine.parameters


@pytest.mark.parametrize("net", STACKED.values(), ids=STACKED)
def test_a_net_that_torch_func_can_stack_is_stacked(net):
    engine, reason = build(net, softmax, factory, (3, 4), INPUTS, LABELS)
    assert (type(engine), reason) == (Population, None)
    expected = steps(Sequential(net, softmax, factory, (3, 4)))
    for name, p in steps(engine).items():
        torch.testing.assert_close(p, expected[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("net", "message"), NOT_STACKED.values(), ids=NOT_STACKED)
def test_a_net_that_cannot_be_stacked_trains_one_member_after_the_other_and_the_reason_is_said(net, message):
    engine, reason = build(net, softmax, factory, (3, 4), INPUTS, LABELS)
    assert isinstance(engine, Sequential)
    assert reason is not None
    torch.testing.assert_close(steps(engine), steps(Sequential(net, softmax, factory, (3, 4))), rtol=0, atol=0)
    assert re.search(message, reason)
    assert reason.endswith("many times slower.")


def test_the_nets_of_the_laboratory_are_stacked():
    net = Transformer(5, 4, depth=1, width=8, heads=2, ff_width=8, dropout=0.5)
    engine, reason = build(net, softmax, factory, (3, 4), LABELS.view(-1, 2), LABELS[:6])
    assert (type(engine), reason) == (Population, None)


def test_a_parameter_without_part_in_the_loss_is_no_hindrance_to_rules_which_give_it_a_gradient_of_zeros():
    by_rule = {name: Treatment(sgd, {"lr": 0.1, "weight_decay": 0.1}) for name, _ in Net("unused").named_parameters()}
    engine, reason = build(kind("unused"), softmax, by_rule, (3, 4), INPUTS, LABELS)
    assert (type(engine), reason) == (Population, None)
    expected = steps(Sequential(kind("unused"), softmax, by_rule, (3, 4)))
    torch.testing.assert_close(steps(engine), expected, rtol=1e-4, atol=1e-6)


def test_an_error_of_the_net_itself_is_the_users_to_see():
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        build(nn.Sequential(nn.Linear(7, 4)), softmax, factory, (3, 4), INPUTS, LABELS)


@pytest.mark.parametrize("layer", [nn.BatchNorm1d(4), nn.Dropout(0.5)])
def test_a_net_that_is_not_stacked_and_the_global_generator_stay_as_they_are(layer):
    net = nn.Sequential(nn.Linear(3, 4), layer)
    before, state = torch.get_rng_state(), {name: each.clone() for name, each in net.state_dict().items()}
    build(net, softmax, factory, (3, 4), INPUTS, LABELS)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(each, state[name]) for name, each in net.state_dict().items())

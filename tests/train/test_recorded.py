"""What a job records of its training: who updates what, and whether a step gives the same bytes twice."""

import pytest
import torch
from torch import nn

from muonlab.jobs.files import read_json
from muonlab.losses import softmax
from muonlab.rules import adamw
from muonlab.rules.wrapped import Coupled
from muonlab.train import loop, optimizers, recorded
from muonlab.train.batches import Batches
from muonlab.train.by_rule import Treatment
from muonlab.train.population import Population
from muonlab.train.sequential import Sequential

INPUTS = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(20) % 2
SEEDS = (0, 1)


def net():
    return nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 8, bias=False), nn.Tanh(), nn.Linear(8, 2))


class Chance(torch.autograd.Function):
    """Adds noise of no generator to the gradient, as a sum in the order of threads does."""

    calls = 0

    @staticmethod
    def forward(x):
        return x.clone()

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, gradient):
        Chance.calls += 1
        return gradient * (1 + 1e-6 * Chance.calls)

    generate_vmap_rule = True


class Noisy(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = net()

    def forward(self, x):
        return Chance.apply(self.net(x))


def muon():
    return optimizers.treatments(net(), "muon", {"lr": 0.02}, others={"lr": 1e-3})


@pytest.mark.parametrize("engine", [Population, Sequential])
@pytest.mark.parametrize(
    ("optimizer", "expected"),
    [
        (muon, {"muon": (3, 24 + 64 + 16), "adamw": (2, 8 + 2)}),
        (
            lambda: {name: Treatment(Coupled(adamw), {"lr": 1e-3}) for name, _ in net().named_parameters()},
            {"adamw": (5, 114)},
        ),
        (lambda: lambda named: torch.optim.RAdam([p for _, p in named]), {"RAdam": (5, 114)}),
    ],
)
def test_every_parameter_of_a_member_is_counted_with_what_updates_it(engine, optimizer, expected):
    found = recorded.routing(engine(net, softmax, optimizer(), SEEDS))
    assert {rule: (own["tensors"], own["parameters"]) for rule, own in found.items()} == expected


def test_a_step_is_made_twice_and_leaves_nothing_behind():
    batch = Batches(INPUTS, LABELS, SEEDS, 6)(0)
    steady = Population(net, softmax, muon(), SEEDS)
    before = steady.tensors()
    assert recorded.repeats(steady, *batch) is True
    assert all(torch.equal(before[name], own) for name, own in steady.tensors().items())
    noisy = Population(Noisy, softmax, lambda named: torch.optim.Adam([p for _, p in named]), SEEDS)
    assert recorded.repeats(noisy, *batch) is False
    assert recorded.repeats(Sequential(net, softmax, muon(), SEEDS), *batch) is None


def test_a_job_keeps_both_in_its_environment_and_a_session_that_goes_on_takes_them_over(make_context):
    engine, batches = Population(net, softmax, muon(), SEEDS), Batches(INPUTS, LABELS, SEEDS, 6)
    context = make_context()
    loop.train(engine, batches, lambda step, alive: range(len(alive)), (0, 2), context)
    context.clock.stop()
    found = read_json(context.folder / "env.json")
    assert (found["repeats"], found["routing"]["muon"]) == (True, {"tensors": 3, "parameters": 104})
    again = make_context()
    again.clock.save()
    assert read_json(again.folder / "env.json")["repeats"] is True

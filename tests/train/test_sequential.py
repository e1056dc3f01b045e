"""The reference engine is a plain loop over plain modules, and a population with pure rules is the same."""

import copy

import pytest
import torch
from torch import nn

from muonlab.losses import LOSSES, softmax
from muonlab.rules import adamw, muon
from muonlab.studies.grokking.work.cell import build_population, build_rows, streams
from muonlab.studies.grokking.work.material import build_net, build_task, treatments
from muonlab.train import checkpoint
from muonlab.train.by_rule import Treatment
from muonlab.train.population import Population
from muonlab.train.sequential import Sequential

pytestmark = pytest.mark.kernels

TOLERANCE = {"rtol": 1e-9, "atol": 1e-11}  # as in test_population: sums in another order
IN_FLOAT32 = {"rtol": 1e-4, "atol": 1e-5}  # over some steps: alone, a member's batch lies elsewhere in memory
EXACT = {"rtol": 0, "atol": 0}

OPTIMIZERS = {
    "sgd": lambda params: torch.optim.SGD(params, lr=0.05, momentum=0.9),
    "radam": lambda params: torch.optim.RAdam(params, lr=0.01),
    "nadam": lambda params: torch.optim.NAdam(params, lr=0.01),
    "rprop": torch.optim.Rprop,
    "adagrad": torch.optim.Adagrad,
}


def factory_of(name):
    return lambda named: OPTIMIZERS[name]([p for _, p in named])


def make_net() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 4))


def batch(step: int, members: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(step)
    inputs = torch.randn(3, 8, 3, generator=generator)
    return inputs[:members], torch.randint(4, (3, 8), generator=generator)[:members]


def train(engine: Sequential, start: int, stop: int, members=(0, 1, 2)) -> Sequential:
    for step in range(start, stop):
        inputs, labels = batch(step)
        engine.step(inputs[list(members)], labels[list(members)], step)
    return engine


def assert_same(found, expected, **tolerance) -> None:
    assert found.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], **tolerance, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("optimizer", ["muon", "adamw", "sgd"])
@pytest.mark.parametrize("loss", LOSSES)
def test_a_population_is_its_members_trained_one_after_the_other(make_cell, optimizer, loss):
    config = make_cell(net={"dropout": 0.3}, optimizer=optimizer, loss=loss)
    task, seeds = build_task(config), (3, 4, 5)
    net = build_net(config, task)
    together = build_population(config, task, seeds, "cpu")
    one_by_one = Sequential(net, LOSSES[loss], treatments(net, config), streams(config, seeds), dtype=torch.float64)
    rows = build_rows(config, task, seeds, "cpu")
    assert_same(one_by_one.parameters, together.parameters, **EXACT)
    for step in range(8):
        if step == 5:
            for each in (rows, together, one_by_one):
                each.keep([0, 2])
        for engine in (together, one_by_one):
            engine.step(*rows(step), step)
    assert len(one_by_one) == len(together) == 2
    assert_same(one_by_one.parameters, together.parameters, **TOLERANCE)
    for found, expected in zip(
        one_by_one.evaluate(rows.inputs, rows.labels), together.evaluate(rows.inputs, rows.labels), strict=True
    ):
        torch.testing.assert_close(found, expected, **TOLERANCE)


def test_a_population_of_learning_rates_is_its_members_trained_one_after_the_other(make_cell):
    config = make_cell(net={"dropout": 0.3})
    task = build_task(config)
    net, rows = build_net(config, task), build_rows(config, task, (4, 4), "cpu")
    hyper = {"lr": torch.tensor([0.01, 0.05], dtype=torch.float64), "weight_decay": 0.1}
    by_name = {name: Treatment(muon if p.ndim == 2 else adamw, hyper) for name, p in net.named_parameters()}
    engines = [kind(net, LOSSES["softmax"], by_name, (4, 4), dtype=torch.float64) for kind in (Population, Sequential)]
    for step in range(4):
        for engine in engines:
            engine.step(*rows(step), step)
    assert_same(engines[1].parameters, engines[0].parameters, **TOLERANCE)
    assert not torch.allclose(engines[1].parameters["head.weight"][0], engines[1].parameters["head.weight"][1])


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_members_equal_a_plain_loop_with_batch_norm(name):
    def build():
        return nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 4))

    engine = Sequential(build(), softmax, factory_of(name), (3, 4, 5))
    net = build()
    net.load_state_dict({n: each[1] for n, each in (engine.parameters | engine.buffers).items()})
    optimizer = OPTIMIZERS[name](net.parameters())
    for step in range(5):
        inputs, labels = batch(step)
        optimizer.zero_grad()
        softmax(net(inputs[1]), labels[1]).mean().backward()
        optimizer.step()
    for step in range(5):
        train(engine, step, step + 1)
        engine.evaluate(inputs[0], labels)  # changes nothing
    found = {n: each[1] for n, each in (engine.parameters | engine.buffers).items()}
    assert_same(found, net.state_dict(), **IN_FLOAT32)

    inputs, labels = batch(9)
    losses, hits = engine.evaluate(inputs[0], labels)
    logits = net.eval()(inputs[0])
    torch.testing.assert_close(losses[1], softmax(logits, labels[1]).detach(), **IN_FLOAT32)
    assert torch.equal(hits[1], logits.argmax(dim=1) == labels[1])
    assert_same({n: each[1] for n, each in engine.buffers.items()}, dict(net.named_buffers()), **IN_FLOAT32)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_restart_goes_on_with_the_same_bits_in_noise_buffers_and_state(name, tmp_path):
    engine = train(Sequential(make_net(), softmax, factory_of(name), (3, 4, 5)), 0, 3)
    engine.keep([0, 2])
    whole = Sequential(make_net(), softmax, factory_of(name), (3, 4, 5))
    checkpoint.save(tmp_path / "state", engine.tensors(), checkpoint.Progress(3, [0, 2], 0))
    (tmp_path / "metrics").touch()
    saved = checkpoint.load(tmp_path / "state", "cpu", whole.tensors(), tmp_path / "metrics")
    assert saved is not None
    whole.keep([0, 2])
    whole.load(saved[0])
    torch.manual_seed(1)  # whatever the global generator has been through
    for each in (engine, whole):
        train(each, 3, 6, members=(0, 2))
    assert_same(whole.tensors(), engine.tensors(), **EXACT)


def test_a_member_equals_the_run_made_alone_and_the_global_generator_stays():
    net, evaluation = make_net(), batch(9)
    before = torch.get_rng_state()
    together = train(Sequential(net, softmax, factory_of("radam"), (3, 4, 5)), 0, 3)
    together.evaluate(evaluation[0][0], evaluation[1])
    alone = train(Sequential(net, softmax, factory_of("radam"), (4,)), 0, 3, members=(1,))
    assert torch.equal(torch.get_rng_state(), before)
    assert_same({n: p[1:2] for n, p in together.parameters.items()}, alone.parameters, **IN_FLOAT32)
    assert_same({n: b[1:2] for n, b in together.buffers.items()}, alone.buffers, **IN_FLOAT32)


def test_members_draw_noise_of_their_own_and_of_each_step():
    class Seen(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(3, 4)
            self.masks = []

        def forward(self, x):
            self.masks.append(nn.functional.dropout(torch.ones(64), 0.5))
            return self.linear(x)

    built = []

    def build():
        built.append(Seen())
        return built[-1]

    train(Sequential(build, softmax, factory_of("sgd"), (3, 4)), 0, 2, members=(0, 1))
    masks = [mask for net in built for mask in net.masks]
    assert len(masks) == 4
    assert not any(torch.equal(masks[i], masks[j]) for i in range(4) for j in range(i))


def test_a_net_that_draws_noise_in_evaluation_too_is_evaluated_the_same_way_each_time():
    class Noisy(nn.Linear):
        def forward(self, x):
            return super().forward(x) + torch.randn(4)

    engine = Sequential(lambda: Noisy(3, 4), softmax, factory_of("sgd"), (3, 4, 5))
    inputs, labels = batch(0)
    before = torch.get_rng_state()
    first, again = (engine.evaluate(inputs[0], labels)[0] for _ in range(2))
    assert torch.equal(first, again)
    assert torch.equal(torch.get_rng_state(), before)


def test_frozen_parameters_stay_and_the_users_net_is_not_touched():
    net = make_net()
    net[4].requires_grad_(False)
    before = copy.deepcopy(net.state_dict())
    engine = Sequential(net, softmax, factory_of("sgd"), (3, 4, 5))
    start = engine.parameters
    train(engine, 0, 2)
    assert torch.equal(engine.parameters["4.weight"], start["4.weight"])
    assert not torch.equal(engine.parameters["0.weight"], start["0.weight"])
    assert_same(net.state_dict(), before, **EXACT)


def test_it_has_no_program_and_says_so_and_computes_one_member_at_once():
    engine = Sequential(make_net(), softmax, factory_of("sgd"), (3, 4))
    with pytest.warns(UserWarning, match="not compiled"):
        assert engine.compile(*batch(0, 2)) is False
    assert engine.choose_height(*batch(0, 2)) == 1


def test_a_paced_population_of_kernels_is_its_members_one_after_the_other_over_a_restart():
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(16, 3))
    kernels, rest = Treatment(muon, {"lr": 0.05}, flatten=True), Treatment(adamw, {"lr": 0.01})
    by_name = {name: kernels if p.ndim > 1 else rest for name, p in net.named_parameters()}
    together, alone, again = (
        kind(net, softmax, by_name, (3, 4), dtype=torch.float64) for kind in (Population, Sequential, Sequential)
    )
    for step in range(6):
        generator = torch.Generator().manual_seed(step)
        inputs = torch.randn(2, 5, 1, 4, 4, generator=generator, dtype=torch.float64)
        labels = torch.randint(3, (2, 5), generator=generator)
        if step == 3:
            again.load(alone.tensors())
        for engine in (together, alone) if step < 3 else (together, alone, again):
            engine.step(inputs, labels, step, (1.0, 0.5, 0.0, 0.25, 1.0, 0.7)[step])
    assert_same(alone.parameters, together.parameters, **TOLERANCE)
    assert_same(again.tensors(), alone.tensors(), **EXACT)

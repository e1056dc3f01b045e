"""Member k of a population is the run that it would be alone, and that run is what torch.optim would make of it."""

import pytest
import torch
from torch import nn
from torch.func import functional_call

from muonlab.losses import LOSSES, softmax
from muonlab.rules import adamw, muon
from muonlab.studies.grokking.work.cell import build_population, build_rows, streams
from muonlab.studies.grokking.work.material import build_net, build_task, treatments
from muonlab.train.by_rule import Treatment
from muonlab.train.population import Population
from muonlab.train.sequential import Sequential

pytestmark = pytest.mark.kernels

# In float64 a member differs from itself alone by rounding only: a matrix product may sum in another order when the
# stack has another height (docs/design/same-bytes.md). Eight steps let that grow to well under this.
TOLERANCE = {"rtol": 1e-9, "atol": 1e-11}
NUM_STEPS = 8


def train(config, seeds, num_steps=NUM_STEPS) -> Population:
    task = build_task(config)
    rows, population = build_rows(config, task, seeds, "cpu"), build_population(config, task, seeds, "cpu")
    for step in range(num_steps):
        population.step(*rows(step), step)
    return population


def assert_member_is(population: Population, member: int, alone: Population) -> None:
    for name, p in population.parameters.items():
        torch.testing.assert_close(p[member], alone.parameters[name][0], **TOLERANCE, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("task", ["add", "parity"])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("optimizer", ["muon", "adamw", "sgd"])
def test_a_member_equals_the_run_made_alone(make_cell, task, loss, optimizer):
    config = make_cell(task={"name": task}, loss=loss, optimizer=optimizer)
    together = train(config, (3, 4, 5))
    assert_member_is(together, 1, train(config, (4,)))


@pytest.mark.parametrize("net", [{"gated": False}, {"norm": "none"}, {"causal": False}, {"depth": 1, "dropout": 0}])
def test_a_member_equals_the_run_made_alone_for_every_net(make_cell, net):
    config = make_cell(net=net)
    assert_member_is(train(config, (3, 4)), 1, train(config, (4,)))


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("loss", LOSSES)
def test_a_member_equals_a_plain_loop_with_torch_optim(make_cell, optimizer, loss):
    config = make_cell(net={"dropout": 0}, optimizer=optimizer, loss=loss, hyper={"weight_decay": 0.01})
    task = build_task(config)
    net = build_net(config, task).double()
    population = build_population(config, task, (3, 4), "cpu")
    net.load_state_dict({name: p[1] for name, p in population.parameters.items()})
    if optimizer == "adamw":
        peer = torch.optim.AdamW(net.parameters(), lr=1e-3, betas=(0.9, 0.98), weight_decay=0.01)
    else:
        peer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
    rows = build_rows(config, task, (3, 4), "cpu")
    for step in range(NUM_STEPS):
        inputs, labels = rows(step)
        population.step(inputs, labels, step)
        peer.zero_grad()
        LOSSES[loss](net(inputs[1]), labels[1]).mean().backward()
        peer.step()
    for name, p in net.named_parameters():
        torch.testing.assert_close(population.parameters[name][1], p.detach(), **TOLERANCE)


def test_members_draw_dropout_noise_of_their_own_and_of_each_step(make_cell):
    config = make_cell(net={"dropout": 0.5}, optimizer="sgd", hyper={"lr": 0.0, "momentum": 0.0})
    task = build_task(config)
    population = build_population(config, task, (3, 4), "cpu")
    inputs, labels = task.inputs[:8].expand(2, 8, -1), task.labels[:8].expand(2, 8)
    population.parameters = {name: p[:1].expand_as(p).clone() for name, p in population.parameters.items()}
    name = "head.weight"
    seen = []
    for step in (0, 1):
        population.step(inputs, labels, step)
        seen += list(population.optimizer.states[name]["momentum"])  # lr 0 and momentum 0: the last gradient
    assert not any(torch.equal(seen[i], seen[j]) for i in range(4) for j in range(i))


def test_evaluation_is_in_eval_mode_over_all_rows(make_cell):
    config = make_cell(task={"modulus": 17}, net={"dropout": 0.5})  # 289 rows: more than one chunk
    task = build_task(config)
    population = build_population(config, task, (3, 4), "cpu")
    labels = task.labels.expand(2, -1)
    losses, hits = population.evaluate(task.inputs, labels)
    net = build_net(config, task).double().eval()
    for member in range(2):
        parameters = {name: p[member] for name, p in population.parameters.items()}
        logits = functional_call(net, parameters, (task.inputs,))
        torch.testing.assert_close(losses[member], LOSSES["softmax"](logits, task.labels))
        assert torch.equal(hits[member], logits.argmax(dim=1) == task.labels)


def test_members_that_stay_go_on_as_if_nobody_had_left(make_cell):
    config = make_cell()
    task = build_task(config)
    rows, population = build_rows(config, task, (3, 4, 5), "cpu"), build_population(config, task, (3, 4, 5), "cpu")
    for step in range(NUM_STEPS):
        if step == 3:
            rows.keep([0, 2])
            population.keep([0, 2])
        population.step(*rows(step), step)
    assert len(population) == 2
    assert_member_is(population, 1, train(config, (5,)))


@pytest.mark.parametrize("optimizer", ["muon", "adamw", "sgd"])
def test_a_population_goes_on_from_its_tensors_bit_for_bit(make_cell, optimizer):
    config = make_cell(optimizer=optimizer, protocol={"dtype": "float32"})
    task = build_task(config)
    rows = build_rows(config, task, (3, 4), "cpu")
    first, second = (build_population(config, task, (3, 4), "cpu") for _ in range(2))
    for step in range(3):
        first.step(*rows(step), step)
    second.load({name: t.clone() for name, t in first.tensors().items()})
    for population in (first, second):
        for step in range(3, 6):
            population.step(*rows(step), step)
    assert all(torch.equal(first.parameters[name], second.parameters[name]) for name in first.parameters)


def test_building_and_stepping_leave_the_global_generator_alone(make_cell):
    before = torch.get_rng_state()
    train(make_cell(net={"dropout": 0.5}), (0, 1), num_steps=2)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("height", [1, 2, 3, 7])
def test_the_height_of_a_stack_changes_results_by_rounding_alone(make_cell, height):
    config = make_cell(net={"dropout": 0.2})
    task = build_task(config)
    rows, population = build_rows(config, task, (3, 4, 5), "cpu"), build_population(config, task, (3, 4, 5), "cpu")
    population.gradients.height = height
    for step in range(NUM_STEPS):
        population.step(*rows(step), step)
    whole = train(config, (3, 4, 5))
    for name, p in whole.parameters.items():
        torch.testing.assert_close(population.parameters[name], p, **TOLERANCE)


def assert_fifty_steps_are_those_of_the_plain_module(config, prepare) -> None:
    task, seeds = build_task(config), (3, 4)
    rows, population = build_rows(config, task, seeds, "cpu"), build_population(config, task, seeds, "cpu")
    prepare(population, rows)
    plain = build_net(config, task)
    plain.shortcuts = False
    given = (LOSSES[config.loss], treatments(plain, config), streams(config, seeds))
    reference = Sequential(plain, *given, dtype=torch.float64)
    for step in range(50):
        batch = rows(step)
        population.step(*batch, step)
        reference.step(*batch, step)
    for name, p in reference.parameters.items():
        torch.testing.assert_close(population.parameters[name], p, rtol=1e-9, atol=1e-9 * p.abs().max().item())


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
@pytest.mark.parametrize("height", [1, 2])
def test_fifty_steps_are_those_of_the_plain_module(make_cell, height, optimizer):
    def prepare(population, rows):
        population.gradients.height = height

    assert_fifty_steps_are_those_of_the_plain_module(make_cell(net={"dropout": 0.2}, optimizer=optimizer), prepare)


def test_fifty_compiled_steps_are_those_of_the_plain_module(make_cell, compiled_programs):
    def prepare(population, rows):
        assert population.compile(*rows(0))
        assert population.gradients.is_compiled

    found = []
    for optimizer in ("muon", "adamw"):
        assert_fifty_steps_are_those_of_the_plain_module(make_cell(net={"dropout": 0.2}, optimizer=optimizer), prepare)
        found.append(set(compiled_programs.glob("*.pt2")))
    assert found[0] == found[1] != set()  # the optimizers share one


def images(step, num_members=2):
    generator = torch.Generator().manual_seed(step)
    inputs = torch.randn(num_members, 6, 1, 8, 8, generator=generator, dtype=torch.float64)
    return inputs, torch.randint(3, (num_members, 6), generator=generator)


def flattening(net, lr):
    """Muon for kernels as matrices, AdamW for what is neither kernel nor matrix, both at rates by member."""
    kernels, rest = Treatment(muon, {"lr": lr}, flatten=True), Treatment(adamw, {"lr": lr / 10})
    return {name: kernels if p.ndim > 1 else rest for name, p in net.named_parameters()}


def test_muon_on_convolutions_is_the_rule_on_their_matrices_in_a_plain_loop():
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.Tanh(), nn.Conv2d(4, 5, (3, 2), stride=2), nn.Flatten(), nn.Linear(30, 3)
    )
    population = Population(
        net, softmax, flattening(net, torch.tensor([0.1, 0.02], dtype=torch.float64)), (3, 4), dtype=torch.float64
    )
    plain = {name: p[1].clone().requires_grad_() for name, p in population.parameters.items()}
    seen = {name: p.detach().flatten(1) if p.ndim > 1 else p.detach() for name, p in plain.items()}
    states = {name: (muon if p.ndim > 1 else adamw).init(p) for name, p in seen.items()}
    for step in range(4):
        inputs, labels = images(step)
        population.step(inputs, labels, step)
        loss = softmax(functional_call(net, plain, (inputs[1],)), labels[1]).mean()
        gradients = torch.autograd.grad(loss, list(plain.values()))
        for (name, p), gradient in zip(plain.items(), gradients, strict=True):
            rule, lr = (muon, 0.02) if p.ndim > 1 else (adamw, 0.002)
            seen[name], states[name] = rule.update(gradient.view_as(seen[name]), states[name], seen[name], lr=lr)
            p.data = seen[name].view(p.shape)
    for name, p in plain.items():
        torch.testing.assert_close(population.parameters[name][1], p.detach(), **TOLERANCE)

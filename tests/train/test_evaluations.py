"""Evaluations are those of each member alone on every row, whether stacks or a program computes them."""

import math

import pytest
import torch
import torch.nn.functional as F

from muonlab.losses import softmax
from muonlab.rules import sgd
from muonlab.train import evaluations as room
from muonlab.train import gradients, loop
from muonlab.train.batches import Batches
from muonlab.train.by_rule import Treatment
from muonlab.train.evaluations import Evaluations, Programs
from muonlab.train.metrics import Metrics
from muonlab.train.population import Population

S, N, D, C = 3, 23, 4, 5
FLOPS = 2 * N * D * C  # of an evaluation of one member


def judge(parameters, inputs, labels):
    logits = inputs @ parameters["weight"]
    return F.cross_entropy(logits, labels, reduction="none"), logits.argmax(dim=-1) == labels


def draw():
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(S, D, C, generator=generator, dtype=torch.float64)
    inputs = torch.randn(N, D, generator=generator, dtype=torch.float64)
    return {"weight": weight}, inputs, torch.randint(C, (S, N), generator=generator)


def from_flops(flops):
    programs = Programs()
    programs.compiled_from = flops
    return Evaluations(judge, programs)


def kinds(tensors):
    return [(each.shape, each.stride(), each.dtype) for each in tensors]


@pytest.fixture
def programs(monkeypatch):
    """For each program its calls; a program does what its function does, on what it was made for alone."""
    found: list[list] = []

    def compiled(function, example):
        known, calls = kinds(example), []

        def program(*tensors):
            assert kinds(tensors) == known
            calls.append(tensors)
            return function(*tensors)

        found.append(calls)
        return program

    monkeypatch.setattr(room, "compiled", compiled)
    return found


def assert_right(found, parameters, inputs, labels):
    for member in range(S):
        logits = inputs @ parameters["weight"][member]
        expected = -logits.log_softmax(1).gather(1, labels[member][:, None]).squeeze(1)
        torch.testing.assert_close(found[0][member], expected, rtol=1e-12, atol=1e-14)
        assert torch.equal(found[1][member], logits.argmax(1) == labels[member])


@pytest.mark.parametrize("rows", [7, 23, 256])
def test_stacks_take_so_many_rows_at_once(monkeypatch, rows, programs):
    monkeypatch.setattr(room, "ROWS", rows)
    arguments = draw()
    assert_right(Evaluations(judge, Programs())(*arguments), *arguments)
    assert programs == []


# Passes of equal length: the last one has rows of the one before where they do not fill it.
@pytest.mark.parametrize(("passes", "rows"), [(1, 23), (2, 12), (3, 8), (23, 1)])
def test_a_program_has_every_row_once_in_passes_by_its_flops(monkeypatch, passes, rows, programs):
    monkeypatch.setattr(room, "PROGRAM_FLOPS", FLOPS / passes)
    evaluations, arguments = from_flops(FLOPS), draw()
    for _ in range(2):
        assert_right(evaluations(*arguments), *arguments)
    assert [len(calls) for calls in programs] == [2 * S * math.ceil(N / rows)]
    assert programs[0][0][1].shape == (rows, D)


def test_what_is_too_little_work_and_what_has_no_rows_is_left_to_stacks(programs):
    evaluations, (parameters, inputs, labels) = from_flops(FLOPS), draw()
    evaluations(parameters, inputs[:-1], labels[:, :-1])
    evaluations(parameters, inputs[:0], labels[:, :0])
    assert programs == []
    evaluations(parameters, inputs, labels.expand(2, S, N)[0])
    assert len(programs) == 1


def test_without_a_compiler_stacks_do_it_and_it_is_asked_once(monkeypatch):
    asked = []
    monkeypatch.setattr(room, "compiled", lambda *_: asked.append(1))
    evaluations, arguments = from_flops(0), draw()
    for _ in range(2):
        assert_right(evaluations(*arguments), *arguments)
    assert asked == [1]


@pytest.mark.kernels
def test_a_real_program_is_the_stack_to_rounding(compiled_programs):
    (parameters, inputs, labels), programs = draw(), Programs()
    evaluations = Evaluations(judge, programs)
    expected = evaluations(parameters, inputs, labels)
    programs.compiled_from = 0
    losses, hits = evaluations(parameters, inputs, labels)
    assert programs.seconds > 0
    torch.testing.assert_close(losses, expected[0], rtol=1e-12, atol=1e-14)
    assert torch.equal(hits, expected[1])


@pytest.mark.parametrize("by_member", [False, True])
def test_what_is_measured_is_compiled_for_each_function_and_kind(programs, by_member):
    def squares(outputs, targets):
        return torch.stack([(outputs - targets).square().mean(), outputs.max()])

    def absolute(outputs, targets):
        return (outputs - targets).abs().mean()

    population = Population(net, softmax, {name: Treatment(sgd, {"lr": 0.3}) for name in net().state_dict()}, SEEDS)
    generator = torch.Generator().manual_seed(2)
    leading = (len(SEEDS),) if by_member else ()
    inputs, targets = (torch.randn(*leading, 6, each, generator=generator) for each in (3, 2))
    few = (inputs[:, :4], targets[:, :4]) if by_member else (inputs[:4], targets[:4])
    calls = [(squares, inputs, targets), (absolute, inputs, targets), (squares, *few)]
    expected = [population.measure(*call, by_member=by_member) for call in calls]
    assert programs == []
    population.compile_evaluations(2 * 6 * (3 * 8 + 8 * 2))  # as many as six rows are
    for _ in range(2):
        found = [population.measure(*call, by_member=by_member) for call in calls]
        for own, oracle in zip(found, expected, strict=True):
            torch.testing.assert_close(own, oracle, rtol=1e-6, atol=1e-6)
    assert [len(each) for each in programs] == [2 * len(SEEDS)] * 2


# -- in a job: the same command ends with the same bytes ---------------------------------------------------

SEEDS, STEPS = (3, 7, 11), (0, 2, 4, 6, 8)


def net():
    return torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2))


INPUTS = torch.randn(40, 3, generator=torch.Generator().manual_seed(1))
OF_NET = 2 * 40 * (3 * 8 + 8 * 2)


def run(context):
    engine = Population(net, softmax, {name: Treatment(sgd, {"lr": 0.3}) for name in net().state_dict()}, SEEDS)
    labels = (INPUTS[:, 0] > 0).long()
    batches, metrics = Batches(INPUTS, labels, SEEDS, 6), Metrics(context.folder / "metrics.jsonl", len(SEEDS))

    def evaluate(step, alive):
        losses, _ = engine.evaluate(INPUTS, labels.expand(len(alive), -1))
        metrics.append(step, batches.epoch(step), alive, {"loss": losses.mean(1)})
        return [row for row, member in enumerate(alive) if (step, member) != (4, 1)]

    loop.train(engine, batches, evaluate, STEPS, context, metrics=metrics, compile=True)


@pytest.mark.parametrize("killed", [2, 6])
def test_killed_and_resumed_a_compiled_job_has_the_same_metrics(make_context, tmp_path, monkeypatch, programs, killed):
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0)
    monkeypatch.setattr(loop, "EVALUATIONS_FROM", OF_NET * len(SEEDS) * len(STEPS))  # just enough
    monkeypatch.setattr(gradients, "compiled", lambda function, example: function)

    def stop(event):
        if event["step"] == killed:
            raise KeyboardInterrupt

    run(make_context(tmp_path / "alone", compile="auto"))
    assert [len(calls) for calls in programs] == [3 + 3 + 2 + 2]  # at step 0 nothing is compiled yet
    with pytest.raises(KeyboardInterrupt):
        run(make_context(tmp_path / "killed", compile="auto", report=stop))
    run(make_context(tmp_path / "killed", compile="auto"))
    assert (tmp_path / "killed/metrics.jsonl").read_bytes() == (tmp_path / "alone/metrics.jsonl").read_bytes()
    programs.clear()
    monkeypatch.setattr(loop, "EVALUATIONS_FROM", OF_NET * len(SEEDS) * len(STEPS) + 1)
    run(make_context(tmp_path / "eager", compile="auto"))
    assert programs == []
    run(make_context(tmp_path / "always", compile="always"))
    assert len(programs) == 1

import warnings

import pytest
import torch
from torch import nn

from muonlab.jobs.files import read_json
from muonlab.losses import softmax
from muonlab.rules import sgd
from muonlab.train import loop
from muonlab.train.batches import Batches
from muonlab.train.by_rule import Treatment
from muonlab.train.metrics import Metrics
from muonlab.train.modules import drawn
from muonlab.train.population import Population
from muonlab.train.sequential import Sequential

SEEDS = (3, 7, 11)
STEPS = (0, 1, 4, 6, 9)
INPUTS = torch.randn(20, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
LABELS = torch.arange(20) % 2


def net():
    return nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2))


def normed():
    return nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Linear(8, 2))


def by_rule(module=net):
    return {name: Treatment(sgd, {"lr": 0.3, "momentum": 0.9, "weight_decay": 0.0}) for name in module().state_dict()}


def adam(named):
    return torch.optim.Adam([p for _, p in named], lr=0.05)


ENGINES = {
    "population": lambda seeds: Population(net, softmax, by_rule(), seeds, dtype=torch.float64),
    "torch optimizer": lambda seeds: Population(net, softmax, adam, seeds, dtype=torch.float64),
    "sequential": lambda seeds: Sequential(normed, softmax, adam, seeds, dtype=torch.float64),
}


def run(context, build=ENGINES["population"], seeds=SEEDS, *, leaving=(), pace=lambda step: 1.0):
    """Train; return the engine and metrics. `leaving`: (step, member) for those that leave after an evaluation."""
    engine, batches = build(seeds), Batches(INPUTS, LABELS, seeds, 6)
    metrics = Metrics(context.folder / "metrics.jsonl", len(seeds))

    def evaluate(step, alive):
        losses, _ = engine.evaluate(INPUTS, LABELS.expand(len(alive), -1))
        metrics.append(step, batches.epoch(step), alive, {"loss": losses.mean(1)})
        return [row for row, member in enumerate(alive) if (step, member) not in leaving]

    loop.train(engine, batches, evaluate, STEPS, context, metrics=metrics, pace=pace)
    return engine, metrics


def test_a_member_trains_as_in_a_plain_torch_loop(make_context):
    engine, metrics = run(make_context(), pace=lambda step: 1 - step / 10)
    for member, seed in enumerate(SEEDS):
        module, batches = drawn(net, seed, torch.float64), Batches(INPUTS, LABELS, (seed,), 6)
        optimizer = torch.optim.SGD(module.parameters(), lr=1.0, momentum=0.9)
        curve = []
        for step in range(STEPS[-1] + 1):
            if step in STEPS:
                curve.append(softmax(module(INPUTS), LABELS).mean().item())
            optimizer.param_groups[0]["lr"] = 0.3 * (1 - step / 10)
            optimizer.zero_grad()
            inputs, labels = batches(step)
            softmax(module(inputs[0]), labels[0]).mean().backward()
            if step < STEPS[-1]:
                optimizer.step()
        assert metrics.curve("loss", member) == pytest.approx(curve, rel=1e-9)
        for name, p in module.named_parameters():
            torch.testing.assert_close(engine.tensors()[f"parameter/{name}"][member], p.detach())


def test_members_that_leave_change_nothing_for_the_others_and_training_ends_without_any(make_context, tmp_path):
    seen = []
    leaving = {(1, 0), (4, 2), (6, 1)}
    engine, metrics = run(make_context(report=seen.append), leaving=leaving)
    assert metrics.steps == [0, 1, 4, 6]
    assert [(event["step"], event["alive"]) for event in seen] == [(0, 3), (1, 2), (4, 1), (6, 0)]
    assert all(event["budget"] == 9 for event in seen)
    assert len(engine) == 1, "an engine has members, if none goes on the last ones"
    _, alone = run(make_context(tmp_path / "alone"), seeds=(SEEDS[1],))
    assert metrics.curve("loss", 1) == pytest.approx(alone.curve("loss", 0)[:4], rel=1e-9)
    assert metrics.curve("loss", 0)[2:] == [None, None]


def test_between_evaluations_that_are_far_apart_it_reports(make_context, monkeypatch):
    monkeypatch.setattr(loop, "REPORT_STEPS", 2)
    seen = []
    run(make_context(report=seen.append))
    assert [event["step"] for event in seen] == [0, 1, 2, 4, 6, 8, 9]


@pytest.mark.parametrize("build", ENGINES.values(), ids=ENGINES)
@pytest.mark.parametrize("killed", [1, 6])
def test_killed_and_resumed_it_ends_with_the_same_bytes(make_context, tmp_path, monkeypatch, build, killed):
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0)

    def stop(event):
        if event["step"] == killed:
            raise KeyboardInterrupt

    leaving = {(1, 0)}
    alone, _ = run(make_context(tmp_path / "alone"), build, leaving=leaving)
    with pytest.raises(KeyboardInterrupt):
        run(make_context(tmp_path / "killed", report=stop), build, leaving=leaving)
    found, _ = run(make_context(tmp_path / "killed"), build, leaving=leaving)
    before = STEPS[STEPS.index(killed) - 1]
    expected = f"goes on from step {before} with 2 members" if before else "starts with 3 members"
    assert expected in (tmp_path / "killed" / "log.txt").read_text().splitlines()[-2]
    assert (tmp_path / "killed/metrics.jsonl").read_bytes() == (tmp_path / "alone/metrics.jsonl").read_bytes()
    for name, tensor in alone.tensors().items():
        assert tensor.equal(found.tensors()[name]), name


# -- how members are computed ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("compile", "flops", "device", "expected"),
    [
        ("auto", 1e14, "cpu", True),
        ("auto", 1e12, "cpu", False),
        ("auto", 1e14, "cuda", False),
        ("never", 1e14, "cpu", False),
        ("always", 1.0, "cuda", True),
    ],
)
def test_by_itself_a_job_compiles_where_there_is_enough_to_do(make_context, compile, flops, device, expected):
    assert loop.pays(make_context(compile=compile, device=device), flops) is expected


def prepared(context, engine, **options):
    """Return the log, and whether the job was compiled and the height of its stacks, as recorded."""
    found = loop.prepare(engine, (INPUTS.expand(3, -1, -1), LABELS.expand(3, -1)), context, **options)
    context.clock.save()
    session = read_json(context.folder / "env.json")["sessions"][-1]
    assert found == (session["is_compiled"], session["height"])
    return (context.folder / "log.txt").read_text(), *found


def test_a_height_is_chosen_once(make_context, monkeypatch):
    engine = ENGINES["population"](SEEDS)
    monkeypatch.setattr(engine, "choose_height", lambda *_: 2)
    log, *found = prepared(make_context(), engine, compile=False, height=None)
    assert found == [False, 2] == [False, engine.gradients.height]
    assert "trains with stacks of 2 members" in log
    monkeypatch.setattr(engine, "choose_height", lambda *_: pytest.fail("chosen again"))
    assert prepared(make_context(), engine, compile=False, height=1)[1:] == (False, 1)


def test_where_compiling_fails_the_log_says_why_and_stacks_are_used(make_context, monkeypatch):
    def compile(*_):
        warnings.warn("there is no compiler", stacklevel=2)
        return False

    engine = ENGINES["population"](SEEDS)
    monkeypatch.setattr(engine, "compile", compile)
    log, *found = prepared(make_context(), engine, compile=True, height=2)
    assert found == [False, 2]
    assert "there is no compiler" in log
    assert "stacks of 2 members" in log


def test_members_that_cannot_be_stacked_train_one_after_the_other(make_context):
    log, *found = prepared(make_context(), ENGINES["sequential"](SEEDS), compile=True, height=None)
    assert found == [False, 1]
    assert "one member after the other" in log
    assert "are not compiled" in log

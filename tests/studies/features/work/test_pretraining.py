"""Training of one member per rate and seed: results, resume, what members share, what is measured on the way."""

from itertools import product

import pytest
import torch
from torch import nn

from muonlab.jobs.files import read_lines
from muonlab.losses import softmax_per_example
from muonlab.studies.features.config import AdamW, Muon
from muonlab.studies.features.work import material, pretraining, weights
from muonlab.studies.features.work.pretraining import build_engine, count_flops, evaluate
from muonlab.studies.features.work.robustness import judge
from muonlab.studies.features.work.states import subject
from muonlab.train import engine, loop, optimizers
from muonlab.train.batches import Batches
from muonlab.train.population import Population

STEPS = [0, 1, 3, 6]  # of three looks at six steps
BATCHNORM = {"norm": "batch"}


def curves(result):
    """Return (rate, seed) -> its validation losses."""
    return {(member["rate"], member["seed"]): member["validation_loss"] for member in result["members"]}


def test_the_result_says_what_the_curves_show(make_pretrain, run, tmp_path):
    seen = []
    result = run(make_pretrain(rates=(0.01, 0.03)), tmp_path, report=seen.append)
    rows = read_lines(tmp_path / "metrics.jsonl")
    assert result["steps"] == [row["step"] for row in rows] == STEPS
    assert [row["epoch"] for row in rows] == [pytest.approx(step * 16 / 541, abs=1e-6) for step in STEPS]
    assert [(member["rate"], member["seed"]) for member in result["members"]] == [*product((0.01, 0.03), (0, 1))]
    for number, member in enumerate(result["members"]):
        for name in ("train_loss", "validation_loss", "validation_accuracy"):
            assert member[name] == [row[name][number] for row in rows]
        assert member["diverged_at"] is None
    assert (result["num_train"], result["num_validation"], result["num_test"]) == (541, 135, 225)
    assert result["why_sequential"] is None
    assert seen[-1] == {"step": 6, "budget": 6, "alive": 4}
    assert {file.name for file in tmp_path.glob("*.safetensors")} == {f"weights-{step}.safetensors" for step in STEPS}
    run(make_pretrain(keep=False, training={"budget": 1}), tmp_path / "search")
    assert not [*(tmp_path / "search").glob("*.safetensors")]


def test_training_learns(pretrained):
    rows = read_lines(pretrained / "metrics.jsonl")
    for before, after in zip(rows[0]["validation_accuracy"], rows[-1]["validation_accuracy"], strict=True):
        assert after > before + 0.3


@pytest.mark.kernels
@pytest.mark.parametrize(("net", "step"), [(None, 6), (BATCHNORM, 3)])
def test_killed_and_resumed_it_ends_with_the_same_bytes(
    make_pretrain, make_family, run, tmp_path, monkeypatch, net, step
):
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0)
    config = make_pretrain(make_family(net=net), rates=(0.01, 0.003))

    def stop(event):
        if event["step"] == step:
            raise KeyboardInterrupt

    alone = run(config, tmp_path / "alone")
    with pytest.raises(KeyboardInterrupt):
        run(config, tmp_path / "killed", report=stop)
    assert not (tmp_path / "killed" / "result.json").exists()
    assert run(config, tmp_path / "killed") == alone
    assert f"goes on from step {STEPS[STEPS.index(step) - 1]}" in (tmp_path / "killed" / "log.txt").read_text()
    names = ["metrics.jsonl", "result.json", *(f"weights-{each}.safetensors" for each in STEPS)]
    for name in names:
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "alone" / name).read_bytes(), name


# -- what members share ----------------------------------------------------------------------------


def test_a_seed_starts_from_the_same_weights_and_takes_the_same_batches_at_every_rate_and_under_every_optimizer(
    make_pretrain, run, tmp_path, monkeypatch
):
    taken = []

    class Seen(Batches):
        def __call__(self, step):
            found = super().__call__(step)
            taken.append(found[0])
            return found

    monkeypatch.setattr(pretraining, "Batches", Seen)
    starts, batches = [], []
    for optimizer in ("muon", "sgd"):
        run(make_pretrain(optimizer=optimizer, rates=(0.01, 0.3)), tmp_path / optimizer)
        starts.append(weights.load(tmp_path / optimizer, 0))
        batches.append(torch.cat(taken, dim=1))
        taken.clear()
    for inputs in batches:
        assert inputs[0].equal(inputs[2])
        assert inputs[1].equal(inputs[3])
        assert not inputs[0].equal(inputs[1])
    assert batches[0].equal(batches[1])
    for name, tensor in starts[0].items():
        assert tensor[:2].equal(tensor[2:]), name
        assert tensor.equal(starts[1][name]), name
        assert not tensor[0].equal(tensor[1]) or tensor[0].unique().numel() == 1, name


@pytest.mark.kernels
@pytest.mark.parametrize("optimizer", ["muon", "adamw", "sgd"])
def test_a_member_of_a_stack_is_the_run_made_alone(make_pretrain, run, tmp_path, optimizer):
    rates, seeds = (0.01, 0.03), (0, 3)
    together = run(make_pretrain(optimizer=optimizer, rates=rates, seeds=seeds), tmp_path / "together")
    alone = run(make_pretrain(optimizer=optimizer, rates=(0.03,), seeds=(3,)), tmp_path / "alone")
    found, expected = curves(together), curves(alone)
    assert found[0.03, 3] == pytest.approx(expected[0.03, 3], rel=1e-4)
    assert found[0.01, 3][-1] != pytest.approx(expected[0.03, 3][-1], rel=1e-3)
    kept, own = weights.load(tmp_path / "together", 6), weights.load(tmp_path / "alone", 6)
    for name, tensor in own.items():
        torch.testing.assert_close(kept[name][3], tensor[0], rtol=1e-3, atol=1e-4)


def test_a_rate_that_diverges_leaves_its_neighbours_alone(make_pretrain, run, tmp_path):
    result = run(make_pretrain(optimizer="sgd", rates=(0.01, 1e6)), tmp_path / "both")
    alone = run(make_pretrain(optimizer="sgd", rates=(0.01,)), tmp_path / "alone")
    for (rate, seed), losses in curves(alone).items():
        assert curves(result)[rate, seed] == pytest.approx(losses, rel=1e-4)
    for member in result["members"]:
        if member["rate"] == 0.01:
            assert member["diverged_at"] is None
        else:
            assert member["diverged_at"] in STEPS[1:]
            place = STEPS.index(member["diverged_at"])
            assert member["train_loss"][place] is None
            assert None not in member["train_loss"][:place]


@pytest.mark.kernels
def test_a_net_with_running_statistics_trains_one_member_after_the_other_and_says_why(
    make_pretrain, make_family, run, tmp_path
):
    family = make_family(net=BATCHNORM)
    result = run(make_pretrain(family, rates=(0.01, 0.03)), tmp_path / "both")
    assert "changes its buffers as it trains" in result["why_sequential"]
    assert result["why_sequential"] in (tmp_path / "both" / "log.txt").read_text()
    alone = run(make_pretrain(family, rates=(0.03,), seeds=(1,)), tmp_path / "alone")
    assert curves(result)[0.03, 1] == pytest.approx(curves(alone)[0.03, 1], rel=1e-4)
    kept = weights.load(tmp_path / "both", 6)
    assert not kept["buffer/stem_norm.running_mean"][0].equal(kept["buffer/stem_norm.running_mean"][2])


# -- what is measured on the way -------------------------------------------------------------------


def test_the_kept_weights_of_a_seed_have_the_accuracy_of_its_curve(pretrained, digits, make_state):
    last = read_lines(pretrained / "metrics.jsonl")[-1]
    models = weights.load_models([make_state()], (0, 1), pretrained, digits.builder(digits.judged))
    for member, measured in enumerate([subject(each.net, digits) for each in models]):
        number = pretraining.EVALUATED["classes"]
        for side, read in (("train", number // 4), ("validation", number)):
            judged = judge(measured, getattr(digits.judged, side).first(read))
            assert last[f"{side}_loss"][member] == pytest.approx(judged.loss, rel=1e-4)
            assert last[f"{side}_accuracy"][member] == pytest.approx(judged.accuracy, abs=1e-9)


def test_a_language_model_is_judged_by_every_token(words, make_pretrain):
    task = words.judged
    trained, reason = build_engine(words, task, make_pretrain().optimizer, [0.1, 0.1], [0, 1], "cpu")
    assert reason is None
    losses, accuracies = evaluate(trained, task.test)
    assert losses.shape == accuracies.shape == (2,)
    state = {name: each[1] for name, each in trained.tensors().items() if name.startswith("parameter/")}
    net = words.build(task)
    weights.put(net, {name.removeprefix("parameter/"): each for name, each in state.items()})
    judged = judge(subject(net.eval(), words), task.test)
    assert losses[1].item() == pytest.approx(judged.loss, rel=1e-5)
    assert accuracies[1].item() == pytest.approx(judged.accuracy, abs=1e-9)


@pytest.mark.parametrize("net", [None, BATCHNORM])
def test_counting_operations_changes_nothing_and_counts_those_of_all_members(digits, make_family, make_pretrain, net):
    found = digits if net is None else material.read(make_family(net=net))
    task = found.judged
    counts = []
    for seeds in ([0], [0, 1, 2]):
        trained, _ = build_engine(found, task, make_pretrain().optimizer, [0.1] * len(seeds), seeds, "cpu")
        before = trained.tensors()
        counts.append(count_flops(trained, Batches(*task.train, seeds, 16)))
        for name, tensor in trained.tensors().items():
            assert tensor.equal(before[name]), name
    assert counts[1] == 3 * counts[0]
    # Every product is forward, and backward once for its weight and once for its input, which the stem has no use for:
    # of the stem and of the block's two convolutions, at 8 x 8 pixels with kernels of 3 x 3, and of the head.
    stem, block, head = 2 * 16 * 64 * 9 * 8, 2 * 2 * 16 * 64 * 9 * 8 * 8, 2 * 16 * 8 * 5
    polar = 2 * 5 * (2 * 2 * 8 * 8 * 72 + 2 * 8 * 8 * 8)  # five steps for each of the two kernels, (8, 72)
    assert counts[0] == 2 * stem + 3 * (block + head) + polar


def small():
    return nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))


def trained(optimizer, rate):
    """Return the parameters of one member after four steps, and how to train the same net alone."""
    treated = optimizers.of_config(small(), optimizer, [{"lr": rate}])
    generator = torch.Generator().manual_seed(0)
    inputs, labels = torch.randn(16, 3, generator=generator), torch.randint(0, 2, (16,), generator=generator)
    members = Population(small, softmax_per_example, treated, (0,))
    for step in range(4):
        members.step(inputs[None], labels[None], step)
    return {name: p[0] for name, p in members.parameters.items()}, engine.drawn(small, 0, torch.float32), inputs, labels


def test_adam_of_this_study_is_torchs():
    found, alone, inputs, labels = trained(AdamW(coupled=True, weight_decay=0.3), 0.01)
    own = torch.optim.Adam(alone.parameters(), lr=0.01, betas=(0.9, 0.98), weight_decay=0.3)
    for _step in range(4):
        own.zero_grad()
        softmax_per_example(alone(inputs), labels).mean().backward()
        own.step()
    for name, p in alone.named_parameters():
        torch.testing.assert_close(found[name], p, rtol=1e-4, atol=1e-6)


def test_the_rest_of_muons_parameters_may_have_a_rate_of_its_own():
    one, _, _, _ = trained(Muon(), 0.01)
    ten, alone, _, _ = trained(Muon(adamw_factor=10.0), 0.01)
    start = dict(alone.named_parameters())
    moved = [{name: (p - start[name]).norm() for name, p in each.items()} for each in (one, ten)]
    assert moved[1]["0.bias"] > 5 * moved[0]["0.bias"]
    assert moved[1]["2.weight"] < 1.5 * moved[0]["2.weight"]

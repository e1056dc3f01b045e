"""Pretrained weights put to another task: which weights, fine-tuning, a linear probe."""

from itertools import product

import pytest
import torch

from muonlab.measure.probes import probe
from muonlab.studies.features.config import AdamW, Muon, Training, Transfer
from muonlab.studies.features.work import material, pretraining, transferring, weights
from muonlab.studies.features.work.pretraining import build_engine, streams_of
from muonlab.studies.features.work.robustness import judge
from muonlab.studies.features.work.states import hidden_states, subject
from muonlab.studies.features.work.transferring import start
from muonlab.study.optimizers import SGD

SHORT = Training(batch=16, budget=4, looks=2)
SEEDS = (0, 1)


@pytest.fixture(scope="module")
def make(make_family, make_state, pretrained):
    """A function that makes a transfer of the pretrained digits to the others; keywords replace fields."""

    def make(**fields):
        own = {"task": "classes", "weights": pretrained.name, "states": (make_state(),), "seeds": SEEDS}
        own |= {"is_final": True}
        if fields.get("mode") != "linear":
            own |= {"optimizer": SGD(), "training": SHORT, "rates": (0.01,)}
        return Transfer(**{"family": make_family()} | own | fields)

    return make


@pytest.fixture
def folder(pretrained, request):
    """A folder beside the weights, one for each test."""
    return pretrained.parent / request.node.name


@pytest.fixture
def by_hand(digits, tmp_path):
    """A folder "weights" with looks 0 and 5 of three members, each of values that say which they are."""
    net = digits.build(digits.judged)
    (tmp_path / "weights").mkdir()
    for step in (0, 5):
        rows = {name: torch.stack([each * 0 + step + member / 10 for member in range(3)]) for name, each in _own(net)}
        weights.save(tmp_path / "weights", step, rows)
    return tmp_path


def _own(net):
    return [(f"parameter/{name}", each.detach()) for name, each in net.named_parameters()]


# -- from which weights ----------------------------------------------------------------------------


def test_a_new_task_has_a_new_head_and_all_else_is_pretrained(pretrained, digits):
    kept = weights.load(pretrained, 40)
    new = build_engine(digits, digits.transfers["classes"], SGD(), [0.1] * 3, [7, 8, 9], "cpu")[0].tensors()
    found = start(new, kept, [1, 0, 1], {"head"})
    assert found.keys() == new.keys()
    for name, tensor in found.items():
        if name.startswith("parameter/head."):
            assert tensor.equal(new[name]), name
        elif name.startswith("parameter/"):
            assert tensor.equal(kept[name][[1, 0, 1]]), name
        else:
            assert tensor.equal(new[name]), name
    assert not found["parameter/head.weight"].equal(kept["parameter/head.weight"][[1, 0, 1]])


@pytest.mark.parametrize(
    ("kept", "words"),
    [
        ({"parameter/a": torch.ones(2, 3), "parameter/b": torch.ones(2, 1)}, r"parameter/a is \(3,\), expected \(4,\)"),
        ({"parameter/a": torch.ones(2, 4)}, r"parameter/b is nothing, expected \(1,\)"),
        (
            {"parameter/a": torch.ones(2, 4), "parameter/b": torch.ones(2, 1), "buffer/c": torch.ones(2, 5)},
            r"buffer/c is \(5,\), expected nothing",
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name(kept, words):
    new = {"parameter/a": torch.zeros(2, 4), "parameter/b": torch.zeros(2, 1), "state/a/m": torch.zeros(2, 4)}
    with pytest.raises(ValueError, match=f"the weights do not fit the net: {words}"):
        start(new, kept, [0, 1], {"head"})


def test_a_member_goes_on_from_the_weights_of_its_own_seed(make, make_state, run, by_hand, monkeypatch):
    # Seed 2 has no weights, as it diverged; those after it must not take its place.
    state = make_state(seeds=(4, 9), steps=(0, 5))
    job = make(weights="weights", seeds=(4, 2, 9), states=(state,), rates=(0.01, 0.03))
    seen = {}

    def stop(engine, *_, **__):
        seen.update(engine.tensors())
        raise KeyboardInterrupt

    monkeypatch.setattr(transferring, "fine_tune", stop)
    with pytest.raises(KeyboardInterrupt):
        run(job, by_hand / "job")
    values = [0, 5.2, 0, 5.2]  # rates, and seeds in each
    for name, tensor in seen.items():
        if name.startswith("parameter/") and not name.startswith("parameter/head."):
            assert tensor.flatten(1)[:, 0].tolist() == pytest.approx(values), name
    head = seen["parameter/head.weight"]
    assert head[0].equal(head[2])
    assert not head[0].equal(head[1])


def test_new_weights_are_those_of_the_seed_whoever_trains_them(make, make_family, run, folder, digits):
    results = [
        run(make(weights=None, states=(), optimizer=optimizer), folder / optimizer.name)
        for optimizer in (SGD(), AdamW())
    ]
    first, second = ([member["validation_loss"][0] for member in result["members"]] for result in results)
    assert first == second
    assert first[0] != first[1]
    task = digits.transfers["classes"]
    fresh, _ = build_engine(digits, task, SGD(), [0.1, 0.1], list(streams_of(make_family(), SEEDS)), "cpu")
    assert pretraining.evaluate(fresh, task.validation)[0].tolist() == pytest.approx(first, rel=1e-5)


# -- fine-tuning -----------------------------------------------------------------------------------


def test_the_result_says_what_was_seen_and_the_test_set_is_read_at_the_best_look(make, run, folder, digits):
    seen = []
    training = Training(batch=32, budget=40, looks=4, patience=None)
    result = run(make(optimizer=Muon(), training=training, rates=(0.01, 0.02)), folder, report=seen.append)
    assert result["steps"] == list(training.steps)
    assert (result["num_train"], result["num_validation"], result["num_test"]) == (537, 134, 225)
    assert [(member["rate"], member["seed"]) for member in result["members"]] == [*product((0.01, 0.02), SEEDS)]
    for member in result["members"]:
        losses = member["validation_loss"]
        assert result["steps"][losses.index(min(losses))] == member["best_step"]
        assert member["is_last"] == (member["best_step"] == 40)
        assert min(losses) < losses[0]
        assert member["test_accuracy"] > result["chance"] + 0.1
    assert all(event["budget"] == 40 for event in seen)
    assert result["chance"] == digits.transfers["classes"].test.chance


def test_running_statistics_are_transferred_too(make, make_family, make_pretrain, make_state, run, tmp_path):
    family = make_family(net={"norm": "batch"})
    run(make_pretrain(family), tmp_path / "batch")
    state = make_state(steps=(6, 6))
    result = run(make(family=family, weights="batch", states=(state,)), tmp_path / "transferred")
    assert "changes its buffers" in result["why_sequential"]
    read = material.read(family)
    new, _ = build_engine(read, read.transfers["classes"], SGD(), [0.1, 0.1], [0, 1], "cpu")
    kept = weights.load(tmp_path / "batch", 6)
    found = start(new.tensors(), kept, [0, 1], {"head"})
    for name, tensor in kept.items():
        if name.startswith("buffer/"):
            assert found[name].equal(tensor), name
            assert found[name].dtype == tensor.dtype, name
            assert not tensor.equal(new.tensors()[name]), name


@pytest.mark.parametrize("task", ["language", "classes"])
def test_a_language_model_is_transferred_to_another_text_and_to_classes(
    make, make_family, make_pretrain, make_state, run, tmp_path, words, task
):
    family = make_family("gpt")
    run(make_pretrain(family, training={"budget": 8, "looks": 2}), tmp_path / "text")
    result = run(
        make(family=family, task=task, weights="text", states=(make_state(steps=(8, 8)),), rates=(0.0,)),
        tmp_path / "transferred",
    )
    assert result["num_test"] == len(words.transfers[task].test.labels)
    if task == "language":
        # With a rate of zero, the pretrained weights themselves are judged, their head among them.
        models = weights.load_models([make_state(steps=(8, 8))], SEEDS, tmp_path / "text", words.builder(words.judged))
        subjects = [subject(each.net, words) for each in models]
        for measured, member in zip(subjects, result["members"], strict=True):
            judged = judge(measured, words.transfers["language"].test)
            assert member["test_loss"] == pytest.approx(judged.loss, rel=1e-5)
            assert member["test_accuracy"] == pytest.approx(judged.accuracy)


# -- a linear probe --------------------------------------------------------------------------------


def test_a_linear_probe_is_that_of_the_last_hidden_states(make, make_state, run, folder, digits, few, pretrained):
    states = (make_state(), make_state("matched", seeds=(1,), steps=(0,)))
    seen = []
    result = run(make(mode="linear", states=states, measuring=few), folder, report=seen.append)
    assert [(own["state"], own["seed"], own["step"]) for own in result["members"]] == [
        ("final", 0, 40),
        ("final", 1, 40),
        ("matched", 1, 0),
    ]
    task = digits.transfers["classes"]
    sets = task.train.first(few.probe_train), task.validation.first(few.probe_validation), task.test
    models = weights.load_models(states, SEEDS, pretrained, digits.builder(digits.judged))
    subjects = [subject(each.net, digits) for each in models]
    problems = [[hidden_states(each, part.inputs, "mean_pixels") for part in sets] for each in subjects]
    fitted = probe(
        *(([own[k]["blocks.0"] for own in problems], part.labels) for k, part in enumerate(sets)),
        num_classes=5,
    )
    for k, own in enumerate(result["members"]):
        assert own["validation_accuracy"] == pytest.approx(fitted.validation_accuracy[k].item())
        assert own["test_accuracy"] == pytest.approx(fitted.test_accuracy[k].item())
        assert own["is_edge"] == fitted.is_edge[k].item()
        assert own["test_accuracy"] > result["chance"] + 0.2
    assert result["num_test"] == 225
    assert seen[-1]["alive"] == 3

import math

import numpy as np
import pytest
import torch

from muonlab.studies.components.config import Components, Net
from muonlab.studies.components.theory import measures
from muonlab.studies.components.theory.flows import weights
from muonlab.studies.components.work import values
from muonlab.studies.components.work.material import LOSSES, build_material, build_net, build_problem
from muonlab.studies.components.work.values import Forward, Measured, losses, measure, plain

PROBLEM = Components(classes=4, dimension=6, train=24, validation=20, test=28, noise=0.3, imbalance=2, spurious=1)
PLACES = torch.tensor([1, 0, 1])


@pytest.fixture(scope="module")
def seen():
    return {name: each[PLACES] for name, each in build_material(PROBLEM, (3, 4), "cpu").items()}


def drawn(depth, scale=1.0):
    """A net, and the parameters (M, ...) of three models of it."""
    generator = torch.Generator().manual_seed(depth)
    net = build_net(PROBLEM, Net(depth=depth, width=5))
    return net, {name: scale * torch.randn(3, *p.shape, generator=generator) for name, p in net.state_dict().items()}


def measured(net, parameters, seen, spurious=1):
    return measure(Forward(net), LOSSES["softmax"], parameters, seen, spurious)


def margins(logits, labels):
    behind = np.where(np.eye(logits.shape[1], dtype=bool)[labels], -np.inf, logits).max(1)
    return logits[np.arange(len(labels)), labels] - behind


def by_hand(net, parameters, numbers):
    """Every measure of one model, with numpy, from the net's own answers."""
    net.load_state_dict(parameters)
    with torch.no_grad():
        answers = {name: net(x.float()).double().numpy() for name, x in numbers.items() if x.shape[-1] == 6}
        hidden = numbers["test"]
        for block in getattr(net, "blocks", ()):
            hidden = block(hidden)
    labels = {name: numbers[f"{name}_labels"].numpy() for name in ("validation", "test")}
    matrices = [p.double().numpy() for p in parameters.values() if p.ndim == 2]
    components = np.array([v @ answers["marked"] @ v for v in numbers["patterns"].numpy().T])
    of_classes, test = margins(answers["means"], np.arange(4)), answers["test"]
    ranked = {
        "weights": matrices,
        "logits": [answers["means"] - answers["means"].mean(1, keepdims=True)],
        "hidden": [hidden.double().numpy()] if len(matrices) > 1 else [],
    }
    ranks = {
        f"rank_{name}{form}": np.mean([measures.effective_ranks(np.linalg.svd(m, compute_uv=False))[k] for m in found])
        if found
        else math.nan
        for name, found in ranked.items()
        for k, form in enumerate(("", "_sigma"))
    }
    accuracies = {
        "validation_accuracy": ("validation", "validation"),
        "test_accuracy": ("test", "test"),
        "accuracy_removed": ("removed", "test"),
        "accuracy_swapped": ("swapped", "test"),
    }
    return {
        **{name: (answers[side].argmax(1) == labels[own]).mean() for name, (side, own) in accuracies.items()},
        **ranks,
        "test_loss": (np.log(np.exp(test).sum(1)) - test[np.arange(28), labels["test"]]).mean(),
        "margin_worst": of_classes.min(),
        "margin_mean": of_classes.mean(),
        "margin_worst_by_norm": of_classes.min() / math.prod(np.linalg.norm(matrix, 2) for matrix in matrices),
        "margin_test_median": np.median(margins(test, labels["test"])),
        "component_margins": components,
        "component_margin_worst": components[:2].min(),
        "weight_norm": math.sqrt(sum((matrix**2).sum() for matrix in matrices)),
    }


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_every_measure_of_every_model_is_that_of_numpy(depth, seen):
    net, parameters = drawn(depth)
    before = {name: p.clone() for name, p in net.state_dict().items()}
    found = measured(net, parameters, seen)
    assert all(p.equal(before[name]) for name, p in net.state_dict().items())  # it is read without changing it
    for model in range(3):
        own = ({name: each[model] for name, each in held.items()} for held in (parameters, seen))
        expected = by_hand(build_net(PROBLEM, Net(depth=depth, width=5)), *own)
        assert set(found) == set(expected)
        for name, value in expected.items():
            np.testing.assert_allclose(found[name][model], value, rtol=1e-4, atol=1e-6, err_msg=name)


def test_without_noise_the_measures_of_a_linear_classifier_are_those_of_the_theory():
    given = Components(classes=8, dimension=16, noise=0, train=8, validation=8, test=8)
    problem = build_problem(given, 5)
    W = weights(problem, np.linspace(1.5, 0.5, 7))
    parameters = {"linear.weight": torch.from_numpy(W)[None].float()}
    found = measured(build_net(given, Net()), parameters, build_material(given, (5,), "cpu"), 0)
    expected = measures.summary(problem, W)
    assert float(found["test_loss"]) == pytest.approx(expected.pop("loss"), rel=1e-5)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name][0], value, rtol=1e-4, err_msg=name)


def test_what_there_is_not_is_nan(seen):
    net, parameters = drawn(0, scale=0.0)
    found = measured(net, parameters, seen)
    for name in ("margin_worst_by_norm", "rank_weights", "rank_weights_sigma", "rank_logits", "rank_logits_sigma"):
        assert found[name].isnan().all()  # weights of zero have no direction
    for name in ("margin_worst", "component_margins", "weight_norm"):
        assert not found[name].any()
    assert measured(*drawn(0), seen, spurious=3)["component_margin_worst"].isnan().all()


@pytest.mark.parametrize(("depth", "value"), [(0, math.nan), (2, math.inf), (2, 1e38)])
def test_a_model_that_is_not_finite_has_no_measures_and_the_others_theirs(depth, value, seen):
    net, parameters = drawn(depth)
    sound = measured(net, parameters, seen)
    next(iter(parameters.values()))[1] = value  # at 1e38 the logits overflow
    for name, wrong in measured(net, parameters, seen).items():
        assert wrong[1].isnan().all()
        torch.testing.assert_close(wrong[[0, 2]], sound[name][[0, 2]], equal_nan=True)


@pytest.mark.parametrize("loss", LOSSES)
def test_losses_are_means_over_a_models_own_examples(loss, seen):
    net, parameters = drawn(1)
    found = losses(Forward(net), LOSSES[loss], parameters, seen["train"], seen["train_labels"])
    assert found.dtype == torch.float64
    for model in range(3):
        net.load_state_dict({name: p[model] for name, p in parameters.items()})
        with torch.no_grad():
            expected = LOSSES[loss](net(seen["train"][model]), seen["train_labels"][model]).mean()
        torch.testing.assert_close(found[model], expected.double(), rtol=1e-5, atol=1e-7)


# -- many at once ----------------------------------------------------------------------------------


def make_measured(calls):
    def read(parameters, places):
        calls.append(len(places))
        total = parameters["w"].flatten(1).sum(1)
        return {"total": total, "both": torch.stack([total, places.float()], 1), "none": total / 0 * 0}

    return Measured(read, places=[5, 6, 7])


def stacks(*values):
    return {"w": torch.tensor(values)[:, None].repeat(1, 2)}


def test_measures_are_those_of_the_member_at_that_evaluation():
    found, later = make_measured([]), stacks(1.0, 2.0)
    found.add(2, 0, later, row=1)
    found.add(0, 3, stacks(4.0), row=0)
    later["w"] += 1  # later steps do not change what waits
    assert found[2, 0] == {"total": 4.0, "both": [4.0, 7.0], "none": None}
    assert found[0, 3]["both"] == [8.0, 5.0]


def test_many_are_measured_at_once_and_each_only_once(monkeypatch):
    monkeypatch.setattr(values, "MODELS", 3)
    calls = []
    found = make_measured(calls)
    for number in range(5):
        found.add(0, number, stacks(float(number)), row=0)
    found.add(0, 1, stacks(9.0), row=0)  # it is known
    assert calls == [3]
    assert [found[0, number]["total"] for number in range(5)] == [0, 2, 4, 6, 8]
    assert calls == [3, 2]


def test_what_is_not_finite_is_none():
    assert plain([1.0, math.nan, [math.inf]]) == [1.0, None, [None]]

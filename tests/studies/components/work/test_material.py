import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from muonlab import losses
from muonlab.nets.mlp import MLP, LinearClassifier
from muonlab.rules import adamw, muon
from muonlab.studies.components.config import Components, Muon, Net
from muonlab.studies.components.theory.problem import build
from muonlab.studies.components.work.material import (
    build_material,
    build_net,
    build_problem,
    draw,
    means,
    removed,
    softmax,
    squared,
    streams,
    swapped,
    treatments,
)

# -- examples of one problem -----------------------------------------------------------------------


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def problem():
    return build(classes=8, dimension=16, seed=3)


@given(number=st.integers(1, 300), imbalance=st.floats(1, 20), classes=st.integers(2, 9))
@settings(max_examples=30, deadline=None)
def test_every_class_has_its_share_rounded(number, imbalance, classes):
    problem = build(classes=classes, dimension=8, imbalance=imbalance)
    counts = draw(problem, number, generator()).labels.bincount(minlength=classes).numpy()
    assert counts.sum() == number
    assert (abs(counts - number * problem.priors) < 1).all()


def test_examples_follow_from_the_generator_and_noise_is_added_to_the_same_ones(problem):
    clean, noisy, other = (
        draw(problem, 2000, generator(seed), noise=noise, dtype=torch.float64)
        for seed, noise in ((0, 0.0), (0, 0.3), (1, 0.0))
    )
    np.testing.assert_allclose(clean.inputs, problem.means[clean.labels], atol=1e-12)
    assert clean.labels.equal(noisy.labels)
    assert not clean.labels.equal(other.labels)
    assert not clean.labels.equal(clean.labels.sort().values)
    away = noisy.inputs - clean.inputs
    assert away.std(dim=0).sub(0.3).abs().max() < 0.3 * 4 / 4000**0.5  # four standard errors of a deviation
    assert away.mean(0).abs().max() < 0.3 * 4 / 2000**0.5


def least_squares_accuracy(inputs, labels, new_inputs, new_labels):
    """Accuracy on new examples of the linear least-squares classifier with an intercept."""
    targets = np.eye(8)[labels]
    weights = np.linalg.lstsq(np.c_[inputs, np.ones(len(inputs))], targets, rcond=None)[0]
    return float((np.c_[new_inputs, np.ones(len(new_inputs))] @ weights).argmax(1).__eq__(new_labels).mean())


def test_spurious_components_tell_nothing_of_the_class_and_the_others_all(problem):
    seen = [draw(problem, 4000, generator(seed), spurious=4) for seed in (0, 1)]
    (train, labels), (test, new) = ((each.coefficients.numpy(), each.labels.numpy()) for each in seen)
    at_chance = least_squares_accuracy(train[:, -4:], labels, test[:, -4:], new)
    assert abs(at_chance - 1 / 8) < 4 * (1 / 8 * 7 / 8 / 4000) ** 0.5
    # Two levels of a tree of eight classes are left: pairs of classes.
    assert abs(least_squares_accuracy(train[:, :3], labels, test[:, :3], new) - 1 / 2) < 4 * (0.25 / 4000) ** 0.5
    np.testing.assert_array_equal(train[:, :3], problem.patterns[labels, :3])
    known = {tuple(row) for row in problem.patterns[:, -4:].round(12)}  # those of an example are of one class
    assert {tuple(row) for row in train[:, -4:].round(12)} <= known


@pytest.mark.parametrize("spurious", [0, 2])
def test_means_are_those_of_many_examples(spurious):
    problem = build(classes=8, dimension=16, imbalance=5.0)
    examples = draw(problem, 40_000, generator(), noise=0.1, spurious=spurious)
    for label, mean in enumerate(means(problem, spurious)):
        seen = examples.inputs[examples.labels == label].double()
        errors = (seen.mean(0) - mean) / (seen.std(0) / len(seen) ** 0.5)
        assert errors.abs().max() < 5
    np.testing.assert_allclose(means(problem), problem.means, atol=1e-12)


def test_what_is_removed_is_gone_and_all_else_stays():
    problem = build(classes=6, tree=(3, 2), dimension=16)  # two components on the strongest level
    examples = draw(problem, 60, generator(), noise=0.2, spurious=2, dtype=torch.float64)
    lost = (examples.inputs - removed(problem, examples)) @ torch.from_numpy(problem.directions)
    expected = examples.coefficients * torch.from_numpy(problem.strengths)
    torch.testing.assert_close(lost[:, :2], expected[:, :2])
    assert lost[:, 2:].abs().max() < 1e-12


def test_what_is_swapped_is_that_of_another_class_and_all_else_stays():
    problem = build(classes=6, dimension=8, patterns="random")  # each class has a coefficient of its own
    examples = draw(problem, 600, generator(), dtype=torch.float64)
    along = torch.from_numpy(problem.directions)
    coefficients = swapped(problem, examples, generator(1)) @ along / torch.from_numpy(problem.strengths)
    torch.testing.assert_close(coefficients[:, 1:], examples.coefficients[:, 1:])
    of_class = torch.from_numpy(problem.patterns[:, 0])
    taken = (coefficients[:, :1] - of_class).abs().argmin(1)
    torch.testing.assert_close(coefficients[:, 0], of_class[taken])
    assert (taken != examples.labels).all()
    pairs = torch.zeros(6, 6).index_put_((examples.labels, taken), torch.ones(600), accumulate=True)
    assert (pairs.fill_diagonal_(20) > 5).all()  # 20 each, drawn evenly


# -- all seeds of a job ----------------------------------------------------------------------------

PROBLEM = Components(classes=4, dimension=6, train=24, validation=20, test=28, noise=0.2, spurious=1)


def test_the_streams_of_a_seed_follow_from_problem_and_net_and_from_nothing_else(make_job):
    own = streams(make_job(seeds=(0, 5), search_seeds=(9,)))
    assert list(own) == [9, 0, 5]
    assert len(set(own.values())) == 3
    for same in ({"optimizer": {"name": "muon"}}, {"rates": (3.0,)}, {"eps": (0.1,)}, {"budget": 7}, {"batch": 8}):
        assert streams(make_job(**same))[0] == own[0]
    for other in ({"components": {"noise": 0.2}}, {"net": {"depth": 1}}):
        assert streams(make_job(**other))[0] != own[0]


def test_a_seed_has_the_material_that_it_has_alone_and_another_one_other_directions():
    together, alone = build_material(PROBLEM, (7, 8), "cpu"), build_material(PROBLEM, (8,), "cpu")
    assert together["train"].shape == (2, 24, 6)
    for name, tensor in together.items():
        assert tensor[1].equal(alone[name][0]), name
    assert not together["train"][0].equal(together["train"][1])
    first, second = (build_problem(PROBLEM, seed).directions for seed in (1, 2))
    assert abs(first - second).max() > 0.1


def test_the_sides_share_no_noise_and_the_labels_of_changed_inputs_are_those_of_the_test():
    material = build_material(PROBLEM, (1,), "cpu")
    assert material["validation"].shape == (1, 20, 6)
    rows = torch.cat([material["train"], material["validation"], material["test"]], 1)[0]
    assert torch.cdist(rows, rows).fill_diagonal_(1).min() > 1e-3
    problem = build_problem(PROBLEM, 1)
    along = torch.from_numpy(problem.directions[:, 0]).float()
    assert (material["removed"][0] @ along - material["test"][0] @ along).abs().min() > 0.1
    assert not material["swapped"].equal(material["test"])
    torch.testing.assert_close(material["marked"][0], torch.from_numpy(problem.means).float())
    assert (material["means"] - material["marked"]).abs().max() > 0.1


# -- what is trained -------------------------------------------------------------------------------

LOGITS = torch.randn(9, 5, generator=generator())
LABELS = torch.arange(9) % 5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_softmax_is_that_of_the_other_studies_with_its_gradient(dtype):
    found = []
    for loss in (softmax, losses.softmax):
        logits = LOGITS.to(dtype).requires_grad_()
        value = loss(logits, LABELS)
        found.append((value.detach(), torch.autograd.grad(value.sum(), logits)[0]))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_the_squared_loss_is_half_the_squared_distance_to_centred_labels():
    targets = F.one_hot(LABELS, 5).float() - 0.2
    expected = 0.5 * F.mse_loss(LOGITS, targets, reduction="none").sum(1)
    torch.testing.assert_close(squared(LOGITS, LABELS), expected)


def test_a_net_without_hidden_layers_is_linear_from_zero_and_the_others_are_perceptrons():
    linear = build_net(Components(), Net())
    assert isinstance(linear, LinearClassifier)
    assert [(name, p.shape) for name, p in linear.named_parameters()] == [("linear.weight", (8, 32))]
    assert not linear.linear.weight.any()
    deep = build_net(Components(), Net(depth=2, width=16, activation="gelu"))
    assert isinstance(deep, MLP)
    assert (len(deep.blocks), deep.head.weight.shape, deep.blocks[0].activation) == (2, (8, 16), "gelu")


def test_muon_takes_every_matrix_without_a_scale_and_adamw_the_biases_at_the_same_rate():
    net = build_net(Components(), Net(depth=1))
    treated = treatments(net, Muon(momentum=0.5, method="exact", weight_decay=0.1), (0.1, 0.2))
    assert {name: each.rule for name, each in treated.items()} == {
        f"{layer}.{kind}": rule
        for layer in ("blocks.0.linear", "head")
        for kind, rule in (("weight", muon), ("bias", adamw))
    }
    for each in treated.values():
        assert each.hyper["lr"].tolist() == [0.1, 0.2]
        assert each.hyper["weight_decay"] == 0.1
    hyper = treated["head.weight"].hyper
    found = [hyper[key] for key in ("adjust_lr_fn", "momentum", "method", "nesterov")]
    assert found == ["none", 0.5, "exact", True]

import pytest
import torch
import torch.nn.functional as F

from muonlab import losses
from muonlab.nets.mlp import MLP, LinearClassifier
from muonlab.rules import adamw, muon
from muonlab.studies.components.config import Components, Muon, Net
from muonlab.studies.components.work.material import (
    build_material,
    build_net,
    build_problem,
    softmax,
    squared,
    streams,
    treatments,
)

PROBLEM = Components(classes=4, dimension=6, train=24, validation=20, test=28, noise=0.2, spurious=1)


def test_the_streams_of_a_seed_follow_from_problem_and_net_and_from_nothing_else(make_job):
    own = streams(make_job(seeds=(0, 5), search_seeds=(9,)))
    assert list(own) == [9, 0, 5]
    assert len(set(own.values())) == 3
    for same in ({"optimizer": {"name": "muon"}}, {"rates": (3.0,)}, {"eps": (0.1,)}, {"budget": 7}, {"batch": 8}):
        assert streams(make_job(**same))[0] == own[0]
    for other in ({"components": {"noise": 0.2}}, {"net": {"depth": 1}}):
        assert streams(make_job(**other))[0] != own[0]


def test_a_seed_has_the_material_that_it_has_alone():
    together, alone = build_material(PROBLEM, (7, 8), "cpu"), build_material(PROBLEM, (8,), "cpu")
    assert together.train.shape == (2, 24, 6)
    for name, tensor in vars(together).items():
        assert tensor[1].equal(getattr(alone, name)[0]), name
    assert not together.train[0].equal(together.train[1])


def test_every_seed_has_directions_of_its_own():
    first, second = (build_problem(PROBLEM, seed).directions for seed in (1, 2))
    assert abs(first - second).max() > 0.1


def test_the_sides_share_no_noise_and_the_labels_of_changed_inputs_are_those_of_the_test():
    material = build_material(PROBLEM, (1,), "cpu")
    assert material.validation.shape == (1, 20, 6)
    rows = torch.cat([material.train, material.validation, material.test], 1)[0]
    assert torch.cdist(rows, rows).fill_diagonal_(1).min() > 1e-3
    problem = build_problem(PROBLEM, 1)
    along = torch.from_numpy(problem.directions[:, 0]).float()
    assert (material.removed[0] @ along - material.test[0] @ along).abs().min() > 0.1
    assert not material.swapped.equal(material.test)
    torch.testing.assert_close(material.marked[0], torch.from_numpy(problem.means).float())
    assert (material.means - material.marked).abs().max() > 0.1


def test_the_material_of_models_is_that_of_their_seeds():
    material = build_material(PROBLEM, (7, 8), "cpu")
    chosen = material.of(torch.tensor([1, 1, 0]))
    for name, tensor in vars(material).items():
        assert getattr(chosen, name).equal(tensor[[1, 1, 0]])


# -- what is trained -----------------------------------------------------------------------------------

LOGITS = torch.randn(9, 5, generator=torch.Generator().manual_seed(0))
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
    assert squared(targets, LABELS).abs().max() < 1e-12


def test_a_net_without_hidden_layers_is_linear_from_zero_and_the_others_are_perceptrons():
    linear = build_net(Components(), Net())
    assert isinstance(linear, LinearClassifier)
    assert [(name, p.shape) for name, p in linear.named_parameters()] == [("linear.weight", (8, 32))]
    assert not linear.linear.weight.any()
    deep = build_net(Components(), Net(depth=2, width=16, activation="gelu"))
    assert isinstance(deep, MLP)
    assert len(deep.blocks) == 2
    assert deep.head.weight.shape == (8, 16)
    assert deep.blocks[0].activation == "gelu"


def test_muon_takes_every_matrix_without_a_scale_and_adamw_the_biases_at_the_same_rate():
    net = build_net(Components(), Net(depth=1))
    treated = treatments(net, Muon(momentum=0.5, method="exact", weight_decay=0.1), (0.1, 0.2))
    assert {name: each.rule for name, each in treated.items()} == {
        "blocks.0.linear.weight": muon,
        "blocks.0.linear.bias": adamw,
        "head.weight": muon,
        "head.bias": adamw,
    }
    for each in treated.values():
        assert each.hyper["lr"].tolist() == [0.1, 0.2]
        assert each.hyper["weight_decay"] == 0.1
    hyper = treated["head.weight"].hyper
    assert (hyper["adjust_lr_fn"], hyper["momentum"], hyper["method"], hyper["nesterov"]) == (
        "none",
        0.5,
        "exact",
        True,
    )

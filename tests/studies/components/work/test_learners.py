import pytest
import torch
import torch.nn.functional as F

from muonlab import losses
from muonlab.nets.mlp import MLP, LinearClassifier
from muonlab.rules import adamw, muon, sgd
from muonlab.studies.components.config import SGD, AdamW, Components, Muon, Net
from muonlab.studies.components.work.learners import LOSSES, build_net, softmax, squared, treatments

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


@pytest.mark.parametrize("loss", LOSSES.values())
def test_a_loss_stacks(loss):
    stacked = torch.stack([LOGITS, -LOGITS])
    labels = torch.stack([LABELS, LABELS.flip(0)])
    alone = torch.stack([loss(each, own) for each, own in zip(stacked, labels, strict=True)])
    torch.testing.assert_close(torch.func.vmap(loss)(stacked, labels), alone)


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


@pytest.mark.parametrize(("optimizer", "rule"), [(SGD(momentum=0.3), sgd), (AdamW(beta1=0.3), adamw)])
def test_the_others_take_all_parameters(optimizer, rule):
    treated = treatments(build_net(Components(), Net(depth=1)), optimizer, (0.1,))
    assert {each.rule for each in treated.values()} == {rule}
    assert 0.3 in treated["head.bias"].hyper.values()

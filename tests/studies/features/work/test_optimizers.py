import pytest
import torch

from muonlab.nets.gpt import GPT
from muonlab.nets.resnet import ResNet
from muonlab.nets.vit import ViT
from muonlab.rules import adamw, muon, sgd
from muonlab.studies.features.config import SGD, AdamW, Muon
from muonlab.studies.features.work.optimizers import treatments

CNN = ResNet(5, channels=1, image_size=8, width=8, depths=(1, 1), norm="group", groups=4)
VIT = ViT(5, channels=1, image_size=8, patch=2, depth=1, width=12, heads=3, pooling="class")
TEXT = GPT(20, 3, depth=1, width=8, heads=2, context=8)
UNTIED = GPT(20, depth=1, width=8, heads=2, context=8, tied=False)


@pytest.mark.parametrize(
    ("net", "expected"),
    [
        (CNN, {f"blocks.{k}.{name}" for k in (0, 1) for name in ("conv1.weight", "conv2.weight")}),
        (VIT, None),
        (TEXT, None),
        (UNTIED, None),
    ],
    ids=["cnn", "vit", "classifier", "language"],
)
def test_muon_takes_the_hidden_matrices_and_adamw_all_else(net, expected):
    treated = treatments(net, Muon(), [0.1])
    assert treated.keys() == dict(net.named_parameters()).keys()
    taken = {name for name, treatment in treated.items() if treatment.rule is muon}
    assert {treatment.rule for treatment in treated.values()} == {muon, adamw}
    for name, p in net.named_parameters():
        assert (name in taken) == (name.startswith("blocks.") and p.ndim > 1), name
    if expected is not None:
        assert expected <= taken


def test_muon_sees_a_kernel_as_a_matrix_and_its_steps_have_the_size_of_those_of_adamw():
    treated = treatments(CNN, Muon(momentum=0.8, weight_decay=0.3, beta1=0.7), [0.1])
    kernel, head = treated["blocks.0.conv1.weight"], treated["head.weight"]
    assert kernel.flatten
    assert kernel.seen(torch.zeros(2, 8, 4, 3, 3), 1).shape == (2, 8, 36)
    assert kernel.hyper == {"lr": 0.1, "momentum": 0.8, "weight_decay": 0.3, "adjust_lr_fn": "match_rms_adamw"}
    assert head.hyper == {"lr": 0.1, "weight_decay": 0.3, "beta1": 0.7, "beta2": 0.98, "eps": 1e-8}
    assert not head.flatten


@pytest.mark.parametrize(("optimizer", "rule"), [(AdamW(), adamw), (SGD(), sgd)])
def test_the_others_take_every_parameter_alike(optimizer, rule):
    treated = treatments(CNN, optimizer, [0.1])
    assert treated.keys() == dict(CNN.named_parameters()).keys()
    for treatment in treated.values():
        assert treatment.rule is rule
        assert treatment.hyper == {"lr": 0.1, **optimizer.model_dump(exclude={"name"})}


@pytest.mark.parametrize("optimizer", [Muon(), AdamW(), SGD()], ids=lambda each: each.name)
def test_one_rate_is_a_number_and_several_are_a_tensor_by_member(optimizer):
    for treatment in treatments(CNN, optimizer, [0.1, 0.1]).values():
        assert treatment.hyper["lr"] == 0.1
        assert isinstance(treatment.hyper["lr"], float)
    for treatment in treatments(CNN, optimizer, [0.1, 0.1, 0.3]).values():
        assert treatment.hyper["lr"].dtype == torch.float64
        assert treatment.hyper["lr"].tolist() == [0.1, 0.1, 0.3]

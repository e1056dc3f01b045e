import pytest
import torch
from torch import nn

from muonlab.losses import softmax
from muonlab.nets.gpt import GPT
from muonlab.nets.mlp import MLP
from muonlab.nets.resnet import ResNet
from muonlab.nets.vit import ViT
from muonlab.rules import adamw, muon, sgd
from muonlab.train.optimizers import by_member, factories, treatments
from muonlab.train.population import Population

NETS = {
    "cnn": ResNet(5, channels=1, image_size=8, width=8, depths=(1, 1), norm="group", groups=4),
    "vit": ViT(5, channels=1, image_size=8, patch=2, depth=1, width=12, heads=3, pooling="class"),
    "classifier": GPT(20, 3, depth=1, width=8, heads=2, context=8),
    "language": GPT(20, depth=1, width=8, heads=2, context=8, tied=False),
}


def taken(net, **options):
    return {name for name, each in treatments(net, "muon", {"lr": 0.1}, **options).items() if each.rule is muon}


@pytest.mark.parametrize("net", NETS.values(), ids=NETS)
def test_muon_takes_the_hidden_matrices_and_adamw_all_else(net):
    treated = treatments(net, "muon", {"lr": 0.1}, others={"lr": 0.2}, stems=("stem",))
    for name, p in net.named_parameters():
        is_hidden = name.startswith("blocks.") and p.ndim > 1
        assert treated[name].rule is (muon if is_hidden else adamw), name
        assert treated[name].hyper == {"lr": 0.1 if is_hidden else 0.2}


def test_what_muon_takes_can_be_chosen():
    net = nn.ModuleDict({"embedding": nn.Embedding(4, 3), "hidden": nn.Linear(3, 3), "head": nn.Linear(3, 2)})
    assert taken(net) == {"hidden.weight"}
    assert taken(net, takes="hidden+head") == {"hidden.weight", "head.weight"}
    assert taken(net, takes="hidden+embedding") == {"hidden.weight", "embedding.weight"}
    assert taken(net, takes="matrices") == {"hidden.weight", "head.weight", "embedding.weight"}
    assert taken(MLP(4, 3, depth=1, width=5), takes="matrices") == {"blocks.0.linear.weight", "head.weight"}


def test_muon_may_see_a_kernel_as_a_matrix():
    treated = treatments(NETS["cnn"], "muon", {}, flatten=True)
    assert treated["blocks.0.conv1.weight"].seen(torch.zeros(2, 8, 4, 3, 3), 1).shape == (2, 8, 36)
    assert not treated["head.weight"].flatten


@pytest.mark.parametrize(("name", "rule"), [("adamw", adamw), ("sgd", sgd)])
def test_the_others_take_every_parameter_alike(name, rule):
    treated = treatments(NETS["cnn"], name, {"lr": 0.1})
    assert treated.keys() == dict(NETS["cnn"].named_parameters()).keys()
    assert len({id(each) for each in treated.values()}) == 1
    assert all(each.rule is rule for each in treated.values())


def test_rates_by_member_are_a_tensor_in_float64():
    assert by_member([0.1, 0.3]).equal(torch.tensor([0.1, 0.3], dtype=torch.float64))


def test_any_torch_optimizer_trains_a_population_at_rates_by_member():
    def population(rates):
        own = factories(torch.optim.RAdam, rates, {"eps": 1e-6})
        return Population(nn.Linear(3, 2), softmax, own, (0,) * len(rates), dtype=torch.float64)

    inputs, labels = torch.ones(2, 4, 3, dtype=torch.float64), torch.arange(8).view(2, 4) % 2
    both, alone = population((0.1, 0.01)), population((0.01,))
    for step in range(7):
        both.step(inputs, labels, step)
        alone.step(inputs[:1], labels[:1], step)
    for name, p in alone.parameters.items():
        torch.testing.assert_close(both.parameters[name][1], p[0])
        assert not torch.allclose(both.parameters[name][0], p[0])

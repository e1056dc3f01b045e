import pytest
import torch
from torch import nn

from muonlab.data.sources import DataError
from muonlab.nets.gpt import GPT
from muonlab.nets.resnet import ResNet
from muonlab.studies.checkpoints.work.taps import choose, pools, tap_shapes


class Stage(nn.Module):
    def __init__(self, number):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(number))

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


class Net(nn.Module):
    """A short list of stages, each a list of blocks, and a pair of heads."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Linear(4, 4)
        self.layer1, self.layer2 = Stage(3), Stage(2)
        self.heads = nn.ModuleList(nn.Identity() for _ in range(4))
        self.unused = nn.Linear(4, 4)

    def forward(self, x):
        return self.layer2(self.layer1(self.stem(x)))


def test_a_net_that_knows_its_taps_is_asked():
    assert choose(GPT(9, depth=2, width=8, heads=2)) == ("blocks.0", "blocks.1")
    assert choose(ResNet(3, channels=1, width=8, depths=(1, 1), groups=4)) == ("blocks.0", "blocks.1")


def test_else_its_blocks_are_taken_in_all_lists_that_have_them():
    assert choose(Net()) == (
        "layer1.layers.0",
        "layer1.layers.1",
        "layer1.layers.2",
        "layer2.layers.0",
        "layer2.layers.1",
    )


def test_lists_within_blocks_are_no_blocks():
    blocks = nn.ModuleList(Stage(8) for _ in range(3))  # as experts are within the blocks of a Transformer
    assert choose(nn.ModuleDict({"h": blocks, "head": nn.Linear(4, 2)})) == ("h.0", "h.1", "h.2")


def test_else_the_modules_with_parameters_but_the_head():
    plain = nn.Sequential(nn.Flatten(), nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
    assert choose(plain) == ("1", "3")
    assert choose(nn.ModuleDict({"net": plain})) == ("net.1", "net.3")
    with pytest.raises(DataError, match="no two modules with parameters"):
        choose(nn.Sequential(nn.Linear(4, 2)))


def test_patterns_choose_part_by_part_in_the_order_of_the_net():
    assert choose(Net(), ["layer?.layers.0", "stem"]) == ("stem", "layer1.layers.0", "layer2.layers.0")
    assert choose(Net(), ["layer*"]) == ("layer1", "layer2")
    with pytest.raises(DataError, match=r"taps='layer3' matches no module of the net; nearest: .*layer2"):
        choose(Net(), ["stem", "layer3"])


def test_shapes_are_those_of_the_modules_that_are_called():
    net = Net().train()
    found = dict(tap_shapes(net, torch.randn(1, 4)))
    assert found["layer1"] == found["stem"] == (1, 4)
    assert "unused" not in found
    assert "layer1.layers" not in found
    assert net.training
    assert not any(module._forward_hooks for module in net.modules())


def test_shapes_are_of_the_first_tensor_of_a_tuple():
    class Pair(nn.Module):
        def forward(self, x):
            return {"states": (x.double(), x), "none": None}

    assert tap_shapes(nn.Sequential(Pair()), torch.ones(2, 3)) == [("0", (2, 3))]


def test_a_pool_follows_from_the_shape():
    shapes = [("a", (2, 8)), ("b", (2, 5, 8)), ("c", (2, 8, 4, 4)), ("d", (2, 1, 1, 1, 1)), ("e", (5, 2, 8))]
    found = pools(shapes, ["a", "b", "c"], None, num_examples=2)
    assert found == {"a": "flatten", "b": "mean_tokens", "c": "mean_pixels"}
    assert pools(shapes, ["b", "d"], "flatten", num_examples=2) == {"b": "flatten", "d": "flatten"}
    for name, message in (("d", "expected 2, 3 or 4 axes"), ("e", "batch_first=True"), ("f", "does not call it")):
        with pytest.raises(DataError, match=message):
            pools(shapes, [name], None, num_examples=2)

"""The nets for vectors and images, against their definitions."""

import math

import pytest
import torch
import torch.nn.functional as F

from matrices import draw
from muonlab.nets.dropout import Dropout
from muonlab.nets.mlp import MLP, LinearClassifier
from muonlab.nets.resnet import ResNet
from muonlab.nets.vit import ViT, patches, sincos_positions

KEY = torch.tensor(3)


def vit(**options):
    sizes = {"channels": 3, "image_size": 8, "patch": 2, "depth": 2, "width": 24, "heads": 3}
    net = ViT(5, **sizes, **options).double()
    net.reset_parameters(torch.Generator().manual_seed(0))
    return net


# ---- vectors


@pytest.mark.parametrize(("activation", "function"), [("relu", torch.relu), ("gelu", F.gelu)])
def test_an_mlp_is_matrices_with_activations_and_dropout_between(activation, function):
    net, x = MLP(12, 4, depth=3, width=8, activation=activation, dropout=0.5).double(), draw(5, 3, 2, 2)
    weights = dict(net.named_parameters())
    y = x.reshape(5, 12)
    for index in range(3):
        y = function(y @ weights[f"blocks.{index}.linear.weight"].T + weights[f"blocks.{index}.linear.bias"])
        y = Dropout(0.5, layer=index)(y, KEY)
    expected = y @ weights["head.weight"].T + weights["head.bias"]
    torch.testing.assert_close(net(x, KEY), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("bias", [True, False])
def test_a_linear_classifier_is_one_matrix_from_zero(bias):
    net, x, labels = LinearClassifier(64, 10, bias=bias).double(), draw(5, 1, 8, 8), torch.arange(5)
    logits = net(x)
    assert torch.equal(logits, torch.zeros(5, 10, dtype=torch.float64))
    F.cross_entropy(logits, labels).backward()
    uniform = (1 / 10 - F.one_hot(labels, 10).double()).T @ x.reshape(5, 64) / 5
    torch.testing.assert_close(net.linear.weight.grad, uniform, rtol=0, atol=1e-12)
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(draw(*p.shape, seed=1))
    expected = x.reshape(5, 64) @ net.linear.weight.T + (net.linear.bias if bias else 0)
    torch.testing.assert_close(net(x), expected, rtol=0, atol=1e-12)
    net.reset_parameters(torch.Generator().manual_seed(0))
    assert not any(p.any() for p in net.parameters())


# ---- residual networks


@pytest.mark.parametrize(
    ("size", "sides"), [(8, [8, 4, 2, 1]), (28, [28, 14, 7, 4]), (64, [64, 32, 16, 8]), (96, [24, 12, 6, 3])]
)
def test_the_stem_of_a_resnet_suits_the_size(size, sides):
    for channels in (1, 3):
        net = ResNet(5, channels=channels, image_size=size, width=4, depths=(1, 1, 1, 1), norm="group", groups=2)
        shapes = []
        for name in net.taps:
            hook = lambda module, inputs, output, shapes=shapes: shapes.append(output.shape)  # noqa: E731
            net.get_submodule(name).register_forward_hook(hook)
        assert net(torch.zeros(2, channels, size, size)).shape == (2, 5)
        assert shapes == [(2, 4 * 2**stage, side, side) for stage, side in enumerate(sides)]


@pytest.mark.parametrize(("image_size", "kernel"), [(8, 3), (96, 7)])
def test_a_resnet_is_its_stem_its_blocks_and_a_head_on_the_mean(image_size, kernel):
    net = ResNet(5, channels=1, image_size=image_size, width=8, depths=(1, 1), norm="group").double()
    x = draw(2, 1, image_size, image_size)
    y = F.conv2d(x, net.stem.weight, stride=kernel // 3, padding=kernel // 2)
    y = F.group_norm(y, 8).relu()
    if kernel == 7:
        y = F.max_pool2d(y, 3, stride=2, padding=1)
    y = net.blocks[1](net.blocks[0](y))
    expected = torch.einsum("bdhw,cd->bc", y, net.head.weight) / y[0, 0].numel()
    torch.testing.assert_close(net(x), expected, rtol=0, atol=1e-12)


# ---- vision transformers


def test_a_linear_layer_on_patches_is_a_convolution():
    for size in (1, 2, 4):
        images, weight = draw(2, 3, 8, 8), draw(7, 3, size, size, seed=1)
        expected = F.conv2d(images, weight, stride=size).flatten(2).transpose(1, 2)
        torch.testing.assert_close(patches(images, size) @ weight.flatten(1).T, expected, rtol=0, atol=1e-12)


def test_fixed_positions_are_sines_and_cosines_of_column_and_row():
    side, width = 3, 8
    table = sincos_positions(side, width)
    for row in range(side):
        for column in range(side):
            expected = [
                function(place / 10_000 ** (index / 2))
                for place in (column, row)
                for function in (math.sin, math.cos)
                for index in range(2)
            ]
            assert table[row * side + column].tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("positions", ["learned", "sincos"])
@pytest.mark.parametrize("pooling", ["class", "mean"])
def test_a_vit_is_patches_positions_dropout_blocks_and_a_head(pooling, positions):
    net, images = vit(pooling=pooling, positions=positions, dropout=0.5), draw(2, 3, 8, 8)
    kernel = net.stem.weight.view(24, 3, 2, 2)
    x = F.conv2d(images, kernel, net.stem.bias, stride=2).flatten(2).transpose(1, 2)
    places = sincos_positions(4, 24).double() if positions == "sincos" else net.position_embedding.weight
    if pooling == "class":
        x = torch.cat([net.class_token.expand(2, 1, 24), x], dim=1)
        places = places if positions == "learned" else torch.cat([torch.zeros(1, 24), places])
    x = Dropout(0.5, layer=0)(x + places, KEY)
    for block in net.blocks:
        x = block(x, KEY)
    x = F.layer_norm(x, (24,), eps=1e-6)
    x = x[:, 0] if pooling == "class" else x.mean(dim=1)
    torch.testing.assert_close(net(images, KEY), x @ net.head.weight.T + net.head.bias, rtol=0, atol=1e-12)

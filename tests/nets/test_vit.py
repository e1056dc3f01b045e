import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from muonlab.nets.dropout import Dropout
from muonlab.nets.vit import ViT, patches, sincos_positions


def build(seed=0, **options):
    sizes = {"channels": 3, "image_size": 8, "patch": 2, "depth": 2, "width": 24, "heads": 3}
    net = ViT(5, **{**sizes, **options}).double()
    net.reset_parameters(torch.Generator().manual_seed(seed))
    return net


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def count(net):
    return sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize(
    ("options", "published"),
    [
        ({}, 22_050_664),  # timm's vit_small_patch16_224
        ({"width": 192, "heads": 3}, 5_717_416),  # timm's vit_tiny_patch16_224
        ({"width": 768, "heads": 12}, 86_567_656),  # timm's vit_base_patch16_224
        ({"pooling": "mean", "positions": "sincos"}, 22_050_664 - 198 * 384),
    ],
)
def test_the_parameters_are_as_many_as_published(options, published):
    with torch.device("meta"):
        assert count(ViT(1000, **options)) == published


@pytest.mark.parametrize("size", [1, 2, 4])
def test_a_linear_layer_on_patches_is_a_convolution(size):
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
def test_the_net_is_patches_positions_blocks_and_a_head(pooling, positions):
    net, images = build(pooling=pooling, positions=positions), draw(2, 3, 8, 8)
    kernel = net.stem.weight.view(24, 3, 2, 2)
    x = F.conv2d(images, kernel, net.stem.bias, stride=2).flatten(2).transpose(1, 2)
    places = sincos_positions(4, 24).double() if positions == "sincos" else net.position_embedding.weight
    if pooling == "class":
        x = torch.cat([net.class_token.expand(2, 1, 24), x], dim=1)
        places = places if positions == "learned" else torch.cat([torch.zeros(1, 24), places])
    x = x + places
    for block in net.blocks:
        x = block(x)
    x = F.layer_norm(x, (24,), eps=1e-6)
    x = x[:, 0] if pooling == "class" else x.mean(dim=1)
    torch.testing.assert_close(net(images), x @ net.head.weight.T + net.head.bias, rtol=0, atol=1e-12)


@pytest.mark.parametrize("pooling", ["class", "mean"])
def test_without_positions_the_order_of_patches_does_not_matter(pooling):
    net, images = build(pooling=pooling), draw(2, 3, 8, 8)
    mixed = images.unflatten(3, (4, 2))[:, :, :, [2, 0, 3, 1]].flatten(3)
    assert (net(mixed) - net(images)).abs().max() > 1e-6
    with torch.no_grad():
        net.position_embedding.weight.zero_()
    torch.testing.assert_close(net(mixed), net(images), rtol=0, atol=1e-12)


def test_weights_have_the_stated_scales():
    net = ViT(300, image_size=32, patch=4, depth=1, width=96, heads=3)
    with torch.no_grad():
        for p in net.parameters():
            p.fill_(9)
    net.reset_parameters(torch.Generator().manual_seed(0))
    cut = 0.8796  # the standard deviation of a normal variable that is cut at two of its own
    for name, p in net.named_parameters():
        if "norm" in name:
            assert torch.equal(p, torch.full_like(p, name.endswith("weight"))), name
        elif name.endswith("bias"):
            assert not p.any(), name
        else:
            deviation = 1 / math.sqrt(48) if name == "stem.weight" else 0.02
            bound = 2 * deviation * (1 + 1e-6)
            assert (0.9 if p.numel() > 100 else 0.5) * bound < p.abs().max() <= bound, name
            assert p.std().item() == pytest.approx(cut * deviation, rel=0.03 if p.numel() > 100 else 0.3), name


def test_dropout_has_another_noise_at_each_place():
    net, images = build(dropout=0.5), draw(2, 3, 8, 8)
    assert [each.layer for each in net.modules() if isinstance(each, Dropout)] == [0, 1, 2, 3, 4]
    one, other = torch.tensor(1), torch.tensor(2)
    assert torch.equal(net(images, one), net(images, one))
    assert not torch.equal(net(images, one), net(images, other))
    x = net.stem(patches(images, 2))
    x = torch.cat([net.class_token.expand(2, 1, 24), x], dim=1) + net.position_embedding.weight
    x = Dropout(0.5, layer=0)(x, one)
    for block in net.blocks:
        x = block(x, one)
    torch.testing.assert_close(net(images, one), net.head(net.norm(x)[:, 0]), rtol=0, atol=1e-12)
    assert torch.equal(net.eval()(images, one), net(images, other))


def test_what_is_fixed_is_no_part_of_the_state():
    assert not any("position" in name for name in build(positions="sincos").state_dict())
    assert isinstance(build().position_embedding, nn.Embedding)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 30, "patch": 4}, "image_size=30 is not a multiple of patch=4, which whole patches need"),
        ({"width": 32, "heads": 3}, "width=32 is not a multiple of heads=3, which attention needs"),
        ({"width": 30, "heads": 3, "positions": "sincos"}, "width=30 is not a multiple of 4, which positions=.sin"),
        ({"pooling": "max"}, "unknown pooling='max'; expected 'class' or 'mean'"),
        ({"positions": "rope"}, "unknown positions='rope'; expected 'learned' or 'sincos'"),
        ({"feed_forward": "relu"}, "unknown feed_forward='relu'; expected 'gelu' or 'gelu_tanh' or 'swiglu'"),
        ({"ff_width": 0}, "ff_width=0 is no size"),
        ({"heads": 0}, "heads=0 is no size"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)


@pytest.mark.parametrize("shape", [(2, 1, 8, 8), (2, 3, 16, 16), (3, 8, 8)])
def test_images_of_another_shape_are_named(shape):
    with pytest.raises(ValueError, match=r"images have the shape \(.*\); expected \(batch, 3, 8, 8\)"):
        build()(torch.zeros(shape))

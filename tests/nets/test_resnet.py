import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from muonlab.nets.resnet import BasicBlock, ResNet


def count(net):
    return sum(p.numel() for p in net.parameters())


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("norm", ["batch", "group"])
@pytest.mark.parametrize(
    ("options", "published"),
    [
        ({"classes": 1000, "image_size": 224}, 11_689_512),  # torchvision's resnet18
        ({"classes": 1000, "image_size": 224, "depths": (3, 4, 6, 3)}, 21_797_672),  # torchvision's resnet34
        ({"classes": 10}, 11_173_962),  # ResNet-18 with a stem for CIFAR-10, as in many papers
        # ResNet-20 of He et al., 0.27 million: 269,722 without the two convolutions and norms of its shortcuts
        ({"classes": 10, "depths": (3, 3, 3), "width": 16}, 269_722 + 16 * 32 + 2 * 32 + 32 * 64 + 2 * 64),
    ],
)
def test_the_parameters_are_as_many_as_published(options, published, norm):
    with torch.device("meta"):
        assert count(ResNet(**options, norm=norm)) == published


@pytest.mark.parametrize("width", [8, 24])
@pytest.mark.parametrize("depths", [(1,), (2, 1), (1, 1, 3)])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_parameters_are_those_of_the_named_parts(channels, depths, width):
    expected, inputs = 9 * channels * width + 2 * width, width
    for stage, depth in enumerate(depths):
        for _ in range(depth):
            outputs = width * 2**stage
            expected += 9 * inputs * outputs + 9 * outputs * outputs + 4 * outputs
            expected += inputs * outputs + 2 * outputs if inputs != outputs else 0
            inputs = outputs
    expected += (inputs + 1) * 7
    assert count(ResNet(7, channels=channels, image_size=8, width=width, depths=depths, norm="group")) == expected


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("size", "sides"),
    [
        (8, [8, 4, 2, 1]),
        (28, [28, 14, 7, 4]),
        (32, [32, 16, 8, 4]),
        (64, [64, 32, 16, 8]),
        (96, [24, 12, 6, 3]),
        (224, [56, 28, 14, 7]),
    ],
)
def test_the_stem_suits_the_size(size, sides, channels):
    net = ResNet(5, channels=channels, image_size=size, width=4, depths=(1, 1, 1, 1), norm="group", groups=2)
    shapes = []
    for name in net.taps:
        net.get_submodule(name).register_forward_hook(lambda module, inputs, output: shapes.append(output.shape))
    assert net(torch.zeros(2, channels, size, size)).shape == (2, 5)
    assert shapes == [(2, 4 * 2**stage, side, side) for stage, side in enumerate(sides)]


@pytest.mark.parametrize(("inputs", "outputs", "stride"), [(4, 4, 1), (4, 8, 2)])
def test_a_block_is_two_normed_convolutions_and_a_shortcut(inputs, outputs, stride):
    block, x = BasicBlock(inputs, outputs, stride, lambda width: nn.GroupNorm(2, width)).double(), draw(2, inputs, 6, 6)
    with torch.no_grad():
        for seed, p in enumerate(block.parameters()):
            p.copy_(draw(*p.shape, seed=seed))
    weights = dict(block.named_parameters())

    def normed(y, name):  # over the halves of the channels
        halves = y.unflatten(1, (2, -1))
        mean = halves.mean(dim=(2, 3, 4), keepdim=True)
        variance = (halves - mean).square().mean(dim=(2, 3, 4), keepdim=True)
        y = ((halves - mean) / (variance + 1e-5).sqrt()).flatten(1, 2)
        return y * weights[f"{name}.weight"][:, None, None] + weights[f"{name}.bias"][:, None, None]

    y = normed(F.conv2d(x, weights["conv1.weight"], stride=stride, padding=1), "norm1").clamp(min=0)
    y = normed(F.conv2d(y, weights["conv2.weight"], padding=1), "norm2")
    projected = normed(F.conv2d(x[:, :, ::2, ::2], weights["shortcut.0.weight"]), "shortcut.1") if stride == 2 else x
    torch.testing.assert_close(block(x), (projected + y).clamp(min=0), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("image_size", "kernel"), [(8, 3), (96, 7)])
def test_the_net_is_its_stem_its_blocks_and_a_head_on_the_mean(image_size, kernel):
    net = ResNet(5, channels=1, image_size=image_size, width=8, depths=(1, 1), norm="group").double()
    x = draw(2, 1, image_size, image_size)
    y = F.conv2d(x, net.stem.weight, stride=kernel // 3, padding=kernel // 2)
    y = F.group_norm(y, 8).relu()
    if kernel == 7:
        y = F.max_pool2d(y, 3, stride=2, padding=1)
    y = net.blocks[1](net.blocks[0](y))
    expected = torch.einsum("bdhw,cd->bc", y, net.head.weight) / y[0, 0].numel()
    torch.testing.assert_close(net(x), expected, rtol=0, atol=1e-12)


def test_weights_have_the_stated_scales():
    net = ResNet(300, image_size=96, width=32, depths=(1, 1))
    with torch.no_grad():
        for tensor in net.state_dict().values():
            tensor.fill_(9)
    net.reset_parameters(torch.Generator().manual_seed(0))
    for name, module in net.named_modules():
        if isinstance(module, nn.Conv2d):
            outputs, _, *kernel = module.weight.shape
            deviation = math.sqrt(2 / (outputs * math.prod(kernel)))
            assert module.weight.std().item() == pytest.approx(deviation, rel=0.05), name
            assert module.weight.abs().max() > 2.5 * deviation, name
        elif isinstance(module, nn.BatchNorm2d):
            assert torch.equal(module.weight, torch.ones_like(module.weight))
            assert not module.bias.any()
            assert not module.running_mean.any()
    bound = 1 / math.sqrt(64)
    assert 0.99 * bound < net.head.weight.abs().max() <= bound
    assert not net.head.bias.any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"norm": "layer"}, "unknown norm='layer'; expected 'batch' or 'group'"),
        ({"norm": "group", "width": 20}, "width=20 is not a multiple of groups=8, which a group norm needs"),
        ({"channels": 2}, "channels=2 are none of an image; expected 1 or 3"),
        ({"image_size": 7}, "image_size=7 is too small; expected at least 8"),
        ({"depths": ()}, r"depths=\(\) has no stages; expected the number of blocks of each"),
        ({"depths": 3}, r"depths=3 has no stages; expected the number of blocks of each"),
        ({"depths": (2, 0)}, r"depths\[1\]=0 is no size"),
        ({"width": 0}, "width=0 is no size"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        ResNet(10, **options)


@pytest.mark.parametrize("shape", [(2, 3, 8, 8), (1, 8, 8)])
def test_images_of_another_shape_are_named(shape):
    with pytest.raises(ValueError, match=r"images have the shape \(.*\); expected \(batch, 1, height, width\)"):
        ResNet(10, channels=1, image_size=8, width=8, depths=(1,))(torch.zeros(shape))

"""What options make of a net: its size, the scale of its first weights, and which are refused."""

import math

import pytest
import torch
from torch import nn

from muonlab.nets.gpt import GPT
from muonlab.nets.mlp import MLP, LinearClassifier
from muonlab.nets.resnet import ResNet
from muonlab.nets.transformer import Transformer
from muonlab.nets.vit import ViT

MODERN = {"norm": "rms", "positions": "rope", "feed_forward": "swiglu", "bias": False, "tied": False}
SMALL_TRANSFORMER = {"width": 16, "ff_width": 24}  # of 11 token ids and 7 classes


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        # GPT-2 as Hugging Face counts it, small and medium, and what each option adds
        (lambda: GPT(50257), 124_439_808),
        (lambda: GPT(50257, depth=24, width=1024, heads=16), 354_823_168),
        (lambda: GPT(50257, tied=False), 124_439_808 + 50257 * 768),
        (lambda: GPT(50257, **MODERN), 2 * 50257 * 768 + 12 * (16 * 768**2 + 2 * 768) + 768),
        (lambda: GPT(50257, 3), 124_439_808 + 3 * 768),
        # timm's vit_small_patch16_224, vit_tiny_patch16_224, vit_base_patch16_224
        (lambda: ViT(1000), 22_050_664),
        (lambda: ViT(1000, width=192, heads=3), 5_717_416),
        (lambda: ViT(1000, width=768, heads=12), 86_567_656),
        (lambda: ViT(1000, pooling="mean", positions="sincos"), 22_050_664 - 198 * 384),
        # torchvision's resnet18 and resnet34, ResNet-18 with a stem for CIFAR-10, and ResNet-20 of He et al., 0.27
        # million: 269,722 without the two convolutions and norms of its shortcuts
        (lambda: ResNet(1000, image_size=224), 11_689_512),
        (lambda: ResNet(1000, image_size=224, depths=(3, 4, 6, 3)), 21_797_672),
        (lambda: ResNet(10, norm="group"), 11_173_962),
        (lambda: ResNet(10, depths=(3, 3, 3), width=16), 269_722 + 16 * 32 + 2 * 32 + 32 * 64 + 2 * 64),
        (lambda: MLP(64, 10, depth=4, width=16), 65 * 16 + 3 * 17 * 16 + 17 * 10),
        (lambda: LinearClassifier(64, 10, bias=False), 640),
        (lambda: Transformer(11, 7, **SMALL_TRANSFORMER), 18 * 16 + 16 + 2 * (4 * 16**2 + 3 * 16 * 24 + 2 * 16)),
        (lambda: Transformer(11, 7, **SMALL_TRANSFORMER, gated=False, norm="none"), 18 * 16 + 2 * (1024 + 2 * 384)),
    ],
)
def test_the_parameters_are_as_many_as_published_or_as_their_parts_have(make, expected):
    with torch.device("meta"):
        assert sum(p.numel() for p in make().parameters()) == expected


# ---- the first weights


def fresh(net):
    """Return named parameters drawn over others that were there, norms and biases left out once they are checked."""
    with torch.no_grad():
        for tensor in net.state_dict().values():
            tensor.fill_(9)
    net.reset_parameters(torch.Generator().manual_seed(0))
    drawn = {}
    for name, p in net.named_parameters():
        if "norm" in name or "shortcut.1" in name:
            assert torch.equal(p, torch.full_like(p, name.endswith("weight"))), name
        elif name.endswith("bias"):
            assert not p.any(), name
        else:
            drawn[name] = p.detach()
    return drawn


def assert_normal(p, deviation, rel=0.05):
    assert p.std().item() == pytest.approx(deviation, rel=rel)
    assert p.abs().max() > 2.5 * deviation  # neither uniform nor cut


def assert_uniform(p):
    bound = 1 / math.sqrt(p.shape[1])
    assert 0.99 * bound < p.abs().max() <= bound
    assert p.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.03)
    assert abs(p.mean().item()) < 0.05 * bound


@pytest.mark.parametrize("options", [{}, MODERN], ids=["GPT-2", "modern"])
def test_weights_of_gpt_are_those_of_radford_et_al(options):
    for name, p in fresh(GPT(500, depth=8, width=64, heads=4, context=300, **options)).items():
        assert_normal(p, 0.02 / 4 if name.endswith("out.weight") else 0.02, rel=0.04)


def test_weights_of_vit_are_cut_at_two_deviations():
    for name, p in fresh(ViT(300, image_size=32, patch=4, depth=1, width=96, heads=3)).items():
        deviation = 1 / math.sqrt(48) if name == "stem.weight" else 0.02
        bound, is_large = 2 * deviation * (1 + 1e-6), p.numel() > 100
        assert (0.9 if is_large else 0.5) * bound < p.abs().max() <= bound, name
        # .8796 is the standard deviation of a normal variable that is cut at two of its own.
        assert p.std().item() == pytest.approx(0.8796 * deviation, rel=0.03 if is_large else 0.3), name


def test_weights_of_resnet_and_mlp_are_those_of_he_et_al_with_torchs_head():
    net = ResNet(300, image_size=96, width=32, depths=(1, 1))
    drawn = fresh(net)
    assert_uniform(drawn.pop("head.weight"))
    for p in drawn.values():
        assert_normal(p, math.sqrt(2 / (p.shape[0] * math.prod(p.shape[2:]))))
    assert not net.stem_norm.running_mean.any()
    drawn = fresh(MLP(400, 300, depth=2, width=200))
    assert_uniform(drawn.pop("head.weight"))
    for p in drawn.values():
        assert_normal(p, math.sqrt(2 / p.shape[1]), rel=0.02)


def test_weights_of_the_transformer_are_uniform_and_its_embedding_is_normal():
    drawn = fresh(Transformer(500, 300, width=64, heads=2, ff_width=200))
    assert_normal(drawn.pop("embedding.weight"), 1 / 8, rel=0.02)
    for p in drawn.values():
        assert_uniform(p)


@pytest.mark.parametrize("std", [None, 1.0, 0.02])
def test_tables_are_drawn_at_the_scale_that_was_asked_for(std):
    learned = {"positions": "learned", "context": 400, "embedding_std": std}
    drawn = fresh(Transformer(500, 3, width=64, heads=2, **learned))
    for name in ("embedding.weight", "position_embedding.weight"):
        assert_normal(drawn[name], std or 1 / 8, rel=0.02)


@pytest.mark.parametrize(
    "make",
    [
        lambda **options: Transformer(11, 7, **SMALL_TRANSFORMER, heads=2, norm="layer", bias=True, **options),
        lambda **options: MLP(6, 7, **options),
    ],
)
def test_the_initial_scale_multiplies_all_matrices_and_tables(make):
    one, eight = fresh(make()), fresh(make(init_scale=8.0))
    assert all(torch.equal(eight[name], 8 * p) for name, p in one.items())


def test_what_is_fixed_is_not_part_of_the_state():
    small = {"image_size": 8, "patch": 4, "depth": 1, "width": 12, "heads": 3}
    assert not any("position" in name for name in ViT(5, positions="sincos", **small).state_dict())
    assert isinstance(ViT(5, **small).position_embedding, nn.Embedding)


# ---- bad input

GPT_OF = {"depth": 2, "width": 24, "heads": 3}
VIT_OF = {"channels": 3, "image_size": 8, "patch": 2, "depth": 2, "width": 24, "heads": 3}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GPT(13, **GPT_OF | {"heads": 5}), "width=24 is not a multiple of heads=5, which attention needs"),
        (
            lambda: GPT(13, **GPT_OF | {"heads": 8}, positions="rope"),
            r"width=24 is not a multiple of 2 \* heads=16, which positions='rope' needs",
        ),
        (lambda: GPT(13, norm="batch"), "unknown norm='batch'; expected 'layer' or 'rms'"),
        (lambda: GPT(13, norm=None), "unknown norm=None; expected 'layer' or 'rms'"),
        (lambda: GPT(13, positions="sincos"), "unknown positions='sincos'; expected 'learned' or 'rope'"),
        (
            lambda: GPT(13, feed_forward="silu"),
            "unknown feed_forward='silu'; expected 'gelu' or 'gelu_tanh' or 'swiglu'",
        ),
        (lambda: GPT(13, padding=13, **GPT_OF), "padding=13 is not a token id; expected None or 0 to 12"),
        (lambda: GPT(13, padding=-1, **GPT_OF), "padding=-1 is not a token id; expected None or 0 to 12"),
        (lambda: GPT(13, 0), "classes=0 is out of range; expected a whole number of at least 1"),
        (lambda: GPT(13, context=0), "context=0 is out of range"),
        (lambda: GPT(13, depth=True), "depth=True is out of range"),
        (
            lambda: ViT(5, **VIT_OF | {"patch": 3}),
            "image_size=8 is not a multiple of patch=3, which whole",
        ),
        (lambda: ViT(5, **VIT_OF | {"heads": 5}), "width=24 is not a multiple of heads=5, which attention needs"),
        (
            lambda: ViT(5, **VIT_OF | {"width": 30}, positions="sincos"),
            "width=30 is not a multiple of 4, which positions='sincos' needs",
        ),
        (lambda: ViT(5, pooling="max"), "unknown pooling='max'; expected 'class' or 'mean'"),
        (lambda: ViT(5, positions="rope"), "unknown positions='rope'; expected 'learned' or 'sincos'"),
        (lambda: ViT(5, feed_forward="relu"), "unknown feed_forward='relu'"),
        (lambda: ViT(5, ff_width=0), "ff_width=0 is out of range"),
        (lambda: ResNet(10, norm="layer"), "unknown norm='layer'; expected 'batch' or 'group'"),
        (
            lambda: ResNet(10, norm="group", width=20),
            "width=20 is not a multiple of groups=8, which a group norm needs",
        ),
        (lambda: ResNet(10, channels=2), "channels=2 is out of range; expected 1 or 3"),
        (lambda: ResNet(10, image_size=7), "image_size=7 is too small; expected at least 8"),
        (lambda: ResNet(10, depths=()), r"depths=\(\) has no stages; expected the number of blocks of each"),
        (lambda: ResNet(10, depths=3), "depths=3 has no stages"),
        (lambda: ResNet(10, depths=(2, 0)), r"depths\[1\]=0 is out of range"),
        (lambda: MLP(12, 4, width=1.5), "width=1.5 is out of range"),
        (lambda: MLP(12, 4, activation="swish"), "unknown activation='swish'; expected 'relu' or 'gelu'"),
        (lambda: MLP(12, 4, dropout=1), "dropout rate 1 is out of range"),
        (lambda: LinearClassifier(12, 0), "classes=0 is out of range"),
        (lambda: Transformer(11, 7, width=12, heads=4), r"width=12 is not a multiple of 2 \* heads=8"),
        (lambda: Transformer(11, 7, norm="batch"), "unknown norm='batch'; expected 'rms' or 'layer' or 'none'"),
        (
            lambda: Transformer(11, 7, activation="tanh"),
            "unknown activation='tanh'; expected 'silu' or 'relu'",
        ),
        (lambda: Transformer(11, 7, positions="sincos"), "unknown positions='sincos'; expected 'rope' or 'learned'"),
        (lambda: Transformer(11, 7, positions="learned"), "positions='learned' needs context"),
        (lambda: Transformer(11, 7, positions="learned", context=0), "context=0"),
        (lambda: Transformer(11, 7, positions="none", width=15), "width=15 is not a multiple of heads=4"),
        (lambda: Transformer(11, 7, embedding_std=0), "embedding_std=0 is out of range; expected a finite number"),
        (lambda: Transformer(11, 7, init_scale=math.inf), "init_scale=inf is out of range"),
        (lambda: MLP(6, 7, vocabulary=0), "vocabulary=0"),
        (lambda: MLP(6, 7, init_scale=math.nan), "init_scale=nan"),
    ],
)
def test_bad_options_are_named(make, message):
    with pytest.raises(ValueError, match=message), torch.device("meta"):
        make()


@pytest.mark.parametrize(
    ("make", "inputs", "message"),
    [
        (lambda: GPT(13, **GPT_OF), torch.zeros(7), r"tokens have the shape \(7,\); expected \(batch, tokens\)"),
        (
            lambda: GPT(13, **GPT_OF, context=20),
            torch.zeros(2, 21, dtype=torch.long),
            r"tokens have 21 positions, .*expected at most context=20, or .*'rope'",
        ),
        (
            lambda: Transformer(11, 7, positions="learned", context=6),
            torch.zeros(2, 7, dtype=torch.long),
            "sequences have 7 tokens, more than context=6",
        ),
        (lambda: ViT(5, **VIT_OF), torch.zeros(2, 1, 8, 8), r"images have the shape .*; expected \(batch, 3, 8, 8\)"),
        (lambda: ViT(5, **VIT_OF), torch.zeros(3, 8, 8), r"images have the shape \(3, 8, 8\); expected"),
        (
            lambda: ResNet(5, channels=1, width=8, depths=(1,)),
            torch.zeros(2, 3, 8, 8),
            r"images have the shape \(2, 3, 8, 8\); expected \(batch, 1, height, width\)",
        ),
    ],
)
def test_bad_inputs_are_named(make, inputs, message):
    with pytest.raises(ValueError, match=message):
        make()(inputs)

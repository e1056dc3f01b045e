"""The parts of which nets are made: linear layers, norms, rotary positions, attention, blocks."""

import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from matrices import draw
from muonlab.nets.dropout import Dropout
from muonlab.nets.layers import Linear, RMSNorm, reset_norms, rotate
from muonlab.nets.prenorm import SHORT, Block, SelfAttention, attend, feed_forward
from muonlab.nets.resnet import BasicBlock

D, H, T, FF = 16, 2, 6, 24


def with_drawn_weights(module):
    """Return a module in float64 whose every parameter is drawn, biases and norms too."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.double().parameters():
            parameter.normal_(std=0.3, generator=generator)
    return module


def block(*, norm=nn.LayerNorm, activation="gelu", bias=True, causal=False, rope_base=None, dropout=0.0, index=0):
    made = Block(
        partial(norm, D),
        SelfAttention(D, H, bias=bias, causal=causal, rope_base=rope_base),
        feed_forward(D, FF, activation, bias=bias),
        dropout=dropout,
        index=index,
    )
    return with_drawn_weights(made)


# ---- linear layers and norms


@pytest.mark.parametrize("bias", [False, True])
def test_a_linear_layer_is_torchs_and_its_stack_has_the_gradients_of_each_alone(bias):
    layers = [Linear(3, 7, bias).double() for _ in range(2)]
    for shape in [(5, 3), (2, 4, 5, 3)]:
        x = draw(*shape)
        torch.testing.assert_close(layers[0](x), F.linear(x, layers[0].weight, layers[0].bias), rtol=0, atol=1e-14)
    x = draw(2, 4, 5, 3)
    parameters, _ = torch.func.stack_module_state(layers)

    def answer(parameters, x):
        return torch.func.functional_call(layers[0], parameters, (x,)).square().sum()

    names = [name for name, _ in layers[0].named_parameters()]
    assert names == (["weight", "bias"] if bias else ["weight"])
    together = torch.autograd.grad(torch.func.vmap(answer)(parameters, x).sum(), [parameters[name] for name in names])
    for k, layer in enumerate(layers):
        alone = torch.autograd.grad(layer(x[k]).square().sum(), list(layer.parameters()))
        for found, expected in zip(together, alone, strict=True):
            torch.testing.assert_close(found[k], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rms_norm_equals_torch(dtype):
    x = 3 * draw(4, 5, 8).to(dtype)
    ours, theirs = RMSNorm(8).to(dtype), torch.nn.RMSNorm(8, eps=1e-5, dtype=dtype)
    with torch.no_grad():
        ours.weight.copy_(draw(8, seed=1))
        theirs.weight.copy_(draw(8, seed=1))
    torch.testing.assert_close(ours(x), theirs(x))


@pytest.mark.parametrize("norm", [RMSNorm(4), nn.LayerNorm(4), nn.GroupNorm(2, 4), nn.BatchNorm2d(4)])
def test_a_norm_is_reset_wherever_it_stands_and_nothing_else_is(norm):
    fresh = {name: tensor.clone() for name, tensor in norm.state_dict().items()}
    net = nn.Sequential(nn.Linear(3, 4), nn.Sequential(norm))
    linear = [p.clone() for p in net[0].parameters()]
    with torch.no_grad():
        for tensor in norm.state_dict().values():
            tensor.fill_(7)
    reset_norms(net)
    assert all(torch.equal(tensor, fresh[name]) for name, tensor in norm.state_dict().items())
    assert all(map(torch.equal, net[0].parameters(), linear))


# ---- rotary positions


def test_rotation_is_multiplication_by_a_complex_phase():
    x, base, half = draw(2, T, 3, 8), 100.0, 4
    positions = torch.arange(T)
    angles = positions[:, None] * base ** (-torch.arange(half, dtype=torch.float64) / half)
    turned = torch.complex(x[..., :half], x[..., half:]) * torch.exp(1j * angles)[:, None, :]
    expected = torch.cat([turned.real, turned.imag], dim=-1)
    torch.testing.assert_close(rotate(x, positions, base), expected, rtol=0, atol=1e-14)


def test_rotary_positions_keep_their_precision_in_bfloat16():
    net = block(bias=False, causal=True, rope_base=1e4).attention.float()
    x = draw(1, 700, D).float()
    expected = net(x)
    error = (net.bfloat16()(x.bfloat16()).float() - expected).square().mean().sqrt()
    assert error < 0.03 * expected.square().mean().sqrt()  # angles in bfloat16 make it .33


# ---- blocks


@pytest.mark.parametrize("causal", [True, False])
def test_attention_equals_torchs_whether_it_is_written_out_or_not(causal):
    for num_tokens in (1, T, SHORT, SHORT + 1):
        q, k, v = (draw(2, H, num_tokens, 8, seed=seed) for seed in range(3))
        expected = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
        torch.testing.assert_close(attend(q, k, v, causal), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("causal", "activation"), [(True, "gelu_tanh"), (False, "gelu")])
def test_a_block_is_torchs_pre_norm_encoder_layer(causal, activation):
    ours, x = block(activation=activation, causal=causal), draw(3, T, D)
    approximate = "tanh" if activation == "gelu_tanh" else "none"
    theirs = nn.TransformerEncoderLayer(
        D,
        H,
        FF,
        dropout=0.0,
        activation=partial(F.gelu, approximate=approximate),
        batch_first=True,
        norm_first=True,
        dtype=torch.float64,
    )
    names = {
        "self_attn.out_proj": "attention.out",
        "linear1": "feed_forward.inner",
        "linear2": "feed_forward.out",
        "norm1": "attention_norm",
        "norm2": "feed_forward_norm",
    }
    state = ours.state_dict()
    taken = {f"{to}.{kind}": state[f"{name}.{kind}"] for to, name in names.items() for kind in ("weight", "bias")}
    for kind in ("weight", "bias"):
        parts = [state[f"attention.{part}.{kind}"] for part in ("query", "key", "value")]
        taken[f"self_attn.in_proj_{kind}"] = torch.cat(parts)
    theirs.load_state_dict(taken)
    mask = nn.Transformer.generate_square_subsequent_mask(T, dtype=torch.float64) if causal else None
    torch.testing.assert_close(ours(x), theirs(x, src_mask=mask, is_causal=causal), rtol=0, atol=1e-12)


def test_a_gated_rotary_block_is_what_loops_over_heads_and_positions_give():
    net, x, base = block(norm=RMSNorm, activation="swiglu", bias=False, causal=True, rope_base=100.0), draw(T, D), 100.0
    weights = {name.removesuffix(".weight"): weight for name, weight in net.named_parameters()}

    def normalized(y, name):
        return y / (y.square().mean(dim=-1, keepdim=True) + 1e-5).sqrt() * weights[name]

    def heads(name):
        y = (normalized(x, "attention_norm") @ weights[f"attention.{name}"].T).view(1, T, H, D // H)
        return (y if name == "value" else rotate(y, torch.arange(T), base))[0]

    q, k, v = heads("query"), heads("key"), heads("value")
    read = torch.zeros(T, H, D // H, dtype=torch.float64)
    for t in range(T):
        for h in range(H):
            odds = [math.exp((q[t, h] @ k[s, h]).item() / math.sqrt(D // H)) for s in range(t + 1)]
            for s in range(t + 1):
                read[t, h] += odds[s] / sum(odds) * v[s, h]
    middle = x + read.flatten(1) @ weights["attention.out"].T
    y = normalized(middle, "feed_forward_norm")
    gate = y @ weights["feed_forward.gate"].T
    hidden = gate * gate.sigmoid() * (y @ weights["feed_forward.inner"].T)
    expected = middle + hidden @ weights["feed_forward.out"].T
    torch.testing.assert_close(net(x[None])[0], expected, rtol=0, atol=1e-12)


def test_dropout_acts_in_both_branches_with_a_layer_number_for_each():
    net, x, key = block(dropout=0.5), draw(2, T, D), torch.tensor(3)
    middle = x + net.attention_dropout(net.attention(net.attention_norm(x)), key)
    expected = middle + net.feed_forward_dropout(net.feed_forward(net.feed_forward_norm(middle)), key)
    torch.testing.assert_close(net(x, key), expected, rtol=0, atol=0)
    layers = [each.layer for index in range(3) for each in block(index=index).modules() if isinstance(each, Dropout)]
    assert layers == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(("inputs", "outputs", "stride"), [(4, 4, 1), (4, 8, 2)])
def test_a_residual_block_is_two_normed_convolutions_and_a_shortcut(inputs, outputs, stride):
    net = with_drawn_weights(BasicBlock(inputs, outputs, stride, lambda width: nn.GroupNorm(2, width)))
    x, weights = draw(2, inputs, 6, 6), dict(net.named_parameters())

    def normed(y, name):  # over the halves of the channels
        halves = y.unflatten(1, (2, -1))
        mean = halves.mean(dim=(2, 3, 4), keepdim=True)
        variance = (halves - mean).square().mean(dim=(2, 3, 4), keepdim=True)
        y = ((halves - mean) / (variance + 1e-5).sqrt()).flatten(1, 2)
        return y * weights[f"{name}.weight"][:, None, None] + weights[f"{name}.bias"][:, None, None]

    y = normed(F.conv2d(x, weights["conv1.weight"], stride=stride, padding=1), "norm1").clamp(min=0)
    y = normed(F.conv2d(y, weights["conv2.weight"], padding=1), "norm2")
    projected = normed(F.conv2d(x[:, :, ::2, ::2], weights["shortcut.0.weight"]), "shortcut.1") if stride == 2 else x
    torch.testing.assert_close(net(x), (projected + y).clamp(min=0), rtol=0, atol=1e-12)

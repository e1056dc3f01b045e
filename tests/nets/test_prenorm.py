import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from muonlab.nets import prenorm
from muonlab.nets.dropout import Dropout
from muonlab.nets.norm import RMSNorm
from muonlab.nets.prenorm import SHORT, Block, FeedForward, SelfAttention, attend
from muonlab.nets.rotary import rotate

D, H, T, FF = 16, 2, 6, 24


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def block(*, norm=nn.LayerNorm, activation="gelu", bias=True, causal=False, rope_base=None, dropout=0.0, index=0):
    """Return a block whose every parameter is drawn, biases and norms too."""
    made = Block(
        partial(norm, D),
        SelfAttention(D, H, bias=bias, causal=causal, rope_base=rope_base),
        FeedForward(D, FF, activation, bias=bias),
        dropout=dropout,
        index=index,
    ).double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.normal_(std=0.3, generator=generator)
    return made


@pytest.mark.parametrize("num_tokens", [1, T, SHORT, SHORT + 1])
@pytest.mark.parametrize("causal", [True, False])
def test_attention_equals_torchs_whether_it_is_written_out_or_not(causal, num_tokens):
    q, k, v = (draw(2, H, num_tokens, 8, seed=seed) for seed in range(3))
    expected = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
    torch.testing.assert_close(attend(q, k, v, causal), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("activation", ["gelu", "gelu_tanh"])
@pytest.mark.parametrize("causal", [True, False])
def test_a_block_is_torchs_pre_norm_encoder_layer(causal, activation):
    ours, x = block(activation=activation, causal=causal), draw(3, T, D)
    theirs = nn.TransformerEncoderLayer(
        D,
        H,
        FF,
        dropout=0.0,
        activation=partial(F.gelu, approximate="tanh" if activation == "gelu_tanh" else "none"),
        batch_first=True,
        norm_first=True,
        dtype=torch.float64,
    )
    attention, feed_forward = ours.attention, ours.feed_forward
    parts = [attention.query, attention.key, attention.value]
    theirs.load_state_dict(
        {
            "self_attn.in_proj_weight": torch.cat([part.weight for part in parts]),
            "self_attn.in_proj_bias": torch.cat([part.bias for part in parts]),
            "self_attn.out_proj.weight": attention.out.weight,
            "self_attn.out_proj.bias": attention.out.bias,
            "linear1.weight": feed_forward.inner.weight,
            "linear1.bias": feed_forward.inner.bias,
            "linear2.weight": feed_forward.out.weight,
            "linear2.bias": feed_forward.out.bias,
            "norm1.weight": ours.attention_norm.weight,
            "norm1.bias": ours.attention_norm.bias,
            "norm2.weight": ours.feed_forward_norm.weight,
            "norm2.bias": ours.feed_forward_norm.bias,
        }
    )
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


@pytest.mark.parametrize("shift", [1, 1000])
def test_only_differences_of_positions_reach_the_states(shift, monkeypatch):
    net, x = block(causal=True, rope_base=1e4), draw(2, T, D)
    at_home = net(x)
    monkeypatch.setattr(prenorm, "rotate", lambda x, positions, base: rotate(x, positions + shift, base))
    torch.testing.assert_close(net(x), at_home, rtol=0, atol=1e-10)
    monkeypatch.setattr(prenorm, "rotate", lambda x, positions, base: x)
    assert (net(x) - at_home).abs().max() > 0.01


def test_rotary_positions_keep_their_precision_in_bfloat16():
    net = block(bias=False, causal=True, rope_base=1e4).attention.float()
    x = draw(1, 700, D).float()
    expected = net(x)
    error = (net.bfloat16()(x.bfloat16()).float() - expected).square().mean().sqrt()
    assert error < 0.03 * expected.square().mean().sqrt()  # angles in bfloat16 make it .33


def test_dropout_acts_in_both_branches_with_another_noise_in_each_block():
    net, x, key = block(dropout=0.5), draw(2, T, D), torch.tensor(3)
    assert torch.equal(net(x, key), net(x, key))
    assert not torch.equal(net(x, key), net(x, torch.tensor(4)))
    assert torch.equal(net.eval()(x, key), net(x))
    layers = [each.layer for index in range(3) for each in block(index=index).modules() if isinstance(each, Dropout)]
    assert layers == [1, 2, 3, 4, 5, 6]
    net.train()
    middle = x + net.attention_dropout(net.attention(net.attention_norm(x)), key)
    expected = middle + net.feed_forward_dropout(net.feed_forward(net.feed_forward_norm(middle)), key)
    torch.testing.assert_close(net(x, key), expected, rtol=0, atol=0)

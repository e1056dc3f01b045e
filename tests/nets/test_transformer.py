import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from matrices import draw
from muonlab.losses import softmax
from muonlab.nets.transformer import Attention, Transformer, rotate, turn

VOCABULARY, CLASSES, T = 11, 7, 6
VARIANTS = {
    "default": {},
    "one block": {"depth": 1},
    "three blocks": {"depth": 3},
    "not gated": {"gated": False},
    "no norm": {"norm": "none"},
    "not causal": {"causal": False},
}
each_variant = pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS.keys())


def build(seed=0, dtype=torch.float64, **options):
    net = Transformer(VOCABULARY, CLASSES, **{"width": 16, "heads": 2, "ff_width": 24, **options}).to(dtype)
    net.reset_parameters(torch.Generator().manual_seed(seed))
    return net


def draw_tokens(batch=5, seed=0, length=T):
    return torch.randint(VOCABULARY, (batch, length), generator=torch.Generator().manual_seed(seed))


def test_a_turned_query_scores_as_a_rotated_query_and_key():
    q, k, positions = draw(2, T, 3, 8), draw(2, T, 3, 8, seed=1), torch.arange(T)
    expected = torch.einsum("bqhd,bkhd->bqkh", rotate(q, positions, 1e6), rotate(k, positions, 1e6))
    turned = turn(q, torch.arange(-T, T), 1e6)  # (2, T, 3, 2 T, 8)
    for i in range(T):
        for j in range(T):
            scores = (turned[:, i, :, T + i - j] * k[:, j]).sum(dim=-1)
            torch.testing.assert_close(scores, expected[:, i, j], rtol=0, atol=1e-12)


@pytest.mark.parametrize("causal", [True, False])
def test_attention_equals_torchs_scaled_dot_product_also_over_states_that_follow_from_tokens(causal):
    heads, base, x = 2, 1e6, draw(3, T, 16)
    attention = Attention(16, heads, causal, base).double()

    def split_heads(y):
        return y.unflatten(-1, (heads, -1))

    positions = torch.arange(T)
    q = rotate(split_heads(x @ attention.query.weight.T), positions, base)
    k = rotate(split_heads(x @ attention.key.weight.T), positions, base)
    v = split_heads(x @ attention.value.weight.T)
    mixed = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), is_causal=causal)
    expected = mixed.transpose(1, 2).flatten(2) @ attention.out.weight.T
    states, tokens = draw(VOCABULARY, 16), draw_tokens()
    for num_queries in (1, 3, T):
        torch.testing.assert_close(attention(x, num_queries), expected[:, T - num_queries :], rtol=0, atol=1e-12)
        by_token, whole = attention(states, num_queries, tokens), attention(states[tokens], num_queries)
        torch.testing.assert_close(by_token, whole, rtol=0, atol=1e-12)


@pytest.mark.parametrize("options", [{"depth": 3}, {"norm": "none", "causal": False}])
def test_the_answer_at_the_last_position_is_that_of_the_whole_computation(options):
    net, tokens = build(**options).eval(), draw_tokens()
    x = net.embedding(tokens)
    for block in net.blocks:
        x = block(x, None, num_queries=T)
    expected = net.head(net.norm(x))[:, -1]
    assert expected.shape == (5, CLASSES)
    torch.testing.assert_close(net(tokens), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("gated", "norm"), [(True, "rms"), (False, "none")])
def test_a_block_is_pre_norm_attention_then_feed_forward_with_residuals(gated, norm):
    block, x = build(gated=gated, norm=norm).eval().blocks[0], draw(2, T, 16)
    weights = {name.removesuffix(".weight"): weight for name, weight in block.named_parameters()}

    def normalized(y):
        return F.rms_norm(y, (16,), eps=1e-5) if norm == "rms" else y

    middle = x + block.attention(normalized(x), T)
    y = normalized(middle)
    inner = y @ weights["feed_forward.inner"].T
    hidden = F.silu(y @ weights["feed_forward.gate"].T) * inner if gated else F.silu(inner)
    expected = middle + hidden @ weights["feed_forward.out"].T
    torch.testing.assert_close(block(x, None, T), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("batch", "length"), [(5, T), (20, T), (20, 1)])  # tables over the vocabulary from 20 on
@each_variant
def test_shortcuts_change_neither_answers_nor_gradients_nor_noise(options, batch, length):
    nets = [build(seed=k, dropout=0.5, **options) for k in range(3)]
    tokens = torch.stack([draw_tokens(batch, seed=k, length=length) for k in range(3)])
    labels, keys = tokens[:, :, 0] % CLASSES, torch.tensor([5, 6, 2**32 - 1])
    parameters, _ = torch.func.stack_module_state(nets)

    def loss(parameters, tokens, labels, key):
        logits = torch.func.functional_call(nets[0], parameters, (tokens, key))
        return softmax(logits, labels).mean(), logits

    gradients, logits = torch.func.vmap(torch.func.grad(loss, has_aux=True))(parameters, tokens, labels, keys)
    for k, net in enumerate(nets):
        net.shortcuts = False
        plain = net(tokens[k], keys[k])
        torch.testing.assert_close(logits[k], plain, rtol=1e-9, atol=1e-12)
        softmax(plain, labels[k]).mean().backward()
        for name, parameter in net.named_parameters():
            torch.testing.assert_close(gradients[name][k], parameter.grad, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("depth", "most"), [(1, 0.3), (2, 0.7)])
def test_shortcuts_save_matrix_products(depth, most):
    net, tokens, flops = build(depth=depth, ff_width=64).eval(), draw_tokens(100), {}
    for net.shortcuts in (True, False):
        with FlopCounterMode(display=False) as counter:
            net(tokens)
        flops[net.shortcuts] = counter.get_total_flops()
    assert flops[True] < most * flops[False]

import math

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from muonlab.losses import softmax
from muonlab.nets import transformer
from muonlab.nets.dropout import Dropout
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


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


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


def swap(tokens, one, other):
    order = torch.arange(T)
    order[[one, other]] = torch.tensor([other, one])
    return tokens[:, order]


@pytest.mark.parametrize("causal", [True, False])
def test_swapping_two_earlier_tokens_changes_the_answer_only_through_the_rotation(causal, monkeypatch):
    net, tokens = build(depth=1, causal=causal).eval(), torch.tensor([[0, 1, 2, 3, 4, 5]])
    assert (net(swap(tokens, 0, 2)) - net(tokens)).abs().max() > 1e-3
    monkeypatch.setattr(transformer, "rotate", lambda x, positions, base: x)
    torch.testing.assert_close(net(swap(tokens, 0, 2)), net(tokens), rtol=0, atol=1e-12)


@pytest.mark.parametrize("num_queries", [1, 3, T])
@pytest.mark.parametrize("causal", [True, False])
def test_attention_equals_torchs_scaled_dot_product(causal, num_queries):
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
    torch.testing.assert_close(attention(x, num_queries), expected[:, T - num_queries :], rtol=0, atol=1e-12)


@pytest.mark.parametrize("num_queries", [1, 3, T])
@pytest.mark.parametrize("causal", [True, False])
def test_attention_over_states_that_follow_from_tokens_is_attention_over_those_states(causal, num_queries):
    attention, states, tokens = Attention(16, 2, causal, 1e6).double(), draw(VOCABULARY, 16), draw_tokens()
    expected = attention(states[tokens], num_queries)
    torch.testing.assert_close(attention(states, num_queries, tokens), expected, rtol=0, atol=1e-12)


def test_no_position_reads_from_a_later_one_under_the_causal_mask():
    attention, x = Attention(16, 2, True, 1e6).double(), draw(1, T, 16)
    changed = x.clone()
    changed[:, 4:] += 1
    difference = (attention(changed, T) - attention(x, T)).abs().amax(dim=-1)[0]
    assert torch.equal(difference > 0, torch.tensor([False] * 4 + [True] * 2))


@each_variant
def test_the_answer_at_the_last_position_is_that_of_the_whole_computation(options):
    net, tokens = build(**options).eval(), draw_tokens()
    x = net.embedding(tokens)
    for block in net.blocks:
        x = block(x, None, num_queries=T)
    expected = net.head(net.norm(x))[:, -1]
    assert expected.shape == (5, CLASSES)
    torch.testing.assert_close(net(tokens), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("gated", [True, False])
@pytest.mark.parametrize("norm", ["rms", "none"])
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


def test_the_parameters_are_those_of_the_named_parts():
    D, ff = 16, 24

    def count(**options):
        return sum(p.numel() for p in build(**options).parameters())

    ends = (VOCABULARY + CLASSES) * D
    assert count(depth=1) == ends + D + (4 * D * D + 3 * D * ff + 2 * D)
    assert count(depth=3) == ends + D + 3 * (4 * D * D + 3 * D * ff + 2 * D)
    assert count(depth=1, gated=False) == ends + D + (4 * D * D + 2 * D * ff + 2 * D)
    assert count(depth=1, norm="none") == ends + (4 * D * D + 3 * D * ff)


@each_variant
def test_a_stack_of_members_answers_as_each_alone(options):
    nets = [build(seed=k, **options).eval() for k in range(3)]
    tokens = torch.stack([draw_tokens(seed=k) for k in range(3)])
    parameters, buffers = torch.func.stack_module_state(nets)

    def answer(parameters, buffers, tokens):
        return torch.func.functional_call(nets[0], (parameters, buffers), (tokens,))

    together = torch.func.vmap(answer)(parameters, buffers, tokens)
    for k, net in enumerate(nets):
        torch.testing.assert_close(together[k], net(tokens[k]), rtol=0, atol=1e-12)


def test_a_stack_of_members_has_the_gradients_of_each_alone_dropout_included():
    nets = [build(seed=k, dropout=0.5) for k in range(3)]
    tokens = torch.stack([draw_tokens(seed=k) for k in range(3)])
    keys = torch.tensor([5, 6, 2**32 - 1])
    parameters, _ = torch.func.stack_module_state(nets)

    def loss(parameters, tokens, key):
        return torch.func.functional_call(nets[0], parameters, (tokens, key)).square().sum()

    together = torch.func.vmap(torch.func.grad(loss))(parameters, tokens, keys)
    for k, net in enumerate(nets):
        net(tokens[k], keys[k]).square().sum().backward()
        for name, parameter in net.named_parameters():
            torch.testing.assert_close(together[name][k], parameter.grad, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("length", [1, 4, T])
@pytest.mark.parametrize("batch", [5, 20])  # without and with tables over the vocabulary
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


def test_a_step_compiles_into_one_graph():
    net, tokens, keys = build(), draw_tokens(20).expand(2, -1, -1), torch.tensor([5, 2**32 - 1])
    parameters = {name: p.detach().expand(2, *p.shape).clone() for name, p in net.named_parameters()}

    def loss(parameters, tokens, key):
        return torch.func.functional_call(net, parameters, (tokens, key)).square().sum()

    gradient = torch.func.vmap(torch.func.grad(loss))
    compiled = torch.compile(gradient, backend="aot_eager", fullgraph=True)(parameters, tokens, keys)
    for name, expected in gradient(parameters, tokens, keys).items():
        torch.testing.assert_close(compiled[name], expected, rtol=1e-9, atol=1e-12)


def test_dropout_acts_in_training_with_another_noise_in_each_block():
    net, tokens = build(depth=3, dropout=0.5), draw_tokens()
    one, other = torch.tensor(1), torch.tensor(2)
    assert torch.equal(net(tokens, one), net(tokens, one))
    assert not torch.equal(net(tokens, one), net(tokens, other))
    layers = [module.layer for module in net.modules() if isinstance(module, Dropout)]
    assert len(set(layers)) == 3
    assert torch.equal(net.eval()(tokens, one), net(tokens, other))


def test_reset_parameters_depends_on_its_generator_alone():
    before = torch.get_rng_state()
    net = Transformer(VOCABULARY, CLASSES, width=16, heads=2, ff_width=24)
    torch.set_rng_state(before)
    net.reset_parameters(torch.Generator().manual_seed(1))
    assert torch.equal(torch.get_rng_state(), before)
    first = {name: weight.clone() for name, weight in net.state_dict().items()}
    net.reset_parameters(torch.Generator().manual_seed(1))
    assert all(torch.equal(weight, first[name]) for name, weight in net.state_dict().items())
    net.reset_parameters(torch.Generator().manual_seed(2))
    drawn = [name for name, weight in net.state_dict().items() if not torch.equal(weight, first[name])]
    assert set(drawn) == {name for name in first if "norm" not in name}


def test_reset_parameters_draws_at_the_stated_scales():
    net = Transformer(500, 300, width=64, heads=2, ff_width=200)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.fill_(9)
    net.reset_parameters(torch.Generator().manual_seed(0))
    for name, weight in net.named_parameters():
        if weight.ndim == 1:
            assert torch.equal(weight, torch.ones(64)), name
        elif "embedding" in name:
            assert weight.std().item() == pytest.approx(1 / 8, rel=0.02)
            assert weight.abs().max() > 3 / 8  # normal, not uniform
        else:
            bound = 1 / math.sqrt(weight.shape[1])
            assert 0.99 * bound < weight.abs().max() <= bound, name
            assert weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.03), name
            assert abs(weight.mean().item()) < 0.05 * bound, name


@pytest.mark.parametrize(("width", "heads"), [(15, 1), (16, 3), (12, 4)])
def test_a_width_that_the_heads_do_not_halve_is_refused_by_value(width, heads):
    with pytest.raises(ValueError, match=rf"width={width}.*heads={2 * heads}"):
        Transformer(VOCABULARY, CLASSES, width=width, heads=heads)

"""Options of published grokking protocols: what each computes, initial scales, and stacks of members."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from muonlab import split_params
from muonlab.losses import softmax
from muonlab.nets.mlp import MLP
from muonlab.nets.transformer import Attention, Transformer
from muonlab.rules import adamw, muon
from muonlab.train.by_rule import Treatment
from muonlab.train.engine import build
from muonlab.train.population import Population
from muonlab.train.sequential import Sequential

V, C, T, D, H, FF = 11, 7, 6, 16, 2, 24
SMALL = {"width": D, "heads": H, "ff_width": FF, "context": T}
PLAIN = {"gated": False, "dropout": 0.0}
NANDA = {**PLAIN, "depth": 1, "activation": "relu", "norm": "none", "positions": "learned"}
POWER = {**PLAIN, "activation": "relu", "norm": "layer", "positions": "learned", "dropout": 0.3}
MAKE = {
    "Nanda": lambda: Transformer(V, C, **SMALL, **NANDA, bias=True),
    "Power": lambda: Transformer(V, C, **SMALL, **POWER),
    "gated, no positions": lambda: Transformer(V, C, **SMALL, activation="gelu", bias=True, positions="none"),
    "rope with biases": lambda: Transformer(V, C, **SMALL, norm="layer", bias=True, embedding_std=1.0),
    "one-hot": lambda: MLP(T, C, vocabulary=V, depth=1, width=12, activation="square", bias=False, init_scale=3.0),
    "one-hot, deep": lambda: MLP(T, C, vocabulary=V, depth=2, width=12, dropout=0.3),
}
every_net = pytest.mark.parametrize("name", list(MAKE))


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def draw_tokens(batch=5, seed=0):
    return torch.randint(V, (batch, T), generator=torch.Generator().manual_seed(seed))


def all_drawn(net, std=0.5):
    """Return the net in float64 with every parameter drawn, biases and norms too."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in net.double().parameters():
            parameter.normal_(std=std, generator=generator)
    return net


# --- what an option computes

KINDS = ("weight", "bias")


def torchs_layer(block, activation):
    """Return torch's pre-norm layer with the weights of a block."""
    theirs = nn.TransformerEncoderLayer(
        D, H, FF, dropout=0.0, activation=activation, batch_first=True, norm_first=True, dtype=torch.float64
    )
    attention, feed_forward = block.attention, block.feed_forward
    parts = [attention.query, attention.key, attention.value]
    state = {f"self_attn.in_proj_{kind}": torch.cat([getattr(part, kind) for part in parts]) for kind in KINDS}
    pairs = {
        "self_attn.out_proj": attention.out,
        "linear1": feed_forward.inner,
        "linear2": feed_forward.out,
        "norm1": block.attention_norm,
        "norm2": block.feed_forward_norm,
    }
    state |= {f"{name}.{kind}": getattr(part, kind) for name, part in pairs.items() for kind in KINDS}
    theirs.load_state_dict(state)
    return theirs


@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("positions", ["learned", "none"])
def test_layer_norm_and_biases_make_torchs_pre_norm_encoder(positions, causal, activation):
    options = {**PLAIN, "norm": "layer", "bias": True, "activation": activation, "positions": positions}
    net, tokens = all_drawn(Transformer(V, C, **SMALL, **options, causal=causal)), draw_tokens()
    mask = nn.Transformer.generate_square_subsequent_mask(T, dtype=torch.float64) if causal else None
    x = net.embedding.weight[tokens]
    if positions == "learned":
        x = x + net.position_embedding.weight
    for block in net.blocks:
        x = torchs_layer(block, activation)(x, src_mask=mask, is_causal=causal)
    expected = F.linear(F.layer_norm(x, (D,), net.norm.weight, net.norm.bias), net.head.weight, net.head.bias)
    torch.testing.assert_close(net(tokens), expected[:, -1], rtol=0, atol=1e-10)


@pytest.mark.parametrize("num_queries", [1, 3, T])
@pytest.mark.parametrize("bias", [True, False])
def test_attention_without_rotation_is_torchs_multihead_attention(bias, num_queries):
    ours, x = all_drawn(Attention(D, H, True, None, bias)), draw(3, T, D)
    theirs = nn.MultiheadAttention(D, H, bias=bias, batch_first=True, dtype=torch.float64)
    parts = [ours.query, ours.key, ours.value]
    state = {"in_proj_weight": torch.cat([part.weight for part in parts]), "out_proj.weight": ours.out.weight}
    if bias:
        state |= {"in_proj_bias": torch.cat([part.bias for part in parts]), "out_proj.bias": ours.out.bias}
    theirs.load_state_dict(state)
    mask = nn.Transformer.generate_square_subsequent_mask(T, dtype=torch.float64)
    expected, _ = theirs(x, x, x, attn_mask=mask, need_weights=False)
    torch.testing.assert_close(ours(x, num_queries), expected[:, T - num_queries :], rtol=0, atol=1e-12)


@torch.no_grad()
def test_a_net_without_norm_with_learned_positions_is_what_loops_over_heads_and_positions_give():
    net, tokens = all_drawn(Transformer(V, C, **SMALL, **NANDA)), draw_tokens(batch=1)[0]
    weights = {name.removesuffix(".weight").split(".", 2)[-1]: weight for name, weight in net.named_parameters()}
    x = [net.embedding.weight[token] + net.position_embedding.weight[t] for t, token in enumerate(tokens)]
    read = torch.zeros(D, dtype=torch.float64)
    for h in range(H):
        rows = slice(h * D // H, (h + 1) * D // H)
        q = weights["attention.query"][rows] @ x[-1]
        odds = [math.exp(q @ (weights["attention.key"][rows] @ y) / math.sqrt(D // H)) for y in x]
        for odd, y in zip(odds, x, strict=True):
            read[rows] += odd / sum(odds) * (weights["attention.value"][rows] @ y)
    middle = x[-1] + weights["attention.out"] @ read
    hidden = (weights["feed_forward.inner"] @ middle).clamp(min=0)
    expected = net.head.weight @ (middle + weights["feed_forward.out"] @ hidden)
    torch.testing.assert_close(net(tokens[None])[0], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("activation", "f"), [("relu", F.relu), ("gelu", F.gelu), ("silu", F.silu)])
def test_a_gate_has_the_activation(activation, f):
    layer = all_drawn(Transformer(V, C, **SMALL, activation=activation, bias=True, dropout=0.0)).blocks[0].feed_forward
    x = draw(2, T, D)
    inner, gate, out = ((part.weight.T, part.bias) for part in (layer.inner, layer.gate, layer.out))
    expected = f(x @ gate[0] + gate[1]) * (x @ inner[0] + inner[1]) @ out[0] + out[1]
    torch.testing.assert_close(layer(x, None), expected, rtol=0, atol=1e-12)


def test_without_positions_one_block_sees_the_earlier_tokens_as_a_set():
    net, tokens = all_drawn(Transformer(V, C, **SMALL, depth=1, positions="none")).eval(), draw_tokens()
    swapped = tokens[:, [2, 1, 0, 4, 3, 5]]
    torch.testing.assert_close(net(swapped), net(tokens), rtol=0, atol=1e-12)
    other = all_drawn(Transformer(V, C, **SMALL, depth=1, positions="learned")).eval()
    assert (other(swapped) - other(tokens)).abs().max() > 0.01


@pytest.mark.parametrize("activation", ["relu", "gelu", "square"])
def test_tokens_of_an_mlp_are_one_hot_vectors_side_by_side(activation):
    net = all_drawn(MLP(T, C, vocabulary=V, depth=2, width=12, activation=activation))
    vectors = MLP(T * V, C, depth=2, width=12, activation=activation).double()
    vectors.load_state_dict(net.state_dict())
    tokens = draw_tokens()
    expected = vectors(F.one_hot(tokens, V).double())
    torch.testing.assert_close(net(tokens), expected, rtol=0, atol=1e-12)


def test_the_weights_that_add_modulo_a_prime_in_closed_form_do_so():
    p = 11
    waves = 2 * math.pi / p * torch.arange(1, (p + 1) // 2, dtype=torch.float64)
    angles = 2 * math.pi / 3 * torch.arange(3, dtype=torch.float64)
    wave, first, second = torch.cartesian_prod(waves, angles, angles).T  # one hidden unit per wave and pair of phases
    numbers = torch.arange(p, dtype=torch.float64)
    net = MLP(2, p, vocabulary=p, depth=1, width=len(wave), activation="square", bias=False).double()
    hidden = [(torch.outer(wave, numbers) + phase[:, None]).cos() for phase in (first, second)]
    head = (torch.outer(numbers, wave) + first + second).cos()
    net.load_state_dict({"blocks.0.linear.weight": torch.cat(hidden, dim=1), "head.weight": head})
    a, b = torch.cartesian_prod(torch.arange(p), torch.arange(p)).T
    # Over the phases all products of cosines cancel but cos(wave (a + b - c)), whose sum over the waves is known.
    expected = 9 / 4 * (p * F.one_hot((a + b) % p, p).double() - 1)
    torch.testing.assert_close(net(torch.stack([a, b], dim=1)), expected, rtol=0, atol=1e-10)


# --- initial weights


def initial(net, seed=0):
    net.reset_parameters(torch.Generator().manual_seed(seed))
    return {name: p.detach().clone() for name, p in net.named_parameters()}


def test_tables_are_drawn_at_the_scale_that_was_asked_for():
    for std, expected in ((None, 1 / 8), (1.0, 1.0), (0.02, 0.02)):
        net = Transformer(500, 3, width=64, heads=2, positions="learned", context=400, embedding_std=std)
        drawn = initial(net)
        for name in ("embedding.weight", "position_embedding.weight"):
            assert drawn[name].std().item() == pytest.approx(expected, rel=0.02), name


@pytest.mark.parametrize(
    "make",
    [
        lambda **options: Transformer(V, C, **SMALL, **POWER, bias=True, **options),
        lambda **options: MLP(6, C, **options),
    ],
)
def test_the_initial_scale_multiplies_all_matrices_and_tables_and_nothing_else(make):
    one, eight = initial(make()), initial(make(init_scale=8.0))
    for name, p in one.items():
        assert torch.equal(eight[name], 8 * p if p.ndim > 1 else p), name
        assert p.ndim > 1 or torch.equal(p, torch.full_like(p, "norm" in name and name.endswith("weight"))), name


@every_net
def test_weights_depend_on_the_generator_alone(name):
    net, before = MAKE[name](), torch.get_rng_state()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.fill_(7)
    states = [initial(net, seed) for seed in (1, 1, 2)]
    assert torch.equal(torch.get_rng_state(), before)
    for each, p in states[0].items():
        assert torch.equal(p, states[1][each]), each
        assert torch.equal(p, states[2][each]) == (p.ndim == 1), each


# --- stacks


@settings(deadline=None, max_examples=40)
@given(
    st.fixed_dictionaries(
        {
            "depth": st.integers(1, 2),
            "gated": st.booleans(),
            "activation": st.sampled_from(["silu", "relu", "gelu"]),
            "bias": st.booleans(),
            "norm": st.sampled_from(["rms", "layer", "none"]),
            "positions": st.sampled_from(["rope", "learned", "none"]),
            "causal": st.booleans(),
        }
    ),
    st.sampled_from([5, 20]),  # without and with tables over the vocabulary
)
def test_shortcuts_in_a_stack_change_neither_answers_nor_gradients(options, batch):
    nets = [Transformer(V, C, **SMALL, **options, dropout=0.5).double() for _ in range(2)]
    for seed, net in enumerate(nets):
        net.reset_parameters(torch.Generator().manual_seed(seed))
    tokens = torch.stack([draw_tokens(batch, seed) for seed in range(2)])
    labels, keys = tokens[:, :, 0] % C, torch.tensor([5, 2**32 - 1])
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


@pytest.mark.parametrize("kind", ["adamw", "muon"])
@every_net
def test_members_of_a_population_are_the_nets_alone(name, kind):
    by_adamw = Treatment(adamw, {"lr": 0.01, "weight_decay": 0.1})
    by_muon = Treatment(muon, {"lr": 0.02}) if kind == "muon" else by_adamw
    routes = split_params(MAKE[name]()).routes
    treatments = {route.name: by_muon if route.rule == "muon" else by_adamw for route in routes}
    tokens, seeds = draw_tokens(8), (3, 4)
    labels = tokens[:, 0] % C
    engine, reason = build(MAKE[name](), softmax, treatments, seeds, tokens, labels, dtype=torch.float64)
    assert (type(engine), reason) == (Population, None)
    orders = torch.stack([torch.randperm(8, generator=torch.Generator().manual_seed(k)) for k in range(6)])
    orders = orders.view(3, 2, 8)[:, :, :6]  # other batches for each member
    for step, rows in enumerate(orders):
        engine.step(tokens[rows], labels[rows], step)
    for k, seed in enumerate(seeds):
        alone = Sequential(MAKE[name](), softmax, treatments, (seed,), dtype=torch.float64)
        for step, rows in enumerate(orders[:, k : k + 1]):
            alone.step(tokens[rows], labels[rows], step)
        for each, p in alone.parameters.items():
            # The loss does not depend on the bias of the keys, and AdamW makes a step of the rounding in its gradient.
            if not each.endswith("key.bias"):
                torch.testing.assert_close(engine.parameters[each][k], p[0], rtol=1e-7, atol=1e-9, msg=each)


@pytest.mark.parametrize("name", ["Nanda", "one-hot"])
def test_a_step_compiles_into_one_graph(name):
    net, tokens, keys = MAKE[name]().double(), draw_tokens(20).expand(2, -1, -1), torch.tensor([5, 2**32 - 1])
    parameters = {each: p.detach().expand(2, *p.shape).clone() for each, p in net.named_parameters()}

    def loss(parameters, tokens, key):
        return torch.func.functional_call(net, parameters, (tokens, key)).square().sum()

    gradient = torch.func.vmap(torch.func.grad(loss))
    torch._dynamo.reset()
    compiled = torch.compile(gradient, backend="eager", fullgraph=True)(parameters, tokens, keys)
    for each, expected in gradient(parameters, tokens, keys).items():
        torch.testing.assert_close(compiled[each], expected, rtol=1e-9, atol=1e-12)


# --- Muon, and bad input


@every_net
def test_muon_takes_matrices_within_blocks_and_no_table(name):
    split = split_params(MAKE[name]())
    assert {route.name for route in split.named("muon")} == {
        each for each, p in MAKE[name]().named_parameters() if each.startswith("blocks.") and p.ndim == 2
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"activation": "tanh"}, "unknown activation='tanh'; expected 'silu' or 'relu' or 'gelu'"),
        ({"norm": "batch"}, "unknown norm='batch'; expected 'rms' or 'layer' or 'none'"),
        ({"positions": "sincos"}, "unknown positions='sincos'; expected 'rope' or 'learned' or 'none'"),
        ({"positions": "learned", "context": None}, "positions='learned' needs context"),
        ({"positions": "learned", "context": 0}, "context=0"),
        ({"positions": "none", "width": 15}, "width=15 is not a multiple of heads=2"),
        ({"embedding_std": 0}, "embedding_std=0 is out of range; expected a finite number greater than 0"),
        ({"init_scale": math.inf}, "init_scale=inf is out of range"),
    ],
)
def test_bad_options_of_a_transformer_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        Transformer(V, C, **{**SMALL, **options})


@pytest.mark.parametrize(
    ("options", "message"), [({"vocabulary": 0}, "vocabulary=0"), ({"init_scale": math.nan}, "init_scale=nan")]
)
def test_bad_options_of_an_mlp_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        MLP(T, C, **options)


def test_a_sequence_longer_than_the_learned_positions_is_named():
    with pytest.raises(ValueError, match="sequences have 7 tokens, more than context=6"):
        Transformer(V, C, **SMALL, **NANDA)(torch.zeros(2, 7, dtype=torch.long))

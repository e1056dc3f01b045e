"""What each net computes, against its definition, torch's own modules and loops over heads and positions."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from matrices import draw
from muonlab.losses import softmax
from muonlab.nets.dropout import Dropout
from muonlab.nets.gpt import GPT
from muonlab.nets.mlp import MLP, LinearClassifier
from muonlab.nets.resnet import ResNet
from muonlab.nets.transformer import Attention, Transformer, rotate, turn
from muonlab.nets.vit import ViT, patches, sincos_positions

KEY = torch.tensor(3)
V, C, T, D, H, FF = 11, 7, 6, 16, 2, 24
SMALL = {"width": D, "heads": H, "ff_width": FF, "context": T}
PLAIN = {"gated": False, "dropout": 0.0}
NANDA = {**PLAIN, "depth": 1, "activation": "relu", "norm": "none", "positions": "learned"}
EXACT = {"rtol": 0, "atol": 1e-12}


def all_drawn(net, std=0.5):
    """Return the net in float64 with every parameter drawn, biases and norms too."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in net.double().parameters():
            parameter.normal_(std=std, generator=generator)
    return net


def draw_tokens(batch=5, seed=0, length=T, least=0):
    return torch.randint(least, V, (batch, length), generator=torch.Generator().manual_seed(seed))


# ---- vectors


@pytest.mark.parametrize(("activation", "function"), [("relu", torch.relu), ("gelu", F.gelu)])
def test_an_mlp_is_matrices_with_activations_and_dropout_between(activation, function):
    net, x = MLP(12, 4, depth=3, width=8, activation=activation, dropout=0.5).double(), draw(5, 3, 2, 2)
    weights = dict(net.named_parameters())
    y = x.reshape(5, 12)
    for index in range(3):
        y = function(y @ weights[f"blocks.{index}.linear.weight"].T + weights[f"blocks.{index}.linear.bias"])
        y = Dropout(0.5, layer=index)(y, KEY)
    torch.testing.assert_close(net(x, KEY), y @ weights["head.weight"].T + weights["head.bias"], **EXACT)


def test_tokens_of_an_mlp_are_one_hot_vectors_side_by_side():
    net = all_drawn(MLP(T, C, vocabulary=V, depth=2, width=12, activation="square"))
    vectors = MLP(T * V, C, depth=2, width=12, activation="square").double()
    vectors.load_state_dict(net.state_dict())
    tokens = draw_tokens()
    torch.testing.assert_close(net(tokens), vectors(F.one_hot(tokens, V).double()), **EXACT)


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


@pytest.mark.parametrize("bias", [True, False])
def test_a_linear_classifier_is_one_matrix_from_zero(bias):
    net, x, labels = LinearClassifier(64, 10, bias=bias).double(), draw(5, 1, 8, 8), torch.arange(5)
    logits = net(x)
    assert torch.equal(logits, torch.zeros(5, 10, dtype=torch.float64))
    F.cross_entropy(logits, labels).backward()
    uniform = (1 / 10 - F.one_hot(labels, 10).double()).T @ x.reshape(5, 64) / 5
    torch.testing.assert_close(net.linear.weight.grad, uniform, **EXACT)
    expected = x.reshape(5, 64) @ all_drawn(net).linear.weight.T + (net.linear.bias if bias else 0)
    torch.testing.assert_close(net(x), expected, **EXACT)


# ---- images


@pytest.mark.parametrize(("size", "sides"), [(8, [8, 4, 2, 1]), (28, [28, 14, 7, 4]), (96, [24, 12, 6, 3])])
def test_the_stem_of_a_resnet_suits_the_size(size, sides):
    net, shapes = ResNet(5, image_size=size, width=4, depths=(1, 1, 1, 1), norm="group", groups=2), []
    for name in net.taps:
        net.get_submodule(name).register_forward_hook(lambda module, inputs, output: shapes.append(output.shape))
    assert net(torch.zeros(2, 3, size, size)).shape == (2, 5)
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
    torch.testing.assert_close(net(x), expected, **EXACT)


def test_patches_are_those_of_a_convolution_and_fixed_positions_sines_and_cosines_of_column_and_row():
    for size in (1, 2, 4):
        images, weight = draw(2, 3, 8, 8), draw(7, 3, size, size, seed=1)
        expected = F.conv2d(images, weight, stride=size).flatten(2).transpose(1, 2)
        torch.testing.assert_close(patches(images, size) @ weight.flatten(1).T, expected, **EXACT)
    table = sincos_positions(3, 8)
    for row, column in torch.cartesian_prod(torch.arange(3), torch.arange(3)).tolist():
        angles = [[place / 10_000 ** (index / 2) for index in range(2)] for place in (column, row)]
        expected = [function(angle) for each in angles for function in (math.sin, math.cos) for angle in each]
        assert table[row * 3 + column].tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("positions", ["learned", "sincos"])
@pytest.mark.parametrize("pooling", ["class", "mean"])
def test_a_vit_is_patches_positions_dropout_blocks_and_a_head(pooling, positions):
    options = {"image_size": 8, "patch": 2, "depth": 2, "width": 24, "heads": 3, "dropout": 0.5}
    net, images = ViT(5, **options, pooling=pooling, positions=positions).double(), draw(2, 3, 8, 8)
    x = F.conv2d(images, net.stem.weight.view(24, 3, 2, 2), net.stem.bias, stride=2).flatten(2).transpose(1, 2)
    places = sincos_positions(4, 24).double() if positions == "sincos" else net.position_embedding.weight
    if pooling == "class":
        x = torch.cat([net.class_token.expand(2, 1, 24), x], dim=1)
        places = places if positions == "learned" else torch.cat([torch.zeros(1, 24), places])
    x = Dropout(0.5, layer=0)(x + places, KEY)
    for block in net.blocks:
        x = block(x, KEY)
    x = F.layer_norm(x, (24,), eps=1e-6)
    x = x[:, 0] if pooling == "class" else x.mean(dim=1)
    torch.testing.assert_close(net(images, KEY), x @ net.head.weight.T + net.head.bias, **EXACT)


# ---- texts

MODERN = {"norm": "rms", "positions": "rope", "feed_forward": "swiglu", "bias": False, "tied": False}
each_variant = pytest.mark.parametrize("options", [{}, MODERN], ids=["GPT-2", "modern"])


def gpt(classes=None, **options):
    net = GPT(V, classes, **{"depth": 2, "width": 24, "heads": 3, "context": 20, **options}).double()
    net.reset_parameters(torch.Generator().manual_seed(0))
    return net


@each_variant
def test_changing_a_later_token_changes_no_earlier_logit(options):
    net, tokens = gpt(**options), draw_tokens(batch=1)
    logits = net(tokens)
    assert logits.shape == (1, T, V)
    for position in range(T):
        changed = tokens.clone()
        changed[0, position] = (tokens[0, position] + 1) % V
        difference = (net(changed) - logits).abs().amax(dim=-1)[0]
        assert difference[:position].eq(0).all()
        assert difference[position:].gt(0).all()


@pytest.mark.parametrize("options", [{}, MODERN, {"positions": "rope"}, {"tied": False}])
def test_a_gpt_is_tables_dropout_blocks_and_a_head(options):
    net, tokens = gpt(**options, dropout=0.5), draw_tokens()
    x = net.embedding.weight[tokens]
    if net.position_embedding is not None:
        x = x + net.position_embedding.weight[:T]
    x = Dropout(0.5, layer=0)(x, KEY)
    for block in net.blocks:
        x = block(x, KEY)
    x = F.rms_norm(x, (24,), eps=1e-5) if options.get("norm") == "rms" else F.layer_norm(x, (24,), eps=1e-5)
    head = net.embedding.weight if options.get("tied", True) else net.head.weight
    torch.testing.assert_close(net(tokens, KEY), x @ head.T, **EXACT)


@each_variant
def test_a_classification_is_that_of_each_text_alone_whatever_pads_it(options):
    net, tokens, lengths = gpt(classes=5, padding=0, **options), draw_tokens(batch=4, least=1), [3, T, 1, 5]
    padded = torch.where(torch.arange(T) < torch.tensor(lengths)[:, None], tokens, 0)
    found = net(padded)
    assert found.shape == (4, 5)
    for row, length in enumerate(lengths):
        torch.testing.assert_close(found[row], net(tokens[row : row + 1, :length])[0], **EXACT)
    torch.testing.assert_close(net(F.pad(padded, (0, 9))), found, **EXACT)
    one, empty = torch.zeros(1, 1, dtype=torch.long), torch.zeros(1, T, dtype=torch.long)
    torch.testing.assert_close(net(empty), net(one), **EXACT)  # of an empty text the first padding is read
    net.padding = None
    torch.testing.assert_close(net(tokens)[1], found[1], **EXACT)
    assert (net(F.pad(padded, (0, 1))) - found).abs().amax(dim=1).gt(1e-6).all()


def test_rotary_positions_have_a_base_and_no_bound():
    net = gpt(positions="rope", rope_base=1e2, context=4)
    assert [block.attention.rope_base for block in net.blocks] == [1e2, 1e2]
    assert net(draw_tokens()).shape == (5, T, V)


# ---- the Transformer of the grokking study


def test_a_turned_query_scores_as_a_rotated_query_and_key():
    q, k, positions = draw(2, T, 3, 8), draw(2, T, 3, 8, seed=1), torch.arange(T)
    expected = torch.einsum("bqhd,bkhd->bqkh", rotate(q, positions, 1e6), rotate(k, positions, 1e6))
    turned = turn(q, torch.arange(-T, T), 1e6)  # (2, T, 3, 2 T, 8)
    for i in range(T):
        for j in range(T):
            torch.testing.assert_close((turned[:, i, :, T + i - j] * k[:, j]).sum(dim=-1), expected[:, i, j], **EXACT)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("base", [None, 1e6])
def test_attention_equals_torchs_also_over_states_that_follow_from_tokens(causal, base):
    ours, x = all_drawn(Attention(D, H, causal, base, bias=True)), draw(3, T, D)
    split = [part(x).unflatten(-1, (H, -1)) for part in (ours.query, ours.key, ours.value)]
    q, k = (y if base is None else rotate(y, torch.arange(T), base) for y in split[:2])
    mixed = F.scaled_dot_product_attention(*(y.transpose(1, 2) for y in (q, k, split[2])), is_causal=causal)
    expected = ours.out(mixed.transpose(1, 2).flatten(2))
    states, tokens = draw(V, D), draw_tokens()
    for num_queries in (1, 3, T):
        torch.testing.assert_close(ours(x, num_queries), expected[:, T - num_queries :], rtol=0, atol=1e-10)
        if base is not None:
            by_token, whole = ours(states, num_queries, tokens), ours(states[tokens], num_queries)
            torch.testing.assert_close(by_token, whole, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("causal", "activation"), [(True, "relu"), (False, "gelu")])
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


def torchs_layer(block, activation):
    """Return torch's pre-norm layer with the weights of a block."""
    theirs = nn.TransformerEncoderLayer(
        D, H, FF, dropout=0.0, activation=activation, batch_first=True, norm_first=True, dtype=torch.float64
    )
    attention, feed_forward, kinds = block.attention, block.feed_forward, ("weight", "bias")
    parts = [attention.query, attention.key, attention.value]
    state = {f"self_attn.in_proj_{kind}": torch.cat([getattr(part, kind) for part in parts]) for kind in kinds}
    pairs = {
        "self_attn.out_proj": attention.out,
        "linear1": feed_forward.inner,
        "linear2": feed_forward.out,
        "norm1": block.attention_norm,
        "norm2": block.feed_forward_norm,
    }
    theirs.load_state_dict(
        state | {f"{name}.{kind}": getattr(part, kind) for name, part in pairs.items() for kind in kinds}
    )
    return theirs


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
    torch.testing.assert_close(net(tokens[None])[0], expected, **EXACT)


@pytest.mark.parametrize(("activation", "f"), [("relu", F.relu), ("gelu", F.gelu), ("silu", F.silu)])
def test_a_gate_has_the_activation(activation, f):
    layer = all_drawn(Transformer(V, C, **SMALL, activation=activation, bias=True, dropout=0.0)).blocks[0].feed_forward
    x = draw(2, T, D)
    inner, gate, out = ((part.weight.T, part.bias) for part in (layer.inner, layer.gate, layer.out))
    expected = f(x @ gate[0] + gate[1]) * (x @ inner[0] + inner[1]) @ out[0] + out[1]
    torch.testing.assert_close(layer(x, None), expected, **EXACT)


def test_without_positions_one_block_sees_the_earlier_tokens_as_a_set():
    net, tokens = all_drawn(Transformer(V, C, **SMALL, depth=1, positions="none")).eval(), draw_tokens()
    swapped = tokens[:, [2, 1, 0, 4, 3, 5]]
    torch.testing.assert_close(net(swapped), net(tokens), **EXACT)
    other = all_drawn(Transformer(V, C, **SMALL, depth=1, positions="learned")).eval()
    assert (other(swapped) - other(tokens)).abs().max() > 0.01


OPTIONS = {
    "depth": st.integers(1, 3),
    "gated": st.booleans(),
    "activation": st.sampled_from(["silu", "relu", "gelu"]),
    "bias": st.booleans(),
    "norm": st.sampled_from(["rms", "layer", "none"]),
    "positions": st.sampled_from(["rope", "learned", "none"]),
    "causal": st.booleans(),
}


@settings(deadline=None, max_examples=30)
@given(st.fixed_dictionaries(OPTIONS), st.sampled_from([(5, T), (20, T), (20, 1)]))  # tables over the ids from 20 on
def test_shortcuts_in_a_stack_change_neither_answers_nor_gradients_nor_noise(options, shape):
    nets = [Transformer(V, C, **SMALL, **options, dropout=0.5).double() for _ in range(2)]
    for seed, net in enumerate(nets):
        net.reset_parameters(torch.Generator().manual_seed(seed))
    tokens = torch.stack([draw_tokens(*shape[:1], seed, shape[1]) for seed in range(2)])
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


@pytest.mark.parametrize(("depth", "most"), [(1, 0.3), (2, 0.7)])
def test_shortcuts_save_matrix_products(depth, most):
    net, tokens, flops = Transformer(V, C, **SMALL | {"ff_width": 64}, depth=depth).eval(), draw_tokens(100), {}
    for net.shortcuts in (True, False):
        with FlopCounterMode(display=False) as counter:
            net(tokens)
        flops[net.shortcuts] = counter.get_total_flops()
    assert flops[True] < most * flops[False]

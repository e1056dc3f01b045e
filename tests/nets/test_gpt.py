import math

import pytest
import torch
import torch.nn.functional as F

from muonlab.nets.dropout import Dropout
from muonlab.nets.gpt import GPT

V, T, D = 13, 7, 24
MODERN = {"norm": "rms", "positions": "rope", "feed_forward": "swiglu", "bias": False, "tied": False}
VARIANTS = {
    "GPT-2": {},
    "modern": MODERN,
    "rope, tied": {"positions": "rope"},
    "untied": {"tied": False, "feed_forward": "gelu"},
}
each_variant = pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)


def build(*, classes=None, seed=0, **options):
    net = GPT(V, classes, **{"depth": 2, "width": D, "heads": 3, "context": 20, **options}).double()
    net.reset_parameters(torch.Generator().manual_seed(seed))
    return net


def draw_tokens(batch=4, length=T, seed=0):
    return torch.randint(1, V, (batch, length), generator=torch.Generator().manual_seed(seed))


def count(net):
    return sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize(
    ("options", "published"),
    [
        ({}, 124_439_808),  # GPT-2, as Hugging Face counts it
        ({"depth": 24, "width": 1024, "heads": 16}, 354_823_168),  # GPT-2 medium
        ({"tied": False}, 124_439_808 + 50257 * 768),
        (MODERN, 2 * 50257 * 768 + 12 * (16 * 768**2 + 2 * 768) + 768),
        ({"classes": 3}, 124_439_808 + 3 * 768),
    ],
)
def test_the_parameters_are_as_many_as_published(options, published):
    with torch.device("meta"):
        assert count(GPT(50257, **options)) == published


@each_variant
def test_changing_a_later_token_changes_no_earlier_logit(options):
    net, tokens = build(**options), draw_tokens(batch=1)
    logits = net(tokens)
    assert logits.shape == (1, T, V)
    for position in range(T):
        for other in range(V):
            if other != tokens[0, position]:
                changed = tokens.clone()
                changed[0, position] = other
                difference = (net(changed) - logits).abs().amax(dim=-1)[0]
                assert difference[:position].eq(0).all()
                assert difference[position:].gt(0).all()


@each_variant
def test_the_net_is_tables_blocks_and_a_head(options):
    net, tokens = build(**options), draw_tokens()
    x = net.embedding.weight[tokens]
    if net.position_embedding is not None:
        x = x + net.position_embedding.weight[:T]
    for block in net.blocks:
        x = block(x)
    x = F.rms_norm(x, (D,), eps=1e-5) if options.get("norm") == "rms" else F.layer_norm(x, (D,), eps=1e-5)
    head = net.embedding.weight if options.get("tied", True) else net.head.weight
    torch.testing.assert_close(net(tokens), x @ head.T, rtol=0, atol=1e-12)


@each_variant
def test_the_first_loss_is_that_of_a_guess(options):
    net = GPT(2000, depth=2, width=64, heads=4, **options)
    tokens = torch.randint(2000, (8, 30), generator=torch.Generator().manual_seed(0))
    loss = F.cross_entropy(net(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
    assert loss.item() == pytest.approx(math.log(2000), abs=0.1)


@each_variant
def test_a_classification_is_that_of_each_text_alone_whatever_fills_it_up(options):
    net, tokens, lengths = build(classes=5, **options), draw_tokens(), torch.tensor([3, 7, 1, 6])
    found = net(tokens, lengths=lengths)
    assert found.shape == (4, 5)
    for row, length in enumerate(lengths.tolist()):
        torch.testing.assert_close(found[row], net(tokens[row : row + 1, :length])[0], rtol=0, atol=1e-12)
    longer = torch.cat([tokens, draw_tokens(length=4, seed=1)], dim=1)
    torch.testing.assert_close(net(longer, lengths=lengths), found, rtol=0, atol=1e-12)
    assert (net(longer) - net(tokens)).abs().amax(dim=1).gt(1e-6).all()


@each_variant
def test_padding_has_no_effect_on_a_classification(options):
    net, tokens, lengths = build(classes=5, padding=0, **options), draw_tokens(), torch.tensor([3, 7, 1, 6])
    padded = torch.where(torch.arange(T) < lengths[:, None], tokens, 0)
    torch.testing.assert_close(net(padded), net(tokens, lengths=lengths), rtol=0, atol=1e-12)
    torch.testing.assert_close(net(F.pad(padded, (0, 9))), net(padded), rtol=0, atol=1e-12)


def test_of_an_empty_text_the_first_padding_is_read():
    net = build(classes=5, padding=0)
    expected = net(torch.zeros(1, 1, dtype=torch.long), lengths=torch.tensor([1]))
    torch.testing.assert_close(net(torch.zeros(1, T, dtype=torch.long)), expected, rtol=0, atol=1e-12)


def test_without_padding_or_lengths_the_last_position_is_read():
    net, tokens = build(classes=5), draw_tokens()
    torch.testing.assert_close(net(tokens), net(tokens, lengths=torch.full((4,), T)), rtol=0, atol=0)


@pytest.mark.parametrize("options", [{}, MODERN], ids=["GPT-2", "modern"])
def test_weights_have_the_stated_scales(options):
    net = GPT(500, depth=8, width=64, heads=4, context=300, **options)
    with torch.no_grad():
        for p in net.parameters():
            p.fill_(9)
    net.reset_parameters(torch.Generator().manual_seed(0))
    for name, p in net.named_parameters():
        if "norm" in name:
            assert torch.equal(p, torch.full_like(p, name.endswith("weight"))), name
        elif name.endswith("bias"):
            assert not p.any(), name
        else:
            deviation = 0.02 / 4 if name.endswith("out.weight") else 0.02
            assert p.std().item() == pytest.approx(deviation, rel=0.04), name
            assert p.abs().max() > 3 * deviation, name


def test_dropout_has_another_noise_at_each_place():
    net, tokens = build(dropout=0.5), draw_tokens()
    assert [each.layer for each in net.modules() if isinstance(each, Dropout)] == [0, 1, 2, 3, 4]
    one, other = torch.tensor(1), torch.tensor(2)
    assert torch.equal(net(tokens, one), net(tokens, one))
    assert not torch.equal(net(tokens, one), net(tokens, other))
    x = Dropout(0.5, layer=0)(net.embedding.weight[tokens] + net.position_embedding.weight[:T], one)
    for block in net.blocks:
        x = block(x, one)
    expected = F.layer_norm(x, (D,), eps=1e-5) @ net.embedding.weight.T
    torch.testing.assert_close(net(tokens, one), expected, rtol=0, atol=1e-12)
    assert torch.equal(net.eval()(tokens, one), net(tokens, other))


@pytest.mark.parametrize("positions", ["learned", "rope"])
def test_the_last_position_sees_the_order_of_earlier_tokens(positions):
    net, tokens = build(depth=1, positions=positions), draw_tokens()
    net.blocks[0].attention.query.weight.data *= 50  # attention is nearly even in a fresh net
    net.blocks[0].attention.key.weight.data *= 50
    swapped = tokens[:, [1, 0, *range(2, T)]]
    assert (net(swapped) - net(tokens))[:, -1].abs().max() > 1e-4
    if positions == "learned":
        net.position_embedding.weight.data.zero_()
    else:
        net.blocks[0].attention.rope_base = None
    torch.testing.assert_close(net(swapped)[:, -1], net(tokens)[:, -1], rtol=0, atol=1e-12)


def test_the_base_of_the_rotation_is_a_choice():
    one, other = (build(positions="rope", rope_base=base) for base in (1e4, 1e2))
    assert (one(draw_tokens()) - other(draw_tokens())).abs().max() > 1e-9
    assert [block.attention.rope_base for block in other.blocks] == [1e2, 1e2]


def test_rotary_positions_bound_no_text():
    assert build(positions="rope", context=4)(draw_tokens(length=T)).shape == (4, T, V)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": 5}, "width=24 is not a multiple of heads=5, which attention needs"),
        (
            {"heads": 8, "positions": "rope"},
            r"width=24 is not a multiple of 2 \* heads=16, which positions='rope' needs",
        ),
        ({"norm": "batch"}, "unknown norm='batch'; expected 'layer' or 'rms'"),
        ({"positions": "sincos"}, "unknown positions='sincos'; expected 'learned' or 'rope'"),
        ({"feed_forward": "silu"}, "unknown feed_forward='silu'; expected 'gelu' or 'gelu_tanh' or 'swiglu'"),
        ({"padding": V}, "padding=13 is no token id; expected None or 0 to 12"),
        ({"padding": -1}, "padding=-1 is no token id; expected None or 0 to 12"),
        ({"classes": 0}, "classes=0 is no size"),
        ({"context": 0}, "context=0 is no size"),
        ({"depth": 0}, "depth=0 is no size"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)


def test_a_text_longer_than_learned_positions_is_named():
    assert build()(draw_tokens(length=20)).shape == (4, 20, V)
    with pytest.raises(ValueError, match=r"tokens have 21 positions, .*expected at most context=20, or .*'rope'"):
        build()(draw_tokens(length=21))


def test_bad_inputs_are_named():
    with pytest.raises(ValueError, match=r"tokens have the shape \(7,\); expected \(batch, tokens\)"):
        build()(draw_tokens()[0])
    with pytest.raises(ValueError, match=r"lengths have the shape \(4, 1\); expected \(4,\)"):
        build(classes=5)(draw_tokens(), lengths=torch.ones(4, 1, dtype=torch.long))
    with pytest.raises(ValueError, match="lengths are for a net with classes, and this one has classes=None"):
        build()(draw_tokens(), lengths=torch.ones(4, dtype=torch.long))

import pytest
import torch
import torch.nn.functional as F

from muonlab.nets.dropout import Dropout
from muonlab.nets.gpt import GPT

V, T, D = 13, 7, 24
VARIANTS = {
    "GPT-2": {},
    "modern": {"norm": "rms", "positions": "rope", "feed_forward": "swiglu", "bias": False, "tied": False},
}
each_variant = pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)


def build(*, classes=None, **options):
    net = GPT(V, classes, **{"depth": 2, "width": D, "heads": 3, "context": 20, **options}).double()
    net.reset_parameters(torch.Generator().manual_seed(0))
    return net


def draw_tokens(batch=4, length=T, seed=0):
    return torch.randint(1, V, (batch, length), generator=torch.Generator().manual_seed(seed))


@each_variant
def test_changing_a_later_token_changes_no_earlier_logit(options):
    net, tokens = build(**options), draw_tokens(batch=1)
    logits = net(tokens)
    assert logits.shape == (1, T, V)
    for position in range(T):
        changed = tokens.clone()
        changed[0, position] = (tokens[0, position] + 1) % V
        difference = (net(changed) - logits).abs().amax(dim=-1)[0]
        assert difference[:position].eq(0).all()
        assert difference[position:].gt(0).all()


@pytest.mark.parametrize("options", [*VARIANTS.values(), {"positions": "rope"}, {"tied": False}])
def test_the_net_is_tables_dropout_blocks_and_a_head(options):
    net, tokens, key = build(**options, dropout=0.5), draw_tokens(), torch.tensor(3)
    x = net.embedding.weight[tokens]
    if net.position_embedding is not None:
        x = x + net.position_embedding.weight[:T]
    x = Dropout(0.5, layer=0)(x, key)
    for block in net.blocks:
        x = block(x, key)
    x = F.rms_norm(x, (D,), eps=1e-5) if options.get("norm") == "rms" else F.layer_norm(x, (D,), eps=1e-5)
    head = net.embedding.weight if options.get("tied", True) else net.head.weight
    torch.testing.assert_close(net(tokens, key), x @ head.T, rtol=0, atol=1e-12)


# ---- classification


@each_variant
def test_a_classification_is_that_of_each_text_alone_whatever_pads_it(options):
    net, tokens, lengths = build(classes=5, **options), draw_tokens(), torch.tensor([3, 7, 1, 6])
    found = net(tokens, lengths=lengths)
    assert found.shape == (4, 5)
    for row, length in enumerate(lengths.tolist()):
        torch.testing.assert_close(found[row], net(tokens[row : row + 1, :length])[0], rtol=0, atol=1e-12)
    longer = torch.cat([tokens, draw_tokens(length=4, seed=1)], dim=1)
    torch.testing.assert_close(net(longer, lengths=lengths), found, rtol=0, atol=1e-12)
    assert (net(longer) - net(tokens)).abs().amax(dim=1).gt(1e-6).all()
    net.padding = 0
    padded = torch.where(torch.arange(T) < lengths[:, None], tokens, 0)
    torch.testing.assert_close(net(F.pad(padded, (0, 9))), found, rtol=0, atol=1e-12)


def test_of_an_empty_text_the_first_padding_is_read():
    net = build(classes=5, padding=0)
    expected = net(torch.zeros(1, 1, dtype=torch.long), lengths=torch.tensor([1]))
    torch.testing.assert_close(net(torch.zeros(1, T, dtype=torch.long)), expected, rtol=0, atol=1e-12)


def test_rotary_positions_have_a_base_and_no_bound():
    net = build(positions="rope", rope_base=1e2, context=4)
    assert [block.attention.rope_base for block in net.blocks] == [1e2, 1e2]
    assert net(draw_tokens(length=T)).shape == (4, T, V)

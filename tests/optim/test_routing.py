"""Which parameter goes where, and the patterns that say otherwise."""

from fnmatch import fnmatchcase

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from muonlab.nets.transformer import Transformer
from muonlab.optim.forms import form
from muonlab.optim.outputs import output_heads
from muonlab.optim.patterns import hint, matches
from muonlab.optim.places import Place, places
from muonlab.optim.routing import TAKES, adamw_reason, roles


def test_every_parameter_of_the_transformer_has_its_role():
    found = roles(Transformer(9, 7, depth=1, width=16, heads=2, ff_width=16))
    assert found["embedding.weight"] == "embedding"
    assert found["head.weight"] == "head"
    assert found["norm.weight"] == "vector"
    hidden = {name for name, role in found.items() if role == "hidden"}
    assert hidden == {
        f"blocks.0.{part}.weight"
        for part in (
            *(f"attention.{name}" for name in ("query", "key", "value", "out")),
            *(f"feed_forward.{name}" for name in ("inner", "gate", "out")),
        )
    }


def test_roles_name_every_parameter_once():
    net = nn.Sequential(nn.Embedding(3, 4), nn.Linear(4, 4), nn.LayerNorm(4))
    net.lm_head = nn.Linear(4, 3)
    net.register_parameter("scale", nn.Parameter(torch.ones(())))
    found = roles(net)
    assert set(found) == {name for name, _ in net.named_parameters()}
    assert found["lm_head.weight"] == "head"
    assert found["lm_head.bias"] == "vector"
    assert found["scale"] == "vector"
    assert all("vector" not in taken for taken in TAKES.values())


def kind_and_blocks(place: Place) -> tuple[str, object]:
    found = form(place)
    return found.kind, found.blocks


def place_of(net: nn.Module, name: str) -> Place:
    return next(place for place in places(net) if place.name == name)


def named(*names: str, shape: tuple[int, ...] = (4, 3)) -> list[Place]:
    return [Place(name, torch.empty(shape)) for name in names]


def test_places_are_in_the_order_of_named_parameters_and_name_ties():
    net = nn.ModuleDict({"wte": nn.Embedding(5, 4), "inner": nn.Linear(4, 4), "lm_head": nn.Linear(4, 5, bias=False)})
    net["lm_head"].weight = net["wte"].weight
    found = places(net)
    assert [place.name for place in found] == ["wte.weight", "inner.weight", "inner.bias", "lm_head.weight"]
    assert [name for name, _ in net.named_parameters()] == [place.name for place in found[:-1]]
    assert found[0].parameter is found[-1].parameter
    assert found[-1].module is net["lm_head"]


def test_a_parametrized_weight_is_held_by_the_layer_that_uses_it():
    net = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Conv1d(4, 4, 3, groups=2)))
    v = place_of(net, "0.parametrizations.weight.original1")
    assert v.module is net[0]
    assert v.parts == ["0", "weight"]
    assert kind_and_blocks(v) == ("convolution", 2)
    assert adamw_reason(v, set()) is None
    assert adamw_reason(place_of(net, "0.parametrizations.weight.original0"), set()) == "side of 1"


def test_in_lists_the_name_of_the_list_counts():
    place = Place("pos_embeds.0", torch.empty(4, 3))
    assert place.tensor == "pos_embeds"
    assert Place("blocks.0.weight", torch.empty(4, 3)).layer == "blocks"
    assert Place("weight", torch.empty(4, 3)).layer == ""


def test_heads_are_known_by_their_names():
    for heads, others in [
        (["lm_head.weight"], ["blocks.0.attn.weight", "norm.weight"]),
        (["module._orig_mod.head.weight"], ["module._orig_mod.blocks.0.fc1.weight"]),  # DDP and torch.compile
        (["head.fc.weight"], ["blocks.0.mlp.fc.weight", "head.pre_logits.fc.weight"]),  # timm: the last is the head
        (["classifier.6.weight"], ["classifier.0.weight", "classifier.3.weight"]),  # VGG
        (["heads.head.weight"], ["encoder.layers.encoder_layer_0.mlp.fc.weight"]),  # ViT of torchvision
        (["lm_heads.0.weight", "lm_heads.1.weight"], []),  # a list of heads
        (["heads.0.weight", "heads.1.weight"], ["blocks.0.sa.heads.0.weight", "sa.heads.0.key.weight"]),  # attention
        (["fc.weight"], ["layer1.0.se.fc.weight", "layer4.fc.weight", "fc1.weight"]),  # ResNet
        (["output.weight"], ["layers.0.attention.output.weight", "blocks.0.output.weight"]),  # Llama; RWKV
        (["cls.predictions.decoder.weight", "cls.seq_relationship.weight"], ["cls.predictions.transform.dense.weight"]),
        (["proj_out.weight"], ["model.decoder.layers.0.fc2.weight", "decoder.weight_ih_l0"]),  # Whisper; an LSTM
        (["final_layer.linear.weight"], ["final_layer.adaLN_modulation.1.weight"]),  # DiT
        ([], ["layers.0.mlp.router.classifier.weight"]),  # Switch Transformers
        (["head.weight"], ["head_norm.weight", "overhead.weight", "head.pos_embed"]),
    ]:
        found = output_heads(named(*others, *heads))
        assert {place.name for place in found} == set(heads)


@pytest.mark.parametrize("ending", ["weight_v", "parametrizations.weight.original1"])
def test_both_tensors_of_a_weight_normed_head_are_found(ending):
    g = ending.replace("_v", "_g").replace("original1", "original0")
    found = output_heads([*named("head.last.0.weight"), *named(f"head.last.1.{g}", f"head.last.1.{ending}")])
    assert f"head.last.1.{ending}" in {place.name for place in found}
    assert "head.last.0.weight" not in {place.name for place in found}


def test_the_layout_follows_from_the_module():
    for module, tensor, expected in [
        (nn.Linear(3, 4), "weight", ("matrix", 1)),
        (nn.Conv1d(4, 6, 3), "weight", ("convolution", 1)),
        (nn.Conv2d(4, 6, 3, groups=2), "weight", ("convolution", 2)),
        (nn.ConvTranspose2d(4, 6, 3, groups=2), "weight", ("convolution", 2)),
        (nn.MultiheadAttention(4, 2), "in_proj_weight", ("matrix", 3)),
        (nn.MultiheadAttention(4, 2, kdim=3), "k_proj_weight", ("matrix", 1)),
        (nn.LSTM(3, 4, proj_size=2), "weight_ih_l0", ("matrix", 4)),
        (nn.LSTM(3, 4, proj_size=2), "weight_hr_l0", ("matrix", 1)),
        (nn.LSTM(3, 4, bidirectional=True), "weight_hh_l0_reverse", ("matrix", 4)),
        (nn.GRU(3, 4), "weight_hh_l0", ("matrix", 3)),
        (nn.GRUCell(3, 4), "weight_ih", ("matrix", 3)),
        (nn.RNN(3, 4), "weight_ih_l0", ("matrix", 1)),
        (nn.Bilinear(3, 4, 5), "weight", ("experts", 1)),
    ]:
        assert kind_and_blocks(place_of(module, tensor)) == expected


def test_without_a_module_the_layout_follows_from_name_and_shape():
    for name, shape, expected in [
        ("blocks.0.attn.qkv.weight", (12, 4), ("matrix", 3)),
        ("blocks.0.attn.qkv.weight", (8, 4), ("matrix", 1)),  # grouped queries: the parts are not thirds
        ("h.0.attn.c_attn.weight", (12, 4), ("matrix", 3)),  # nanoGPT
        ("h.0.attn.c_attn.weight", (4, 12), ("matrix", 1)),  # transformers, (in, out)
        ("attn.in_proj_weight", (12, 4), ("matrix", 3)),
        ("mlp.fc1.weight", (12, 4), ("matrix", 1)),
        ("experts.up", (8, 4, 6), ("experts", 1)),
        ("encoder.conv1.weight", (8, 4, 3), ("convolution", 1)),
        ("stem.weight", (8, 4, 3, 3), ("convolution", 1)),
    ]:
        assert kind_and_blocks(Place(name, torch.empty(shape))) == expected


def test_a_modules_first_parameter_goes_by_its_type_and_shape():
    for module, reason in [
        (nn.Embedding(4, 3), "embedding"),
        (nn.EmbeddingBag(4, 3), "embedding"),
        (type("VocabParallelEmbedding", (nn.Bilinear,), {})(3, 4, 5), "embedding"),  # a class of someone else
        (type("PatchEmbedding", (nn.Linear,), {})(3, 4), None),
        (nn.LayerNorm((4, 3)), "norm"),
        (nn.Linear(1, 4), "side of 1"),
        (nn.ModuleDict({"patch_embed": nn.Linear(12, 8)}), None),
        (nn.LSTM(1, 4), "side of 1"),
        (nn.Conv2d(8, 8, 3, groups=8), "depthwise convolution"),
        (nn.Conv2d(8, 16, 3, groups=8), "depthwise convolution"),  # two filters a channel
        (nn.Conv2d(8, 4, 3, groups=4), "side of 1"),  # one filter a group
        (nn.Conv2d(8, 1, 3), "side of 1"),
        (nn.Conv2d(1, 8, 1), "side of 1"),
        (nn.Conv2d(1, 8, 3), None),  # grey pictures: not depthwise
        (nn.Conv2d(8, 8, 3, groups=2), None),
        (nn.ConvTranspose1d(8, 4, 3), None),
        (nn.Bilinear(3, 4, 5), "bilinear form"),
    ]:
        assert adamw_reason(places(module)[0], set()) == reason


def test_without_a_module_a_parameter_goes_by_name_and_shape():
    for name, shape, reason in [
        ("transformer.wte.weight", (9, 4), "embedding"),
        ("model.embed_tokens.weight", (9, 4), "embedding"),
        ("token_embedding_table.weight", (9, 4), "embedding"),
        ("embeddings.word_embeddings.weight", (9, 4), "embedding"),
        ("shared.weight", (9, 4), "embedding"),
        ("layers.0.shared.weight", (9, 4), None),
        ("patch_embedding.weight", (8, 3, 4, 4), None),
        ("pos_embed", (1, 9, 4), "embedding"),
        ("cls_token", (1, 1, 4), "embedding"),
        ("attn.relative_position_bias_table", (9, 4), "embedding"),
        ("mixer.A_log", (9, 4), "elementwise"),
        ("experts.gate_up_proj_bias", (9, 4), "elementwise"),
        ("conv_dw.weight", (9, 1, 3, 3), "depthwise convolution"),
        ("queries", (1, 9, 4), "side of 1"),
        ("empty.weight", (0, 4), "side of 0"),
        ("layer_scale", (9, 1, 1), "elementwise"),
        ("norm.weight", (9,), "vector"),
        ("scale", (), "vector"),
    ]:
        assert adamw_reason(Place(name, torch.empty(shape)), set()) == reason


# --- patterns


def test_a_pattern_matches_a_run_of_components():
    for pattern, name in [
        ("head", "head.weight"),
        ("weight", "head.weight"),
        ("head.weight", "head.weight"),
        ("attn.qkv", "blocks.0.attn.qkv.weight"),
        ("blocks.*.attn", "blocks.0.attn.qkv.weight"),
        ("blocks.?.attn.*.weight", "blocks.0.attn.qkv.weight"),
        ("blocks.[01]", "blocks.1.attn.qkv.weight"),
        ("*head", "overhead.weight"),
        ("*", "weight"),
    ]:
        assert matches(pattern, name)
    for pattern, name in [  # whole components in a row, and no others
        ("head", "overhead.weight"),
        ("Head", "head.weight"),
        ("blocks.*.qkv", "blocks.0.attn.qkv.weight"),  # a star stands for one component
        ("attn.weight", "blocks.0.attn.qkv.weight"),
        ("a.b.c", "a.b"),
        ("", "head.weight"),
    ]:
        assert not matches(pattern, name)


components = st.lists(st.text("ab*?", min_size=1, max_size=3), min_size=1, max_size=4)


@given(components, components)
def test_matching_is_a_search_for_the_pattern_between_dots(pattern, name):
    """The definition, spelled otherwise: some split of the name into before, run and after."""
    runs = [name[i:j] for i in range(len(name)) for j in range(i + 1, len(name) + 1)]
    expected = any(
        len(run) == len(pattern) and all(fnmatchcase(part, glob) for part, glob in zip(run, pattern, strict=True))
        for run in runs
    )
    assert matches(".".join(pattern), ".".join(name)) is expected


def test_a_hint_names_runs_as_long_as_the_pattern():
    names = ["blocks.0.attn.qkv.weight", "blocks.1.attn.qkv.weight", "head.weight"]
    assert hint("attn.qvk", names) == "did you mean 'attn.qkv'?"
    assert hint("haed", names) == "did you mean 'head'?"
    assert hint("zzzzzz", names * 2).endswith(
        "'head.weight', 'blocks.0.attn.qkv.weight', 'blocks.1.attn.qkv.weight' and 1 more"
    )

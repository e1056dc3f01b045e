"""Output heads by what decides it, and names seen through what wraps a model."""

import warnings

import pytest
import torch
from torch import nn

from muonlab import MuonAdamW, split_params
from muonlab.optim.places import unwrapped

V, D = 50, 8  # vocabulary, width


class Block(nn.Module):
    def __init__(self, inner=4 * D):
        super().__init__()
        self.attn = nn.ModuleDict({"qkv": nn.Linear(D, 3 * D), "proj": nn.Linear(D, D)})
        self.mlp = nn.ModuleDict({"fc": nn.Linear(D, inner), "out": nn.Linear(inner, D)})


class Language(nn.Module):
    """A language model whose head has a name of any kind, before or after its blocks."""

    def __init__(self, head: str, vocabulary=V, first=False, inner=4 * D, blocks=2):
        super().__init__()
        self.wte, self.wpe = nn.Embedding(vocabulary, D), nn.Embedding(4 * D, D)
        parts = [("blocks", nn.ModuleList(Block(inner) for _ in range(blocks))), (head, nn.Linear(D, vocabulary))]
        for name, module in reversed(parts) if first else parts:
            *outer, last = name.split(".")
            holder = self
            for each in outer:
                holder.add_module(each, nn.Module())
                holder = holder.get_submodule(each)
            holder.add_module(last, module)


def to_adamw(net) -> set[str]:
    return {route.name for route in split_params(net).named("adamw") if route.parameter.ndim > 1}


NAMES = [
    "fc_out",
    "proj",
    "generator.proj",
    "decoder",
    "output",
    "score",
    "classifier",
    "to_logits",
    "linear",
    "out",
    "final",
    "fc",
    "lin",
    "logits_layer",
    "vocab",
    "word_proj",
    "predict",
    "readout",
    "unembed",
    "W_out",
    "last",
    "dense",
    "projection",
    "tok_out",
    "out_linear",
    "final_linear",
    "lm_output",
    "prediction_layer",
    "output_projection",
    "decoder.out",
    "head.proj",
    "l_out",
    "fc2",
    "lm",
    "h2o",
    "hidden_to_vocab",
    "ff_out",
    "token_head",
    "next_token",
    "vocab_out",
    "mlm",
    "predictor",
    "emb_out",
    "out_proj",
    "output_layer",
    "classification_layer",
    "lm_decoder",
    "projector",
    "text_head",
    "x",
]


@pytest.mark.parametrize("first", [False, True])
def test_a_linear_layer_with_an_output_for_each_token_is_a_head_whatever_its_name(first):
    missed = [name for name in NAMES if f"{name}.weight" not in to_adamw(Language(name, first=first))]
    assert missed == []
    assert all(len(to_adamw(Language(name, first=first))) == 3 for name in NAMES)  # and nothing else is one
    named = {name: to_adamw(list(Language(name).named_parameters())) for name in NAMES}
    assert [name for name in NAMES if f"{name}.weight" not in named[name]] == []


@pytest.mark.parametrize("kind", ["bytes", "positions", "square", "square within a block"])
def test_what_has_as_many_outputs_by_chance_is_no_head(kind):
    if kind == "bytes":  # the hidden layer of a block is as wide as the vocabulary
        net, heads = Language("tok_out", vocabulary=4 * D, blocks=1), {"tok_out.weight"}
        net.mixer, net.fc_in = nn.Linear(D, 4 * D), nn.Linear(4 * D, D)
        net.tok_out = net._modules.pop("tok_out")  # the last one
    elif kind == "positions":
        net, heads = nn.ModuleDict({"wpe": nn.Embedding(4 * D, D), "up": nn.Linear(D, 4 * D)}), set()
        net["last"] = nn.Linear(4 * D, D)
    elif kind == "square":
        net, heads = nn.ModuleDict({"tokens": nn.Embedding(D, D)}), set()
        net.update({name: nn.Linear(D, D) for name in ("query", "key", "value", "mix")})
    else:
        net, heads = Language("tok_out", vocabulary=D), set()
        net.get_submodule("blocks.0").proj = nn.Linear(D, D)
    tables = {name for name in to_adamw(net) if isinstance(net.get_submodule(name.rsplit(".", 1)[0]), nn.Embedding)}
    assert to_adamw(net) - tables == heads


def test_without_tokens_the_last_layer_is_the_head_if_its_outputs_can_be_the_nets():
    def heads(*layers):
        return [route.name for route in split_params(nn.Sequential(*layers)).routes if route.reason == "output head"]

    assert heads(nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)) == ["4.weight"]
    assert heads(nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 64)) == ["2.weight"]  # an autoencoder
    assert heads(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 16, 3), nn.Conv2d(16, 5, 1)) == ["2.weight"]
    assert heads(nn.Linear(8, 16), nn.Linear(16, 8), nn.Linear(8, 16), nn.Linear(16, 8)) == []  # something takes 8
    assert heads(nn.Linear(8, 8), nn.Linear(8, 8)) == []
    assert heads(nn.Linear(8, 3)) == []  # a model has to have a hidden matrix
    assert heads(nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 1)) == []  # goes to AdamW by its side
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(D, 2, 16), 2, enable_nested_tensor=False)
    assert heads(encoder) == []
    assert heads(nn.Linear(3, D), encoder, nn.Linear(D, 5)) == ["2.weight"]
    tied = Language("tok_out")
    tied.tok_out.weight, tied.last = tied.wte.weight, nn.Linear(D, 6)
    assert "last.weight" not in to_adamw(tied)


@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        ({"actor": 4, "critic": 1}, {"actor", "critic"}),  # the critic by its side of 1
        ({"critic": 1, "actor": 4}, {"actor", "critic"}),
        ({"mean": 4, "log_std": 4}, set()),  # so are the two projections of CLIP
        ({"digit": 10, "colour": 3, "size": 5}, {"digit", "colour", "size"}),
        ({"mix": 32, "grade": 3}, {"grade"}),  # other layers give 32
    ],
)
def test_layers_that_end_a_net_side_by_side_are_heads_together(ends, expected):
    net = nn.ModuleDict({"up": nn.Linear(8, 32), "trunk": nn.Linear(32, 32)})
    net.update({name: nn.Linear(32, rows) for name, rows in ends.items()})
    assert to_adamw(net) == {f"{name}.weight" for name in expected}
    net["last"] = nn.Linear(32, 32)  # a square layer says nothing
    assert to_adamw(net) == {f"{name}.weight" for name, rows in ends.items() if rows == 1}


@pytest.mark.parametrize("name", ["dist_head", "ctc_head", "enc_score_head", "emotion_head"])
def test_a_layer_outside_of_blocks_whose_name_ends_in_head_is_one(name):
    net = nn.ModuleDict({"up": nn.Linear(8, 32), name: nn.Linear(32, 5), "down": nn.Linear(32, 32)})
    assert to_adamw(net) == {f"{name}.weight"}
    net["multi_head"] = net.pop(name)
    net["mix"] = nn.Linear(32, 32)
    assert to_adamw(net) == set()


def test_biases_by_distance_are_a_table_whatever_holds_them():
    net = nn.ModuleDict({"rel_pos_x_bias": nn.Linear(32, 4, bias=False), "up": nn.Linear(8, 32)})
    net["down"] = nn.Linear(32, 8)
    assert {route.name: route.reason for route in split_params(net).routes}["rel_pos_x_bias.weight"] == "embedding"


def test_lists_of_detectors_are_heads():
    names = ("class_embed", "enc_out_class_embed", "enc_out_bbox_embed")
    net = nn.ModuleDict({"up": nn.Linear(8, 32), "classifier_distill": nn.ModuleDict({"linear": nn.Linear(32, 7)})})
    net.update({name: nn.ModuleList([nn.Linear(32, 4) for _ in range(2)]) for name in names})
    assert to_adamw(net) == {name for name, p in net.named_parameters() if p.ndim > 1} - {"up.weight"}


def test_each_member_of_a_list_called_head_is_one():
    net = nn.ModuleDict({"body": nn.Linear(8, 8), "head": nn.ModuleList([nn.Linear(8, 4), nn.Linear(8, 5)])})
    assert to_adamw(net) == {"head.0.weight", "head.1.weight"}
    net["head"] = nn.Sequential(nn.Linear(8, 16), nn.Linear(16, 4))
    assert to_adamw(net) == {"head.1.weight"}


def test_a_warning_shows_the_rule_to_give_where_no_head_is_found():
    net = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 8))
    with pytest.warns(UserWarning, match=r"no output head was recognized; if '2\.weight' is one.*'2\.weight': 'adamw'"):
        MuonAdamW(net)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for rules in ({"2.weight": "adamw"}, {}):
            MuonAdamW(net, rules=rules)
        MuonAdamW(split_params(net, {}))
        # A head is found, is a shared or a frozen one; or nothing could be one.
        MuonAdamW(Language("x"))
        MuonAdamW(nn.TransformerEncoder(nn.TransformerEncoderLayer(D, 2, 16), 1, enable_nested_tensor=False))
        MuonAdamW(nn.Linear(8, 8))
        frozen = Language("x")
        frozen.x.requires_grad_(False)
        MuonAdamW(frozen)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(3):
            MuonAdamW(net)
    assert len(caught) == 1  # once
    assert caught[0].filename == __file__


def test_a_model_of_which_muon_gets_nothing_is_told_so():
    heads = nn.ModuleDict({"head": nn.Linear(8, 4), "lm_head": nn.Linear(8, 5)})
    with pytest.warns(
        UserWarning, match=r"no parameter goes to Muon: of its matrices, 'head\.weight', 'lm_head\.weight', each"
    ):
        MuonAdamW(heads)
    with pytest.warns(
        UserWarning, match=r"no parameter goes to Muon, as none has two axes; if that is meant, give rules=\{\}"
    ):
        MuonAdamW(nn.LayerNorm(4))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        body = nn.ModuleDict({"body": nn.Linear(8, 8).requires_grad_(False), "head": nn.Linear(8, 4)})
        for net, rules in [(heads, {}), (nn.LayerNorm(4), {}), (heads, {"head.weight": "muon"}), (body, None)]:
            MuonAdamW(net, rules=rules)


# --- wrappers


def modules_to_save(net, name):
    """Do as PEFT does with a module that is trained whole."""
    holder = nn.Module()
    holder.original_module = net.get_submodule(name)
    holder.modules_to_save = nn.ModuleDict({"default": nn.Linear(*reversed(net.get_submodule(name).weight.shape))})
    holder.original_module.requires_grad_(False)
    parent, _, last = name.rpartition(".")
    net.get_submodule(parent).add_module(last, holder)
    return net


def within(*names):
    def wrap(net):
        for name in names:
            outer = nn.Module()
            outer.add_module(name, net)
            net = outer
        return net

    return wrap


WRAPS = {
    "DataParallel": nn.DataParallel,
    "compile": lambda net: torch.compile(net, backend="eager"),
    "checkpoint": within("_checkpoint_wrapped_module"),
    "Fabric": within("_forward_module", "_original_module"),
    "PEFT": within("model", "base_model"),
    "several": within("_orig_mod", "module", "_forward_module"),
}


@pytest.mark.parametrize("wrap", WRAPS.values(), ids=WRAPS)
@pytest.mark.parametrize("make", [lambda: Language("tok_out"), lambda: Language("score", vocabulary=D)])
def test_a_wrapped_model_is_routed_as_the_model(wrap, make):
    plain = {route.name: (route.rule, route.kind, route.blocks) for route in split_params(make()).routes}
    for given in (lambda net: net, lambda net: list(net.named_parameters())):
        routes = split_params(given(wrap(make()))).routes
        assert {unwrapped(route.name): (route.rule, route.kind, route.blocks) for route in routes} == plain


@pytest.mark.filterwarnings("ignore")  # that TorchScript is old
def test_a_scripted_model_is_routed_as_the_model():
    blocks = nn.ModuleList([nn.Sequential(nn.Linear(D, D), nn.LayerNorm(D)) for _ in range(2)])
    for net in (
        nn.Sequential(nn.Embedding(30, D), nn.Linear(D, D), nn.LayerNorm((3, D)), nn.Linear(D, 30)),
        nn.Sequential(nn.Conv1d(3, 8, 5), nn.Conv1d(8, 8, 5), nn.Flatten(), nn.Linear(8, 6)),
        nn.Sequential(nn.Linear(4, D), *blocks, nn.Linear(D, 6)),
    ):
        routes = [
            [(r.name, r.rule, r.kind) for r in split_params(each).routes] for each in (net, torch.jit.script(net))
        ]
        assert routes[0] == routes[1]


@pytest.mark.parametrize(
    ("config", "options", "reason"),
    [
        ("LoraConfig", {"target_modules": ["q_proj"], "trainable_token_indices": [1, 2, 3]}, "embedding"),
        ("TrainableTokensConfig", {"token_indices": [1, 2, 3]}, "embedding"),
        ("OFTConfig", {"target_modules": ["q_proj"], "oft_block_size": 4}, "elementwise"),
        ("HRAConfig", {"target_modules": ["q_proj"], "r": 4}, "elementwise"),
        ("C3AConfig", {"target_modules": ["q_proj"], "block_size": 4}, "elementwise"),
    ],
)
def test_what_is_no_factor_of_a_matrix_in_an_adapter_goes_to_adamw(config, options, reason):
    peft = pytest.importorskip("peft")
    if not hasattr(peft, config):
        pytest.skip(f"this peft has no {config}")
    net = nn.ModuleDict({"embed_tokens": nn.Embedding(30, D), "q_proj": nn.Linear(D, D), "head": nn.Linear(D, 30)})
    adapted = peft.get_peft_model(net, getattr(peft, config)(**options))
    for given in (adapted, list(adapted.named_parameters())):
        routes = [
            route for route in split_params(given).routes if route.parameter.ndim > 1 and "lora" not in route.name
        ]
        assert routes
        assert {route.reason.removesuffix(", tied") for route in routes} == {reason}


def test_modules_that_peft_saves_are_what_they_were():
    for name in ("score", "head"):
        net = modules_to_save(Language(name, vocabulary=D), name)
        routes = {route.name: route.rule for route in split_params(net).routes}
        assert routes[f"{name}.modules_to_save.default.weight"] == "adamw"
        assert unwrapped(f"base_model.model.{name}.modules_to_save.default.weight") == f"{name}.weight"
    net = Language("tok_out")
    net.wte = modules_to_save(nn.ModuleDict({"wte": nn.Linear(D, V)}), "wte")["wte"]
    net.wte.modules_to_save["default"] = nn.Embedding(V, D)
    assert "wte.modules_to_save.default.weight" in to_adamw(net)


def test_parametrized_and_pruned_layers_are_what_they_were():
    from torch.nn.utils import parametrizations, prune

    for change in (
        lambda layer: parametrizations.spectral_norm(layer),
        lambda layer: prune.l1_unstructured(layer, "weight", amount=0.3),
    ):
        net = Language("score", vocabulary=D)
        for layer in (net.score, net.get_submodule("blocks.0.attn.qkv"), net.get_submodule("blocks.1.mlp.fc")):
            change(layer)
        routes = {unwrapped(route.name): route for route in split_params(net).routes}
        assert routes["score.weight"].rule == "adamw"
        assert (routes["blocks.0.attn.qkv.weight"].rule, routes["blocks.0.attn.qkv.weight"].blocks) == ("muon", 3)
        assert routes["blocks.1.mlp.fc.weight"].rule == "muon"


def test_a_rule_may_name_a_parameter_as_without_wrappers():
    net = nn.DataParallel(Language("score", vocabulary=D))
    routes = {route.name: route.rule for route in split_params(net, {"blocks.0.attn.proj.weight": "adamw"}).routes}
    assert routes["module.blocks.0.attn.proj.weight"] == "adamw"
    peft = within("model", "base_model")(modules_to_save(Language("score", vocabulary=D), "score"))
    rules = {"score.weight": "muon"}
    name = "base_model.model.score.modules_to_save.default.weight"
    assert {route.name: route.rule for route in split_params(peft, rules).routes}[name] == "muon"


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "base_model.model."])
def test_a_shared_vocabulary_is_an_embedding_by_its_name(prefix):
    weight = nn.Parameter(torch.zeros(V, D))
    for name in ("shared.weight", "model.shared.weight"):  # T5, BART
        (route,) = split_params([(f"{prefix}{name}", weight)]).routes
        assert (route.rule, route.reason) == ("adamw", "embedding")
    (route,) = split_params([(f"{prefix}layers.0.shared.weight", weight)]).routes
    assert route.rule == "muon"

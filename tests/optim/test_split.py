import pytest
import torch
from torch import nn

from muonlab.nets.transformer import Transformer
from muonlab.optim.split import Route, split_params

V, D = 11, 8  # vocabulary, width


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(D), nn.LayerNorm(D)
        self.attn = nn.ModuleDict({"c_attn": nn.Linear(D, 3 * D), "c_proj": nn.Linear(D, D)})
        self.mlp = nn.ModuleDict({"c_fc": nn.Linear(D, 4 * D), "c_proj": nn.Linear(4 * D, D)})


class GPT(nn.Module):
    """The parameters of nanoGPT, with its tied head."""

    def __init__(self, depth: int = 2):
        super().__init__()
        self.transformer = nn.ModuleDict(
            {
                "wte": nn.Embedding(V, D),
                "wpe": nn.Embedding(6, D),
                "h": nn.ModuleList(Block() for _ in range(depth)),
                "ln_f": nn.LayerNorm(D),
            }
        )
        self.lm_head = nn.Linear(D, V, bias=False)
        self.lm_head.weight = self.transformer["wte"].weight


class MixtureOfExperts(nn.Module):
    def __init__(self):
        super().__init__()
        self.router = nn.Linear(D, 4, bias=False)
        self.up = nn.Parameter(torch.zeros(4, 2 * D, D))
        self.up_bias = nn.Parameter(torch.zeros(4, 2 * D))
        self.shared_gate = nn.Linear(D, 1)


class ConvNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3)
        self.layer1 = nn.Sequential(
            nn.Conv2d(8, 8, 3, groups=8),
            nn.BatchNorm2d(8),
            nn.Conv2d(8, 16, 1),
            nn.Conv2d(16, 16, 3, groups=4),
            nn.ConvTranspose2d(16, 8, 2),
        )
        self.layer_scale = nn.Parameter(torch.ones(8, 1, 1))
        self.fc = nn.Linear(8, 10)


def muon_of(split) -> dict[str, tuple[str | None, int]]:
    return {route.name: (route.kind, route.blocks) for route in split.named("muon")}


def reasons(split) -> dict[str, str]:
    """Return AdamW's reasons, without those of the vectors."""
    return {route.name: route.reason for route in split.named("adamw") if route.reason != "vector"}


# --- nets


def test_a_gpt_with_a_tied_head():
    net = GPT()
    split = split_params(net)
    assert muon_of(split) == {
        f"transformer.h.{index}.{name}.weight": ("matrix", 3 if name == "attn.c_attn" else 1)
        for index in range(2)
        for name in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
    }
    assert reasons(split) == {"transformer.wte.weight": "embedding, tied", "transformer.wpe.weight": "embedding"}
    assert next(route for route in split.routes if route.aliases).aliases == ("lm_head.weight",)


@pytest.mark.parametrize(
    "net",
    [GPT(), MixtureOfExperts(), ConvNet(), Transformer(9, 7, depth=1, width=16, heads=2, ff_width=16)],
    ids=lambda net: type(net),
)
def test_every_parameter_goes_somewhere_once_and_in_order(net):
    routes = split_params(net).routes
    assert [(route.name, id(route.parameter)) for route in routes] == [(n, id(p)) for n, p in net.named_parameters()]
    assert all((route.kind is None) is (route.rule == "adamw") for route in routes)
    for named in (
        net.named_parameters(),
        dict(net.named_parameters()),
    ):  # names and shapes tell rules as the model does
        assert [route.rule for route in split_params(named).routes] == [route.rule for route in routes]


def test_tied_parameters_have_one_route():
    layer = nn.Linear(4, 4, bias=False)
    (route,) = split_params(nn.Sequential(layer, nn.ReLU(), layer, layer)).routes
    assert (route.name, route.rule, route.reason) == ("0.weight", "muon", "matrix, tied")
    assert route.aliases == ("2.weight", "3.weight")
    weight = nn.Parameter(torch.zeros(V, D))
    (route,) = split_params([("lm_head.weight", weight), ("wte.weight", weight)]).routes
    assert (route.name, route.reason, route.aliases) == ("lm_head.weight", "embedding, tied", ("wte.weight",))
    # A rule may match any of the names, and claim a parameter twice to the same rule.
    routes = {route.name: route for route in split_params(GPT(), {"lm_head": "muon"}).routes}
    assert (routes["transformer.wte.weight"].rule, routes["transformer.wte.weight"].kind) == ("muon", "matrix")
    assert split_params(GPT(), {"wte": "adamw", "lm_head": "adamw"})


def test_an_encoder_of_torch_has_no_head_and_its_attention_is_three_matrices():
    split = split_params(nn.TransformerEncoder(nn.TransformerEncoderLayer(D, 2, 16), 2, enable_nested_tensor=False))
    assert muon_of(split) == {
        f"layers.{index}.{name}": ("matrix", 3 if "in_proj" in name else 1)
        for index in range(2)
        for name in ("self_attn.in_proj_weight", "self_attn.out_proj.weight", "linear1.weight", "linear2.weight")
    }
    assert reasons(split) == {}


def test_a_convolutional_net():
    split = split_params(ConvNet())
    assert muon_of(split) == {
        "stem.weight": ("convolution", 1),
        "layer1.2.weight": ("convolution", 1),
        "layer1.3.weight": ("convolution", 4),
        "layer1.4.weight": ("convolution", 1),
    }
    assert reasons(split) == {
        "layer1.0.weight": "depthwise convolution",
        "layer_scale": "elementwise",
        "fc.weight": "output head",
    }


def test_a_mixture_of_experts():
    split = split_params(MixtureOfExperts())
    assert muon_of(split) == {"up": ("experts", 1), "router.weight": ("matrix", 1)}
    assert reasons(split) == {"up_bias": "elementwise", "shared_gate.weight": "side of 1"}


def test_frozen_parameters_are_left_out():
    net = GPT()
    net.transformer["wpe"].requires_grad_(False)
    split = split_params(net)
    assert [name for name, _ in split.frozen] == ["transformer.wpe.weight"]
    assert "transformer.wpe.weight" not in {route.name for route in split.routes}
    assert split_params(nn.BatchNorm1d(3)).named("muon") == []
    net = nn.Sequential(nn.Linear(3, 3).requires_grad_(False), nn.Linear(3, 3))
    assert split_params(net, {"0": "muon"}).routes[0].name == "1.weight"  # a rule may match frozen parameters alone
    with torch.device("meta"):  # nor is memory needed
        assert len(split_params(GPT()).named("muon")) == 8


# --- rules


def test_the_first_rule_that_matches_wins_over_the_defaults():
    split = split_params(GPT(), [("h.0.attn.*.weight", "adamw"), ("wpe", "muon"), ("h.0.*.c_proj.weight", "adamw")])
    routes = {route.name: route for route in split.routes}
    assert routes["transformer.h.0.attn.c_attn.weight"].reason == "rule 'h.0.attn.*.weight'"
    assert routes["transformer.h.0.attn.c_proj.weight"].reason == "rule 'h.0.attn.*.weight'"
    assert routes["transformer.h.0.mlp.c_proj.weight"].reason == "rule 'h.0.*.c_proj.weight'"
    assert routes["transformer.wpe.weight"].kind == "matrix"
    assert routes["transformer.h.1.attn.c_proj.weight"].rule == "muon"
    split = split_params(nn.Conv2d(8, 16, 3, groups=8), {"weight": "muon"})
    assert muon_of(split) == {"weight": ("convolution", 8)}  # a rule keeps the layout


def test_rules_may_be_a_function():
    split = split_params(GPT(), lambda name, p: "adamw" if "mlp" in name else "muon" if p.shape == (6, D) else None)
    routes = {route.name: route for route in split.routes}
    assert (routes["transformer.h.0.mlp.c_fc.weight"].rule, routes["transformer.h.0.mlp.c_fc.weight"].reason) == (
        "adamw",
        "rule",
    )
    assert routes["transformer.wpe.weight"].rule == "muon"
    assert routes["transformer.h.0.attn.c_proj.weight"].rule == "muon"


def test_without_defaults_rules_alone_decide():
    rules = [("bias", "adamw"), ("ln_*", "adamw"), ("h", "muon"), ("*", "adamw")]
    split = split_params(GPT(1), rules, defaults=False)
    assert [route.name.removeprefix("transformer.h.0.") for route in split.named("muon")] == [
        "attn.c_attn.weight",
        "attn.c_proj.weight",
        "mlp.c_fc.weight",
        "mlp.c_proj.weight",
    ]
    with pytest.raises(ValueError, match=r"no rule takes 'transformer\.wpe\.weight', .* and 10 more; .*'\*', 'adamw'"):
        split_params(GPT(1), {"wte": "adamw"}, defaults=False)
    with pytest.raises(ValueError, match="no rule takes 'weight'"):
        split_params(nn.Linear(2, 2), lambda name, p: "adamw" if name == "bias" else None, defaults=False)
    with pytest.raises(ValueError, match="rules is None; give rules"):
        split_params(GPT(1), defaults=False)


def test_a_wrong_rule_is_refused():
    for rules, message in [
        ({"attn.c_atn": "adamw"}, r"'attn\.c_atn' matches no parameter; did you mean 'attn\.c_attn'"),
        ({"zzz": "adamw"}, r"'zzz' matches no parameter; the names are 'transformer\.wte\.weight', .* more"),
        ({"wte": "Muon"}, "the rule for 'wte' is 'Muon'; expected 'muon' or 'adamw'"),
        (
            {"ln_f": "muon"},
            r"'ln_f' sends 'transformer\.ln_f\.weight' of shape \(8,\) to Muon.*two or more axes; narrow",
        ),
        (
            [("*", "adamw"), ("wpe", "muon")],
            r"'wpe' -> 'muon' takes nothing: earlier ones \(rule '\*'\).*put it before",
        ),
        ({"wte": "adamw", "lm_head": "muon"}, "'lm_head' -> 'muon' takes nothing"),
        (("wpe", "muon"), r"'wpe' is not a rule; expected \(pattern, rule\) pairs"),
        ([("wpe",)], r"\('wpe',\) is not a rule"),
        (lambda name, p: "sgd", r"what rules returned for 'transformer\.wte\.weight' is 'sgd'; expected"),
        (lambda name, p: "muon", r"rules sends 'transformer\.h\.0\.ln_1\.weight' of shape \(8,\) to Muon"),
    ]:
        with pytest.raises(ValueError, match=message):
            split_params(GPT(), rules)


# --- what is given


def test_what_cannot_be_split_is_refused():
    with pytest.raises(ValueError, match="run a forward pass"):
        split_params(nn.Sequential(nn.LazyLinear(3)))
    with pytest.raises(ValueError, match="none of its 2 parameters requires grad"):
        split_params(nn.Linear(2, 2).requires_grad_(False))
    for empty in (nn.ReLU(), []):
        with pytest.raises(ValueError, match="nothing to train: it has no parameters"):
            split_params(empty)
    with pytest.raises(ValueError, match=r"got an element of type Parameter; .*named_parameters"):
        split_params(nn.Linear(2, 2).parameters())
    with pytest.raises(ValueError, match="the name 'a' occurs twice"):
        split_params([("a", nn.Parameter(torch.zeros(2))), ("a", nn.Parameter(torch.zeros(2)))])
    with pytest.raises(ValueError, match="named is 'sgd'; expected 'muon' or 'adamw'"):
        split_params(nn.Linear(2, 2)).named("sgd")


# --- the table


def test_the_table_shows_what_goes_where():
    net = GPT()
    net.transformer["wpe"].requires_grad_(False)
    assert str(split_params(net)).splitlines() == [
        "parameter                              shape  rule    why                                  elements",
        "transformer.wte.weight                 11x8   adamw   embedding, tied                            88",
        "transformer.h.*.ln_*.weight x4         8      adamw   vector                                     32",
        "transformer.h.*.ln_*.bias x4           8      adamw   vector                                     32",
        "transformer.h.*.attn.c_attn.weight x2  24x8   muon    matrix, 3 blocks: query, key, value       384",
        "transformer.h.*.attn.c_attn.bias x2    24     adamw   vector                                     48",
        "transformer.h.*.attn.c_proj.weight x2  8x8    muon    matrix                                    128",
        "transformer.h.*.attn.c_proj.bias x2    8      adamw   vector                                     16",
        "transformer.h.*.mlp.c_fc.weight x2     32x8   muon    matrix                                    512",
        "transformer.h.*.mlp.c_fc.bias x2       32     adamw   vector                                     64",
        "transformer.h.*.mlp.c_proj.weight x2   8x32   muon    matrix                                    512",
        "transformer.h.*.mlp.c_proj.bias x2     8      adamw   vector                                     16",
        "transformer.ln_f.weight                8      adamw   vector                                      8",
        "transformer.ln_f.bias                  8      adamw   vector                                      8",
        "transformer.wpe.weight                 6x8    frozen  requires_grad is False                     48",
        "",
        "muon     8 parameters  1,536 elements   81.0%",
        "adamw   19 parameters    312 elements   16.5%",
        "frozen   1 parameters     48 elements    2.5%",
        "tied: transformer.wte.weight = lm_head.weight",
    ]


def test_the_table_keeps_numbers_that_are_shared_and_shapes_of_muon_apart():
    net = nn.Sequential(
        *(nn.Linear(rows, 4) for rows in (3, 4, 4)), nn.Conv2d(2, 2, 1, groups=2), nn.Conv2d(3, 3, 3, groups=3)
    )
    lines = [line.split()[:3] for line in str(split_params(net)).splitlines()]
    assert ["0.weight", "4x3", "muon"] in lines
    assert ["*.weight", "x2", "4x4"] in lines
    assert ["*.weight", "x2", "various"] in lines  # of AdamW


def test_a_net_without_a_known_head_gets_a_hint_until_there_are_rules():
    net = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 4))
    assert str(split_params(net)).endswith(
        "no output head was recognized; if '1.weight' is one, give rules={'1.weight': 'adamw'}, "
        "and if there is none, rules={}"
    )
    for rules in ({"1.weight": "adamw"}, {}):
        assert "no output head" not in str(split_params(net, rules))
    assert "no output head" not in str(split_params(ConvNet()))


def test_representations_show_no_tensors():
    split = split_params(nn.Linear(3, 4))
    assert "tensor" not in repr(split)
    assert repr(split.routes[0]) == (
        "Route(name='weight', rule='muon', reason='matrix', kind='matrix', blocks=1, aliases=())"
    )
    assert Route("a", torch.zeros(2), "adamw", "vector") != Route("a", torch.zeros(2), "adamw", "vector")

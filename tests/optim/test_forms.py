"""Parameters that are several matrices, or lie as (in, out): each step against the SVD of each block in float64."""

import pytest
import torch
from torch import nn

from muonlab import MuonAdamW, split_params
from optim.training import draw, give

WIDTH, HEADS, SIZE = 8, 4, 2


class Conv1D(nn.Module):  # as transformers has it
    def __init__(self, nf, nx):
        super().__init__()
        self.nf, self.weight = nf, nn.Parameter(draw(nx, nf))


class Attention(nn.Module):
    """A layer of an attention, and the numbers of heads."""

    def __init__(self, layer, rows, **numbers):
        super().__init__()
        self.add_module(layer, nn.Linear(WIDTH, rows, bias=False))
        for name, value in numbers.items():
            setattr(self, name, value)


class GPTNeoXAttention(Attention):
    pass


class FalconAttention(Attention):
    pass


class DeepseekV3MLA(Attention):
    pass


class Experts(nn.Module):
    def __init__(self, up, down, **flags):
        super().__init__()
        self.gate_up_proj, self.down_proj = nn.Parameter(draw(*up)), nn.Parameter(draw(*down))
        for name, value in flags.items():
            setattr(self, name, value)


def each(*slices):
    return [list(range(*one)) for one in slices]


def heads_of(number, first=0):
    return each(*((first + SIZE * k, first + SIZE * (k + 1)) for k in range(number)))


GROUPED = {"num_heads": HEADS, "num_key_value_heads": 2, "head_dim": SIZE}
FALCON = {"num_heads": HEADS, "num_kv_heads": 2, "new_decoder_architecture": True, "multi_query": False}
LATENT = {"num_heads": 2, "qk_nope_head_dim": 3, "v_head_dim": 5}
# Module, name, the rows (outputs) of each block, is it stored as (in, out), by head.
CASES = {
    "Conv1D": (lambda: nn.ModuleDict({"c_fc": Conv1D(12, 8)}), "c_fc.weight", each((12,)), True, None),
    "Conv1D, fused": (
        lambda: nn.ModuleDict({"c_attn": Conv1D(24, 8)}),
        "c_attn.weight",
        each((0, 8), (8, 16), (16, 24)),
        True,
        None,
    ),
    "gate and up": (
        lambda: nn.ModuleDict({"gate_up_proj": nn.Linear(6, 16)}),
        "gate_up_proj.weight",
        each((0, 8), (8, 16)),
        False,
        None,
    ),
    "gate and up of experts": (
        lambda: Experts((3, 16, 6), (3, 6, 8)),
        "gate_up_proj",
        each((0, 8), (8, 16)),
        False,
        None,
    ),
    "experts as (in, out)": (lambda: Experts((3, 6, 16), (3, 8, 6)), "gate_up_proj", each((0, 8), (8, 16)), True, None),
    "down of experts as (in, out)": (lambda: Experts((3, 6, 16), (3, 8, 6)), "down_proj", each((6,)), True, None),
    "experts, row by row": (
        lambda: Experts((3, 6, 16), (3, 8, 6), is_transposed=True, is_concatenated=False),
        "gate_up_proj",
        each((0, 16, 2), (1, 16, 2)),
        True,
        None,
    ),
    "grouped queries": (
        lambda: Attention("qkv_proj", 16, **GROUPED),
        "qkv_proj.weight",
        each((0, 8), (8, 12), (12, 16)),
        False,
        None,
    ),
    "grouped queries by head": (
        lambda: Attention("qkv_proj", 16, **GROUPED),
        "qkv_proj.weight",
        heads_of(8),
        False,
        "auto",
    ),
    "in each head": (
        lambda: GPTNeoXAttention("query_key_value", 24, num_heads=HEADS),
        "query_key_value.weight",
        [[6 * head + 2 * part + row for head in range(4) for row in range(2)] for part in range(3)],
        False,
        None,
    ),
    "in each head, by head": (
        lambda: GPTNeoXAttention("query_key_value", 24, num_heads=HEADS),
        "query_key_value.weight",
        heads_of(12),
        False,
        "auto",
    ),
    "in each group": (
        lambda: FalconAttention("query_key_value", 16, **FALCON),
        "query_key_value.weight",
        [[0, 1, 2, 3, 8, 9, 10, 11], [4, 5, 12, 13], [6, 7, 14, 15]],
        False,
        None,
    ),
    "key and value of latents": (
        lambda: DeepseekV3MLA("kv_b_proj", 16, **LATENT),
        "kv_b_proj.weight",
        each((16,)),
        False,
        None,
    ),
    "key and value of latents, by head": (
        lambda: DeepseekV3MLA("kv_b_proj", 16, **LATENT),
        "kv_b_proj.weight",
        each((0, 3), (3, 8), (8, 11), (11, 16)),
        False,
        "auto",
    ),
    "nn.MultiheadAttention by head": (
        lambda: nn.MultiheadAttention(WIDTH, HEADS, bias=False),
        "in_proj_weight",
        heads_of(12),
        False,
        "auto",
    ),
    "named heads": (
        lambda: nn.ModuleDict({"wqkv": nn.Linear(WIDTH, 16)}),
        "wqkv.weight",
        heads_of(8),
        False,
        {"wqkv": (4, 2)},
    ),
}


def polar(matrix):
    U, _, Vh = torch.linalg.svd(matrix, full_matrices=False)
    return U @ Vh * max(1, matrix.shape[0] / matrix.shape[1]) ** 0.5


def expected_step(gradient, blocks, is_swapped):
    """Return the step of each block of outputs, of one matrix or of each of a stack."""
    if gradient.ndim == 3:
        return torch.stack([expected_step(one, blocks, is_swapped) for one in gradient])
    seen = gradient.mT if is_swapped else gradient
    step = torch.zeros_like(seen)
    for rows in blocks:
        step[rows] = polar(seen[rows])
    return step.mT if is_swapped else step


@pytest.mark.parametrize("name", CASES)
def test_a_step_is_the_polar_factor_of_each_block(name):
    make, parameter, blocks, is_swapped, heads = CASES[name]
    net = make().double()
    p = dict(net.named_parameters())[parameter]
    optimizer = MuonAdamW(net, lr=0.1, weight_decay=0, method="exact", heads=heads, rules={})
    start, give_to = p.detach().clone(), list(net.parameters())
    give(give_to)
    optimizer.step()
    torch.testing.assert_close(start - p.detach(), 0.1 * expected_step(p.grad, blocks, is_swapped), rtol=0, atol=1e-10)


@pytest.mark.parametrize("options", [{}, {"variant": "normuon"}, {"variant": "adamuon"}, {"cautious": True}])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_lies_otherwise_makes_the_steps_of_what_lies_in_order(options, dtype):
    """Conv1D as nn.Linear, interleaved rows as rows in order."""
    order = torch.tensor([6 * head + 2 * part + row for part in range(3) for head in range(4) for row in range(2)])
    for net, twin, there in [
        (Conv1D(12, 8), nn.Linear(8, 12, bias=False), lambda w: w.mT),
        (Conv1D(6, 8), nn.Linear(8, 6, bias=False), lambda w: w.mT),
        (
            GPTNeoXAttention("query_key_value", 24, num_heads=HEADS),
            Attention("qkv", 24, num_heads=HEADS),
            lambda w: w[order],
        ),
    ]:
        net, twin = net.to(dtype), twin.to(dtype)
        (p,), (q,) = net.parameters(), twin.parameters()
        with torch.no_grad():
            q.copy_(there(p))
        rounding = {"rounding": "nearest"}  # stochastic noise goes by the place in memory
        pair = [MuonAdamW(each, lr=0.02, method="exact", **options, **rounding) for each in (net, twin)]
        for step in range(3):
            give([p], step)
            q.grad = there(p.grad).contiguous()
            for optimizer in pair:
                optimizer.step()
        torch.testing.assert_close(there(p.detach()), q.detach(), rtol=0, atol=1e-5 if dtype == torch.float32 else 1e-2)


def test_rows_that_nothing_tells_apart_stay_one_matrix_and_the_table_says_so():
    for layer, rows in [("query_key_value", 24), ("wqkv", 24), ("qkv_proj", 20)]:
        split = split_params(Attention(layer, rows))
        assert split.routes[0].blocks == 1
        assert "rows of query, key and value are not known: split=" in str(split)
    split = split_params([("attn.query_key_value.weight", nn.Parameter(draw(24, 8)))])
    assert split.routes[0].blocks == 1


@pytest.mark.parametrize(
    "layer",
    ["w_qkv", "QKV", "qkv_layer", "proj_qkv", "c_qkv", "mixed_qkv", "qkv_transform", "kqv", "keys_queries_values"],
)
def test_whatever_is_called_query_key_and_value_is_said_to_be_so(layer):
    """In some of the tutorials that have these names the rows are interleaved, in others they are not."""
    split = split_params(Attention(layer, 24, num_heads=HEADS))
    assert split.routes[0].blocks == 1
    assert "rows of query, key and value are not known: split=" in str(split)
    assert split_params(Attention(layer, 24), heads={layer: (HEADS, HEADS)}).routes[0].blocks == 12


@pytest.mark.parametrize("layer", ["kv_proj", "w_kv", "kv_linear", "key_value", "wkv"])
def test_so_is_whatever_is_called_key_and_value_and_has_as_many_rows(layer):
    assert "rows of key and value are not known" in str(split_params(Attention(layer, 16, num_heads=HEADS)))
    assert "not known" not in str(split_params(Attention(layer, 12, num_heads=HEADS)))  # a latent


class JetMoeAttention(Attention):
    pass


class GluMlp(nn.Module):  # of timm
    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(6, 16), nn.Linear(8, 6)


def test_classes_and_names_say_more_of_pairs():
    net = JetMoeAttention("kv_proj", 16, num_heads=HEADS, num_key_value_heads=HEADS)
    assert "2 blocks: key, value" in str(split_params(net))
    assert "2 blocks: gate, up" in str(split_params(GluMlp()))
    for layer in ("fused_gate_up", "proj_up_gate", "gate_up_linear", "w1_w3"):
        assert "2 blocks: gate, up" in str(split_params(nn.ModuleDict({layer: nn.Linear(6, 16)}))), layer


def test_heads_that_do_not_divide_the_rows_or_match_nothing_are_refused():
    net = Attention("q_proj", 10, num_heads=HEADS)
    with pytest.raises(ValueError, match=r"parameter q_proj\.weight: its 10 rows cannot be divided among 4 heads"):
        MuonAdamW(net, heads="auto")
    with pytest.raises(ValueError, match=r"parameter q_proj\.weight: its 10 rows .* \(heads=\{'q_proj': 3\}\)"):
        MuonAdamW(net, heads={"q_proj": 3})
    for heads, words in [
        ({"q_prj": 2}, "'q_prj', which matches no parameter of Muon; did you mean 'q_proj'"),
        ("all", "heads='all'; expected 'auto'"),
        ({"q_proj": 0}, "expected a number of heads"),
        ({"q_proj": (2, 2, 2)}, "expected a number of heads"),
    ]:
        with pytest.raises(ValueError, match=words):
            MuonAdamW(net, heads=heads)
    for given in (nn.Linear(4, 4), dict(net.named_parameters())):
        with pytest.raises(ValueError, match="heads='auto' found no query, key or value"):
            MuonAdamW(given, heads="auto")


def test_a_parameter_that_is_called_query_is_no_layer_of_heads():
    net = nn.ModuleDict({"attn": Attention("q_proj", 16, num_heads=4), "out": nn.Linear(16, WIDTH)})
    net["attn"].query = nn.Parameter(draw(3, WIDTH))
    found = {route.name: route.blocks for route in split_params(net, heads="auto").named("muon")}
    assert found == {"attn.query": 1, "attn.q_proj.weight": 4, "out.weight": 1}


def test_a_config_that_refuses_to_answer_is_not_asked_again():
    class Config:
        num_attention_heads = 4

        @property
        def head_dim(self):
            raise RuntimeError("it differs between layers")

    net = Attention("q_proj", 16)
    net.config = Config()
    assert split_params(net, heads="auto").routes[0].blocks == 4
    assert split_params(net).routes[0].blocks == 1


def test_the_nearest_module_that_has_heads_says_how_many():
    class Config:
        num_attention_heads, num_key_value_heads = 4, 2

    net = nn.ModuleDict({"self_attn": Attention("k_proj", 8), "cross_attn": Attention("k_proj", 8, num_heads=8)})
    net.config = Config()
    found = {route.name: route.blocks for route in split_params(net, heads="auto").routes}
    assert found == {"self_attn.k_proj.weight": 2, "cross_attn.k_proj.weight": 8}
    text = str(split_params(net, heads="auto"))
    assert "matrix, 2 blocks: by head" in text

"""Query, key and value: which rows they are in which layer, by what the models themselves compute; and head by head.

The oracle of the rows is the model: the gradient of what reaches its attention as the query of a head, with respect to
the weight, is not zero in the rows of that query and zero in all others.
"""

import pytest
import torch

from muonlab import split_params
from muonlab.optim.layout import layout
from optim.training import draw

WIDTH, HEADS = 32, 4
SMALL = {"hidden_size": WIDTH, "num_hidden_layers": 1, "num_attention_heads": HEADS, "vocab_size": 50}
GPT2 = {"n_embd": WIDTH, "n_layer": 1, "n_head": HEADS, "vocab_size": 50, "n_positions": 8}
IDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
MODELS = {
    "GPTNeoXForCausalLM": ({**SMALL, "intermediate_size": 48}, "query_key_value"),
    "PersimmonForCausalLM": ({**SMALL, **IDS, "intermediate_size": 48}, "query_key_value"),
    "Phi3ForCausalLM": ({**SMALL, **IDS, "intermediate_size": 48, "num_key_value_heads": 2}, "qkv_proj"),
    "GPT2LMHeadModel": ({**GPT2, **IDS}, "c_attn"),
    "GPTBigCodeForCausalLM": ({**GPT2, **IDS}, "c_attn"),
    "GPTBigCodeForCausalLM, by head": ({**GPT2, **IDS, "multi_query": False}, "c_attn"),
    "MptForCausalLM": ({"d_model": WIDTH, "n_heads": HEADS, "n_layers": 1, "vocab_size": 50, "max_seq_len": 8}, "Wqkv"),
    "FalconForCausalLM": ({**SMALL, "multi_query": True}, "query_key_value"),
    "FalconForCausalLM, by head": ({**SMALL, "multi_query": False}, "query_key_value"),
    "FalconForCausalLM, by group": (
        {**SMALL, "new_decoder_architecture": True, "num_kv_heads": 2},
        "query_key_value",
    ),
    "BloomForCausalLM": ({"hidden_size": WIDTH, "n_layer": 1, "n_head": HEADS, "vocab_size": 50}, "query_key_value"),
    "CodeGenForCausalLM": ({**GPT2, **IDS, "rotary_dim": 4}, "qkv_proj"),
    "DebertaModel": ({**SMALL, "intermediate_size": 48, "pad_token_id": 0}, "in_proj"),
}


def made(name: str):
    transformers = pytest.importorskip("transformers")
    kind = getattr(transformers, name.split(",")[0])
    config = kind.config_class(**MODELS[name][0])
    config._attn_implementation = "eager"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return kind(config).eval()


def rows_of_heads(net, weight) -> list[tuple[int, ...]]:
    """Return the rows of a fused weight that each query, key and value of a head is made of.

    Products of queries and keys (batch, heads, time, size) are seen where matmul and its like get them.
    """
    seen: list[torch.Tensor] = []
    of_tensors = (torch.Tensor.matmul, torch.Tensor.__matmul__, torch.Tensor.baddbmm)
    products = (torch.matmul, torch.bmm, torch.baddbmm, *of_tensors)

    class Watch(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            given = (*args, *(kwargs or {}).values())
            if function in products:
                seen.extend([each for each in given if isinstance(each, torch.Tensor)][-2:])
            if function is torch.nn.functional.scaled_dot_product_attention:
                seen.extend(given[:3])
            return function(*args, **(kwargs or {}))

    with Watch():
        net(torch.arange(1, 6)[None])
    found = set()
    for tensor in seen:
        if not tensor.requires_grad or tensor.ndim < 3:
            continue
        heads = tensor.flatten(0, -3)
        for head in heads:  # the sum over time and size of what a head has, weighted so that nothing cancels
            (gradient,) = torch.autograd.grad(
                (head * draw(*head.shape, dtype=head.dtype)).sum(), weight, retain_graph=True, allow_unused=True
            )
            if gradient is not None:
                axis = 1 if weight.shape[0] == WIDTH and weight.shape[1] != WIDTH else 0
                found.add(tuple(gradient.abs().sum(1 - axis).nonzero().flatten().tolist()))
    return sorted(found)


def blocks_of(route) -> list[tuple[int, ...]]:
    """Return the rows of each block of a route, by the layout of a parameter that holds the numbers of its rows."""
    p = route.parameter
    axis = 1 if route.kind == "cr" else 0
    numbers = torch.arange(p.shape[axis], dtype=torch.float32).view((1, -1) if axis else (-1, 1)).expand(p.shape)
    stacks = layout(p.shape, route.kind, route.blocks).stacks(numbers.contiguous())
    return sorted(tuple(int(row) for row in matrix[:, 0]) for stack in stacks for matrix in stack)


@pytest.mark.parametrize("name", MODELS)
def test_heads_are_what_the_model_attends_with(name):
    net, layer = made(name), MODELS[name][1]
    by_head = next(route for route in split_params(net, heads="auto").routes if f"{layer}.weight" in route.name)
    by_part = next(route for route in split_params(net).routes if route.name == by_head.name)
    heads = rows_of_heads(net, by_head.parameter)
    size = WIDTH // HEADS
    assert {len(rows) for rows in heads if len(rows) <= size} == {size}
    single = [rows for rows in heads if len(rows) == size]
    assert single == blocks_of(by_head)
    # Query, key and value are each all heads of one sort: a union of the model's.
    parts = blocks_of(by_part)
    assert len(parts) == 3
    assert sorted(row for part in parts for row in part) == list(range(len(single) * size))
    for part in parts:
        assert set(part) == {row for rows in single if set(rows) <= set(part) for row in rows}

import torch
from torch import nn

from muonlab.nets.transformer import Transformer
from muonlab.optim.routing import TAKES, roles


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


def test_vectors_are_never_taken_by_muon():
    assert all("vector" not in taken for taken in TAKES.values())

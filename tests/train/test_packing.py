from enum import Enum

import pytest
import torch

from muonlab.train.packing import pack, unpack

TREE = {
    "state": {
        0: {"step": 3, "big": 2**70, "rate": 0.1, "high": float("inf"), "moment": torch.randn(2, 3)},
        1: {"count": torch.tensor(4, dtype=torch.int32), "history": [torch.zeros(0), (1, 1.0, True, None)]},
    },
    "param_groups": [{"betas": (0.9, 0.999), "name": "ä", "foreach": None, "maximize": False, "params": [0, 1]}],
    "nothing": {},
}


def same(a, b) -> bool:
    """Whether two trees agree in types, in structure and in all bits."""
    if type(a) is not type(b):
        return False
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    return all(map(same, a, b)) and len(a) == len(b) if isinstance(a, list | tuple) else a == b


def test_a_tree_comes_back_with_the_same_types_and_bits():
    tensors = pack(TREE, "optimizer/0") | pack({"other": 1}, "optimizer/1")
    assert all(isinstance(tensor, torch.Tensor) for tensor in tensors.values())
    assert same(unpack(tensors, "optimizer/0", "cpu"), TREE)


def test_the_tree_and_its_tensors_share_no_memory():
    moment = torch.ones(3)
    tensors = pack({"moment": moment}, "o")
    moment.zero_()
    back = unpack(tensors, "o", "cpu")["moment"]
    back += 1
    assert torch.equal(unpack(tensors, "o", "cpu")["moment"], torch.ones(3))


def test_tensors_are_contiguous_as_a_checkpoint_needs_them():
    transposed = torch.arange(6.0).view(2, 3).t()
    tensors = pack([transposed], "o")
    assert all(tensor.is_contiguous() for tensor in tensors.values())
    assert torch.equal(unpack(tensors, "o", "cpu")[0], transposed)


@pytest.mark.parametrize("value", [Enum("Kind", "a").a, len, {1, 2}, torch.float32])
def test_what_a_checkpoint_cannot_hold_is_named(value):
    with pytest.raises(
        ValueError, match=r"values/state/0/odd is a .*, which a checkpoint cannot hold; expected tensors"
    ):
        pack({"state": {0: {"odd": value}}}, "o")

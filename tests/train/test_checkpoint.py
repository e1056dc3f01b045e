import errno
from enum import Enum

import pytest
import torch
from safetensors import SafetensorError

from muonlab.train import checkpoint
from muonlab.train.checkpoint import Progress, pack, unpack

TENSORS = {"parameter/w": torch.randn(3, 2, 2), "state/w/step": torch.tensor(4.0, dtype=torch.float64)}
PROGRESS = Progress(step=40, alive=[0, 2, 5], metrics_bytes=10)


@pytest.fixture
def saved(tmp_path):
    checkpoint.save(tmp_path / "state.safetensors", TENSORS, PROGRESS)
    (tmp_path / "metrics.jsonl").write_text("0123456789, and what came after the checkpoint")
    return tmp_path


def load(folder, like=TENSORS):
    return checkpoint.load(folder / "state.safetensors", "cpu", like, folder / "metrics.jsonl")


def test_what_was_saved_comes_back(saved):
    tensors, progress = load(saved)
    assert progress == PROGRESS
    assert all(torch.equal(tensors[name], TENSORS[name]) for name in TENSORS)
    assert tensors["state/w/step"].dtype == torch.float64


def test_a_population_that_has_lost_members_still_fits_the_whole_one(saved):
    whole = TENSORS | {"parameter/w": torch.zeros(8, 2, 2)}
    assert load(saved, whole) is not None


def test_the_state_of_a_torch_optimizer_which_a_new_one_has_not_does_not_make_a_checkpoint_foreign(tmp_path):
    with_state = TENSORS | {"optimizer/0/0/values/state/0/step": torch.tensor(3.0)}
    checkpoint.save(tmp_path / "state.safetensors", with_state, PROGRESS)
    (tmp_path / "metrics.jsonl").write_text("0123456789")
    tensors, _ = load(tmp_path, TENSORS | {"optimizer/0/0/structure": torch.zeros(9), "optimizer/1/0/structure": 1})
    assert tensors.keys() == with_state.keys()


def test_nothing_else_lies_beside_the_checkpoint(saved):
    assert sorted(path.name for path in saved.iterdir()) == ["metrics.jsonl", "state.safetensors"]


@pytest.mark.parametrize("size", [0, 7, 100])
def test_a_torn_checkpoint_means_a_new_start(saved, size):
    path = saved / "state.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    assert load(saved) is None


def test_no_checkpoint_a_foreign_one_and_lost_metrics_mean_a_new_start(saved):
    assert load(saved, TENSORS | {"parameter/other": torch.zeros(3)}) is None
    assert load(saved, TENSORS | {"parameter/w": torch.zeros(3, 2, 9)}) is None
    (saved / "metrics.jsonl").write_text("short")
    assert load(saved) is None
    (saved / "state.safetensors").unlink()
    assert load(saved) is None


def test_a_full_disk_is_an_error_that_says_so(tmp_path, monkeypatch):
    def full(*_, **__):
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(OSError, match="No space left") as raised:
        checkpoint.save(tmp_path / "state.safetensors", TENSORS, PROGRESS)
    assert raised.value.errno == errno.ENOSPC


# -- trees as tensors -------------------------------------------------------------------------------------

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

"""What a job writes on its way: its metrics, and the checkpoint from which it goes on."""

import errno
import json
from enum import Enum

import pytest
import torch
from safetensors import SafetensorError

from muonlab.train import checkpoint
from muonlab.train.checkpoint import Progress, pack, unpack
from muonlab.train.metrics import Metrics

TENSORS = {"parameter/w": torch.randn(3, 2, 2), "state/w/step": torch.tensor(4.0, dtype=torch.float64)}
PROGRESS = Progress(step=40, alive=[0, 2, 5], metrics_bytes=10)


@pytest.fixture
def saved(tmp_path):
    checkpoint.save(tmp_path / "state.safetensors", TENSORS, PROGRESS)
    (tmp_path / "metrics.jsonl").write_text("0123456789, and what came after the checkpoint")
    return tmp_path


def load(folder, like=TENSORS):
    return checkpoint.load(folder / "state.safetensors", "cpu", like, folder / "metrics.jsonl")


def test_what_was_saved_comes_back_also_for_a_population_that_has_lost_members(saved):
    tensors, progress = load(saved)
    assert progress == PROGRESS
    assert all(torch.equal(tensors[name], TENSORS[name]) for name in TENSORS)
    assert tensors["state/w/step"].dtype == torch.float64
    assert load(saved, TENSORS | {"parameter/w": torch.zeros(8, 2, 2)}) is not None
    assert sorted(path.name for path in saved.iterdir()) == ["metrics.jsonl", "state.safetensors"]


def test_the_state_of_a_torch_optimizer_which_a_new_one_lacks_does_not_make_a_checkpoint_foreign(saved):
    with_state = TENSORS | {"optimizer/0/0/values/state/0/step": torch.tensor(3.0)}
    checkpoint.save(saved / "state.safetensors", with_state, PROGRESS)
    tensors, _ = load(saved, TENSORS | {"optimizer/0/0/structure": torch.zeros(9), "optimizer/1/0/structure": 1})
    assert tensors.keys() == with_state.keys()


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
    "transposed": torch.arange(6.0).view(2, 3).t(),
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


def test_a_tree_comes_back_with_the_same_types_and_bits_in_tensors_that_a_checkpoint_takes():
    tensors = pack(TREE, "optimizer/0") | pack({"other": 1}, "optimizer/1")
    assert all(isinstance(tensor, torch.Tensor) and tensor.is_contiguous() for tensor in tensors.values())
    assert same(unpack(tensors, "optimizer/0", "cpu"), TREE)
    back = unpack(tensors, "optimizer/0", "cpu")["transposed"]
    back += 1  # shares no memory
    assert same(unpack(tensors, "optimizer/0", "cpu"), TREE)


@pytest.mark.parametrize("value", [Enum("Kind", "a").a, len, {1, 2}, torch.float32])
def test_what_a_checkpoint_cannot_hold_is_named(value):
    with pytest.raises(ValueError, match=r"values/state/0/odd is a .*, which a checkpoint cannot hold; expected ten"):
        pack({"state": {0: {"odd": value}}}, "o")


# -- metrics ----------------------------------------------------------------------------------------------


def make(path, num_members, num_bytes=0):
    metrics = Metrics(path, num_members)
    metrics.start(num_bytes)
    return metrics


def append(metrics, step, alive, value):
    metrics.append(step, step / 10, alive, {"loss": torch.tensor([value + m for m in alive])})


def test_a_line_per_evaluation_with_null_for_members_that_have_left_and_for_what_is_not_finite(tmp_path):
    metrics = make(tmp_path / "metrics.jsonl", 3)
    append(metrics, 0, [0, 1, 2], 0.5)
    append(metrics, 5, [0, 2], 0.25)
    append(metrics, 9, [0], float("nan"))
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines[1] == {"step": 5, "epoch": 0.5, "loss": [0.25, None, 2.25]}
    assert metrics.curve("loss", 0) == [0.5, 0.25, None]
    assert metrics.num_bytes == (tmp_path / "metrics.jsonl").stat().st_size


def test_going_on_cuts_what_came_after_the_checkpoint_and_a_new_start_forgets_the_file(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text("something foreign\n")
    metrics = make(path, 2)
    append(metrics, 0, [0, 1], 0.5)
    kept = metrics.num_bytes
    append(metrics, 5, [0, 1], 0.25)
    whole = path.read_bytes()
    with path.open("ab") as file:
        file.write(b'{"step": 10, "tor')
    again = make(path, 2, kept)
    assert again.steps == [0]
    append(again, 5, [0, 1], 0.25)
    assert path.read_bytes() == whole

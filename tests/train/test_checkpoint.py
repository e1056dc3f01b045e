import errno

import pytest
import torch
from safetensors import SafetensorError

from muonlab.train import checkpoint
from muonlab.train.checkpoint import Progress

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

import hashlib
import os
import pickle

import pytest
import torch
from safetensors.torch import save_file

from muonlab.data.sources import DataError
from muonlab.studies.checkpoints.work.checkpoints import describe, digest, state

TENSORS = {"a.weight": torch.arange(6.0).view(2, 3), "a.bias": torch.ones(2)}


class Creates:
    """What creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return (os.mkdir, (self.path,))


def read(path, member=0):
    found, notes = state(describe(path)[0], member)
    return found, notes


def holds(found):
    return found.keys() == TENSORS.keys() and all(each.equal(TENSORS[name]) for name, each in found.items())


@pytest.mark.parametrize("name", ["a.safetensors", "no-suffix"])
def test_a_file_of_safetensors_is_known_by_its_suffix_or_its_beginning(tmp_path, name):
    save_file(TENSORS, tmp_path / name)
    (found,) = describe(tmp_path / name)
    assert (found.kind, found.num_members, found.family) == ("model", 1, None)
    assert found.sha256 == hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
    assert holds(read(tmp_path / name)[0])


def test_a_population_gives_one_member_at_a_time(tmp_path):
    stacked = {f"parameter/{name}": torch.stack([each, each + 1, each + 2]) for name, each in TENSORS.items()}
    save_file({**stacked, "buffer/seen": torch.tensor([4, 5, 6])}, tmp_path / "w.safetensors")
    (found,) = describe(tmp_path / "w.safetensors")
    assert (found.kind, found.num_members) == ("population", 3)
    second, notes = read(tmp_path / "w.safetensors", 1)
    assert notes == []
    assert second.keys() == {*TENSORS, "seen"}
    assert second["a.weight"].equal(TENSORS["a.weight"] + 1)
    assert second["seen"].equal(torch.tensor(5))


@pytest.mark.parametrize("key", [None, "state_dict", "model"])
@pytest.mark.parametrize("is_zip", [True, False])
def test_a_state_dict_of_torch_save_is_found_where_loops_keep_it(tmp_path, key, is_zip):
    held = TENSORS if key is None else {key: TENSORS, "optimizer": {"state": {}, "param_groups": []}, "step": 3}
    torch.save(held, tmp_path / "a.pt", _use_new_zipfile_serialization=is_zip)
    found, notes = read(tmp_path / "a.pt")
    assert holds(found)
    assert describe(tmp_path / "a.pt")[0].kind == "torch"
    assert notes == ([] if key is None else [f"{tmp_path / 'a.pt'}: the weights are those under {key!r}"])


@pytest.mark.parametrize(
    "prefixes", [["module."], ["_orig_mod."], ["module.", "_orig_mod."], ["_orig_mod.", "module."]]
)
def test_what_wrappers_put_before_names_is_taken_off_and_said(tmp_path, prefixes):
    torch.save({"".join(prefixes) + name: each for name, each in TENSORS.items()}, tmp_path / "a.pt")
    found, notes = read(tmp_path / "a.pt")
    assert holds(found)
    assert [note.split(": ")[1] for note in notes] == [f"{prefix!r} taken off every name" for prefix in prefixes]


def test_a_name_that_only_some_have_is_left(tmp_path):
    save_file({"module.a": torch.ones(1), "b": torch.ones(1)}, tmp_path / "a.safetensors")
    assert read(tmp_path / "a.safetensors")[0].keys() == {"module.a", "b"}


@pytest.mark.parametrize("how", ["pickle", "torch", "old torch", "model"])
def test_code_in_a_pickle_is_refused_and_never_run(tmp_path, how):
    made, path = tmp_path / "made", tmp_path / "a.pt"
    if how == "pickle":
        path.write_bytes(pickle.dumps(Creates(made)))
    elif how == "model":
        torch.save(torch.nn.Linear(2, 2), path)
    else:
        torch.save({"a": Creates(made)}, path, _use_new_zipfile_serialization=how == "torch")
    named = "" if how == "pickle" else r" \(\S+\.\S+\)"  # of a newer protocol torch does not say it
    said = rf"a.pt holds more than tensors and plain values{named}, .*code in it is never run: save model.state_dict"
    with pytest.raises(DataError, match=said) as refused:
        describe(path)
    assert "weights_only" not in str(refused.value)  # torch's advice to run it all the same
    assert not made.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"once upon a time", "is no checkpoint; expected a .safetensors"),
        (b"", "is no checkpoint; expected"),
        (b"PK\x03\x04 and no more", "is no checkpoint that can be read"),
    ],
)
def test_a_file_that_is_no_checkpoint_is_an_error(tmp_path, content, message):
    (tmp_path / "a.pt").write_bytes(content)
    with pytest.raises(DataError, match=message):
        describe(tmp_path / "a.pt")


def test_a_torn_file_of_safetensors_is_an_error(tmp_path):
    save_file(TENSORS, tmp_path / "a.safetensors")
    whole = (tmp_path / "a.safetensors").read_bytes()
    for content in (whole[:-4], b"text", b""):
        (tmp_path / "a.safetensors").write_bytes(content)
        with pytest.raises(DataError, match=r"a.safetensors is no checkpoint that can be read"):
            describe(tmp_path / "a.safetensors")


def test_what_is_no_state_dict_is_an_error_that_names_what_it_is(tmp_path):
    torch.save({"a": torch.ones(1), "epoch": 3}, tmp_path / "a.pt")
    with pytest.raises(DataError, match=r"holds a dict with 'epoch' \(int\), not tensors by name"):
        describe(tmp_path / "a.pt")
    torch.save(torch.ones(3), tmp_path / "a.pt")
    with pytest.raises(DataError, match="holds a Tensor, not"):
        describe(tmp_path / "a.pt")


def test_a_path_that_is_not_there_has_the_nearest(tmp_path):
    save_file(TENSORS, tmp_path / "weights.safetensors")
    with pytest.raises(DataError, match=r"there is no file or folder .*did you mean .*weights.safetensors"):
        describe(tmp_path / "weight.safetensors")


def test_a_folder_is_its_config_and_weights_and_nothing_else(tmp_path):
    with pytest.raises(DataError, match=r"without config.json \(nothing in it\)"):
        describe(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(DataError, match=r"has a config.json and no weights"):
        describe(tmp_path)
    save_file(TENSORS, tmp_path / "model.safetensors")
    first = digest(tmp_path)
    (tmp_path / "README.md").write_text("a model")
    assert digest(tmp_path) == first == describe(tmp_path)[0].sha256
    (tmp_path / "config.json").write_text('{"a": 1}')
    assert digest(tmp_path) != first

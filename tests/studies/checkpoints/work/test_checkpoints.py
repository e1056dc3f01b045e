"""What a path holds, and that code in it is never run."""

import hashlib
import os
import pickle

import pytest
import torch
from safetensors.torch import save_file

from muonlab.data.sources import DataError
from muonlab.studies.checkpoints.work.checkpoints import describe, state

TENSORS = {"a.weight": torch.arange(6.0).view(2, 3), "a.bias": torch.ones(2)}


class Creates:
    """What creates a folder when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return (os.mkdir, (self.path,))


def read(path, member=0):
    return state(describe(path), member)


def holds(found):
    return found.keys() == TENSORS.keys() and all(each.equal(TENSORS[name]) for name, each in found.items())


@pytest.mark.parametrize("name", ["a.safetensors", "no-suffix"])
def test_a_file_of_safetensors_is_known_by_its_suffix_or_its_beginning(tmp_path, name):
    save_file(TENSORS, tmp_path / name)
    found = describe(tmp_path / name)
    assert (found.kind, found.num_members, found.family) == ("model", 1, None)
    assert found.sha256 == hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
    assert holds(read(tmp_path / name)[0])


def test_a_population_gives_one_member_at_a_time(tmp_path):
    stacked = {f"parameter/{name}": torch.stack([each, each + 1, each + 2]) for name, each in TENSORS.items()}
    save_file({**stacked, "buffer/seen": torch.tensor([4, 5, 6])}, tmp_path / "w.safetensors")
    found = describe(tmp_path / "w.safetensors")
    assert (found.kind, found.num_members) == ("population", 3)
    second, notes = read(tmp_path / "w.safetensors", 1)
    assert (notes, second.keys()) == ([], {*TENSORS, "seen"})
    assert second["a.weight"].equal(TENSORS["a.weight"] + 1)
    assert second["seen"].equal(torch.tensor(5))


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
@pytest.mark.parametrize(("key", "is_zip"), [(None, True), ("state_dict", False), ("model", True)])
def test_a_state_dict_is_found_where_loops_and_wrappers_keep_it_and_what_was_done_is_said(
    tmp_path, key, is_zip, prefix
):
    named = {prefix + name: each for name, each in TENSORS.items()}
    held = named if key is None else {key: named, "optimizer": {"state": {}, "param_groups": []}, "step": 3}
    torch.save(held, tmp_path / "a.pt", _use_new_zipfile_serialization=is_zip)
    found, notes = read(tmp_path / "a.pt")
    assert holds(found)
    assert describe(tmp_path / "a.pt").kind == "torch"
    said = [] if key is None else [f"the weights are those under {key!r}"]
    said += [f"{part + '.'!r} taken off every name" for part in prefix.split(".")[:-1]]
    assert notes == [f"{tmp_path / 'a.pt'}: {words}" for words in said]


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
    said = (
        r"a.pt holds more than tensors and plain values \(\S+\.\S+\), .*code in it is never run: save model.state_dict"
    )
    with pytest.raises(DataError, match=said) as refused:
        describe(path)
    assert "weights_only" not in str(refused.value)  # torch's advice to run it all the same
    assert not made.exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.pt", b"once upon a time", "is not a checkpoint; expected a .safetensors"),
        ("a.pt", b"", "is not a checkpoint; expected"),
        (
            "a.pt",
            b"PK\x03\x04 and no more",
            r"cannot be read as a checkpoint \(a torn zip: copy or download it again\)",
        ),
        ("a.pt", {"epoch": 3}, r"holds a dict with 'epoch' \(int\), not tensors by name"),
        ("a.pt", torch.ones(3), "holds a Tensor, not"),
        ("a.safetensors", b"text", "cannot be read as a checkpoint"),
        ("a.safetensors", b"", "cannot be read as a checkpoint"),
        ("a.safetensors", -4, "cannot be read as a checkpoint"),  # torn
    ],
)
def test_a_file_that_is_no_checkpoint_is_an_error(tmp_path, name, content, message):
    path = tmp_path / name
    if isinstance(content, int):
        save_file(TENSORS, path)
        content = path.read_bytes()[:content]
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    with pytest.raises(DataError, match=f"{name} {message}"):
        describe(path)


def test_a_path_that_is_not_there_has_the_nearest(tmp_path):
    save_file(TENSORS, tmp_path / "weights.safetensors")
    with pytest.raises(DataError, match=r"there is no file or folder .*did you mean .*weights.safetensors"):
        describe(tmp_path / "weight.safetensors")


def test_a_folder_is_its_config_and_weights_and_nothing_else(tmp_path):
    def refused(message):
        with pytest.raises(DataError, match=message):
            describe(tmp_path)

    refused(r"without config.json \(nothing in it\)")
    for text, message in (("{", "is not JSON; expected the config.json that save"), ("[]", "is not a JSON object")):
        (tmp_path / "config.json").write_text(text)
        refused(message)
    (tmp_path / "config.json").write_text("{}")
    refused("has a config.json and no weights")
    save_file(TENSORS, tmp_path / "model.safetensors")
    first = describe(tmp_path).sha256
    (tmp_path / "README.md").write_text("a model")
    assert describe(tmp_path).sha256 == first
    (tmp_path / "config.json").write_text('{"a": 1}')
    assert describe(tmp_path).sha256 != first

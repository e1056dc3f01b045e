"""Weights as people have them: under keys and prefixes, beside objects, as arrays, TorchScript or whole numbers."""

import argparse
import collections
import os
import pickle
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from muonlab.data.sources import DataError
from muonlab.studies.checkpoints.work.checkpoints import INSIDE, describe, state
from muonlab.studies.checkpoints.work.nets import builder, fill


def made(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def read(path, wanted=None):
    """Return a net filled with what is at a path, and what was said."""
    net = made(seed=9)
    found, notes = state(describe(path), 0, wanted)
    return net, [*notes, *fill(net, found, str(path))]


def is_of(seed, net):
    return all(map(torch.equal, net.state_dict().values(), made(seed).state_dict().values()))


class Makes:
    """What creates a folder when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return (os.mkdir, (self.path,))


# -- keys and prefixes -----------------------------------------------------------------------------


@pytest.mark.parametrize("key", [*INSIDE, "whatever"])
def test_weights_stand_under_a_key_of_a_loop_or_under_the_only_one_that_has_any(tmp_path, key):
    optimizer = {"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": [{"lr": 0.1}]}
    torch.save({"epoch": 3, "optimizer": optimizer, key: made().state_dict()}, tmp_path / "a.pt")
    net, notes = read(tmp_path / "a.pt")
    assert is_of(0, net)
    assert notes == [f"{tmp_path / 'a.pt'}: the weights are those under {key!r}"]


def test_of_several_keys_the_trained_weights_are_taken_and_the_others_can_be_asked_for(tmp_path):
    torch.save({"model": made(1).state_dict(), "ema": {"state_dict": made(2).state_dict()}}, tmp_path / "a.pt")
    net, notes = read(tmp_path / "a.pt")
    assert is_of(1, net)
    assert notes[1].endswith("'ema' has weights, too; weights=ema takes those")
    assert is_of(2, read(tmp_path / "a.pt", "ema")[0])
    torch.save({"student": made(1).state_dict(), "teacher": made(2).state_dict()}, tmp_path / "b.pt")
    with pytest.raises(DataError, match="Give weights=student, or another of student, teacher"):
        read(tmp_path / "b.pt")
    assert is_of(2, read(tmp_path / "b.pt", "teacher")[0])
    with pytest.raises(DataError, match=r"holds a dict with .*, not tensors by name"):
        read(tmp_path / "b.pt", "pupil")


def test_one_prefix_is_taken_off_what_stands_beside_it_is_left_out_and_both_are_said(tmp_path):
    lit = {f"model.{name}": each for name, each in made().state_dict().items()}
    torch.save({"state_dict": lit, "pytorch-lightning_version": "2.6"}, tmp_path / "a.ckpt")
    net, notes = read(tmp_path / "a.ckpt")
    assert is_of(0, net)
    assert notes[-1].endswith("'model.' taken off every name")
    save_file({**lit, "loss.weight": torch.ones(2)}, tmp_path / "a.safetensors")
    net, notes = read(tmp_path / "a.safetensors")
    assert is_of(0, net)
    assert notes[-1].endswith("'model.' taken off the names; left out 1 that do not begin so, such as loss.weight")


def test_where_two_prefixes_would_do_both_are_named_and_one_is_asked_for(tmp_path):
    both = {
        f"{name}.{key}": each
        for name, seed in (("net", 1), ("ema", 2))
        for key, each in made(seed).state_dict().items()
    }
    save_file(both, tmp_path / "a.safetensors")
    with pytest.raises(DataError, match=r"under 'ema.' and 'net.'; give weights=ema or weights=net$"):
        read(tmp_path / "a.safetensors")
    assert is_of(2, read(tmp_path / "a.safetensors", "ema")[0])


def test_a_prefix_that_only_the_net_has_is_put_before_every_name():
    net = nn.ModuleDict({"model": made(1)})
    assert fill(net, made(2).state_dict(), "w.pt") == ["w.pt: 'model.' put before every name, as the net has it"]
    assert is_of(2, net["model"])


def test_wrappers_inside_names_are_taken_out(tmp_path):
    torch.save(
        {name.replace("0.", "0._orig_mod."): each for name, each in made().state_dict().items()}, tmp_path / "a.pt"
    )
    net, notes = read(tmp_path / "a.pt")
    assert is_of(0, net)
    assert "'_orig_mod.' taken out of the names" in notes[0]


def test_names_that_no_prefix_brings_to_the_net_are_told_by_how_they_begin():
    other = {f"backbone.{name}": each for name, each in nn.Linear(3, 4).state_dict().items()}
    with pytest.raises(DataError, match=r"2 of the file's 2 names begin with 'backbone.', none of the net's"):
        fill(made(), other, "w.pt")


# -- what stands beside weights --------------------------------------------------------------------


@pytest.mark.parametrize("is_zip", [True, False])
def test_plain_objects_beside_weights_are_read_without_being_made(tmp_path, is_zip):
    beside = {
        "args": argparse.Namespace(lr=0.1, path=Path("/data"), nested=argparse.Namespace(a=[1])),
        "best": np.float32(0.5),
        "curve": np.arange(3.0),
        "paths": [Path("a"), collections.deque([1], maxlen=2)],
        "counts": collections.defaultdict(list, {"a": [1]}),
        "torch": torch.__version__,
    }
    torch.save({"net": made().state_dict(), **beside}, tmp_path / "a.pt", _use_new_zipfile_serialization=is_zip)
    assert is_of(0, read(tmp_path / "a.pt")[0])


@pytest.mark.parametrize("write", ["torch", "pickle", "npz"])
def test_arrays_are_weights_as_tensors_are(tmp_path, write):
    arrays = {name: each.numpy() for name, each in made().state_dict().items()}
    arrays["2.weight"] = np.asfortranarray(arrays["2.weight"])
    arrays["0.bias"] = arrays["0.bias"].astype(">f4")
    path = tmp_path / ("a.npz" if write == "npz" else "a.pt")
    if write == "npz":
        np.savez(path, **arrays)
    elif write == "torch":
        torch.save({"model": arrays}, path)
    else:
        path.write_bytes(pickle.dumps({"model": arrays, "author": "me"}))
    assert is_of(0, read(path)[0])


@pytest.mark.parametrize("how", [torch.jit.script, lambda net: torch.jit.trace(net.eval(), torch.ones(2, 3))])
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_weights_of_torchscript_are_read_and_its_program_is_not(tmp_path, how):
    how(made()).save(tmp_path / "a.pt")
    assert describe(tmp_path / "a.pt").kind == "torch"
    assert is_of(0, read(tmp_path / "a.pt")[0])


# -- harm ------------------------------------------------------------------------------------------


def _scripted(path, harm):
    """Write a zip as TorchScript's whose pickle is to harm."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", pickle.dumps(harm, protocol=2))
        archive.writestr("a/constants.pkl", pickle.dumps(()))


def _npz(path, harm):
    np.savez(path, a=np.array([harm], dtype=object))


class Extends:
    """Gives a state to a class that stands for others."""

    def __reduce__(self):
        return (collections.OrderedDict, (), (None, {"items": os.mkdir}))


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_a_pickle_never_runs_code_whatever_its_protocol(tmp_path, protocol):
    path, target = tmp_path / "a.pkl", tmp_path / "made"
    path.write_bytes(pickle.dumps({"model": Makes(target)}, protocol=protocol))
    with pytest.raises(DataError, match=r"a.pkl (holds more|is not a checkpoint)"):
        describe(path)
    assert not target.exists()


@pytest.mark.parametrize("write", [_scripted, _npz, torch.save])
def test_no_format_runs_code(tmp_path, write):
    target, path = tmp_path / "made", tmp_path / ("a.npz" if write is _npz else "a.pt")
    write(path, Makes(target)) if write is not torch.save else torch.save(Makes(target), path)
    with pytest.raises(DataError, match=r"a\.(pt|npz)"):
        describe(path)
    assert not target.exists()


@pytest.mark.parametrize("name", ["builtins.eval", "builtins.getattr", "torch.hub.load", "os.system", "numpy.load"])
def test_only_what_has_a_stand_in_is_named(tmp_path, name):
    module, _, function = name.rpartition(".")
    (tmp_path / "a.pkl").write_bytes(b"\x80\x02c" + f"{module}\n{function}\n".encode() + b"X\x01\x00\x00\x00a\x85R.")
    with pytest.raises(DataError, match=rf"holds more than tensors and plain values \({name}\)"):
        describe(tmp_path / "a.pkl")


def test_a_storage_that_is_shorter_than_its_tensor_says_is_an_error(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:
        storage = b"X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuM\xe8\x03tQ"
        tensor = b"ctorch._utils\n_rebuild_tensor_v2\n((" + storage + b"K\x00(M\xe8\x03t(K\x01t\x89}tR"
        module = b"\x80\x02c__torch__\nNet\n)\x81}X\x01\x00\x00\x00a" + tensor + b"sb."
        archive.writestr("a/data.pkl", module)
        archive.writestr("a/constants.pkl", b"")
        archive.writestr("a/data/0", bytes(8))
    with pytest.raises(DataError, match=r"a.pt cannot be read as a checkpoint \(.*storage"):
        describe(tmp_path / "a.pt")


# -- whole numbers ---------------------------------------------------------------------------------


def test_whole_numbers_are_multiplied_by_their_scales_and_refused_without():
    whole = made(1).state_dict()
    rows = whole["0.weight"].abs().amax(1)
    small = (whole["0.weight"] / rows[:, None] * 127).round().to(torch.int8)
    for scales in ({"0.SCB": rows}, {"0.weight_scale": rows[:, None] / 127}):
        net = made(2)
        notes = fill(net, {**whole, "0.weight": small, **scales}, "w")
        assert torch.allclose(net[0].weight, whole["0.weight"], atol=rows.max().item() / 127)
        assert notes == ["w: 1 tensor of whole numbers multiplied by the scales beside"]
    with pytest.raises(DataError, match=r"w: 0.weight is int8 in the file and float32 in the net; whole numbers"):
        fill(made(), {**whole, "0.weight": small}, "w")


# -- a net by its function and arguments -----------------------------------------------------------


def test_a_function_is_called_with_the_arguments_that_are_given():
    assert builder("torch.nn:Linear", {"in_features": 3, "out_features": 2})().weight.shape == (2, 3)
    with pytest.raises(
        DataError, match=r"net.width is neither a group nor an argument of net=torch.nn:Linear, which t"
    ):
        builder("torch.nn:Linear", {"in_features": 3, "out_features": 2, "width": 1})
    with pytest.raises(DataError, match=r"such as net.num_classes=5$"):
        fill(nn.Linear(3, 10), nn.Linear(3, 5).state_dict(), "w")


def test_a_net_of_timm_is_named_as_timm_names_it(monkeypatch):
    stands_in = ModuleType("timm.models")
    stands_in.resnet18 = lambda num_classes=1000, **_: nn.Linear(4, num_classes)
    monkeypatch.setitem(sys.modules, "timm", ModuleType("timm"))
    monkeypatch.setitem(sys.modules, "timm.models", stands_in)
    assert builder("timm:resnet18", {"num_classes": 7})().out_features == 7
    with pytest.raises(DataError, match=r"there is no 'resnet19' in timm; did you mean 'resnet18'\?"):
        builder("timm:resnet19")

import gzip
import struct
import sys
import types

import numpy as np
import pytest
import torch
from PIL import Image

from muonlab.data.images import digits, load, split, subset
from muonlab.data.sources import DataError

PIXELS = np.random.default_rng(0).integers(0, 256, (30, 6, 6), dtype=np.uint8)
LABELS = np.arange(30, dtype=np.uint8) % 3


def idx(array):
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


@pytest.fixture
def sources(tmp_path):
    """The same 30 images four times; and the path of each."""
    for number, (pixels, label) in enumerate(zip(PIXELS, LABELS, strict=True)):
        (tmp_path / "folder" / str(label)).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "folder" / str(label) / f"{number:02}.png")
    (tmp_path / "idx").mkdir()
    (tmp_path / "idx" / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(PIXELS)))
    (tmp_path / "idx" / "train-labels-idx1-ubyte").write_bytes(idx(LABELS))
    np.savez(tmp_path / "a.npz", images=PIXELS, labels=LABELS)
    return {
        "folder": tmp_path / "folder",
        "idx": tmp_path / "idx",
        "file": str(tmp_path / "idx" / "train-images-idx3-ubyte.gz"),
        "npz": tmp_path / "a.npz",
    }


@pytest.mark.parametrize("kind", ["folder", "idx", "file", "npz"])
def test_every_kind_of_source_gives_the_same_images(sources, kind):
    images = load(sources[kind])
    rows = np.argsort(LABELS, kind="stable") if kind == "folder" else np.arange(30)
    np.testing.assert_array_equal(images.images[:, 0].numpy(), PIXELS[rows])
    np.testing.assert_array_equal(images.labels.numpy(), LABELS[rows])
    assert images.classes == ("0", "1", "2")
    assert images.source == str(sources[kind])


@pytest.mark.parametrize("kind", ["folder", "idx", "npz"])
def test_a_choice_of_classes_and_numbers_is_that_of_a_subset(sources, kind):
    images = load(sources[kind], classes=[2, 0], per_class=4, seed=3)
    assert images.labels.bincount().tolist() == [4, 4]
    assert images.classes == ("2", "0")
    known = {(pixels.tobytes(), str(label)) for pixels, label in zip(PIXELS, LABELS, strict=True)}
    found = {
        (pixels.numpy().tobytes(), images.classes[label])
        for pixels, label in zip(images.images, images.labels, strict=True)
    }
    assert found < known
    assert len(found) == 8


@pytest.mark.parametrize("kind", ["folder", "idx", "npz"])
def test_fewer_images_than_asked_for_and_an_unknown_class_are_refused(sources, kind):
    with pytest.raises(DataError, match=r"per_class=11, but .* has only 10 examples of class '0'"):
        load(sources[kind], per_class=11)
    with pytest.raises(DataError, match="unknown class '3'"):
        load(sources[kind], classes=[1, 3])


@pytest.mark.parametrize("kind", ["folder", "npz"])
def test_another_source_is_the_test_set(sources, kind):
    images = load(sources["npz"], test=sources[kind], per_class=3, test_per_class=2)
    assert images.is_test.tolist() == [False] * 9 + [True] * 6
    assert images.labels.bincount().tolist() == [5, 5, 5]
    assert len(split(images).test) == 6
    assert load(sources["npz"], test=sources[kind], per_class=2, test_per_class=3).is_test.sum() == 9


@pytest.mark.parametrize("kind", ["folder", "npz"])
def test_size_resizes_every_kind_of_source(sources, kind):
    assert load(sources[kind], size=(4, 9)).images.shape == (30, 1, 4, 9)


def test_class_names_are_for_numbers(sources):
    assert load(sources["npz"], class_names=["x", "y", "z"], classes=["z", "x"]).classes == ("z", "x")
    with pytest.raises(DataError, match=r"class_names is for IDX and \.npz"):
        load(sources["folder"], class_names=["x", "y", "z"])
    with pytest.raises(DataError, match="twice"):
        load(sources["npz"], class_names=["x", "y", "x"])


def test_sources_that_are_none_are_refused(tmp_path):
    (tmp_path / "a.txt").write_text("text")
    with pytest.raises(DataError, match=r"a\.txt is no source of images; expected a folder or \.zip"):
        load(tmp_path / "a.txt")
    with pytest.raises(DataError, match=r"no file or folder 'digit'; did you mean 'digits'\?"):
        load("digit")
    (tmp_path / "a.zip").write_text("text")
    with pytest.raises(DataError, match="no zip that can be read"):
        load(tmp_path / "a.zip")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty holds no image; expected class folders"):
        load(tmp_path / "empty")


def test_digits_are_those_of_scikit_learn():
    datasets = pytest.importorskip("sklearn.datasets")
    images, bunch = load(), datasets.load_digits()
    np.testing.assert_array_equal(np.round(images.images[:, 0].double().numpy() * 16 / 255), bunch.images)
    np.testing.assert_array_equal(images.labels.numpy(), bunch.target)
    halves = [subset(images, classes=classes) for classes in (range(5), range(5, 10))]
    assert [half.labels.unique().tolist() for half in halves] == [[0, 1, 2, 3, 4]] * 2
    assert sum(len(half.labels) for half in halves) == 1797


def test_the_levels_of_digits_span_those_of_a_byte(monkeypatch):
    levels = np.arange(128, dtype=np.float64).reshape(2, 64) % 17
    module = types.SimpleNamespace(load_digits=lambda return_X_y: (levels, np.array([4, 9])))
    monkeypatch.setitem(sys.modules, "sklearn", types.SimpleNamespace(datasets=module))
    monkeypatch.setitem(sys.modules, "sklearn.datasets", module)
    images = digits()
    np.testing.assert_array_equal(images.images.numpy(), np.rint(levels / 16 * 255).reshape(2, 1, 8, 8))
    assert (images.images.dtype, images.labels.tolist()) == (torch.uint8, [4, 9])


def test_without_scikit_learn_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(DataError, match="pip install scikit-learn"):
        load("digits")

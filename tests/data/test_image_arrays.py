import gzip
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from image_files import IDX_CODES, idx
from muonlab.data.image_arrays import check_class_names, from_arrays, is_idx, read_idx, read_idx_array, read_npz
from muonlab.data.sources import DataError

RANDOM = np.random.default_rng(0)
PIXELS = RANDOM.integers(0, 256, (12, 5, 4), dtype=np.uint8)
LABELS = np.arange(12, dtype=np.uint8) % 3


def mnist(root, zipped, separator="-"):
    files = {
        "train-images": PIXELS[:9],
        "train-labels": LABELS[:9],
        "t10k-images": PIXELS[9:],
        "t10k-labels": LABELS[9:],
    }
    for name, array in files.items():
        data = gzip.compress(idx(array), mtime=0) if zipped else idx(array)
        (root / f"{name}{separator}idx{array.ndim}-ubyte{'.gz' if zipped else ''}").write_bytes(data)
    return root


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_an_idx_array_is_read_as_it_was_written(tmp_path_factory, data):
    dtype = np.dtype(data.draw(st.sampled_from(sorted(IDX_CODES))))
    shape = data.draw(arrays.array_shapes(max_dims=4, max_side=5))
    array = data.draw(arrays.arrays(dtype, shape, elements={"allow_nan": False} if dtype.kind == "f" else None))
    path = tmp_path_factory.mktemp("idx") / "array"
    path.write_bytes(gzip.compress(idx(array), mtime=0) if data.draw(st.booleans()) else idx(array))
    found = read_idx_array(path).numpy()
    np.testing.assert_array_equal(found, array)
    assert found.dtype == dtype


@pytest.mark.parametrize(("zipped", "separator"), [(False, "."), (True, "-")])
def test_a_folder_of_mnist_has_both_sets(tmp_path, zipped, separator):
    images = read_idx(mnist(tmp_path, zipped, separator))
    np.testing.assert_array_equal(images.images[:, 0].numpy(), PIXELS)
    np.testing.assert_array_equal(images.labels.numpy(), LABELS)
    assert images.is_test.tolist() == [False] * 9 + [True] * 3
    assert images.classes == ("0", "1", "2")
    assert images.images.dtype == torch.uint8


def test_one_file_is_read_with_the_labels_beside_it_and_names_of_classes(tmp_path):
    images = read_idx(mnist(tmp_path, True) / "t10k-images-idx3-ubyte.gz", class_names=["x", "y", "z", "none"])
    np.testing.assert_array_equal(images.images[:, 0].numpy(), PIXELS[9:])
    assert images.classes == ("x", "y", "z", "none")
    assert not images.is_test.any()


def test_a_file_that_was_unpacked_beside_its_gz_is_read_once(tmp_path):
    mnist(tmp_path, True)
    assert len(read_idx(mnist(tmp_path, False)).labels) == 12


def test_names_of_idx_images():
    assert is_idx("train-images-idx3-ubyte.gz")
    assert is_idx("emnist-letters-test-images.idx3-ubyte")
    assert not is_idx("train-labels-idx1-ubyte")
    assert not is_idx("images.zip")


def test_missing_labels_and_several_sets_are_refused(tmp_path):
    mnist(tmp_path, True)
    (tmp_path / "train-labels-idx1-ubyte.gz").rename(tmp_path / "labels.gz")
    with pytest.raises(DataError, match=r"has no labels beside it.*train-labels-idx1-ubyte \(or with \.gz\)"):
        read_idx(tmp_path)
    (tmp_path / "more-images-idx3-ubyte").write_bytes(b"")
    with pytest.raises(DataError, match="expected one train-images"):
        read_idx(tmp_path)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b"\x89PNG\r\n", "no IDX file: it begins with 89 50 4e 47; expected 00 00, a type"),
        (b"\0\0\x07\x01\0\0\0\x01\0", "no IDX file: it begins with 00 00 07 01"),
        (b"\0\0", "no IDX file"),
        (idx(PIXELS)[:-1], "is torn: it says it holds 12 x 5 x 4 numbers, 240 bytes, but has 239"),
        (idx(PIXELS)[:9], "is torn"),
        (idx(PIXELS) + b"\0", "is too long: .*240 bytes, but has 241"),
        (idx(PIXELS[:0]), "holds no numbers"),
        (gzip.compress(idx(PIXELS), mtime=0)[:-20], r"torn \.gz"),
        (gzip.compress(idx(PIXELS), mtime=0)[:5], r"torn \.gz"),
        (gzip.compress(idx(PIXELS), mtime=0)[:-8] + b"\0" * 8, r"torn \.gz"),
    ],
)
def test_torn_and_other_files_are_refused(tmp_path, data, message):
    (tmp_path / "file").write_bytes(data)
    with pytest.raises(DataError, match=message):
        read_idx_array(tmp_path / "file")


@pytest.mark.parametrize(
    ("keys", "num_test"),
    [
        (("x_train", "y_train", "x_test", "y_test"), 3),
        (("train_images", "train_labels", "test_images", "test_labels"), 3),
        (("images", "labels"), 0),
    ],
)
def test_npz_of_every_naming_is_read(tmp_path, keys, num_test):
    values = (PIXELS[:9], LABELS[:9], PIXELS[9:], LABELS[9:]) if num_test else (PIXELS, LABELS)
    np.savez_compressed(tmp_path / "a.npz", **dict(zip(keys, values, strict=True)), extra=np.ones(2))
    images = read_npz(tmp_path / "a.npz")
    np.testing.assert_array_equal(images.images[:, 0].numpy(), PIXELS)
    np.testing.assert_array_equal(images.labels.numpy(), LABELS)
    assert images.is_test.sum() == num_test
    assert [item.name for item in images.skipped] == ["extra"]


@pytest.mark.parametrize(
    ("dtype", "channels", "last"),
    [("uint8", 1, False), ("uint8", 3, True), ("float16", 3, False), ("float32", 3, True), (">f8", 1, True)],
)
def test_shapes_and_types_of_npz(tmp_path, dtype, channels, last):
    pixels = RANDOM.integers(0, 256, (6, channels, 5, 4)).astype(dtype)
    labels = np.array([[7], [3], [7], [3], [7], [7]], dtype=">i8")
    np.savez(tmp_path / "a.npz", images=pixels.transpose(0, 2, 3, 1) if last else pixels, labels=labels)
    images = read_npz(tmp_path / "a.npz")
    np.testing.assert_array_equal(images.images.numpy(), pixels)
    assert images.images.dtype == (torch.uint8 if dtype == "uint8" else torch.float32)
    assert images.classes == ("3", "7")
    assert images.labels.tolist() == [1, 0, 1, 0, 1, 1]


def test_npz_files_that_cannot_be_read_are_refused(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, pictures=PIXELS, labels=LABELS)
    with pytest.raises(DataError, match=r"the keys pictures, labels; expected x_train, y_train.*; or images, labels"):
        read_npz(path)
    np.savez(path, images=np.array([{}, 1], dtype=object), labels=LABELS)
    with pytest.raises(DataError, match="without Python objects"):
        read_npz(path)
    np.savez(path, images=PIXELS, labels=np.array(["cat"] * 12))
    with pytest.raises(DataError, match=r"a\.npz: labels has the type <U3; expected numbers"):
        read_npz(path)
    np.savez(path, images=PIXELS, labels=LABELS)
    whole = path.read_bytes()
    np.save(tmp_path / "b.npy", PIXELS)
    for data in (
        whole[:-10],
        whole[:100],
        whole[:200] + b"\0" + whole[201:],
        (tmp_path / "b.npy").read_bytes(),
        b"text",
    ):
        path.write_bytes(data)
        with pytest.raises(DataError, match=r"cannot be read as \.npz"):
            read_npz(path)


def test_without_numpy_the_message_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "numpy", None)
    with pytest.raises(DataError, match="pip install numpy"):
        read_npz(tmp_path / "a.npz")


def tensors(pixels=PIXELS, labels=LABELS):
    return torch.from_numpy(pixels), torch.from_numpy(labels)


@pytest.mark.parametrize(
    ("pixels", "labels", "message"),
    [
        (PIXELS.reshape(12, 20), LABELS, r"the shape \[12, 20\]; expected \(N, H, W\)"),
        (np.zeros((12, 4, 5, 4), np.uint8), LABELS, "with 1 or 3 channels"),
        (PIXELS[:0], LABELS[:0], "has no images"),
        (PIXELS.astype(np.int32), LABELS, "images of int32; expected uint8"),
        (np.where(PIXELS[4, 2, 2] == PIXELS, np.nan, PIXELS), LABELS, r"a value in image \d+ that is not finite"),
        (PIXELS, LABELS[:11], r"12 images but labels of the shape \[11\]"),
        (PIXELS, np.eye(12), r"labels of the shape \[12, 12\]"),
        (PIXELS, LABELS.astype(np.float32), "labels of a float type"),
        (PIXELS, LABELS.astype(np.int8) - 1, "label -1 at 0, out of range; expected 0 or more"),
        (PIXELS, LABELS * 0, "one class only, '0'"),
    ],
)
def test_arrays_that_are_no_labelled_images_are_refused(pixels, labels, message):
    with pytest.raises(DataError, match=message):
        from_arrays("it", *tensors(pixels, labels))


def test_labels_out_of_range_and_a_test_set_of_another_size_are_refused():
    with pytest.raises(DataError, match="label 2 at 2, out of range; expected 0 to 1, for the 2 class names"):
        from_arrays("it", *tensors(), class_names=["a", "b"])
    with pytest.raises(
        DataError, match=r"the test set of it has the label 9 at 1, .* one of 0, 1, 2, the labels of its"
    ):
        from_arrays("it", *tensors(), *tensors(PIXELS[:2], np.array([0, 9])))
    with pytest.raises(DataError, match=r"\[1, 5, 4\] uint8 and \[1, 5, 3\] uint8; expected one"):
        from_arrays("it", *tensors(), *tensors(PIXELS[:, :, 1:], LABELS))


def test_a_name_of_a_class_twice_is_refused():
    check_class_names(None)
    check_class_names(["a", "b"])
    with pytest.raises(DataError, match="class_names has 'a' twice"):
        check_class_names(["a", "b", "a"])

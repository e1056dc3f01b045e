"""Images out of files and folders, against Pillow, NumPy and scikit-learn."""

import gzip
import io
import sys
import types
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from image_files import CATS_AND_DOGS, IDX_CODES, PIXELS, encoded, idx, write, zipped
from muonlab.data.examples import Skipped
from muonlab.data.image_arrays import from_arrays, is_idx, read_idx, read_idx_array, read_npz
from muonlab.data.image_folders import decode, layout, read
from muonlab.data.image_set import Images, join, resize, squared, with_channels
from muonlab.data.images import digits, load, split, subset

GREY = np.random.default_rng(1).integers(0, 256, (30, 6, 6), dtype=np.uint8)
LABELS = np.arange(30, dtype=np.uint8) % 3


# ---- IDX and .npz


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_an_idx_array_is_read_as_it_was_written(tmp_path_factory, data):
    dtype = np.dtype(data.draw(st.sampled_from(sorted(IDX_CODES))))
    shape = data.draw(arrays.array_shapes(max_dims=4, max_side=5))
    array = data.draw(arrays.arrays(dtype, shape, elements={"allow_nan": False} if dtype.kind == "f" else None))
    path = tmp_path_factory.mktemp("idx") / "array"
    path.write_bytes(gzip.compress(idx(array), mtime=0) if data.draw(st.booleans()) else idx(array))
    found = read_idx_array(path).numpy()
    np.testing.assert_array_equal(found, array)
    assert found.dtype == dtype


def mnist(root, *, is_zipped, separator="-"):
    sides = {
        "train-images": GREY[:21],
        "train-labels": LABELS[:21],
        "t10k-images": GREY[21:],
        "t10k-labels": LABELS[21:],
    }
    for name, array in sides.items():
        data = gzip.compress(idx(array), mtime=0) if is_zipped else idx(array)
        (root / f"{name}{separator}idx{array.ndim}-ubyte{'.gz' if is_zipped else ''}").write_bytes(data)
    return root


@pytest.mark.parametrize(("is_zipped", "separator"), [(False, "."), (True, "-")])
def test_a_folder_of_mnist_has_both_sets(tmp_path, is_zipped, separator):
    images = read_idx(mnist(tmp_path, is_zipped=is_zipped, separator=separator))
    np.testing.assert_array_equal(images.images[:, 0].numpy(), GREY)
    np.testing.assert_array_equal(images.labels.numpy(), LABELS)
    assert images.is_test.tolist() == [False] * 21 + [True] * 9
    assert (images.classes, images.images.dtype) == (("0", "1", "2"), torch.uint8)


def test_one_idx_file_has_its_labels_in_the_same_folder_and_names_of_classes(tmp_path):
    mnist(tmp_path, is_zipped=True)
    images = read_idx(tmp_path / "t10k-images-idx3-ubyte.gz", class_names=["x", "y", "z", "none"])
    np.testing.assert_array_equal(images.images[:, 0].numpy(), GREY[21:])
    assert (images.classes, images.has_test) == (("x", "y", "z", "none"), False)
    assert len(read_idx(mnist(tmp_path, is_zipped=False)).labels) == 30  # unpacked into the same folder: read once
    names = [
        "train-images-idx3-ubyte.gz",
        "emnist-letters-test-images.idx3-ubyte",
        "train-labels-idx1-ubyte",
        "images.zip",
    ]
    assert list(map(is_idx, names)) == [True, True, False, False]


@pytest.mark.parametrize(
    "keys", ["x_train y_train x_test y_test", "train_images train_labels test_images test_labels", "images labels"]
)
def test_npz_of_every_naming_is_read(tmp_path, keys):
    keys = keys.split()
    values = (GREY[:21], LABELS[:21], GREY[21:], LABELS[21:]) if len(keys) == 4 else (GREY, LABELS)
    np.savez_compressed(tmp_path / "a.npz", **dict(zip(keys, values, strict=True)), extra=np.ones(2))
    images = read_npz(tmp_path / "a.npz")
    np.testing.assert_array_equal(images.images[:, 0].numpy(), GREY)
    np.testing.assert_array_equal(images.labels.numpy(), LABELS)
    assert images.is_test.sum() == (9 if len(keys) == 4 else 0)
    assert [item.name for item in images.skipped] == ["extra"]


@pytest.mark.parametrize(
    ("dtype", "channels", "last"),
    [("uint8", 1, False), ("uint8", 3, True), ("float16", 3, False), ("float32", 3, True), (">f8", 1, True)],
)
def test_shapes_and_types_of_npz(tmp_path, dtype, channels, last):
    pixels = np.random.default_rng(0).integers(0, 256, (6, channels, 5, 4)).astype(dtype)
    labels = np.array([[7], [3], [7], [3], [7], [7]], dtype=">i8")
    np.savez(tmp_path / "a.npz", images=pixels.transpose(0, 2, 3, 1) if last else pixels, labels=labels)
    images = read_npz(tmp_path / "a.npz")
    expected = pixels if dtype == "uint8" else pixels.astype(np.float32) / np.float32(255)
    np.testing.assert_array_equal(images.images.numpy(), expected)
    assert images.images.dtype == (torch.uint8 if dtype == "uint8" else torch.float32)
    assert (images.classes, images.labels.tolist()) == (("3", "7"), [1, 0, 1, 0, 1, 1])


# ---- class folders


@pytest.mark.parametrize(("is_zipped", "around"), [(False, ""), (True, "pictures/"), (True, "a/b/")])
def test_images_of_class_folders_are_those_of_pillow_in_the_order_of_their_names(tmp_path, is_zipped, around):
    names = ("cat/1.jpg", "cat/2.png", "dog/b.png", "dog/deep/a.PNG")
    root = write(tmp_path / "root", [f"{around}{name}" for name in reversed(names)])
    images = read(zipped(root) if is_zipped else root)
    expected = [np.asarray(Image.open(root / around / name)) for name in names]
    np.testing.assert_array_equal(images.images.numpy(), np.stack(expected).transpose(0, 3, 1, 2))
    assert images.images.dtype == torch.uint8
    assert (images.labels.tolist(), images.classes) == ([0, 0, 1, 1], ("cat", "dog"))
    assert (images.has_test, images.skipped) == (False, ())


@pytest.mark.parametrize(("is_zipped", "test"), [(False, "test"), (True, "val"), (True, "validation")])
def test_a_test_folder_is_the_test_set(tmp_path, is_zipped, test):
    root = write(tmp_path / "root", ["train/cat/1.png", "train/dog/1.png", "train/dog/2.png", f"{test}/dog/1.png"])
    images = read(zipped(root) if is_zipped else root)
    assert images.labels.tolist() == [0, 1, 1, 1]
    assert images.is_test.tolist() == [False, False, False, True]
    np.testing.assert_array_equal(images.images[3].permute(1, 2, 0).numpy(), PIXELS[3])


def test_what_is_not_read_is_named_and_hidden_files_are_passed_over(tmp_path):
    names = ["train/a/1.png", "train/b/1.png", "test/a/1.png", "val/a/1.png", "cover.png", "train/loose.png"]
    entries, skipped = layout(names, "root")
    assert entries == [("train/a/1.png", "a", False), ("train/b/1.png", "b", False), ("test/a/1.png", "a", True)]
    assert set(skipped) == {
        ("val/a/1.png", "stands beside train/ and is not read"),
        ("cover.png", "stands beside train/ and is not read"),
        ("train/loose.png", "stands in no class folder"),
    }
    entries, skipped = layout(["root\\cat\\1.png", "root\\dog\\1.png"], "root")
    assert ([entry.label for entry in entries], skipped) == (["cat", "dog"], [])
    root = write(tmp_path / "root", ["cat/1.png", "dog/1.png", "loose.png", ".trash/x/1.png", "__MACOSX/cat/1.png"])
    (root / "cat" / "notes.txt").write_text("no image")
    (root / "emu").mkdir()
    assert set(read(root).skipped) == {
        ("cat/notes.txt", "not a .jpg, .jpeg, .png file"),
        ("loose.png", "stands in no class folder"),
        ("emu/", "a folder without images"),
    }


@pytest.mark.parametrize("is_zipped", [False, True])
def test_broken_images_among_many_are_skipped_and_named(tmp_path, is_zipped):
    root = write(tmp_path / "root", [f"{name}/{number}.png" for name in ("cat", "dog") for number in range(5)])
    whole = (root / "dog" / "1.png").read_bytes()
    (root / "cat" / "torn.jpg").write_bytes(encoded(PIXELS[0], "JPEG")[:-200])
    (root / "cat" / "torn.png").write_bytes(whole[: len(whole) // 2])
    (root / "dog" / "text.png").write_text("no image at all")
    (root / "dog" / "empty.png").write_bytes(b"")
    (root / "dog" / "bitmap.png").write_bytes(encoded(PIXELS[0], "PPM"))
    images = read(zipped(root) if is_zipped else root)
    assert len(images.labels) == 10
    names = ["cat/torn.jpg", "cat/torn.png", "dog/bitmap.png", "dog/empty.png", "dog/text.png"]
    assert [item.name for item in images.skipped] == names
    assert "0x" not in "".join(item.reason for item in images.skipped)  # no address of memory: every run says the same


@pytest.mark.parametrize("kind", ["BMP", "GIF", "TIFF", "WEBP"])
def test_other_kinds_of_files_are_read_as_pillow_reads_them(tmp_path, kind):
    root = write(tmp_path / "root", CATS_AND_DOGS)
    for name in ("cat/1.png", "dog/1.png"):
        (root / name).unlink()
        (root / name).with_suffix(f".{kind.lower()}").write_bytes(encoded(PIXELS[0], kind))
    with Image.open(root / f"cat/1.{kind.lower()}") as image:
        expected = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(read(root).images[0].permute(1, 2, 0).numpy(), expected)


# Bug: CMYK, palettes, transparency and 16 bits were taken, and nothing said that their values were right.
@pytest.mark.parametrize(
    ("mode", "kind"), [("CMYK", "JPEG"), ("P", "PNG"), ("RGBA", "PNG"), ("LA", "PNG"), ("1", "PNG")]
)
def test_the_pixels_of_every_mode_are_those_of_pillows_own_conversion(mode, kind):
    file = encoded(Image.fromarray(PIXELS[0]).convert(mode), kind)
    with Image.open(io.BytesIO(file)) as image:
        grey = image.mode in ("1", "LA", "L")
        expected = np.asarray(image.convert("L" if grey else "RGB"))
    found = decode(file, Image)
    np.testing.assert_array_equal(found[0].numpy() if grey else found.permute(1, 2, 0).numpy(), expected)


def test_of_sixteen_bits_the_upper_eight_are_kept():
    deep = (np.arange(20, dtype=np.uint16).reshape(4, 5) * 3000).astype(np.uint16)
    for kind in ("PNG", "TIFF"):
        found = decode(encoded(Image.fromarray(deep), kind), Image)
        np.testing.assert_array_equal(found[0].numpy(), deep >> 8)


# Bug: photos that are not square were squeezed to squares, and those of several sizes refused.
def test_one_size_resizes_the_shorter_side_and_keeps_the_middle(tmp_path):
    root = write(tmp_path / "root", CATS_AND_DOGS)  # 5 high, 4 wide
    images = read(root, size=8)
    with Image.open(root / "cat" / "1.png") as image:
        expected = np.asarray(image.resize((8, 10), Image.Resampling.BILINEAR))[1:9]
    np.testing.assert_array_equal(images.images[0].permute(1, 2, 0).numpy(), expected)
    assert "3 x 8 x 8 (the shorter side resized to 8, the middle kept)" in str(images)
    (root / "dog" / "3.png").write_bytes(encoded(np.zeros((3, 7, 3), np.uint8)))
    images = read(root)
    assert images.images.shape == (5, 3, 3, 3)
    assert images.fitted == "the shorter side resized to 3, the middle kept"
    assert squared(read(root, size=(4, 6))).images.shape[2:] == (4, 4)


@pytest.mark.parametrize(
    ("pixels", "expected"),
    [
        (GREY.astype(np.int64), GREY),
        (GREY > 99, (GREY > 99) * np.uint8(255)),
        (GREY.astype(np.uint16) * 257, GREY.astype(np.float32) / np.float32(255)),
        (GREY.astype(np.float64), GREY.astype(np.float32) / np.float32(255)),
        (GREY / 255 - 0.5, (GREY / 255 - 0.5).astype(np.float32)),  # already standardised
    ],
)
def test_numbers_of_any_type_are_levels_by_one_rule(tmp_path, pixels, expected):
    np.savez(tmp_path / "a.npz", images=pixels, labels=LABELS)
    found = read_npz(tmp_path / "a.npz").images
    assert found.numpy().dtype == expected.dtype
    np.testing.assert_allclose(found[:, 0].numpy(), expected, rtol=1e-6)


@pytest.mark.parametrize("labels", [np.array(["ant", "bee", "cow"])[LABELS], np.eye(3)[LABELS], LABELS.astype(float)])
def test_labels_are_names_one_hot_or_numbers(tmp_path, labels):
    clear = np.stack([GREY, *[GREY] * 3], axis=-1)  # with transparency
    np.savez(tmp_path / "a.npz", x=clear, y=labels)
    images = read_npz(tmp_path / "a.npz")
    assert images.labels.tolist() == LABELS.tolist()
    assert images.classes == (("ant", "bee", "cow") if labels.dtype.kind == "U" else ("0", "1", "2"))
    assert images.images.shape[1] == 3


def test_grey_and_colours_are_converted_as_pillow_converts_them():
    images = from_arrays("it", torch.from_numpy(PIXELS), torch.arange(60) % 2)
    grey = with_channels(images, 1)
    expected = np.stack([np.asarray(Image.fromarray(each).convert("L")) for each in PIXELS])
    np.testing.assert_array_equal(grey.images[:, 0].numpy(), expected)
    assert with_channels(grey, 3).images.unique(dim=1).shape[1] == 1
    assert with_channels(images, None) is images


def test_a_member_of_a_zip_whose_checksum_is_wrong_is_skipped(tmp_path):
    path = tmp_path / "images.zip"
    with zipfile.ZipFile(path, "w") as archive:  # stored: the bytes of the images stand in it as they are
        for number, name in enumerate(["cat/1.png", "cat/2.png", "dog/1.png", "dog/2.png"]):
            archive.writestr(name, encoded(PIXELS[number]))
    data, victim = path.read_bytes(), encoded(PIXELS[1])
    assert data.count(victim) == 1
    path.write_bytes(data.replace(victim, victim[:-1] + b"\0"))
    images = read(path)
    assert images.labels.tolist() == [0, 1, 1]
    assert [(item.name, "CRC" in item.reason) for item in images.skipped] == [("cat/2.png", True)]


def test_every_kind_of_pixel_is_read_without_a_warning():
    picture = Image.fromarray(PIXELS[0])
    for mode, channels in [("1", 1), ("L", 1), ("LA", 1), ("P", 3), ("RGB", 3), ("RGBA", 3)]:
        image = picture.convert(mode)
        expected = np.asarray(image.convert("L" if channels == 1 else "RGB"))
        found = decode(encoded(image), Image)
        np.testing.assert_array_equal(found.numpy(), expected.reshape(5, 4, channels).transpose(2, 0, 1))
    levels = np.arange(20, dtype=np.uint16).reshape(5, 4) * 3000
    np.testing.assert_array_equal(decode(encoded(levels), Image)[0].numpy(), (levels >> 8).astype(np.uint8))
    palette = picture.convert("P")
    found = decode(encoded(palette, transparency=bytes(range(256))), Image)
    np.testing.assert_array_equal(found.permute(1, 2, 0).numpy(), palette.convert("RGB"))
    assert decode(encoded(picture.convert("CMYK"), "JPEG"), Image).shape == (3, 5, 4)


def test_grey_images_stay_grey_and_become_rgb_among_coloured_ones(tmp_path):
    grey = write(tmp_path / "grey", ["cat/1.png", "dog/1.png"], PIXELS[:, :, :, 0])
    assert read(grey).images.shape == (2, 1, 5, 4)
    (grey / "dog" / "2.png").write_bytes(encoded(PIXELS[5]))
    images = read(grey).images
    assert images.shape == (3, 3, 5, 4)
    np.testing.assert_array_equal(images[0].numpy(), np.stack([PIXELS[0, :, :, 0]] * 3))


def test_a_size_stretches_every_image_as_pillow_does(tmp_path):
    root = write(tmp_path, ["cat/1.png", "cat/2.png", "dog/1.png"])
    (root / "dog" / "2.png").write_bytes(encoded(PIXELS[0][:3]))
    expected = [
        Image.fromarray(pixels).resize((7, 6), Image.Resampling.BILINEAR) for pixels in (*PIXELS[:3], PIXELS[0][:3])
    ]
    np.testing.assert_array_equal(read(root, size=(6, 7)).images.permute(0, 2, 3, 1).numpy(), np.stack(expected))
    assert read(root, size=6).images.shape == (4, 3, 6, 6)


def test_only_the_classes_and_numbers_asked_for_are_opened(tmp_path):
    root = write(tmp_path, [f"{name}/{number}.png" for name in ("ant", "bee", "cat") for number in range(8)])
    for name in ("ant", "cat"):
        for number in range(3):
            (root / name / f"{number}.png").write_bytes(b"torn")
    images = read(root, classes=["cat", "bee"], per_class=4, seed=1)
    assert images.classes == ("ant", "bee", "cat")
    assert images.labels.tolist() == [1] * 4 + [2] * 4
    assert all(item.name.startswith("cat/") for item in images.skipped)
    numbers = {PIXELS[number].transpose(2, 0, 1).tobytes(): number for number in range(8, 16)}
    bees = [numbers[images.images[row].numpy().tobytes()] for row in range(4)]
    assert bees == sorted(set(bees))  # in the order of their names
    assert torch.equal(images.images, read(root, classes=["cat", "bee"], per_class=4, seed=1).images)
    others = [read(root, classes=["bee", "cat"], per_class=4, seed=seed).images for seed in range(2, 6)]
    assert any(not torch.equal(images.images, other) for other in others)


# ---- any source


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """The same 30 images four times; and the path of each."""
    root = tmp_path_factory.mktemp("sources")
    write(root / "folder", [f"{label}/{number:02}.png" for number, label in enumerate(LABELS)], GREY)
    (root / "idx").mkdir()
    (root / "idx" / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(GREY)))
    (root / "idx" / "train-labels-idx1-ubyte").write_bytes(idx(LABELS))
    np.savez(root / "a.npz", images=GREY, labels=LABELS)
    file = str(root / "idx" / "train-images-idx3-ubyte.gz")
    return {"folder": root / "folder", "idx": root / "idx", "file": file, "npz": root / "a.npz"}


@pytest.mark.parametrize("kind", ["folder", "idx", "file", "npz"])
def test_every_kind_of_source_gives_the_same_images_and_takes_the_same_choices(sources, kind):
    images = load(sources[kind])
    rows = np.argsort(LABELS, kind="stable") if kind == "folder" else np.arange(30)
    np.testing.assert_array_equal(images.images[:, 0].numpy(), GREY[rows])
    np.testing.assert_array_equal(images.labels.numpy(), LABELS[rows])
    assert (images.classes, images.source) == (("0", "1", "2"), str(sources[kind]))
    assert load(sources[kind], size=(4, 9)).images.shape == (30, 1, 4, 9)
    some = load(sources[kind], classes=[2, 0], per_class=4, seed=3)
    assert (some.labels.bincount().tolist(), some.classes) == ([4, 4], ("2", "0"))
    known = {(pixels.tobytes(), str(label)) for pixels, label in zip(GREY, LABELS, strict=True)}
    pairs = zip(some.images, some.labels, strict=True)
    found = {(pixels.numpy().tobytes(), some.classes[label]) for pixels, label in pairs}
    assert found < known
    assert len(found) == 8
    other = "folder" if kind == "npz" else "npz"
    both = load(sources[other], test=sources[kind], per_class=3, test_per_class=2)
    assert both.is_test.tolist() == [False] * 9 + [True] * 6
    assert both.labels.bincount().tolist() == [5, 5, 5]
    assert len(split(both).test) == 6
    assert load(sources["npz"], class_names=["x", "y", "z"], classes=["z", "x"]).classes == ("z", "x")


def test_digits_are_those_of_scikit_learn(monkeypatch):
    datasets = pytest.importorskip("sklearn.datasets")
    images, bunch = load(), datasets.load_digits()
    np.testing.assert_array_equal(np.round(images.images[:, 0].double().numpy() * 16 / 255), bunch.images)
    np.testing.assert_array_equal(images.labels.numpy(), bunch.target)
    halves = [subset(images, classes=classes) for classes in (range(5), range(5, 10))]
    assert [half.labels.unique().tolist() for half in halves] == [[0, 1, 2, 3, 4]] * 2
    assert sum(len(half.labels) for half in halves) == 1797
    levels = np.arange(128, dtype=np.float64).reshape(2, 64) % 17  # the levels span those of a byte
    module = types.SimpleNamespace(load_digits=lambda return_X_y: (levels, np.array([4, 9])))
    monkeypatch.setitem(sys.modules, "sklearn.datasets", module)
    np.testing.assert_array_equal(digits().images.numpy(), np.rint(levels / 16 * 255).reshape(2, 1, 8, 8))


# ---- sets


def images_of(labels, classes=("ant", "bee"), shape=(1, 4, 4), num_test=0, source="set", skipped=(), seed=0):
    pixels = torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (len(labels), *shape), dtype=np.uint8))
    is_test, labels = torch.arange(len(labels)) >= len(labels) - num_test, torch.tensor(labels)
    return Images(images=pixels, labels=labels, classes=classes, is_test=is_test, source=source, skipped=skipped)


def test_the_summary_counts_and_names_what_was_skipped():
    skipped = tuple(Skipped(f"{number}.jpg", "torn") for number in range(7))
    text = str(images_of([0, 1, 0], num_test=1, skipped=skipped))
    assert "set: 3 images (1 of them its test set) of 1 x 4 x 4, 2 classes, 7 files skipped" in text
    assert "  4.jpg: torn\n  and 2 more" in text
    assert "5.jpg" not in text
    assert images_of([0, 1, 1, 1]).chance == 0.75


def test_subsets_and_joined_sets_keep_pixels_with_their_class():
    whole = images_of([0, 1, 2, 0, 1, 2], classes=("0", "1", "2"))
    part = subset(whole, classes=[2, 0])
    assert torch.equal(part.images, whole.images[[0, 2, 3, 5]])
    assert (part.labels.tolist(), part.classes) == ([1, 0, 1, 0], ("2", "0"))
    train = images_of([0, 1, 2], classes=("ant", "bee", "cat"), skipped=(Skipped("a", "torn"),))
    test = images_of([0, 1], classes=("cat", "ant"), source="other", skipped=(Skipped("b", "torn"),), seed=1)
    both = join(train, test)
    assert [both.classes[label] for label in both.labels] == ["ant", "bee", "cat", "cat", "ant"]
    assert both.is_test.tolist() == [False, False, False, True, True]
    assert torch.equal(both.images, torch.cat([train.images, test.images]))
    assert [item.name for item in both.skipped] == ["a", "b"]
    grey, colour = images_of([0, 1]), images_of([0, 1], shape=(3, 4, 4))
    assert torch.equal(join(grey, colour).images[:2], grey.images.repeat(1, 3, 1, 1))


@pytest.mark.parametrize(("shape", "size"), [((1, 8, 8), (16, 16)), ((3, 6, 10), (3, 5)), ((3, 6, 10), (9, 4))])
def test_resizing_is_that_of_pillow_within_one_level(shape, size):
    whole = images_of([0, 1, 1], shape=shape)
    for image, found in zip(whole.images, resize(whole, size).images, strict=True):
        bands = [Image.fromarray(band.numpy()).resize(size[::-1], Image.Resampling.BILINEAR) for band in image]
        assert np.abs(np.stack(bands).astype(int) - found.numpy().astype(int)).max() <= 1
    assert resize(whole, 7).images.shape[2:] == (7, 7)
    assert resize(whole, shape[1:]) is whole

import shutil
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from image_files import encoded
from muonlab.data.image_folders import decode, layout, read
from muonlab.data.sources import DataError

PIXELS = np.random.default_rng(0).integers(0, 256, (60, 5, 4, 3), dtype=np.uint8)


def folder_of(root, names, pixels=PIXELS):
    for name, image in zip(names, pixels, strict=False):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(encoded(image, "JPEG" if name.endswith("jpg") else "PNG"))
    return root


def zip_of(root):
    return shutil.make_archive(str(root), "zip", root)


@pytest.mark.parametrize(("zipped", "around"), [(False, ""), (True, "pictures/"), (True, "a/b/")])
def test_images_of_class_folders_are_those_of_pillow_in_the_order_of_their_names(tmp_path, zipped, around):
    names = [f"{around}{name}" for name in ("dog/b.png", "cat/2.png", "cat/1.jpg", "dog/deep/a.PNG")]
    root = folder_of(tmp_path / "root", names)
    images = read(zip_of(root) if zipped else root)
    expected = [np.asarray(Image.open(root / around / name)) for name in ("cat/1.jpg", "cat/2.png", "dog/b.png")]
    expected.append(np.asarray(Image.open(root / around / "dog/deep/a.PNG")))
    np.testing.assert_array_equal(images.images.numpy(), np.stack(expected).transpose(0, 3, 1, 2))
    assert images.images.dtype == torch.uint8
    assert images.labels.tolist() == [0, 0, 1, 1]
    assert images.classes == ("cat", "dog")
    assert not images.is_test.any()
    assert images.skipped == ()


@pytest.mark.parametrize(("zipped", "test"), [(False, "test"), (True, "val"), (True, "validation")])
def test_a_test_folder_is_the_test_set(tmp_path, zipped, test):
    names = ["train/cat/1.png", "train/dog/1.png", "train/dog/2.png", f"{test}/dog/1.png"]
    root = folder_of(tmp_path / "root", names)
    images = read(zip_of(root) if zipped else root)
    assert images.labels.tolist() == [0, 1, 1, 1]
    assert images.is_test.tolist() == [False, False, False, True]
    np.testing.assert_array_equal(images.images[3].permute(1, 2, 0).numpy(), PIXELS[3])


def test_what_stands_beside_train_and_test_is_named():
    names = ["train/a/1.png", "train/b/1.png", "test/a/1.png", "val/a/1.png", "cover.png", "train/loose.png"]
    entries, skipped = layout(names, "root")
    assert [(entry.name, entry.label, entry.is_test) for entry in entries] == [
        ("train/a/1.png", "a", False),
        ("train/b/1.png", "b", False),
        ("test/a/1.png", "a", True),
    ]
    assert {item.name: item.reason for item in skipped} == {
        "val/a/1.png": "stands beside train/ and is not read",
        "cover.png": "stands beside train/ and is not read",
        "train/loose.png": "stands in no class folder",
    }
    entries, skipped = layout(["root\\cat\\1.png", "root\\dog\\1.png"], "root")
    assert ([entry.label for entry in entries], skipped) == (["cat", "dog"], [])


def test_other_files_and_empty_class_folders_are_named_and_hidden_ones_passed_over(tmp_path):
    root = folder_of(tmp_path / "root", ["cat/1.png", "dog/1.png", "loose.png", ".trash/x/1.png", "__MACOSX/cat/1.png"])
    (root / "cat" / "notes.txt").write_text("no image")
    (root / "emu").mkdir()
    images = read(root)
    assert {(item.name, item.reason) for item in images.skipped} == {
        ("cat/notes.txt", "not a .jpg, .jpeg, .png file"),
        ("loose.png", "stands in no class folder"),
        ("emu/", "a folder without images"),
    }
    assert images.classes == ("cat", "dog")


@pytest.mark.parametrize("zipped", [False, True])
def test_broken_images_among_many_are_skipped_and_named(tmp_path, zipped):
    root = folder_of(tmp_path / "root", [f"{name}/{number}.png" for name in ("cat", "dog") for number in range(5)])
    whole = (root / "dog" / "1.png").read_bytes()
    (root / "cat" / "torn.jpg").write_bytes(encoded(PIXELS[0], "JPEG")[:-200])
    (root / "cat" / "torn.png").write_bytes(whole[: len(whole) // 2])
    (root / "dog" / "text.png").write_text("no image at all")
    (root / "dog" / "empty.png").write_bytes(b"")
    (root / "dog" / "bitmap.png").write_bytes(encoded(PIXELS[0], "BMP"))
    images = read(zip_of(root) if zipped else root)
    assert len(images.labels) == 10
    names = ["cat/torn.jpg", "cat/torn.png", "dog/bitmap.png", "dog/empty.png", "dog/text.png"]
    assert [item.name for item in images.skipped] == names
    assert "0x" not in "".join(item.reason for item in images.skipped)  # no address of memory: every run says the same


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


def test_grey_images_stay_grey_and_become_rgb_beside_colour(tmp_path):
    grey = folder_of(tmp_path / "grey", ["cat/1.png", "dog/1.png"], PIXELS[:, :, :, 0])
    assert read(grey).images.shape == (2, 1, 5, 4)
    (grey / "dog" / "2.png").write_bytes(encoded(PIXELS[5]))
    images = read(grey).images
    assert images.shape == (3, 3, 5, 4)
    np.testing.assert_array_equal(images[0].numpy(), np.stack([PIXELS[0, :, :, 0]] * 3))


def test_mixed_sizes_are_refused_by_two_names_and_size_resizes(tmp_path):
    root = folder_of(tmp_path, ["cat/1.png", "cat/2.png", "dog/1.png"])
    (root / "dog" / "2.png").write_bytes(encoded(PIXELS[0][:3]))
    with pytest.raises(DataError, match=r"cat/1\.png has 5 x 4 pixels, dog/2\.png has 3 x 4 .*give size="):
        read(root)
    images = read(root, size=(6, 7))
    expected = [
        Image.fromarray(pixels).resize((7, 6), Image.Resampling.BILINEAR) for pixels in (*PIXELS[:3], PIXELS[0][:3])
    ]
    np.testing.assert_array_equal(images.images.permute(0, 2, 3, 1).numpy(), np.stack(expected))
    assert read(root, size=6).images.shape == (4, 3, 6, 6)


def test_only_the_classes_and_numbers_asked_for_are_opened(tmp_path):
    root = folder_of(tmp_path, [f"{name}/{number}.png" for name in ("ant", "bee", "cat") for number in range(8)])
    for number in range(3):
        (root / "ant" / f"{number}.png").write_bytes(b"torn")
        (root / "cat" / f"{number}.png").write_bytes(b"torn")
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


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "holds no image; expected class folders"),
        (["1.png", "2.png"], "2 images but no class folders; expected one folder per class"),
        (["cat/1.png", "cat/2.png"], "one class only, 'cat'"),
        (["test/cat/1.png", "val/cat/1.png"], "has test and val/ but no train/"),
        (
            ["train/cat/1.png", "train/dog/1.png", "test/cot/1.png"],
            r"unknown class 'cot'; did you mean 'cat'\? it has test/",
        ),
    ],
)
def test_folders_that_are_no_classification_set_are_refused(tmp_path, names, message):
    with pytest.raises(DataError, match=message):
        read(folder_of(tmp_path, names))


def test_a_folder_of_other_files_is_refused_by_the_first_of_them(tmp_path):
    (tmp_path / "train.zip").write_bytes(b"")
    with pytest.raises(DataError, match=r"1 files, the first of them train\.zip, but no image.*by its own path"):
        read(tmp_path)


def test_a_class_of_which_nothing_can_be_read_is_refused_with_the_reason(tmp_path):
    root = folder_of(tmp_path, ["cat/1.png", "dog/1.png"])
    (root / "dog" / "1.png").write_text("no image")
    (root / "dog" / "2.png").write_bytes(b"")
    with pytest.raises(
        DataError, match=r"no image of class 'dog' .* 2 files the first is dog/1\.png: no JPEG or PNG image"
    ):
        read(root)


def test_a_torn_zip_is_refused(tmp_path):
    path = Path(zip_of(folder_of(tmp_path / "root", ["cat/1.png", "dog/1.png"])))
    for keep in (0, 10, 300, -30):
        (tmp_path / "torn.zip").write_bytes(path.read_bytes()[:keep])
        with pytest.raises(DataError, match=r"torn\.zip is no zip that can be read"):
            read(tmp_path / "torn.zip")


def test_without_pillow_the_message_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(DataError, match="pip install pillow"):
        read(tmp_path)


def test_a_limit_below_one_is_refused(tmp_path):
    for limit in ({"per_class": 0}, {"test_per_class": -1}):
        with pytest.raises(DataError, match="is too small; expected at least 1"):
            read(folder_of(tmp_path, ["cat/1.png", "dog/1.png"]), **limit)

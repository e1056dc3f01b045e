import re

import numpy as np
import pytest
import torch
from PIL import Image

from muonlab.data import images
from muonlab.data.sources import DataError
from muonlab.measure.corrupt_images import CORRUPTIONS
from muonlab.studies.features.config import ViTConfig
from muonlab.studies.features.work.images import ImageMaterial

PARTS = ("train", "validation", "test")


@pytest.fixture
def make(make_family):
    """A function that makes the material of some images."""
    return lambda net=None, **data: ImageMaterial(make_family(net=net, data=data))


@pytest.fixture
def own_test(tmp_path):
    """A .npz for training and one for testing: 4 classes of 20 and 6 images of 8 x 8, no two of them alike."""
    rng = np.random.default_rng(0)
    for name, number in (("train", 20), ("test", 6)):
        pixels = rng.integers(0, 256, (4 * number, 8, 8), dtype=np.uint8)
        np.savez(tmp_path / f"{name}.npz", images=pixels, labels=np.arange(4 * number) % 4)
    return {"source": str(tmp_path / "train.npz"), "test": str(tmp_path / "test.npz")}


def rows_of(examples):
    return {row.numpy().tobytes() for row in examples.inputs}


def pixels_of(material, examples):
    """Return the pixels, 0 to 255, of standardised inputs."""
    train = images.subset(images.digits(), classes=range(5))
    rows = images.split(train, validation=0.15, test=0.25, seed=0).train
    scale = train.images[rows].float() / 255
    return ((examples.inputs * scale.std() + scale.mean()) * 255).round().abs()


@pytest.mark.parametrize("of", ["pretraining", "transfer"])
def test_three_parts_share_no_image_and_are_all_of_them_together(digits, of):
    task = digits.pretraining() if of == "pretraining" else digits.transfer("classes")
    classes = range(5) if of == "pretraining" else range(5, 10)
    expected = images.subset(images.digits(), classes=classes)
    parts = [getattr(task, part) for part in PARTS]
    assert sum(len(part.labels) for part in parts) == len(expected.labels)
    # Digits are all different, so that an image that stood in two parts would be missing here.
    assert len(set().union(*map(rows_of, parts))) == len({image.numpy().tobytes() for image in expected.images})
    for part, share in zip(parts, (0.6, 0.15, 0.25), strict=True):
        counts = part.labels.bincount()
        assert len(counts) == 5
        assert counts.float().div(expected.labels.bincount()).sub(share).abs().max() < 0.02


def test_a_part_is_in_random_order(make, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (400, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "a.npz", images=pixels, labels=np.arange(400) // 100)  # one class after the other
    task = make(source=str(tmp_path / "a.npz")).pretraining()
    for part in PARTS:
        assert getattr(task, part).first(15).labels.bincount(minlength=2).min() > 2


def test_images_are_pretrained_on_and_transferred_to_under_their_own_labels(digits):
    whole = images.digits()
    pairs = zip(whole.images, whole.labels.tolist(), strict=True)
    known = {image.float().numpy().tobytes(): label for image, label in pairs}
    for task, first in ((digits.pretraining(), 0), (digits.transfer("classes"), 5)):
        for part in PARTS:
            examples = getattr(task, part)
            found = [known[row.numpy().tobytes()] for row in pixels_of(digits, examples)]
            assert found == [label + first for label in examples.labels.tolist()]


def test_the_split_is_the_same_for_every_call_and_every_net(make, digits):
    other = make(net={"width": 16})
    for task in ("pretraining", "transfer"):
        args = () if task == "pretraining" else ("classes",)
        first, second, third = (getattr(each, task)(*args) for each in (digits, digits, other))
        for part in PARTS:
            for again in (second, third):
                assert getattr(again, part).inputs.equal(getattr(first, part).inputs)
                assert getattr(again, part).labels.equal(getattr(first, part).labels)


def test_images_are_standardised_by_the_training_part_of_pretraining_alone(digits):
    train = digits.pretraining().train.inputs
    assert train.mean().item() == pytest.approx(0, abs=1e-5)
    assert train.std().item() == pytest.approx(1, abs=1e-5)
    for other in (digits.pretraining().test, digits.transfer("classes").train):
        assert abs(other.inputs.mean().item()) > 1e-4
        pixels = pixels_of(digits, other)  # by the same scale the levels are those of the digits again
        assert set(pixels.unique().tolist()) <= set(images.digits().images.unique().tolist())


def test_colours_are_standardised_each_on_its_own(make, tmp_path):
    pixels = np.random.default_rng(0).integers([0, 100, 200], [50, 150, 250], (80, 8, 8, 3)).astype(np.uint8)
    np.savez(tmp_path / "a.npz", images=pixels, labels=np.arange(80) % 4)
    train = make(source=str(tmp_path / "a.npz")).pretraining().train.inputs
    torch.testing.assert_close(train.mean((0, 2, 3)), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(train.std((0, 2, 3)), torch.ones(3), atol=1e-4, rtol=0)


def test_images_of_one_grey_are_no_division_by_zero(make, tmp_path):
    np.savez(tmp_path / "a.npz", images=np.full((80, 8, 8), 9, np.uint8), labels=np.arange(80) % 4)
    assert make(source=str(tmp_path / "a.npz")).pretraining().train.inputs.abs().max() < 1e-3


# -- which classes ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("choice", "own", "others"),
    [
        ({}, "0, 1, 2, 3, 4", "5, 6, 7, 8, 9"),
        ({"classes": ("7", "1")}, "7, 1", "0, 2, 3, 4, 5, 6, 8, 9"),
        ({"transfer_classes": ("2", "1", "0")}, "3, 4, 5, 6, 7, 8, 9", "2, 1, 0"),
        ({"classes": ("0", "9"), "transfer_classes": ("5", "3")}, "0, 9", "5, 3"),
    ],
)
def test_no_class_is_both_pretrained_on_and_transferred_to(make, choice, own, others):
    material = make(**choice)
    assert material.notes[1] == f"pretrained on {own}; transferred to {others}"
    assert rows_of(material.pretraining().train).isdisjoint(rows_of(material.transfer("classes").test))
    for task, names in ((material.pretraining(), own), (material.transfer("classes"), others)):
        assert len(task.train.labels.unique()) == len(names.split(", "))
        assert task.build().head.out_features == len(names.split(", "))


def test_classes_that_stand_on_both_sides_are_named(make):
    with pytest.raises(DataError, match="both have 3, 4; give a class to one of them"):
        make(classes=("4", "3", "2"), transfer_classes=("3", "4", "5"))


@pytest.mark.parametrize("choice", [{"classes": ("0", "11")}, {"transfer_classes": ("0", "11")}])
def test_an_unknown_class_is_named(make, choice):
    material = make(**choice)
    with pytest.raises(DataError, match="unknown class '11'"):
        (material.pretraining if "classes" in choice else lambda: material.transfer("classes"))()


@pytest.mark.parametrize("number", [2, 3])
def test_too_few_classes_for_two_halves_are_said(make, tmp_path, number):
    np.savez(tmp_path / "a.npz", images=np.zeros((60, 8, 8), np.uint8), labels=np.arange(60) % number)
    with pytest.raises(DataError, match=rf"a\.npz has {number} classes; expected 4 or more, as half of them"):
        make(source=str(tmp_path / "a.npz"))


# -- how many --------------------------------------------------------------------------------------


def test_with_a_test_set_of_its_own_limits_are_those_of_the_classes(make, own_test):
    material = make(**own_test, per_class=10, test_per_class=5, transfer_per_class=8, validation=0.25)
    task, other = material.pretraining(), material.transfer("classes")
    assert [getattr(task, part).labels.bincount().tolist() for part in PARTS] == [[8, 8], [2, 2], [5, 5]]
    assert [getattr(other, part).labels.bincount().tolist() for part in PARTS] == [[6, 6], [2, 2], [5, 5]]
    with np.load(own_test["test"]) as held:
        known = {image.astype(np.float32).tobytes() for image in held["images"]}
    with np.load(own_test["source"]) as held:
        outside = {image.astype(np.float32).tobytes() for image in held["images"]}
    mean, deviation = material._pretrained_on.scaling
    for part in PARTS:
        pixels = ((getattr(task, part).inputs * deviation + mean) * 255).round()
        assert {image.numpy().tobytes() for image in pixels} <= (known if part == "test" else outside)


def test_without_a_test_set_a_limit_is_one_of_the_images_to_train_on(make, digits):
    few, many = make(transfer_per_class=7).transfer("classes"), digits.transfer("classes")
    assert few.train.labels.bincount().tolist() == [7] * 5
    assert rows_of(few.train) < rows_of(many.train)
    for part in ("validation", "test"):
        assert getattr(few, part).inputs.equal(getattr(many, part).inputs)
    assert make(per_class=40).pretraining().train.labels.bincount().tolist() == [24] * 5


@pytest.mark.parametrize("limit", [{"per_class": 500}, {"transfer_per_class": 500}])
def test_more_than_there_are_is_an_error(make, own_test, limit):
    (name,) = limit
    for source in ({}, own_test):
        with pytest.raises(DataError, match=f"{'per_class' if source else name}=500, but .* ask for at most that many"):
            make(**source, **limit).transfer("classes")


# -- corrupted -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["gaussian_noise", "fog", "jpeg_compression"])
def test_severity_zero_is_the_clean_test_set_bit_for_bit(digits, name):
    clean = digits.pretraining().test
    for found in digits.corrupted(name, 0, 30):
        assert found.inputs.equal(clean.inputs[:30])
        assert found.labels.equal(clean.labels[:30])


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_corruption_is_the_same_again_and_for_any_number(digits, name):
    first, probed = digits.corrupted(name, 5, 6)
    again, _ = digits.corrupted(name, 5, 12)
    assert first.inputs.equal(again.inputs[:6])
    assert first.labels.equal(again.labels[:6])
    assert probed.inputs.equal(first.inputs)
    assert not first.inputs.equal(digits.pretraining().test.inputs[:6])


def test_each_image_has_noise_of_its_own(make, tmp_path):
    np.savez(tmp_path / "a.npz", images=np.full((80, 8, 8), 99, np.uint8), labels=np.arange(80) % 4)
    found, _ = make(source=str(tmp_path / "a.npz")).corrupted("gaussian_noise", 5, 8)
    assert len(found.inputs.flatten(1).unique(dim=0)) == 8


def test_the_sheet_has_a_row_for_each_corruption_and_a_column_for_each_severity(digits):
    sheet = digits.sheet()
    assert (sheet.rows, sheet.columns) == (CORRUPTIONS, ("0", "1", "2", "3", "4", "5"))
    assert sheet.picture is not None
    assert sheet.picture.shape == (1, 9 * 15 - 1, 9 * 6 - 1)


# -- the rest --------------------------------------------------------------------------------------


def test_probes_see_the_sets_of_pretraining_pooled_as_the_net_needs(digits, make_family):
    probing, task = digits.probing(), digits.pretraining()
    for part in PARTS:
        assert getattr(probing, part).inputs.equal(getattr(task, part).inputs)
    assert (probing.pool, probing.rank_pool, probing.padding) == ("mean_pixels", "mean_pixels", None)
    family = make_family()
    for pooling, expected in (("mean", "mean_tokens"), ("class", "cls")):
        net = ViTConfig(pooling=pooling, depth=1, width=12)  # type: ignore[arg-type]
        assert ImageMaterial(family.model_copy(update={"net": net})).probing().pool == expected


def test_chance_is_the_accuracy_of_the_commonest_class_of_the_test_set(digits):
    task = digits.pretraining()
    assert task.chance == max(task.test.labels.eq(label).double().mean().item() for label in range(5))


def folders(place, number=12, size=(8, 8), classes="abcd"):
    rng = np.random.default_rng(0)
    for label in classes:
        (place / label).mkdir(parents=True)
        for k in range(number):
            Image.fromarray(rng.integers(0, 256, size, dtype=np.uint8)).save(place / label / f"{k:02}.png")
    return place


def test_a_broken_image_is_skipped_and_named(make, tmp_path):
    folder = folders(tmp_path / "pictures")
    (folder / "c" / "03.png").write_bytes(b"no image")
    material = make(source=str(folder))
    assert "47 images" in material.notes[0]
    assert "1 files skipped" in material.notes[0]
    assert "c/03.png: no JPEG or PNG image" in material.notes[0]
    other = material.transfer("classes")
    assert sum(len(getattr(other, part).labels) for part in PARTS) == 23


def test_images_that_are_no_squares_need_a_size(make, tmp_path):
    folder = folders(tmp_path / "pictures", size=(8, 10))
    with pytest.raises(DataError, match=re.escape("images of 8 x 10; expected squares: give size=SIDE")):
        make(source=str(folder))
    assert make(source=str(folder), size=9).pretraining().train.inputs.shape[1:] == (1, 9, 9)


def test_one_class_only_and_a_missing_source_are_errors(make, tmp_path):
    folder = folders(tmp_path / "pictures", classes="a")
    with pytest.raises(DataError, match="one class only, 'a'"):
        make(source=str(folder))
    with pytest.raises(DataError, match=r"there is no file or folder .*did you mean .*pictures"):
        make(source=str(tmp_path / "picture"))

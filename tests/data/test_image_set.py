import numpy as np
import pytest
import torch
from PIL import Image

from muonlab.data.examples import Skipped
from muonlab.data.image_set import Images, join, resize, split, subset
from muonlab.data.sources import DataError


def images_of(labels, classes=("ant", "bee"), shape=(1, 4, 4), num_test=0, source="set", skipped=(), seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (len(labels), *shape), dtype=np.uint8)
    is_test = torch.arange(len(labels)) >= len(labels) - num_test
    return Images(torch.from_numpy(pixels), torch.tensor(labels), classes, is_test, source, skipped)


def test_chance_is_the_share_of_the_commonest_class():
    assert images_of([0, 1, 1, 1]).chance == 0.75


def test_the_summary_counts_and_names_what_was_skipped():
    skipped = tuple(Skipped(f"{number}.jpg", "torn") for number in range(7))
    text = str(images_of([0, 1, 0], num_test=1, skipped=skipped))
    assert "set: 3 images (1 of them its test set) of 1 x 4 x 4, 2 classes, 7 files skipped" in text
    assert "  4.jpg: torn\n  and 2 more" in text
    assert "5.jpg" not in text


def test_a_subset_keeps_pixels_with_their_label():
    whole = images_of([0, 1, 2, 0, 1, 2], classes=("0", "1", "2"), num_test=3)
    part = subset(whole, classes=[2, 0])
    assert torch.equal(part.images, whole.images[[0, 2, 3, 5]])
    assert part.labels.tolist() == [1, 0, 1, 0]
    assert part.is_test.tolist() == [False, False, True, True]
    assert part.classes == ("2", "0")
    assert len(subset(whole, per_class=1, test_per_class=1).labels) == 6


def test_validation_is_cut_from_train_where_there_is_a_test_set():
    parts = split(images_of([0, 1] * 20, num_test=10), validation=0.2)
    assert parts.test.tolist() == list(range(30, 40))
    assert len(parts.validation) == 6
    assert max(parts.validation.tolist() + parts.train.tolist()) == 29


def test_joined_sets_keep_their_classes_by_name():
    train = images_of([0, 1, 2], classes=("ant", "bee", "cat"), skipped=(Skipped("a", "torn"),))
    test = images_of([0, 1], classes=("cat", "ant"), source="other", skipped=(Skipped("b", "torn"),), seed=1)
    both = join(train, test)
    assert [both.classes[label] for label in both.labels] == ["ant", "bee", "cat", "cat", "ant"]
    assert both.is_test.tolist() == [False, False, False, True, True]
    assert torch.equal(both.images, torch.cat([train.images, test.images]))
    assert [item.name for item in both.skipped] == ["a", "b"]


def test_joining_grey_and_rgb_makes_rgb():
    grey, colour = images_of([0, 1]), images_of([0, 1], shape=(3, 4, 4))
    both = join(grey, colour)
    assert both.images.shape == (4, 3, 4, 4)
    assert torch.equal(both.images[:2], grey.images.repeat(1, 3, 1, 1))


@pytest.mark.parametrize(
    ("test", "message"),
    [
        (images_of([0, 1], num_test=1, source="other"), "other has a test set of its own"),
        (images_of([0, 1], classes=("ant", "bea")), r"unknown class 'bea'; did you mean 'bee'\?"),
        (images_of([0, 1], shape=(1, 5, 4), source="other"), "4 x 4 uint8, other of 5 x 4 uint8.*size="),
    ],
)
def test_sets_that_do_not_fit_are_refused(test, message):
    with pytest.raises(DataError, match=message):
        join(images_of([0, 1]), test)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 6, 10)])
@pytest.mark.parametrize("size", [(16, 16), (3, 5), (9, 4)])
def test_resizing_is_that_of_pillow_within_one_level(shape, size):
    whole = images_of([0, 1, 1], shape=shape)
    for image, found in zip(whole.images, resize(whole, size).images, strict=True):
        bands = [Image.fromarray(band.numpy()).resize(size[::-1], Image.Resampling.BILINEAR) for band in image]
        assert np.abs(np.stack(bands).astype(int) - found.numpy().astype(int)).max() <= 1


def test_one_number_is_a_square_and_a_side_below_one_is_refused():
    whole = images_of([0, 1])
    assert resize(whole, 6).images.shape == (2, 1, 6, 6)
    assert resize(whole, 4) is whole
    with pytest.raises(DataError, match="too small"):
        resize(whole, (4, 0))

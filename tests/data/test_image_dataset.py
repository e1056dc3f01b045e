import numpy as np
import pytest
import torch

from muonlab.data import images
from muonlab.data.dataset import SPLITS
from muonlab.data.image_dataset import ImageDataset
from muonlab.data.images import Images
from muonlab.data.sources import DataError
from muonlab.measure.corrupt_images import CORRUPTIONS

DIGITS = images.subset(images.digits(), classes=range(5))
SHARES = {"validation": 0.15, "test_share": 0.25}


def made(pixels, labels=None, is_test=None):
    """Return images of pixels (N, H, W, C) or (N, H, W)."""
    found = torch.as_tensor(pixels)
    found = found[:, None] if found.ndim == 3 else found.permute(0, 3, 1, 2)
    labels = torch.arange(len(found)) % 4 if labels is None else labels
    is_test = torch.zeros(len(found), dtype=torch.bool) if is_test is None else is_test
    return Images(found, labels, ("a", "b", "c", "d"), is_test, "made")


@pytest.fixture(scope="module")
def digits():
    return ImageDataset(DIGITS, **SHARES)


def rows_of(examples):
    return {row.numpy().tobytes() for row in examples.inputs}


def test_the_splits_share_no_image_and_are_all_of_them_together(digits):
    parts = [getattr(digits, split) for split in SPLITS]
    assert sum(len(part.labels) for part in parts) == len(DIGITS.labels)
    # Digits are all different, so that an image that stood in two parts would be missing here.
    assert len(set().union(*map(rows_of, parts))) == len({image.numpy().tobytes() for image in DIGITS.images})
    for part, share in zip(parts, (0.6, 0.15, 0.25), strict=True):
        assert part.labels.bincount().div(DIGITS.labels.bincount()).sub(share).abs().max() < 0.02
    assert digits.sizes == {"classes": 5, "channels": 1, "image_size": 8}


def test_a_split_is_in_random_order():
    pixels = np.random.default_rng(0).integers(0, 256, (400, 8, 8), dtype=np.uint8)
    data = ImageDataset(made(pixels, torch.arange(400) // 100), **SHARES)  # one class after the other
    for split in SPLITS:
        assert getattr(data, split).first(20).labels.bincount(minlength=4).min() > 0


def test_images_keep_their_labels_and_are_standardised_by_the_train_split(digits):
    known = {image.numpy().tobytes(): label for image, label in zip(DIGITS.images, DIGITS.labels.tolist(), strict=True)}
    rows = images.split(DIGITS, validation=0.15, test=0.25, seed=0).train
    scale = DIGITS.images[rows].float() / 255
    for split in SPLITS:
        examples = getattr(digits, split)
        pixels = ((examples.inputs * scale.std() + scale.mean()) * 255).round().byte()
        assert [known[row.numpy().tobytes()] for row in pixels] == examples.labels.tolist()


def test_colours_are_standardised_each_on_its_own_and_one_grey_is_no_division_by_zero():
    pixels = np.random.default_rng(0).integers([0, 100, 200], [50, 150, 250], (80, 8, 8, 3)).astype(np.uint8)
    train = ImageDataset(made(pixels), **SHARES).train.inputs
    torch.testing.assert_close(train.mean((0, 2, 3)), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(train.std((0, 2, 3)), torch.ones(3), atol=1e-4, rtol=0)
    grey = ImageDataset(made(np.full((80, 8, 8), 9, np.uint8)), **SHARES)
    assert grey.train.inputs.abs().max() < 1e-3


def test_a_scaling_that_is_given_is_used_or_that_of_another_data_set(digits):
    halves = torch.full((1, 1, 1, 1), 0.5), torch.full((1, 1, 1, 1), 0.25)
    own = ImageDataset(DIGITS, **SHARES, scaling=halves)
    mean, deviation = digits.scaling
    torch.testing.assert_close(own.test.inputs, (digits.test.inputs * deviation + mean - 0.5) / 0.25)
    assert ImageDataset(DIGITS, **SHARES, scaling=own).test.inputs.equal(own.test.inputs)


def test_a_limit_is_one_of_the_train_images_unless_there_is_a_test_set(digits):
    few = ImageDataset(DIGITS, **SHARES, limit=("per", 7))
    assert few.train.labels.bincount().tolist() == [7] * 5
    assert few.test.labels.equal(digits.test.labels)
    with pytest.raises(DataError, match=r"per=500, but .* leaves only \d+ images of some class to train on; ask for"):
        _ = ImageDataset(DIGITS, **SHARES, limit=("per", 500)).train
    pixels = np.random.default_rng(0).integers(0, 256, (80, 8, 8), dtype=np.uint8)
    tested = ImageDataset(made(pixels, is_test=torch.arange(80) >= 60), **SHARES, limit=("per", 1))
    assert tested.train.labels.bincount().min() > 1
    assert len(tested.test.labels) == 20


def test_images_that_are_not_square_are_refused():
    with pytest.raises(DataError, match="made has images of 8 x 10; expected squares: give size=SIDE"):
        ImageDataset(made(np.zeros((40, 8, 10), np.uint8)), **SHARES)


@pytest.mark.parametrize("name", ["gaussian_noise", "fog", "jpeg_compression"])
def test_severity_zero_is_the_clean_test_split_bit_for_bit(digits, name):
    found = digits.corrupted(name, 0, 30)
    assert found.inputs.equal(digits.test.inputs[:30])
    assert found.labels.equal(digits.test.labels[:30])


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_corruption_is_the_same_again_and_for_any_number(digits, name):
    first, more = digits.corrupted(name, 5, 6), digits.corrupted(name, 5, 12)
    assert first.inputs.equal(more.inputs[:6])
    assert first.labels.equal(more.labels[:6])
    assert not first.inputs.equal(digits.test.inputs[:6])


def test_each_image_has_noise_of_its_own():
    data = ImageDataset(made(np.full((80, 8, 8), 99, np.uint8)), **SHARES)
    assert len(data.corrupted("gaussian_noise", 5, 8).inputs.flatten(1).unique(dim=0)) == 8


def test_the_sheet_has_a_row_per_corruption_and_a_column_per_severity(digits):
    sheet = digits.sheet()
    assert (sheet.rows, sheet.columns) == (CORRUPTIONS, ("0", "1", "2", "3", "4", "5"))
    assert sheet.picture.shape == (1, 9 * 15 - 1, 9 * 6 - 1)

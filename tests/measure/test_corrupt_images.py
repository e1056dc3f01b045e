import doctest
from itertools import pairwise

import pytest
import torch

from muonlab.measure import corrupt_images
from muonlab.measure.corrupt_images import CORRUPTIONS, contact_sheet, corrupt, image_seeds

RANDOM = {
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
    "glass_blur",
    "motion_blur",
    "snow",
    "frost",
    "fog",
    "elastic_transform",
    "pixelate",
}


def distances(images, name):
    """Return the mean over images of the root mean square difference to the clean image, at severities 1 to 5."""
    seeds = image_seeds(0, range(len(images)))
    corrupted = [corrupt(images, name, severity, seeds=seeds) for severity in range(1, 6)]
    return [(each - images).square().mean((1, 2, 3)).sqrt().mean().item() for each in corrupted]


def assert_ascending(numbers):
    assert numbers[0] > 0.001
    assert all(later > 1.005 * earlier for earlier, later in pairwise(numbers)), numbers


each_corruption = pytest.mark.parametrize("name", CORRUPTIONS)


@each_corruption
def test_the_mean_distance_grows_with_severity_on_photos_and_on_digits(name, photos, digits):
    assert len(CORRUPTIONS) == len(set(CORRUPTIONS)) == 15
    assert_ascending(distances(photos[::2], name))
    assert_ascending(distances(digits, name))


@each_corruption
def test_an_image_is_corrupted_alike_in_every_batch_part_and_layout(name, photos, monkeypatch):
    images, seeds = photos[:7], image_seeds(4, range(7))
    for severity in (1, 5):
        together = corrupt(images, name, severity, seeds=seeds)
        alone = torch.cat([corrupt(images[i : i + 1], name, severity, seeds=seeds[i : i + 1]) for i in range(7)])
        assert torch.equal(together, alone)
        order = torch.tensor([3, 6, 0, 5, 1, 4, 2])
        assert torch.equal(corrupt(images[order], name, severity, seeds=seeds[order]), together[order])
        view = images.transpose(2, 3).contiguous().transpose(2, 3)
        with monkeypatch.context() as patch:
            patch.setattr(corrupt_images, "AT_ONCE", 2 * images[0].numel())
            assert torch.equal(corrupt(view, name, severity, seeds=seeds), together)
    clean = corrupt(images, name, 0, seeds=seeds)
    assert torch.equal(clean, images)
    assert clean.data_ptr() != images.data_ptr()


def test_other_seeds_give_other_images_where_there_is_chance(photos):
    image = photos[24:25]
    for name in CORRUPTIONS:
        is_same = torch.equal(corrupt(image, name, 3, seeds=[1]), corrupt(image, name, 3, seeds=[2]))
        assert is_same == (name not in RANDOM), name
    seeds = torch.cat([image_seeds(seed, [0, 1, 2**32 - 1]) for seed in (0, 1, 2**31 - 1)])
    assert len(seeds.unique()) == 9


def test_corruptions_of_one_seed_have_unrelated_numbers():
    grey, seeds = torch.full((20, 3, 32, 32), 0.5), image_seeds(0, range(20))
    noise = corrupt(grey, "gaussian_noise", 5, seeds=seeds) - 0.5
    black = corrupt(grey, "impulse_noise", 5, seeds=seeds) == 0
    assert abs(noise[black].mean()) < 5 * 0.1 / black.sum() ** 0.5


@each_corruption
def test_any_shape_gives_other_finite_images_in_range_and_leaves_the_input(name):
    for shape, severity in [((1, 8, 8), 5), ((3, 9, 31), 1), ((3, 40, 33), 5), ((1, 80, 64), 1)]:
        images = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0))
        images[1, :, :4] = 1
        images[1, :, 4:] = 0
        before = images.clone()
        corrupted = corrupt(images, name, severity, seeds=[0, 1])
        assert corrupted.shape == images.shape
        assert corrupted.isfinite().all()
        assert corrupted.min() >= 0
        assert corrupted.max() <= 1
        assert (corrupted[0] - images[0]).square().mean().sqrt() > 0.001
        assert torch.equal(images, before)
    assert corrupt(torch.zeros(0, 3, 32, 32), name, 3, seeds=image_seeds(0, [])).shape == (0, 3, 32, 32)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_the_dtype_is_kept_and_decides_the_rounding_alone(dtype, photos):
    images = photos[:2].bfloat16().to(dtype)
    for name in CORRUPTIONS:
        corrupted = corrupt(images, name, 2, seeds=[0, 1])
        assert corrupted.dtype == dtype
        single = corrupt(images.float(), name, 2, seeds=[0, 1])
        torch.testing.assert_close(corrupted.float(), single, rtol=0, atol=2 * torch.finfo(dtype).eps + 1e-6)


SMALL = torch.zeros(1, 1, 8, 8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "gausian_noise"}, "unknown corruption 'gausian_noise'; did you mean 'gaussian_noise'"),
        ({"severity": -1}, "severity -1 is out of range"),
        ({"severity": 6}, "severity 6 is out of range"),
        ({"severity": 2.5}, "severity 2.5 is out of range"),
        ({"images": torch.zeros(1, 2, 8, 8)}, r"shape \(1, 2, 8, 8\)"),
        ({"images": torch.zeros(3, 8, 8)}, r"shape \(3, 8, 8\)"),
        ({"images": torch.zeros(1, 1, 7, 8)}, "at least 8 pixels"),
        ({"images": SMALL.byte()}, "divide bytes by 255"),
        ({"images": SMALL + 1.5}, r"from 1\.5 to 1\.5"),
        ({"images": SMALL - 0.5}, r"expected levels of 0 to 1"),
        ({"images": SMALL + torch.nan}, "from nan"),
        ({"seeds": [0, 1]}, "expected 1 whole numbers"),
        ({"seeds": [0.5]}, "expected 1 whole numbers"),
        ({"seeds": 0}, "expected 1 whole numbers"),
    ],
)
def test_bad_input_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        corrupt(**{"images": SMALL, "name": "fog", "severity": 1, "seeds": [0]} | change)


def test_a_contact_sheet_has_a_row_a_corruption_and_a_column_a_severity(photos):
    image = photos[24]
    sheet = contact_sheet(image, seed=3, names=("fog", "pixelate"), severities=(0, 2, 5), gap=2)
    assert sheet.shape == (3, 2 * 32 + 2, 3 * 32 + 4)
    assert torch.equal(sheet[:, :32, :32], image)
    assert torch.equal(sheet[:, 34:, 68:], corrupt(image[None], "pixelate", 5, seeds=[3])[0])
    assert (sheet[:, 32:34] == 1).all()
    assert (sheet[:, :, 32:34] == 1).all()


def test_the_example_runs():
    assert doctest.testmod(corrupt_images, extraglobs={"torch": torch}) == (0, 2)

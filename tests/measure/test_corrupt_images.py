import doctest
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F

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


def enlarge(images):
    return F.interpolate(images, size=(32, 32), mode="bilinear").expand(-1, 3, -1, -1).contiguous()


def test_there_are_fifteen():
    assert len(CORRUPTIONS) == len(set(CORRUPTIONS)) == 15


@pytest.mark.parametrize("name", CORRUPTIONS)
class TestTheMeanDistanceGrowsWithSeverity:
    def test_on_photos(self, name, photos):
        assert_ascending(distances(photos, name))

    def test_on_grey_photos_of_28_pixels(self, name, photos):
        grey = F.interpolate(photos.mean(1, keepdim=True), size=(28, 28), mode="bilinear", antialias=True)
        assert_ascending(distances(grey.clamp(0, 1), name))

    def test_on_photos_enlarged_to_64(self, name, photos):
        assert_ascending(distances(F.interpolate(photos[::3], size=(64, 64), mode="bilinear"), name))

    def test_on_drawn_digits(self, name, digits):
        assert_ascending(distances(digits, name))

    def test_on_drawn_digits_enlarged(self, name, digits):
        assert_ascending(distances(enlarge(digits), name))

    @pytest.mark.parametrize("change", [lambda images: images, enlarge], ids=["as they are", "enlarged"])
    def test_on_scikit_learns_digits(self, name, change):
        datasets = pytest.importorskip("sklearn.datasets")
        images = torch.from_numpy(datasets.load_digits().images[:100] / 16).float()[:, None]
        assert_ascending(distances(change(images), name))


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_severity_0_is_a_copy_bit_for_bit(name, photos):
    same = corrupt(photos, name, 0, seeds=image_seeds(0, range(len(photos))))
    assert torch.equal(same, photos)
    assert same.data_ptr() != photos.data_ptr()


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("severity", [1, 5])
def test_an_image_is_corrupted_alike_in_every_batch(name, severity, photos):
    images, seeds = photos[:13], image_seeds(4, range(13))
    together = corrupt(images, name, severity, seeds=seeds)
    alone = torch.cat([corrupt(images[i : i + 1], name, severity, seeds=seeds[i : i + 1]) for i in range(13)])
    assert torch.equal(together, alone)
    order = torch.randperm(13, generator=torch.Generator().manual_seed(0))
    assert torch.equal(corrupt(images[order], name, severity, seeds=seeds[order]), together[order])


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_batches_worked_on_in_parts_are_those_worked_on_at_once(name, photos, monkeypatch):
    seeds = image_seeds(0, range(7))
    whole = corrupt(photos[:7], name, 3, seeds=seeds)
    monkeypatch.setattr(corrupt_images, "AT_ONCE", 2 * photos[0].numel())
    assert torch.equal(corrupt(photos[:7], name, 3, seeds=seeds), whole)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_other_seeds_give_other_images_where_there_is_chance(name, photos):
    image = photos[24:25]
    assert torch.equal(corrupt(image, name, 3, seeds=[1]), corrupt(image, name, 3, seeds=[2])) == (name not in RANDOM)


def test_corruptions_of_one_seed_have_unrelated_numbers():
    grey, seeds = torch.full((20, 3, 32, 32), 0.5), image_seeds(0, range(20))
    noise = corrupt(grey, "gaussian_noise", 5, seeds=seeds) - 0.5
    black = corrupt(grey, "impulse_noise", 5, seeds=seeds) == 0
    assert abs(noise[black].mean()) < 5 * 0.1 / black.sum() ** 0.5


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 8, 9), (3, 9, 31), (1, 28, 28), (3, 40, 33), (3, 8, 96)])
@pytest.mark.parametrize("severity", [1, 5])
def test_any_shape_gives_finite_images_in_range_and_leaves_the_input(name, shape, severity):
    images = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0))
    images[0] = 0
    images[1, :, :4] = 1
    before = images.clone()
    corrupted = corrupt(images, name, severity, seeds=[0, 1])
    assert corrupted.shape == images.shape
    assert corrupted.isfinite().all()
    assert corrupted.min() >= 0
    assert corrupted.max() <= 1
    assert torch.equal(images, before)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_large_images_are_changed(name, photos):
    image = F.interpolate(photos[24:25], size=(224, 224), mode="bilinear")
    corrupted = corrupt(image, name, 1, seeds=[0])
    assert corrupted.shape == image.shape
    assert 0.001 < (corrupted - image).square().mean().sqrt() < 0.3


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_dtype_is_kept_and_decides_the_rounding_alone(name, dtype, photos):
    images = photos[:2].bfloat16().to(dtype)
    corrupted = corrupt(images, name, 2, seeds=[0, 1])
    assert corrupted.dtype == dtype
    single = corrupt(images.float(), name, 2, seeds=[0, 1])
    torch.testing.assert_close(corrupted.float(), single, rtol=0, atol=2 * torch.finfo(dtype).eps + 1e-6)


def test_a_view_of_other_strides_is_corrupted_as_its_copy(photos):
    view = photos[:3].transpose(2, 3)
    for name in CORRUPTIONS:
        both = [corrupt(images, name, 2, seeds=[0, 1, 2]) for images in (view, view.contiguous())]
        assert torch.equal(*both), name


def test_no_images_give_none():
    assert corrupt(torch.zeros(0, 3, 32, 32), "fog", 3, seeds=image_seeds(0, [])).shape == (0, 3, 32, 32)


def test_the_pairs_of_seed_and_index_have_different_seeds():
    seeds = torch.cat([image_seeds(seed, [0, 1, 2**32 - 1]) for seed in (0, 1, 2**31 - 1)])
    assert len(seeds.unique()) == 9


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(ValueError, match="unknown corruption 'gausian_noise'; did you mean 'gaussian_noise'"):
        corrupt(torch.zeros(1, 1, 8, 8), "gausian_noise", 1, seeds=[0])


@pytest.mark.parametrize("severity", [-1, 6, 2.5])
def test_a_severity_out_of_range_is_refused(severity):
    with pytest.raises(ValueError, match=f"severity {severity} is out of range"):
        corrupt(torch.zeros(1, 1, 8, 8), "fog", severity, seeds=[0])


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(1, 2, 8, 8), r"shape \(1, 2, 8, 8\)"),
        (torch.zeros(3, 8, 8), r"shape \(3, 8, 8\)"),
        (torch.zeros(1, 1, 7, 8), "at least 8 pixels"),
        (torch.zeros(1, 1, 8, 8, dtype=torch.uint8), "divide bytes by 255"),
        (torch.full((1, 1, 8, 8), 1.5), r"from 1\.5 to 1\.5"),
        (torch.full((1, 1, 8, 8), -0.5), r"expected numbers in \[0, 1\]"),
        (torch.full((1, 1, 8, 8), torch.nan), "from nan"),
    ],
)
def test_images_that_are_none_are_refused(images, message):
    with pytest.raises(ValueError, match=message):
        corrupt(images, "fog", 1, seeds=[0])


@pytest.mark.parametrize("seeds", [[0, 1], [0.5], 0])
def test_seeds_that_are_not_one_an_image_are_refused(seeds):
    with pytest.raises(ValueError, match="expected 1 whole numbers"):
        corrupt(torch.zeros(1, 1, 8, 8), "fog", 1, seeds=seeds)


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

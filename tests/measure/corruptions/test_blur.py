import math
from itertools import pairwise

import numpy as np
import pytest
import scipy.ndimage
import torch

from muonlab.measure.corruptions import blur
from muonlab.measure.corruptions.draws import fold, uniform
from muonlab.measure.corruptions.geometry import spread

KEYS = fold(torch.arange(3), 5)


def images(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_spread_keeps_the_sum_and_moves_each_tap():
    for step in (0.25, 0.875, 1.0, 2.5):
        matrix = spread(3, step)
        reach = len(matrix) // 2
        offsets = torch.arange(-reach, reach + 1, dtype=torch.float64)
        torch.testing.assert_close(matrix.sum(0), torch.ones(7, dtype=torch.float64))
        torch.testing.assert_close(offsets @ matrix, step * torch.arange(-3, 4, dtype=torch.float64))
        assert ((matrix > 0).sum(0) <= 2).all()


@pytest.mark.parametrize("severity", range(1, 6))
def test_defocus_at_32_pixels_is_scipys_convolution_with_the_published_kernel(severity):
    radius, sigma = ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1))[severity - 1]
    offsets = np.arange(-8, 9)
    disk = (offsets[:, None] ** 2 + offsets**2 <= radius**2).astype(float)
    kernel = scipy.ndimage.gaussian_filter(disk / disk.sum(), sigma, radius=1, mode="constant")
    picture = images(3, 2, 32, 32)
    found = blur.defocus_blur(picture, severity, KEYS)
    wanted = scipy.ndimage.correlate(picture[1, 0].numpy(), kernel, mode="mirror")
    np.testing.assert_allclose(found[1, 0].numpy(), wanted, atol=1e-12)


@pytest.mark.parametrize("scale", [0.25, 1.1, 7.0])
def test_the_variance_of_defocus_grows_with_severity_and_size(scale):
    found = []
    for severity in range(1, 6):
        kernel = blur.defocus_kernel(severity, scale)
        offsets = torch.arange(len(kernel)) - len(kernel) // 2
        assert kernel.sum().item() == pytest.approx(1)
        torch.testing.assert_close(kernel, kernel.flip(0))
        torch.testing.assert_close(kernel, kernel.T)
        found.append(float((kernel.sum(0) * offsets**2).sum()))
    assert all(later > earlier for earlier, later in pairwise(found))
    if scale == 7:
        one = blur.defocus_kernel(5, 1.0).sum(0)
        assert found[-1] == pytest.approx(49 * float((one * torch.tensor([4.0, 1, 0, 1, 4])).sum()), rel=0.03)


@pytest.mark.parametrize(
    ("size", "radius", "sigma"), [((8, 8), 14, 12), ((32, 32), 6, 1), ((40, 33), 9, 2.5), ((64, 64), 14, 12)]
)
def test_smear_is_scipys_interpolation_along_the_path(size, radius, sigma):
    picture = images(3, 2, *size)
    angles = torch.tensor([0.0, 0.6, -2.2], dtype=torch.float64)
    found = blur.smear(picture, radius, sigma, angles)
    scale = min(size) / 32
    fine, step = max(1, scale), min(1, scale)
    y, x = np.mgrid[: size[0], : size[1]]
    for k, angle in enumerate(angles.tolist()):
        total, weights = np.zeros(size), 0.0
        for tap in range(int(min(2 * radius, 5 * sigma) * fine) + 1):
            weight = math.exp(-(tap**2) / (2 * (sigma * fine) ** 2))
            place = [y + tap * step * math.sin(angle), x + tap * step * math.cos(angle)]
            total += weight * scipy.ndimage.map_coordinates(picture[k, 1].numpy(), place, order=1, mode="nearest")
            weights += weight
        np.testing.assert_allclose(found[k, 1].numpy(), total / weights, atol=1e-12)


def test_the_angles_of_motion_are_within_45_degrees():
    keys = fold(torch.arange(300), 1)
    point = torch.zeros(300, 1, 32, 32, dtype=torch.float64)
    point[..., 16, 16] = 1
    found = blur.motion_blur(point, 5, keys)[:, 0]
    x, y = torch.arange(32) - 16, (torch.arange(32) - 16)[:, None]
    right, down = (found * x).sum((1, 2)), (found * y).sum((1, 2))
    degrees = torch.rad2deg(torch.atan2(-down, -right))
    assert degrees.abs().max() <= 45.001
    assert degrees.min() < -40
    assert degrees.max() > 40
    assert abs(degrees.mean()) < 5 * 26 / math.sqrt(300)


@pytest.mark.parametrize(("size", "severity"), [((8, 8), 5), ((40, 33), 1), ((64, 64), 1)])
def test_zoom_blur_is_the_mean_of_scipys_enlargements(size, severity):
    picture = images(3, 2, *size)
    published = [len(np.arange(1, end, 0.01)) for end in (1.06, 1.11, 1.16, 1.21, 1.26)]
    assert [percent + 1 for percent in blur.ZOOM] == published
    factors = published[severity - 1]
    middle = (np.array(size) - 1) / 2
    total = picture[1, 0].numpy().copy()
    for number in range(factors):
        matrix = np.eye(2) / (1 + number / 100)
        total += scipy.ndimage.affine_transform(
            picture[1, 0].numpy(), matrix, offset=middle - matrix @ middle, order=1, mode="nearest"
        )
    found = blur.zoom_blur(picture, severity, KEYS)[1, 0].numpy()
    np.testing.assert_allclose(found, total / (factors + 1), atol=1e-12)


def test_glass_moves_the_share_it_says_to_the_pixels_it_says():
    place = torch.arange(32.0 * 32, dtype=torch.float64).view(1, 1, 32, 32).expand(3, -1, -1, -1)
    found = blur.glass_blur(place, 1, KEYS)  # its sigma is too small to smooth anything
    away = place - found
    inside = away[..., 1:, 1:]
    assert set(inside.unique().tolist()) == {0.0, 1.0, 32.0, 33.0}
    share, num = 0.4 / 4, inside.numel()
    for offset in (1, 32, 33):
        assert abs((inside == offset).double().mean() - share) < 5 * (share / num) ** 0.5


def test_glass_is_smoothing_then_copies_then_smoothing():
    picture = images(3, 2, 32, 32)
    wanted = scipy.ndimage.gaussian_filter(picture.numpy(), 0.4, axes=(2, 3), mode="nearest")
    for number in range(2):
        offsets = (2 * uniform(KEYS, number, 3, 32, 32).numpy()[:, :2]).astype(int) - 1
        before = wanted.copy()
        for k, y, x in np.ndindex(3, 32, 32):
            source_y, source_x = np.maximum(0, np.array([y, x]) + offsets[k, :, y, x])
            wanted[k, :, y, x] = before[k, :, source_y, source_x]
    wanted = scipy.ndimage.gaussian_filter(wanted, 0.4, axes=(2, 3), mode="nearest")
    np.testing.assert_allclose(blur.glass_blur(picture, 5, KEYS).numpy(), wanted, atol=1e-12)


def test_glass_of_large_images_moves_facets_as_wholes():
    place = torch.arange(64.0 * 64, dtype=torch.float64).view(1, 1, 64, 64).expand(3, -1, -1, -1)
    away = (place - blur.glass_blur(place, 1, KEYS))[..., 4:-4, 4:-4]
    facets = away.unfold(2, 2, 2).unfold(3, 2, 2).flatten(4)
    assert (facets == facets[..., :1]).all()
    assert len(away.unique()) > 8


@pytest.mark.parametrize("function", [blur.defocus_blur, blur.glass_blur, blur.motion_blur, blur.zoom_blur])
def test_a_flat_image_stays_flat(function):
    for size in [(8, 8), (28, 28), (40, 33), (64, 64)]:
        flat = torch.full((3, 1, *size), 0.4, dtype=torch.float64)
        torch.testing.assert_close(function(flat, 4, KEYS), flat)

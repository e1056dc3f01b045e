import io

import numpy as np
import pytest
import scipy.ndimage
import torch
from PIL import Image

from muonlab.measure.corruptions import digital, jpeg
from muonlab.measure.corruptions.draws import fold, uniform

KEYS = fold(torch.arange(3), 5)


def images(*size, channels=2):
    generator = torch.Generator().manual_seed(0)
    return torch.rand(3, channels, *size, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("severity", range(1, 6))
def test_contrast_is_the_published_formula(severity):
    kept = (0.75, 0.5, 0.4, 0.3, 0.15)[severity - 1]
    picture = images(9, 11)
    x = picture.numpy()
    mean = np.mean(x, axis=(2, 3), keepdims=True)
    np.testing.assert_allclose(digital.contrast(picture, severity, KEYS).numpy(), (x - mean) * kept + mean, atol=1e-12)


@pytest.mark.parametrize(("size", "severity"), [((8, 8), 5), ((32, 32), 1), ((40, 33), 3)])
def test_elastic_transform_is_scipys_interpolation_at_the_displaced_places(size, severity):
    picture = images(*size)
    shift = digital.displacement(picture, severity, KEYS).numpy()
    y, x = np.mgrid[: size[0], : size[1]]
    found = digital.elastic_transform(picture, severity, KEYS)
    for k in range(3):
        place = [y + shift[k, 0], x + shift[k, 1]]
        wanted = scipy.ndimage.map_coordinates(picture[k, 1].numpy(), place, order=1, mode="mirror")
        np.testing.assert_allclose(found[k, 1].numpy(), wanted, atol=1e-12)


@pytest.mark.parametrize("severity", range(1, 6))
def test_the_local_displacement_is_smoothed_noise_of_the_published_strength(severity):
    strength, sigma = ((0, 0), (1.6, 6.4), (2.56, 1.92), (3.2, 1.28), (3.2, 0.96))[severity - 1]
    whole = digital.displacement(images(32, 32), severity, KEYS)
    shifts = 2 * uniform(KEYS, 0, 3, 2) - 1
    local = whole - digital._affine(images(32, 32), shifts, 32 * digital.AFFINE[severity - 1])
    lots = 2 * uniform(KEYS, 1, 2, 32, 32).numpy() - 1
    smooth = scipy.ndimage.gaussian_filter(lots, sigma, axes=(2, 3), truncate=3, mode="reflect") if sigma else 0 * lots
    np.testing.assert_allclose(local.numpy(), strength * smooth, atol=1e-12)


def test_the_affine_map_moves_its_three_points_by_their_shifts():
    shifts = torch.tensor([[[1.0, 2.0], [-3.0, 0.5], [0.25, -1.0]]], dtype=torch.float64)
    field = digital._affine(images(32, 32), shifts, 2.0)[0]
    points = ((26, 26), (26, 6), (6, 6))  # 10 pixels from the middle, (16, 16)
    for (y, x), shift in zip(points, shifts[0], strict=True):
        torch.testing.assert_close(field[:, y, x], 2 * shift)
    bend = field[:, 1:, 1:] - field[:, 1:, :-1] - field[:, :-1, 1:] + field[:, :-1, :-1]
    assert bend.abs().max() < 1e-12


@pytest.mark.parametrize(("size", "length"), [(8, 1.05), (8, 11), (31, 3.7)])
def test_blocks_are_those_of_a_finely_divided_line(size, length):
    begin = torch.tensor([0.0, 0.3, 0.99], dtype=torch.float64)
    matrices = digital.blocks(size, length, begin)[:, 0].numpy()
    line = images(size, 1, channels=1)[0, 0, :, 0].numpy()
    fine = 2000
    place = (np.arange(size * fine) + 0.5) / fine
    for matrix, first in zip(matrices, begin.numpy(), strict=True):
        block = np.floor(place / length + first).astype(int)
        repeated = line.repeat(fine)
        means = np.bincount(block, repeated) / np.maximum(np.bincount(block), 1)
        wanted = means[block].reshape(size, fine).mean(1)
        np.testing.assert_allclose(matrix @ line, wanted, atol=2e-3)
        np.testing.assert_allclose(matrix.sum(1), 1)


@pytest.mark.parametrize(("size", "lengths"), [((8, 8), (1.05, 1.54)), ((64, 80), (2.1, 3.1))])
def test_pixelate_has_blocks_of_the_published_length(size, lengths):
    picture = images(*size)
    begin = uniform(KEYS, 0, 2)
    for severity, length in ((1, lengths[0]), (5, lengths[1])):
        exact = max(1, min(size) / 32) / (0.95, 0.9, 0.85, 0.75, 0.65)[severity - 1]
        assert exact == pytest.approx(length, abs=0.03)
        rows = digital.blocks(size[0], exact, begin[:, 0])
        columns = digital.blocks(size[1], exact, begin[:, 1])
        torch.testing.assert_close(digital.pixelate(picture, severity, KEYS), rows @ picture @ columns.mT)


# ---- JPEG


def pillow(levels, quality):
    """Encode and decode bytes (H, W) or (H, W, 3)."""
    file = io.BytesIO()
    Image.fromarray(levels).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file)).astype(int)


@pytest.mark.parametrize(
    ("mode", "quality", "size"),
    [
        ("RGB", max(jpeg.QUALITY), (32, 32)),
        ("RGB", min(jpeg.QUALITY), (33, 47)),
        ("RGB", 95, (28, 28)),
        ("RGB", 10, (8, 8)),
        ("L", min(jpeg.QUALITY), (33, 47)),
        ("L", 95, (8, 8)),
    ],
)
def test_jpeg_is_pillows_within_a_few_levels(mode, quality, size, photos):
    """Pillow's library multiplies in whole numbers: a coefficient near a half can be rounded otherwise.

    Chroma of twice the size, or averaged and not interpolated, would be three times as far away.
    """
    parts = torch.nn.functional.interpolate(photos, size=size, mode="bilinear", antialias=True).clamp(0, 1)
    levels = (255 * parts).round().byte()
    levels = levels if mode == "RGB" else levels[:, 1:2]
    found = 255 * jpeg.encode_decode(levels.double() / 255, quality)
    assert (found - found.round()).abs().max() < 1e-9
    wanted = np.stack([pillow(each.permute(1, 2, 0).squeeze(2).numpy(), quality) for each in levels])
    away = np.abs(found.permute(0, 2, 3, 1).squeeze(3).round().numpy() - wanted)
    assert away.mean() < {"RGB": 0.45, "L": 0.2}[mode]
    assert np.median(away.reshape(len(away), -1).mean(1)) < {"RGB": 0.35, "L": 0.12}[mode]
    assert (away > 3).mean() < 0.05


def test_flat_images_of_a_coded_grey_are_kept():
    flat = torch.full((1, 3, 20, 20), 128 / 255, dtype=torch.float64)
    torch.testing.assert_close(jpeg.encode_decode(flat, 40), flat)


def test_halves_are_rounded_away_from_0_whatever_missed_them():
    halves = torch.tensor([0.5, -0.5, 2.5 - 1e-12, -1.5 + 1e-12, 0.49, -0.49], dtype=torch.float64)
    assert jpeg._whole(halves).tolist() == [1, -1, 3, -2, 0, 0]


def test_the_tables_at_a_quality_are_those_that_pillow_writes():
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "JPEG", quality=58)
    written = Image.open(file).quantization
    for number, table in enumerate((jpeg.LUMINANCE, jpeg.CHROMINANCE)):
        assert jpeg._steps(table, 58).flatten().tolist() == list(written[number])

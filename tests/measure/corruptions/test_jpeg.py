import io

import numpy as np
import pytest
import torch
from PIL import Image

from muonlab.measure.corruptions import jpeg


def pillow(levels, quality):
    """Encode and decode bytes (H, W) or (H, W, 3)."""
    file = io.BytesIO()
    Image.fromarray(levels).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file)).astype(int)


@pytest.mark.parametrize("quality", [*jpeg.QUALITY, 95, 10])
@pytest.mark.parametrize("size", [(32, 32), (28, 28), (8, 8), (33, 47)])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_it_is_pillows_within_a_few_levels(quality, size, mode, photos):
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


def test_the_cosines_are_orthonormal():
    torch.testing.assert_close(jpeg._cosines() @ jpeg._cosines().T, torch.eye(8, dtype=torch.float64))


def test_halves_are_rounded_away_from_0_whatever_missed_them():
    halves = torch.tensor([0.5, -0.5, 2.5 - 1e-12, -1.5 + 1e-12, 0.49, -0.49], dtype=torch.float64)
    assert jpeg._whole(halves).tolist() == [1, -1, 3, -2, 0, 0]


def test_the_tables_at_a_quality_are_those_that_pillow_writes():
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "JPEG", quality=58)
    written = Image.open(file).quantization
    for number, table in enumerate((jpeg.LUMINANCE, jpeg.CHROMINANCE)):
        assert jpeg._steps(table, 58).flatten().tolist() == list(written[number])

"""Real images that need no download."""

from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor


@pytest.fixture(scope="session")
def photos() -> Tensor:
    """Overlapping parts (49, 3, 32, 32) of a photograph that comes with matplotlib, reduced four times."""
    with Image.open(Path(mpl.get_data_path()) / "sample_data" / "grace_hopper.jpg") as opened:
        whole = np.asarray(opened.convert("RGB").crop((0, 44, 512, 556)).reduce(4), dtype=np.float32) / 255
    parts = torch.from_numpy(whole).permute(2, 0, 1).unfold(1, 32, 16).unfold(2, 32, 16)
    return parts.permute(1, 2, 0, 3, 4).reshape(-1, 3, 32, 32).contiguous()


@pytest.fixture(scope="session")
def digits() -> Tensor:
    """Digits (60, 1, 8, 8), drawn from a font at several places and angles, in seventeen greys."""
    drawn = []
    for number in range(60):
        image = Image.new("L", (64, 64))
        font = ImageFont.load_default(size=64)
        ImageDraw.Draw(image).text((14 + number % 7, -10 + number % 5), str(number % 10), fill=255, font=font)
        image = image.rotate(3 * (number % 9) - 12, resample=Image.Resampling.BILINEAR)
        drawn.append(np.asarray(image.reduce(8), dtype=np.float32) / 255)
    return torch.from_numpy(np.stack(drawn))[:, None].mul(16).round().div(16)

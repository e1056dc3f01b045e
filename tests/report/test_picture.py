import base64
import io
import zlib

import numpy as np
import pytest
from matplotlib.image import imread

from muonlab.report.findings import Picture
from muonlab.report.picture import enlargement, png


def picture(pixels, width=None):
    height, own_width, channels = pixels.shape
    return Picture("p", "P", "", width or own_width, height, channels, base64.b64encode(pixels.tobytes()).decode())


@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_come_back_from_the_png(channels):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, channels), dtype=np.uint8)
    read = imread(io.BytesIO(png(picture(pixels))), format="png")
    np.testing.assert_array_equal(np.rint(read * 255).reshape(5, 7, channels), pixels)


def test_every_chunk_has_its_checksum():
    content = png(picture(np.zeros((2, 2, 3), np.uint8)))
    at, kinds = 8, []
    while at < len(content):
        length = int.from_bytes(content[at : at + 4], "big")
        kinds.append(content[at + 4 : at + 8])
        checksum = content[at + 8 + length : at + 12 + length]
        assert zlib.crc32(content[at + 4 : at + 8 + length]).to_bytes(4, "big") == checksum
        at += 12 + length
    assert kinds == [b"IHDR", b"IDAT", b"IEND"]


def test_a_picture_whose_pixels_do_not_fill_it_is_a_mistake():
    with pytest.raises(AssertionError, match="p: 2 x 3 x 1 pixels take 6 bytes, got 4"):
        png(picture(np.zeros((2, 2, 1), np.uint8), width=3))


@pytest.mark.parametrize(("shape", "times"), [((8, 8), 80), ((508, 202), 2), ((64, 640), 1), ((2000, 10), 1)])
def test_a_picture_is_enlarged_by_a_whole_number_up_to_the_width_of_the_page(shape, times):
    assert enlargement(picture(np.zeros((*shape, 1), np.uint8))) == times

"""Writes the pixels of a picture as PNG, https://www.w3.org/TR/png-3/."""

import base64
import struct
import zlib

from muonlab.report.findings import Picture

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_COLOUR_TYPES = {1: 0, 3: 2}  # channels -> the format's number for grey, and for red, green and blue
_LARGEST = 640, 1080  # width and height in CSS pixels up to which a picture is enlarged


def png(picture: Picture) -> bytes:
    """Return a picture as PNG, eight bits a channel."""
    pixels = base64.b64decode(picture.pixels)
    stride = picture.width * picture.channels
    assert len(pixels) == picture.height * stride, (
        f"{picture.name}: {picture.height} x {picture.width} x {picture.channels} pixels take "
        f"{picture.height * stride} bytes, got {len(pixels)}"
    )
    rows = (pixels[i : i + stride] for i in range(0, len(pixels), stride))
    filtered = b"".join(b"\0" + row for row in rows)  # each row starts with its filter: none
    header = struct.pack(">IIBBBBB", picture.width, picture.height, 8, _COLOUR_TYPES[picture.channels], 0, 0, 0)
    return (
        _SIGNATURE + _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(filtered, level=9)) + _chunk(b"IEND", b"")
    )


def enlargement(picture: Picture) -> int:
    """Return how many times its size a picture is shown at most, a whole number so that its pixels stay alike."""
    return max(1, min(_LARGEST[0] // picture.width, _LARGEST[1] // picture.height))


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

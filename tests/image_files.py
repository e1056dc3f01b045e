"""Files of images as tests write them."""

import io
import shutil
import struct
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

IDX_CODES = {"uint8": 0x08, "int8": 0x09, "int16": 0x0B, "int32": 0x0C, "float32": 0x0D, "float64": 0x0E}
PIXELS = np.random.default_rng(0).integers(0, 256, (60, 5, 4, 3), dtype=np.uint8)  # (N, H, W, C)
CATS_AND_DOGS = ("cat/1.png", "cat/2.png", "dog/1.png", "dog/2.png")


def idx(array: np.ndarray) -> bytes:
    """Return an array in the format of MNIST."""
    header = struct.pack(f">HBB{array.ndim}I", 0, IDX_CODES[array.dtype.name], array.ndim, *array.shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


def encoded(image: np.ndarray | Image.Image, kind: str = "PNG", **options) -> bytes:
    """Return an image, or pixels (H, W) or (H, W, 3), as a file."""
    file = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, kind, **options)
    return file.getvalue()


def write(root: Path, names: Iterable[str], pixels: np.ndarray = PIXELS) -> Path:
    """Write an image to each name in a folder, and return the folder."""
    for name, image in zip(names, pixels, strict=False):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(encoded(image, "JPEG" if name.endswith("jpg") else "PNG"))
    return root


def zipped(root: Path) -> Path:
    return Path(shutil.make_archive(str(root), "zip", root))

"""Float32 matrix products by the library that uses all of this processor: oneDNN where MKL does not.

torch hands float32 products to MKL, which on AMD processors leaves AVX-512 alone. torch's setting for products that
may be rounded to bfloat16 hands them to oneDNN, which rounds only where there are bfloat16 tiles (AMX). An AMD
processor without them computes the same float32 products, to rounding, in half the time (records/engine).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import torch

SETTING = torch.backends.mkldnn.matmul  # pyright: ignore[reportAttributeAccessIssue]  # torch puts it there itself
DEFAULT = "none"  # of the setting: nobody has asked for anything, here or for all of oneDNN


@contextmanager
def fast_products() -> Iterator[None]:
    """Let oneDNN do the float32 products on the CPU in this block, where that is faster and equal to rounding.

    The processor decides, not a clock (docs/design/same-bytes.md). A precision that the user has set is left alone, and
    torch.compile, which could not trace the setting, has torch's own.
    """
    if torch.compiler.is_compiling() or SETTING.fp32_precision != DEFAULT or not pays():
        yield
        return
    SETTING.fp32_precision = "bf16"
    try:
        yield
    finally:
        SETTING.fp32_precision = DEFAULT


@cache
def pays() -> bool:
    """Return whether oneDNN is the faster library on this processor, and computes in float32 when it may round."""
    return torch.backends.mkldnn.is_available() and is_left_alone_by_mkl(_processor()) and _is_exact()


def is_left_alone_by_mkl(processor: str) -> bool:
    """Return whether MKL leaves AVX-512 alone, and oneDNN has nothing to round with; of a part of /proc/cpuinfo."""
    lines = dict(line.split(":", 1) for line in processor.splitlines() if ":" in line)
    fields = {name.strip(): value.split() for name, value in lines.items()}
    flags = fields.get("flags", [])
    return fields.get("vendor_id") == ["AuthenticAMD"] and "avx512f" in flags and not any("amx" in f for f in flags)


def _processor() -> str:
    try:
        return Path("/proc/cpuinfo").read_text().partition("\n\n")[0]
    except OSError:
        return ""


def _is_exact() -> bool:
    """Return whether a product under the setting has the digits of float32: what torch does with it may change."""
    A, B = torch.randn(2, 64, 64, generator=torch.Generator().manual_seed(0))
    exact, before = A.double() @ B.double(), SETTING.fp32_precision
    SETTING.fp32_precision = "bf16"
    try:
        found = A @ B
    finally:
        SETTING.fp32_precision = before
    # A sum of 64 products of numbers near 1: rounded to bfloat16 it is off by 1e-2, in float32 by 1e-6.
    return bool((found - exact).abs().max() < 1e-4)

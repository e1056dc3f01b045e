"""Comparison of nested JSON, numbers to rounding."""

import pytest


def equal(found, expected, where="", *, rel=1e-9, abs=1e-12):
    """Hold nested JSON to other JSON, floats to a tolerance; keys that only `found` has are its own."""
    if isinstance(expected, dict):
        for key, value in expected.items():
            equal(found[key], value, f"{where}.{key}", rel=rel, abs=abs)
    elif isinstance(expected, list):
        assert len(found) == len(expected), where
        for k, pair in enumerate(zip(found, expected, strict=True)):
            equal(*pair, f"{where}[{k}]", rel=rel, abs=abs)
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, rel=rel, abs=abs), where
    else:
        assert found == expected, where

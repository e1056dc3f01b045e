import pytest

from muonlab.runs.findings import Interval, as_text


@pytest.mark.parametrize(
    ("value", "kind", "text"),
    [
        (None, "number", "–"),
        ("a < b", "number", "a < b"),
        (True, "text", "yes"),
        (10_000, "count", "10,000"),
        (-425.0, "count", "−425"),
        (0.6249, "ratio", "0.62"),
        (-1.0, "ratio", "−1.00"),
        (12.345, "ratio", "12.3"),
        (0.9, "percent", "90%"),
        (0.01031, "accuracy", "0.010"),
        (0.0473, "p", "0.047"),
        (0.0099, "p", "9.9 × 10⁻³"),
        (0, "p", "0.000"),
        (0.001, "exact", "0.001"),
        (1e-5, "exact", "1 × 10⁻⁵"),
        (0, "number", "0"),
        (3, "number", "3"),
        (0.0123456, "number", "0.0123"),
        (43.94, "number", "43.9"),
        (1234.5, "number", "1,234"),
        (1.3e9, "number", "1.30 × 10⁹"),
        (Interval(0.6, 0.5, 0.75), "ratio", "0.60 [0.50, 0.75]"),
        (Interval(600, 500, None), "count", "600 [500, –]"),
        (Interval(None, 1100, None, "fewer than half crossed"), "count", "not reached [1,100, –]"),
        (Interval(0.6, None, None, "one run"), "ratio", "0.60"),
        (Interval(None, None, None, "no runs"), "ratio", "–"),
    ],
)
def test_a_value_reads_as_its_kind_says(value, kind, text):
    assert as_text(value, kind) == text

import dataclasses
import json

import pytest

from muonlab.report.findings import (
    Axis,
    Figure,
    Findings,
    Line,
    Lines,
    Picture,
    Section,
    Series,
    Verdict,
    as_text,
    superscript,
)
from muonlab.stats.results import Estimate


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
        (Estimate(0.6, 0.5, 0.75), "ratio", "0.60 [0.50, 0.75]"),
        (Estimate(600, 500, None), "count", "600 [500, –]"),
        (Estimate(None, 1100, None, reason="fewer than half crossed"), "count", "not reached [1,100, –]"),
        (Estimate(0.6, None, None, reason="one run"), "ratio", "0.60"),
        (Estimate(None, None, None, reason="no runs"), "ratio", "–"),
    ],
)
def test_a_value_reads_as_its_kind_says(value, kind, text):
    assert as_text(value, kind) == text


def test_a_number_with_an_exponent_is_written_as_a_power_of_ten():
    assert superscript("1.2e-05") == "1.2 × 10⁻⁵"
    assert superscript("0.5") == "0.5"


def test_findings_are_json():
    line = Line(Series("Muon", "muon"), 5, (0, 1), (0.9, None), (0.8, None), (1.0, None))
    figure = Figure("f", "F", "", Axis("severity"), Axis("accuracy"), (Lines("add", (line,), (("chance", 0.1),)),))
    picture = Picture("p", "P", "", 1, 1, 1, "AA==", ("fog",), ("0",))
    verdict = Verdict("yes", "Yes", "Yes.", None, (), (), ())
    plain = dataclasses.asdict(Findings("t", "q?", verdict, (), (Section("s", (figure, picture)),)))
    kept = json.loads(json.dumps(plain, allow_nan=False))["sections"][0]["elements"]
    assert kept[0]["panels"][0]["lines"][0]["y"] == [0.9, None]
    assert kept[1]["row_labels"] == ["fog"]

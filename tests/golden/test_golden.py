"""Recorded studies and tiny runs say what they said when these expectations were written; plans have the same ids.

`python tests/golden/make.py` writes the expectations again, for a change that is meant to change them.
"""

import math
from itertools import zip_longest

import pytest

from golden import cases


def differences(found, expected):
    """Return what differs, a line for each column."""
    lines = []
    for key in ("answer", "ids"):
        if found[key] != expected[key]:
            lines.append(f"{key}: {found[key]}, expected {expected[key]}")
    for name, columns in expected["tables"].items():
        if name not in found["tables"]:
            lines.append(f"{name}.csv is missing")
            continue
        for key, values in columns.items():
            own = found["tables"][name].get(key, [])
            pairs = list(enumerate(zip_longest(own, values, fillvalue="no row")))
            wrong = [(row, *pair) for row, pair in pairs if not is_same(*pair)]
            if wrong:
                shown = "; ".join(f"row {row} is {new}, expected {old}" for row, new, old in wrong[:3])
                lines.append(f"{name}.csv, {key}: {len(wrong)} of {len(pairs)} differ: {shown}")
    return lines


def is_same(found, expected):
    if isinstance(found, float) and isinstance(expected, float):
        both_nan = math.isnan(found) and math.isnan(expected)
        return both_nan or math.isclose(found, expected, rel_tol=1e-9, abs_tol=1e-12)
    return found == expected or (expected == cases.PROSE and found != "no row")


@pytest.mark.parametrize("name", cases.RECORDED)
def test_a_recorded_study_says_what_it_said(name):
    found = cases.read(cases.RECORDED[name].parent)
    assert differences(found, cases.expected(f"records-{name}")) == []


@pytest.mark.parametrize("name", cases.RUNS)
def test_a_tiny_run_says_what_it_said(name, tmp_path):
    found = cases.read(cases.unpack(name, tmp_path))
    assert differences(found, cases.expected(f"tiny-{name}")) == []


def test_every_command_plans_the_jobs_that_it_planned(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found, expected = cases.plans(tmp_path), cases.expected("plans")
    assert found.keys() == expected.keys()
    assert [command for command in found if found[command] != expected[command]] == []


def test_a_difference_is_seen():
    old = {"answer": "yes", "ids": ["a"], "tables": {"t": {"n": [1.0, None], "rival": ["SGD", "SGD"], "x": ["..."]}}}
    assert differences(old, old) == []
    for new in (
        old | {"answer": "no"},
        old | {"ids": []},
        old | {"tables": {}},
        *(
            old | {"tables": {"t": old["tables"]["t"] | changed}}
            for changed in ({"n": [1.0001, None]}, {"n": [1.0]}, {"n": [1.0, 2.0]}, {"rival": ["SGD", "Muon"]})
        ),
    ):
        assert len(differences(new, old)) == 1

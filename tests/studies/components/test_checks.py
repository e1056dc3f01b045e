from muonlab.studies.components.checks import checks
from muonlab.studies.components.controls import Control


def control(value=0.1, limit=0.3, name="same optimizer"):
    return Control(name, "share of problems", value, 0.05, limit, 9)


def test_controls_that_pass_are_one_line_and_a_table(rows_of):
    text, table = checks([control(), control(name="labels without information")])
    assert (text.tone, text.text) == (
        "good",
        "All 2 controls passed: where there is nothing to find, nothing was found.",
    )
    assert [row["state"] for row in rows_of(table)] == ["passed", "passed"]


def test_a_control_that_fails_is_said_first():
    text, _ = checks([control(value=0.4)])
    assert text.tone == "warning"
    assert text.text.startswith("FAILED: same optimizer: share of problems is 0.400, more than the 0.300")


def test_a_control_that_cannot_tell_is_said():
    text, table = checks([control(value=0.4, limit=1.0)])
    assert "cannot tell" in text.text
    assert table.rows[0][-1] == "cannot tell"


def test_no_control_yet():
    (text,) = checks([])
    assert "No control is done yet" in text.text

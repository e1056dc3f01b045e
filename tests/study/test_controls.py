import pytest

from muonlab.report.findings import Column
from muonlab.study.controls import Control, checks, failed, notices

PLACE = Column("family", "Net and data")
GOOD = Control("shuffled labels", "accuracy of the probe", 0.1, 0.1, 0.3, 5, place="cnn", examples=90)
BAD = Control("shuffled labels", "accuracy of the probe", 0.4, 0.1, 0.3, 5, place="vit")
BLIND = Control("same optimizer", "share of problems", 1.0, 0.05, 1.0, 2, why="chance")
LINE = Control("rank one", "largest count", 1.5, 1.0, 1.01, 1, must="be 1", why="rounding", is_share=False)


@pytest.mark.parametrize(
    ("control", "state"), [(GOOD, "passed"), (BAD, "failed"), (BLIND, "cannot tell"), (LINE, "failed")]
)
def test_a_control_passes_up_to_its_limit_and_cannot_tell_where_chance_may_give_anything(control, state):
    assert control.state == state


def test_a_control_that_failed_comes_first_in_words():
    assert failed([GOOD, BAD, BLIND]) == [BAD]
    (notice,) = notices([GOOD, BAD])
    assert notice.text == (
        "A CONTROL FAILED: shuffled labels of vit: accuracy of the probe is 0.400, more than the 0.300 that guessing "
        "explains."
    )
    assert LINE.in_words.endswith("that rounding explains")
    first, blind, _ = checks([BAD, BLIND], "")
    assert first.text.startswith("FAILED: shuffled labels of vit")
    assert blind.text == "same optimizer cannot tell: there is too little for “share of problems”."


def test_a_table_has_places_where_controls_have(rows_of):
    text, table = checks([GOOD, GOOD], "Of probes.", PLACE)
    assert (text.tone, text.text.startswith("All 2 controls passed")) == ("good", True)
    assert checks([GOOD], "")[0].text.startswith("The one control passed")
    assert rows_of(table)[0] == {
        "family": "cnn",
        "control": "shuffled labels",
        "what": "accuracy of the probe",
        "must": "stay at chance",
        "value": 0.1,
        "expected": 0.1,
        "limit": 0.3,
        "n": 5,
        "examples": 90,
        "state": "passed",
    }
    assert [column.key for column in checks([BLIND], "")[-1].columns] == [
        *("control", "what", "value", "expected", "limit", "n", "state")
    ]


def test_none_yet():
    (text,) = checks([], "")
    assert text.tone == "warning"

from muonlab.studies.features.controls import judge_controls

import synthetic_features as synthetic
from muonlab.studies.features.readings import read
from muonlab.study.measures.checks import checks


def test_all_passed(runs, rows_of):
    text, table = checks(judge_controls(runs))
    assert (text.tone, text.text.startswith("All 6 controls passed")) == ("good", True)
    assert {row["state"] for row in rows_of(table)} == {"passed"}
    assert [row["must"] for row in rows_of(table)[:3]] == ["stay at chance", "stay at chance", "be 1"]


def test_failed_and_blind_are_said(tmp_path, monkeypatch):
    failed = checks(judge_controls(read(synthetic.write(tmp_path / "a", planted=synthetic.Planted(shuffled=0.9)))))
    assert [text.text.split(":")[0] for text in failed[:-1]] == ["FAILED", "FAILED"]
    monkeypatch.setattr(synthetic, "NUM_TEST", 2)
    blind = checks(judge_controls(read(synthetic.write(tmp_path / "b"))))
    assert blind[0].text == "untrained net of cnn on digits cannot tell: it has too few nets or examples."


def test_none_yet():
    (text,) = checks([])
    assert text.tone == "warning"

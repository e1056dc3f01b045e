import synthetic_study as synthetic
from muonlab.stats.proportions import chance_limit
from muonlab.studies.grokking.conditions import read
from muonlab.studies.grokking.controls import judge_controls, leaking


def judged(folder, accuracy):
    return judge_controls(read(synthetic.write(folder, control_accuracy=accuracy)))


def test_a_control_at_chance_stays(tmp_path):
    first, second = judged(tmp_path, 0.013)
    assert first.stayed
    assert second.stayed
    num_looks = 2 * (synthetic.BUDGET // synthetic.CADENCE + 1)
    assert first.limit == chance_limit(1 / 97, synthetic.NUM_VALIDATION, num_looks)
    assert first.name == "add · softmax, Muon"


def test_a_control_with_too_few_validation_rows_cannot_tell(tmp_path, monkeypatch):
    assert all(control.can_tell for control in judged(tmp_path / "many", 0.013))
    monkeypatch.setattr(synthetic, "NUM_VALIDATION", 1)
    assert not any(control.can_tell for control in judged(tmp_path / "one", 1.0))


def test_a_control_above_chance_is_found(tmp_path):
    found = judged(tmp_path, 0.05)
    assert [control.stayed for control in found] == [False, False]
    assert leaking(found)[0].startswith(
        "the control add · softmax, Muon on random labels reached a validation accuracy"
    )

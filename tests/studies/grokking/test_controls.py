import synthetic_study as synthetic
from muonlab.stats.proportions import chance_limit
from muonlab.studies.grokking.conditions import read
from muonlab.studies.grokking.controls import judge_controls


def judged(folder, accuracy):
    return judge_controls(read(synthetic.write(folder, control_accuracy=accuracy)))


def test_a_control_at_chance_stays(tmp_path):
    first, second = judged(tmp_path, 0.013)
    assert first.stayed
    assert second.stayed
    num_looks = 2 * (synthetic.BUDGET // synthetic.CADENCE + 1)
    assert first.limit == chance_limit(1 / 97, synthetic.NUM_VALIDATION, num_looks)
    assert first.name == "add · softmax, Muon"


def test_a_control_above_chance_is_found(tmp_path):
    assert [control.stayed for control in judged(tmp_path, 0.05)] == [False, False]

import pytest
from muonlab.studies.features.controls import judge_controls
from scipy import stats

import synthetic_features as synthetic
from muonlab.studies.features.readings import read
from muonlab.study.measures.controls import ERROR, failed


def controls(folder, **planted):
    asked = synthetic.study(families=["cnn"])
    return judge_controls(read(synthetic.write(folder, asked, synthetic.Planted(**planted))))


def test_all_pass_at_chance(tmp_path):
    found = controls(tmp_path)
    assert [(c.name, c.state) for c in found] == [
        ("untrained net", "passed"),
        ("shuffled labels", "passed"),
        ("rank one", "passed"),
    ]
    limit = stats.binom.isf(ERROR, 200, 0.2) / 200  # all untrained nets are alike
    assert [c.limit for c in found[:2]] == pytest.approx([limit, limit])
    assert failed(found) == []


@pytest.mark.parametrize(
    ("planted", "words"),
    [
        (
            {"shuffled": 0.4},
            "shuffled labels of cnn on digits: test accuracy of the probe is 0.400, more",
        ),
        ({"untrained": 0.4}, "untrained net of cnn on digits: mean test accuracy before training is 0.400, more"),
        ({"line": 2.0}, "rank one of cnn on digits: largest count of directions is 2.000, more"),
    ],
)
def test_each_can_fail(tmp_path, planted, words):
    (control,) = failed(controls(tmp_path, **planted))
    assert control.in_words.startswith(words)
    assert ("rounding explains" in control.in_words) == (control.name == "rank one")


def test_too_few_examples_cannot_tell(tmp_path, monkeypatch):
    monkeypatch.setattr(synthetic, "NUM_TEST", 2)
    assert [c.state for c in controls(tmp_path, shuffled=1.0, untrained=1.0)] == [
        "cannot tell",
        "cannot tell",
        "passed",
    ]


def test_none_before_they_are_measured(tmp_path):
    assert judge_controls(read(synthetic.write(tmp_path, undone=lambda step: step.role == "measure"))) == []

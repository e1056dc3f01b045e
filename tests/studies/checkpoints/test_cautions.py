import re
from dataclasses import replace

import pytest

import synthetic_inspection as synthetic
from muonlab.studies.checkpoints.cautions import cautions
from muonlab.studies.checkpoints.readings import read


def said(folder, planted=None, *, sizes=None, **others):
    return cautions(read(synthetic.write(folder, synthetic.asked(**(sizes or {"A": 4, "B": 4})), planted, **others)))


def test_none_where_nothing_weakens_the_answer(tmp_path):
    assert said(tmp_path) == []


@pytest.mark.parametrize(
    ("planted", "others", "words"),
    [
        ({"A": {"loss": 1.0}}, {}, "The groups do not fit clean data alike, .* A 2, B 1"),
        (None, {"depth": {"B": 3}}, "The nets differ in their layers"),
        (None, {"sizes": {"A": 4, "B": 2}}, "there are: A 4, B 2"),
        (None, {"sizes": {"A": 1}}, "One group is no comparison"),
    ],
)
def test_each_has_its_sentence(tmp_path, planted, others, words):
    (sentence,) = said(tmp_path, planted, **others)
    assert re.search(words, sentence)


def test_blind_layers_and_perfect_nets(pair):
    for nets in pair.nets.values():
        nets[0].layers[0]["margins"]["clean"]["below_zero"] = 0.9
    assert cautions(pair) == [
        "Probes are no better than chance, so these layers are left out of (b): A (1 of 2 layers), B (1 of 2 layers)."
    ]
    for name, nets in pair.nets.items():
        pair.nets[name] = [replace(net, clean_accuracy=1.0) for net in nets]
    assert "Every net is almost perfect on clean inputs: little is left to differ." in cautions(pair)


def test_without_controls(pair):
    pair.result["controls"] = None
    assert cautions(pair) == ["No control was measured: nothing shows that the measures can fail."]


def test_nothing_before_it_is_measured(tmp_path):
    synthetic.inspection.begin(synthetic.asked(A=1, B=1), tmp_path)
    assert cautions(read(tmp_path)) == []

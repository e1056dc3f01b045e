import base64

import pytest
import torch

from muonlab.studies.features.work.controls import controls, sheet
from muonlab.studies.features.work.material import Sheet
from muonlab.studies.features.work.states import subject


def test_only_the_controls_of_what_is_measured_are_made(digits, few):
    torch.manual_seed(0)
    measured = subject(digits.pretraining().build().eval(), digits.probing(), digits.probing().test.inputs[:1])
    found = controls(measured, digits.probing(), few)
    assert found["tap"] == "blocks.0"
    assert found["rank_one"]["raw"]["effective_rank"] == pytest.approx(1, abs=1e-4)
    assert found["shuffled_labels"]["test_accuracy"] < 0.4
    assert controls(measured, digits.probing(), few, ["rank"]) == {k: found[k] for k in ("tap", "rank_one")}
    assert controls(measured, digits.probing(), few, ["margins"]) == {k: found[k] for k in ("tap", "shuffled_labels")}


def test_a_picture_is_its_bytes_row_by_row():
    picture = torch.linspace(0, 1, 12).view(3, 2, 2)
    found = sheet(Sheet(("a",), ("0",), picture=picture))
    assert (found["width"], found["height"], found["channels"]) == (2, 2, 3)
    expected = bytes((picture.permute(1, 2, 0) * 255).round().byte().flatten().tolist())
    assert base64.b64decode(found["pixels"]) == expected


def test_lines_stay_lines():
    assert sheet(Sheet(("a",), ("0", "1"), lines=(("x", "y"),)))["lines"] == [["x", "y"]]

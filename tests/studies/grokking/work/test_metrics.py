import json

import torch

from muonlab.studies.grokking.result import QUANTITIES
from muonlab.studies.grokking.work.metrics import Metrics


def append(metrics, step, alive, value):
    metrics.append(step, step / 10, alive, {q: torch.tensor([value + m for m in alive]) for q in QUANTITIES})


def test_a_line_per_evaluation_with_null_for_members_that_have_left(tmp_path):
    metrics = Metrics(tmp_path / "metrics.jsonl", 3)
    append(metrics, 0, [0, 1, 2], 0.5)
    append(metrics, 5, [0, 2], 0.25)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [0, 5]
    assert json.loads(lines[1])["train_loss"] == [0.25, None, 2.25]
    assert metrics.curve("train_loss", 1) == [1.5, None]
    assert metrics.num_bytes == (tmp_path / "metrics.jsonl").stat().st_size


def test_what_is_not_finite_is_null(tmp_path):
    metrics = Metrics(tmp_path / "metrics.jsonl", 1)
    append(metrics, 0, [0], float("nan"))
    append(metrics, 1, [0], float("inf"))
    assert metrics.curve("validation_loss", 0) == [None, None]


def test_going_on_cuts_what_came_after_the_checkpoint(tmp_path):
    path = tmp_path / "metrics.jsonl"
    metrics = Metrics(path, 2)
    append(metrics, 0, [0, 1], 0.5)
    kept = metrics.num_bytes
    append(metrics, 5, [0, 1], 0.25)
    with path.open("ab") as file:
        file.write(b'{"step": 10, "tor')
    again = Metrics(path, 2, kept)
    assert again.steps == [0]
    append(again, 5, [0, 1], 0.25)
    fresh = Metrics(tmp_path / "other.jsonl", 2)
    append(fresh, 0, [0, 1], 0.5)
    append(fresh, 5, [0, 1], 0.25)
    assert path.read_bytes() == (tmp_path / "other.jsonl").read_bytes()


def test_a_new_start_forgets_the_old_file(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text("something foreign\n")
    assert Metrics(path, 1).steps == []
    assert path.read_bytes() == b""

import json

import torch

from muonlab.train.metrics import Metrics


def make(path, num_members, num_bytes=0):
    metrics = Metrics(path, num_members)
    metrics.start(num_bytes)
    return metrics


def append(metrics, step, alive, value):
    metrics.append(step, step / 10, alive, {"loss": torch.tensor([value + m for m in alive])})


def test_a_line_per_evaluation_with_null_for_members_that_have_left_and_for_what_is_not_finite(tmp_path):
    metrics = make(tmp_path / "metrics.jsonl", 3)
    append(metrics, 0, [0, 1, 2], 0.5)
    append(metrics, 5, [0, 2], 0.25)
    append(metrics, 9, [0], float("nan"))
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines[1] == {"step": 5, "epoch": 0.5, "loss": [0.25, None, 2.25]}
    assert metrics.curve("loss", 0) == [0.5, 0.25, None]
    assert metrics.num_bytes == (tmp_path / "metrics.jsonl").stat().st_size


def test_going_on_cuts_what_came_after_the_checkpoint_and_a_new_start_forgets_the_file(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text("something foreign\n")
    metrics = make(path, 2)
    append(metrics, 0, [0, 1], 0.5)
    kept = metrics.num_bytes
    append(metrics, 5, [0, 1], 0.25)
    whole = path.read_bytes()
    with path.open("ab") as file:
        file.write(b'{"step": 10, "tor')
    again = make(path, 2, kept)
    assert again.steps == [0]
    append(again, 5, [0, 1], 0.25)
    assert path.read_bytes() == whole

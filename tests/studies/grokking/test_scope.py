import pytest

import synthetic_study as synthetic
from muonlab.studies.grokking.comparison import compare
from muonlab.studies.grokking.conditions import read
from muonlab.studies.grokking.scope import machine, scope_of, several


@pytest.mark.parametrize(
    ("words", "text"), [([], ""), (["a"], "a"), (["a", "b"], "a and b"), ([1, 2, 3], "1, 2 and 3")]
)
def test_several_words(words, text):
    assert several(words) == text


def test_the_scope_names_what_was_compared_and_no_more(tmp_path):
    cells = [synthetic.cell(t, "softmax", o, range(3)) for t in ("add", "parity") for o in ("muon", "adamw")]
    cells.append(synthetic.cell("mul", "sparsemax", "muon", range(3)))
    runs = read(synthetic.write(tmp_path, cells))
    scope = dict(scope_of(runs, compare(runs, "muon", "adamw")))
    assert scope["Tasks"] == "add (mod 97, 75% train) and parity (10 bits, 75% train)"
    assert scope["Output distribution"] == "softmax"
    assert scope["Horizon"] == "2,000 steps, evaluated every 50 steps"
    assert scope["Machine"] == "Imaginary CPU @ 2.00GHz, 2 cores, 7.7 GB, 1 thread a worker, device cpu"


def test_a_batch_is_no_larger_than_the_train_set(tmp_path):
    for batch, said in ((10**6, "7,000"), ("full", "full (7,000 rows)"), (512, "512")):
        cells = [synthetic.cell("add", "softmax", "muon", [0], protocol__batch=batch)]
        assert dict(scope_of(read(synthetic.write(tmp_path / str(batch), cells)), None))["Batch"] == said


def test_a_gpu_is_named(tmp_path):
    runs = read(synthetic.write(tmp_path, [synthetic.cell("add", "softmax", "muon", [0])]))
    text = '{"hardware": {"cpu": "One", "gpu": "Imaginary GPU"}, "device": "cuda", "seeds": [0]}'
    (tmp_path / runs.records[0].id / "env.json").write_text(text)
    assert machine(read(tmp_path)) == "One, Imaginary GPU, device cuda"


def test_several_machines_are_all_named(tmp_path):
    runs = read(synthetic.write(tmp_path))
    (tmp_path / runs.records[0].id / "env.json").write_text('{"hardware": {"cpu": "Another"}, "device": "cuda"}')
    assert machine(read(tmp_path)).startswith("Another, device cuda; and Imaginary CPU")

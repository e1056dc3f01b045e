"""The examples run with tiny settings, and what they print is what they show."""

import json
import os
import re
import runpy
import subprocess
import sys
import warnings
from importlib.util import find_spec
from pathlib import Path

import matplotlib
import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
# One thread: on a machine whose cores are all busy, threads that wait for each other make seconds into minutes.
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONWARNINGS": "error"}


@pytest.fixture
def run(monkeypatch, capsys):
    """A function that runs an example in this process and returns what it prints."""

    def act(name, arguments=""):
        monkeypatch.setattr(sys, "argv", [name, *arguments.split()])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out

    return act


def run_apart(name, arguments="", **environment):
    """Return what an example prints in a process of its own: one that starts others, or sets up other libraries."""
    command = [sys.executable, str(EXAMPLES / name), *arguments.split()]
    env = {**ENVIRONMENT, **environment}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=env)
    assert done.returncode == 0, done.stderr
    return done.stdout


def numbers(pattern, text):
    """Return the groups of the one match of a pattern, as numbers."""
    (found,) = re.findall(pattern, text)
    return tuple(map(float, (found,) if isinstance(found, str) else found))


# In tests/studies/compare.
ELSEWHERE = {"own_study.py", "compare_digits.py", "compare_lightning.py", "compare_trainer.py", "torch_muon.py"}


def test_every_example_is_run_here():
    names = {path.name for path in EXAMPLES.glob("*.py")} - ELSEWHERE
    assert [name for name in sorted(names) if f'("{name}"' not in Path(__file__).read_text()] == []


def test_plain_loop_learns_and_resumes_with_the_same_losses(run, tmp_path):
    tiny = "--steps 30 --width 32 --depth 1 --context 32 --batch 8"
    printed = run("plain_loop.py", f"{tiny} --checkpoint {tmp_path / 'checkpoint.pt'}")
    assert re.search(r"blocks\.0\.qkv\.weight +96x32 +muon +matrix, 3 blocks", printed)
    assert re.search(r"lm_head\.weight .* adamw +output head", printed)
    before, after = numbers(r"held-out loss: ([\d.]+) before, ([\d.]+) after", printed)
    assert after < before - 0.5
    step, count, difference = numbers(r"resumed at step (\d+): (\d+) losses, largest difference (\S+)", printed)
    assert (step, count, difference) == (25, 5, 0)


def test_watch_training_measures_both_optimizers_and_changes_nothing(run, tmp_path):
    printed = run("watch_training.py", f"--steps 20 --every 10 --width 16 --out {tmp_path}")
    for name in ("adamw", "muon"):
        assert re.findall(rf"^{name} +(\d+) +0\.\d+", printed, re.MULTILINE) == ["10", "20"]
        assert numbers(rf"{name}: (\d+) losses without Watch, largest difference (\S+)", printed) == (20, 0)
        assert len((tmp_path / f"watch-{name}.jsonl").read_text().splitlines()) == 2


def test_schedulers_turn_both_learning_rates_and_the_momentum(run):
    printed = run("schedulers.py")
    assert all(float(accuracy) > 0.9 for accuracy in re.findall(r"accuracy on new points: ([\d.]+)", printed))
    parts = re.split(r"\n\n(?=\w+LR\n)", printed)
    assert [part.split("\n")[0] for part in parts[1:]] == ["OneCycleLR", "SequentialLR", "LambdaLR"]
    # step, loss, learning rate of Muon, momentum, learning rate of AdamW, beta1
    row = r"^ +(\d+)" + 5 * r" +([\d.]+)" + "$"
    tables = [re.findall(row, part, re.MULTILINE) for part in parts[1:]]
    cycle, sequence, trapezoid = [list(zip(*(map(float, line) for line in table), strict=True)) for table in tables]
    assert max(cycle[2]) > 10 * cycle[2][0]
    assert max(cycle[4]) > 10 * cycle[4][0]
    assert min(cycle[3]) < 0.86 < 0.94 < max(cycle[3])
    assert min(cycle[5]) < 0.81 < 0.89 < max(cycle[5])
    assert set(sequence[3]) == {0.95}
    assert trapezoid[2][-1] < trapezoid[2][0]
    assert trapezoid[4][-1] > trapezoid[4][0]


def test_fsdp2_equals_one_process_and_resumes():
    printed = run_apart("fsdp2.py", "--steps 10")
    first, last = numbers(r"2 processes: loss ([\d.]+) -> ([\d.]+)", printed)
    assert last < first - 0.1
    assert numbers(r"largest difference of a parameter: (\S+)", printed) < (1e-5,)
    step, count, difference = numbers(r"resumed at step (\d+): (\d+) losses, largest difference (\S+)", printed)
    assert (step, count) == (5, 5)
    assert difference < 1e-6


def test_hf_trainer_says_what_it_lacks():
    if find_spec("transformers") and find_spec("accelerate"):
        pytest.skip("transformers is there")
    missing = "accelerate" if find_spec("transformers") else "transformers"
    assert run_apart("hf_trainer.py").startswith(f"skipped: {missing}")


def test_hf_trainer_takes_a_factory_and_an_optimizer_and_resumes():
    pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    # What other libraries warn of is not ours.
    printed = run_apart("hf_trainer.py", "--steps 30 --width 32 --depth 1 --context 32", PYTHONWARNINGS="default")
    for way in ("factory", "optimizers="):
        first, last = numbers(rf"{way}: MuonAdamW, loss ([\d.]+) -> ([\d.]+)", printed)
        assert last < first - 0.5
    assert numbers(r"resumed at step (\d+): largest difference of a weight (\S+)", printed) == (15, 0)


FRAMEWORKS = [
    ("accelerate_loop.py", "", ["accelerate"], 0.5),
    ("lightning_module.py", "", ["lightning"], 0.5),
    ("peft_lora.py", "--steps 20 --width 32 --depth 1", ["peft", "transformers", "accelerate"], 0.5),
    ("timm_vit.py", "", ["timm", "sklearn"], 0.3),
]


@pytest.mark.parametrize(("name", "arguments", "packages", "drop"), FRAMEWORKS)
def test_each_framework_trains_and_resumes_with_the_same_losses(name, arguments, packages, drop):
    for package in packages:
        pytest.importorskip(package, exc_type=ImportError)
    printed = run_apart(name, arguments, PYTHONWARNINGS="default")
    first, last = numbers(r"loss ([\d.]+) -> ([\d.]+) in", printed)
    assert last < first - drop
    count, difference = numbers(r"resumed at \w+ \d+: (\d+) losses, largest difference (\S+)", printed)
    assert count > 5
    assert difference == 0
    if name == "peft_lora.py":
        assert numbers(r"merged: largest difference of a logit (\S+)", printed) < (1e-5,)


def test_the_notebook_prints_what_it_shows(monkeypatch, capsys):
    monkeypatch.chdir(EXAMPLES)
    matplotlib.use("Agg")
    cells = json.loads((EXAMPLES / "read_comparison.ipynb").read_text())["cells"]
    scope = {}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "FigureCanvasAgg is non-interactive")  # plt.show()
        for cell in cells:
            if cell["cell_type"] != "code":
                continue
            exec(compile("".join(cell["source"]), "notebook", "exec"), scope)
            shown = [line for output in cell["outputs"] for line in output.get("text", [])]
            assert capsys.readouterr().out == "".join(shown)
    runs, trials = (scope["plt"].figure(number).axes[0] for number in scope["plt"].get_fignums())
    scope["plt"].close("all")
    assert len(runs.lines) == 12  # five seeds of each optimizer, and two means
    assert [len(points.get_offsets()) for points in trials.collections] == [16, 16]

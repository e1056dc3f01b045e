"""`muonlab inspect` as a user meets it: what it prints, what it leaves behind, and what it says of a mistake."""

import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file

from muonlab.cli import main

NETS = """
from torch import nn

def build():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 10))

def of_three():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
"""
FEW = ("net=some_nets:build", "data=digits", "measures=rank", "measure.examples=20")
WORDS = ("inspect", "first.safetensors", "second.pt", *FEW)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a user's nets, two checkpoints, and an inspection of them by the command line."""
    folder = tmp_path_factory.mktemp("user")
    (folder / "some_nets.py").write_text(NETS)
    (folder / "pictures").mkdir()
    (folder / "torn").mkdir()
    (folder / "torn" / "config.json").write_text("{")
    scope = {}
    exec(NETS, scope)
    torch.manual_seed(0)
    save_file(scope["build"]().state_dict(), folder / "first.safetensors")
    torch.save(scope["build"]().state_dict(), folder / "second.pt")
    save_file(scope["of_three"]().state_dict(), folder / "torn" / "model.safetensors")
    save_file(scope["of_three"]().state_dict(), folder / "three.safetensors")
    (folder / "words.txt").write_text("To be, or not to be, that is the question. " * 200)
    command = [sys.executable, "-m", "muonlab.cli", *WORDS]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    (folder / "output.txt").write_text(done.stdout)
    return folder


@pytest.fixture
def muonlab(place, capsys, monkeypatch):
    """A function that runs the command line in that folder and returns exit status, output and errors."""
    monkeypatch.chdir(place)

    def call(*words):
        with pytest.raises(SystemExit) as stopped:
            main([str(word) for word in words])
        captured = capsys.readouterr()
        return stopped.value.code, captured.out, captured.err

    return call


def test_it_ends_with_a_verdict_its_caveat_and_a_report(place):
    output = (place / "output.txt").read_text()
    assert "first against second, one checkpoint each, on digits: (d) rank: " in output
    assert "about these checkpoints, not about the optimizers or recipes that made them" in output
    assert output.endswith("Report: runs/inspect/report.html\n")
    assert (place / "runs" / "inspect" / "report.html").read_text().startswith("<!doctype html>")


def test_the_same_command_again_measures_nothing(place, muonlab):
    (result,) = place.glob("runs/inspect/*/result.json")
    before = result.stat().st_mtime_ns
    status, output, errors = muonlab(*WORDS)
    assert (status, errors) == (0, "")
    assert "1 job done already, none to do" in output
    assert result.stat().st_mtime_ns == before


def test_it_is_listed_shown_and_reported(place, muonlab):
    assert muonlab("ls")[1].split()[-5:] == ["runs/inspect", "inspect", "none", "1", "done"]
    (job,) = json.loads(muonlab("show", "runs/inspect", "--json")[1])
    assert (job["name"], job["status"], job["config"]["study"]) == ("measures of first and second", "done", "inspect")
    (place / "runs" / "inspect" / "report.html").unlink()
    assert "Report: runs/inspect/report.html" in muonlab("report", "runs/inspect")[1]


def test_taps_are_printed_with_their_shapes(muonlab):
    status, output, _ = muonlab(*WORDS[:2], *FEW, "--taps")
    assert status == 0
    rows = [line.split() for line in output.splitlines()]
    assert rows[0] == ["group", "module", "output", "tap"]
    assert ["first", "1", "1", "x", "16", "tap"] in rows
    assert ["first", "5", "1", "x", "10"] in rows


def test_a_dry_run_says_what_would_be_measured_and_writes_nothing(place, muonlab):
    status, output, _ = muonlab(*WORDS, "out=other", "--dry-run")
    assert status == 0
    assert "rank, on digits (images), 20 test examples at most" in output
    assert "time: about" in output
    assert not (place / "other").exists()
    assert (
        muonlab(*WORDS, "--dry-run")[1].splitlines()[-1]
        == "every job is done already in runs/inspect; nothing would run"
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["first.safetensors", "dta=digits"], "unknown setting 'dta'; did you mean 'data'?"),
        (["third.pt"], "there is no checkpoint 'third.pt'"),
        (["first.safetensors"], "no data is given; expected data=PATH"),
        (["first.safetensors", "data=picturs"], "there is no file or folder 'picturs'; did you mean 'pictures'?"),
        ([], "no checkpoint is given"),
        (["some_nets.py", "data=digits"], "some_nets.py is no checkpoint"),
        (["torn", "data=digits"], "torn/config.json is not JSON; expected the config.json that save_pretrained writes"),
        (["first.safetensors", "data=digits", "net=some_nets:bild", "--taps"], "net=some_nets:bild"),
        (["first.safetensors", "data=digits", "device=gpu"], ""),
    ],
)
def test_a_mistake_in_the_command_has_status_2(words, message, muonlab):
    status, output, errors = muonlab("inspect", *words)
    assert (status, output) == (2, "")
    assert errors.startswith(f"muonlab: {message}")


# Bug: a study began, and its job failed after ten seconds.
@pytest.mark.parametrize("also", [[], ["--dry-run"]])
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["first.safetensors", *FEW[1:]], "first: first.safetensors holds weights alone; give net=package.module:fun"),
        (["first.safetensors", "net=some_nets:of_three", *FEW[1:]], "first.safetensors: "),
        (["three.safetensors", "net=some_nets:of_three", *FEW[1:]], "three: the net has 3 outputs and the data 10 cl"),
        (["first.safetensors", FEW[0], "data=words.txt"], "first: the net does not take token ids"),
    ],
)
def test_what_does_not_fit_is_found_before_anything_is_written(words, message, also, muonlab, place):
    status, output, errors = muonlab("inspect", *words, *also, "out=bad")
    assert (status, output) == (2, "")
    assert errors.startswith(f"muonlab: {message}")
    assert not (place / "bad").exists()


def test_a_folder_of_another_study_is_refused(muonlab, place):
    (place / "taken").mkdir()
    (place / "taken" / "study.json").write_text('{"study": "grokking"}')
    status, _, errors = muonlab(*WORDS, "out=taken")
    assert status == 1
    assert "holds the study 'grokking', not 'inspect'" in errors

"""`muonlab inspect` as a user meets it: what it prints, what it leaves behind, and what it says of a mistake."""

import contextlib
import io
import json

import numpy as np
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
FEW = ("net=some_nets:build", "data=pictures.npz", "measures=rank", "measure.examples=20")
WORDS = ("inspect", "first.safetensors", "second.pt", *FEW)


def call(*words):
    """Run the command line and return exit status, output and errors."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as stopped:
        main([str(word) for word in words])
    return stopped.value.code, out.getvalue(), err.getvalue()


@pytest.fixture(scope="module")
def inspected(tmp_path_factory):
    """A folder with a user's nets, two checkpoints, and an inspection of them by the command line."""
    folder = tmp_path_factory.mktemp("user")
    (folder / "some_nets.py").write_text(NETS)
    (folder / "pictures").mkdir()
    (folder / "torn").mkdir()
    (folder / "torn" / "config.json").write_text("{")
    exec(NETS, scope := {})
    torch.manual_seed(0)
    save_file(scope["build"]().state_dict(), folder / "first.safetensors")
    torch.save(scope["build"]().state_dict(), folder / "second.pt")
    weights = scope["build"]().state_dict()
    torch.save({name: torch.full_like(weight, torch.nan) for name, weight in weights.items()}, folder / "nan.pt")
    torch.save({name: weight.to(torch.complex64) for name, weight in weights.items()}, folder / "complex.pt")
    save_file(scope["of_three"]().state_dict(), folder / "three.safetensors")
    (folder / "words.txt").write_text("To be, or not to be, that is the question. " * 200)
    images = np.random.default_rng(0).integers(0, 256, (200, 8, 8), dtype=np.uint8)
    np.savez(folder / "pictures.npz", images=images, labels=np.arange(200) % 10)
    with contextlib.chdir(folder):
        status, output, errors = call(*WORDS)
    assert status == 0, errors
    return folder, output


@pytest.fixture
def place(inspected, monkeypatch):
    """That folder, made the current one."""
    monkeypatch.chdir(inspected[0])
    return inspected[0]


def test_it_ends_with_a_verdict_its_caveat_and_a_report(inspected):
    folder, output = inspected
    assert "Images were standardised by their own mean and deviation, as none were given" in output
    assert "first minus second, one checkpoint each, on pictures." in output
    assert "This is about these checkpoints, not about the recipes that made them" in output
    assert output.endswith("Report: runs/inspect/report.html\n")
    assert (folder / "runs" / "inspect" / "report.html").read_text().startswith("<!doctype html>")


def test_the_same_command_again_measures_nothing(place):
    (result,) = place.glob("runs/inspect/*/result.json")
    before = result.stat().st_mtime_ns
    status, output, errors = call(*WORDS)
    assert (status, errors) == (0, "")
    assert "1 job done already, none to do" in output
    assert result.stat().st_mtime_ns == before
    dry = call(*WORDS, "--dry-run")[1].splitlines()[-1]
    assert dry == "every job is done already in runs/inspect; nothing would run"


def test_it_is_listed_shown_and_reported(place):
    line = call("ls")[1].splitlines()[-1].split()
    assert line[:5] == ["runs/inspect", "inspect", "none", "1", "done"]
    assert line[5:7] == ["Undecided:", "rank."]
    (job,) = json.loads(call("show", "runs/inspect", "--json")[1])
    assert (job["name"], job["status"], job["config"]["study"]) == ("measures of first and second", "done", "inspect")
    (place / "runs" / "inspect" / "report.html").unlink()
    assert "Report: runs/inspect/report.html" in call("report", "runs/inspect")[1]


@pytest.mark.usefixtures("place")
def test_taps_are_printed_with_their_shapes():
    status, output, _ = call(*WORDS[:2], *FEW, "--taps")
    rows = [line.split() for line in output.splitlines()]
    assert (status, rows[0]) == (0, ["group", "module", "output", "tap"])
    assert ["first", "1", "1", "x", "16", "tap"] in rows
    assert ["first", "5", "1", "x", "10"] in rows


def test_a_dry_run_says_what_would_be_measured_and_writes_nothing(place):
    status, output, _ = call(*WORDS, "out=other", "--dry-run")
    assert status == 0
    assert "rank, on pictures.npz (images), 20 test examples at most" in output
    assert "time: about" in output
    assert not (place / "other").exists()


# Bug: a study began, and its job failed after ten seconds.
@pytest.mark.parametrize("also", [[], ["--dry-run"]])
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["first.safetensors", "data=picturs"], "there is no file or folder 'picturs'; did you mean 'pictures'?"),
        (["some_nets.py", FEW[1]], "some_nets.py is not a checkpoint"),
        (["torn", FEW[1]], "torn/config.json is not JSON; expected the config.json that save_pretrained writes"),
        (["first.safetensors", FEW[1], "net=some_nets:bild"], "net=some_nets:bild"),
        (["first.safetensors", FEW[1], "device=gpu"], ""),
        (["first.safetensors", *FEW[1:]], "first: first.safetensors holds weights alone; give net=package.module:fun"),
        (["first.safetensors", "net=some_nets:of_three", *FEW[1:]], "first.safetensors: "),
        (["three.safetensors", "net=some_nets:of_three", FEW[1]], "three: the net has 3 outputs and the data 10 cl"),
        (["first.safetensors", FEW[0], "data=words.txt"], "first: the net does not take token ids"),
        (
            ["first.safetensors", "Muon=sedes", *FEW],
            "unknown setting 'Muon'; there is no 'sedes', should Muon be a group",
        ),
        (["nan.pt", *FEW], "nan.pt has weights that are not finite, and nan no other checkpoint"),
        (["complex.pt", *FEW], "complex.pt: 1.weight is complex64 in the file and float32 in the net; complex weights"),
        (["first.safetensors", "second.pt", *FEW[:2], "measures=rank,cka", "measure.examples=9"], "cka needs 20 test"),
        (["first.safetensors", *FEW, "mean=1", "deviation=0"], "deviation=0 is not valid; expected greater than 0\n"),
    ],
)
def test_a_mistake_has_status_2_before_anything_is_written(words, message, also, place):
    status, output, errors = call("inspect", *words, *also, "out=bad")
    assert (status, output) == (2, "")
    assert errors.startswith(f"muonlab: {message}")
    assert not (place / "bad").exists()


def test_a_folder_of_another_study_is_refused(place):
    (place / "taken").mkdir()
    (place / "taken" / "study.json").write_text('{"study": "grokking"}')
    status, _, errors = call(*WORDS, "out=taken")
    assert status == 1
    assert "holds the study 'grokking', not 'inspect'" in errors

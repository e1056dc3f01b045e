"""The command line as a user meets it: exit status, messages, and no traceback for a user's mistake."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch

import growing_study
from muonlab import __version__, running
from muonlab.cli import main

TINY = ("run", "grokking", "preset=tiny", "seeds=2", "budget=60")


@pytest.fixture
def muonlab(capsys):
    """A function that runs the command line in this process and returns exit status, output and errors."""

    def call(*words):
        with pytest.raises(SystemExit) as stopped:
            main([str(word) for word in words])
        captured = capsys.readouterr()
        return stopped.value.code, captured.out, captured.err

    return call


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A tiny study, run by the command line in a process of its own."""
    folder = tmp_path_factory.mktemp("runs") / "grokking"
    command = [sys.executable, "-m", "muonlab.cli", *TINY, f"out={folder}", "workers=1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


def test_a_run_ends_with_a_verdict_and_a_report(study):
    folder, output = study
    assert f"{folder}: 0 jobs done already, about 4 to do" in output
    assert "[4 done] add softmax" in output
    assert f"Report: {folder / 'report.html'}" in output
    assert (folder / "report.html").read_text().startswith("<!doctype html>")


def test_the_same_command_again_computes_nothing(study, muonlab):
    folder, _ = study
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*/*.json*")}
    status, output, _ = muonlab(*TINY, f"out={folder}")
    assert status == 0
    assert "4 jobs done already, none to do" in output
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_show_as_json_has_one_object_per_cell(study, muonlab):
    folder, _ = study
    status, output, _ = muonlab("show", folder, "--json")
    cells = json.loads(output)
    assert status == 0
    assert len(cells) == 4
    for cell in cells:
        assert cell["status"] == "done"
        assert cell["seconds_per_member_step"] > 0
        assert cell["config"]["study"] == "grokking"
        assert (cell["case"], cell["requests"]) == ("add softmax", [1])
        for member in cell["members"]:
            for crossing in ("first_crossing", "sustained_crossing"):
                assert (member[crossing] is None) == (member[f"{crossing}_reason"] is not None)


def test_show_is_a_table_and_finds_a_cell_by_the_start_of_its_id(study, muonlab):
    folder, _ = study
    status, output, _ = muonlab("show", folder)
    assert status == 0
    assert "add softmax muon, seeds 0-1" in output
    assert "first crossing, in steps" in output
    identity = output.splitlines()[1].split()[0]
    assert len(json.loads(muonlab("show", folder, "--cell", identity[:6], "--json")[1])) == 1
    status, _, errors = muonlab("show", folder, "--cell", "zzz")
    assert status == 1
    assert "has no job 'zzz'" in errors


def test_ls_finds_the_study(study, muonlab):
    folder, _ = study
    assert json.loads(muonlab("ls", folder.parent, "--json")[1])[0]["cells"] == {"done": 4}
    assert "4 done" in muonlab("ls", folder.parent)[1]


# Bug: after an upgrade, which may judge or draw otherwise, `report` kept the old page.
def test_report_is_written_again_whenever_it_is_asked_for(study, muonlab):
    folder, _ = study
    report = folder / "report.html"
    report.write_text("as another version wrote it")
    status, output, _ = muonlab("report", folder)
    assert (status, f"Report: {report}\n" in output) == (0, True)
    assert "as another version wrote it" not in report.read_text()


def test_a_report_whose_results_were_removed_is_kept(tmp_path, study, muonlab):
    folder = shutil.copytree(study[0], tmp_path / "bare")
    for result in folder.rglob("result.json"):
        result.unlink()
    (folder / "report.html").write_text("all that is left")
    status, _, errors = muonlab("report", folder)
    assert (status, (folder / "report.html").read_text()) == (0, "all that is left")
    assert "holds no results of its jobs any more" in errors


def test_a_dry_run_prints_the_cells_and_writes_nothing(tmp_path, muonlab):
    status, output, _ = muonlab(*TINY, f"out={tmp_path / 'study'}", "--dry-run")
    assert status == 0
    assert "add softmax muon, random labels, seed 0" in output
    assert "4 jobs, into" in output
    assert "time: about" in output
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_counts_what_is_done_and_looks_at_the_folder(study, tmp_path, muonlab):
    folder, _ = study
    assert "every job is done already" in muonlab(*TINY, f"out={folder}", "--dry-run")[1]
    (tmp_path / "thesis.txt").write_text("precious")
    status, _, errors = muonlab(*TINY, f"out={tmp_path}", "--dry-run")
    assert status == 1
    assert "is not empty and holds no muonlab study" in errors


def test_a_size_that_no_machine_has_is_said_before_anything_runs(muonlab, tmp_path):
    huge = ("width=32768", "heads=2", "depth=1000", f"out={tmp_path / 'study'}")
    status, _, errors = muonlab("run", "grokking", *huge, "--dry-run")
    assert status == 2
    assert errors.startswith("muonlab: a cell of this size needs")
    assert errors.count("\n") == 1


def test_a_second_command_adds_to_the_first_and_a_torn_result_is_said_and_computed_again(tmp_path, muonlab, study):
    folder = tmp_path / "study"
    shutil.copytree(study[0], folder)
    torn = next(
        path
        for path in sorted(folder.glob("*/result.json"))
        if "adamw, seeds" in (path.parent / "config.json").read_text()
    )
    whole = torn.read_bytes()
    torn.write_text('{"cell": ')
    assert "the next run sets it aside under another name" in muonlab("show", folder)[1]

    status, output, errors = muonlab(*TINY, "muon.lr=0.05", "control_seeds=0", f"out={folder}", "workers=1")
    assert (status, errors) == (0, "")
    assert f"{folder}: 0 jobs done already, about 2 to do" in output
    assert f"{torn} cannot be read; it is set aside as result.json.torn" in output
    assert torn.read_bytes() == whole
    assert torn.with_name("result.json.torn").read_text() == '{"cell": '

    assert json.loads(muonlab("ls", folder, "--json")[1])[0]["cells"] == {"done": 5}
    shown = json.loads(muonlab("show", folder, "--json")[1])
    assert sorted(cell["requests"] for cell in shown) == [[1], [1], [1], [1, 2], [2]]
    table = muonlab("show", folder)[1]
    assert "[2] muonlab run grokking preset=tiny seeds=2 budget=60 muon.lr=0.05 control_seeds=0" in table
    page = (folder / "report.html").read_text()
    assert all(cell["id"] in page for cell in shown)
    assert "Muon lr=0.02" in page
    assert "Muon lr=0.05" in page


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "groking"], "unknown study 'groking'; did you mean 'grokking'?"),
        (["run", "grokking", "preset=lapto"], "unknown preset 'lapto'; did you mean 'laptop'?"),
        (["run", "grokking", "tasks=ad"], "unknown task 'ad'; did you mean 'add'?"),
        (["run", "grokking", "losses=softmx"], "unknown loss 'softmx'; did you mean 'softmax'?"),
        (["run", "grokking", "optimizers=adam"], "unknown optimizer 'adam'; did you mean 'adamw'?"),
        (["run", "grokking", "mun.lr=1"], "unknown setting 'mun.lr'; did you mean 'muon.lr'?"),
        (["run", "grokking", "muon.lr=fast"], "muon.lr=fast is not valid; expected a number"),
        (["run", "grokking", "muon.lr=-0.1"], "muon.lr=-0.1 is not valid; expected at least 0"),
        (["run", "grokking", "tasks=div", "modulus=60"], "modulus=60 is not prime"),
        (["run", "grokking", "=3"], "'=3' is not a setting; expected key=value"),
        (["run", "grokking", "seeds=0"], "seeds=0 is not valid; expected one whole number from 1 to 10000"),
        (["run", "grokking", "workers=0"], "workers=0 is not valid; expected one whole number from 1 to 1024"),
        (["run", "grokking", "device=cuda:77"], "device=cuda:77 is not on this machine; there is cpu"),
    ],
)
def test_a_mistake_in_the_command_has_status_2_and_one_line(words, message, muonlab):
    status, output, errors = muonlab(*words)
    assert status == 2
    assert output == ""
    assert errors.startswith(f"muonlab: {message}")
    assert errors.count("\n") == 1


@pytest.mark.parametrize("words", [["rnu", "grokking"], ["show", "--jsn"], ["run"]])
def test_a_verb_or_flag_that_is_not_there_has_status_2(words, muonlab):
    status, output, errors = muonlab(*words)
    assert status == 2
    assert "Traceback" not in output + errors


@pytest.mark.parametrize("words", [["--trials=4"], ["--trials", "4"]])
def test_a_setting_given_as_a_flag_is_told_to_have_no_dashes(words, muonlab):
    status, _, errors = muonlab("compare", "task=modular", *words)
    assert (status, "settings have no dashes; write trials=4" in errors) == (2, True)


def test_a_folder_that_cannot_be_used_has_status_1(tmp_path, muonlab):
    (tmp_path / "file").write_text("")
    assert muonlab(*TINY, f"out={tmp_path / 'file'}")[0] == 1
    status, _, errors = muonlab("show", tmp_path)
    assert status == 1
    assert "holds no study" in errors
    assert muonlab("ls", tmp_path / "nowhere")[0] == 1


def test_a_disk_that_fills_while_the_report_is_written_is_explained(study, muonlab, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device", "report.html")

    folder, _ = study
    (folder / "report.html").unlink(missing_ok=True)
    monkeypatch.setattr("muonlab.report.page.write", full)
    status, _, errors = muonlab("report", folder)
    assert status == 1
    assert errors.startswith("muonlab: the disk that holds report.html is full; free some space")


def test_a_pipe_that_closes_early_is_no_error(study):
    folder, _ = study
    command = f"{sys.executable} -m muonlab.cli show {folder} --json | head -c 10"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True)
    assert "Traceback" not in done.stderr


# The command line in a process of its own, with the squares in the place of features.
SQUARES = """
import sys
import growing_study
from muonlab import __version__
from muonlab.cli import main
sys.modules["muonlab.studies.features"] = growing_study
main(sys.argv[1:])
"""


@pytest.mark.parametrize(
    ("signals", "status"), [([signal.SIGINT], 130), ([signal.SIGINT, signal.SIGINT], 130), ([signal.SIGTERM], 143)]
)
def test_a_signal_stops_cleanly_and_the_same_command_goes_on(squares, muonlab, tmp_path, signals, status):
    words, folder = (*squares[0], "workers=1", "slow=9"), squares[1]
    process = subprocess.Popen(
        [sys.executable, "-c", SQUARES, *words],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )
    deadline = time.monotonic() + 60
    pids: list[str] = []
    while not any(pids) and time.monotonic() < deadline:
        time.sleep(0.01)
        pids = [path.read_text() for path in folder.glob("*/pid")]
    for each in signals:
        process.send_signal(each)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == status
    assert errors == "muonlab: stopped; done and kept: 1 job. The same command goes on from here\n"
    with pytest.raises(ProcessLookupError):  # its worker has ended with it
        os.kill(int(pids[0]), 0)
    status, output, _ = muonlab(*words)
    assert status == 0
    assert "1 job done already, about 2 to do" in output


@pytest.fixture
def squares(tmp_path, monkeypatch):
    """The words that run a study of jobs, of squares, in the place of features; and its folder."""
    growing_study.install(monkeypatch, tmp_path)
    folder = tmp_path / "runs" / "features"
    return ("run", "features", f"out={folder}"), folder


def test_a_study_of_jobs_runs_to_its_end_and_the_same_command_again_does_nothing(squares, muonlab):
    words, folder = squares
    status, output, errors = muonlab(*words, "workers=2")
    assert (status, errors) == (0, "")
    assert f"{folder}: 0 jobs done already, about 3 to do" in output
    assert "[3 done] square of 81: done in" in output
    end = ["The largest square is 6561.", "It is odd.", "So was the first.", "", f"Report: {folder / 'report.html'}"]
    assert output.splitlines()[-5:] == end
    assert (folder / "report.html").read_text().startswith("<!doctype html>")
    status, output, _ = muonlab(*words)
    assert status == 0
    assert "3 jobs done already, none to do" in output
    assert "square of" not in output


def test_open_shows_the_page_while_a_study_runs_and_its_report_at_the_end(squares, muonlab, tmp_path, monkeypatch):
    pytest.importorskip("uvicorn")
    browser, seen = tmp_path / "browser", tmp_path / "seen"
    browser.write_text(f'#!/bin/sh\necho "$1" >> {seen}\n')
    browser.chmod(0o755)
    monkeypatch.setenv("BROWSER", f"{browser} %s")
    words, folder = squares
    pages = []
    start = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda words, **how: pages.append(each := start(words, **how)) or each)
    assert muonlab(*words, "workers=1", "--open")[0] == 0
    assert seen.read_text().splitlines()[-1] == (folder / "report.html").resolve().as_uri()
    (page,) = [each for each in pages if "serve" in each.args]
    assert page.args[-3:] == ["serve", str(folder), "--open"]
    assert page.returncode is not None, "it ends with the study"


# Bug: --open was dropped with a study's file, and compare and inspect did not know it.
@pytest.mark.parametrize(
    "words",
    [
        ["run", "grokking", "preset=tiny"],
        ["run", "study.toml"],
        ["run", "compared.toml"],
        ["compare", "opened.py:task"],
        ["inspect", "a.pt", "net=opened.py:net", "data=digits", "measures=rank"],
    ],
)
def test_every_verb_that_runs_takes_open(words, muonlab, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    net = "nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 10))"
    (tmp_path / "opened.py").write_text(
        f"from torch import nn\n\ndef net():\n    return {net}\n\ndef task(seed):\n    raise NotImplementedError\n"
    )
    (tmp_path / "study.toml").write_text('study = "grokking"\npreset = "tiny"\n')
    (tmp_path / "compared.toml").write_text('study = "compare"\ntask = "opened.py:task"\n')
    exec(f"from torch import nn\nnet = {net}", scope := {})
    torch.save(scope["net"].state_dict(), tmp_path / "a.pt")
    opened = []
    monkeypatch.setattr(running, "run", lambda package, asked, folder, how: opened.append(how.is_opened) or 0)
    for also in ([], ["--open"]):
        assert muonlab(*words, *also)[0] == 0
    assert opened == [False, True]


def test_a_job_that_fails_has_status_1_and_the_report_still_comes(squares, muonlab):
    words, folder = squares
    status, output, errors = muonlab(*words, "bad=9")
    assert status == 1
    assert "square of 9: FAILED: ValueError: 9 is a bad number" in output
    assert errors == f"muonlab: 1 job failed; `muonlab show {folder}` says why, the same command tries it again\n"
    assert "9 is a bad number" in muonlab("show", folder)[1]
    assert (folder / "report.html").exists()


def test_the_report_names_what_was_asked_before(squares, muonlab):
    words, folder = squares
    muonlab(*words, "bad=7")
    assert "Also in this folder" not in (folder / "report.html").read_text()
    muonlab(*words)
    page = (folder / "report.html").read_text()
    assert "Also in this folder, asked before: muonlab run features preset=laptop bad=7 (3 of 3 jobs done)" in page


def test_ctrl_c_keeps_the_jobs_that_are_done(squares, muonlab, monkeypatch):
    words, folder = squares
    jobs_of, asked = growing_study.jobs_of, []

    def stop(study, results):
        asked.append(len(results))
        if asked.count(1) == 1:
            raise KeyboardInterrupt
        return jobs_of(study, results)

    with monkeypatch.context() as patch:
        patch.setattr(growing_study, "jobs_of", stop)
        status, output, errors = muonlab(*words)
    assert status == 130
    assert "[1 done] square of 3" in output
    assert errors == "muonlab: stopped; done and kept: 1 job. The same command goes on from here\n"
    assert not (folder / "report.html").exists()
    assert muonlab(*words)[0] == 0


def test_a_folder_of_another_study_is_refused(squares, muonlab, study):
    status, _, errors = muonlab("run", "features", f"out={study[0]}")
    assert status == 1
    assert "holds the study 'grokking', not 'features'" in errors


def test_a_study_that_this_version_does_not_know_is_said(tmp_path, muonlab):
    asked = {"study": "sleep", "preset": "laptop", "settings": {}, "config": {}}
    (tmp_path / "study.json").write_text(json.dumps(asked))
    status, _, errors = muonlab("report", tmp_path)
    assert status == 1
    known = "grokking, features, components, transfer, compare and inspect"
    assert f"holds the study 'sleep'; this version of muonlab reports {known}" in errors


def test_the_module_is_the_command_and_completion_can_be_installed(tmp_path):
    environment = {**os.environ, "HOME": str(tmp_path)}
    command = [sys.executable, "-m", "muonlab"]
    version = subprocess.run([*command, "--version"], env=environment, capture_output=True, text=True, check=True)
    assert version.stdout.strip() == __version__
    done = subprocess.run([*command, "--install-completion", "--shell", "bash"], env=environment, capture_output=True)
    assert done.returncode == 0
    (script,) = tmp_path.rglob("completions/muonlab")
    assert "inspect" in script.read_text()

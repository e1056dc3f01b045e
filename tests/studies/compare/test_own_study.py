"""A study of a user's own, written in a file outside of the package: the example, and what it may get wrong."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from muonlab.cli import main
from muonlab.jobs import store
from muonlab.studies import of_file
from muonlab.studies.compare import analyse, compare_optimizers, jobs_of
from muonlab.studies.compare.jobs import steps
from muonlab.studies.compare.work.job import check, run
from muonlab.study.settings import UsageError

EXAMPLE = "examples/own_study.py"
TINY = {"seeds": 6, "search_seeds": 1, "budget": 12, "evaluations": 3, "extensions": 0}
WORDS = ["run", EXAMPLE, "workers=1", *(f"{key}={value}" for key, value in TINY.items())]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with the example in it."""
    shutil.copytree(Path(__file__).parents[3] / "examples", tmp_path / "examples", ignore=lambda *_: ["__pycache__"])
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def study(folder):
    return of_file(EXAMPLE)


def results(asked, place):
    """Do all jobs of a study in this process, and return their results."""
    found = {}
    while todo := [job for job in jobs_of(asked, found) if job.id not in found]:
        for job in todo:
            found[job.id] = run(config=job.config, folder=str(place / job.id))
    return found


def tables_of(found):
    return {element.name: element for part in found.sections for element in part.elements if hasattr(element, "rows")}


def test_killed_and_run_again_it_ends_with_the_same_bytes_and_a_report(study, folder, tmp_path, capsys, monkeypatch):
    command = [sys.executable, "-m", "muonlab.cli", *WORDS]
    with subprocess.Popen(command, cwd=folder, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        next(line for line in process.stdout if line.startswith("[2 done]"))
        process.send_signal(signal.SIGKILL)
    out = folder / "runs" / "own_study"
    assert 2 <= len(store.Results(out)) < 7
    with pytest.raises(SystemExit) as stopped:
        main(WORDS)
    assert stopped.value.code == 0
    words = "lion against adamw, at equal budget and each with its own tuned learning rate: (a) training:"
    assert words in capsys.readouterr().out
    assert (out / "report.html").exists()

    asked = study.plan(EXAMPLE, TINY)
    alone = results(asked, tmp_path / "alone")
    assert sorted(alone) == sorted(store.Results(out))
    for name in alone:
        for file in ("result.json", "metrics.jsonl"):
            assert (out / name / file).read_bytes() == (tmp_path / "alone" / name / file).read_bytes()

    # -- the report needs nothing of the user's, and the command that it names is the one to give ---------------------
    moved = shutil.copytree(out, tmp_path / "elsewhere" / "moved", ignore=shutil.ignore_patterns("report.html"))
    shutil.rmtree(folder / "examples")
    monkeypatch.chdir(moved.parent)
    with pytest.raises(SystemExit) as stopped:
        main(["report", "moved"])
    assert stopped.value.code == 0
    assert (moved / "report.html").exists()
    assert store.read(out).newest.command("compare").startswith(f"muonlab run {EXAMPLE} seeds=6 ")

    # -- what the report says ---------------------------------------------------------------------------------------
    tables = tables_of(analyse(out))
    assert [(row[0], row[-1]) for row in tables["results"].rows] == [("lion", 6), ("adamw", 6)]
    assert [row[0] for row in tables["controls"].rows] == ["shuffled labels", "the first arm against itself"]
    assert [row[1] for row in tables["claims"].rows] == ["validation loss", "test accuracy"]
    finals = [step for step in steps(asked, alone) if (step.role, step.arm) == ("final", "lion")]
    last = [member["validation_loss"][-1] for step in finals for member in alone[step.job.id]["members"]]
    assert tables["claims"].rows[0][3] == pytest.approx(sum(last) / 6)


def invented(asked):
    """Return results of all jobs without any training: the validation loss is the rate."""
    found = {}
    while todo := [step for step in steps(asked, found) if step.job.id not in found]:
        for step in todo:
            members = [
                {"point": k, "seed": seed, "validation_loss": [point["lr"]], "diverged_at": None}
                for k, point in enumerate(step.config.points)
                for seed in step.config.seeds
            ]
            found[step.job.id] = {"points": list(step.config.points), "members": members}
    return found


@pytest.mark.parametrize(("seeds", "covered"), [(12, 12), (7, 7), (6, 7), (3, 5)])
def test_more_seeds_or_fewer_never_compute_the_first_ones_again(study, seeds, covered):
    found = invented(study.plan(settings={"seeds": 7, "extensions": 0}))
    known = steps(study.plan(settings={"seeds": seeds, "extensions": 0}), found)
    finals = {step.config.seeds: step.job.id in found for step in known if (step.role, step.arm) == ("final", "lion")}
    assert sorted(seed for own in finals for seed in own) == list(range(covered))
    assert [own for own, is_done in finals.items() if not is_done] == ([tuple(range(7, 12))] if seeds == 12 else [])


def test_the_rate_of_the_smallest_loss_is_chosen_and_a_search_goes_on_beyond_an_edge(study):
    asked = study.plan(settings={"seeds": 1, "extensions": 1, "lion.lr": ["0.1", "0.2"]})
    own = [
        (step.role, tuple(point["lr"] for point in step.config.points))
        for step in steps(asked, invented(asked))
        if step.arm == "lion"
    ]
    assert own == [("search", (0.1, 0.2)), ("search", (0.05,)), ("final", (0.05,)), ("control", (0.05,))]


def test_a_command_changes_what_the_file_says(study):
    asked = study.plan("file.py", {"budget": 9, "lion.weight_decay": 0.5, "adamw.lr": ["1", "2"]})
    assert (asked.training.budget, asked.training.batch) == (9, 64)
    assert asked.optimizers["lion"].arguments == {"weight_decay": 0.5}
    assert asked.searches["adamw"].rates == (1.0, 2.0)
    assert asked.trained.net.name == f"{EXAMPLE}:mlp"
    with pytest.raises(UsageError, match=r"unknown setting 'bugdet'; did you mean 'budget'"):
        study.plan(settings={"bugdet": 9})


OWN = """
import torch
from torch import nn

def net(shape): return nn.Linear(shape[0], 3)
def wide(classes): return nn.Linear(5, classes)
def hungry(width): return nn.Linear(2, 3)
def number(): return 3
def data(): return [(torch.zeros(6, 2), torch.arange(6) % 3)] * 3
def two(): return [(torch.zeros(6, 2), torch.arange(6) % 3)] * 2
def floats(): return [(torch.zeros(6, 2), torch.zeros(6))] * 3
def broken(): return [(torch.full((6, 2), torch.nan), torch.arange(6) % 3)] * 3
def fails(): raise OSError("no disk")
def mean(logits, labels): return nn.functional.cross_entropy(logits, labels)
def hard(logits, labels): return (logits.argmax(1) != labels).float()
"""
ARMS = {"sgd": ("sgd", {"lr": [0.1, 0.2]})}
CLAIMS = [("a", "Loss", "the loss is lower", ("validation_loss",))]


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A function that makes a study of nets and data of a user's file, with some of its fields replaced."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(OWN)

    def make(**fields):
        chosen = {"question": "?", "net": "own.py:net", "data": "own.py:data", "arms": ARMS, "claims": CLAIMS} | fields
        return compare_optimizers(**chosen).plan()

    return make


@pytest.mark.parametrize(
    ("fields", "message"),
    [  # what the file says
        ({"net": "resnet"}, r"net=resnet is not valid; expected a function that makes a torch.nn.Module"),
        ({"net": 3}, "net=3 is not valid; expected a function"),
        ({"data": "missing.zip"}, "data=missing.zip: there is no such file or folder; expected digits, a path, or a"),
        ({"loss": "sofmax"}, "loss=sofmax is not valid; expected softmax, stablemax, sparsemax, or a function"),
        ({"arms": {}}, r"arms={} is not valid; expected a dict of LABEL: \(optimizer, {'lr'"),
        ({"arms": {"a": "sgd"}}, r"arms has 'a': 'sgd'; expected LABEL: \(optimizer"),
        ({"arms": {"a": ("sgdd", {})}}, "arms=sgdd is not valid; expected .* muon, adamw, sgd"),
        ({"arms": {"a": ("sgd", {})}, "budgt": 3}, "unknown setting 'budgt'; did you mean 'budget'"),
        ({"arms": {"a": ("torch.optim:RAdam", {"weight_decay": 1})}}, "has no learning rates; give two or more"),
        ({"claims": []}, r"claims is empty; expected one or more \(letter"),
        ({"claims": [("a", "x", "y")]}, r"claims has \('a', 'x', 'y'\); expected \(letter, title, words, quantities"),
        ({"claims": [("a", "x", "y", "steps")]}, "with one or more quantities of validation_loss"),
        ({"claims": [("a", "x", "y", ("speed",))]}, "unknown quantity 'speed'; expected one of validation_loss"),
        ({"claims": 2 * CLAIMS}, "claims has two claims 'a'; give each a letter of its own"),
        ({"claims": [("a", "x", "y", ("steps",))]}, "a claim is about steps, and there is no target"),
        # what its functions do, found by a trial
        (
            {"net": "own.py:hungry"},
            "own.py:hungry needs width; expected .*; the data have inputs .2., classes .3., shape",
        ),
        ({"net": "own.py:number"}, "returned a int; expected a torch.nn.Module"),
        ({"net": "own.py:wide"}, r"does not read inputs of \(2,\): RuntimeError"),
        ({"data": "own.py:two"}, "returned 2 parts; expected train, validation and test"),
        ({"data": "own.py:number"}, "returned a int; expected train, validation and test"),
        ({"data": "own.py:floats"}, r"train has labels \(6,\) of torch.float32; expected whole numbers from 0"),
        ({"data": "own.py:broken"}, "train has 6 inputs with NaN or infinity; expected finite numbers"),
        ({"data": "own.py:fails"}, "raised OSError: no disk; expected train"),
        ({"loss": "own.py:mean"}, r"returned \(\) for 2 examples; expected a loss per example, \(2,\)"),
        ({"loss": "own.py:hard"}, "has no gradient; expected a net with parameters, and a loss"),
    ],
)
def test_a_mistake_is_named_before_anything_runs(own, fields, message):
    with pytest.raises(ValueError, match=message):
        check(trained=own(**fields).trained.model_dump(mode="json"), optimizers={})


def test_a_study_of_one_arm_reports_itself_and_a_run_that_diverges_is_a_result(own, tmp_path):
    arms = {"sgd": ("sgd", {"lr": [0.1, 1e30], "weight_decay": 1})}
    asked = own(arms=arms, budget=4, evaluations=2, seeds=2, search_seeds=1, extensions=0)
    out = tmp_path / "out"
    study = compare_optimizers(question="?", net="own.py:net", data="own.py:data", arms=arms, claims=CLAIMS)
    study.begin(asked, out)
    for job in [step.job for step in steps(asked, results(asked, out))]:
        store.add(out, job)
    found = analyse(out)
    assert (store.read(out).study, found.verdict.answer) == ("compare", "inconclusive")
    assert "because there is nothing to compare with" in found.verdict.more[0]
    (row,) = tables_of(found)["tuning-rates"].rows
    assert (row[2], row[6]) == (0.1, "1 × 10³⁰")  # the rate that is chosen, and the one at which a run diverged


def test_a_file_without_a_study_says_what_was_expected(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("empty.py").write_text("studdy = 1\n")
    with pytest.raises(UsageError, match=r"no 'study' in empty.py; did you mean 'studdy'\?; expected study = "):
        of_file("empty.py")
    Path("other.py").write_text("study = 1\n")
    with pytest.raises(UsageError, match=r"study in other.py is a int without STUDY, KEYS, plan"):
        of_file("other.py")

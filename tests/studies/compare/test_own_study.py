"""A study of a user's own, written in a file outside of the package: the example, and what it may get wrong."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from muonlab.jobs import store
from muonlab.studies import of_file
from muonlab.studies.compare import analyse, compare_optimizers, jobs_of
from muonlab.studies.compare.jobs import steps
from muonlab.studies.compare.work.job import check, run
from muonlab.study.settings import UsageError

EXAMPLE = "examples/own_study.py"
TINY = {"seeds": 6, "search_seeds": 1, "budget": 12, "evaluations": 3, "extensions": 0}
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the example in it, where the study of one seed has run."""
    place = tmp_path_factory.mktemp("own")
    shutil.copytree(Path(__file__).parents[3] / "examples", place / "examples", ignore=shutil.ignore_patterns("__py*"))
    return place


@pytest.fixture
def study(folder, monkeypatch):
    monkeypatch.chdir(folder)
    return of_file(EXAMPLE)


def command(**settings):
    words = [f"{key}={value}" for key, value in (TINY | settings).items()]
    return [sys.executable, "-m", "muonlab.cli", "run", EXAMPLE, "workers=1", *words]


def results(asked, place):
    """Do all jobs of a study in this process, and return their results."""
    found = {}
    while todo := [job for job in jobs_of(asked, found) if job.id not in found]:
        for job in todo:
            found[job.id] = run(config=job.config, folder=str(place / job.id))
    return found


def test_killed_and_run_again_it_ends_with_the_same_bytes_and_a_report(study, folder, tmp_path):
    with subprocess.Popen(command(), cwd=folder, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        next(line for line in process.stdout if line.startswith("[2 done]"))
        process.send_signal(signal.SIGKILL)
    out = folder / "runs" / "own_study"
    assert 2 <= len(store.Results(out)) < 7
    again = subprocess.run(command(), cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, check=True)
    assert (
        "lion against adamw, at equal budget and each with its own tuned learning rate: (a) training:" in again.stdout
    )
    assert (out / "report.html").exists()

    asked = study.plan(EXAMPLE, TINY)
    alone = results(asked, tmp_path)
    assert sorted(alone) == sorted(store.Results(out))
    for name in alone:
        for file in ("result.json", "metrics.jsonl"):
            assert (out / name / file).read_bytes() == (tmp_path / name / file).read_bytes()

    # -- the report needs neither torch nor the user's file, and the command that it names is the one to give -------
    (folder / EXAMPLE).rename(folder / "elsewhere.py")
    without = (
        "import sys; sys.modules['torch'] = None; from muonlab.cli import main; main(['report', 'runs/own_study'])"
    )
    (out / "study.json").touch()
    report = [sys.executable, "-c", without, "report", "runs/own_study"]
    subprocess.run(report, cwd=folder, env=ENVIRONMENT, check=True, capture_output=True)
    (folder / "elsewhere.py").rename(folder / EXAMPLE)
    assert store.read(out).newest.command("compare").startswith(f"muonlab run {EXAMPLE} seeds=6 ")

    # -- what the report says ---------------------------------------------------------------------------------------
    found = analyse(out)
    tables = {element.name: element for part in found.sections for element in part.elements if hasattr(element, "rows")}
    assert [row[0] for row in tables["results"].rows] == ["lion", "adamw"]
    assert [row[-1] for row in tables["results"].rows] == [6, 6]
    assert [row[0] for row in tables["controls"].rows] == ["shuffled labels", "the first arm against itself"]
    assert [row[1] for row in tables["claims"].rows] == ["validation loss", "test accuracy"]
    last = [member["validation_loss"][-1] for member in _members(asked, alone, "lion")]
    assert tables["claims"].rows[0][3] == pytest.approx(sum(last) / 6)


def _members(asked, found, label):
    own = [step for step in steps(asked, found) if (step.role, step.arm) == ("final", label)]
    return [member for step in own for member in found[step.job.id]["members"]]


def invented(asked, loss=lambda label, rate: rate):
    """Return results of all jobs without any training: a validation loss by arm and rate."""
    found = {}
    while todo := [step for step in steps(asked, found) if step.job.id not in found]:
        for step in todo:
            members = [
                {"rate": rate, "seed": seed, "validation_loss": [loss(step.arm, rate)], "diverged_at": None}
                for rate in step.config.rates
                for seed in step.config.seeds
            ]
            found[step.job.id] = {"members": members}
    return found


def test_more_seeds_or_fewer_never_compute_the_first_ones_again(study):
    found = invented(study.plan(settings={"seeds": 7, "extensions": 0}))
    for seeds in (12, 7, 6, 3):
        known = steps(study.plan(settings={"seeds": seeds, "extensions": 0}), found)
        finals = [
            (step.config.seeds, step.job.id in found) for step in known if (step.role, step.arm) == ("final", "lion")
        ]
        assert sorted(seed for own, _ in finals for seed in own) == list(range(max(seeds, {3: 5, 6: 7}.get(seeds, 0))))
        assert [own for own, is_done in finals if not is_done] == ([tuple(range(7, 12))] if seeds == 12 else [])


def test_the_rate_of_the_smallest_loss_is_chosen_and_a_search_goes_on_beyond_an_edge(study):
    asked = study.plan(settings={"seeds": 1, "extensions": 1, "lion.lr": ["0.1", "0.2"]})
    known = steps(asked, invented(asked))
    assert [step.config.rates for step in known if step.arm == "lion"] == [(0.1, 0.2), (0.05,), (0.05,), (0.05,)]
    assert [step.role for step in known if step.arm == "lion"] == ["search", "search", "final", "control"]


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
def fails(): raise OSError("no disk")
def mean(logits, labels): return nn.functional.cross_entropy(logits, labels)
"""
ARMS = {"sgd": ("sgd", {"lr": [0.1, 0.2]})}
CLAIMS = [("a", "Loss", "the loss is lower", ("validation_loss",))]


@pytest.fixture
def own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(OWN)

    def make(**fields):
        chosen = {"question": "?", "net": "own.py:net", "data": "own.py:data", "arms": ARMS, "claims": CLAIMS} | fields
        return compare_optimizers(**chosen).plan()

    return make


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"net": "resnet"}, "net=resnet is not valid; expected one of , or package"),
        ({"data": "missing.zip"}, "data=missing.zip: there is no such file or folder; expected digits, a path, or a"),
        ({"loss": "sofmax"}, "loss=sofmax is not valid; expected one of softmax, stablemax, sparsemax, or package"),
        ({"arms": {}}, "arms is empty"),
        ({"arms": {"a": ("sgd", {})}, "budgt": 3}, "unknown setting 'budgt'; did you mean 'budget'"),
        ({"arms": {"a": ("torch.optim:RAdam", {"weight_decay": 1})}}, "has no learning rates; give two or more"),
        ({"claims": [("a", "x", "y", ("speed",))]}, "claims=.* is not valid|expected"),
        ({"claims": [("a", "x", "y", ("steps",))]}, "a claim is about steps, and there is no target"),
    ],
)
def test_a_mistake_in_the_file_is_named_before_anything_runs(own, fields, message):
    with pytest.raises(UsageError, match=message):
        own(**fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"net": "own.py:hungry"},
            "own.py:hungry needs width; expected .* sizes of the data: inputs=2, classes=3, shape",
        ),
        ({"net": "own.py:number"}, "returned a int; expected a torch.nn.Module"),
        ({"net": "own.py:wide"}, r"does not read inputs of \(2,\): RuntimeError"),
        ({"data": "own.py:two"}, "returned 2 parts; expected train, validation and test"),
        ({"data": "own.py:floats"}, r"train has labels \(6,\) of torch.float32; expected whole numbers from 0"),
        ({"data": "own.py:fails"}, "raised OSError: no disk; expected train"),
        ({"loss": "own.py:mean"}, r"returned \(\) for 2 examples; expected a loss per example, \(2,\)"),
    ],
)
def test_what_does_not_fit_together_is_named_before_anything_runs(own, fields, message):
    with pytest.raises(ValueError, match=message):
        check(trained=own(**fields).trained.model_dump(mode="json"), optimizers={})


def test_a_study_of_one_arm_reports_itself_and_a_run_that_diverges_is_a_result(own, tmp_path):
    arms = {"sgd": ("sgd", {"lr": [0.1, 1e30], "weight_decay": 1})}
    asked = own(arms=arms, data="own.py:data", budget=4, evaluations=2, seeds=2, search_seeds=1, extensions=0)
    study = compare_optimizers(question="?", net="own.py:net", data="own.py:data", arms=arms, claims=CLAIMS)
    study.begin(asked, tmp_path / "out")
    for job in [step.job for step in steps(asked, results(asked, tmp_path / "out"))]:
        store.add(tmp_path / "out", job)
    found = analyse(tmp_path / "out")
    assert found.verdict.answer == "inconclusive"
    assert "because there is nothing to compare with" in found.verdict.more[0]
    (search,) = [e for part in found.sections for e in part.elements if getattr(e, "name", "") == "tuning-rates"]
    assert search.rows[0][2] == 0.1
    assert search.rows[0][6] != "none"
    assert json.loads((tmp_path / "out" / "study.json").read_text())["study"] == "compare"


def test_a_file_without_a_study_says_what_was_expected(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("empty.py").write_text("studdy = 1\n")
    with pytest.raises(UsageError, match=r"there is no 'study' in empty.py; did you mean 'studdy'"):
        of_file("empty.py")
    Path("other.py").write_text("study = 1\n")
    with pytest.raises(UsageError, match=r"study in other.py is a int without STUDY, KEYS, plan"):
        of_file("other.py")

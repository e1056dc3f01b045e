import pytest
import torch
from torch import nn

from muonlab.inspection import ask, describe, inspect, summary, taps
from muonlab.jobs.files import StudyError
from muonlab.jobs.pool import Event
from muonlab.study.settings import UsageError

FEW = {"examples": 10, "probe_train": 80, "probe_validation": 40}


def net(seed, number=10):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 16), nn.Linear(16, number))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with two checkpoints and the user's function that builds their net."""
    place = tmp_path_factory.mktemp("user")
    for seed in range(2):
        torch.save(net(seed).state_dict(), place / f"{seed}.pt")
    return place


def test_modules_in_memory(tmp_path, monkeypatch):
    out = tmp_path / "out"
    models = {"A": net(0), "B": [net(1), net(2)]}
    settings = {"data": "digits", "measures": ["margins", "rank"], "measure": FEW, "out": out}
    found = inspect(models, **settings)
    assert found.report == out / "report.html"
    assert found.verdict.sentence.startswith("A against B, 1 and 2 checkpoints, on digits: (b) margins: inconclusive")
    assert [(row["group"], row["checkpoint"]) for row in found.result["models"]] == [
        ("A", "A 0"),
        ("B", "B 0"),
        ("B", "B 1"),
    ]
    # The same models again are read; others are measured.
    monkeypatch.setattr(
        "muonlab.studies.checkpoints.work.measuring.inspect_models", lambda *_, **__: pytest.fail("measured")
    )
    assert inspect(models, **settings).result == found.result
    with pytest.raises(pytest.fail.Exception, match="measured"):
        inspect({**models, "A": net(3)}, **settings)


def test_a_pool_or_taps_reach_the_measures(tmp_path):
    found = inspect(
        {"A": net(0)}, data="digits", measures="rank", measure=FEW, taps=["1", "3"], pool="flatten", out=tmp_path
    )
    assert found.result["groups"][0]["taps"] == ["1", "3"]
    assert found.verdict.label == "No comparison"


def test_checkpoints_that_fail_say_why(folder, tmp_path, monkeypatch):
    def run(study, asked, *_, **__):
        yield Event("failed", study.job(asked).id, {"reason": "DataError: net=no_such_module:build"})

    monkeypatch.setattr("muonlab.jobs.local.run", run)
    with pytest.raises(StudyError, match="DataError: net=no_such_module:build"):
        inspect({"A": folder / "0.pt"}, net="no_such_module:build", data="digits", out=tmp_path / "out")


@pytest.mark.parametrize(
    ("models", "settings", "message"),
    [
        ({"A": net(0), "B": "x.pt"}, {"data": "digits"}, "models has both paths and modules"),
        ({"A": net(0)}, {}, "no data is given"),
        ({"A": net(0)}, {"data": "digits", "measur": ["rank"]}, "unknown setting 'measur'; did you mean 'measures'"),
        ({"A": net(0)}, {"data": "digits", "net": {"A": "m:f"}}, r"net\.A has no effect on modules in memory"),
        ({}, {"data": "digits"}, "no checkpoint is given"),
        ({"A": "nowhere.pt"}, {"data": "digits"}, "there is no checkpoint 'nowhere.pt'"),
        ({"A": net(0, number=3)}, {"data": "digits"}, "3 outputs and the data 10 classes"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, models, settings, message):
    with pytest.raises(ValueError, match=message):
        inspect(models, out=tmp_path, **settings)


def test_words_of_a_command(folder):
    asked, beside = ask([str(folder / "0.pt"), "data=digits", "out=there"], ("out",))
    assert beside == {"out": ["there"]}
    assert asked.job.groups[0].checkpoints[0].sha256 == describe(str(folder / "0.pt")).sha256


def test_a_file_that_is_no_checkpoint_is_a_mistake_in_the_command(tmp_path):
    (tmp_path / "notes.txt").write_text("no weights")
    with pytest.raises(UsageError, match=r"notes\.txt is no checkpoint"):
        ask([str(tmp_path / "notes.txt"), "data=digits"])


def test_taps_of_a_net_that_cannot_be_built_are_a_mistake_in_the_command(folder):
    asked, _ = ask([str(folder / "0.pt"), "data=digits"])
    with pytest.raises(UsageError, match="give net=package"):
        taps(asked)


def test_what_would_be_measured_is_said_in_words(folder):
    asked, _ = ask([str(folder / "0.pt"), f"B={folder / '1.pt'}", "data=digits", "measures=rank", "net=m:f"])
    lines = summary(asked).splitlines()
    assert lines[0] == f"0: {folder / '0.pt'}, net m:f"
    assert lines[-1] == "rank, on digits (images), 500 test examples at most"

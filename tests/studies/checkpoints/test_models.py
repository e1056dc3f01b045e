"""`muonlab.inspect`, as a user calls it from Python."""

import pytest
import torch
from torch import nn

from muonlab.jobs.files import StudyError
from muonlab.jobs.pool import Event
from muonlab.studies.checkpoints import ask, inspect, taps
from muonlab.study.settings import UsageError

FEW = {"examples": 10, "probe_train": 80, "probe_validation": 40}


def net(seed, number=10):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 16), nn.Linear(16, number))


@pytest.fixture
def checkpoint(tmp_path):
    torch.save(net(0).state_dict(), tmp_path / "0.pt")
    return str(tmp_path / "0.pt")


def test_modules_in_memory(tmp_path, monkeypatch):
    models = {"A": net(0), "B": [net(1), net(2)]}
    settings = {"data": "digits", "measures": "rank", "measure": FEW, "out": tmp_path}
    settings |= {"taps": ["1", "3"], "pool": "flatten"}
    found = inspect(models, **settings)
    assert found.report == tmp_path / "report.html"
    assert found.verdict.label == "Inconclusive"
    assert found.verdict.sentence == "A minus B, 1 and 2 checkpoints, on digits."
    assert [(row["group"], row["checkpoint"]) for row in found.result["models"]] == [
        ("A", "A 0"),
        ("B", "B 0"),
        ("B", "B 1"),
    ]
    assert found.result["groups"][0]["taps"] == ["1", "3"]
    # The same models again are read; others are measured.
    monkeypatch.setattr(
        "muonlab.studies.checkpoints.work.job.inspect_modules", lambda *_, **__: pytest.fail("measured")
    )
    assert inspect(models, **settings).result == found.result
    with pytest.raises(pytest.fail.Exception, match="measured"):
        inspect({**models, "A": net(3)}, **settings)


def test_checkpoints_are_tried_out_before_the_folder_is_made(checkpoint, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(UsageError, match="no_such_module cannot be imported"):
        inspect({"A": checkpoint}, net="no_such_module:build", data="digits", out=out)
    with pytest.raises(UsageError, match="give net=package"):
        taps(ask([checkpoint, "data=digits"])[0])
    assert not out.exists()


def test_checkpoints_that_fail_all_the_same_say_why(checkpoint, tmp_path, monkeypatch):
    def run(study, asked, *_, **__):
        yield Event("failed", study.job(asked).id, {"reason": "DataError: out of luck"})

    monkeypatch.setattr("muonlab.jobs.local.run", run)
    monkeypatch.setattr("muonlab.studies.checkpoints.models.check", lambda asked, folder: None)
    with pytest.raises(StudyError, match="DataError: out of luck"):
        inspect({"A": checkpoint}, net="some:net", data="digits", out=tmp_path / "out")


@pytest.mark.parametrize(
    ("models", "settings", "message"),
    [
        ({"A": net(0), "B": "x.pt"}, {}, "models has both paths and modules"),
        ({"A": net(0), "B": 3}, {}, "models has a int for B; expected modules of torch or paths of checkpoints"),
        ({"A": []}, {}, "models has an empty list for A"),
        ({"A": net(0)}, {"measur": ["rank"]}, "unknown setting 'measur'; did you mean 'measures'"),
        ({"A": net(0)}, {"net": {"A": "m:f"}}, r"net\.A has no effect on modules in memory"),
        ({"A": net(0), "B": net(0)}, {}, "A 0 of A and B 0 of B have the same weights"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, models, settings, message):
    with pytest.raises(ValueError, match=message):
        inspect(models, out=tmp_path, data="digits", **settings)

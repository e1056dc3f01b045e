import io
from types import SimpleNamespace

import pytest

import growing_study
from muonlab.jobs import job as jobs
from muonlab.jobs import store
from muonlab.work import Cells, Jobs


@pytest.fixture
def package(tmp_path, monkeypatch):
    place = tmp_path / "modules"
    place.mkdir()
    return growing_study.install(monkeypatch, place)


@pytest.fixture
def squares(package, tmp_path):
    """A function that returns the work of squaring numbers up to a limit."""
    return lambda limit: Jobs(package, package.plan("tiny", {"limit": [str(limit)]}), tmp_path / "study", 2)


def first_line(work):
    stream = io.StringIO()
    work.progress(stream)
    return stream.getvalue().splitlines()[0]


def test_jobs_are_done_as_they_become_known(squares, tmp_path):
    kinds = [event.kind for event in squares(100).events("cpu", "never") if event.kind != "progress"]
    assert kinds == ["started", "finished"] * 3
    assert [record.status for record in squares(100).records()] == ["done"] * 3
    asked = jobs.read(tmp_path / "study")
    assert (asked.study, asked.preset, asked.settings) == ("features", "tiny", {"limit": ["100"]})
    assert asked.config == {"limit": 100, "bad": 0}


def test_where_jobs_stand_is_said(squares, tmp_path):
    assert first_line(squares(10)) == f"{tmp_path / 'study'}: 0 jobs are done already, about 2 to do"
    list(squares(10).events("cpu", "never"))
    assert first_line(squares(10)) == f"{tmp_path / 'study'}: 2 jobs are done already, none to do"
    assert first_line(squares(100)) == f"{tmp_path / 'study'}: 2 jobs are done already, about 1 to do"


def test_a_forecast_of_jobs_counts_what_is_done_and_writes_nothing(squares, tmp_path, capsys):
    squares(100).forecast("cpu")
    text = capsys.readouterr().out
    assert f"3 jobs, into {tmp_path / 'study'}; 0 jobs more are done already" in text
    assert "time: about 81 s with 2 workers" in text
    assert not (tmp_path / "study").exists()
    list(squares(10).events("cpu", "never"))
    squares(100).forecast("cpu")
    assert f"1 jobs, into {tmp_path / 'study'}; 2 jobs more are done already" in capsys.readouterr().out
    squares(10).forecast("cpu")
    assert "every job is done already" in capsys.readouterr().out


@pytest.mark.parametrize("do", [lambda work: list(work.events("cpu", "never")), lambda work: work.forecast("cpu")])
def test_what_no_job_could_do_is_said_before_any_begins(package, tmp_path, do):
    work = Jobs(package, package.plan("tiny", {"bad": ["-1"]}), tmp_path / "study", 2)
    with pytest.raises(store.StudyError, match="bad=-1 is below 0; give a number"):
        do(work)
    assert not (tmp_path / "study").exists()


def test_nothing_is_tried_out_where_nothing_is_left_to_do(squares, package, monkeypatch):
    list(squares(10).events("cpu", "never"))
    monkeypatch.setattr(package, "trials", lambda asked: pytest.fail("tried out"))
    assert list(squares(10).events("cpu", "never")) == []


def test_a_forecast_does_not_take_jobs_of_the_same_name_for_its_own(squares, package, tmp_path, capsys):
    list(squares(10).events("cpu", "never"))
    other = package.plan("tiny", {"bad": ["9"]})
    Jobs(package, other, tmp_path / "study", 2).forecast("cpu")
    assert "square of 3" in capsys.readouterr().out


def test_cells_say_where_they_stand_and_how_many_there_are(make_cell, tmp_path):
    plan = store.Plan(study="grokking", preset="tiny", settings={}, cells=(make_cell(), make_cell(optimizer="adamw")))
    work = Cells(plan, tmp_path / "study", 2)
    assert (work.noun, work.described) == ("cells", "of 2 cells")
    assert first_line(work) == f"{tmp_path / 'study'}: 2 cells, 0 of them done already"
    assert [record.status for record in work.records()] == ["waiting", "waiting"]


def test_a_cell_that_no_machine_can_hold_is_said(make_cell, tmp_path, monkeypatch):
    def cost(cell):
        raise MemoryError("a cell of this size needs 1000 GB")

    monkeypatch.setattr("muonlab.train.probe.Prober", lambda device: SimpleNamespace(cost=cost))
    plan = store.Plan(study="grokking", preset="tiny", settings={}, cells=(make_cell(),))
    with pytest.raises(store.StudyError, match="needs 1000 GB; a smaller net, batch or modulus may fit"):
        Cells(plan, tmp_path / "study", 2).forecast("cpu")

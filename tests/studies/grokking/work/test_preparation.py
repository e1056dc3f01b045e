import warnings

import pytest
import torch
from torch import nn

from muonlab.jobs.clock import Clock
from muonlab.jobs.files import read_json
from muonlab.rules import sgd
from muonlab.studies.grokking.work import preparation
from muonlab.studies.grokking.work.preparation import prepare
from muonlab.train.by_rule import Treatment
from muonlab.train.population import Population
from muonlab.train.sequential import Sequential

BATCH = torch.ones(3, 4, 2), torch.zeros(3, 4, dtype=torch.int64)


@pytest.fixture
def clock(tmp_path):
    return Clock(tmp_path, {}, "cpu")


def make(engine):
    treated = {name: Treatment(sgd, {"lr": 0.1}) for name in ("weight", "bias")}
    return engine(nn.Linear(2, 2), nn.CrossEntropyLoss(reduction="none"), treated, (0, 1, 2))


def said(clock, tmp_path):
    """Return the log, and whether the job was compiled and the height of its stacks, as recorded."""
    clock.save()
    session = read_json(tmp_path / "env.json")["sessions"][0]
    return (tmp_path / "log.txt").read_text(), session["is_compiled"], session["height"]


@pytest.mark.parametrize(
    ("compile", "flops", "device", "expected"),
    [
        ("auto", 1e14, "cpu", True),
        ("auto", 1e12, "cpu", False),
        ("auto", 1e14, "cuda", False),
        ("never", 1e14, "cpu", False),
        ("always", 1.0, "cpu", True),
        ("always", 1.0, "cuda", True),
    ],
)
def test_by_itself_a_job_compiles_where_there_is_enough_to_do(compile, flops, device, expected):
    assert preparation.pays(compile, flops, device) is expected


def test_without_a_program_the_fastest_height_is_chosen(clock, tmp_path, monkeypatch):
    engine = make(Population)
    monkeypatch.setattr(engine, "choose_height", lambda *batch: 2 if batch == BATCH else None)
    monkeypatch.setattr(engine, "compile", lambda *_: pytest.fail("compiled"))
    assert prepare(engine, BATCH, clock, is_compiled=False, height=None) == (False, 2)
    log, is_compiled, height = said(clock, tmp_path)
    assert "trains with stacks of 2 members" in log
    assert (is_compiled, height) == (False, 2)
    assert engine.gradients.height == 2


def test_a_height_that_was_chosen_before_stays(clock, monkeypatch):
    engine = make(Population)
    monkeypatch.setattr(engine, "choose_height", lambda *_: pytest.fail("chosen anew"))
    assert prepare(engine, BATCH, clock, is_compiled=False, height=1) == (False, 1)
    assert engine.gradients.height == 1


def test_a_program_has_the_height_of_its_gradient(clock, tmp_path, monkeypatch):
    engine = make(Population)
    engine.gradients.height = 3
    monkeypatch.setattr(engine, "compile", lambda *batch: batch == BATCH)
    assert prepare(engine, BATCH, clock, is_compiled=True, height=None) == (True, 3)
    log, is_compiled, height = said(clock, tmp_path)
    assert "a compiled program, ready after" in log
    assert (is_compiled, height) == (True, 3)


def test_where_compiling_fails_the_log_says_why_and_stacks_are_used(clock, tmp_path, monkeypatch):
    def compile(*_):
        warnings.warn("there is no compiler", stacklevel=2)
        return False

    engine = make(Population)
    monkeypatch.setattr(engine, "compile", compile)
    assert prepare(engine, BATCH, clock, is_compiled=True, height=2) == (False, 2)
    log, is_compiled, _ = said(clock, tmp_path)
    assert "there is no compiler" in log
    assert "stacks of 2 members" in log
    assert not is_compiled


@pytest.mark.parametrize("is_compiled", [True, False])
def test_members_that_cannot_be_stacked_train_one_after_the_other(clock, tmp_path, is_compiled):
    assert prepare(make(Sequential), BATCH, clock, is_compiled=is_compiled, height=None) == (False, 1)
    log, *noted = said(clock, tmp_path)
    assert "one member after the other" in log
    assert noted == [False, 1]
    assert ("are not compiled" in log) is is_compiled

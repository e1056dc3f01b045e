"""The tidy tables of every study: a row per run, per evaluation, per comparison, by the rules of the files alone."""

import json
import shutil
from pathlib import Path

import pytest

import synthetic_components
from muonlab.export import tables
from muonlab.jobs import store
from muonlab.jobs.files import StudyError, read_json
from muonlab.report.findings import Column, Findings, Section, Table, Verdict
from muonlab.stats.results import Estimate

RECORDS = Path(__file__).parents[2] / "records"


def job(folder, result, number=0, log=(), **config):
    """Write a job as an engine does."""
    place = folder / f"{number:016x}"
    place.mkdir(parents=True)
    file = {"name": f"job {number}", "target": "a:b", "cost": 1, "case": "c", "arm": "muon", "config": config}
    (place / "config.json").write_text(json.dumps(file))
    if result is not None:
        (place / "result.json").write_text(json.dumps(result))
    (place / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    store.create(tmp_path, "compare", "none", {}, {})
    verdict = Verdict("yes", "yes", "Yes.", None, (), (), ())
    nothing = Findings("T", "Q?", verdict, (), ())
    monkeypatch.setattr("muonlab.studies.compare.analyse", lambda folder: nothing)
    return tmp_path


def test_a_run_is_a_member_with_its_settings_and_what_its_job_shares(folder):
    members = [{"seed": 3, "point": 1, "start": {"loss": 2.0}, "accuracy": {"blur": [0.5, 0.25]}}]
    result = {"chance": 0.1, "points": [{"lr": 1.0}, {"lr": 0.5}], "members": members}
    job(folder, result, net={"depth": 2}, seeds=[3])
    (run,) = tables.read(folder)["runs"]
    keys = "job", "arm", "seed", "chance", "point.lr", "config.net.depth", "start.loss"
    assert {key: run[key] for key in keys} == {
        "job": f"{0:016x}", "arm": "muon", "seed": 3, "chance": 0.1, "point.lr": 0.5, "config.net.depth": 2,
        "start.loss": 2.0,
    }  # fmt: skip
    assert (run["accuracy.blur.1"], run["accuracy.blur.2"]) == (0.5, 0.25)


def test_a_curve_is_as_long_as_the_steps_or_ended_before(folder):
    curves = [{"seed": 0, "loss": [3.0, 2.0, 1.0]}, {"seed": 1, "loss": [3.0, None]}]
    job(folder, {"steps": [0, 10, 20], "members": curves})
    found = tables.read(folder)
    assert [(row["seed"], row["step"], row["loss"]) for row in found["evaluations"]] == [
        (0, 0, 3.0), (0, 10, 2.0), (0, 20, 1.0), (1, 0, 3.0), (1, 10, None),
    ]  # fmt: skip
    assert [run["final.loss"] for run in found["runs"]] == [1.0, None]


def test_a_job_at_work_and_one_without_curves_have_those_of_their_log(folder):
    log = [{"step": 0, "epoch": 0, "loss": [3.0, 2.0]}, {"step": 5, "epoch": 1, "loss": [None, 1.0]}]
    job(folder, None, 0, log, seeds=[7, 8])
    job(folder, {"members": [{"seed": 4}, {"seed": 5}]}, 1, log)
    rows = [(row["job"][-1], row["seed"], row["step"], row["loss"]) for row in tables.read(folder)["evaluations"]]
    assert rows == [
        ("0", 7, 0, 3.0), ("0", 8, 0, 2.0), ("0", 8, 5, 1.0), ("1", 4, 0, 3.0), ("1", 5, 0, 2.0), ("1", 5, 5, 1.0),
    ]  # fmt: skip


def test_objects_within_a_run_are_evaluations_or_a_table_of_their_own(folder):
    at = [{"eps": 0.5, "step": 7.5, "values": {"loss": 0.5}}]
    job(folder, {"members": [{"seed": 0, "at": at, "layers": [{"tap": "a", "rank": 2.0}, {"tap": "b", "rank": 1.0}]}]})
    found = tables.read(folder)
    assert [(row["eps"], row["step"], row["values.loss"]) for row in found["evaluations"]] == [(0.5, 7.5, 0.5)]
    assert [(row["seed"], row["tap"], row["rank"]) for row in found["layers"]] == [(0, "a", 2.0), (0, "b", 1.0)]


def test_a_failed_job_is_a_run_with_its_reason(folder):
    job(folder, None)
    (folder / f"{0:016x}" / "failed.json").write_text(json.dumps({"reason": "out of memory"}))
    (run,) = tables.read(folder)["runs"]
    assert (run["status"], run["reason"]) == ("failed", "out of memory")


def test_a_comparison_is_a_row_with_a_p_value_of_any_table_each_once():
    columns = Column("what", "What"), Column("difference", "D", "number"), Column("p", "p", "p")
    compared = Table("claims", "Claims", columns, (("loss", Estimate(1.0, 0.5, 1.5), 0.01),))
    other = Table("sizes", "Sizes", (Column("n", "n", "count"),), ((3,),))
    verdict = Verdict("yes", "yes", "Yes.", None, (), (), ())
    findings = Findings("T", "Q?", verdict, (), (Section("S", (other, compared)),), first=(compared,))
    assert list(tables.comparisons(findings)) == [
        {"table": "claims", "what": "loss", "difference": 1.0, "difference_lower": 0.5, "difference_upper": 1.5,
         "p": 0.01}
    ]  # fmt: skip


def test_columns_have_one_type_each_and_none_is_empty():
    rows = [{"a": 1, "b": 1, "c": None}, {"a": 0.5, "b": "x"}, {"b": None}]
    assert tables.columns(rows) == {"a": [1.0, 0.5, None], "b": ["1", "x", None]}


def test_grokking():
    found = tables.read(RECORDS / "first-light" / "study")
    results = [read_json(path) for path in sorted((RECORDS / "first-light" / "study").glob("*/result.json"))]
    crossings = {(row["job"], row["seed"]): row.get("first_crossing.step") for row in found["runs"]}
    members = [(result["cell"], member) for result in results for member in result["members"]]
    firsts = {(cell, member["seed"]): member["first_crossing"] for cell, member in members}
    assert crossings == {key: first and first["step"] for key, first in firsts.items()}
    last = {(row["job"], row["seed"]): row["validation_accuracy"] for row in found["evaluations"]}
    assert last == {(cell, member["seed"]): member["last_validation_accuracy"] for cell, member in members}
    assert "tests" in {row["table"] for row in found["comparisons"]}


@pytest.mark.parametrize(
    ("record", "names"),
    [("features/laptop", {"evaluations", "comparisons", "layers"}), ("inspection/digits", {"comparisons", "layers"})],
)
def test_recorded_studies_have_their_tables(record, names):
    found = tables.read(RECORDS / record)
    assert {name for name, rows in found.items() if rows} == {"runs", *names}
    ranks = [layer["raw.effective_rank"] for layer in found["layers"]]
    read = [read_json(path) for path in sorted((RECORDS / record).glob("*/result.json"))]
    models = [model for result in read for model in result.get("models", ())]
    assert sorted(ranks) == sorted(layer["raw"]["effective_rank"] for model in models for layer in model["layers"])


def test_components(tmp_path):
    found = tables.read(synthetic_components.write(tmp_path / "study"))
    simulated = [run for run in found["runs"] if "rate" in run]
    assert simulated
    assert all(run["end.train_loss"] > 0 for run in simulated)
    read = [row for row in found["evaluations"] if "eps" in row]
    assert {row["rate"] for row in read} == {run["rate"] for run in simulated}
    assert any(row["table"] == "cells" for row in found["comparisons"])


def test_a_folder_without_a_study_is_said(tmp_path):
    with pytest.raises(StudyError, match="holds no study"):
        tables.read(tmp_path)
    shutil.rmtree(tmp_path)
    with pytest.raises(StudyError, match="holds no study"):
        tables.read(tmp_path)

import pytest

from muonlab.studies.components.config import Agree
from muonlab.studies.components.work import job


def run(config, folder, **options):
    return job.run(config=config.model_dump(mode="json"), folder=str(folder), **options)


@pytest.mark.kernels
def test_two_runs_of_one_job_write_the_same_bytes(make_job, tmp_path):
    config = make_job(net={"depth": 1, "width": 8}, optimizer={"name": "muon"}, rates=(0.03, 0.3), batch=7)
    for name in ("a", "b"):
        run(config, tmp_path / name)
    assert (tmp_path / "a" / "result.json").read_bytes() == (tmp_path / "b" / "result.json").read_bytes()


def test_each_kind_of_job_is_done_by_its_own(make_job, tmp_path):
    agree = Agree.model_validate(
        {"components": {"noise": 0, "classes": 4, "dimension": 6}, "flow": "gradient", "time": 1.0, "steps": (4, 8)}
    )
    assert len(run(agree, tmp_path / "agree")["errors"]) == 2
    assert len(run(make_job(budget=1), tmp_path / "simulate")["members"]) == 1


@pytest.mark.parametrize(("field", "value"), [("rates", [-1]), ("eps", [0]), ("kept", True)])
def test_a_wrong_config_names_the_field_and_leaves_nothing_behind(make_job, tmp_path, field, value):
    config = make_job().model_dump(mode="json") | {field: value}
    with pytest.raises(ValueError, match=rf"simulate\.{field}"):
        job.run(config=config, folder=str(tmp_path / "job"))
    assert not (tmp_path / "job").exists()

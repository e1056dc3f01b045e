import pytest

from muonlab.data.sources import DataError
from muonlab.jobs.files import read_json
from muonlab.studies.features.config import Measure, Training, Transfer
from muonlab.studies.features.work import job
from muonlab.study.optimizers import AdamW


def test_a_finished_job_is_read_and_not_done_again(make_pretrain, run, tmp_path, monkeypatch):
    config = make_pretrain(training={"budget": 1})
    first = run(config, tmp_path)
    before = (tmp_path / "result.json").read_bytes()
    monkeypatch.setattr(job.material, "read", lambda *_: pytest.fail("done again"))
    assert run(config, tmp_path) == first == read_json(tmp_path / "result.json")
    assert (tmp_path / "result.json").read_bytes() == before
    assert len(read_json(tmp_path / "env.json")["sessions"]) == 1


@pytest.mark.parametrize(("field", "value"), [("rates", [-1]), ("seeds", "all"), ("kept", True)])
def test_a_wrong_config_names_the_field_and_leaves_nothing_behind(make_pretrain, tmp_path, field, value):
    config = make_pretrain().model_dump(mode="json") | {field: value}
    with pytest.raises(ValueError, match=rf"pretrain\.{field}"):
        job.run(config=config, folder=str(tmp_path / "job"))
    assert not (tmp_path / "job").exists()


def test_data_that_is_wrong_is_no_result(make_pretrain, make_family, run, tmp_path):
    with pytest.raises(DataError, match="there is no file or folder"):
        run(make_pretrain(make_family(data={"source": str(tmp_path / "none")})), tmp_path / "job")
    assert not (tmp_path / "job" / "result.json").exists()


def test_each_kind_of_job_is_done_by_its_own(pretrained, make_family, make_state, few, run):
    family, states = make_family(), (make_state(seeds=(0,), steps=(40,)),)
    seen = []
    measured = run(
        Measure(family=family, weights=pretrained.name, seeds=(0, 1), states=states, looks=(40,), measuring=few),
        pretrained.parent / "by job, measured",
        report=seen.append,
    )
    assert [model["seed"] for model in measured["models"]] == [0]
    assert seen[-1] == {"step": seen[-1]["budget"], "budget": seen[-1]["budget"], "alive": 1}
    transferred = run(
        Transfer(family=family, task="classes", seeds=(5,), optimizer=AdamW(), training=Training(budget=1), rates=(1,)),
        pretrained.parent / "by job, transferred",
    )
    assert [member["seed"] for member in transferred["members"]] == [5]

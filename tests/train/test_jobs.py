import pytest
import torch

from muonlab.jobs.files import read_json
from muonlab.train import jobs
from muonlab.train.jobs import check_device, finish


def done(context):
    context.clock.add(member_steps=6, step=3)
    return {"answer": 42}


def run(folder, work=done, environment=None):
    return finish(str(folder), work, environment=environment)


def test_the_result_is_written_and_read_the_next_time(tmp_path):
    folder = tmp_path / "study" / "job"
    assert run(folder) == {"answer": 42} == read_json(folder / "result.json")
    assert run(folder, lambda *_: pytest.fail("done again")) == {"answer": 42}
    assert len(read_json(folder / "env.json")["sessions"]) == 1


def test_the_session_and_the_environment_are_recorded(tmp_path):
    run(tmp_path, environment={"commit": "abc"})
    record = read_json(tmp_path / "env.json")
    assert record["commit"] == "abc"
    (session,) = record["sessions"]
    assert session["is_finished"]
    assert (session["last_step"], session["member_steps"]) == (3, 6)
    assert "finished after" in (tmp_path / "log.txt").read_text()


def test_what_an_earlier_run_left_goes_once_the_result_is_there(tmp_path, monkeypatch):
    for name in ("state.safetensors", "failed.json"):
        (tmp_path / name).write_text("{}")
    with monkeypatch.context() as patch:
        patch.setattr(jobs, "write_json", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path)
    assert (tmp_path / "state.safetensors").exists()
    run(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "env.json", "log.txt", "result.json"]


def test_work_that_raises_leaves_no_result(tmp_path):
    with pytest.raises(ZeroDivisionError):
        run(tmp_path, lambda *_: 1 / 0)
    assert not (tmp_path / "result.json").exists()
    assert run(tmp_path) == {"answer": 42}


def test_a_result_may_be_its_text(tmp_path):
    assert run(tmp_path, lambda context: '{"answer": 1e-05}') == {"answer": 1e-5}
    assert (tmp_path / "result.json").read_text() == '{"answer": 1e-05}'


def test_an_unknown_way_to_compile_is_named(tmp_path):
    with pytest.raises(ValueError, match="compile='allways'; expected auto, always or never"):
        finish(tmp_path, done, compile="allways")


def test_a_device_that_is_not_there_is_named_with_what_is(monkeypatch):
    check_device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="device=mps has no float64"):
        check_device("mps")
    with pytest.raises(ValueError, match="device=tpu is not on this machine; there is cpu"):
        check_device("tpu")

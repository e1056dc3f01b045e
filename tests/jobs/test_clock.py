import time

from muonlab.jobs.clock import Clock
from muonlab.jobs.files import read_json


def test_every_session_has_an_entry_and_the_speed_is_over_all(tmp_path):
    first = Clock(tmp_path, {"commit": "abc"}, "cpu")
    first.add(member_steps=10, step=5)
    first.save()
    second = Clock(tmp_path, {"commit": "def"}, "cpu")  # the first was killed
    second.add(member_steps=30, step=20)
    second.stop()
    record = read_json(tmp_path / "env.json")
    assert record["commit"] == "def"
    assert record["device"] == "cpu"
    assert [(s["member_steps"], s["last_step"], s["is_finished"]) for s in record["sessions"]] == [
        (10, 5, False),
        (30, 20, True),
    ]
    seconds = sum(session["seconds"] for session in record["sessions"])
    assert record["seconds_per_member_step"] == seconds / 40
    assert record["peak_memory_mb"] > 1


def test_compiling_is_no_part_of_the_seconds_of_a_step(tmp_path):
    clock = Clock(tmp_path, {}, "cpu")
    clock.add(member_steps=10, step=10)
    time.sleep(0.02)
    clock.note(is_compiled=True, height=1, preparation=0.01)
    clock.stop()
    record = read_json(tmp_path / "env.json")
    (session,) = record["sessions"]
    assert record["seconds_per_member_step"] == (session["seconds"] - session["preparation_seconds"]) / 10
    assert session["preparation_seconds"] == 0.01


def test_a_torn_record_is_begun_anew(tmp_path):
    (tmp_path / "env.json").write_text("{")
    Clock(tmp_path, {}, "cpu")
    assert len(read_json(tmp_path / "env.json")["sessions"]) == 1


def test_the_log_grows(tmp_path):
    clock = Clock(tmp_path, {}, "cpu")
    clock.log("starts")
    clock.stop()
    lines = (tmp_path / "log.txt").read_text().splitlines()
    assert lines[0].endswith("starts")
    assert "finished" in lines[1]

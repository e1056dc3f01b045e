import hashlib
import subprocess
import sys

import pytest

from muonlab.jobs import files
from muonlab.jobs.files import (
    StudyError,
    fingerprint,
    lock,
    read_json,
    read_lines,
    write_bytes,
    write_json,
    write_text,
)


def test_json_comes_back_and_nothing_else_is_left(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"b": 1, "a": [None, 0.1]})
    assert read_json(path) == {"b": 1, "a": [None, 0.1]}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    write_json(path, 1)

    def no_space(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", no_space)
    with pytest.raises(OSError, match="No space"):
        write_text(path, "half a fi")
    assert read_json(path) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_text_and_bytes_are_written_as_they_are(tmp_path):
    write_text(tmp_path / "a.txt", "Ekin Çiçek\n")
    assert (tmp_path / "a.txt").read_bytes() == "Ekin Çiçek\n".encode()
    write_bytes(tmp_path / "a.png", b"\x89PNG\r\n")
    assert (tmp_path / "a.png").read_bytes() == b"\x89PNG\r\n"


def test_nan_is_never_written(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", float("nan"))


@pytest.mark.parametrize(("content", "state"), [(b"", "empty"), (b'{"a": 1', "not JSON"), (b"\xff\xfe", "not JSON")])
def test_an_unreadable_file_is_named(tmp_path, content, state):
    path = tmp_path / "result.json"
    path.write_bytes(content)
    with pytest.raises(StudyError, match=rf"result\.json is {state}$"):
        read_json(path)


def test_a_torn_last_line_is_dropped_and_a_bad_one_before_is_an_error(tmp_path):
    path = tmp_path / "metrics.jsonl"
    assert read_lines(path) == []
    path.write_bytes(b'{"step":0}\n{"step":1}\n{"st')
    assert read_lines(path) == [{"step": 0}, {"step": 1}]
    path.write_bytes(b'{"step":0}\nfoo\n{"step":2}\n')
    with pytest.raises(StudyError, match="is torn, from line 2"):
        read_lines(path)


def test_a_torn_last_line_of_a_whole_file_is_an_error(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step":0}\n{"st')
    with pytest.raises(StudyError, match="is torn, from line 2"):
        read_lines(path, whole=True)
    path.write_bytes(b'{"step":0}\n')
    assert read_lines(path, whole=True) == [{"step": 0}]


def test_only_one_holds_the_lock(tmp_path):
    path = tmp_path / ".lock"
    with lock(path, wait=False), pytest.raises(StudyError, match="another muonlab run"), lock(path, wait=False):
        pass
    with lock(path, wait=False):  # it is free again
        pass


HOLD = """
import sys, time
from pathlib import Path
from muonlab.jobs.files import lock
with lock(Path(sys.argv[1]), wait=False):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_process_that_dies_frees_its_lock(tmp_path):
    path = tmp_path / ".lock"
    with subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(StudyError, match="another muonlab run"), lock(path, wait=False):
            pass
        process.kill()
    with lock(path, wait=False):
        pass


def test_a_fingerprint_is_of_content_and_of_a_folders_files(tmp_path):
    (tmp_path / "a").mkdir()
    path = tmp_path / "a" / "x.txt"
    path.write_bytes(b"one")
    assert fingerprint(path) == hashlib.sha256(b"one").hexdigest()
    first = fingerprint(tmp_path)
    assert first == fingerprint(tmp_path) != fingerprint(tmp_path / "a")
    path.write_bytes(b"other")
    assert fingerprint(tmp_path) != first

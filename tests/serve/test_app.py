"""The live page's routes: who gets what, and that nothing outside the folder or without the token is given."""

import asyncio
import hashlib
import http.client
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path

import pytest

from muonlab.cli import main
from muonlab.serve.app import Feed, file_of, make

pytest.importorskip("starlette", reason="starlette is not installed: pip install 'muonlab[serve]'")
STUDY = Path(__file__).parents[2] / "records" / "first-light" / "study"


@pytest.fixture
def root(tmp_path):
    """A folder with a finished study and its report, next to what is nobody's business."""
    place = tmp_path / "runs"
    shutil.copytree(STUDY, place / "mine")
    (place / "mine" / "report.html").write_text("<p>the report</p>")
    (place / "mine" / "report").mkdir(exist_ok=True)
    (place / "mine" / "report" / "runs.csv").write_text("a,b\n")
    (place / "notes").mkdir()
    (place / "notes" / "report.html").write_text("not a study's")
    (tmp_path / "secret.txt").write_text("secret")
    (tmp_path / "report.html").write_text("secret")
    (place / "mine" / "report" / "link.csv").symlink_to(tmp_path / "secret.txt")
    return place


def client(root, **settings):
    from starlette.testclient import TestClient

    return TestClient(make(root, **settings), base_url="http://127.0.0.1")


def test_the_page_and_reports_are_given(root):
    page = client(root)
    assert "<h1>Studies</h1>" in page.get("/").text
    assert page.get("/files/mine/report.html").text == "<p>the report</p>"
    assert page.get("/files/mine/report/runs.csv").text == "a,b\n"


@pytest.mark.parametrize(
    "path",
    [
        "../secret.txt", "../report.html", "mine/../../report.html", "%2e%2e/report.html", "..%2freport.html",
        "/etc/passwd", "//etc/passwd", "mine/report/link.csv", "mine/study.json", "notes/report.html", "mine/", "mine",
        "mine/report/../study.json", "mine/report.html%00", "a" * 5000,
    ],
)  # fmt: skip
def test_no_path_leaves_the_folder_or_reads_what_is_no_report(root, path):
    answer = client(root).get(f"/files/{path}")
    assert answer.status_code in (404, 405)
    assert "secret" not in answer.text


def test_paths_are_checked_below_the_routes_too(root):
    for path in ("../report.html", str(root.parent / "report.html"), "mine/report/link.csv", "mine/report.html\0"):
        assert file_of(root, path) is None
    assert file_of(root, "mine/report.html") == root / "mine" / "report.html"


def test_a_token_is_asked_for_by_every_route_and_kept_in_a_cookie(root):
    page = client(root, token="a-long-token")
    for path in ("/", "/events", "/files/mine/report.html", "/?token=wrong", "/?token=", "/?token=%E2%98%83"):
        assert page.get(path).status_code == 403
    assert page.get("/?token=a-long-token").status_code == 200
    assert page.get("/files/mine/report.html").status_code == 200


def test_only_its_own_names_reach_it_and_nothing_can_be_sent(root):
    page = client(root, hosts=("127.0.0.1",))
    assert page.get("/", headers={"host": "evil.example"}).status_code == 400
    assert page.get("/").status_code == 200
    for method in ("POST", "PUT", "DELETE"):
        assert page.request(method, "/files/mine/report.html").status_code == 405


def state(root, name=None):
    return json.loads(asyncio.run(Feed(root).text(name)))


def test_the_state_has_the_studies_and_one_in_detail(root):
    found = state(root, "mine")
    assert [(one["name"], one["jobs"]) for one in found["studies"]] == [("mine", {"done": 16})]
    assert found["detail"]["verdict"]["sentence"].startswith("Muon crossed sooner")
    assert len(found["detail"]["curves"]) == 12
    assert "there is no study '../mine'" in state(root, "../mine")["detail"]["reason"]


def test_a_folder_that_vanishes_is_said_and_may_come_back(root):
    feed = Feed(root, seconds=0.0)
    shutil.move(root, root.with_name("away"))
    assert "is not there" in json.loads(asyncio.run(feed.text("mine")))["reason"]
    shutil.move(root.with_name("away"), root)
    feed._lock = asyncio.Lock()
    assert json.loads(asyncio.run(feed.text(None)))["studies"]


def test_twenty_streams_follow_a_study_and_a_server_that_ends_changes_nothing(root):
    uvicorn = pytest.importorskip("uvicorn")
    before = digest(root)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        port = listener.getsockname()[1]
        settings = uvicorn.Config(make(root, seconds=0.05), log_level="critical", timeout_graceful_shutdown=0)
        server = uvicorn.Server(settings)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        connections = [http.client.HTTPConnection("127.0.0.1", port, timeout=30) for _ in range(20)]
        streams = [_stream(connection) for connection in connections]
        assert {len(_event(stream)["studies"]) for stream in streams} == {1}
        shutil.copytree(root / "mine", root / "second")
        assert all(_second(stream) for stream in streams)
        shutil.rmtree(root / "second")
        server.should_exit = True
        thread.join()
        for each in (*streams, *connections):
            each.close()
    assert digest(root) == before


def _stream(connection):
    connection.request("GET", "/events")
    return connection.getresponse()


def _event(stream):
    while not (line := stream.readline()).startswith(b"data: "):
        assert line, "the stream has ended"
    return json.loads(line[6:])


def _second(stream):
    while len(_event(stream)["studies"]) < 2:
        pass
    return True


def digest(root):
    files = sorted(path for path in root.rglob("*") if path.is_file() and not path.is_symlink())
    return [(str(path), hashlib.sha256(path.read_bytes()).hexdigest()) for path in files]


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["--host", "0.0.0.0"], 2, "--host 0.0.0.0 lets other machines read; give a --token"),
        (["--host", "0.0.0.0", "--token", "short"], 2, "at least eight characters"),
        (["--port", "70000"], 2, "port must be 0-65535; give another --port"),
        (["--host", "300.1.2.3", "--token", "long-enough"], 2, "; give another --host, an address of this machine"),
        (["--host", "192.0.2.1", "--token", "long-enough"], 2, "; give another --host, an address of this machine"),
    ],
)
def test_mistakes_of_the_verb(root, words, status, said, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["serve", str(root), *words])
    assert stopped.value.code == status
    assert said in capsys.readouterr().err


def test_a_port_that_is_taken_a_folder_that_is_not_there_and_a_package_that_is_missing(root, capsys, monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        cases = [
            (root, ["--port", str(taken.getsockname()[1])], 2, "Address already in use"),
            (root / "no", [], 1, "no folder"),
        ]
        for folder, words, status, said in cases:
            with pytest.raises(SystemExit, match=str(status)):
                main(["serve", str(folder), *words])
            assert said in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(SystemExit, match="1"):
        main(["serve", str(root)])
    assert "pip install 'muonlab[serve]'" in capsys.readouterr().err


def test_the_verb_serves_until_ctrl_c(root):
    pytest.importorskip("uvicorn")
    command = [sys.executable, "-m", "muonlab", "serve", str(root), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        address = re.search(r"http://127.0.0.1:\d+/", server.stdout.readline())[0]
        with urllib.request.urlopen(f"{address}files/mine/report.html") as answer:
            assert answer.read() == b"<p>the report</p>"
        server.send_signal(signal.SIGINT)
        assert server.wait() == 0
        assert "Traceback" not in server.stderr.read()

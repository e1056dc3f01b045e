"""The live page in a real browser: it follows a study to its end, and outlives its server."""

import shutil
import socket
import threading
from pathlib import Path

import pytest

import growing_study
from muonlab.jobs import store
from muonlab.jobs.files import write_json
from muonlab.report import progress
from muonlab.serve.app import make

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
uvicorn = pytest.importorskip("uvicorn", reason="uvicorn is not installed: pip install 'muonlab[serve]'")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


@pytest.fixture
def page():
    """A page on a phone, in the dark."""
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        found = browser.new_page(viewport={"width": 390, "height": 844}, color_scheme="dark")
        errors = []
        found.on("pageerror", lambda error: errors.append(str(error)))
        yield found
        browser.close()
        assert errors == []


class Served:
    """A server in a thread, which can be ended and started again at its port."""

    def __init__(self, root, port=0):
        listener = socket.create_server(("127.0.0.1", port))
        self.port = listener.getsockname()[1]
        settings = uvicorn.Config(make(root, seconds=0.1), log_level="critical", timeout_graceful_shutdown=0)
        self._server = uvicorn.Server(settings)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [listener]})
        self._thread.start()

    def end(self):
        self._server.should_exit = True
        self._thread.join()


def test_a_page_follows_a_study_to_its_end_and_outlives_its_server(page, tmp_path, monkeypatch):
    study = growing_study.install(monkeypatch, tmp_path)
    folder = tmp_path / "runs" / "mine"
    study.begin(study.plan("tiny", {"limit": ["10"]}), folder)
    for number in (3, 9):
        store.add(folder, study.job(number))
    served = Served(folder.parent)
    page.goto(f"http://127.0.0.1:{served.port}/")
    page.wait_for_selector("text=no job has ended yet")
    told = {"share": 0.25, "left": "about 8 min left", "done": 0, "running": {study.job(3).id: 0.5}}
    write_json(folder / progress.SAVED, told)
    write_json(folder / study.job(3).id / "env.json", {})
    Path(folder, study.job(3).id, "metrics.jsonl").write_text('{"step": 0, "validation_loss": [2.0, 3.0]}\n')
    page.wait_for_selector("text=25% of the work, about 8 min left")
    page.wait_for_selector("text=validation loss, 2 runs, 50%")
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    write_json(folder / study.job(3).id / "result.json", {"square": 9})
    page.wait_for_selector("text=So far, n = 1 job, not a result yet.")
    served.end()
    page.wait_for_selector("text=The server is not there")
    write_json(folder / study.job(9).id / "result.json", {"square": 81})
    (folder / progress.SAVED).unlink()
    (folder / "report.html").write_text("<p>the report</p>")
    served = Served(folder.parent, served.port)
    page.wait_for_selector("text=The largest square is 81.")
    assert page.query_selector("text=So far") is None
    page.click("text=report")
    page.wait_for_selector("text=the report")
    served.end()

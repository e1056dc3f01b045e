"""A study of jobs small enough for a test: squares of a number, each the square of the last, up to a limit."""

import sys
from types import ModuleType

from pydantic import BaseModel, ConfigDict

from muonlab.jobs import store
from muonlab.jobs.job import Job, identity
from muonlab.report.findings import Findings, Verdict
from muonlab.study.settings import check_name, whole_number

WORK = """
import json
import os
import time
from pathlib import Path

from muonlab.jobs.clock import Clock

def square(*, config, folder, device, compile, environment, report):
    clock = Clock(Path(folder), environment, device)
    report({"step": 0, "budget": 1})
    if config["number"] == config["bad"]:
        raise ValueError(f"{config['number']} is a bad number")
    pid = Path(folder, "pid")
    if config["number"] == config["slow"] and not pid.exists():  # the second time it is quick
        pid.write_text(str(os.getpid()))
        time.sleep(60)
    clock.stop()
    Path(folder, "result.json").write_text(json.dumps({"square": config["number"] ** 2}))
"""

STUDY = "features"
KEYS = ("limit", "bad", "slow")
PRESETS = {"tiny": {"limit": ["10"]}, "laptop": {"limit": ["100"]}}


class Asked(BaseModel):
    model_config = ConfigDict(frozen=True)
    preset: str
    settings: dict[str, list[str]]
    limit: int
    bad: int
    slow: int


def plan(preset, settings):
    check_name("preset", preset, PRESETS)
    limit = whole_number("limit", (PRESETS[preset] | settings)["limit"], at_least=1, at_most=10**6)
    bad, slow = (int(settings.get(key, ["0"])[0]) for key in ("bad", "slow"))
    return Asked(preset=preset, settings=settings, limit=limit, bad=bad, slow=slow)


def job(number, bad=0, slow=0):
    config = {"results_version": 1, "study": STUDY, "number": number, "bad": bad, "slow": slow}
    return Job(identity(config), f"square of {number}", "growing_work:square", config, float(number), role="square")


def begin(study, folder):
    store.create(folder, STUDY, study.preset, study.settings, {"limit": study.limit, "bad": study.bad})


def jobs_of(study, results):
    number, found = 3, []
    while number < study.limit:
        found.append(job(number, study.bad, study.slow))
        if found[-1].id not in results:
            break
        number = results[found[-1].id]["square"]
    return found


def outline(study):
    return [(f"square of {number}", float(number)) for number in (3, 9, 81) if number < study.limit]


def refuse(*, bad):
    if bad < 0:
        raise ValueError(f"bad={bad} is below 0; give a number")


def trials(study):
    return [("muonlab.studies.features:refuse", {"bad": study.bad})]


def analyse(folder):
    found = [result["square"] for result in store.Results(folder).values()]
    more = ("It is odd.", "So was the first.")
    verdict = Verdict("yes", "yes", f"The largest square is {max(found)}.", None, more, (), ())
    return Findings("Squares", "How far?", verdict, (), ())


def install(monkeypatch, folder) -> ModuleType:
    """Make this module the package of the features study, and its target known to workers."""
    (folder / "growing_work.py").write_text(WORK)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    monkeypatch.setitem(sys.modules, "muonlab.studies.features", sys.modules[__name__])
    return sys.modules[__name__]

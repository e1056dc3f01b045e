"""Workers elsewhere: Slurm's through submitit and a stand-in for sbatch, Ray's on a cluster of this machine.

The squares of tests/growing_study.py end with the same bytes wherever they are computed.
"""

import errno
import os
import signal
import socket
import stat
import sys
import time
import warnings
from pathlib import Path

import pytest

import growing_study
import muonlab
from muonlab.cli import main
from muonlab.jobs import local, remote, store
from muonlab.jobs.files import StudyError, read_json

SOURCE = str(Path(muonlab.__file__).parents[1])


@pytest.fixture
def study(tmp_path, monkeypatch):
    place = tmp_path / "modules"
    place.mkdir()
    found = growing_study.install(monkeypatch, place)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(place), SOURCE]))
    monkeypatch.setattr(remote, "SECONDS_BETWEEN_LOOKS", 0.02)
    return found


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "study"


def run(study, folder, words, limit=100, **settings):
    """Square numbers up to a limit by a launcher, and return the events but those of progress."""
    asked = study.plan("tiny", {"limit": [str(limit)], **settings})
    start = remote.launcher(words, folder, "cpu")
    events = local.run(study, asked, folder, workers=2, compile="never", launcher=start)
    return [event for event in events if event.kind not in ("progress", "tick")]


def results(folder):
    return {path.parent.name: path.read_bytes() for path in sorted(folder.glob("*/result.json"))}


@pytest.fixture
def expected(study, tmp_path):
    """The results of the same study on this machine."""
    run(study, tmp_path / "local", "local")
    return results(tmp_path / "local")


STAND_INS = {
    # Keeps the script, as Slurm does, and starts it in the background, as Slurm would on another machine.
    "sbatch": """
cp "${@: -1}" {state}/$$.sh
export SLURM_JOB_ID=$$ SLURM_NTASKS=1 SLURM_LOCALID=0 SLURM_NODEID=0 SLURM_PROCID=0 SLURM_JOB_NUM_NODES=1
export SLURM_JOB_NODELIST=here
(bash {state}/$$.sh; touch {state}/$$) >{state}/$$.out 2>&1 </dev/null &
echo "Submitted batch job $$"
""",
    "srun": """
while [[ "$1" == --* ]]; do [[ "$1" == --output || "$1" == --error ]] && shift; shift; done
exec "$@"
""",
    "scancel": "exit 0\n",
    "sacct": """
echo "JobID|State|NodeList"
for job in {state}/*; do [[ "$job" =~ ^.*/[0-9]+$ ]] && echo "$(basename $job)|COMPLETED|here"; done
""",
}


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """Stand-ins for the commands of Slurm."""
    pytest.importorskip("submitit", reason="submitit is not installed: pip install 'muonlab[slurm]'")
    state, place = tmp_path / "state", tmp_path / "bin"
    state.mkdir()
    place.mkdir()
    for name, script in STAND_INS.items():
        path = place / name
        path.write_text("#!/bin/bash\n" + script.replace("{state}", str(state)))
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{place}{os.pathsep}{os.environ['PATH']}")


@pytest.mark.usefixtures("slurm")
@pytest.mark.parametrize("words", ["slurm:cluster=local", "slurm:partition=short,timeout_min=5"])
def test_slurm_ends_with_the_same_bytes_and_goes_on_where_another_launcher_stopped(study, folder, expected, words):
    run(study, folder, "local", limit=10)
    events = run(study, folder, words)
    assert [(event.kind, event.detail.get("name")) for event in events] == [
        ("started", "square of 81"),
        ("finished", None),
    ]
    assert results(folder) == expected
    assert run(study, folder, words) == []


@pytest.mark.usefixtures("slurm")
def test_a_job_that_raises_on_slurm_is_recorded_with_its_reason(study, folder):
    events = run(study, folder, "slurm:cluster=local", limit=10, bad=["9"])
    assert [event.kind for event in events] == ["started", "finished", "started", "failed"]
    assert read_json(folder / events[-1].job / "failed.json")["reason"] == "ValueError: 9 is a bad number"


@pytest.mark.usefixtures("slurm")
def test_a_worker_of_slurm_that_is_killed_is_said_and_its_job_done_again(study, folder, expected):
    asked = study.plan("tiny", {"limit": ["100"]})
    work = Path(os.environ["PYTHONPATH"].split(os.pathsep)[0], "growing_work.py")
    work.write_text(work.read_text().replace("    report({", "    kill(folder)\n    report({", 1) + KILL)
    start = remote.launcher("slurm:cluster=local", folder, "cpu")
    events = list(local.run(study, asked, folder, workers=2, launcher=start))
    retried = [event.detail["reason"] for event in events if event.kind == "retried"]
    assert len(retried) == 1
    assert retried[0].startswith("its worker died (")
    assert results(folder) == expected


KILL = """

def kill(folder):
    import signal
    mark = Path(folder).parent / "killed"
    if not mark.exists():
        mark.write_text("")
        os.kill(os.getpid(), signal.SIGKILL)
"""


# -- what stops a study, said once -----------------------------------------------------------------


def job(number=3, target="growing_work:square"):
    arguments = {
        "config": {"number": number, "bad": 0, "slow": 0},
        "device": "cpu",
        "compile": "never",
        "environment": {},
    }
    return {"target": target, "arguments": arguments}


@pytest.fixture
def place(study, folder, monkeypatch):
    study.begin(study.plan("tiny", {}), folder)
    store.add(folder, study.job(3))
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return {
        "folder": str(folder),
        "directory": str(folder),
        "path": [os.environ["PYTHONPATH"].split(os.pathsep)[0]],
        "threads": 1,
    }


def test_a_worker_without_the_folder_or_a_package_stops_the_study(place, folder):
    found = remote.do(job(), place | {"folder": str(folder / "elsewhere")})
    assert found["stops"]
    assert f"{socket.gethostname()} does not see the folder" in found["reason"]
    found = remote.do(job(target="not_there:square"), place)
    assert found["stops"]
    assert "No module named 'not_there'" in found["reason"]
    assert "install it on every machine" in found["reason"]


class Elsewhere:
    """A worker whose every job ends in the same message."""

    def __init__(self, inbox, message):
        self.job, self._inbox, self._message = None, inbox, message

    def give(self, job, arguments):
        self.job = job
        self._inbox.put((self, self._message))

    def death(self):
        return "its node has gone"

    def last_words(self):
        return ""

    def end(self):
        pass


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (remote._stops("node7 cannot import torch"), "node7 cannot import torch. What is done is kept"),
        (
            {"kind": "raised", "reason": "OSError", "errno": errno.ENOSPC, "is_final": False, "traceback": ""},
            "is full; free",
        ),
    ],
)
def test_what_every_job_would_meet_is_one_message(study, folder, message, said):
    start = remote.Launcher(lambda inbox: Elsewhere(inbox, message), 2)
    with pytest.raises(StudyError, match=said):
        list(local.run(study, study.plan("tiny", {}), folder, launcher=start))
    assert not list(folder.glob("*/failed.json"))


def test_a_lost_worker_is_reported_with_how(study, folder):
    start = remote.Launcher(lambda inbox: Elsewhere(inbox, None), 2)
    events = list(local.run(study, study.plan("tiny", {}), folder, launcher=start))
    assert [event.kind for event in events] == ["started", "retried", "started", "failed"]
    assert events[-1].detail["reason"] == "its worker died (its node has gone)"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("spark", "launcher=spark is not valid; expected local, ray,"),
        ("local:2", "launcher=local:2 is not valid"),
        ("slurm:partition", "launcher=slurm:partition is not valid"),
        ("slurm:cluster=moon", "launcher=slurm cannot be used here"),
        ("slurm", 'launcher=slurm cannot be used here: Could not detect "srun"'),
    ],
)
def test_a_launcher_that_cannot_be(words, said, folder, monkeypatch, tmp_path):
    if words.startswith("slurm"):
        pytest.importorskip("submitit", reason="submitit is not installed: pip install 'muonlab[slurm]'")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StudyError, match=said):
        remote.launcher(words, folder, "cpu")
    assert not folder.exists()


@pytest.mark.parametrize(("name", "extra"), [("ray", "ray"), ("submitit", "slurm")])
def test_a_launcher_whose_package_is_missing(name, extra, folder, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(SystemExit, match="1"):
        main(["run", "grokking", "preset=tiny", f"out={folder}", f"launcher={extra}"])
    assert f"pip install 'muonlab[{extra}]'" in capsys.readouterr().err
    assert not folder.exists()


def test_no_cluster_at_that_address_is_said_at_once(folder):
    pytest.importorskip("ray", reason="ray is not installed: pip install 'muonlab[ray]'")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(
        StudyError, match=f"no Ray cluster answers at 127.0.0.1:{port}; start one with `ray start --head`"
    ):
        remote.launcher(f"ray:127.0.0.1:{port}", folder, "cpu")


# -- Ray -------------------------------------------------------------------------------------------


@pytest.fixture
def cluster(study, monkeypatch):
    """A Ray cluster on this machine, of two workers."""
    pytest.importorskip("ray", reason="ray is not installed: pip install 'muonlab[ray]'")
    import ray
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    warnings.simplefilter("ignore")  # what Ray warns of is not ours
    head = {"num_cpus": 2, "object_store_memory": 80 * 2**20, "include_dashboard": False}
    found = Cluster(initialize_head=True, head_node_args=head)
    yield found
    ray.shutdown()
    found.shutdown()


def test_ray_ends_with_the_same_bytes_though_a_worker_is_killed_in_the_middle(study, folder, expected, cluster):
    asked = study.plan("tiny", {"limit": ["100"], "slow": ["9"]})
    start = remote.launcher(f"ray:{cluster.address}", folder, "cpu")
    assert start.num_workers == 2
    seen = []
    for event in local.run(study, asked, folder, workers=2, launcher=start):
        if event.kind not in ("progress", "tick"):
            seen.append((event.kind, event.detail.get("reason", "")))
        if event.kind == "started" and event.detail["name"] == "square of 9" and len(seen) == 3:
            while not (folder / event.job / "pid").exists():  # it sleeps from then on
                time.sleep(0.05)
            os.kill(int((folder / event.job / "pid").read_text()), signal.SIGKILL)
    once = ["started", "finished"]
    assert [kind for kind, _ in seen] == [*once, "started", "retried", *once, *once]
    (lost,) = [reason for kind, reason in seen if kind == "retried"]
    assert lost.startswith("its worker died (")
    assert {path.read_bytes() for path in folder.glob("*/result.json")} == set(expected.values())

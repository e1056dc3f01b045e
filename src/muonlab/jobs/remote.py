"""Workers elsewhere: tasks of a Ray cluster, or jobs of Slurm. They share the study's folder with this machine.

A cluster changes where a job is done and nothing else: the pool hands out the same jobs, and each writes the same files
into its own folder. So a study may begin here and go on there, and the other way round.
"""

import contextlib
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from muonlab.jobs.files import StudyError
from muonlab.jobs.job import Job
from muonlab.jobs.optional import package
from muonlab.jobs.pool import THREADS, Inbox, Remote
from muonlab.jobs.worker import import_string, outcome

NAMES = ("local", "ray", "slurm")
EXPECTED = "local, ray, ray:HOST:PORT, slurm, or slurm:partition=NAME,timeout_min=60"
SLURM_FOLDER = ".slurm"  # in the study's folder: what submitit writes
SLURM_WORKERS = 16  # jobs in the queue at once, where workers= does not say
SECONDS_TO_CONNECT = 5.0
SECONDS_BETWEEN_LOOKS = 1.0  # at a job of Slurm
OF_SUBMITIT = ("cluster", "timeout_min", "mem_gb", "cpus_per_task", "gpus_per_node")  # all others are Slurm's own


@dataclass(frozen=True)
class Launcher:
    """How workers are started elsewhere, and how many there are unless the user says."""

    start: Callable[[Inbox], Remote]
    num_workers: int


def do(job: dict[str, Any], place: dict[str, Any]) -> dict[str, Any]:
    """Do a job on another machine and return the message about its end.

    Args:
        job: target and arguments.
        place: folder and working directory of the study, and the number of threads.
    """
    threads = str(place["threads"])
    os.environ |= {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}  # before torch is imported
    here = socket.gethostname()
    if not Path(place["folder"], "study.json").exists():
        return _stops(
            f"{here} does not see the folder {place['folder']}; give one that all machines share with out=DIR"
        )
    with contextlib.suppress(OSError):
        os.chdir(place["directory"])
    sys.path[:0] = [path for path in (place["directory"], *place["path"]) if path not in sys.path]
    try:
        import_string(job["target"])
    except ImportError as error:
        return _stops(f"{here} cannot import what the job needs ({error}); install it on every machine of the cluster")
    return outcome(job, lambda detail: None)


def _stops(reason: str) -> dict[str, Any]:
    """Return the message about what every job would meet."""
    return {"kind": "raised", "reason": reason, "errno": None, "is_final": True, "traceback": "", "stops": True}


def _place(folder: Path) -> dict[str, Any]:
    path = [each for each in os.environ.get("PYTHONPATH", "").split(os.pathsep) if each]
    return {"folder": str(folder), "directory": os.getcwd(), "path": path, "threads": THREADS}


def launcher(words: str, folder: Path, device: str) -> Launcher | None:
    """Return how workers are started; None for processes of this machine.

    Args:
        words: such as "ray:10.0.0.1:6379".
        folder: the study's.
        device: "cuda" asks for one GPU per worker.

    Raises:
        StudyError: there is no such launcher, a package is missing, or no cluster answers.
    """
    name, _, rest = words.partition(":")
    if name not in NAMES or (name == "local" and rest):
        raise StudyError(f"launcher={words} is not valid; expected {EXPECTED}")
    if name == "local":
        return None
    make = _ray if name == "ray" else _slurm
    return make(rest, folder.resolve(), device)


class _Waiting:
    """A worker elsewhere whose end a thread waits for."""

    def __init__(self, inbox: Inbox):
        self.job: Job | None = None
        self._inbox, self._lost = inbox, ("", "")

    def give(self, job: Job, arguments: dict[str, Any]) -> None:
        """Hand the job over, and wait for its end in a thread."""
        self.job = job
        arguments = arguments | {"folder": str(Path(arguments["folder"]).resolve())}
        threading.Thread(
            target=self._follow, args=({"target": job.target, "arguments": arguments},), daemon=True
        ).start()

    def _follow(self, job: dict[str, Any]) -> None:
        try:
            message = self._done(job)
        except Exception as error:  # a cluster has many ways to lose a job
            self._lost = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}", str(error)[-2000:]
            message = None
        self._inbox.put((self, message))

    def _done(self, job: dict[str, Any]) -> dict[str, Any]:
        """Do the job elsewhere and return the message about its end; raise where it was lost."""
        raise NotImplementedError

    def death(self) -> str:
        """Return how the job was lost."""
        return self._lost[0]

    def last_words(self) -> str:
        """Return all that the cluster said of it."""
        return self._lost[1]

    def end(self) -> None:
        """Take back what is at work."""


# -- Ray -------------------------------------------------------------------------------------------


def _ray(address: str, folder: Path, device: str) -> Launcher:
    """Return workers that are tasks of the Ray cluster at an address; of the one on this machine, without one."""
    ray = package("ray", "muonlab[ray]", "launcher=ray")
    where = address or os.environ.get("RAY_ADDRESS") or "auto"
    wanted = f"no Ray cluster answers at {where}; start one with `ray start --head`, or give launcher=ray:HOST:PORT"
    host, _, port = where.rpartition(":")
    if host and port.isdecimal() and "://" not in where:
        try:
            socket.create_connection((host, int(port)), SECONDS_TO_CONNECT).close()
        except (OSError, OverflowError) as error:
            raise StudyError(f"{wanted} ({error})") from error
    place = _place(folder)
    variables = {"OMP_NUM_THREADS": str(THREADS), "MKL_NUM_THREADS": str(THREADS)}
    if place["path"]:
        variables["PYTHONPATH"] = os.pathsep.join(place["path"])
    try:
        if not ray.is_initialized():
            quiet = {"log_to_driver": False, "logging_level": "error", "configure_logging": False}
            ray.init(address=where, runtime_env={"env_vars": variables}, **quiet)
        cores = int(ray.cluster_resources().get("GPU" if device.startswith("cuda") else "CPU", 0))
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        raise StudyError(f"{wanted} ({str(error).partition(chr(10))[0]})") from error
    gpus = 1 if device.startswith("cuda") else 0
    task = ray.remote(do).options(num_cpus=THREADS, num_gpus=gpus, max_retries=0)  # the pool tries again, and says so

    class Task(_Waiting):
        def _done(self, job: dict[str, Any]) -> dict[str, Any]:
            self._task = task.remote(job, place)
            try:
                return ray.get(self._task)
            except ray.exceptions.RayError as error:
                if "ModuleNotFoundError" in str(error):  # muonlab itself is missing there
                    missing = str(error).rpartition("ModuleNotFoundError:")[2].strip().partition("\n")[0]
                    return _stops(f"a worker of the Ray cluster cannot start: {missing}; install it on every machine")
                raise

        def end(self) -> None:
            if self.job is not None and hasattr(self, "_task"):
                with contextlib.suppress(Exception):  # the cluster may have gone
                    ray.cancel(self._task, force=True)

    return Launcher(Task, max(cores, 1))


# -- Slurm -----------------------------------------------------------------------------------------


def _slurm(words: str, folder: Path, device: str) -> Launcher:
    """Return workers that are jobs of Slurm, one for each job of the study, with settings of submitit and Slurm."""
    submitit = package("submitit", "muonlab[slurm]", "launcher=slurm")
    pairs = [word.partition("=") for word in words.split(",") if word]
    if not all(key and equals and value for key, equals, value in pairs):
        raise StudyError(f"launcher=slurm:{words} is not valid; expected {EXPECTED}")
    given = {key: int(value) if value.isdecimal() else value for key, _, value in pairs}
    cluster = given.pop("cluster", "slurm")
    given = {"timeout_min": 24 * 60, **({"gpus_per_node": 1} if device.startswith("cuda") else {}), **given}
    try:
        executor = submitit.AutoExecutor(folder=str(folder / SLURM_FOLDER), cluster=cluster)
        executor.update_parameters(
            name="muonlab", **{key if key in OF_SUBMITIT else f"slurm_{key}": value for key, value in given.items()}
        )
    except (RuntimeError, NameError, ValueError, TypeError, AssertionError) as error:
        said = " ".join(str(error).split()) or type(error).__name__
        raise StudyError(
            f"launcher=slurm cannot be used here: {said}; run it where sbatch is, or take launcher=local"
        ) from error
    place, submitting = _place(folder), threading.Lock()

    class Batch(_Waiting):
        def _done(self, job: dict[str, Any]) -> dict[str, Any]:
            with submitting:  # an executor counts its jobs
                self._batch = executor.submit(do, job, place)
            while not self._batch.done(force_check=cluster == "local"):  # sacct is asked by submitit, not too often
                time.sleep(SECONDS_BETWEEN_LOOKS)
            return self._batch.result()

        def end(self) -> None:
            if self.job is not None and hasattr(self, "_batch"):
                with contextlib.suppress(Exception):  # it may have ended
                    self._batch.cancel(check=False)

    return Launcher(Batch, SLURM_WORKERS)

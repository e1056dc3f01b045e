"""What a launcher costs per job: studies of jobs that do nothing, by processes of this machine, Ray and Slurm.

    python benchmarks/launchers.py --save records/launchers/launchers.json

A job writes its result and ends, so all that is measured is what stands around it: handing it out, its folder and
files, starting what runs it, and finding out what comes next. Ray is a cluster started here; Slurm is submitit's local
executor, which starts a process for each job as Slurm does, without a queue. Launchers whose package is missing are
said. What is in the file already is not measured again: the command goes on after a kill.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
import types
from pathlib import Path
from typing import Any

from muonlab.jobs import local, remote, store
from muonlab.jobs.clock import Clock
from muonlab.jobs.files import StudyError, write_json
from muonlab.jobs.job import Job, identity

HERE = Path(__file__).parent


def nothing(*, config: dict[str, Any], folder: str, device: str, environment: dict[str, Any], report: Any, **_: Any):
    """Write a result: what a worker is given to do."""
    clock = Clock(Path(folder), environment, device)
    report({"step": 1, "budget": 1})
    clock.stop()
    write_json(Path(folder, "result.json"), {"number": config["number"]})


def job(number: int) -> Job:
    config = {"results_version": 1, "study": "grokking", "number": number}
    return Job(identity(config), f"job {number}", "launchers:nothing", config, 1.0, role="run")


def study(num_jobs: int) -> Any:
    """Return the package of a study of so many jobs, none of which waits for another."""
    jobs = [job(number) for number in range(num_jobs)]
    return types.SimpleNamespace(
        STUDY="grokking",
        begin=lambda asked, folder: store.create(folder, "grokking", "none", {}, {}),
        jobs_of=lambda asked, results: jobs,
        outline=lambda asked: [(one.name, one.cost) for one in jobs],
        trials=lambda asked: [],
    )


def measure(words: str, num_jobs: int, workers: int) -> dict[str, Any]:
    """Return how long a study of so many jobs takes by a launcher."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as place:
        folder = Path(place, "study")
        start = time.perf_counter()
        elsewhere = remote.launcher(words, folder, "cpu")
        first, failed = None, 0
        for event in local.run(study(num_jobs), None, folder, workers=workers, launcher=elsewhere):
            if event.kind == "finished" and first is None:
                first = time.perf_counter() - start
            failed += event.kind in ("failed", "retried")
        seconds = time.perf_counter() - start
        assert not failed, f"{words}: {failed} jobs failed"
        assert len(store.Results(folder)) == num_jobs
    assert first is not None
    per_job = (seconds - first) / (num_jobs - 1)
    return {"jobs": num_jobs, "workers": workers, "seconds": seconds, "to_first": first, "seconds_per_job": per_job}


def with_ray(num_jobs: int, workers: int) -> dict[str, Any]:
    """Measure on a cluster of as many cores as there are workers, started for it."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray
    from ray.cluster_utils import Cluster

    head = {"num_cpus": workers, "object_store_memory": 80 * 2**20, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        return measure(f"ray:{cluster.address}", num_jobs, workers)
    finally:
        ray.shutdown()
        cluster.shutdown()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--slurm-jobs", type=int, default=200, help="fewer: each starts a process")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--save", type=Path, help="a JSON file")
    args = parser.parse_args()
    os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
    sys.path.insert(0, str(HERE))
    found = json.loads(args.save.read_text()) if args.save and args.save.exists() else {}
    ways = {
        "local": lambda: measure("local", args.jobs, args.workers),
        "ray": lambda: with_ray(args.jobs, args.workers),
        "slurm": lambda: measure("slurm:cluster=local", args.slurm_jobs, args.workers),
    }
    for name, way in ways.items():
        if name not in found:
            try:
                found[name] = way()
            except (ImportError, StudyError) as error:
                print(f"{name}: not measured ({error})")
                continue
            found["machine"] = {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()}
            if args.save:
                args.save.parent.mkdir(parents=True, exist_ok=True)
                write_json(args.save, found)
        row = found[name]
        print(
            f"{name:6} {row['jobs']:5} jobs, {row['workers']} workers: {row['seconds']:7.1f} s, first after "
            f"{row['to_first']:.1f} s, then {1000 * row['seconds_per_job']:.0f} ms per job",
            flush=True,
        )


if __name__ == "__main__":
    main()

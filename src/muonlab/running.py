"""A study run from the command line: what the verbs that run share, from the settings of how it runs to the report."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from muonlab.jobs.job import StudyFile


@dataclass(frozen=True)
class Execution:
    """How and where a study runs, which decides nothing about its results.

    Attributes:
        device: torch device of the workers.
        compile: whether runs are compiled programs.
        workers: at once, at most; None for as many as there are cores, or as the launcher has.
        launcher: where the workers are: see `muonlab.jobs.remote`.
        is_opened: whether a browser shows the study while it runs.
    """

    device: str = "cpu"
    compile: Any = "auto"
    workers: int | None = None
    launcher: str = "local"
    is_opened: bool = False

    @property
    def num_workers(self) -> int:
        """Workers at once, where a forecast has to say a number."""
        from muonlab.jobs.local import available_cores

        return self.workers or available_cores()


def execution(given: Mapping[str, list[str]], *, is_opened: bool = False) -> Execution:
    """Return how a study runs, of the settings that say so.

    Raises:
        UsageError: a setting that cannot be.
    """
    from muonlab.jobs import remote
    from muonlab.study.settings import check_name, whole_number

    compile = ",".join(given.get("compile", ["auto"]))
    check_name("compile", compile, ("auto", "always", "never"))
    workers = whole_number("workers", given["workers"], at_least=1, at_most=1024) if "workers" in given else None
    launcher = ",".join(given.get("launcher", ["local"]))
    check_name("launcher", launcher.partition(":")[0], remote.NAMES, "with more after a colon: docs/cluster.md")
    device = ",".join(given.get("device", ["cpu"])).lower()
    if launcher == "local":  # elsewhere there may be what is not here
        check_device(device)
    return Execution(device, compile, workers, launcher, is_opened)


def check_device(name: str) -> None:
    """Raise UsageError where this machine has no such torch device."""
    if name == "cpu":
        return
    from muonlab.study.settings import UsageError
    from muonlab.train.jobs import check_device

    try:
        check_device(name)
    except ValueError as error:
        raise UsageError(str(error)) from None


def forecast(package: Any, asked: Any, folder: Path, workers: int, *, in_runs: bool = False) -> int:
    """Print what a run would do, in seconds or in runs of a program, and return the exit status."""
    from muonlab.jobs import local, store
    from muonlab.report import terminal

    store.check(folder, package.STUDY)
    for note in local.try_out(package, asked, folder):
        print(f"note: {note}", file=sys.stderr)
    left, num_done = local.left(package, asked, folder)
    if in_runs:
        terminal.print_runs(left, workers, folder, num_done)
    else:
        by = "a few steps of each optimizer, here and now" if getattr(package, "seconds", ()) else terminal.ELSEWHERE
        terminal.print_outline(left, workers, folder, num_done, by)
    return 0


def run(package: Any, asked: Any, folder: Path, how: Execution) -> int:
    """Run what a request asks for, write the report and return the exit status."""
    from muonlab.jobs import local, remote, signals, store
    from muonlab.report.progress import ProgressView, count

    store.check(folder, package.STUDY)
    left, num_done = local.left(package, asked, folder)
    expected = f"about {len(left)} to do" if left else "none to do"
    print(f"{folder}: {count(num_done, 'job')} done already, {expected}", flush=True)
    elsewhere = remote.launcher(how.launcher, folder, how.device) if left else None
    workers = how.workers or (elsewhere.num_workers if elsewhere else how.num_workers)
    failed = set()
    try:
        events = local.run(
            package, asked, folder, workers=workers, device=how.device, compile=how.compile, launcher=elsewhere
        )
        with (
            _shown(folder, is_opened=how.is_opened),
            ProgressView(left, workers, sys.stdout, folder) as progress,
            closing(events),
        ):
            for event in events:
                if event.kind == "failed":
                    failed.add(event.job)
                progress.show(event.kind, event.job, event.detail)
    except KeyboardInterrupt as stopped:
        done = count(local.left(package, asked, folder)[1], "job")
        stop(f"stopped; done and kept: {done}. The same command goes on from here", signals.status_of(stopped))
    if failed:
        print(
            f"muonlab: {count(len(failed), 'job')} failed; `muonlab show {folder}` says why, the same command tries "
            f"{'it' if len(failed) == 1 else 'them'} again",
            file=sys.stderr,
        )
    write_report(folder, package)
    return 1 if failed else 0


@contextmanager
def _shown(folder: Path, *, is_opened: bool) -> Iterator[None]:
    """Serve the folder's live page to a browser while a study runs, and open its report after it."""
    if not is_opened:
        yield
        return
    import subprocess
    import webbrowser

    from muonlab.jobs.optional import package

    for name in ("starlette", "uvicorn"):
        package(name, "muonlab[serve]", "--open")
    folder.mkdir(parents=True, exist_ok=True)
    page = subprocess.Popen([sys.executable, "-m", "muonlab", "serve", str(folder), "--open"], start_new_session=True)
    try:
        yield
    finally:
        page.terminate()
        page.wait()
    webbrowser.open((folder / "report.html").resolve().as_uri())


def write_report(folder: Path, package: Any = None) -> None:
    """Write the report of a study's folder, and print its verdict."""
    from muonlab.jobs import store
    from muonlab.report import page, terminal
    from muonlab.report.findings import Text
    from muonlab.studies import find

    file = store.read(folder)
    package = package or find(file.study)
    findings = package.analyse(folder)
    if not getattr(package, "POOLED", False):
        notices = [Text(words, "note") for words in _earlier(file, store.Results(folder))]
        findings = replace(findings, notices=(*findings.notices, *notices))
    terminal.print_verdict(findings, page.write(findings, folder))


def _earlier(file: "StudyFile", results: Mapping[str, Any]) -> Iterator[str]:
    """Yield a sentence for each earlier request that has jobs of its own: a report is that of the newest."""
    for request in file.requests[:-1]:
        own = set(request.jobs) - set(file.newest.jobs)
        if own or not request.jobs:
            done = sum(job in results for job in request.jobs)
            yield (
                f"Also in this folder, asked before: {request.command(file.study)} ({done} of {len(request.jobs)} jobs "
                "done). The same command writes its report again and computes nothing twice."
            )


def stop(error: Exception | str, status: int) -> NoReturn:
    """Say what was wrong, and end with a status."""
    print(f"muonlab: {error}", file=sys.stderr)
    sys.exit(status)

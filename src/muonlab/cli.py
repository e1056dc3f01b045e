"""The command line: verbs only. Each imports its room when it is called, so that the reading verbs stay light."""

import importlib
import json
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Annotated

try:
    from cyclopts import App, CycloptsError, Parameter
except ImportError:  # the package alone, without its laboratory
    sys.exit("muonlab: the command line needs the laboratory's packages; install them with: pip install 'muonlab[lab]'")

from muonlab import __version__

DEFAULT_ROOT = Path("runs")
STUDIES = ("grokking", "features", "components")  # packages of muonlab.studies that `run` runs
PACKAGES = {"inspect": "checkpoints"}  # of studies whose package has another name
EXECUTION_KEYS = ("out", "device", "workers", "compile")

app = App(
    name="muonlab",
    version=__version__,
    help="A laboratory that measures what an optimizer does to a network.",
    help_format="markdown",
)


@app.command
def run(study: str, *settings: str, dry_run: Annotated[bool, Parameter(negative="")] = False) -> int:
    """Run a study, go on with a half-done one, or add to a finished one; then write its report.

    What is finished is kept and what is half-done goes on from its checkpoint: to resume, give the same command again.

    For example:

        muonlab run grokking preset=laptop

        muonlab run features preset=laptop

        muonlab run components preset=laptop

        muonlab run grokking preset=laptop tasks=add,mul optimizers=muon,adamw,sgd muon.lr=0.01,0.02 seeds=20 --dry-run

    Parameters
    ----------
    study
        What to run: grokking, features or components.
    settings
        key=value, with commas for several values. preset=tiny, laptop, paper (for features also real, for components
        full in its place) is where the rest starts from; out=DIR is the study's folder (default runs/STUDY), device=cpu
        or cuda, workers=N the number of processes (default: one a core), compile=auto, always or never. All other keys:
        docs/settings.md.
    dry_run
        Print the cells or jobs, their number, the estimated time and, for cells, disk, and run nothing.
    """
    from muonlab.jobs import store
    from muonlab.study.settings import check_name, parse, whole_number
    from muonlab.work import Cells, Jobs

    check_name("study", study, STUDIES)
    package = _package(study)
    given = parse(settings, ("preset", *EXECUTION_KEYS, *package.KEYS))
    preset = ",".join(given.pop("preset", ["laptop"]))
    folder = Path(",".join(given.pop("out", [str(DEFAULT_ROOT / study)])))
    device = ",".join(given.pop("device", ["cpu"])).lower()
    compile = ",".join(given.pop("compile", ["auto"]))
    check_name("compile", compile, ("auto", "always", "never"))
    workers = whole_number("workers", given.pop("workers", [str(_cores())]), at_least=1, at_most=1024)
    plan = package.plan(preset, given)
    _check_device(device)
    store.check(folder, study)
    work = Cells(plan, folder, workers) if study == "grokking" else Jobs(package, plan, folder, workers)
    if dry_run:
        work.forecast(device)
        return 0
    return _run(work, study, folder, device, compile)


def _run(work, study: str, folder: Path, device: str, compile: str) -> int:
    """Do a `muonlab.work.Work`, write its report and return the exit status."""
    failed, unreadable = _do(work, device, compile)
    if failed:
        again = "the same command tries them again"
        print(
            f"muonlab: {failed} {work.described} failed; `muonlab show {folder}` says why, {again}",
            file=sys.stderr,
        )
    if unreadable:
        print(
            f"muonlab: {unreadable} {work.noun} hold a file that cannot be read; `muonlab show {folder}` names it",
            file=sys.stderr,
        )
    _write_report(study, folder)
    return 1 if failed or unreadable else 0


@app.command
def inspect(
    *models: str,
    taps: Annotated[bool, Parameter(negative="")] = False,
    dry_run: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Measure models that you have as the feature study does: robustness, probe margins, ranks, transfer.

    For example:

        muonlab inspect A.safetensors B.safetensors net=package.module:build data=images.zip

        muonlab inspect Muon=muon/*.pt AdamW=adamw/*.pt net=package.module:build data=text.txt examples=labelled.tsv

        muonlab inspect runs/features/ID/weights-240.safetensors runs/features/ID2/weights-240.safetensors

    Parameters
    ----------
    models
        PATH of weights (.safetensors, a state dict of torch.save, a folder of Hugging Face's), or NAME=PATH,PATH for
        several of one kind; and key=value: net, data, measures, transfer, taps, out (default runs/inspect), device.
        All keys: docs/inspect.md.
    taps
        Print the modules whose outputs may be measured, with their shapes, and measure nothing.
    dry_run
        Print what would be measured, and measure nothing.
    """
    from muonlab.jobs import store
    from muonlab.report import terminal
    from muonlab.studies import checkpoints as package
    from muonlab.work import Jobs

    asked, beside = package.ask(models, ("out", "device"))
    folder = Path(",".join(beside.get("out", [str(package.OUT)])))
    device = ",".join(beside.get("device", ["cpu"])).lower()
    _check_device(device)
    store.check(folder, "inspect")
    if taps:
        terminal.print_taps(package.taps(asked))
        return 0
    package.check(asked, folder)
    if dry_run:
        costs = [job.cost for job in package.ready(asked, folder)]
        terminal.print_groups(asked.job, folder, sum(costs) if costs else None)
        return 0
    return _run(Jobs(package, asked, folder, workers=1), "inspect", folder, device, "auto")


def _package(study: str) -> ModuleType:
    return importlib.import_module(f"muonlab.studies.{PACKAGES.get(study, study)}")


def _do(work, device: str, compile: str) -> tuple[int, int]:
    """Do a `muonlab.work.Work`; return how many of its cells or jobs failed, and how many hold a torn file."""
    from contextlib import closing

    failed = set()
    try:
        with work.progress(sys.stdout) as progress, closing(work.events(device, compile)) as events:
            for event in events:
                if event.kind == "failed":
                    failed.add(event.cell)
                progress.show(event.kind, event.cell, event.detail)
    except KeyboardInterrupt:
        num_done = sum(record.status == "done" for record in work.records())
        print(
            f"\nmuonlab: stopped; {num_done} {work.described} are done and kept. The same command goes on from here.",
            file=sys.stderr,
        )
        raise SystemExit(130) from None
    unreadable = {record.id for record in work.records() if record.status == "unreadable"} & failed
    return len(failed - unreadable), len(unreadable)


def _write_report(study: str, folder: Path) -> None:
    from muonlab.report import page as view

    findings = _package(study).analyse(folder)
    path = view.write(findings, folder)
    more = () if study == "grokking" else findings.verdict.more  # grokking has many: they are for its report
    # What two checkpoints cannot tell must be read with what they do.
    cautions = ("", *findings.verdict.cautions) if study == "inspect" and findings.verdict.cautions else ()
    print("", findings.verdict.sentence, *more, *cautions, "", f"Report: {path}", sep="\n")


@app.command
def ls(folder: Path = DEFAULT_ROOT, *, as_json: Annotated[bool, Parameter(name="--json", negative="")] = False) -> int:
    """List the studies in a folder.

    For example:

        muonlab ls runs

    Parameters
    ----------
    folder
        A folder of studies, or one study's own.
    as_json
        Print JSON instead of a table.
    """
    from muonlab.jobs.catalogue import list_studies
    from muonlab.report import terminal

    studies = list_studies(folder)
    if as_json:
        print(json.dumps(studies, indent=1))
    else:
        terminal.print_studies(studies, folder)
    return 0


@app.command
def show(
    folder: Path = DEFAULT_ROOT / "grokking",
    *,
    cell: str | None = None,
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> int:
    """Show the cells or jobs of a study: what was asked, what was seen, and why there is nothing where there is none.

    For example:

        muonlab show runs/grokking --json

    Parameters
    ----------
    folder
        The study's folder.
    cell
        Show this cell or job alone, given by the start of its id.
    as_json
        Print a JSON list with an object a cell or job (its keys: docs/files.md) instead of a table.
    """
    from muonlab.jobs import catalogue
    from muonlab.jobs.files import StudyError
    from muonlab.report import terminal

    records = [record for record in catalogue.records(folder) if record.id.startswith(cell or "")]
    if cell is not None and not records:
        raise StudyError(f"{folder} has no cell {cell!r}; `muonlab show {folder}` lists their ids")
    if as_json:
        print(json.dumps([record.as_json() for record in records], indent=1, allow_nan=False))
    else:
        terminal.print_records(records)
    return 0


@app.command
def report(folder: Path = DEFAULT_ROOT / "grokking") -> int:
    """Write a study's report.html anew where results have come since, and say where it is.

    For example:

        muonlab report runs/grokking

    Parameters
    ----------
    folder
        The study's folder.
    """
    from muonlab.jobs import catalogue
    from muonlab.jobs.files import StudyError

    study = catalogue.read(folder).study
    reported = (*STUDIES, *PACKAGES)
    if study not in reported:
        known = f"{', '.join(reported[:-1])} and {reported[-1]}"
        raise StudyError(f"{folder} holds the study {study!r}; this version of muonlab reports {known}")
    if catalogue.report_is_current(folder):
        print(f"Report: {folder / 'report.html'}")
    else:
        _write_report(study, folder)
    return 0


@app.command
def doctor(*, as_json: Annotated[bool, Parameter(name="--json", negative="")] = False) -> int:
    """Say what this machine has, and what method="auto" of the optimizer means on it.

    For example:

        muonlab doctor

    Parameters
    ----------
    as_json
        Print JSON instead of text.
    """
    from dataclasses import asdict

    import torch

    from muonlab.jobs.environment import record
    from muonlab.report import terminal
    from muonlab.rules import choice

    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    found = {
        "environment": record(threads=torch.get_num_threads()),
        "gpus": gpus,
        "auto": list(map(asdict, choice.TABLE)),
    }
    if as_json:
        print(json.dumps(found, indent=1))
    else:
        terminal.print_doctor(found)
    return 0


def main(arguments: list[str] | None = None) -> None:
    """Run the command line: exit status 0, 1 for a failure, 2 for a mistake in the command, 130 for Ctrl-C."""
    from muonlab.jobs.files import StudyError
    from muonlab.jobs.store import explain

    words = sys.argv[1:] if arguments is None else arguments
    try:
        status = app(words, exit_on_error=False, result_action="return_value")
    except CycloptsError:
        sys.exit(2)  # it has printed what was wrong
    except StudyError as error:
        _stop(error, 1)
    except BrokenPipeError:  # the reader of a pipe, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(0)
    except OSError as error:
        _stop(StudyError(explain(error, Path(error.filename or "."))), 1)
    except KeyboardInterrupt:
        sys.exit(130)
    except ValueError as error:
        if type(error).__name__ != "UsageError":
            raise
        _stop(error, 2)
    else:
        sys.exit(status if isinstance(status, int) else 0)


def _stop(error: Exception, status: int) -> None:
    print(f"muonlab: {error}", file=sys.stderr)
    sys.exit(status)


def _cores() -> int:
    from muonlab.jobs.local import available_cores

    return available_cores()


def _check_device(name: str) -> None:
    if name == "cpu":
        return
    from muonlab.studies.grokking.work.probe import check_device
    from muonlab.study.settings import UsageError

    try:
        check_device(name)
    except ValueError as error:
        raise UsageError(str(error)) from None


if __name__ == "__main__":
    main()

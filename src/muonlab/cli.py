"""The command line: verbs only. Each imports its room when it is called, so that the reading verbs stay light."""

import itertools
import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

try:
    from cyclopts import App, CycloptsError, Parameter, UnknownOptionError
except ImportError:  # the package alone, without its laboratory
    sys.exit("muonlab: the command line needs the laboratory's packages; install them with: pip install 'muonlab[lab]'")

from muonlab import __version__, running
from muonlab.export.verb import export
from muonlab.serve.verb import serve

DEFAULT_ROOT = Path("runs")
STUDIES = ("grokking", "features", "components", "transfer")  # those that `run` runs
DESCRIBED = (*STUDIES, "compare")  # those whose settings are listed

app = App(
    name="muonlab",
    version=__version__,
    help="A laboratory that measures what an optimizer does to a network.",
    help_format="markdown",
    suppress_keyboard_interrupt=False,  # `main` says what was stopped, with the status of the signal
)
app.register_install_completion_command()  # muonlab --install-completion
app.command(export)
app.command(serve)


@app.command
def run(
    study: str,
    *settings: str,
    dry_run: Annotated[bool, Parameter(negative="")] = False,
    is_opened: Annotated[bool, Parameter(name="--open", negative="")] = False,
) -> int:
    """Run a study, go on with a half-done one, or add to a finished one; then write its report.

    What is finished is kept and what is half-done goes on from its checkpoint: to resume, give the same command again.

    For example:

        muonlab run grokking preset=laptop

        muonlab run features preset=laptop

        muonlab run components preset=laptop

        muonlab run transfer preset=laptop

        muonlab run my_study.py seeds=10

        muonlab run study.toml

        muonlab run grokking preset=laptop tasks=add,mul optimizers=muon,adamw,sgd muon.lr=0.01,0.02 seeds=20 --dry-run

    Parameters
    ----------
    study
        What to run: grokking, features, components, transfer, a file that defines a study of your own
        (docs/own-study.md), or a .toml or .yaml file that holds the name and the settings of any study
        (docs/studies.md).
    settings
        key=value, with commas for several values. preset=tiny, laptop, paper (for features also real, for components
        full in its place) is where the rest starts from; out=DIR is the study's folder (default runs/STUDY), device=cpu
        or cuda, workers=N the number of processes (default: one per core), compile=auto, always or never. All other
        keys: `muonlab settings STUDY`, or docs/settings.md.
    dry_run
        Print the jobs, their number and the estimated time, and run nothing.
    is_opened
        Show the study in a browser while it runs (`muonlab serve`), and then its report.
    """
    from muonlab.studies import find, of_file
    from muonlab.study import from_file
    from muonlab.study.described import EXECUTION_KEYS
    from muonlab.study.settings import check_name, parse

    if study.endswith(from_file.ENDINGS):
        given = from_file.read(Path(study))
        with given.located():
            words = given.with_words(settings)
            how = {"dry_run": dry_run, "is_opened": is_opened}
            return compare(*words, **how) if given.study == "compare" else run(given.study, *words, **how)
    is_file = study.endswith(".py")
    if not is_file:
        check_name("study", study, STUDIES, "or a file that defines a study, such as my_study.py")
    package = of_file(study) if is_file else find(study)
    known = (*(() if is_file else ("preset",)), *EXECUTION_KEYS, *package.KEYS)
    given = parse(settings, known, getattr(package, "PRESETS", None))
    preset = study if is_file else ",".join(given.pop("preset", ["laptop"]))
    folder = Path(",".join(given.pop("out", [str(DEFAULT_ROOT / Path(study).stem)])))
    how = running.execution({key: given.pop(key) for key in EXECUTION_KEYS if key in given}, is_opened=is_opened)
    asked = package.plan(preset, given)
    for note in getattr(asked, "notes", ()):
        print(f"note: {note}", file=sys.stderr)
    if dry_run:
        return running.forecast(package, asked, folder, how.num_workers)
    return running.run(package, asked, folder, how)


@app.command
def inspect(
    *models: str,
    taps: Annotated[bool, Parameter(negative="")] = False,
    dry_run: Annotated[bool, Parameter(negative="")] = False,
    is_opened: Annotated[bool, Parameter(name="--open", negative="")] = False,
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
    is_opened
        Show the inspection in a browser while it runs (`muonlab serve`), and then its report.
    """
    from dataclasses import replace

    from muonlab.jobs import store
    from muonlab.report import terminal
    from muonlab.studies import checkpoints as package

    asked, execution = package.ask(models, ("out", "device", "launcher"))
    folder = Path(",".join(execution.get("out", [str(package.OUT)])))
    how = replace(running.execution(execution, is_opened=is_opened), workers=1)
    store.check(folder, "inspect")
    if taps:
        terminal.print_taps(package.taps(asked))
        return 0
    package.check(asked, folder)
    if dry_run:
        print(package.summary(asked))
        return running.forecast(package, asked, folder, workers=1)
    return running.run(package, asked, folder, how)


@app.command
def compare(
    *words: str,
    dry_run: Annotated[bool, Parameter(negative="")] = False,
    is_opened: Annotated[bool, Parameter(name="--open", negative="")] = False,
) -> int:
    """Compare optimizers on your own training: should you switch, and with which settings?

    Every optimizer is tuned by as many trials, then runs with further seeds; the report ends in a verdict with an
    interval that contains the luck of tuning. To resume, give the same command again.

    For example:

        muonlab compare my_project.py:task

        muonlab compare my_project:task optimizers=adamw,muon,mine=my_pkg:Mine trials=16 seeds=5 steps=2000 --dry-run

        muonlab compare net=my_nets:resnet data=images.zip adamw.lr=1e-4..1e-2

        muonlab compare command="python train.py --opt {optimizer} --lr {lr} --seed {seed} --n {steps}" metric=val_loss

    Parameters
    ----------
    words
        A function task(seed) that returns (model, train, validation, loss), net= and data=, or command=; and key=value:
        optimizers (default adamw,muon; the first is the baseline), trials, seeds, steps, out (default
        runs/compare-FILE-TASK), device, workers. All keys: docs/compare.md.
    dry_run
        Print the jobs, what each optimizer would be tried with and the estimated time, and run nothing.
    is_opened
        Show the comparison in a browser while it runs (`muonlab serve`), and then its report.
    """
    from muonlab.studies.compare.ask import ask, default_folder, first_command, notes
    from muonlab.studies.compare.resolution import foreseen

    study, asked, beside = ask(words)
    folder = Path(",".join(beside.get("out", [str(DEFAULT_ROOT / default_folder(asked))])))
    how = running.execution(beside, is_opened=is_opened)
    for note in notes(asked, folder):
        print(f"note: {note}", file=sys.stderr)
    if dry_run:
        for arm in asked.arms:
            print(f"{arm.name}: {asked.searches[arm.label].words}")
        print(foreseen(asked))
        first = first_command(asked, folder, how.device)
        if first:
            print(f"First run: {first}")
        else:
            study = _measured(study, asked, folder, how.device)
        return running.forecast(study, asked, folder, how.num_workers, in_runs=bool(first))
    return running.run(study, asked, folder, how)


def _measured(study: Any, asked: Any, folder: Path, device: str) -> Any:
    """Return a comparison that knows how long a step takes, by a few steps of each optimizer."""
    from dataclasses import replace

    from muonlab.jobs import local
    from muonlab.studies.compare.work.job import seconds_of

    local.try_out(study, asked, folder)
    whole = [seconds_of(part, device) for part in asked.parts if not part.part]
    # A step takes as long whatever the budget, but a shorter one has as many evaluations.
    seconds = tuple(
        step + evaluation * len(part.training.steps) / part.training.budget
        for part, (step, evaluation) in zip(asked.parts, len(asked.shares) * whole, strict=True)
    )
    return replace(study, seconds=seconds) if all(seconds) else study


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
    """Show the jobs of a study: what was asked, what was seen, and why there is nothing where there is none.

    For example:

        muonlab show runs/grokking --json

    Parameters
    ----------
    folder
        The study's folder.
    cell
        Show this job (of grokking: this cell) alone, given by the start of its id.
    as_json
        Print a JSON list with one object per job (its keys: docs/files.md) instead of a table.
    """
    from muonlab.jobs import store
    from muonlab.jobs.files import StudyError
    from muonlab.report import terminal
    from muonlab.studies import PACKAGES, find

    file = store.read(folder)
    records = [record for record in store.records(folder) if record.id.startswith(cell or "")]
    if cell is not None and not records:
        raise StudyError(f"{folder} has no job {cell!r}; `muonlab show {folder}` lists their ids")
    if as_json:
        print(json.dumps([record.as_json() for record in records], indent=1, allow_nan=False))
    else:
        columns = getattr(find(file.study), "columns", None) if file.study in PACKAGES else None
        terminal.print_records(records, file, columns or (lambda result: {}))
    return 0


@app.command
def report(folder: Path = DEFAULT_ROOT / "grokking") -> int:
    """Write a study's report.html again, by the results that are there and as this version writes it.

    For example:

        muonlab report runs/grokking

    Parameters
    ----------
    folder
        The study's folder.
    """
    from muonlab.jobs import store
    from muonlab.studies import package_of

    package, page = package_of(folder), folder / "report.html"
    if page.exists() and not store.Results(folder):
        print(f"note: {folder} holds no results of its jobs any more, so its report stays as it is", file=sys.stderr)
        print(f"Report: {page}")
    else:
        running.write_report(folder, package)
    return 0


@app.command
def settings(study: str, *, as_json: Annotated[bool, Parameter(name="--json", negative="")] = False) -> int:
    """Print every setting of a study: what it may be, its default and its meaning.

    For example:

        muonlab settings grokking

    Parameters
    ----------
    study
        grokking, features, components, transfer, compare, or a file that defines a study of your own.
    as_json
        Print a JSON list with one object per setting: section, key, values, says, default, presets.
    """
    from muonlab.studies import settings_of
    from muonlab.study import described

    found = settings_of(study, DESCRIBED)
    print(json.dumps(described.as_json(found), indent=1) if as_json else "\n".join(described.as_lines(found)))
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
    from muonlab.rules import polar

    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    found = {
        "environment": record(threads=torch.get_num_threads()),
        "gpus": gpus,
        "auto": list(map(asdict, polar.TABLE)),
    }
    if as_json:
        print(json.dumps(found, indent=1))
    else:
        terminal.print_doctor(found)
    return 0


def main(arguments: list[str] | None = None) -> None:
    """Run the command line: exit status 0, 1 for a failure, 2 for a mistake in the command, 130 or 143 for a signal."""
    from muonlab.jobs import signals
    from muonlab.jobs.files import StudyError, UnfitError
    from muonlab.jobs.store import explain

    words = sys.argv[1:] if arguments is None else arguments
    try:
        with signals.caught():
            status = app(words, exit_on_error=False, result_action="return_value")
            if words[:1] == ["run"] and {"--help", "-h"} & {*words} and not words[1].startswith("-"):
                from muonlab.studies import keys_of

                print(keys_of(words[1], DESCRIBED))
    except CycloptsError as error:  # it has printed what was wrong
        meant = [word[2:] for word in words if word[:2] == "--" and "=" in word]
        if isinstance(error, UnknownOptionError):  # --trials 4
            both = itertools.pairwise(words)
            meant += [f"{key[2:]}={value}" for key, value in both if key == error.token.value and value[:1] != "-"]
        running.stop(f"settings have no dashes; write {' '.join(meant)}", 2) if meant else sys.exit(2)
    except StudyError as error:
        running.stop(error, 2 if isinstance(error, UnfitError) else 1)
    except BrokenPipeError:  # the reader of a pipe, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(0)
    except OSError as error:
        running.stop(StudyError(explain(error, Path(error.filename or "."))), 1)
    except KeyboardInterrupt as stopped:
        running.stop("stopped", signals.status_of(stopped))
    except ValueError as error:
        if type(error).__name__ != "UsageError":
            raise
        running.stop(error, 2)
    else:
        sys.exit(status if isinstance(status, int) else 0)


if __name__ == "__main__":
    main()

"""Runs for the trackers that people have: TensorBoard, Weights & Biases (offline) and trackio.

Each run of the study is a run of the tracker, with its settings and with the curves of its evaluations.
"""

import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from muonlab.export.tables import EVALUATIONS, RUNS, Tables
from muonlab.jobs.optional import package

Points = list[tuple[int, dict[str, float]]]  # (step, values by name)
NOT_CURVES = ("run", "seed", "rate", "step")


@dataclass(frozen=True)
class Tracked:
    """A run as a tracker has it: a unique name, its settings, and its evaluations in the order of their steps."""

    name: str
    settings: dict[str, Any]
    points: Points


def runs(tables: Tables) -> Iterator[Tracked]:
    """Yield every run that has evaluations."""
    points: dict[tuple[str, Any], Points] = defaultdict(list)
    for row in tables[EVALUATIONS]:
        numbers = {key: value for key, value in row.items() if isinstance(value, int | float)}
        values = {key: float(value) for key, value in numbers.items() if key not in NOT_CURVES}
        points[row["job"], row.get("run")].append((int(row["step"] or 0), values))
    for run in tables[RUNS]:
        if own := points.get((run["job"], run["run"])):
            settings = {key: value for key, value in run.items() if value is not None}
            yield Tracked(_name(run), settings, sorted(own, key=lambda point: point[0]))


def _name(run: Mapping[str, Any]) -> str:
    if run["run"] is None:  # a file
        return run["job"]
    about = "-".join(str(run[key]).replace("/", "-").replace(" ", "-") for key in ("case", "arm") if run[key])
    return f"{about or 'job'}-{run['job'][:6]}-{run['run']}"


def _tensorboard(found: Iterator[Tracked], project: str, out: Path) -> Path:
    board = package("torch.utils.tensorboard", "muonlab[tensorboard]", "TensorBoard")
    for run in found:
        place = out / "tensorboard" / run.name
        for earlier in place.glob("events.out.tfevents.*"):  # a second export takes the place of the first
            earlier.unlink()
        with board.SummaryWriter(str(place)) as writer:
            writer.add_text("settings", "\n".join(f"    {key}: {value}" for key, value in run.settings.items()))
            for step, values in run.points:
                for name, value in values.items():
                    writer.add_scalar(name, value, step)
    return out / "tensorboard"


def _wandb(found: Iterator[Tracked], project: str, out: Path) -> Path:
    wandb = package("wandb", "muonlab[wandb]", "Weights & Biases")
    for run in found:
        quiet = wandb.Settings(console="off", silent=True)
        with wandb.init(
            mode="offline", dir=str(out), project=project, name=run.name, config=run.settings, settings=quiet
        ) as logged:
            for step, values in run.points:
                logged.log(values, step=step)
    return out / "wandb"


def _trackio(found: Iterator[Tracked], project: str, out: Path) -> Path:
    trackio = package("trackio", "muonlab[trackio]", "trackio")
    # What it says is not the export's answer, and what this machine does now says nothing about runs that have ended.
    quiet = {"embed": False, "auto_log_gpu": False, "auto_log_cpu": False}
    with redirect_stdout(sys.stderr):
        try:
            earlier = list(trackio.Api().runs(project))
        except ValueError:  # there is no such project yet
            earlier = []
        for run in found:
            for same in earlier:  # a second export takes the place of the first
                if same.name == run.name and (same.config or {}).get("job") == run.settings["job"]:
                    same.delete()
            trackio.init(project=project, name=run.name, config=run.settings, **quiet)
            for step, values in run.points:
                trackio.log(values, step=step)
            trackio.finish()
    return Path(trackio.utils.TRACKIO_DIR)


TRACKERS: dict[str, Callable[[Iterator[Tracked], str, Path], Path]] = {
    "tensorboard": _tensorboard,
    "wandb": _wandb,
    "trackio": _trackio,
}


def log(kind: str, tables: Tables, folder: Path, out: Path) -> Path:
    """Write the runs for one tracker, and return where they lie.

    Args:
        kind: one of `TRACKERS`.
        tables: of the study.
        folder: the study's, or the file; its name is that of the project.
        out: where the files go; trackio has a place of its own, which TRACKIO_DIR names.

    Raises:
        StudyError: the tracker's package is not installed.
    """
    return TRACKERS[kind](runs(tables), folder.resolve().stem if folder.is_file() else folder.resolve().name, out)

"""The measures of the feature study on models that you already have: `muonlab inspect`, from Python.

Example:
    >>> found = inspect({"Muon": muon_net, "AdamW": adamw_net}, data="digits")  # doctest: +SKIP
    >>> print(found.verdict.sentence, found.report)  # doctest: +SKIP
"""

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from muonlab.data.sources import existing
from muonlab.jobs import local, store
from muonlab.jobs.files import StudyError, write_json
from muonlab.report.findings import Verdict
from muonlab.studies import checkpoints as study
from muonlab.studies.checkpoints.config import Data
from muonlab.studies.checkpoints.plan import Asked, Described, Named, expanded, split
from muonlab.study.settings import UsageError

if TYPE_CHECKING:
    from torch import nn

OUT = Path("runs/inspect")
LIBRARY = ("digits", "sources", "documentation", "packages")  # data that needs no file


@dataclass(frozen=True)
class Inspection:
    """What an inspection found.

    Attributes:
        verdict: what the report says first; `verdict.sentence` is the answer, `verdict.cautions` what weakens it.
        report: path of the page.
        result: all numbers, as docs/files.md says.
    """

    verdict: Verdict
    report: Path
    result: dict[str, Any]


def inspect(
    models: Mapping[str, Any],
    *,
    data: str | Path | None = None,
    net: str | Mapping[str, str] | None = None,
    measures: str | Sequence[str] | None = None,
    transfer: str | Path | None = None,
    taps: Sequence[str] = (),
    out: str | Path = OUT,
    device: str = "cpu",
    **settings: Any,
) -> Inspection:
    """Measure robustness, margins, ranks and transfer of models, compare the first group with each other, and report.

    Args:
        models: name of a group -> its models: a module, the path of a checkpoint, or a list of several of one kind.
        data: images (a folder, .zip, IDX, .npz or "digits") or a file of text; weights that a study of features kept
            need none.
        net: "package.module:function" that builds the net of checkpoints, or a dict of them by group.
        measures: some of robustness, margins, rank and transfer; None takes all for which there is data.
        transfer: data of other classes, for a linear probe.
        taps: patterns of the names of the modules whose outputs are hidden states; () chooses.
        out: folder of the inspection. The same again is read from there.
        device: where the nets of checkpoints run; modules run where they are.
        settings: examples=PATH, mean=[...], colors=[...] and whatever else docs/inspect.md has. A key with a dot is a
            dict: measure={"examples": 200}.

    Raises:
        ValueError: models, data or settings that do not fit; the message says what to do.
        StudyError: the folder cannot be used, or the measures failed.
    """
    groups = {str(name): _listed(group) for name, group in models.items()}
    own = {"data": data, "net": net, "measures": measures, "transfer": transfer, "taps": tuple(taps) or None}
    given = _flat({**own, **settings})
    folder = Path(out)
    store.check(folder, study.STUDY)
    paths = [isinstance(model, str | Path) for group in groups.values() for model in group]
    if any(paths) and not all(paths):
        raise UsageError("models has both paths and modules; give either")
    if any(paths):
        named = [Named(name, expanded(map(str, group))) for name, group in groups.items()]
        asked = study.plan(named, given, describe)
        check_data(asked.job.data)
        _run(asked, folder, device)
    else:
        asked = _plan_modules(groups, given)
        _measure_modules(asked, groups, folder)
    return _reported(asked, folder)


def ask(words: Sequence[str], also: Sequence[str] = ()) -> tuple[Asked, dict[str, list[str]]]:
    """Return what the words of a command ask for, and the values of the settings that `also` names.

    Raises:
        UsageError: what is wrong with them.
    """
    groups, given = split(words, also)
    beside = {key: given.pop(key) for key in also if key in given}
    try:
        asked = study.plan(groups, given, describe)
        check_data(asked.job.data)
        return asked, beside
    except UsageError:
        raise
    except ValueError as error:  # of a file that is no checkpoint, or not there
        raise UsageError(str(error)) from error


def describe(path: str) -> Described:
    """Return what a checkpoint holds.

    Raises:
        ValueError: it is none.
    """
    from muonlab.studies.checkpoints.work import checkpoints

    return checkpoints.describe(path)[0]


def check_data(data: Data) -> None:
    """Raise DataError, with the nearest name, where a file or folder of the data is not there."""
    if data.kind == "study":
        return
    named = data.model_dump(include={"source", "test", "examples", "examples_test", "transfer_source"})
    for place in named.values():
        if place is not None and place not in LIBRARY:
            existing(place, LIBRARY)


def summary(asked: Asked) -> str:
    """Return what is measured of which checkpoints, on what, a line each."""
    job, data = asked.job, asked.job.data
    if data.kind == "study":
        source = data.family.data.name
    else:
        source = data.source or (data.examples if data.kind == "text" else None)
    groups = [
        f"{group.name}: {', '.join(each.path for each in group.checkpoints)}, net {group.net or 'of the file'}"
        for group in job.groups
    ]
    examples = f"{job.measuring.examples} test examples at most"
    return "\n".join([*groups, f"{', '.join(job.measures)}, on {source} ({data.kind}), {examples}"])


def taps(asked: Asked) -> list[tuple[str, str, tuple[int, ...], bool]]:
    """Return group, name, shape of the output for one example, and whether it is a tap, of every module.

    Raises:
        UsageError: nets or data that do not fit.
    """
    from muonlab.studies.checkpoints.work.job import tap_table

    try:
        return tap_table(asked.job)
    except ValueError as error:
        raise UsageError(str(error)) from error


# -- checkpoints -----------------------------------------------------------------------------------


def _run(asked: Asked, folder: Path, device: str) -> None:
    with closing(local.run(study, asked, folder, workers=1, device=device)) as events:
        for event in events:
            if event.kind == "failed":
                raise StudyError(event.detail["reason"])


# -- modules in memory -----------------------------------------------------------------------------


@dataclass(frozen=True)
class _Module:
    """A module as if it were a checkpoint; see `plan.Described`."""

    sha256: str
    num_members: int = 1
    family: None = None
    measuring: None = None


def _plan_modules(groups: Mapping[str, Sequence["nn.Module"]], given: dict[str, Any]) -> Asked:
    for key in given:
        if key.partition(".")[0] in ("net", "names") or key.startswith(("taps.", "pool.")):
            raise UsageError(f"{key} has no effect on modules in memory; leave it out")
    from muonlab.studies.checkpoints.work.nets import digest

    modules = {f"{name} {k}": net for name, group in groups.items() for k, net in enumerate(group)}
    named = [Named(name, tuple(f"{name} {k}" for k in range(len(group)))) for name, group in groups.items()]
    return study.plan(named, given, lambda path: _Module(digest(modules[path])))


def _measure_modules(asked: Asked, groups: Mapping[str, Sequence["nn.Module"]], folder: Path) -> None:
    """Measure in this process and keep the result as a job's; one that is there is kept."""
    from muonlab.studies.checkpoints.work.measuring import inspect_models

    study.begin(asked, folder)
    job, own = study.job(asked), asked.job.groups[0]
    store.ask(folder, [job.id])
    if job.id not in store.Results(folder):
        result = inspect_models(
            groups,
            asked.job.data,
            measures=asked.job.measures,
            measuring=asked.job.measuring,
            taps=own.taps,
            pool=own.pool,
        )
        store.add(folder, job)
        write_json(folder / job.id / "result.json", result)


# -- both ------------------------------------------------------------------------------------------


def _listed(group: Any) -> list[Any]:
    return list(group) if isinstance(group, list | tuple) else [group]


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings without those that are None, and with {"examples": 9} under measure as measure.examples."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            found |= {f"{key}.{inner}": each for inner, each in value.items()}
        elif value is not None:
            found[key] = value
    return found


def _reported(asked: Asked, folder: Path) -> Inspection:
    from muonlab.report import page as report

    findings = study.analyse(folder)
    result = store.Results(folder)[study.job(asked).id]
    return Inspection(findings.verdict, report.write(findings, folder), result)

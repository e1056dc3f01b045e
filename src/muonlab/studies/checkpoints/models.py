"""Inspections of models that you have, from Python and from the words of a command.

Examples:
    >>> found = inspect({"Muon": muon_net, "AdamW": adamw_net}, data="digits")  # doctest: +SKIP
    >>> print(found.verdict.sentence, found.report)  # doctest: +SKIP
"""

import difflib
import glob
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from muonlab.data.sources import existing
from muonlab.jobs import local, store
from muonlab.jobs.files import StudyError, write_json
from muonlab.report.findings import Verdict
from muonlab.studies.checkpoints.analysis import analyse
from muonlab.studies.checkpoints.plan import (
    KEYS,
    OF_GROUPS,
    STUDY,
    Asked,
    Described,
    Named,
    begin,
    is_setting,
    job,
    plan,
)
from muonlab.study.settings import Settings, UsageError, as_texts, check_keys
from muonlab.study.settings import split as split_values

OUT = Path("runs/inspect")
LIBRARY = ("digits", "sources", "documentation", "packages")  # data that needs no file
SAVED = (
    ".safetensors",
    ".pt",
    ".pth",
    ".bin",
    ".ckpt",
    ".npz",
    ".ts",
    ".torchscript",
    ".pkl",
)  # endings by which a missing file is known to be a checkpoint


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
        measures: some of robustness, margins, rank, transfer and cka; None takes those of the first four that the data
            allow.
        transfer: data of other classes, for a linear probe.
        taps: patterns of the names of the modules whose outputs are hidden states; () chooses.
        out: folder of the inspection. The same again is read from there.
        device: where the nets of checkpoints run; modules run where they are, in eval mode.
        settings: examples=PATH, mean=[...], colors=[...] and all others of docs/inspect.md. A key with a dot is a dict:
            measure={"examples": 200}.

    Raises:
        ValueError: models, data or settings that do not fit; the message says what to do.
        StudyError: the folder cannot be used, or the measures failed.
    """
    groups = {str(name): list(own) if isinstance(own, list | tuple) else [own] for name, own in models.items()}
    own = {"data": data, "net": net, "measures": measures, "transfer": transfer, "taps": tuple(taps) or None}
    given: dict[str, Any] = {}
    for key, value in {**own, **settings}.items():
        if isinstance(value, Mapping):
            given |= {f"{key}.{inner}": each for inner, each in value.items()}
        elif value is not None:
            given[key] = value
    folder = Path(out)
    store.check(folder, STUDY)
    paths = []
    for name, group in groups.items():
        for model in group or [None]:
            paths.append(isinstance(model, str | Path))
            if not paths[-1] and not hasattr(model, "named_modules"):
                kind = f"a {type(model).__name__}" if group else "an empty list"
                raise UsageError(f"models has {kind} for {name}; expected modules of torch or paths of checkpoints")
    if any(paths) and not all(paths):
        raise UsageError("models has both paths and modules; give either")
    if any(paths):
        asked = _plan([Named(name, expanded(map(str, group))) for name, group in groups.items()], given)
        check(asked, folder)
        _run(asked, folder, device)
    else:
        asked = _plan_modules(groups, given)
        _measure_modules(asked, groups, folder)

    from muonlab.report import page

    findings = analyse(folder)
    return Inspection(findings.verdict, page.write(findings, folder), store.Results(folder)[job(asked).id])


# -- checkpoints -----------------------------------------------------------------------------------


def _plan(groups: Sequence[Named], given: Mapping[str, Any]) -> Asked:
    """Return what is asked of checkpoints, whose data are there."""
    from muonlab.studies.checkpoints.work.checkpoints import describe

    asked = plan(groups, given, describe)
    if asked.job.data.kind != "study":
        named = asked.job.data.model_dump(include={"source", "test", "examples", "examples_test", "transfer_source"})
        for place in named.values():
            if place is not None and place not in LIBRARY:
                existing(place, LIBRARY)
    return asked


@contextmanager
def _as_usage() -> Iterator[None]:
    """Raise UsageError for any ValueError: nets, weights or data that do not fit are a mistake in the command."""
    try:
        yield
    except UsageError:
        raise
    except ValueError as error:
        raise UsageError(str(error)) from error


def check(asked: Asked, folder: Path) -> None:
    """Build and call the first model of each group, unless the job is done: most mistakes show before it begins.

    Raises:
        UsageError: nets, weights or data that do not fit.
    """
    if job(asked).id not in store.Results(folder):
        taps(asked)


def taps(asked: Asked) -> list[tuple[str, str, tuple[int, ...], bool]]:
    """Return group, name, shape of the output for one example, and whether it is a tap, of every module.

    Raises:
        UsageError: nets, weights or data that do not fit.
    """
    from muonlab.studies.checkpoints.work.job import tap_table

    with _as_usage():
        return tap_table(asked.job)


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


def _run(asked: Asked, folder: Path, device: str) -> None:
    from muonlab.studies import find

    study: Any = find(STUDY)
    with closing(local.run(study, asked, folder, workers=1, device=device)) as events:
        for event in events:
            if event.kind == "failed":
                raise StudyError(event.detail["reason"])


# -- modules in memory -----------------------------------------------------------------------------


def _plan_modules(groups: Mapping[str, Sequence[Any]], given: dict[str, Any]) -> Asked:
    for key in given:
        if key.partition(".")[0] in ("net", "names", "weights") or key.startswith(("taps.", "pool.")):
            raise UsageError(f"{key} has no effect on modules in memory; leave it out")
    from muonlab.studies.checkpoints.work.nets import digest

    modules = {f"{name} {k}": net for name, group in groups.items() for k, net in enumerate(group)}
    named = [Named(name, tuple(f"{name} {k}" for k in range(len(group)))) for name, group in groups.items()]
    return plan(named, given, lambda path: Described(path, digest(modules[path])))


def _measure_modules(asked: Asked, groups: Mapping[str, Sequence[Any]], folder: Path) -> None:
    """Measure in this process and keep the result as a job's; one that is there is kept."""
    from muonlab.studies.checkpoints.work.job import inspect_modules

    is_done, one = job(asked).id in store.Results(folder), job(asked)
    begin(asked, folder)
    if not is_done:
        result = inspect_modules(asked.job, groups)
        store.add(folder, one)
        write_json(folder / one.id / "result.json", result)


# -- the words of a command ------------------------------------------------------------------------


def ask(words: Sequence[str], also: Sequence[str] = ()) -> tuple[Asked, dict[str, list[str]]]:
    """Return what the words of a command ask for, and the values of the settings that `also` names.

    Raises:
        UsageError: what is wrong with them.
    """
    groups, given = split(words, also)
    others = {key: given.pop(key) for key in also if key in given}
    with _as_usage():
        return _plan(groups, given), others


def split(words: Sequence[str], also: Iterable[str] = ()) -> tuple[list[Named], Settings]:
    """Return groups and settings of words such as PATH, NAME=PATH,PATH or key=value,value.

    Args:
        words: of the command.
        also: settings that are known in addition to `KEYS`.

    Raises:
        UsageError: a setting that is not known or is given twice, a checkpoint that is not there.
    """
    groups: list[Named] = []
    settings: Settings = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals or Path(word).exists():
            groups.append(Named("", expanded([word])))
        elif key in also or is_setting(key):
            if key in settings:
                before = ",".join(settings[key])
                raise UsageError(f"{key} is given twice; give it once, as {word} or {key}={before}")
            settings[key] = as_texts(key, split_values(text))
        elif _is_group(key, text.split(",")):
            groups.append(Named(key, expanded(as_texts(key, text.split(",")))))
        else:
            names = (*also, *KEYS, *(f"{owner}.GROUP" for owner in OF_GROUPS))
            where = f"there is no {text!r}, should {key} be a group of checkpoints; docs/inspect.md"
            check_keys({key: []}, names, where="docs/inspect.md" if "." in key else where)
    return groups, settings


def _is_group(key: str, paths: Sequence[str]) -> bool:
    """Return whether a word names a group; paths of another ending may be of a misspelt setting."""
    if any(path.endswith(SAVED) for path in paths):
        return True
    is_near = bool(difflib.get_close_matches(key.lower(), KEYS, n=1, cutoff=0.75))
    return not is_near and any("/" in path or Path(path).expanduser().exists() or glob.glob(path) for path in paths)


def expanded(paths: Iterable[str]) -> tuple[str, ...]:
    """Return paths, with the files of patterns such as "seed*/net.pt" in their place.

    Raises:
        UsageError: nothing is there.
    """
    found: list[str] = []
    for path in paths:
        there = [path] if Path(path).expanduser().exists() else sorted(glob.glob(path))
        if not there:
            raise UsageError(
                f"there is no checkpoint {path!r}; expected a file or a folder of weights, NAME=PATH,PATH for several "
                "of one kind, or key=value"
            )
        found += there
    return tuple(found)

"""What the files of a study say now, read again only where they have changed."""

import json
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from muonlab.jobs import store
from muonlab.jobs.files import Place, StudyError, read_lines
from muonlab.jobs.job import JobRecord
from muonlab.report import progress

MOST_CURVES = 12  # jobs whose curves a page shows: those at work, then those that ended last
MOST_POINTS = 240  # of a curve
MOST_LINES = 40  # runs of a job
SHOWN = ("validation_accuracy", "validation_loss", "train_loss")  # the first that has a number is drawn


@dataclass
class _Log:
    """The evaluations of one job: metrics.jsonl, of which only what is new is read."""

    path: Place
    size: int = 0
    rows: list[dict[str, Any]] = field(default_factory=list)

    def refresh(self) -> list[dict[str, Any]]:
        try:
            if not isinstance(self.path, Path):  # in the archive, to which nothing writes
                self.rows = self.rows or read_lines(self.path, whole=True)
                return self.rows
            size = self.path.stat().st_size
            if size < self.size:  # a job that goes on from its checkpoint cuts off what was written after it
                self.size, self.rows = 0, []
            if size > self.size:
                with self.path.open("rb") as file:
                    file.seek(self.size)
                    new = file.read(size - self.size)
                whole = new[: new.rfind(b"\n") + 1]
                self.rows += [json.loads(line) for line in whole.splitlines()]
                self.size += len(whole)
        except (OSError, ValueError, StudyError):
            pass  # not there, or torn: what was read before stands
        return self.rows


class Watched:
    """A study's folder.

    Args:
        folder: it has a study.json.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._jobs: dict[str, tuple[int, JobRecord]] = {}
        self._logs: dict[str, _Log] = {}

    def summary(self) -> dict[str, Any]:
        """Return what a list of studies says of it: jobs by status, progress, whether it runs, whether it has a report.

        Raises:
            StudyError: the folder has vanished, or its study.json cannot be read.
        """
        file = store.read(self.folder)
        self._refresh()
        at_work = progress.saved(self.folder)
        report = self.folder / "report.html"
        return {
            "study": file.study,
            "command": file.newest.command(file.study),
            "jobs": dict(sorted(Counter(record.status for _, record in self._jobs.values()).items())),
            "progress": None if at_work is None else {key: at_work[key] for key in ("share", "left", "done")},
            "report": int(report.stat().st_mtime) if report.exists() else None,
        }

    def detail(self) -> dict[str, Any]:
        """Return failures and curves, after `summary`."""
        records = [record for _, record in self._jobs.values()]
        said = [record for record in records if record.reason]
        parts = (progress.saved(self.folder) or {}).get("running", {})
        return {
            "reasons": [{"name": one.name, "status": one.status, "reason": one.reason} for one in said],
            "curves": [curve for one in self._curves(parts) if (curve := self._curve(one, parts.get(one.id)))],
        }

    def version(self) -> tuple[Any, ...]:
        """Return what changes when a result has come or gone."""
        ended = ("done", "failed")
        return tuple(sorted((name, key) for name, (key, one) in self._jobs.items() if one.status in ended))

    def _refresh(self) -> None:
        """Take in the jobs whose folders have changed: a file that comes or is replaced changes its folder's time."""
        before, self._jobs = self._jobs, {}
        for identity in store.identities(self.folder):
            try:
                key = (self.folder / identity).stat().st_mtime_ns
            except OSError:
                key = 0  # in the archive, which does not change
            known = before.get(identity)
            if known is None or known[0] != key:
                record = store.record(self.folder, identity)
                # Results are many and large; their numbers are the report's.
                slim = JobRecord(**{**vars(record), "result": None, "config": {}, "environment": {}})
                known = key, slim
            self._jobs[identity] = known

    def _curves(self, parts: dict[str, float]) -> list[JobRecord]:
        latest = sorted(self._jobs.values(), key=lambda known: known[0], reverse=True)
        records = [record for _, record in latest if record.status in ("done", "unfinished")]
        running = [record for record in records if record.id in parts]
        return [*running, *(record for record in records if record.id not in parts)][:MOST_CURVES]

    def _curve(self, record: JobRecord, part: float | None) -> dict[str, Any] | None:
        log = self._logs.setdefault(record.id, _Log(record.folder / "metrics.jsonl"))
        rows = log.refresh()
        every = max(1, -(-len(rows) // MOST_POINTS))
        rows = [row for number, row in enumerate(rows) if number % every == 0 or number == len(rows) - 1]
        for key in SHOWN:
            columns = [row[key][:MOST_LINES] for row in rows if isinstance(row.get(key), list)]
            if any(value is not None for column in columns for value in column):
                lines = [list(line) for line in zip(*columns, strict=True)]
                where = {"name": record.name, "arm": record.arm, "part": part, "status": record.status}
                return {**where, "what": key.replace("_", " "), "steps": [row["step"] for row in rows], "lines": lines}
        return None


class Studies:
    """All studies of a folder: its own, or those one level below.

    Args:
        root: the folder; it may vanish and come back.
    """

    def __init__(self, root: Path):
        self.root = root
        self._watched: dict[str, Watched] = {}

    def summaries(self) -> list[dict[str, Any]]:
        """Return what each study says, by name; of one that cannot be read, `reason` says why."""
        found = []
        for name in self.names():
            try:
                found.append({"name": name, "reason": None, **self.watched(name).summary()})
            except (StudyError, OSError) as error:
                found.append({"name": name, "reason": str(error)})
        return found

    def names(self) -> list[str]:
        """Return the names of the studies: "." for the folder itself."""
        places = sorted((*self.root.glob("study.json"), *self.root.glob("*/study.json")))
        return [str(place.parent.relative_to(self.root)) for place in places]

    def watched(self, name: str) -> Watched:
        """Return a study by its name.

        Raises:
            StudyError: there is no such study, whatever else lies at that path.
        """
        if name not in self.names():
            raise StudyError(f"there is no study {name!r} in {self.root}")
        return self._watched.setdefault(name, Watched(self.root / name))


class Answers:
    """Verdicts as they stand, each analysed again at most so often that this takes `share` of the time."""

    def __init__(self, share: float = 0.005):
        self._share = share
        self._known: dict[str, tuple[Any, dict[str, Any]]] = {}
        self._next: dict[str, float] = {}

    def of(self, watched: Watched) -> dict[str, Any]:
        """Return the verdict of a study: answer, sentence, cautions, or the reason why there is none."""
        name, version = str(watched.folder), watched.version()
        known = self._known.get(name)
        if known is not None and (known[0] == version or time.monotonic() < self._next[name]):
            return known[1]
        start = time.thread_time()
        answer = _analysed(watched.folder) if version else {"reason": "no job has ended yet"}
        self._next[name] = time.monotonic() + (time.thread_time() - start) / self._share
        self._known[name] = version, answer
        return answer


def _analysed(folder: Path) -> dict[str, Any]:
    from muonlab.studies import package_of

    try:
        findings = package_of(folder).analyse(folder)
    except (StudyError, ValueError, OSError) as error:
        return {"reason": str(error)}
    except Exception as error:  # of a study of a user's own, or of files that change as they are read
        return {"reason": f"the results so far cannot be read together ({type(error).__name__}: {error})"}
    verdict = findings.verdict
    told = {"title": findings.title, "question": findings.question, "answer": verdict.answer, "label": verdict.label}
    return {**told, "reason": None, "sentence": verdict.sentence, "more": [*verdict.more, *verdict.cautions][:8]}

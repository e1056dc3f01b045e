"""From the folder of a study to its findings: what is found, how it is judged, and the report of both."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from muonlab.jobs import store
from muonlab.jobs.job import results_version
from muonlab.report.findings import Element, Findings, Section, Text, Verdict
from muonlab.study import controls
from muonlab.study.folder import Results, Steps
from muonlab.study.sections import missing, version
from muonlab.study.study import Found, Step

Sections = Sequence[tuple[str, Sequence[Element]]]  # heading and elements
Find = Callable[[Any, list[Step], Results], Found]  # (asked, known jobs, results by id) -> all that follows from them


@dataclass(frozen=True)
class Parts:
    """What only one study says of its results; the engine does the rest.

    Attributes:
        read: folder -> found, as `reading` returns for most studies.
        judge: found -> the answers, for verdict and sections.
        verdict: (found, judged) -> the answer to the question.
        title, question: of the report.
        sections: (found, judged) -> heading and elements; one without elements is left out.
        version: results version of the jobs that a run would compute now.
        notices: found -> what stands at the top, after failed controls and missing jobs.
    """

    read: Callable[[Path], Found]
    judge: Callable[[Any], Any]
    verdict: Callable[[Any, Any], Verdict]
    title: Callable[[Any], str]
    question: Callable[[Any], str]
    sections: Callable[[Any, Any], Sections]
    version: int
    notices: Callable[[Any], Iterable[Text]] = lambda found: ()


def analyse(parts: Parts, folder: Path) -> Findings:
    """Return what a study found, whatever part of it is done.

    Raises:
        StudyError: there is no such study in the folder.
    """
    found = parts.read(Path(folder))
    judged = parts.judge(found)
    jobs = *version(found.records, parts.version), *missing(found.records, found.expected)
    notices = (*controls.notices(found.controls), *jobs, *parts.notices(found))
    sections = (Section(heading, tuple(elements)) for heading, elements in parts.sections(found, judged))
    shown = tuple(section for section in sections if section.elements)
    return Findings(parts.title(found), parts.question(found), parts.verdict(found, judged), notices, shown)


def reading(model: type[BaseModel], steps: Steps, current: int, find: Find) -> Callable[[Path], Found]:
    """Return a function of a study's folder to all that is known of it.

    Args:
        model: of what is asked, with `preset` and `settings`.
        steps: which jobs there are.
        current: results version of the jobs that a run would compute now.
        find: what the results mean.
    """
    return partial(_read, model, steps, current, find)


def _read(model: type[BaseModel], steps: Steps, current: int, find: Find, folder: Path) -> Found:
    file = store.read(folder)
    asked = model.model_validate({**file.config, "preset": file.preset, "settings": file.settings})
    records, results = store.records(folder), store.Results(folder)
    # A job's id contains its results version, so jobs of an older muonlab are found under the version they have.
    known = steps(asked, results, results_version(records, current))
    ids = {step.job.id for step in known}
    own = tuple(record for record in records if record.id in ids)  # a folder may hold jobs of earlier requests
    return replace(find(asked, known, results), records=own, expected=len(ids))

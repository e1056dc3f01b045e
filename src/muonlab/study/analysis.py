"""From the folder of a study to its findings: what is found, how it is judged, and the report of both."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from muonlab.report.findings import Element, Findings, Text, Verdict
from muonlab.study import folder as folders
from muonlab.study.folder import Results, Steps
from muonlab.study.sections import findings
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
    title, question, verdict = parts.title(found), parts.question(found), parts.verdict(found, judged)
    return findings(title, question, verdict, found, parts.notices(found), parts.sections(found, judged), parts.version)


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
    asked, known, results, records = folders.read(model, steps, folder, current)
    found = find(asked, known, results)
    return replace(found, records=tuple(records), expected=len({step.job.id for step in known}))

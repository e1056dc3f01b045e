"""The only place where the golden test touches muonlab: what a folder says, and which jobs a command plans.

When a room moves, this file follows and the expectations stay. Where a table or a column gets another name, give it the
old one here.
"""

import csv
import io
from pathlib import Path
from typing import Any

from muonlab.jobs.store import identities as identities
from muonlab.report.data import figure_csv, table_csv
from muonlab.report.findings import Figure, Table
from muonlab.studies import find

Rows = list[dict[str, str]]


def analyse(study: str, folder: Path) -> tuple[str, dict[str, Rows]]:
    """Return the answer of a study's folder, and name -> rows of every CSV that `muonlab report` writes of it."""
    findings = find(study).analyse(folder)
    tables: dict[str, Rows] = {}
    for element in (*findings.first, *(element for section in findings.sections for element in section.elements)):
        if isinstance(element, Table | Figure):
            text = table_csv(element) if isinstance(element, Table) else figure_csv(element)
            tables[element.name] = list(csv.DictReader(io.StringIO(text)))
    return findings.verdict.answer, tables


def plan_ids(study: str, preset: str, settings: dict[str, Any]) -> list[str]:
    """Return the ids of the jobs that a command would begin with in an empty folder, in their order."""
    asked = find(study).plan(preset, settings)
    if (
        study == "grokking"
    ):  # the order of its jobs goes by their ids; that of its cells is the one in which they are shown
        return [cell.id for cell in asked.cells]
    return [job.id for job in find(study).jobs_of(asked, {})]


def inspect_id(words: list[str]) -> str:
    """Return the id of the job of `muonlab inspect WORDS`."""
    package = find("inspect")
    return package.job(package.ask(words)[0]).id

"""The only place where the golden test touches muonlab: what a folder says, and which jobs a command plans.

When a room moves, this file follows and the expectations stay. Where a table or a column gets another name, give it the
old one here.
"""

import csv
import importlib
import io
from pathlib import Path
from typing import Any

from muonlab.report.data import figure_csv, table_csv
from muonlab.report.findings import Figure, Table

PACKAGES = {"inspect": "checkpoints"}  # studies whose package has another name
Rows = list[dict[str, str]]


def analyse(study: str, folder: Path) -> tuple[str, dict[str, Rows]]:
    """Return the answer of a study's folder, and name -> rows of every CSV that `muonlab report` writes of it."""
    findings = _package(study).analyse(folder)
    tables: dict[str, Rows] = {}
    for element in (element for section in findings.sections for element in section.elements):
        if isinstance(element, Table | Figure):
            text = table_csv(element) if isinstance(element, Table) else figure_csv(element)
            tables[element.name] = list(csv.DictReader(io.StringIO(text)))
    return findings.verdict.answer, tables


def plan_ids(study: str, preset: str, settings: dict[str, Any]) -> list[str]:
    """Return the ids of the jobs that a command would begin with in an empty folder, in their order."""
    package = _package(study)
    plan = package.plan(preset, settings)
    if study == "grokking":
        return list(plan.ids)
    return [job.id for job in package.ready(plan, Path("no-such-folder"))]


def inspect_id(words: list[str]) -> str:
    """Return the id of the job of `muonlab inspect WORDS`."""
    from muonlab import inspection

    return _package("inspect").job(inspection.ask(words)[0]).id


def _package(study: str) -> Any:
    return importlib.import_module(f"muonlab.studies.{PACKAGES.get(study, study)}")

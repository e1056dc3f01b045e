"""Files of earlier versions, read as today's.

Once, study.json held one request, and that of a study of cells (grokking) the list of its cells; config.json of a cell
was its config alone. Workers were named by modules that have moved since.
"""

from typing import Any

from muonlab.jobs.job import identity

TARGETS = {
    "muonlab.train.cell:run_job": "muonlab.studies.grokking.work.cell:run_job",
    "muonlab.train.features.job:run": "muonlab.studies.features.work.job:run",
    "muonlab.train.components.job:run": "muonlab.studies.components.work.job:run",
    "muonlab.train.inspection.job:run": "muonlab.studies.checkpoints.work.job:run",
}


def study_file(held: Any) -> Any:
    """Return what study.json holds, with its one request in a list; what is neither is returned as it is."""
    if not isinstance(held, dict) or "requests" in held or not {"cells", "config"} & held.keys():
        return held
    request = {key: value for key, value in held.items() if key in ("preset", "settings", "config")}
    if "cells" in held:
        cells, ids = held["cells"], held.get("ids", [])
        # An id may be older than the schema: fields that came later, with a default, would give the cell another one.
        own = {"ids": ids} if ids and ids != [identity(cell) for cell in cells] else {}
        request |= {"config": {"cells": cells, **own}, "jobs": ids}
    return {"study": held.get("study"), "requests": [request]}


def job_file(held: Any) -> Any:
    """Return what config.json holds, with a name and a target around the bare config of a cell."""
    if not isinstance(held, dict):
        return held
    if "target" in held:
        return {**held, "target": TARGETS.get(held["target"], held["target"])}
    if not {"task", "optimizer", "seeds"} <= held.keys():
        return held
    task, optimizer, seeds = held["task"], held["optimizer"]["name"], held["seeds"]
    of_seeds = f"seeds {seeds[0]}-{seeds[-1]}" if len(seeds) > 1 else f"seed {seeds[0]}"
    random = ", random labels" if task["labels"] == "random" else ""
    return {
        "name": f"{task['name']} {held['loss']} {optimizer}{random}, {of_seeds}",
        "target": TARGETS["muonlab.train.cell:run_job"],
        "cost": 1.0,
        "config": held,
        "case": f"{task['name']} {held['loss']}",
        "arm": optimizer,
        "role": "control" if random else "run",
    }

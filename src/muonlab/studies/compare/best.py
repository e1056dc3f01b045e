"""The best setting of each optimizer as code: report/best.py."""

import keyword
import re
from collections.abc import Mapping, Sequence

from muonlab.study.constructor import constructor
from muonlab.study.dotted import is_file
from muonlab.study.space import Point
from muonlab.study.study import Arm


def best(arms: tuple[Arm, ...], points: Mapping[str, Point], title: str, named: Sequence[str] = ()) -> str:
    """Return a module with a function for each optimizer, from a model to the optimizer at its best setting.

    Args:
        arms: who was compared.
        points: label -> best setting.
        title: of the study.
        named: labels of optimizers that take parameters with their names.
    """
    about = title.replace("\\", "/").replace('"', "'")
    head = f'"""The best setting of each optimizer, as muonlab compare found it: {about}."""'
    return (
        "\n\n\n".join(
            [head, *(_code(arm, points[arm.label], arm.label in named) for arm in arms if arm.label in points)]
        )
        + "\n"
    )


def _code(arm: Arm, point: Point, is_named: bool) -> str:
    # The import is within: a label is often the name of the optimizer itself, or of another's module.
    call = constructor(arm.optimizer, point, is_named=is_named)
    return f"def {_function(arm.label)}(model):\n    {_import(arm)}\n\n    return {call}"


def _function(label: str) -> str:
    name = re.sub(r"\W", "_", label)
    return f"_{name}" if name[:1].isdigit() or keyword.iskeyword(name) else name


def _import(arm: Arm) -> str:
    if arm.optimizer.name != "custom":
        return {"muon": "import muonlab"}.get(arm.optimizer.name, "import torch")
    place, _, attribute = arm.optimizer.call.name.rpartition(":")
    # A file that is no package has to be on the path.
    return f"from {arm.optimizer.call.place if is_file(place) else place} import {attribute}"

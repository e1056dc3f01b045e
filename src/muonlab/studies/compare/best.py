"""The best setting of each optimizer as code: report/best.py."""

import keyword
import re
from collections.abc import Iterator, Mapping

from muonlab.study.constructor import constructor
from muonlab.study.dotted import is_file
from muonlab.study.space import Point
from muonlab.study.study import Arm


def best(arms: tuple[Arm, ...], points: Mapping[str, Point], title: str) -> str:
    """Return a module with a function for each optimizer, from a model to the optimizer at its best setting."""
    known = [(arm, points[arm.label]) for arm in arms if arm.label in points]
    imports = sorted({each for arm, _ in known for each in _imports(arm)})
    functions = [
        f"def {_function(arm.label)}(model):\n    return {constructor(arm.optimizer, point)}" for arm, point in known
    ]
    head = f'"""The best setting of each optimizer, as muonlab compare found it: {title}."""'
    return "\n".join([head, "", *imports, ""]) + "\n\n" + "\n\n\n".join(functions) + "\n"


def _function(label: str) -> str:
    name = re.sub(r"\W", "_", label)
    return f"_{name}" if name[:1].isdigit() or keyword.iskeyword(name) else name


def _imports(arm: Arm) -> Iterator[str]:
    if arm.optimizer.name == "custom":
        place, _, attribute = arm.optimizer.call.name.rpartition(":")
        # A file that is no package has to be on the path.
        where = arm.optimizer.call.place if is_file(place) else place
        yield f"from {where} import {attribute}"
    else:
        yield {"muon": "import muonlab"}.get(arm.optimizer.name, "import torch")

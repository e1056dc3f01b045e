"""A trial of a family before any of its jobs, so that what its files do not allow is said before anything runs."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from muonlab.data.dataset import SPLITS
from muonlab.studies.features import config as features
from muonlab.studies.features.work import material
from muonlab.study.optimizers import Custom
from muonlab.train import optimizers as train

SEVEREST = 5


def check(
    *, family: dict[str, Any], tasks: Sequence[str], optimizers: Mapping[str, dict[str, Any]] | None = None
) -> None:
    """Read all data of a family, and make each set, net and corruption that its jobs will ask for.

    Args:
        family: a `muonlab.studies.features.config.Family`, as JSON.
        tasks: that are transferred to.
        optimizers: label -> `muonlab.study.optimizers.Custom`, as JSON, of each of a user's own.

    Raises:
        ValueError: files, nets or settings that do not fit, with the name of the family; the message says what to do.
    """
    held = features.Family.model_validate(family)
    try:
        found = material.read(held)
        for data in (found.measured, found.judged, *(found.transfers[task] for task in tasks)):
            for split in SPLITS:
                getattr(data, split)
        for data in (found.judged, *(found.transfers[task] for task in tasks)):
            found.build(data)
            for label, own in (optimizers or {}).items():
                custom = Custom.model_validate(own)
                name = f"{label}={custom.call.name}"
                train.check(custom.call.load("optimizers"), custom.arguments, found.build(data), name)
        for corruption in found.judged.corruptions:
            found.corrupted(corruption, SEVEREST, 1)
    except ValueError as error:
        raise ValueError(f"{held.name}: {_as_given(str(error), held)}") from error


def _as_given(message: str, family: features.Family) -> str:
    """Return a message with every setting in it under the name that a user types: "images.size=", not "size="."""
    for prefix, config in ((family.data.kind, family.data), (family.net.kind, family.net)):
        fields = "|".join(type(config).model_fields)
        message = re.sub(rf"(?<![\w.])({fields})=", rf"{prefix}.\1=", message)
    return message

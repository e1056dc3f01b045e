"""One job of the feature study, from its config to its result.json; and a trial of its family before any job."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from muonlab.data.dataset import SPLITS, Dataset
from muonlab.studies.features import config as features
from muonlab.studies.features.config import OwnNet
from muonlab.studies.features.work import material, measuring, pretraining, transferring
from muonlab.studies.features.work.states import subject
from muonlab.study.dotted import one_line
from muonlab.study.optimizers import Custom
from muonlab.train import optimizers as train
from muonlab.train.jobs import Context, finish

SEVEREST = 5


def run(*, config: dict[str, Any], folder: str, **where: Any) -> dict[str, Any]:
    """Do a job and return its result; a finished one is read.

    Args:
        config: of the job, as JSON.
        folder: its folder, next to those of the jobs whose weights it reads.
        where: device, compile, report and environment, as of `muonlab.train.jobs.finish`.

    Raises:
        ValueError: files, weights or settings that do not fit; the message says what to do.
    """
    job = features.read(config)

    def work(context: Context) -> dict[str, Any]:
        read = material.read(job.family, exact=())  # `check` has refused those that a user gave and the data lack
        if isinstance(job, features.Pretrain):
            return pretraining.run(job, read, context)
        if isinstance(job, features.Measure):
            return measuring.run(job, read, context)
        return transferring.run(job, read, context)

    return finish(folder, work, **where)


def check(
    *,
    family: dict[str, Any],
    tasks: Sequence[str],
    optimizers: Mapping[str, dict[str, Any]] | None = None,
    exact: Sequence[str] = material.EXACT,
) -> tuple[str, ...]:
    """Read all data of a family, and make each set, net and corruption that its jobs will ask for.

    So what files do not allow is said before anything runs.

    Args:
        family: a `muonlab.studies.features.config.Family`, as JSON.
        tasks: that are transferred to.
        optimizers: label -> `muonlab.study.optimizers.Custom`, as JSON, of each of a user's own.
        exact: fields of the data whose limits a user has given; those of a preset are upper bounds.

    Returns:
        A sentence for each limit of a preset that the data do not reach.

    Raises:
        ValueError: files, nets or settings that do not fit, with the name of the family; the message says what to do.
    """
    held = features.Family.model_validate(family)
    try:
        found = material.read(held, exact)
        learnt = found.judged, *(found.transfers[task] for task in tasks)
        for data in (found.measured, *learnt):
            for split in SPLITS:
                getattr(data, split)
        for data in learnt:
            net = found.build(data)
            if isinstance(held.net, OwnNet):
                _try(held.net, net.eval(), data)
            for label, own in (optimizers or {}).items():
                custom = Custom.model_validate(own)
                name = f"{label}={custom.call.name}"
                train.check(custom.call.load("optimizers"), custom.arguments, found.build(data), name)
        if isinstance(held.net, OwnNet):
            subject(found.build(found.judged).eval(), found)
        for corruption in found.judged.corruptions:
            found.corrupted(corruption, SEVEREST, 1)
        return found.adapted
    except ValueError as error:
        raise ValueError(f"{held.name}: {_as_given(str(error), held)}") from error


def _try(own: OwnNet, net: torch.nn.Module, data: Dataset) -> None:
    """Raise ValueError where a user's own net does not read a data set, or gives no logits for it."""
    inputs, labels = data.train.first(2)
    where = f"net={own.call.name}"
    try:
        with torch.no_grad():
            found: Any = net(inputs)
    except Exception as error:  # a user's net may raise anything
        kind = "images" if inputs.is_floating_point() else "token ids"
        raise ValueError(f"{where} does not read {kind} {tuple(inputs.shape)}: {one_line(error)}") from error
    expected = (*labels.shape, data.sizes.get("classes") or data.sizes["vocabulary"])
    got = tuple(found.shape) if isinstance(found, torch.Tensor) else type(found).__name__
    if got != expected:
        raise ValueError(f"{where} returned {got} for inputs {tuple(inputs.shape)}; expected logits {expected}")


def _as_given(message: str, family: features.Family) -> str:
    """Return a message with every setting in it under the name that a user types: "images.size=", not "size="."""
    for prefix, config in ((family.data.kind, family.data), (family.net.kind, family.net)):
        fields = "|".join(type(config).model_fields)
        message = re.sub(rf"(?<![\w.])({fields})=", rf"{prefix}.\1=", message)
    return message

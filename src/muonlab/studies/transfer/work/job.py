"""Jobs of a study of transfer: a training as `muonlab compare` does it, and the coordinate check of muP."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from muonlab.measure.features import gather
from muonlab.studies.compare.config import BuiltIn
from muonlab.studies.compare.work.builtin import BuiltInTask, Given
from muonlab.studies.compare.work.job import train
from muonlab.studies.compare.work.task import TaskMaterial
from muonlab.studies.transfer.plan import Check, Net, Train
from muonlab.train.jobs import Context, finish
from muonlab.train.population import Population

EXAMPLES = 32  # texts, at most, on which the outputs of layers are read


@dataclass(frozen=True)
class Task:
    """The GPT of a width as the function of a seed that a user would have written."""

    net: Net

    @property
    def name(self) -> str:
        """For messages."""
        return f"gpt, {self.net.name}"

    def load(self, key: str) -> Callable[[int], Given]:
        """Return the function; key and errors are as of `BuiltInTask.load`."""
        task: Callable[..., Given] = BuiltInTask(BuiltIn(builtin="gpt", data=self.net.data)).load(key)
        return partial(task, width=self.net.width, depth=self.net.depth, heads=self.net.heads)


def material_of(net: Net, batch: int) -> TaskMaterial:
    """Return what a net is trained on, in batches of so many examples."""
    return TaskMaterial(Task(net), batch)  # pyright: ignore[reportArgumentType]


def check(*, net: dict[str, Any], batch: int) -> None:
    """Raise ValueError where no job could do its work, such as for a text that is too short."""
    material_of(Net.model_validate(net), batch).check()


def run(*, config: dict[str, Any], folder: str, **where: Any) -> dict[str, Any]:
    """Do a training and return its result; a finished one is read."""
    job = Train.model_validate(config)
    return finish(folder, lambda context: train(job, material_of(job.trained, job.training.batch), context), **where)


def coordinates(*, config: dict[str, Any], folder: str, **where: Any) -> dict[str, Any]:
    """Do a coordinate check and return its result; a finished one is read."""
    job = Check.model_validate(config)
    return finish(folder, lambda context: _coordinates(job, context), **where)


def _coordinates(job: Check, context: Context) -> dict[str, Any]:
    """Return the root mean square of the change of each layer's outputs since the start, by step and seed.

    Yang et al. 2022 (arXiv 2203.03466), appendix D.1: where it does not depend on the width, neither does the best
    learning rate. A killed one starts again: it is a few steps.
    """
    material = material_of(job.trained, job.batch)
    points = [{"lr": job.rate}] * len(job.seeds)
    members, draw, _ = material.members(job.optimizer, points, list(job.seeds), job, context.device)  # pyright: ignore
    assert isinstance(members, Population)
    inputs = next(material.batches(job.seeds[0], "validation"))[0][:EXAMPLES].to(context.device)
    start = [outputs(members, place, inputs) for place in range(len(job.seeds))]
    changes: dict[str, list[list[float]]] = {name: [] for name in start[0]}
    for step in range(job.steps):
        members.step(*draw(step), step)
        now = [outputs(members, place, inputs) for place in range(len(job.seeds))]
        for name, rows in changes.items():
            rows.append([_rms(new[name] - old[name]) for new, old in zip(now, start, strict=True)])
        context.report({"step": step + 1, "budget": job.steps, "alive": len(job.seeds)})
    return {"seeds": list(job.seeds), "rate": job.rate, "changes": changes}


def outputs(members: Population, place: int, inputs: Tensor) -> dict[str, Tensor]:
    """Return what each layer of a member puts out: the embedding, both branches and the sum of each block, the head."""
    own = {name: p[place] for name, p in members.parameters.items()}
    layers = [name for name, _ in members.net.named_modules() if _is_layer(name)]

    def forward(net: nn.Module, batch: Tensor) -> Any:
        return functional_call(net, own, (batch,))

    members.net.eval()
    return gather(members.net, [inputs], layers, pool="flatten", forward=forward)


def _is_layer(name: str) -> bool:
    parts = name.split(".")
    return name in ("embedding", "head") or (
        parts[0] == "blocks" and (len(parts) == 2 or (len(parts) == 3 and parts[2] in ("attention", "feed_forward")))
    )


def _rms(change: Tensor) -> float:
    return float(torch.linalg.vector_norm(change.double()) / change.numel() ** 0.5)

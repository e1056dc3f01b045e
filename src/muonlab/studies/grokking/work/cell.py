"""One cell, from its config to its result: the runs of several seeds, trained until their outcome is decided."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from muonlab.data import algorithmic
from muonlab.losses import LOSSES
from muonlab.measure import crossing
from muonlab.nets import named
from muonlab.studies.grokking.config import CellConfig, MuonConfig
from muonlab.studies.grokking.result import CellResult, Crossing, MemberResult
from muonlab.studies.grokking.work.rows import Rows
from muonlab.train import loop, optimizers, seeds
from muonlab.train.by_rule import Treatment
from muonlab.train.jobs import Context, Report, finish
from muonlab.train.metrics import Metrics
from muonlab.train.population import Population


def run_job(*, config: dict[str, Any], folder: str, report: Report, **where: Any) -> None:
    """Run a cell whose config and folder came as JSON: what a launcher's worker calls."""
    run(CellConfig.model_validate(config), Path(folder), report=report, **where)


def run(config: CellConfig, folder: Path, *, environment: dict[str, Any] | None = None, **where: Any) -> CellResult:
    """Train the members of a cell and return what was seen; a finished cell is read, a half-done one goes on.

    Writes config.json, env.json, metrics.jsonl, log.txt, state.safetensors (while it trains) and result.json (last).

    Args:
        config: the cell.
        folder: its folder; made if missing.
        environment: what env.json records in addition to the times.
        where: device, compile and report, as of `muonlab.train.jobs.finish`.

    Raises:
        ValueError: the config asks for what does not exist, such as div with a composite modulus.
        OSError: a file cannot be written.
    """

    def work(context: Context) -> str:
        return _train(config, context).model_dump_json(indent=1) + "\n"

    environment = {**(environment or {}), "seeds": list(config.seeds)}
    return CellResult.model_validate(finish(folder, work, environment=environment, **where))


def _train(config: CellConfig, context: Context) -> CellResult:
    protocol, device = config.protocol, context.device
    task = build_task(config)
    rows = build_rows(config, task, config.seeds, device)
    population = build_population(config, task, config.seeds, device)
    flops_per_step = count_flops(config, task, device)
    metrics = Metrics(context.folder / "metrics.jsonl", len(config.seeds))
    criterion = crossing.Criterion(protocol.threshold, protocol.train_threshold, protocol.follow)

    def evaluate(step: int, alive: list[int]) -> list[int]:
        metrics.append(step, rows.epoch(step), alive, _scores(rows, population))
        return [position for position, member in enumerate(alive) if not _is_done(metrics, member, criterion)]

    loop.train(
        population,
        rows,
        evaluate,
        range(0, protocol.budget + 1, protocol.cadence),
        context,
        compile=loop.pays(context, flops_per_step * protocol.budget * len(config.seeds)),
        metrics=metrics,
    )
    return CellResult(
        cell=config.id,
        chance=task.chance,
        num_train=rows.num_train,
        num_validation=rows.num_validation,
        num_parameters=sum(p.numel() for p in population.net.parameters()),
        num_evaluations=protocol.budget // protocol.cadence + 1,
        flops_per_step=flops_per_step,
        members=tuple(
            _member_result(seed, member, metrics, criterion, rows, flops_per_step)
            for member, seed in enumerate(config.seeds)
        ),
    )


# -- what is trained -----------------------------------------------------------------------------------


def build_task(config: CellConfig) -> algorithmic.Task:
    """Return the cell's task with its true labels."""
    return algorithmic.build(config.task.name, **config.task.model_dump(include={"modulus", "bits", "operator_token"}))


def build_net(config: CellConfig, task: algorithmic.Task, device: str = "cpu") -> nn.Module:
    """Return the cell's net, its weights not yet drawn: a constructor would draw them from torch's global generator."""
    with torch.device("meta"):
        net = named.build("transformer", task.sizes, **config.net.model_dump())
    return net.to_empty(device=device)


def streams(config: CellConfig, own: tuple[int, ...]) -> tuple[int, ...]:
    """Return the streams of seeds: they follow from task, net and loss."""
    return seeds.streams(config.model_dump(mode="json", include={"task", "net", "loss"}), own)


def build_rows(config: CellConfig, task: algorithmic.Task, own: tuple[int, ...], device: str) -> Rows:
    """Return the rows as the members of these seeds see them."""
    return Rows(
        task,
        streams(config, own),
        train_share=config.task.train_share,
        batch=config.protocol.batch,
        pairs_together=config.task.pairs_together,
        random_labels=config.task.labels == "random",
        device=device,
    )


def build_population(config: CellConfig, task: algorithmic.Task, own: tuple[int, ...], device: str) -> Population:
    """Return the members of these seeds, before their first step."""
    net = build_net(config, task)
    dtype = getattr(torch, config.protocol.dtype)
    return Population(
        net, LOSSES[config.loss], treatments(net, config), streams(config, own), dtype=dtype, device=device
    )


def treatments(net: nn.Module, config: CellConfig) -> dict[str, Treatment]:
    """Return parameter name -> rule and hyper-parameters."""
    fields = config.optimizer.model_dump(exclude={"name"})
    if not isinstance(config.optimizer, MuonConfig):
        return optimizers.treatments(net, config.optimizer.name, fields)
    others = {key.removeprefix("adamw_"): fields.pop(key) for key in list(fields) if key.startswith("adamw_")}
    takes, polar_dtype = fields.pop("takes"), fields.pop("polar_dtype")
    fields["adjust_lr_fn"] = "original" if fields.pop("scale") else "none"
    fields["is_orthogonal"] = fields.pop("orthogonalize")
    fields["polar_dtype"] = None if polar_dtype == "same" else getattr(torch, polar_dtype)
    return optimizers.treatments(net, "muon", fields, others=others, takes=takes)


def count_flops(config: CellConfig, task: algorithmic.Task, device: str) -> float:
    """Return the floating-point operations of all matrix products in one step of one member, optimizer included.

    They are those of the plain net, which computes every position: what is left out here is no merit of an optimizer.
    """
    alone = config.seeds[:1]
    rows, population = build_rows(config, task, alone, device), build_population(config, task, alone, device)
    population.net.shortcuts = False  # pyright: ignore[reportArgumentType]
    with FlopCounterMode(display=False) as counter:
        population.step(*rows(0), 0)
    return float(counter.get_total_flops())


# -- what is seen --------------------------------------------------------------------------------------


def _scores(rows: Rows, population: Population) -> dict[str, Tensor]:
    """Return the mean loss and accuracy of the members on their own train and validation rows, (S,) each."""
    losses, hits = population.evaluate(rows.inputs, rows.labels)  # (S, rows)
    values: dict[str, Tensor] = {}
    for side, members in (("train", rows.train), ("validation", rows.validation)):
        values[f"{side}_loss"] = losses.gather(1, members).mean(dim=1)
        values[f"{side}_accuracy"] = hits.gather(1, members).double().mean(dim=1)
    return values


def _is_done(metrics: Metrics, member: int, criterion: crossing.Criterion) -> bool:
    """Return whether a member has diverged, or later steps cannot change its outcome."""
    train, validation = (metrics.curve(f"{side}_accuracy", member) for side in ("train", "validation"))
    return metrics.curve("train_loss", member)[-1] is None or crossing.is_decided(train, validation, criterion)


def _member_result(
    seed: int, member: int, metrics: Metrics, criterion: crossing.Criterion, rows: Rows, flops_per_step: float
) -> MemberResult:
    train, validation = (metrics.curve(f"{side}_accuracy", member) for side in ("train", "validation"))
    number = max(index for index, accuracy in enumerate(train) if accuracy is not None) + 1  # evaluations it was in
    steps = metrics.steps[:number]
    is_diverged = metrics.curve("train_loss", member)[number - 1] is None
    times = crossing.times(train[:number], validation[:number], criterion, diverged=is_diverged)

    def at(index: int | None) -> Crossing | None:
        if index is None:
            return None
        step = steps[index]
        after = steps[index - 1] if index else 0
        return Crossing(step=step, after_step=after, epoch=rows.epoch(step), flops=step * flops_per_step)

    return MemberResult(
        seed=seed,
        first_crossing=at(times.first),
        first_crossing_reason=times.first_reason,
        sustained_crossing=at(times.sustained),
        sustained_crossing_reason=times.sustained_reason,
        minimum_after_crossing=times.minimum_after,
        best_validation_accuracy=max(accuracy for accuracy in validation if accuracy is not None),
        last_step=steps[-1],
        last_train_accuracy=train[number - 1],
        last_validation_accuracy=validation[number - 1],
        diverged_at=steps[-1] if is_diverged else None,
    )

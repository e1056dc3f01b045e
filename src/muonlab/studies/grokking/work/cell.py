"""One cell, from its config to its result: the runs of several seeds, trained until their outcome is decided."""

from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from muonlab.data.algorithmic import Task
from muonlab.losses import LOSSES
from muonlab.measure import crossing
from muonlab.studies.grokking.config import CellConfig, OwnNet, ProtocolConfig
from muonlab.studies.grokking.result import CellResult, Crossing, MemberResult
from muonlab.studies.grokking.work import material
from muonlab.studies.grokking.work.rows import Rows
from muonlab.study.optimizers import RatedCustom
from muonlab.train import engine, loop, optimizers, schedule, seeds
from muonlab.train.engine import Engine
from muonlab.train.jobs import Context, Report, finish
from muonlab.train.metrics import Metrics
from muonlab.train.population import Population

Purpose = Literal["init", "split", "order"]


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


def check(*, config: dict[str, Any]) -> None:
    """Make the task, the net, the optimizer and the engine of a cell of a user's own, before anything runs.

    Raises:
        ValueError: one of them cannot be made or does not fit; the message says what to do.
    """
    cell = CellConfig.model_validate(config)
    task = material.build_task(cell)
    build_rows(cell, task, cell.seeds[:1], "cpu")
    net, own = material.builder(cell, task), cell.optimizer
    if isinstance(own, RatedCustom):
        module = net if isinstance(net, nn.Module) else net()
        optimizers.check(own.call.load("optimizers"), own.arguments, module, f"{cell.arm}={own.call.name}")
    try:
        build_engine(cell, task, cell.seeds[:1], "cpu")
    except Exception as error:  # a user's net may raise anything
        name = f"net={cell.net.call.name}" if isinstance(cell.net, OwnNet) else f"optimizers={cell.arm}"
        raise ValueError(f"{name} cannot be trained on {cell.task.name}: {type(error).__name__}: {error}") from error


def _train(config: CellConfig, context: Context) -> CellResult:
    protocol, device = config.protocol, context.device
    task = material.build_task(config)
    rows = build_rows(config, task, config.seeds, device)
    trained, reason = build_engine(config, task, config.seeds, device)
    if reason:
        context.clock.log(reason)
    num_parameters = sum(p[0].numel() for p in trained.parameters.values())
    flops_per_step = count_flops(config, task, device)
    metrics = Metrics(context.folder / "metrics.jsonl", len(config.seeds))
    criterion = crossing.Criterion(protocol.threshold, protocol.train_threshold, protocol.follow)

    def evaluate(step: int, alive: list[int]) -> list[int]:
        metrics.append(step, rows.epoch(step), alive, _scores(rows, trained))
        return [position for position, member in enumerate(alive) if not _is_done(metrics, member, criterion)]

    loop.train(
        trained,
        rows,
        evaluate,
        range(0, protocol.budget + 1, protocol.cadence),
        context,
        pace=lambda step: _pace(protocol, step),
        compile=loop.pays(context, flops_per_step * protocol.budget * len(config.seeds)),
        metrics=metrics,
    )
    return CellResult(
        cell=config.id,
        chance=task.chance,
        num_train=rows.num_train,
        num_validation=rows.num_validation,
        num_parameters=num_parameters,
        num_evaluations=protocol.budget // protocol.cadence + 1,
        flops_per_step=flops_per_step,
        members=tuple(
            _member_result(seed, member, metrics, criterion, rows, flops_per_step)
            for member, seed in enumerate(config.seeds)
        ),
    )


def _pace(protocol: ProtocolConfig, step: int) -> float:
    """Return what the learning rates of a step are multiplied by."""
    return schedule.pace(step, protocol.warmup, warmup=1.0) if step < protocol.warmup else 1.0


# -- what is trained -----------------------------------------------------------------------------------


def streams(config: CellConfig, own: tuple[int, ...], purpose: Purpose) -> tuple[int, ...]:
    """Return the streams of seeds: they follow from task, net and loss; those of seed 0 where the purpose is fixed."""
    used = own if config.protocol.varies in ("all", purpose) else (0,) * len(own)
    return seeds.streams(config.model_dump(mode="json", include={"task", "net", "loss"}), used)


def build_rows(config: CellConfig, task: Task, own: tuple[int, ...], device: str) -> Rows:
    """Return the rows as the members of these seeds see them."""
    return Rows(
        task,
        streams(config, own, "split"),
        order=streams(config, own, "order"),
        train_share=config.task.train_share,
        batch=config.protocol.batch,
        pairs_together=config.task.pairs_together,
        short_batch=config.protocol.short_batch,
        random_labels=config.task.labels == "random",
        device=device,
    )


def build_engine(config: CellConfig, task: Task, own: tuple[int, ...], device: str) -> tuple[Engine, str | None]:
    """Return the members of these seeds, before their first step, and why they do not train at once, if they do not."""
    if not isinstance(config.net, OwnNet) and not isinstance(config.optimizer, RatedCustom):
        return build_population(config, task, own, device), None
    net, dtype = material.builder(config, task), getattr(torch, config.protocol.dtype)
    loss, members = LOSSES[config.loss], streams(config, own, "init")
    with seeds.forked(members[0], "init"):
        module = net if isinstance(net, nn.Module) else net()
    chosen = material.optimizer_of(module, config, len(own))
    inputs, labels = task.inputs[: engine.TRIAL_ROWS], task.labels[: engine.TRIAL_ROWS]
    inputs = inputs.to(dtype) if inputs.is_floating_point() else inputs
    return engine.build(net, loss, chosen, members, inputs, labels, dtype=dtype, device=device)


def build_population(config: CellConfig, task: Task, own: tuple[int, ...], device: str) -> Population:
    """Return the members of these seeds as a stack, before their first step: of a built-in net and optimizer."""
    net = material.build_net(config, task)
    dtype, treated = getattr(torch, config.protocol.dtype), material.treatments(net, config)
    members = streams(config, own, "init")
    return Population(net, LOSSES[config.loss], treated, members, dtype=dtype, device=device)


def count_flops(config: CellConfig, task: Task, device: str) -> float:
    """Return the floating-point operations of all matrix products in one step of one member, optimizer included.

    They are those of the plain net, which computes every position: what is left out here is no merit of an optimizer.
    """
    alone = config.seeds[:1]
    rows, (trained, _) = build_rows(config, task, alone, device), build_engine(config, task, alone, device)
    if isinstance(trained, Population):
        trained.net.shortcuts = False  # pyright: ignore[reportArgumentType]
    with FlopCounterMode(display=False) as counter:
        trained.step(*rows(0), 0)
    return float(counter.get_total_flops())


# -- what is seen --------------------------------------------------------------------------------------


def _scores(rows: Rows, trained: Engine) -> dict[str, Tensor]:
    """Return the mean loss and accuracy of the members on their own train and validation rows, (S,) each."""
    losses, hits = trained.evaluate(rows.inputs, rows.labels)  # (S, rows)
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

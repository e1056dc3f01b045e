"""One cell, from its config to its result. Reads top to bottom; killed at any line, the same call goes on."""

import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from muonlab.data import algorithmic
from muonlab.jobs.clock import Clock
from muonlab.jobs.files import lock, read_json, write_text
from muonlab.jobs.job import canonical_json
from muonlab.losses import LOSSES
from muonlab.measure import crossing
from muonlab.nets.transformer import Transformer
from muonlab.studies.grokking.config import CellConfig
from muonlab.studies.grokking.result import CellResult, Crossing, MemberResult
from muonlab.studies.grokking.work.metrics import Metrics
from muonlab.studies.grokking.work.preparation import pays, prepare
from muonlab.studies.grokking.work.rows import Rows
from muonlab.studies.grokking.work.treatments import treatments
from muonlab.train import checkpoint
from muonlab.train.population import Population
from muonlab.train.seeds import fold_in

CHECKPOINT_SECONDS = 5.0  # about as much work is lost to a kill

Report = Callable[[dict], None]


def run(
    config: CellConfig,
    folder: Path,
    *,
    device: str = "cpu",
    compile: str = "auto",
    environment: dict | None = None,
    report: Report = lambda event: None,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
) -> CellResult:
    """Train the members of a cell and return what was seen; a finished cell is read, a half-done one goes on.

    Writes env.json, metrics.jsonl, log.txt, state.safetensors (while it trains) and result.json (last).

    Args:
        config: the cell.
        folder: its folder; made if missing.
        device: a torch device.
        compile: "always", "never", or "auto": on a CPU, where the cell has enough to do. It changes results by rounding
            alone. A half-done cell goes on as it began.
        environment: what env.json records beside the times (see `muonlab.jobs.environment`).
        report: called at the start and after every evaluation with {"step", "budget", "alive"}.
        checkpoint_seconds: least time between two checkpoints; changes no result.

    Raises:
        ValueError: the config asks for what does not exist, such as div with a composite modulus.
        OSError: a file cannot be written.
    """
    if compile not in ("auto", "always", "never"):
        raise ValueError(f"compile={compile!r}; expected auto, always or never")
    folder.mkdir(parents=True, exist_ok=True)
    with lock(folder / ".lock", wait=True):
        if (folder / "result.json").exists():
            return CellResult.model_validate(read_json(folder / "result.json"))
        clock = Clock(folder, _environment(config, environment or {}, device), device)
        result = _train(config, folder, device, compile, clock, report, checkpoint_seconds)
        clock.stop()
        write_text(folder / "result.json", result.model_dump_json(indent=1) + "\n")
        (folder / "state.safetensors").unlink(missing_ok=True)
        (folder / "failed.json").unlink(missing_ok=True)
        return result


def run_job(*, config: dict, folder: str, report: Report, **where) -> None:
    """Run a cell whose config and folder came as JSON: what a launcher's worker calls."""
    run(CellConfig.model_validate(config), Path(folder), report=report, **where)


def _environment(config: CellConfig, environment: dict, device: str) -> dict:
    record = {**environment, "seeds": list(config.seeds)}
    if torch.device(device).type == "cuda":
        record["hardware"] = {**record.get("hardware", {}), "gpu": torch.cuda.get_device_name(device)}
    return record


def _train(
    config: CellConfig, folder: Path, device: str, compile: str, clock: Clock, report: Report, checkpoint_seconds: float
) -> CellResult:
    protocol = config.protocol

    # -- what is trained: the rows and the members -------------------------------------------------
    task = build_task(config)
    rows = build_rows(config, task, config.seeds, device)
    population = build_population(config, task, config.seeds, device)
    flops_per_step = count_flops(config, task, device)

    # -- where it stands: at the start, or at the last checkpoint ----------------------------------
    saved = checkpoint.load(folder / "state.safetensors", device, population.tensors(), folder / "metrics.jsonl")
    if saved is not None:
        tensors, (step, alive, num_bytes, is_compiled, height) = saved
        rows.keep(alive)
        population.keep(alive)
        population.load(tensors)
        metrics = Metrics(folder / "metrics.jsonl", len(config.seeds), num_bytes)
        clock.log(f"goes on from step {step} with {len(alive)} members")
    else:
        step, alive = 0, list(range(len(config.seeds)))
        is_compiled, height = pays(compile, flops_per_step * protocol.budget * len(alive), device), None
        metrics = Metrics(folder / "metrics.jsonl", len(config.seeds))
        clock.log(f"starts with {len(alive)} members")
        alive = _look(config, step, alive, rows, population, metrics)
    if alive:
        is_compiled, height = prepare(population, rows.take(0), clock, is_compiled=is_compiled, height=height)
    report({"step": step, "budget": protocol.budget, "alive": len(alive)})

    # -- train, look, let go of the members whose outcome is decided -------------------------------
    last_save = time.monotonic()
    while alive and step < protocol.budget:
        for _ in range(protocol.cadence):
            population.step(*rows.take(step), step)
            step += 1
        clock.add(member_steps=protocol.cadence * len(alive), step=step)
        alive = _look(config, step, alive, rows, population, metrics)
        report({"step": step, "budget": protocol.budget, "alive": len(alive)})
        if alive and time.monotonic() - last_save >= checkpoint_seconds:
            progress = checkpoint.Progress(step, alive, metrics.num_bytes, is_compiled, height)
            checkpoint.save(folder / "state.safetensors", population.tensors(), progress)
            clock.save()
            last_save = time.monotonic()

    # -- what was seen -----------------------------------------------------------------------------
    return CellResult(
        cell=config.id,
        chance=task.chance,
        num_train=rows.num_train,
        num_validation=rows.num_validation,
        num_parameters=sum(p.numel() for p in build_net(config, task).parameters()),
        num_evaluations=protocol.budget // protocol.cadence + 1,
        flops_per_step=flops_per_step,
        members=tuple(
            _member_result(config, member, metrics, rows, flops_per_step) for member in range(len(config.seeds))
        ),
    )


def build_task(config: CellConfig) -> algorithmic.Task:
    """Return the cell's task with its true labels."""
    return algorithmic.build(config.task.name, **config.task.model_dump(include={"modulus", "bits", "operator_token"}))


def build_net(config: CellConfig, task: algorithmic.Task) -> Transformer:
    """Return the cell's net, its weights not yet drawn: a constructor would draw them from torch's global generator."""
    with torch.device("meta"):
        net = Transformer(task.vocabulary, task.classes, **config.net.model_dump())
    return net.to_empty(device="cpu")


def streams(config: CellConfig, seeds: tuple[int, ...]) -> tuple[int, ...]:
    """Return the seeds of the members' random streams: they follow from seed, task, net and loss.

    So two optimizers, or two learning rates, start a seed from the same weights and the same split, and runs of
    different tasks, nets or losses have nothing in common: statistics may treat them as independent.
    """
    trained = canonical_json(config.model_dump(mode="json", include={"task", "net", "loss"}))
    return tuple(fold_in(seed, trained) for seed in seeds)


def build_rows(config: CellConfig, task: algorithmic.Task, seeds: tuple[int, ...], device: str) -> Rows:
    """Return the rows as those members see them."""
    return Rows(
        task,
        streams(config, seeds),
        train_share=config.task.train_share,
        batch=config.protocol.batch,
        pairs_together=config.task.pairs_together,
        random_labels=config.task.labels == "random",
        device=device,
    )


def build_population(config: CellConfig, task: algorithmic.Task, seeds: tuple[int, ...], device: str) -> Population:
    """Return those members of the cell, before their first step."""
    net = build_net(config, task)
    return Population(
        net,
        LOSSES[config.loss],
        treatments(net, config.optimizer),
        streams(config, seeds),
        dtype=getattr(torch, config.protocol.dtype),
        device=device,
    )


def count_flops(config: CellConfig, task: algorithmic.Task, device: str) -> float:
    """Return the floating-point operations of all matrix products in one step of one member, optimizer included.

    They are those of the plain net, which computes every position: what is left out here is no merit of an optimizer.
    """
    alone = config.seeds[:1]
    rows, population = build_rows(config, task, alone, device), build_population(config, task, alone, device)
    population.net.shortcuts = False  # pyright: ignore[reportArgumentType]
    with FlopCounterMode(display=False) as counter:
        population.step(*rows.take(0), 0)
    return float(counter.get_total_flops())


def _look(
    config: CellConfig, step: int, alive: list[int], rows: Rows, population: Population, metrics: Metrics
) -> list[int]:
    """Evaluate, write the metrics, drop the members that are decided or have diverged; return those that stay."""
    losses, hits = population.evaluate(rows.inputs, rows.labels)  # (S, rows) each
    values: dict[str, Tensor] = {}
    for side, members in (("train", rows.train), ("validation", rows.validation)):
        values[f"{side}_loss"] = losses.gather(1, members).mean(dim=1)
        values[f"{side}_accuracy"] = hits.gather(1, members).double().mean(dim=1)
    metrics.append(step, rows.epoch(step), alive, values)

    criterion = _criterion(config)
    stay = [
        position
        for position, member in enumerate(alive)
        if metrics.curve("train_loss", member)[-1] is not None
        and not crossing.is_decided(
            metrics.curve("train_accuracy", member), metrics.curve("validation_accuracy", member), criterion
        )
    ]
    if 0 < len(stay) < len(alive):
        rows.keep(stay)
        population.keep(stay)
    return [alive[position] for position in stay]


def _criterion(config: CellConfig) -> crossing.Criterion:
    protocol = config.protocol
    return crossing.Criterion(protocol.threshold, protocol.train_threshold, protocol.follow)


def _member_result(
    config: CellConfig, member: int, metrics: Metrics, rows: Rows, flops_per_step: float
) -> MemberResult:
    train, validation = (metrics.curve(f"{side}_accuracy", member) for side in ("train", "validation"))
    losses = metrics.curve("train_loss", member)
    num_looks = max(index for index, accuracy in enumerate(train) if accuracy is not None) + 1
    steps = metrics.steps[:num_looks]
    is_diverged = losses[num_looks - 1] is None
    times = crossing.times(train[:num_looks], validation[:num_looks], _criterion(config), diverged=is_diverged)

    def at(index: int | None) -> Crossing | None:
        if index is None:
            return None
        step = steps[index]
        after = steps[index - 1] if index else 0
        return Crossing(step=step, after_step=after, epoch=rows.epoch(step), flops=step * flops_per_step)

    return MemberResult(
        seed=config.seeds[member],
        first_crossing=at(times.first),
        first_crossing_reason=times.first_reason,
        sustained_crossing=at(times.sustained),
        sustained_crossing_reason=times.sustained_reason,
        minimum_after_crossing=times.minimum_after,
        best_validation_accuracy=max(accuracy for accuracy in validation if accuracy is not None),
        last_step=steps[-1],
        last_train_accuracy=train[num_looks - 1],
        last_validation_accuracy=validation[num_looks - 1],
        diverged_at=steps[-1] if is_diverged else None,
    )

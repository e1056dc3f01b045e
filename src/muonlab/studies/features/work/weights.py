"""The weights that a pretraining job keeps: one file per evaluation, all members stacked."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from muonlab.studies.features.config import State

PREFIXES = ("parameter/", "buffer/")


def path(folder: Path, step: int) -> Path:
    """Return the file of an evaluation."""
    return folder / f"weights-{step}.safetensors"


def save(folder: Path, step: int, tensors: dict[str, Tensor]) -> None:
    """Write parameters and buffers (S, ...) of what an engine's `tensors` returned, under another name and renamed."""
    kept = {name: tensor.contiguous().cpu() for name, tensor in tensors.items() if name.startswith(PREFIXES)}
    beside = path(folder, step).with_name(f".weights-{step}.{os.getpid()}.part")
    try:
        save_file(kept, beside)
        beside.replace(path(folder, step))
    finally:
        beside.unlink(missing_ok=True)


def load(folder: Path, step: int) -> dict[str, Tensor]:
    """Return the weights of an evaluation, by "parameter/name" and "buffer/name", (S, ...).

    Raises:
        ValueError: the file is not there or cannot be read.
    """
    file = path(folder, step)
    try:
        with safe_open(file, framework="pt") as held:
            return {name: held.get_tensor(name).clone() for name in held.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise ValueError(
            f"cannot read the weights {file} ({error}); move the folder {folder.name} away and run again: they are "
            "made again"
        ) from error


def of_member(tensors: dict[str, Tensor], member: int) -> dict[str, Tensor]:
    """Return the state dict of one member."""
    return {name.split("/", 1)[1]: tensor[member] for name, tensor in tensors.items()}


def put(net: nn.Module, state: dict[str, Tensor]) -> None:
    """Copy a state dict into a net.

    Raises:
        ValueError: names or shapes that do not fit, with the first five of them.
    """
    own = net.state_dict()
    wrong = [
        f"{name} {tuple(tensor.shape)}, not {tuple(state[name].shape) if name in state else 'there'}"
        for name, tensor in own.items()
        if name not in state or state[name].shape != tensor.shape
    ]
    wrong += [f"no {name} {tuple(tensor.shape)}" for name, tensor in state.items() if name not in own]
    if wrong:
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise ValueError(f"the weights do not fit the net, which has {'; '.join(wrong[:5])}{more}")
    net.load_state_dict(state)


@dataclass(frozen=True, eq=False)
class Model:
    """One member at one evaluation."""

    state: str
    seed: int
    step: int
    net: nn.Module


def load_models(
    states: Sequence[State], seeds: Sequence[int], folder: Path, build: Callable[[], nn.Module]
) -> list[Model]:
    """Return every seed of every state, in eval mode.

    Args:
        states: which weights.
        seeds: of the pretraining job, in the order of its members.
        folder: of that job.
        build: returns the net.
    """
    kept = {step: load(folder, step) for step in sorted({step for state in states for step in state.steps})}
    models = []
    for state in states:
        for seed, step in zip(state.seeds, state.steps, strict=True):
            net = build()
            put(net, of_member(kept[step], list(seeds).index(seed)))
            models.append(Model(state.name, seed, step, net.eval()))
    return models

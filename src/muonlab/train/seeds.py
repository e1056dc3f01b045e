"""Random streams of the members, each from its seed by a fixed fold-in; the global generator stays as it was."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from muonlab.jobs.job import canonical_json


def fold_in(seed: int, purpose: str, index: int = 0) -> int:
    """Return 63 bits that depend on all three arguments: the seed of the stream for that purpose."""
    digest = hashlib.blake2b(f"{seed}/{purpose}/{index}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator(seed: int, purpose: str, index: int = 0) -> torch.Generator:
    """Return a CPU generator for that purpose of that member."""
    return torch.Generator().manual_seed(fold_in(seed, purpose, index))


@contextmanager
def forked(seed: int, purpose: str, index: int = 0, device: str | torch.device = "cpu") -> Iterator[None]:
    """Lend the global generators of the CPU and of the device to a member's stream, and restore them afterwards."""
    device = torch.device(device)
    own, before = fold_in(seed, purpose, index), states(device)
    try:
        # torch.manual_seed would seed the generators of all devices, of which this gives back these alone.
        torch.default_generator.manual_seed(own)
        if device.type == "cuda":
            with torch.cuda.device(device):
                torch.cuda.manual_seed(own)
        yield
    finally:
        restore(before, device)


States = tuple[torch.Tensor, torch.Tensor | None]  # of the global generators: of the CPU, of a CUDA device


def states(device: str | torch.device = "cpu") -> States:
    """Return the states of the global generators of the CPU and of a device, for `restore`."""
    device = torch.device(device)
    return torch.default_generator.get_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None


def restore(before: States, device: str | torch.device = "cpu") -> None:
    """Give the global generators the states that `states` has returned for the device."""
    torch.default_generator.set_state(before[0])
    if before[1] is not None:
        torch.cuda.set_rng_state(before[1], device)


def streams(trained: Any, seeds: Sequence[int]) -> tuple[int, ...]:
    """Return the seeds of the members' random streams: they follow from the seed and from what is trained.

    So two optimizers, or two learning rates, start a seed from the same weights and take the same batches, while runs
    of other tasks, nets or losses have nothing in common: statistics may treat them as independent.

    Args:
        trained: what the streams depend on, such as task, net and loss, as JSON.
        seeds: of the members.
    """
    text = canonical_json(trained)
    return tuple(fold_in(seed, text) for seed in seeds)

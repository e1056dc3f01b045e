"""The machine: what it is, and the matrix product it can do at best."""

import datetime
import importlib.metadata
import time
from collections.abc import Callable

import torch

from muonlab.jobs.environment import record

PEER_PACKAGES = ("timm", "pytorch_optimizer", "heavyball", "torchvision")
SIZES = {"cpu": (1024, 2048), "cuda": (4096, 8192)}


def synchronize(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def clock(device: str) -> Callable[[], float]:
    """Return the clock: for one thread of a CPU that of the processor, as others may share it."""
    return time.thread_time if device == "cpu" and torch.get_num_threads() == 1 else time.perf_counter


def matrix_peak(device: str, dtype: torch.dtype, repeats: int = 12) -> float:
    """Return the GFLOP/s of the best of some large square products."""
    best = 0.0
    for size in SIZES[device.partition(":")[0]]:
        A, B = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        C = A @ B  # warms up
        for _ in range(repeats):
            synchronize(device)
            start = clock(device)()
            torch.mm(A, B, out=C)
            synchronize(device)
            best = max(best, 2 * size**3 / (clock(device)() - start) / 1e9)
    return best


def machine(device: str, threads: int) -> dict:
    """Return the environment, as the run folders record it, with the device, the peers' versions and the date."""
    environment = record(threads=threads)
    for package in PEER_PACKAGES:
        try:
            environment["versions"][package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            environment["versions"][package] = "not installed"
    environment["device"] = torch.cuda.get_device_name(device) if device.startswith("cuda") else "cpu"
    environment["date"] = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return environment

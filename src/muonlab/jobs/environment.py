"""The record that lets another person repeat a run: versions, commit, hardware, command."""

import importlib.metadata
import os
import platform
import subprocess
import sys
from functools import cache
from pathlib import Path

PACKAGES = ("muonlab", "torch", "numpy", "scipy", "pydantic", "safetensors")
MAX_DIFF_CHARACTERS = 100_000


def record(*, threads: int) -> dict:
    """Return the environment as plain JSON: what env.json holds besides the times.

    Args:
        threads: torch threads in each worker.
    """
    return {
        "versions": {"python": platform.python_version(), **_versions()},
        "commit": _git("rev-parse", "HEAD"),
        "uncommitted_diff": _uncommitted_diff(),
        "hardware": {
            "cpu": _cpu_name(),
            "cores": os.cpu_count(),
            "memory_gb": _memory_gb(),
            "system": f"{platform.system()} {platform.machine()}",
        },
        "threads": threads,
        "argv": sys.argv,
    }


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


@cache
def _git(*words: str) -> str | None:
    """Return what git says of the checkout that holds this file; None outside a checkout of muonlab."""
    root = Path(__file__).parents[3]
    if not (root / ".git").exists() or not (root / "pyproject.toml").exists():
        return None
    try:
        return subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def _uncommitted_diff() -> str | None:
    diff = _git("diff", "HEAD", "--", "src")
    new = _git("ls-files", "--others", "--exclude-standard", "--", "src")
    if new:
        diff = f"{diff}\n[files that git does not know yet: {', '.join(new.splitlines())}]"
    if diff and len(diff) > MAX_DIFF_CHARACTERS:
        return f"{diff[:MAX_DIFF_CHARACTERS]}\n[cut: the diff has {len(diff)} characters]"
    return diff


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _memory_gb() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (ValueError, OSError, AttributeError):
        return None

"""Functions that all ranks of one gloo group call, in order, in processes of their own: `@case` registers one."""

import json
import multiprocessing
import subprocess
import sys
import traceback
from datetime import timedelta
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh

NUM_RANKS = 4  # unless a test asks for others
CASES = {}


def case(function):
    CASES[function.__name__] = function
    return function


@cache
def line():
    return init_device_mesh("cpu", (NUM_RANKS,))


@cache
def square():
    return init_device_mesh("cpu", (2, 2), mesh_dim_names=("outer", "inner"))


def of_all_ranks(value):
    values = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def refusal(function):
    try:
        function()
    except ValueError as error:
        return str(error)
    raise AssertionError("nothing was raised")


def main(folder, num_ranks, *modules):
    """Import the modules, run their cases on all ranks, and write {case: traceback or ""} to FOLDER/RANK.json."""
    for module in modules:
        import_module(module)
    # Forked, so that torch is imported once; where that is not safe (macOS), spawned.
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    ranks = [context.Process(target=_run, args=(rank, num_ranks, Path(folder), modules)) for rank in range(num_ranks)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join()
    sys.exit(max(abs(process.exitcode or 0) for process in ranks))


def _run(rank, num_ranks, folder, modules):
    for module in modules:  # a spawned process has none of them yet
        import_module(module)
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder / 'rendezvous'}", timedelta(seconds=60), num_ranks, rank)
    outcomes = {}
    for name, function in CASES.items():
        try:
            function()
            dist.barrier()
            outcomes[name] = ""
        except Exception:
            # The other ranks may wait in another collective: no case after this one can be run.
            outcomes[name] = traceback.format_exc()
            break
    (folder / f"{rank}.json").write_text(json.dumps(outcomes))
    if not any(outcomes.values()):
        dist.destroy_process_group()


def check_cases(folder, *modules, num_ranks=NUM_RANKS):
    """Run the cases of modules on so many ranks and fail with what failed in them; return how many there are."""
    statement = f"from optim.ranks import main; main({str(folder)!r}, {num_ranks}, *{modules!r})"
    process = subprocess.run(
        [sys.executable, "-c", statement], capture_output=True, text=True, timeout=240, cwd=Path(__file__).parents[1]
    )
    outcomes = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    failed = [f"{name}, rank {rank}: {each[name]}" for rank, each in enumerate(outcomes) for name in each if each[name]]
    if failed:  # ranks that only lost the connection to the one that failed say nothing
        pytest.fail("\n".join([each for each in failed if "by peer" not in each] or failed))
    assert process.returncode == 0, process.stderr
    assert len(outcomes) == num_ranks
    (num_cases,) = {len(each) for each in outcomes}
    return num_cases

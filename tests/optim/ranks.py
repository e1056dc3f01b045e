"""Runs the cases of a script on several processes of one gloo group, and tells pytest how they went.

case = Cases(2, 4)

@case(2, 4)
def something_over_two_ranks_and_over_four(): ...

if __name__ == "__main__":
    case.main()
"""

import json
import multiprocessing
import subprocess
import sys
import traceback
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

TESTS = Path(__file__).parents[1]


class Cases:
    """Functions that every rank calls, in order, for each number of ranks."""

    def __init__(self, *nums_ranks):
        self.functions = {num_ranks: {} for num_ranks in nums_ranks}

    def __call__(self, *nums_ranks):
        def register(function):
            for num_ranks in nums_ranks:
                self.functions[num_ranks][function.__name__] = function
            return function

        return register

    def main(self):
        """Be the script NUM_RANKS FOLDER: run all cases and write {case: traceback or ""} to FOLDER/RANK.json."""
        num_ranks, folder = int(sys.argv[1]), Path(sys.argv[2])
        # Forked, so that torch is imported once; where that is not safe (macOS), spawned.
        context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
        ranks = [context.Process(target=self._run, args=(rank, num_ranks, folder)) for rank in range(num_ranks)]
        for process in ranks:
            process.start()
        for process in ranks:
            process.join()
        sys.exit(max(abs(process.exitcode or 0) for process in ranks))

    def _run(self, rank, num_ranks, folder):
        torch.set_num_threads(1)
        dist.init_process_group("gloo", f"file://{folder / 'rendezvous'}", timedelta(seconds=60), num_ranks, rank)
        outcomes = {}
        for name, function in self.functions[num_ranks].items():
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


def check_cases(script, num_ranks, folder, num_cases):
    """Run a script of this folder and fail with what failed in it, or if it ran fewer cases than these."""
    command = [sys.executable, "-m", f"optim.{script}", str(num_ranks), str(folder)]
    process = subprocess.run(command, capture_output=True, text=True, timeout=240, cwd=TESTS)
    outcomes = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    failed = [f"{name}, rank {rank}: {each[name]}" for rank, each in enumerate(outcomes) for name in each if each[name]]
    if failed:  # ranks that only lost the connection to the one that failed say nothing
        pytest.fail("\n".join([each for each in failed if "by peer" not in each] or failed))
    assert process.returncode == 0, process.stderr
    assert len(outcomes) == num_ranks
    assert all(len(each) >= num_cases for each in outcomes)

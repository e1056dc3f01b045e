"""Momentum in eight bits: bytes beside other optimizers, and losses of a small GPT beside momentum in float32.

    python benchmarks/eight_bit.py --save records/int8/int8.json    # trains what is missing, prints the tables
    python benchmarks/eight_bit.py --read records/int8/int8.json    # prints them again
    python benchmarks/eight_bit.py --bytes records/int8/int8.json   # counts bytes again, and keeps its losses

pytorch_optimizer and bitsandbytes have a row where they are installed (pip install --no-deps bitsandbytes).

The GPT is the pocket suite's at width 64, with its steps, schedule and text; Muon's rate is MuonAdamW's default, and
AdamW's 0.01, its best there (records/defaults).
"""

import argparse
import contextlib
import json
from pathlib import Path

import defaults
import torch
from optimizer.machine import machine
from optimizer.probe import state_bytes
from torch import nn

from muonlab import MuonAdamW
from muonlab.report.findings import as_text
from muonlab.stats.effects import mean
from muonlab.studies.compare.builtin import TASKS
from muonlab.studies.compare.config import Task, Train, Training
from muonlab.studies.compare.work.job import run
from muonlab.study.dotted import find

SEEDS = range(5)
RATES = {"lr": defaults.LR, "adamw_lr": 1e-2}
KINDS = {"float32": None, "int8": "int8"}
SHAPES = {"24 of 512 x 512": [(512, 512)] * 24, "4 of 1024 x 4096": [(1024, 4096)] * 4}


# -- bytes -------------------------------------------------------------------------------------------------------------


def contenders():
    """Return name -> function from parameters to an optimizer; packages that are not there are left out."""

    def ours(**options):
        return lambda params: MuonAdamW([{"params": params, "rule": "muon"}], **options)

    found = {
        "muonlab": ours(),
        "muonlab, state_dtype=bfloat16": ours(state_dtype=torch.bfloat16),
        'muonlab, state_dtype="int8"': ours(state_dtype="int8"),
        "torch.optim.Muon": torch.optim.Muon,
        "torch.optim.AdamW": torch.optim.AdamW,
    }
    with contextlib.suppress(ImportError):
        from pytorch_optimizer import Muon

        found["pytorch_optimizer.Muon"] = lambda params: Muon([{"params": params, "use_muon": True}])
    with contextlib.suppress(ImportError):
        from bitsandbytes.optim import AdamW8bit, Lion8bit

        found |= {"bitsandbytes.AdamW8bit": AdamW8bit, "bitsandbytes.Lion8bit": Lion8bit}
    return found


# Bytes of state an entry of a package that no registry has, read in its source and not run: one momentum like the
# parameter (microsoft/dion, commit 0c20549, dion/muon.py, _get_or_initialize_state).
READ = {"dion.Muon, from its source, not run": {"float32": 4.0, "bfloat16": 2.0}}


def peak(function):
    """Return the largest number of bytes that a function has at a time, beyond what there was."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        function()
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    now = highest = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        highest = max(highest, now)
    return highest


def bytes_of(make, shapes, dtype):
    """Return bytes of state an entry, and MiB of a second step beyond parameters, gradients and state."""
    params = [nn.Parameter(torch.randn(shape).to(dtype)) for shape in shapes]
    for p in params:
        p.grad = torch.randn_like(p)
    optimizer = make(params)
    optimizer.step()
    entries = sum(p.numel() for p in params)
    kept = getattr(optimizer, "free_workspace", lambda: None)
    kept()
    return {"state": state_bytes(dict(optimizer.state)) / entries, "step": peak(optimizer.step) / 2**20}


def memory():
    """Return what each contender needs, by shapes and dtype of parameters."""
    return {
        f"{name}, {str(dtype)[6:]}": {each: bytes_of(make, shapes, dtype) for each, make in contenders().items()}
        for name, shapes in SHAPES.items()
        for dtype in (torch.float32, torch.bfloat16)
    }


# -- losses ------------------------------------------------------------------------------------------------------------


def job(kind):
    """Return a job: the GPT with every seed."""
    known = TASKS["gpt"]
    return Train(
        trained=Task(task=find("task", f"{defaults.HERE}:larger_gpt")),
        training=Training(batch=known.batch, budget=known.budget, evaluations=10),
        optimizer=defaults.both(defaults.LARGER, **({"state_dtype": KINDS[kind]} if KINDS[kind] else {})),
        points=(RATES,),
        seeds=tuple(SEEDS),
    )


def losses(folder):
    """Train what is missing; return kind -> validation losses of each seed, by evaluation, and their steps."""
    found = {}
    for kind in KINDS:
        result = run(config=job(kind).model_dump(mode="json"), folder=str(folder / kind), compile="auto")
        found[kind] = [member["validation_loss"] for member in result["members"]]
        found["steps"] = result["members"][0].get("steps") or result.get("steps")
    return found


def tables(measured):
    """Return the lines of both tables."""
    lines = ["| parameters | optimizer | bytes of state an entry | MiB of a step beyond it |", "|---|---|---|---|"]
    for shapes, rows in measured["memory"].items():
        lines += [f"| {shapes} | {name} | {each['state']:.3f} | {each['step']:.1f} |" for name, each in rows.items()]
        lines += [f"| {shapes} | {name} | {of[shapes.split(', ')[1]]:.3f} | – |" for name, of in READ.items()]
    found = measured["losses"]
    wide, small = (torch.tensor(found[kind]) for kind in KINDS)
    lines += ["", "| evaluation | float32, mean (SD over seeds) | int8 - float32, paired |", "|---|---|---|"]
    for index in range(wide.shape[1]):
        difference = mean((small - wide)[:, index].tolist())
        spread = f"{wide[:, index].mean():.4f} ({wide[:, index].std():.4f})"
        lines.append(f"| {index} | {spread} | {as_text(difference)} |")
    return lines


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--save", type=Path)
    parser.add_argument("--read", type=Path)
    parser.add_argument("--bytes", type=Path, help="a file of --save, whose bytes are counted again")
    parser.add_argument("--jobs", type=Path, default=Path("runs/int8"))
    asked = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    if asked.read is not None:
        measured = json.loads(asked.read.read_text())
    elif asked.bytes is not None:
        measured = json.loads(asked.bytes.read_text()) | {"memory": memory()}
    else:
        measured = {"machine": machine("cpu", 1), "memory": memory(), "losses": losses(asked.jobs)}
    if place := asked.save or asked.bytes:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(json.dumps(measured, indent=1) + "\n")
    print("\n".join(tables(measured)))

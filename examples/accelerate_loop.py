"""Train with Hugging Face Accelerate and MuonAdamW: accumulation, clipping, a schedule, a checkpoint to resume from.

    pip install accelerate
    python examples/accelerate_loop.py                  # seconds
    accelerate launch examples/accelerate_loop.py       # the same on all devices of a machine

Accelerate prepares MuonAdamW as any optimizer, and saves and loads it with the model and the schedule.
"""

import argparse
import importlib.util
import math
import sys
import tempfile
from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from muonlab import MuonAdamW

if importlib.util.find_spec("accelerate") is None:
    print("skipped: accelerate not found; pip install accelerate")
    sys.exit(0)
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--steps", type=int, default=100, help="optimizer steps; the checkpoint is at half of them")
parser.add_argument("--accumulate", type=int, default=2, help="backward passes a step")
parser.add_argument("--batch", type=int, default=64, help="examples of a backward pass and process")
parser.add_argument("--width", type=int, default=64)
args = parser.parse_args()

accelerator = Accelerator(gradient_accumulation_steps=args.accumulate, cpu=not torch.accelerator.is_available())

# ------------------------------------------------------------------------------------------------------ data and model

num = args.steps * args.accumulate * args.batch * accelerator.num_processes
points = torch.randn(num, 8, generator=torch.Generator().manual_seed(0))
labels = (points[:, 0] > 0).long() + 2 * (points[:, 1] * points[:, 2] > 0).long()  # four classes


def build(seed: int):
    """Return a fresh model, its optimizer and schedule, and the data, all prepared by Accelerate."""
    torch.manual_seed(seed)
    first, hidden, head = nn.Linear(8, args.width), nn.Linear(args.width, args.width), nn.Linear(args.width, 4)
    net = nn.Sequential(OrderedDict(first=first, relu1=nn.ReLU(), hidden=hidden, relu2=nn.ReLU(), head=head))
    optimizer = MuonAdamW(net, lr=0.02, adamw_lr=3e-3)
    total = args.steps * accelerator.num_processes  # a prepared schedule takes a step for each process at once
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5 + 0.5 * math.cos(math.pi * step / total))
    loader = DataLoader(TensorDataset(points, labels), batch_size=args.batch)
    return accelerator.prepare(net, optimizer, schedule, loader)


# ------------------------------------------------------------------------------------------------------------ training


def train(net, optimizer, schedule, loader, save_at: int | None = None, folder: str = "") -> list[float]:
    """Go through the data once; return the loss of every backward pass on this process."""
    losses = []
    for index, (x, y) in enumerate(loader):
        if index == save_at:
            accelerator.save_state(folder)
        with accelerator.accumulate(net):
            loss = F.cross_entropy(net(x), y)
            accelerator.backward(loss)
            if accelerator.sync_gradients:
                accelerator.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
        losses.append(loss.item())
    return losses


with tempfile.TemporaryDirectory() as folder:
    (folder,) = broadcast_object_list([folder])  # that of the first process
    half = args.steps // 2 * args.accumulate
    losses = train(*build(seed=0), save_at=half, folder=folder)
    accelerator.print(f"loss {losses[0]:.4f} -> {losses[-1]:.4f} in {len(losses)} backward passes")

    # ------------------------------------------------------------- resume: another start, which the checkpoint replaces

    accelerator.free_memory()
    net, optimizer, schedule, loader = build(seed=1)
    accelerator.load_state(folder)
    again = train(net, optimizer, schedule, accelerator.skip_first_batches(loader, half))
    difference = max(abs(a - b) for a, b in zip(again, losses[half:], strict=True))
    accelerator.wait_for_everyone()  # before the folder is removed
    accelerator.print(f"resumed at batch {half}: {len(again)} losses, largest difference {difference:g}")

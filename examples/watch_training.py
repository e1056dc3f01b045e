"""What does an optimizer do to a network while it trains? Measures of AdamW and Muon side by side, by `Watch`.

    python examples/watch_training.py                 # seconds
    muonlab export watch-muon.jsonl --to csv          # or tensorboard: what it wrote, for other tools

The same small net learns scikit-learn's digits with each optimizer. Every 50 steps `Watch` takes the ranks of weights
and hidden states, the spectral norms, the size of the update and the margins on held-out images. The last line trains
once more without it: the losses are the same.
"""

import argparse
from contextlib import nullcontext
from itertools import pairwise
from pathlib import Path
from statistics import fmean

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn

from muonlab import MuonAdamW
from muonlab.measure import Watch

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--steps", type=int, default=200)
parser.add_argument("--every", type=int, default=50, help="steps between two rows")
parser.add_argument("--width", type=int, default=64)
parser.add_argument("--out", type=Path, default=Path(), help="folder of the files")
args = parser.parse_args()

pixels, digits = load_digits(return_X_y=True)
images, labels = torch.tensor(pixels, dtype=torch.float32) / 8 - 1, torch.tensor(digits)
TRAIN, HELD_OUT = slice(0, 1200), slice(1200, None)
OPTIMIZERS = {
    "adamw": lambda net: torch.optim.AdamW(net.parameters(), lr=3e-3, weight_decay=0.1),
    "muon": lambda net: MuonAdamW(net, lr=0.02, adamw_lr=3e-3, weight_decay=0.1),
}


def train(name: str, *, is_watched: bool = True) -> tuple[list[float], list[dict]]:
    """Train with one optimizer; return the losses, and what was measured."""
    torch.manual_seed(0)
    sizes = [64, args.width, args.width, args.width]
    layers = [nn.Sequential(nn.Linear(n, m), nn.ReLU()) for n, m in pairwise(sizes)]
    net = nn.Sequential(nn.Sequential(*layers), nn.Linear(args.width, 10))
    optimizer = OPTIMIZERS[name](net)
    watch = Watch(
        net,
        every=args.every,
        inputs=images[HELD_OUT],
        labels=labels[HELD_OUT],
        taps=["0.*"],
        path=args.out / f"watch-{name}.jsonl",
    )
    losses = []
    for step in range(1, args.steps + 1):
        rows = torch.randint(1200, (64,))
        loss = F.cross_entropy(net(images[TRAIN][rows]), labels[TRAIN][rows])
        loss.backward()
        with watch(step) if is_watched else nullcontext():
            optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses, watch.rows


def mean(row: dict, measure: str) -> float:
    """Return the mean of a measure over weights or taps."""
    return fmean(value for key, value in row.items() if key.startswith(f"{measure}/"))


COLUMNS = ("hidden_rank", "weight_rank", "spectral_norm", "update_to_weight")
print(f"{'':6} {'step':>5} {'accuracy':>9} {'margin':>7} " + " ".join(f"{name:>16}" for name in COLUMNS))
for name in OPTIMIZERS:
    losses, found = train(name)
    for row in found:
        numbers = " ".join(f"{mean(row, measure):16.4f}" for measure in COLUMNS)
        print(f"{name:6} {row['step']:5} {row['accuracy']:9.3f} {row['margin']:7.2f} {numbers}")
    unwatched, _ = train(name, is_watched=False)
    difference = max(abs(a - b) for a, b in zip(losses, unwatched, strict=True))
    print(f"{name}: {len(losses)} losses without Watch, largest difference {difference:g}")

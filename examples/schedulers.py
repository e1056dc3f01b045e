"""Learning-rate schedulers of torch.optim over both learning rates of MuonAdamW, without a framework.

    python examples/schedulers.py                 # seconds

MuonAdamW is one optimizer with two groups of parameters, so one scheduler turns both learning rates; OneCycleLR and
CyclicLR turn the momentum of Muon and the first beta of AdamW as well. The task is made up: two spirals to tell apart.
"""

import argparse
import math
from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import lr_scheduler

from muonlab import MuonAdamW

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--steps", type=int, default=300)
parser.add_argument("--width", type=int, default=64)
parser.add_argument("--lr", type=float, default=0.02, help="largest learning rate of Muon")
parser.add_argument("--adamw-lr", type=float, default=3e-3, help="largest learning rate of AdamW")
args = parser.parse_args()

# ---------------------------------------------------------------------------------------------- data, model, training


def spirals(num: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return points in the plane, (num, 2), and which of two spirals each lies on, (num,)."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(2, (num,), generator=generator)
    angles = 0.5 + 9 * torch.rand(num, generator=generator)
    turned = angles + math.pi * labels
    points = torch.stack([turned.cos(), turned.sin()], dim=1) * angles[:, None] / 9.5
    return points + 0.02 * torch.randn(num, 2, generator=generator), labels


def build() -> tuple[nn.Module, MuonAdamW]:
    """Return a fresh net and its optimizer; the last layer is called head, so that AdamW takes it."""
    torch.manual_seed(0)
    first, hidden, head = nn.Linear(2, args.width), nn.Linear(args.width, args.width), nn.Linear(args.width, 2)
    net = nn.Sequential(OrderedDict(first=first, relu1=nn.ReLU(), hidden=hidden, relu2=nn.ReLU(), head=head))
    return net, MuonAdamW(net, lr=args.lr, adamw_lr=args.adamw_lr)


def train(net: nn.Module, optimizer: MuonAdamW, scheduler: lr_scheduler.LRScheduler) -> float:
    """Train, print what the groups hold at some steps, and return the accuracy on new points."""
    print(f"\n{type(scheduler).__name__}\n  step     loss   lr of Muon  momentum   lr of AdamW   beta1")
    for step in range(args.steps):
        points, labels = spirals(256, seed=step)
        loss = F.cross_entropy(net(points), labels)
        loss.backward()
        optimizer.step()
        if step % max(1, args.steps // 6) == 0 or step == args.steps - 1:
            muon, adamw = optimizer.param_groups
            print(
                f"  {step:4d}  {loss.item():7.4f}   {muon['lr']:.6f}    {muon['momentum']:.4f}"
                f"     {adamw['lr']:.6f}     {adamw['betas'][0]:.4f}"
            )
        scheduler.step()  # after the optimizer's
        optimizer.zero_grad()
    points, labels = spirals(1000, seed=10**6)
    accuracy = (net(points).argmax(dim=1) == labels).float().mean().item()
    print(f"  accuracy on new points: {accuracy:.3f}")
    return accuracy


# --------------------------------------------------------------------------------------------------- what a group holds

net, optimizer = build()
print("The groups, without the parameters themselves:")
for group in optimizer.param_groups:
    kept = ("rule", "param_names", "lr", "weight_decay", "momentum" if group["rule"] == "muon" else "betas")
    print(" ", {name: group[name] for name in kept})

# ------------------------------------------------------ one cycle: learning rates up and down, momentum down and up

# A list has a value for each group, Muon's first. What is cycled is betas[0], which in Muon's group is the momentum.
one_cycle = lr_scheduler.OneCycleLR(
    optimizer,
    max_lr=[args.lr, args.adamw_lr],
    base_momentum=[0.85, 0.8],
    max_momentum=[0.95, 0.9],
    total_steps=args.steps,
)
train(net, optimizer, one_cycle)

# ---------------------------------------------------------------------------------------------- warm-up, then a cosine

net, optimizer = build()
warmup = max(1, args.steps // 10)
sequence = lr_scheduler.SequentialLR(
    optimizer,
    [
        lr_scheduler.LinearLR(optimizer, start_factor=0.1, total_iters=warmup),
        lr_scheduler.CosineAnnealingLR(optimizer, T_max=args.steps - warmup),
    ],
    milestones=[warmup],
)
train(net, optimizer, sequence)

# ------------------------------------------------------------ each learning rate its own schedule: one function a group

net, optimizer = build()
trapezoid = [
    lambda step: min(1.0, 4 * (1 - step / args.steps)),  # Muon: constant, then down over the last quarter
    lambda step: min(1.0, (step + 1) / warmup),  # AdamW: up, then constant
]
train(net, optimizer, lr_scheduler.LambdaLR(optimizer, trapezoid))

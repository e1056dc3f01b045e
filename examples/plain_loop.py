"""Train a small GPT on Python's own documentation with MuonAdamW: a plain loop, top to bottom.

    python examples/plain_loop.py                     # a few minutes on a laptop
    python examples/plain_loop.py --steps 40 --width 32 --depth 1 --context 32 --batch 8    # seconds

What it shows: which parameter goes where, one schedule over two learning rates, gradient accumulation, clipping, and a
checkpoint from which the run goes on with the same losses. No downloads: the text comes with Python.
"""

import argparse
import math
import tempfile
from pathlib import Path
from pydoc_data.topics import topics

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from muonlab import MuonAdamW, split_params

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--steps", type=int, default=400, help="optimizer steps")
parser.add_argument("--accumulate", type=int, default=2, help="backward passes a step")
parser.add_argument("--batch", type=int, default=16, help="sequences a backward pass")
parser.add_argument("--context", type=int, default=128, help="characters a sequence")
parser.add_argument("--width", type=int, default=128)
parser.add_argument("--depth", type=int, default=4, help="blocks")
parser.add_argument("--heads", type=int, default=4)
parser.add_argument("--lr", type=float, default=0.02, help="of Muon: hidden matrices")
parser.add_argument("--adamw-lr", type=float, default=3e-3, help="of AdamW: embeddings, head, norms")
parser.add_argument("--weight-decay", type=float, default=0.01)
parser.add_argument("--warmup", type=float, default=0.05, help="share of the steps")
parser.add_argument("--clip", type=float, default=1.0, help="norm of all gradients together")
parser.add_argument("--repeat", type=int, default=5, help="last steps that are run again from the checkpoint")
parser.add_argument("--checkpoint", type=Path, default=Path(tempfile.gettempdir()) / "muonlab-plain-loop.pt")
args = parser.parse_args()

# ------------------------------------------------------------------------------------------------------------- the data

text = "\n".join(topics[name] for name in sorted(topics))
alphabet = sorted(set(text))
number = {character: index for index, character in enumerate(alphabet)}
tokens = torch.tensor([number[character] for character in text])
train, held_out = tokens[: len(tokens) * 9 // 10], tokens[len(tokens) * 9 // 10 :]


def batch(source: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Return inputs and targets, (B, T) each; a function of the seed, so that a resumed run sees the same ones."""
    starts = torch.randint(len(source) - args.context, (args.batch,), generator=torch.Generator().manual_seed(seed))
    rows = source[starts[:, None] + torch.arange(args.context + 1)]  # (B, T + 1)
    return rows[:, :-1], rows[:, 1:]


# ------------------------------------------------------------------------------------------------------------ the model


class Block(nn.Module):
    """Attention and a feed-forward layer, each beside a residual stream."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.RMSNorm(width), nn.RMSNorm(width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)  # three matrices in one: Muon takes each alone
        self.proj = nn.Linear(width, width, bias=False)
        self.up, self.down = nn.Linear(width, 4 * width, bias=False), nn.Linear(4 * width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:  # (B, T, D)
        """Return the stream after this block."""
        B, T, D = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(B, T, 3 * self.heads, -1).transpose(1, 2).chunk(3, dim=1)  # (B, H, T, d)
        x = x + self.proj(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(B, T, D))
        return x + self.down(F.relu(self.up(self.norm2(x))).square())


class GPT(nn.Module):
    """Characters in, the logits of the next character out."""

    def __init__(self, vocabulary: int, width: int, depth: int, heads: int, context: int):
        super().__init__()
        self.wte, self.wpe = nn.Embedding(vocabulary, width), nn.Embedding(context, width)
        self.blocks = nn.ModuleList([Block(width, heads) for _ in range(depth)])
        self.norm, self.lm_head = nn.RMSNorm(width), nn.Linear(width, vocabulary, bias=False)

    def forward(self, ids: Tensor) -> Tensor:  # (B, T) -> (B, T, V)
        """Return the logits."""
        x = self.wte(ids) + self.wpe(torch.arange(ids.shape[1]))
        for block in self.blocks:
            x = block(x)
        return self.lm_head(self.norm(x))


def loss_of(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    """Return the mean cross-entropy of the next character, in nats."""
    return F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())


# --------------------------------------------------------------------------------------------- optimizer and schedule


def share_of_lr(step: int) -> float:
    """Return what both learning rates are multiplied by: up in a line, down along a cosine to a tenth."""
    warmup = max(1, round(args.warmup * args.steps))
    if step < warmup:
        return (step + 1) / warmup
    return 0.55 + 0.45 * math.cos(math.pi * min(1.0, (step - warmup) / max(1, args.steps - warmup)))


def build(seed: int) -> tuple[GPT, MuonAdamW, torch.optim.lr_scheduler.LambdaLR]:
    """Return a fresh model with its optimizer and schedule."""
    torch.manual_seed(seed)
    model = GPT(len(alphabet), args.width, args.depth, args.heads, args.context)
    optimizer = MuonAdamW(model, lr=args.lr, adamw_lr=args.adamw_lr, weight_decay=args.weight_decay)
    return model, optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, share_of_lr)


# ------------------------------------------------------------------------------------------------------------- the loop


def run(model: GPT, optimizer: MuonAdamW, schedule: torch.optim.lr_scheduler.LambdaLR, first: int) -> list[float]:
    """Train from step `first` to the last; return the loss of each step."""
    losses = []
    for step in range(first, args.steps):
        if step == args.steps - args.repeat and first == 0:
            state = {"model": model, "optimizer": optimizer, "schedule": schedule}
            torch.save({name: part.state_dict() for name, part in state.items()} | {"step": step}, args.checkpoint)
        total = 0.0
        for part in range(args.accumulate):
            loss = loss_of(model, *batch(train, seed=step * args.accumulate + part)) / args.accumulate
            loss.backward()
            total += loss.item()
        norm = nn.utils.clip_grad_norm_(model.parameters(), args.clip)
        optimizer.step()
        lrs = schedule.get_last_lr()
        schedule.step()
        optimizer.zero_grad()
        losses.append(total)
        if step % max(1, args.steps // 20) == 0 or step == args.steps - 1:
            print(f"step {step:4d}  loss {total:.4f}  |g| {norm:.2f}  lr of Muon {lrs[0]:.5f}, of AdamW {lrs[1]:.6f}")
    return losses


@torch.no_grad()
def held_out_loss(model: GPT) -> float:
    """Return the loss on text that was not trained on, over a few batches."""
    return sum(loss_of(model, *batch(held_out, seed=seed)).item() for seed in range(8)) / 8


model, optimizer, schedule = build(seed=0)
print(split_params(model), end="\n\n")
before = held_out_loss(model)
losses = run(model, optimizer, schedule, first=0)
print(f"held-out loss: {before:.4f} before, {held_out_loss(model):.4f} after {args.steps} steps")

# ------------------------------------------------------------------------------- from the checkpoint: the same losses

model, optimizer, schedule = build(seed=1)  # another start, which the checkpoint replaces
saved = torch.load(args.checkpoint, weights_only=True)
model.load_state_dict(saved["model"])
optimizer.load_state_dict(saved["optimizer"])
schedule.load_state_dict(saved["schedule"])
again = run(model, optimizer, schedule, first=saved["step"])
difference = max(abs(a - b) for a, b in zip(again, losses[saved["step"] :], strict=True))
print(f"resumed at step {saved['step']}: {len(again)} losses, largest difference {difference:g}")

"""Train a small vision transformer of timm with MuonAdamW and timm's own schedule, and resume.

    pip install timm            # brings torchvision, which must fit your torch
    python examples/timm_vit.py                # seconds, on scikit-learn's digits

timm's create_optimizer_v2 knows its own optimizers alone: make MuonAdamW of the model instead. timm's schedulers take
it as any optimizer.
"""

import argparse
import sys
import tempfile

import torch
import torch.nn.functional as F
from torch import Tensor

from muonlab import MuonAdamW, split_params

try:
    import timm
    from sklearn.datasets import load_digits
    from timm.scheduler import CosineLRScheduler
except (ImportError, RuntimeError) as error:  # timm needs torchvision, which may be there and yet not fit torch
    print(f"skipped: {error}; pip install timm scikit-learn")
    sys.exit(0)

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--steps", type=int, default=60, help="the checkpoint is at half of them")
parser.add_argument("--batch", type=int, default=64)
parser.add_argument("--width", type=int, default=48)
parser.add_argument("--depth", type=int, default=2)
args = parser.parse_args()

pixels, digits = load_digits(return_X_y=True)
images = torch.tensor(pixels, dtype=torch.float32).view(-1, 1, 8, 8) / 8 - 1
labels = torch.tensor(digits)


def build(seed: int):
    """Return a fresh model, its optimizer and schedule."""
    torch.manual_seed(seed)
    sizes = {"embed_dim": args.width, "depth": args.depth, "num_heads": 3}
    model = timm.create_model("vit_tiny_patch16_224", img_size=8, patch_size=2, in_chans=1, num_classes=10, **sizes)
    # No decay for norms, biases, the class token and the position embedding, as timm has it
    overrides = {"vector": {"weight_decay": 0.0}, "embedding": {"weight_decay": 0.0}}
    optimizer = MuonAdamW(model, lr=0.02, adamw_lr=3e-3, overrides=overrides)
    schedule = CosineLRScheduler(
        optimizer, t_initial=args.steps, warmup_t=args.steps // 10, warmup_lr_init=1e-4, t_in_epochs=False
    )
    return model, optimizer, schedule


def batch(seed: int) -> tuple[Tensor, Tensor]:
    """Return images, (B, 1, 8, 8), and labels, (B,)."""
    rows = torch.randint(len(labels), (args.batch,), generator=torch.Generator().manual_seed(seed))
    return images[rows], labels[rows]


def train(model, optimizer, schedule, steps: range) -> list[float]:
    """Return the loss at each step."""
    losses = []
    for step in steps:
        x, y = batch(seed=step)
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step_update(step + 1)
        losses.append(loss.item())
    return losses


half = args.steps // 2
model, optimizer, schedule = build(seed=0)
print(split_params(model), end="\n\n")
losses = train(model, optimizer, schedule, range(half))
with tempfile.TemporaryFile() as file:
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, file)
    losses += train(model, optimizer, schedule, range(half, args.steps))
    print(f"loss {losses[0]:.4f} -> {losses[-1]:.4f} in {args.steps} steps")

    # ------------------------------------------------------------- resume: another start, which the checkpoint replaces

    file.seek(0)
    saved = torch.load(file, weights_only=True)
    model, optimizer, schedule = build(seed=1)
    model.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    again = train(model, optimizer, schedule, range(half, args.steps))
    difference = max(abs(a - b) for a, b in zip(again, losses[half:], strict=True))
    print(f"resumed at step {half}: {len(again)} losses, largest difference {difference:g}")

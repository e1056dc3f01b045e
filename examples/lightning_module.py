"""Train a LightningModule with MuonAdamW, stop at half, and resume with the same result.

    pip install lightning
    python examples/lightning_module.py         # seconds

MuonAdamW is one optimizer, so Lightning's automatic optimization works: clipping, accumulation, precision, schedules
and checkpoints need no code.
"""

import argparse
import importlib.util
import sys
import tempfile
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from muonlab import MuonAdamW, split_params

if importlib.util.find_spec("lightning") is None:
    print("skipped: lightning not found; pip install lightning")
    sys.exit(0)
import lightning

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--epochs", type=int, default=4, help="resumed after half of them")
parser.add_argument("--steps", type=int, default=25, help="of an epoch")
parser.add_argument("--batch", type=int, default=64)
parser.add_argument("--width", type=int, default=64)
args = parser.parse_args()


class Classifier(lightning.LightningModule):
    """A network of two hidden layers, its loss and its optimizer."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(8, args.width), nn.ReLU(), nn.Linear(args.width, args.width), nn.ReLU())
        self.head = nn.Linear(args.width, 4)
        self.losses = []

    def training_step(self, batch, index):
        """Return the loss of a batch."""
        x, y = batch
        loss = F.cross_entropy(self.head(self.body(x)), y)
        self.losses.append(loss.item())
        return loss

    def configure_optimizers(self):
        """Return MuonAdamW and a schedule that turns both of its learning rates at every step."""
        optimizer = MuonAdamW(self, lr=0.02, adamw_lr=3e-3)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=args.epochs * args.steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


points = torch.randn(args.steps * args.batch, 8, generator=torch.Generator().manual_seed(0))
labels = (points[:, 0] > 0).long() + 2 * (points[:, 1] * points[:, 2] > 0).long()  # four classes
data = TensorDataset(points, labels)


def fit(seed: int, folder: str, resume: Path | None = None) -> Classifier:
    """Train, from a checkpoint if there is one; a checkpoint is written after every epoch."""
    lightning.seed_everything(seed, verbose=False)
    model = Classifier()
    keep = lightning.pytorch.callbacks.ModelCheckpoint(folder, "{epoch}", save_top_k=-1)
    trainer = lightning.Trainer(
        max_epochs=args.epochs,
        gradient_clip_val=1.0,
        callbacks=[keep],
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, DataLoader(data, batch_size=args.batch), ckpt_path=resume)
    return model


with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
    model = fit(0, first)
    print(split_params(model), end="\n\n")
    print(f"loss {model.losses[0]:.4f} -> {model.losses[-1]:.4f} in {len(model.losses)} steps")
    half = args.epochs // 2 * args.steps
    # Another start, which the checkpoint replaces; the first epoch is epoch 0.
    resumed = fit(1, second, resume=Path(first) / f"epoch={args.epochs // 2 - 1}.ckpt")
    difference = max(abs(a - b) for a, b in zip(resumed.losses, model.losses[half:], strict=True))
    print(f"resumed at step {half}: {len(resumed.losses)} losses, largest difference {difference:g}")

"""A plain training script for `muonlab compare command=...`: an MLP on scikit-learn's digits.

muonlab compare command="python train.py --optimizer {optimizer} --lr {lr} --wd {weight_decay} --seed {seed}
  --steps {steps} --out {run}" metric=val_loss "log={run}/metrics.jsonl" accuracy=val_accuracy steps=200 trials=8

It knows nothing of muonlab but the optimizer, and writes a line of JSON per evaluation.
"""

import argparse
import json
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from muonlab import MuonAdamW


def main() -> None:
    """Train once, with the settings of the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--optimizer", choices=("adamw", "muon"), required=True)
    parser.add_argument("--lr", type=float, required=True)
    parser.add_argument("--wd", type=float, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--out", type=Path, default=Path("out"))
    asked = parser.parse_args()

    inputs, targets = load_digits(return_X_y=True)
    data = TensorDataset(torch.tensor(inputs, dtype=torch.float32) / 16, torch.tensor(targets))
    train, validation = torch.utils.data.random_split(data, [1397, 400], torch.Generator().manual_seed(0))
    torch.manual_seed(asked.seed)
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    if asked.optimizer == "muon":
        optimizer = MuonAdamW(
            model, lr=asked.lr, adamw_lr=asked.lr, weight_decay=asked.wd, adjust_lr_fn="match_rms_adamw"
        )
    else:
        optimizer = torch.optim.AdamW(model.parameters(), lr=asked.lr, weight_decay=asked.wd)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, asked.steps)

    asked.out.mkdir(parents=True, exist_ok=True)
    step = 0
    with (asked.out / "metrics.jsonl").open("w") as log:
        while step < asked.steps:
            for x, y in DataLoader(train, 64, shuffle=True, drop_last=True):
                loss = nn.functional.cross_entropy(model(x), y)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                step += 1
                if step % 20 == 0 or step == asked.steps:
                    log.write(json.dumps({"step": step, **evaluate(model, validation)}) + "\n")
                    log.flush()
                if step == asked.steps:
                    break


@torch.no_grad()
def evaluate(model: nn.Module, validation: torch.utils.data.Dataset) -> dict[str, float]:
    """Return loss and accuracy on the validation set."""
    x, y = next(iter(DataLoader(validation, 400)))
    outputs = model(x)
    accuracy = (outputs.argmax(1) == y).float().mean()
    return {"val_loss": nn.functional.cross_entropy(outputs, y).item(), "val_accuracy": accuracy.item()}


if __name__ == "__main__":
    main()

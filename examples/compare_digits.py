"""A task of your own for `muonlab compare`: an MLP on scikit-learn's digits.

muonlab compare examples/compare_digits.py:task trials=8 steps=200
python examples/compare_digits.py
"""

import sys

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import muonlab


def task(seed):
    """Return the model, the parts of the data and the loss of a seed; here the split is the same for all."""
    inputs, targets = load_digits(return_X_y=True)
    data = TensorDataset(torch.tensor(inputs, dtype=torch.float32) / 16, torch.tensor(targets))
    split = torch.Generator().manual_seed(0)
    train, validation, test = torch.utils.data.random_split(data, [1000, 400, 397], split)
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    loader = DataLoader(train, batch_size=64, shuffle=True, drop_last=True)
    return model, loader, validation, nn.functional.cross_entropy, test


if __name__ == "__main__":  # worker processes import this file
    optimizers = {"AdamW": torch.optim.AdamW, "Muon": muonlab.MuonAdamW}
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    found = muonlab.compare(task, optimizers, trials=8, seeds=5, steps=steps, out="runs/compare-digits")
    print(found.verdict.sentence, *found.verdict.more, found.report, sep="\n")

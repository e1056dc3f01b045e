"""A LightningModule for `muonlab compare`: an MLP on scikit-learn's digits, trained by Lightning's own loop.

pip install 'muonlab[lab,lightning]'
muonlab compare examples/compare_lightning.py:task trials=8 steps=200 evaluations=5
"""

import lightning
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import TensorDataset


class Classifier(lightning.LightningModule):
    """A network with dropout, and what Lightning does with it."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Dropout(0.1), nn.Linear(64, 64), nn.ReLU())
        self.head = nn.Linear(64, 10)

    def step(self, batch, part):
        """Return the loss of a batch, and log it with the accuracy."""
        inputs, targets = batch
        outputs = self.head(self.net(inputs))
        loss = nn.functional.cross_entropy(outputs, targets)
        self.log_dict({f"{part}_loss": loss, f"{part}_acc": (outputs.argmax(1) == targets).float().mean()})
        return loss

    def training_step(self, batch, index):
        """Return what is minimised."""
        return self.step(batch, "train")

    def validation_step(self, batch, index):
        """Log val_loss, by which the comparison tunes and judges."""
        self.step(batch, "val")

    def test_step(self, batch, index):
        """Log test_loss, once at the end of each final run."""
        self.step(batch, "test")

    def configure_optimizers(self):
        """Return what is replaced by each optimizer that is compared."""
        return torch.optim.AdamW(self.parameters(), lr=1e-3)


def task(seed):
    """Return the module, its data, and the keywords of `lightning.Trainer`; here the split is the same for all."""
    inputs, targets = load_digits(return_X_y=True)
    data = TensorDataset(torch.tensor(inputs, dtype=torch.float32) / 16, torch.tensor(targets))
    split = torch.Generator().manual_seed(0)
    parts = torch.utils.data.random_split(data, [1000, 400, 397], split)
    data = lightning.LightningDataModule.from_datasets(*parts, batch_size=64)
    return {"model": Classifier(), "data": data, "trainer": {"gradient_clip_val": 1.0}}

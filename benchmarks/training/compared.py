"""Tasks as a user of `muonlab compare` would write them: a GPT on characters, an MLP, a CNN, a net with BatchNorm."""

from functools import cache

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from muonlab.data import library
from muonlab.nets.gpt import GPT
from muonlab.nets.resnet import ResNet

CONTEXT, VOCABULARY = 48, 128


@cache
def _windows() -> tuple[Tensor, Tensor]:
    text = "\n".join(library.sources(400_000).values()).encode("ascii", "ignore")
    ids = torch.tensor(list(text[: len(text) // CONTEXT * CONTEXT + 1]), dtype=torch.long)
    return ids[:-1].view(-1, CONTEXT), ids[1:].view(-1, CONTEXT)


@cache
def _digits() -> tuple[Tensor, Tensor]:
    inputs, targets = load_digits(return_X_y=True)
    return torch.tensor(inputs, dtype=torch.float32).view(-1, 1, 8, 8) / 16, torch.tensor(targets)


def _parts(data: tuple[Tensor, Tensor], batch: int) -> tuple[DataLoader, DataLoader]:
    held_out = min(512, len(data[0]) // 5)
    train, validation = (
        TensorDataset(*(each[cut] for each in data)) for cut in (slice(held_out, None), slice(held_out))
    )
    return DataLoader(train, batch, shuffle=True, drop_last=True), DataLoader(validation, 256)


def _of_text(logits: Tensor, targets: Tensor) -> Tensor:
    return nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())


def gpt(seed: int, width: int = 64):
    """A character GPT of two layers on sources of the standard library: 141,000 parameters, 768 tokens a step."""
    model = GPT(
        VOCABULARY, depth=2, width=width, heads=4, context=CONTEXT, norm="rms", positions="rope", feed_forward="swiglu",
        bias=False,
    )  # fmt: skip
    return model, *_parts(_windows(), 16), _of_text


def gpt32(seed: int):
    """The same of half the width."""
    return gpt(seed, 32)


def mlp(seed: int):
    """An MLP on digits."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    return model, *_parts(_digits(), 64), nn.functional.cross_entropy


def cnn(seed: int):
    """A small CNN on digits."""
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, padding=1, stride=2), nn.ReLU(),
        nn.Flatten(), nn.Linear(512, 10),
    )  # fmt: skip
    return model, *_parts(_digits(), 32), nn.functional.cross_entropy


def batchnorm(seed: int):
    """A residual net with BatchNorm on digits, which cannot be stacked."""
    return (
        ResNet(10, channels=1, image_size=8, width=16, depths=(1, 1, 1)),
        *_parts(_digits(), 32),
        nn.functional.cross_entropy,
    )

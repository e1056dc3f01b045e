"""The tasks that are built in: small nets that stack, on embedded data or on the user's own, without dropout."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from muonlab.data import algorithmic, images, numbers, text, tokens
from muonlab.data.dataset import DATA_SEED
from muonlab.data.image_dataset import ImageDataset
from muonlab.data.sources import DataError
from muonlab.data.text_datasets import HELD_OUT, TextDataset, cut
from muonlab.jobs.files import fingerprint
from muonlab.nets.gpt import GPT
from muonlab.nets.mlp import MLP
from muonlab.nets.resnet import ResNet
from muonlab.nets.vit import ViT
from muonlab.studies.compare.builtin import TASKS as KNOWN
from muonlab.studies.compare.config import BuiltIn
from muonlab.study.settings import UsageError

VALIDATION, TEST = 0.15, 0.25  # shares that are held out of images and tables
MOST = 512  # examples to validate on: an evaluation costs a few steps
Part = tuple[Tensor, Tensor]
Parts = Sequence[Part]  # train, validation and, if there is one, test
Given = tuple[Any, ...]  # (model, train, validation, loss[, test])


@dataclass(frozen=True)
class BuiltInTask:
    """A built-in task as the function of a seed that a user would have written."""

    config: BuiltIn

    @property
    def name(self) -> str:
        """As the user gave it."""
        return self.config.builtin

    def load(self, key: str) -> Callable[[int], Given]:
        """Return the function; it reads the data once.

        Args:
            key: the setting, for messages.

        Raises:
            UsageError: the data have changed since the study was asked for.
        """
        data, embedded = self.config.data, KNOWN[self.name].embedded
        if data.sha256 is None:
            if data.name != embedded:
                raise UsageError(f"{key}={self.name} was asked for on {data.name}, and here are {embedded}")
            return partial(TASKS[self.name], None)
        if fingerprint(Path(data.name).expanduser()) != data.sha256:
            raise UsageError(f"data={data.name} has changed since the study was asked for; give the same command again")
        return partial(TASKS[self.name], data.name)


def _given(model: nn.Module, parts: Parts, loss: Callable[[Tensor, Tensor], Tensor]) -> Given:
    train, (inputs, targets), *test = parts
    return (model, train, (inputs[:MOST], targets[:MOST]), loss, *test)


# -- images ----------------------------------------------------------------------------------------

SIDE = 32  # pixels that a user's images are stretched to


@cache
def _images(source: str | None) -> tuple[dict[str, Any], Parts]:
    found = images.load() if source is None else images.load(source, size=SIDE)
    data = ImageDataset(found, validation=VALIDATION, test_share=TEST)
    return dict(data.sizes), [data.train, data.validation, data.test]


def cnn(source: str | None, seed: int) -> Given:
    """Return a residual net with group norms."""
    sizes, parts = _images(source)
    return _given(ResNet(**sizes, width=8, depths=(1, 1), norm="group", groups=4), parts, F.cross_entropy)


def vit(source: str | None, seed: int) -> Given:
    """Return a Vision Transformer with 16 or 64 patches, of which the head reads the mean."""
    sizes, parts = _images(source)
    patch = max(2, sizes["image_size"] // 8)
    net = ViT(**sizes, patch=patch, depth=2, width=32, heads=2, pooling="mean")
    return _given(_as_torch_draws(net), parts, F.cross_entropy)


def _as_torch_draws(net: nn.Module) -> nn.Module:
    """Draw matrices and tables as torch does: GPT-2's deviation of .02 is for a width of 768, and slow in 32."""
    for module in net.modules():
        if isinstance(module, nn.Linear):
            nn.Linear.reset_parameters(module)
        elif isinstance(module, nn.Embedding):
            nn.Embedding.reset_parameters(module)
    return net


# -- text ------------------------------------------------------------------------------------------

CONTEXT = 32
EMBEDDED, LARGEST = 400_000, 10_000_000  # bytes of text


@cache
def _text(source: str | None) -> tuple[int, Parts]:
    found = text.language("sources", limit=EMBEDDED) if source is None else text.language(source, limit=LARGEST)
    fewest = round((CONTEXT + 2) / HELD_OUT)
    if len(found.text) < fewest:
        raise DataError(
            f"{source} has {len(found.text)} characters; expected at least {fewest}, a tenth of which is held out in "
            f"windows of {CONTEXT}"
        )
    encoder = tokens.build("characters", [cut(found.text, found.source)[0]])
    data = TextDataset(found, CONTEXT, encoder)
    test = data.test.first(4 * MOST)
    return encoder.vocabulary, [data.train, data.validation.first(MOST // 4), test]


def gpt(source: str | None, seed: int, width: int = 32, *, depth: int = 2, heads: int = 2) -> Given:
    """Return a GPT of characters."""
    vocabulary, parts = _text(source)
    how = {"norm": "rms", "positions": "rope", "tied": False}
    return _given(_as_torch_draws(GPT(vocabulary, depth=depth, width=width, heads=heads, **how)), parts, next_token)


def next_token(logits: Tensor, tokens: Tensor) -> Tensor:
    """Return the cross-entropy per example, (B, T, V) and (B, T) -> (B,)."""
    return F.cross_entropy(logits.flatten(0, 1), tokens.flatten(), reduction="none").view(tokens.shape).mean(1)


# -- tables and modular addition -------------------------------------------------------------------


@cache
def _table(source: str | None) -> tuple[int, Parts]:
    found = numbers.friedman() if source is None else numbers.read(source)
    return max(1, len(found.classes)), numbers.standardised(found, VALIDATION, TEST, DATA_SEED)


def mlp(source: str | None, seed: int) -> Given:
    """Return an MLP that classifies, or predicts a quantity."""
    outputs, parts = _table(source)
    net = MLP(parts[0][0].shape[1], outputs, depth=2, width=64)
    return _given(net, parts, F.cross_entropy if outputs > 1 else F.mse_loss)


MODULUS, TRAIN_SHARE = 31, 0.85


@cache
def _addition() -> Parts:
    whole = algorithmic.build("add", modulus=MODULUS, operator_token=False)
    rows = algorithmic.split(whole, TRAIN_SHARE, torch.Generator().manual_seed(DATA_SEED))
    return [(whole.inputs[own, :2], whole.labels[own]) for own in rows]


def modular(source: None, seed: int) -> Given:
    """Return the two layers with squares between of Gromov 2023 (arXiv 2301.02679), of smaller weights."""
    how = {"depth": 1, "width": 128, "activation": "square", "bias": False, "init_scale": 0.5}
    return _given(MLP(2, MODULUS, vocabulary=MODULUS, **how), _addition(), F.cross_entropy)


TASKS: dict[str, Callable[..., Given]] = {"cnn": cnn, "vit": vit, "gpt": gpt, "mlp": mlp, "modular": modular}

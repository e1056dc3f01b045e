"""What a comparison trains: a user's net, data and loss, made and checked."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from muonlab.data import images
from muonlab.losses import LOSSES
from muonlab.studies.compare.config import Trained
from muonlab.study import dotted
from muonlab.study.dotted import Dotted, one_line

DATA_SEED = 0  # of the split of a source that has none
VALIDATION, TEST = 0.15, 0.25  # shares that are held out of such a source
DATA = "three parts, train, validation and test, each a pair of inputs (N, ...) and class labels (N,)"

Part = tuple[Tensor, Tensor]  # inputs (N, ...) and labels (N,)


@dataclass(frozen=True)
class Material:
    """A net on data with a loss.

    Attributes:
        train, validation, test: the parts.
        classes: C, the largest label plus one.
        build: makes the net.
        loss: of logits (B, C) and labels (B,), per example (B,).
    """

    train: Part
    validation: Part
    test: Part
    classes: int
    build: Callable[[], nn.Module]
    loss: Callable[[Tensor, Tensor], Tensor]

    @property
    def chance(self) -> float:
        """Test accuracy of the best constant answer."""
        return self.test[1].bincount().max().item() / len(self.test[1])


def load(trained: Trained) -> Material:
    """Return what is trained.

    Raises:
        ValueError: data, net or loss that do not fit; the message says what was expected.
    """
    parts = _given(trained.data) if dotted.is_dotted(trained.data.name) else _images(trained.data)
    classes = max(int(labels.max()) for _, labels in parts) + 1
    build = _builder(trained.net, tuple(parts[0][0].shape[1:]), classes)
    material = Material(*parts, classes=classes, build=build, loss=_loss(trained.loss))
    _try(trained, material)
    return material


def _given(data: Dotted) -> list[Part]:
    where = f"data={data.name}"
    try:
        found = list(data.load("data")())
    except Exception as error:  # a user's function may raise anything
        raise ValueError(f"{where} raised {one_line(error)}; expected {DATA}") from error
    try:
        pairs = [(torch.as_tensor(inputs), torch.as_tensor(labels)) for inputs, labels in found]
    except Exception as error:
        raise ValueError(f"{where} returned what are not pairs ({one_line(error)}); expected {DATA}") from error
    if len(pairs) != 3:
        raise ValueError(f"{where} returned {len(pairs)} parts; expected {DATA}")
    for name, (inputs, labels) in zip(("train", "validation", "test"), pairs, strict=True):
        is_class = labels.ndim == 1 and not labels.is_floating_point() and labels.dtype != torch.bool
        if not is_class or len(labels) != len(inputs) or not len(labels) or labels.min() < 0:
            raise ValueError(
                f"{where}: {name} has inputs {tuple(inputs.shape)} and labels {tuple(labels.shape)} of "
                f"{labels.dtype}; expected as many whole-numbered labels from 0, (N,), as inputs, at least one"
            )
    return [(inputs.float() if inputs.is_floating_point() else inputs, labels.long()) for inputs, labels in pairs]


def _images(data: Dotted) -> list[Part]:
    """Return the parts of a source of images, standardised by the mean and deviation of the train part."""
    found = images.load(data.name)
    split = images.split(found, validation=VALIDATION, test=TEST, seed=DATA_SEED)
    pixels = found.images.float() / 255 if found.images.dtype == torch.uint8 else found.images.float()
    mean = pixels[split.train].mean((0, 2, 3), keepdim=True)
    deviation = pixels[split.train].std((0, 2, 3), keepdim=True).clamp(min=1e-3)
    inputs = (pixels - mean) / deviation
    return [(inputs[rows], found.labels[rows]) for rows in (split.train, split.validation, split.test)]


def _builder(net: Dotted, shape: tuple[int, ...], classes: int) -> Callable[[], nn.Module]:
    """Return what makes the net: the user's function, called with what it takes of the data's sizes."""
    where, function = f"net={net.name}", net.load("net")
    known = {"shape": shape, "classes": classes}
    given = {name: known[name] for name in dotted.arguments(function) if name in known}
    if missing := [name for name in dotted.needed(function) or () if name not in given]:
        raise ValueError(
            f"{where} needs {', '.join(missing)}; expected a function that is called with shape= (of one input), "
            "classes=, one of them or nothing"
        )

    def build() -> nn.Module:
        try:
            made = function(**given)
        except Exception as error:
            raise ValueError(f"{where} raised {one_line(error)} for {given}") from error
        if not isinstance(made, nn.Module):
            raise ValueError(f"{where} returned a {type(made).__name__}; expected a torch.nn.Module")
        return made

    return build


def _loss(loss: Dotted) -> Callable[[Tensor, Tensor], Tensor]:
    return loss.load("loss") if dotted.is_dotted(loss.name) else LOSSES[loss.name]


def _try(trained: Trained, material: Material) -> None:
    """Raise ValueError where the net does not read the data, or the loss not what the net returns."""
    inputs, labels = (each[:2] for each in material.train)
    with torch.random.fork_rng():
        net = material.build()
    try:
        logits: Any = net(inputs)
    except Exception as error:
        shape = tuple(inputs.shape[1:])
        raise ValueError(f"net={trained.net.name} does not read inputs of {shape}: {one_line(error)}") from error
    if not isinstance(logits, Tensor) or logits.shape != (len(inputs), material.classes):
        got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        expected = (len(inputs), material.classes)
        raise ValueError(f"net={trained.net.name} returned {got} for {len(inputs)} inputs; expected logits {expected}")
    try:
        losses: Any = material.loss(logits, labels)
    except Exception as error:
        raise ValueError(f"loss={trained.loss.name} raised {one_line(error)}") from error
    if not isinstance(losses, Tensor) or losses.shape != labels.shape:
        got = tuple(losses.shape) if isinstance(losses, Tensor) else type(losses).__name__
        raise ValueError(
            f"loss={trained.loss.name} returned {got} for {len(labels)} examples; expected a loss per example, "
            f"{tuple(labels.shape)}, such as with reduction='none'"
        )

"""What a comparison trains: a user's net, data and loss, made and checked."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from muonlab.data import images
from muonlab.data.dataset import SPLITS, Dataset, Examples, Tensors
from muonlab.data.image_dataset import ImageDataset
from muonlab.losses import LOSSES
from muonlab.studies.compare.config import NetAndData, Train
from muonlab.studies.compare.work.reading import EVALUATED
from muonlab.studies.work import own_nets
from muonlab.study import dotted
from muonlab.study.dotted import Dotted, one_line
from muonlab.study.settings import UsageError
from muonlab.train import engine, optimizers
from muonlab.train.batches import Orders
from muonlab.train.engine import Engine
from muonlab.train.seeds import generator, streams

VALIDATION, TEST = 0.15, 0.25  # shares that are held out of a source without parts of its own
DATA = "train, validation and test, each a pair of inputs (N, ...) and class labels (N,)"


@dataclass(frozen=True)
class Material:
    """A net on data with a loss.

    Attributes:
        trained: their names.
        data: what is learnt.
        classes: C, of the labels.
        build: makes the net.
        loss: of logits (B, C) and labels (B,), per example (B,).
    """

    trained: NetAndData
    data: Dataset
    classes: int
    build: Callable[[], nn.Module]
    loss: Callable[[Tensor, Tensor], Tensor]

    def members(
        self, optimizer: Any, points: Sequence[Mapping[str, float]], seeds: Sequence[int], job: Train, device: str
    ) -> tuple[Engine, "Draw", "Reader"]:
        """Return the members of a job, their batches, and what evaluates them."""
        own = streams({"net": self.trained.net.name, "data": self.trained.data.name}, seeds)
        inputs, labels = self.data.train
        orders = [_shuffled(len(labels), seed) if job.is_shuffled else torch.arange(len(labels)) for seed in own]
        draw = Draw(inputs, torch.stack([labels[rows] for rows in orders]), own, job.training.batch, device)
        with torch.random.fork_rng():
            net = self.build()
        treated = optimizers.of_config(net, optimizer, points)
        rows = self.data.train.first(engine.TRIAL_ROWS)
        trained, reason = engine.build(self.build, self.loss, treated, own, *rows, device=device)
        sizes = {
            "chance": self.data.test.chance,
            **{f"num_{split}": len(getattr(self.data, split).labels) for split in SPLITS},
            "num_classes": self.classes,
            "num_parameters": sum(p.numel() for p in net.parameters()),
        }
        return trained, draw, Reader(self.data, draw, job.training.batch, device, reason, sizes)


class Draw:
    """Batches of inputs (N, ...) and labels (S, N): each member has labels of its own."""

    def __init__(self, inputs: Tensor, labels: Tensor, seeds: Sequence[int], batch: int, device: str):
        self._inputs, self.labels = inputs.to(device), labels.to(device)
        self._orders = Orders(len(inputs), batch, seeds)

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        """Return the inputs (S, B, ...) and labels (S, B) of a step."""
        rows = self._orders(step).to(self.labels.device)  # (S, B)
        return self._inputs[rows], self.labels.gather(1, rows)

    def keep(self, members: Sequence[int]) -> None:
        """Drop all members but those, given by their positions."""
        self.labels = self.labels[list(members)]
        self._orders.keep(members)


class Reader:
    """What evaluates members on parts of the data, and why they train one after the other where they do."""

    def __init__(
        self, data: Dataset, draw: Draw, batch: int, device: str, reason: str | None, sizes: Mapping[str, Any]
    ):
        self._data, self._draw, self._batch, self._device = data, draw, batch, device
        self._parts = [[x.to(device) for x in part.first(EVALUATED)] for part in (data.train, data.validation)]
        self.reason, self.sizes = reason, dict(sizes)

    def evaluate(self, members: Engine, step: int) -> Tensor:
        """Return loss and accuracy on training and on validation data, (S, 4)."""
        (train, _), validation = self._parts
        own = self._draw.labels[:, : len(train)]
        return torch.cat([_scores(members, train, own), _scores(members, *validation)], dim=1)

    def test(self, members: Engine) -> Tensor:
        """Return loss and accuracy on the test set, (S, 2)."""
        return _scores(members, *(each.to(self._device) for each in self._data.test))

    def epoch(self, step: int) -> float:
        """Return the examples drawn in that many steps, divided by the number of examples."""
        return step * self._batch / len(self._data.train.labels)


def _scores(members: Engine, inputs: Tensor, labels: Tensor) -> Tensor:
    """Return mean loss and accuracy of every member, (S, 2) float64; labels are (S, N), or (N,) of all."""
    losses, hits = members.evaluate(inputs, labels.expand(len(members), -1))
    return torch.stack([losses.double().mean(dim=1), hits.double().mean(dim=1)], dim=1)


def _shuffled(number: int, stream: int) -> Tensor:
    return torch.randperm(number, generator=generator(stream, "labels"))


def load(trained: NetAndData) -> Material:
    """Return what is trained.

    Raises:
        ValueError: data, net or loss that do not fit; the message says what was expected.
    """
    name = trained.data.name
    data = (
        _given(trained.data)
        if dotted.is_dotted(name)
        else ImageDataset(images.load(name), validation=VALIDATION, test_share=TEST)
    )
    sizes = {**data.sizes, "shape": tuple(data.train.inputs.shape[1:])}
    loss = trained.loss.load("loss") if dotted.is_dotted(trained.loss.name) else LOSSES[trained.loss.name]
    build = partial(own_nets.build, trained.net, sizes, has_settings=False)
    material = Material(trained, data, sizes["classes"], build, loss)
    _try(trained, material)
    return material


def _given(data: Dotted) -> Dataset:
    where = f"data={data.name}"
    try:
        found = data.load("data")()
    except UsageError:
        raise
    except Exception as error:  # a user's function may raise anything
        raise ValueError(f"{where} raised {one_line(error)}; expected {DATA}") from error
    if all(hasattr(found, name) for name in (*SPLITS, "sizes")):
        return found
    if not isinstance(found, tuple | list):
        raise ValueError(f"{where} returned a {type(found).__name__}; expected {DATA}")
    if len(found) != len(SPLITS):
        raise ValueError(f"{where} returned {len(found)} parts; expected {DATA}")
    parts = []
    for name, part in zip(SPLITS, found, strict=True):
        try:
            inputs, labels = map(torch.as_tensor, part)
        except Exception as error:
            raise ValueError(
                f"{where}: {name} is not a pair of tensors ({one_line(error)}); expected {DATA}"
            ) from error
        if labels.ndim != 1 or labels.is_floating_point() or (labels < 0).any():
            kind = f"{tuple(labels.shape)} of {labels.dtype}"
            raise ValueError(f"{where}: {name} has labels {kind}; expected whole numbers from 0, one per example")
        if inputs.is_floating_point() and not inputs.isfinite().all():
            bad = int((~inputs.isfinite()).flatten(1).any(1).sum())
            raise ValueError(f"{where}: {name} has {bad} inputs with NaN or infinity; expected finite numbers")
        # Floats are numbers of any kind; whole numbers are token ids.
        parts.append(Examples(inputs.float() if inputs.is_floating_point() else inputs.long(), labels.long()))
    try:
        return Tensors(*parts)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _try(trained: NetAndData, material: Material) -> None:
    """Raise ValueError where the net does not read the data, or the loss not what the net returns."""
    inputs, labels = material.data.train.first(2)
    net_is, loss_is = f"net={trained.net.name}", f"loss={trained.loss.name}"
    with torch.random.fork_rng():
        net = material.build()
    try:
        logits: Any = net(inputs)
    except Exception as error:
        raise ValueError(f"{net_is} does not read inputs of {tuple(inputs.shape[1:])}: {one_line(error)}") from error
    expected = (len(inputs), material.classes)
    if not isinstance(logits, Tensor) or logits.shape != expected:
        raise ValueError(f"{net_is} returned {_shape(logits)} for {len(inputs)} inputs; expected logits {expected}")
    try:
        losses: Any = material.loss(logits, labels)
    except Exception as error:
        raise ValueError(f"{loss_is} raised {one_line(error)}") from error
    if not isinstance(losses, Tensor) or losses.shape != labels.shape:
        raise ValueError(
            f"{loss_is} returned {_shape(losses)} for {len(labels)} examples; expected a loss per example, "
            f"{tuple(labels.shape)}, such as with reduction='none'"
        )
    if not losses.requires_grad:
        raise ValueError(
            f"{loss_is} of {net_is} has no gradient; expected a net with parameters, and a loss that is computed from "
            "its logits without detach() or argmax()"
        )


def _shape(found: Any) -> Any:
    return tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__

"""A user's function `task(seed)`: what it returns, made into a net, batches and evaluations of every seed."""

import copy
import inspect
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from muonlab.data.sources import DataError
from muonlab.studies.compare.config import Train
from muonlab.studies.compare.work.builtin import BuiltInTask
from muonlab.study.dotted import Dotted, one_line
from muonlab.study.settings import UsageError
from muonlab.train import engine, optimizers
from muonlab.train.engine import Engine
from muonlab.train.seeds import forked

EXPECTED = (
    "(model, train, validation, loss), a dict or an object with these names and, if there is one, test: a "
    "torch.nn.Module; loaders, datasets or pairs of tensors (inputs, targets); and a function of outputs and targets; "
    "or a LightningModule with its LightningDataModule; or a transformers Trainer"
)
EVALUATED = 2048  # examples of a part, at most, per evaluation; the test set is read whole, in the end

Batch = tuple[Tensor, Tensor]
Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Given:
    """What a task returned for one seed.

    Attributes:
        model: the net with its initial weights.
        train, validation, test: what yields batches; test is None where there is none.
        loss: of outputs and targets: a scalar, or one number per example.
    """

    model: nn.Module
    train: Any
    validation: Any
    loss: Loss
    test: Any = None


class TaskMaterial:
    """A task, as jobs train it.

    Args:
        task: the user's function, or a built-in task.
        batch: examples per step, where the task gives datasets or tensors rather than loaders.
    """

    def __init__(self, task: Dotted | BuiltInTask, batch: int):
        self.where, self._function, self._batch = f"task={task.name}", task.load("task"), batch
        self._known: dict[int, Given] = {}

    def given(self, seed: int) -> Given:
        """Return what the task returns for a seed; it is called once per seed.

        Raises:
            ValueError: it raises, or returns something else.
        """
        if seed not in self._known:
            self._known[seed] = self.call(seed)
        return self._known[seed]

    def keep(self, seed: int, found: Any) -> None:
        """Take what the task has returned for a seed already; raise as `given`."""
        self._known[seed] = self._read(found)

    def call(self, seed: int) -> Given:
        """Call the task, with torch's global generators seeded by the seed."""
        return self._read(self.returned(seed))

    def returned(self, seed: int) -> Any:
        """Call the task as `call`, and return what it returns, whatever that is."""
        try:
            with forked(seed, "task"):
                return self._function(seed)
        except (DataError, UsageError):  # of a built-in task: what is wrong with the user's data
            raise
        except Exception as error:  # a user's function may raise anything
            raise ValueError(f"{self.where} raised {one_line(error)} for seed {seed}; expected {EXPECTED}") from error

    def _read(self, found: Any) -> Given:
        names = ("model", "train", "validation", "loss")
        if isinstance(found, tuple | list) and len(found) in (4, 5):
            fields = dict(zip((*names, "test"), found, strict=False))
        elif isinstance(found, Mapping):
            fields = {name: value for name, value in found.items() if name in (*names, "test")}
        else:
            fields = {name: getattr(found, name) for name in (*names, "test") if hasattr(found, name)}
        if missing := [name for name in names if name not in fields]:
            kind = (
                f"{len(found)} values"
                if isinstance(found, tuple | list)
                else f"a {type(found).__name__} without {', '.join(missing)}"
            )
            raise ValueError(f"{self.where} returned {kind}; expected {EXPECTED}")
        if not isinstance(fields["model"], nn.Module):
            kind = type(fields["model"]).__name__
            raise ValueError(f"{self.where} returned a {kind} as model; expected a torch.nn.Module")
        if not callable(fields["loss"]):
            kind = type(fields["loss"]).__name__
            raise ValueError(f"{self.where} returned a {kind} as loss; expected a function of outputs and targets")
        parts = {
            name: self._loader(name, fields[name], is_train=name == "train")
            for name in ("train", "validation", "test")
            if fields.get(name) is not None
        }
        return Given(**(dict(fields) | parts))

    def _loader(self, name: str, part: Any, *, is_train: bool) -> Any:
        """Return what yields batches of a part: a loader as it is, batches of a dataset or of tensors."""
        if isinstance(part, tuple | list) and len(part) == 2 and all(isinstance(each, Tensor) for each in part):
            part = torch.utils.data.TensorDataset(*part)
        if isinstance(part, Dataset) and not isinstance(part, torch.utils.data.IterableDataset):
            number = len(part)  # pyright: ignore[reportArgumentType]
            if number == 0:
                raise ValueError(f"{self.where}: {name} is empty; expected at least one example")
            batch = min(self._batch, number) if is_train else min(256, number)
            return DataLoader(part, batch, shuffle=is_train, drop_last=is_train)
        if isinstance(part, torch.utils.data.IterableDataset):
            raise ValueError(
                f"{self.where} returned a dataset without length as {name}; expected batches of it, such as "
                f"DataLoader({name}, {self._batch})"
            )
        if isinstance(part, Iterator):
            raise ValueError(
                f"{self.where} returned a {type(part).__name__} as {name}, which yields its batches once; expected a "
                "loader, a dataset, (inputs, targets), or a list of batches"
            )
        if not hasattr(part, "__iter__") or isinstance(part, Tensor):
            kind = type(part).__name__
            raise ValueError(
                f"{self.where} returned a {kind} as {name}; expected a loader, a dataset, or (inputs, targets)"
            )
        return part

    # -- what jobs ask for ---------------------------------------------------------------------------

    def build(self, seed: int = 0) -> nn.Module:
        """Return a net with the initial weights of a seed."""
        return copy.deepcopy(self.given(seed).model)

    @cached_property
    def loss(self) -> Loss:
        """Of outputs and targets."""
        return self.given(0).loss

    def members(
        self, optimizer: Any, points: Sequence[Mapping[str, float]], seeds: Sequence[int], job: Train, device: str
    ) -> tuple[Engine, "Loaders", "Reader"]:
        """Return the members of a job, their batches, and what evaluates them."""
        treated = optimizers.of_config(self.build(seeds[0]), optimizer, points)
        inputs, targets = next(self.batches(seeds[0], "train"))
        members, reason = engine.build(self.build, self.loss, treated, seeds, inputs, targets, device=device)
        draw = Loaders(self, seeds, device)
        return members, draw, Reader(self, draw, seeds[0], device, reason)

    def batches(self, seed: int, part: str, epoch: int = 0) -> Iterator[Batch]:
        """Yield the batches of a part for a seed in an epoch, whatever else draws random numbers meanwhile.

        Raises:
            ValueError: a batch is no pair of tensors, or there is none.
        """
        loader, where = getattr(self.given(seed), part), f"{self.where}: {part}"
        with forked(seed, f"{part} order", epoch):
            iterator = iter(loader)
        for number in itertools.count():
            # Augmentations draw, too: each batch has a stream of its own, so that a restart finds the same one.
            with forked(seed, f"{part} batch {epoch}", number):
                found = next(iterator, None)
            if found is None:
                if number == 0 and epoch:
                    raise ValueError(f"{where} yields its batches once; expected a loader, or a list of batches")
                if number == 0:
                    raise ValueError(f"{where} is empty; expected at least one batch")
                return
            yield _pair(found, where)

    def check(self) -> None:
        """Raise ValueError where a job could not do its work: one forward and backward pass on the first batch."""
        if self.takes_no_seed:
            raise ValueError(f"{self.where} takes no seed; expected a function task(seed) that returns {EXPECTED}")
        given = self.given(0)
        inputs, targets = next(self.batches(0, "train"))
        next(self.batches(0, "validation"))
        model = self.build(0)
        try:
            with forked(0, "trial"):
                outputs = model(inputs)
        except Exception as error:
            shape = tuple(inputs.shape)
            raise ValueError(f"{self.where}: the model does not read inputs {shape}: {one_line(error)}") from error
        try:
            loss: Any = given.loss(outputs, targets)
        except Exception as error:
            raise ValueError(f"{self.where}: the loss raised {one_line(error)}") from error
        if not isinstance(loss, Tensor) or loss.shape not in ((), targets.shape[:1]):
            got = tuple(loss.shape) if isinstance(loss, Tensor) else f"a {type(loss).__name__}"
            raise ValueError(
                f"{self.where}: the loss returned {got}; expected a scalar or one number per example, "
                f"{tuple(targets.shape[:1])}"
            )
        if not loss.requires_grad:
            raise ValueError(f"{self.where}: the loss has no gradient; compute it from the model's outputs with torch")
        if not torch.isfinite(loss).all():
            raise ValueError(
                f"{self.where}: the loss of the first batch is {loss.mean().item()}; check the data for NaN"
            )
        if inputs.is_floating_point() and (other := {p.dtype for p in model.parameters()} - {torch.float32}):
            raise ValueError(
                f"{self.where}: the model has {_dtype(min(other, key=str))} parameters; expected float32, and inputs "
                "to match"
            )
        self._check_evaluation(model)
        self._check_repeats(given, inputs)
        self._check_sizes((inputs, targets))

    def _check_evaluation(self, model: nn.Module) -> None:
        """Raise ValueError where the model or the loss do not read the validation or the test data."""
        judge = _judge(self.loss)
        model.eval()
        for part in ("validation", "test"):
            if getattr(self.given(0), part) is None:
                continue
            inputs, targets = next(self.batches(0, part))
            try:
                with torch.no_grad(), forked(0, "trial"):
                    value = judge(model(inputs), targets)[0]
            except Exception as error:
                shapes = f"inputs {tuple(inputs.shape)} and targets {tuple(targets.shape)}"
                raise ValueError(
                    f"{self.where}: model and loss do not read a batch of {part}, {shapes}: {one_line(error)}"
                ) from error
            if not torch.isfinite(value):
                raise ValueError(
                    f"{self.where}: the loss of the first batch of {part} is {value.item()}; check the data for NaN"
                )

    def _check_sizes(self, first: Batch) -> None:
        """Raise ValueError where the first batches of two seeds differ in shape: runs of several seeds share steps."""
        sizes = [[tuple(each.shape) for each in pair] for pair in (first, next(self.batches(1, "train")))]
        if sizes[0] != sizes[1]:
            raise ValueError(
                f"{self.where}: the first training batch has inputs {sizes[0][0]} for seed 0 and {sizes[1][0]} for "
                "seed 1; expected batches of one size for all seeds, such as by drop_last=True and one padded length"
            )

    @property
    def takes_no_seed(self) -> bool:
        """Whether the function cannot be called with a seed."""
        try:
            inspect.signature(self._function).bind(0)
        except TypeError:
            return True
        except ValueError:  # no signature to ask
            return False
        return False

    def _check_repeats(self, given: Given, inputs: Tensor) -> None:
        """Raise ValueError where a second call differs: runs of one seed would not start from the same weights."""
        again = self.call(0)
        pairs = zip(given.model.state_dict().values(), again.model.state_dict().values(), strict=False)
        if not all(torch.equal(a, b) for a, b in pairs):
            raise ValueError(
                f"{self.where}: two calls with seed 0 return models with other weights, so optimizers could not be "
                "compared from the same start; draw random numbers from torch, or from generators seeded with the seed"
            )
        self._known[0] = again
        if not torch.equal(next(self.batches(0, "train"))[0], inputs):
            raise ValueError(
                f"{self.where}: two calls with seed 0 return other training batches; draw random numbers from torch, "
                "or from generators seeded with the seed"
            )


class Loaders:
    """The batches of every member in a step: members of one seed share their loader's, epoch after epoch."""

    def __init__(self, material: TaskMaterial, seeds: Sequence[int], device: str):
        self._material, self._seeds, self._device = material, list(seeds), device
        self._streams: dict[int, tuple[int, Iterator[Batch]]] = {}  # seed -> next step, its batches from there
        self._last: tuple[int, dict[int, Batch]] | None = None  # the step that was drawn last, as it may be asked again

    def __call__(self, step: int) -> Batch:
        """Return the inputs (S, B, ...) and targets (S, B, ...) of a step."""
        if self._last is None or self._last[0] != step:
            self._last = step, {seed: self._of_seed(seed, step) for seed in dict.fromkeys(self._seeds)}
        own = [self._last[1][seed] for seed in self._seeds]
        if len(sizes := {tuple(tuple(each.shape) for each in pair) for pair in own}) > 1:
            (one, _), (other, _), *_ = sorted(sizes)
            raise ValueError(
                f"{self._material.where}: in step {step + 1} the training batches of two seeds have inputs {one} and "
                f"{other}; expected batches of one size for all seeds, such as by drop_last=True and one padded length"
            )
        return _stacked(own, self._device)

    @property
    def seeds(self) -> list[int]:
        """The seed of each member that is left."""
        return self._seeds

    def _of_seed(self, seed: int, step: int) -> Batch:
        at, stream = self._streams.get(seed, (0, self._endless(seed)))
        if at > step:
            at, stream = 0, self._endless(seed)
        *_, found = itertools.islice(stream, step - at + 1)  # a restart reads on to where it stopped
        self._streams[seed] = step + 1, stream
        return found

    def _endless(self, seed: int) -> Iterator[Batch]:
        for epoch in itertools.count():
            yield from self._material.batches(seed, "train", epoch)

    def keep(self, members: Sequence[int]) -> None:
        """Drop all members but those, given by their positions."""
        self._seeds = [self._seeds[member] for member in members]


class Reader:
    """What evaluates members, and why they train one after the other where they do.

    Args:
        material: the task.
        draw: the members' batches.
        seed: whose validation and test data all members are evaluated on, unless those of their seeds differ.
        device: where the members live.
        reason: why they train one after the other.
    """

    def __init__(self, material: TaskMaterial, draw: Loaders, seed: int, device: str, reason: str | None):
        self._material, self._draw, self._seed, self._device, self.reason = material, draw, seed, device, reason
        self._judge, self._shared = _judge(material.loss), dict[str, bool]()
        given = material.given(seed)
        parts = {name: getattr(given, name) for name in ("train", "validation", "test")}
        self.sizes: dict[str, Any] = {
            "chance": None,
            **{f"num_{name}": number for name, part in parts.items() if (number := _number(part)) is not None},
            "num_parameters": sum(p.numel() for p in given.model.parameters()),
        }
        try:
            self._per_epoch = max(1, len(given.train))
        except TypeError:  # a loader without an end
            self._per_epoch = None

    def evaluate(self, members: Engine, step: int) -> Tensor:
        """Return loss and accuracy on the batch of a step and on validation data, (S, 4)."""
        own = members.measure(self._judge, *self._draw(step), by_member=True).double()
        return torch.cat([own, self._mean(members, "validation", EVALUATED)], dim=1)

    def test(self, members: Engine) -> Tensor:
        """Return loss and accuracy on the test data, (S, 2); NaN where the task has none."""
        if self._material.given(self._seed).test is None:
            return torch.full((len(members), 2), torch.nan)
        return self._mean(members, "test", None)

    def epoch(self, step: int) -> float:
        """Return the passes through the training data in that many steps; 0 where its loader has no end."""
        return step / self._per_epoch if self._per_epoch else 0.0

    def _is_shared(self, part: str) -> bool:
        """Return whether the data of a part are the same for all seeds, by their first batches."""
        if part not in self._shared:
            first, *others = (next(self._material.batches(seed, part)) for seed in dict.fromkeys(self._draw.seeds))
            self._shared[part] = all(
                mine.shape == own.shape and bool(((mine == own) | (mine != mine)).all())
                for pair in others
                for mine, own in zip(first, pair, strict=True)
            )
        return self._shared[part]

    def _mean(self, members: Engine, part: str, most: int | None) -> Tensor:
        """Return mean loss and accuracy over batches up to `most` examples, (S, 2) float64."""
        if not self._is_shared(part):
            return self._mean_by_seed(members, part, most)
        total, number = torch.zeros(len(members), 2, dtype=torch.float64, device=self._device), 0
        for inputs, targets in self._material.batches(self._seed, part):
            found = members.measure(self._judge, inputs.to(self._device), targets.to(self._device))  # (S, 2)
            total += found.double() * len(targets)
            number += len(targets)
            if most is not None and number >= most:
                break
        return total / number

    def _mean_by_seed(self, members: Engine, part: str, most: int | None) -> Tensor:
        """Return the same where a task splits its data by seed: no member is evaluated on what it was trained on."""
        seeds = torch.tensor(self._draw.seeds, device=self._device)
        total = torch.zeros(len(members), 2, dtype=torch.float64, device=self._device)
        number = dict.fromkeys(self._draw.seeds, 0)
        streams = {seed: self._material.batches(seed, part) for seed in number}
        while streams:
            found = {seed: pair for seed, stream in streams.items() if (pair := next(stream, None)) is not None}
            streams = {seed: streams[seed] for seed in found}
            sizes = {tuple(each.shape for each in pair) for pair in found.values()}
            if len(sizes) == 1 and len(found) == len(number):
                own = _stacked([found[seed] for seed in self._draw.seeds], self._device)
                total += members.measure(self._judge, *own, by_member=True).double() * own[1].shape[1]
            else:
                for seed, pair in found.items():
                    of_all = members.measure(self._judge, *(each.to(self._device) for each in pair))
                    total += torch.where((seeds == seed)[:, None], of_all.double() * len(pair[1]), 0.0)
            for seed, (_, targets) in found.items():
                number[seed] += len(targets)
                if most is not None and number[seed] >= most:
                    del streams[seed]
        return total / torch.tensor([number[seed] for seed in self._draw.seeds], device=self._device)[:, None]


def _pair(found: Any, where: str) -> Batch:
    if isinstance(found, tuple | list) and len(found) == 2 and all(isinstance(each, Tensor) for each in found):
        return found[0], found[1]
    shape = f"a {type(found).__name__}"
    if isinstance(found, tuple | list):
        shape += f" ({', '.join(type(each).__name__ for each in found[:4])}{', ...' if len(found) > 4 else ''})"
    raise ValueError(f"{where} yields {shape}; expected batches (inputs, targets), both tensors")


def _stacked(pairs: Sequence[Batch], device: str) -> Batch:
    inputs, targets = (torch.stack([pair[k] for pair in pairs]).to(device) for k in (0, 1))
    return inputs, targets


def _dtype(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _judge(loss: Loss) -> Callable[[Tensor, Tensor], Tensor]:
    """Return a function of outputs and targets to mean loss and accuracy, (2,)."""

    def judge(outputs: Tensor, targets: Tensor) -> Tensor:
        value = loss(outputs, targets).mean()
        is_classes = not targets.is_floating_point() and outputs.shape[:-1] == targets.shape
        hits = (outputs.argmax(-1) == targets).to(value.dtype) if is_classes else torch.full_like(value, torch.nan)
        return torch.stack([value, hits.mean()])

    return judge


def _number(part: Any) -> int | None:
    """Return the examples of a part, or None where it does not say."""
    try:
        return len(part.dataset)
    except (AttributeError, TypeError):
        return None

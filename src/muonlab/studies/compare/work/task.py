"""A user's function `task(seed)`: what it returns, made into a net, batches and evaluations of every seed."""

import contextlib
import copy
import inspect
import itertools
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader, Dataset

from muonlab.data.sources import DataError
from muonlab.studies.compare.config import Train
from muonlab.studies.compare.work.builtin import BuiltInTask
from muonlab.studies.compare.work.reading import EVALUATED, Batch, Loaders, Loss, Reader
from muonlab.study.dotted import Dotted, one_line
from muonlab.study.settings import UsageError
from muonlab.train import engine, optimizers
from muonlab.train.engine import Engine
from muonlab.train.seeds import forked
from muonlab.train.sequential import Sequential

EXPECTED = (
    "(model, train, validation, loss), a dict or an object with these names and, if there is one, test: a "
    "torch.nn.Module; loaders, datasets or pairs of tensors (inputs, targets); and a function of outputs and targets; "
    "or a LightningModule with its LightningDataModule; or a transformers Trainer"
)
COMPARED = {"train": 2, "validation": 1}  # batches of a part that two calls with one seed must have in common
RAISED = (Exception, SystemExit)  # by a user's function: anything but Ctrl-C

HARMLESS = 0.5  # an output that any loss takes, be it a probability or a logit
OWN_LOSSES = (
    "The loss differs between seeds, and a stack has one for all members. So its members train one after the other, "
    "which makes small nets many times slower."
)


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


class _Pairs(TorchDispatchMode):
    """Sees whether an operation takes (B, 1) with (B,) floats to (B, B), which is hardly ever meant."""

    found = False

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        shapes = [each.shape for each in args if isinstance(each, Tensor) and each.is_floating_point()]
        if len(shapes) == 2 and isinstance(result, Tensor) and result.ndim == 2 and len(result) > 1:
            self.found |= {*shapes} == {(len(result),), (len(result), 1)}
        return result


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
        except RAISED as error:
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
                else "None"
                if found is None
                else f"an object of {type(found).__name__} without {', '.join(missing)}"
            )
            raise ValueError(f"{self.where} returned {kind}; expected {EXPECTED}")
        # What torch.compile has wrapped: muonlab compiles all runs as one program, where that pays.
        fields["model"] = getattr(fields["model"], "_orig_mod", fields["model"])
        if not isinstance(fields["model"], nn.Module):
            kind = type(fields["model"]).__name__
            raise ValueError(f"{self.where} returned a {kind} as model; expected a torch.nn.Module")
        if not callable(fields["loss"]):
            kind = type(fields["loss"]).__name__
            raise ValueError(f"{self.where} returned a {kind} as loss; expected a function of outputs and targets")
        if isinstance(fields["loss"], type):  # such as nn.CrossEntropyLoss, which would take outputs for an option
            kind = fields["loss"].__name__
            raise ValueError(f"{self.where} returned the class {kind} as loss; expected an object of it, {kind}()")
        parts = {
            name: self._loader(name, fields[name], is_train=name == "train")
            for name in ("train", "validation", "test")
            if name != "test" or fields.get(name) is not None
        }
        return Given(**(dict(fields) | parts))

    def _loader(self, name: str, part: Any, *, is_train: bool) -> Any:
        """Return what yields batches of a part: a loader as it is, batches of a dataset or of tensors."""
        if isinstance(part, tuple | list) and len(part) == 2 and all(isinstance(each, Tensor) for each in part):
            part = torch.utils.data.TensorDataset(*part)
        if isinstance(part, Dataset) and not isinstance(part, torch.utils.data.IterableDataset):
            number = len(part) if hasattr(part, "__len__") else None  # pyright: ignore[reportArgumentType]
            if number is None:
                raise self._no_length(name)
            if number == 0:
                raise ValueError(f"{self.where}: {name} is empty; expected at least one example")
            batch = min(self._batch, number) if is_train else min(256, number)
            return DataLoader(part, batch, shuffle=is_train, drop_last=is_train)
        if isinstance(part, torch.utils.data.IterableDataset):
            raise self._no_length(name)
        if isinstance(part, Iterator):
            raise ValueError(
                f"{self.where} returned a {type(part).__name__} as {name}, which yields its batches once; expected a "
                "loader, a dataset, (inputs, targets), or a list of batches"
            )
        if not hasattr(part, "__iter__") or isinstance(part, Tensor):
            kind = type(part).__name__
            raise ValueError(
                f"{self.where} returned an object of {kind} as {name}; expected a loader, a dataset, or (inputs, "
                "targets)"
            )
        return part

    def _no_length(self, name: str) -> ValueError:
        return ValueError(
            f"{self.where} returned a dataset without length as {name}; expected batches of it, such as "
            f"DataLoader({name}, {self._batch}), or a dataset with __len__"
        )

    # -- what jobs ask for ---------------------------------------------------------------------------

    def build(self, seed: int = 0) -> nn.Module:
        """Return a net with the initial weights of a seed."""
        return copy.deepcopy(self.given(seed).model).to("cpu")

    def members(
        self, optimizer: Any, points: Sequence[Mapping[str, float]], seeds: Sequence[int], job: Train, device: str
    ) -> tuple[Engine, "Loaders", "Reader"]:
        """Return the members of a job, their batches, and what evaluates them."""
        model, first = self.build(seeds[0]), next(self.batches(seeds[0], "train"))
        self._check_alike(model, seeds)
        treated = optimizers.of_config(model, optimizer, points)
        draw, losses = Loaders(self, seeds, device), [self._guarded(self.given(seed).loss) for seed in seeds]
        if self._is_one_loss(model, first, seeds):
            members, reason = engine.build(self.build, losses[0], treated, seeds, *first, device=device)
            losses = losses[:1] * len(seeds)
        else:
            members, reason = Sequential(self.build, losses, treated, seeds, device=device), OWN_LOSSES
        return members, draw, Reader(self, draw, losses, device, reason)

    def _check_alike(self, model: nn.Module, seeds: Sequence[int]) -> None:
        """Raise ValueError where the nets of two seeds differ in more than their weights."""
        shapes = {name: p.shape for name, p in model.named_parameters()}
        for seed in dict.fromkeys(seeds):
            others = {name: p.shape for name, p in self.given(seed).model.named_parameters()}
            if others != shapes:
                name = next(name for name in (*shapes, *others) if shapes.get(name) != others.get(name))
                here, there = (tuple(each[name]) if name in each else "missing" for each in (shapes, others))
                raise ValueError(
                    f"{self.where}: {name} of the model is {here} for seed {seeds[0]} and {there} for seed {seed}; "
                    "expected one net, whose weights alone depend on the seed"
                )

    def _is_one_loss(self, model: nn.Module, first: Batch, seeds: Sequence[int]) -> bool:
        """Return whether the losses of all seeds are one function, by their value on a batch."""
        if len(set(seeds)) == 1:
            return True
        with torch.no_grad(), forked(seeds[0], "trial"):
            outputs = model(first[0])
        values = [self._loss(self.given(seed).loss, outputs, first[1]) for seed in dict.fromkeys(seeds)]
        return all(torch.equal(value, values[0]) for value in values)

    def _guarded(self, loss: Loss) -> Loss:
        """Return a loss whose errors, such as of a label out of range in a late batch, are messages for users."""

        def guarded(outputs: Tensor, targets: Tensor) -> Tensor:
            try:
                return loss(outputs, targets)
            except torch.OutOfMemoryError:
                raise
            except RAISED as error:
                # A loss such as nn.BCELoss refuses what a run that diverges puts out; the others of its stack are well.
                is_bad = ~outputs.isfinite()
                with contextlib.suppress(Exception):
                    value = loss(torch.where(is_bad, HARMLESS, outputs), targets)
                    return value * torch.where(is_bad.any(), torch.nan, 1.0)
                shapes = f"outputs {_kind(outputs)} and targets {_kind(targets)}"
                raise ValueError(f"{self.where}: the loss raised {one_line(error)} for {shapes}") from error

        return guarded

    def _loss(self, loss: Loss, outputs: Tensor, targets: Tensor, part: str = "") -> Tensor:
        """Return the loss, with one stream of random numbers."""
        shapes = f"outputs {_kind(outputs)} and targets {_kind(targets)}{part}"
        try:
            with forked(0, "trial"), warnings.catch_warnings(), _Pairs() as pairs:
                warnings.filterwarnings("error", "Using a target size")
                value: Any = loss(outputs, targets)
        except RAISED as error:
            if "Using a target size" in str(error):
                raise self._broadcasts(shapes) from error
            hint = "" if torch.is_grad_enabled() else "; evaluations compute no gradients, so it may ask for none there"
            hint = hint if "does not require grad" in str(error) else ""
            raise ValueError(f"{self.where}: the loss raised {one_line(error)} for {shapes}{hint}") from error
        if pairs.found:
            raise self._broadcasts(shapes)
        return value

    def _broadcasts(self, shapes: str) -> ValueError:
        return ValueError(
            f"{self.where}: the loss broadcasts {shapes} to a value for each pair of examples; expected one shape, "
            "such as by outputs.squeeze(-1), or targets.unsqueeze(-1)"
        )

    def batches(self, seed: int, part: str, epoch: int = 0) -> Iterator[Batch]:
        """Yield the batches of a part for a seed in an epoch, whatever else draws random numbers meanwhile.

        Raises:
            ValueError: a batch is no pair of tensors, or there is none.
        """
        loader, where = getattr(self.given(seed), part), f"{self.where}: {part}"
        try:
            with forked(seed, f"{part} order", epoch):
                iterator = iter(loader)
        except RAISED as error:
            raise ValueError(f"{where} raised {one_line(error)} for seed {seed}") from error
        for number in itertools.count():
            # Augmentations draw, too: each batch has a stream of its own, so that a restart finds the same one.
            try:
                with forked(seed, f"{part} batch {epoch}", number):
                    found = next(iterator, None)
            except RAISED as error:
                batch = f"batch {number + 1} of epoch {epoch + 1}"
                raise ValueError(f"{where} raised {one_line(error)} in {batch} for seed {seed}") from error
            if found is None:
                if number == 0 and epoch:
                    raise ValueError(f"{where} yields its batches once; expected a loader, or a list of batches")
                if number == 0:
                    raise ValueError(f"{where} is empty; expected at least one batch")
                return
            pair = _pair(found, where)
            if pair[1].shape[:1] == (0,):
                raise ValueError(f"{where} yields a batch without examples, batch {number + 1}; leave it out")
            yield pair

    def check(self) -> None:
        """Raise ValueError where a job could not do its work: one forward and backward pass on the first batch."""
        if self.takes_no_seed:
            raise ValueError(f"{self.where} takes no seed; expected a function task(seed) that returns {EXPECTED}")
        given = self.given(0)
        self._check_tensors(given.model)
        inputs, targets = next(self.batches(0, "train"))
        next(self.batches(0, "validation"))
        model = self.build(0)
        loss: Any = self._loss(given.loss, self._outputs(model, inputs), targets)
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
        self._check_gradients(model, loss)
        self._check_evaluation(model)
        self._check_repeats(given)

    def _check_gradients(self, model: nn.Module, loss: Tensor) -> None:
        """Raise ValueError where the backward pass fails, or gives what optimizers do not take."""
        try:
            loss.mean().backward()
        except RAISED as error:
            raise ValueError(f"{self.where}: the backward pass raised {one_line(error)}") from error
        for name, p in model.named_parameters():
            if p.grad is not None and p.grad.layout is not torch.strided:
                raise ValueError(f"{self.where}: {name} has sparse gradients; expected dense ones, with sparse=False")

    def _check_tensors(self, model: nn.Module) -> None:
        """Raise ValueError where the model's parameters are not float32 numbers in memory."""
        parameters = list(model.parameters())
        if not parameters:
            raise ValueError(f"{self.where}: the model has no parameters; expected some to train")
        if lazy := [name for name, p in model.named_parameters() if isinstance(p, nn.parameter.UninitializedParameter)]:
            raise ValueError(
                f"{self.where}: {lazy[0]} of the model has no shape yet; call the model on a batch in the function, "
                "or give its layers their sizes"
            )
        if other := {p.dtype for p in parameters} - {torch.float32}:
            raise ValueError(
                f"{self.where}: the model has {_dtype(min(other, key=str))} parameters; expected float32, such as "
                "model.float(), and inputs to match"
            )
        if any(p.is_meta for p in parameters):
            raise ValueError(
                f"{self.where}: the model is on the device meta, without weights; expected one made on the CPU"
            )

    def _outputs(self, model: nn.Module, inputs: Tensor, part: str = "") -> Tensor:
        """Return what the model makes of a batch."""
        try:
            with forked(0, "trial"):
                outputs: Any = model(inputs)
        except RAISED as error:
            hint = "" if inputs.dtype == torch.float32 else "; where it expects numbers, give inputs.float()"
            raise ValueError(
                f"{self.where}: the model does not read inputs {_kind(inputs)}{part}: {one_line(error)}{hint}"
            ) from error
        if not isinstance(outputs, Tensor):
            raise ValueError(
                f"{self.where}: the model returned a {type(outputs).__name__}; expected a tensor, such as the logits: "
                "wrap the model in a module that returns them"
            )
        return outputs

    @torch.no_grad()
    def _check_evaluation(self, model: nn.Module) -> None:
        """Raise ValueError where the model or the loss do not read the validation data, or a batch of the test data."""
        model.eval()
        for part, most in (("validation", EVALUATED), ("test", 1)):
            if getattr(self.given(0), part) is None:
                continue
            seen = 0
            for number, (inputs, targets) in enumerate(self.batches(0, part), 1):
                which = f" of batch {number} of {part}"
                value = self._loss(self.given(0).loss, self._outputs(model, inputs, which), targets, which).mean()
                if not torch.isfinite(value):
                    raise ValueError(f"{self.where}: the loss{which} is {value.item()}; check the data for NaN")
                seen += len(targets)
                if seen >= most:
                    break

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

    def _check_repeats(self, given: Given) -> None:
        """Raise ValueError where a second call differs: runs of one seed would not be paired."""
        again = self.call(0)
        pairs = zip(given.model.state_dict().values(), again.model.state_dict().values(), strict=False)
        if not all(torch.equal(a, b) for a, b in pairs):
            raise self._differs("models with different weights")
        before = {part: self._few(part) for part in COMPARED}
        self._known[0] = again
        for part, number in COMPARED.items():
            for (x, y), (x_again, y_again) in zip(before[part], self._few(part), strict=False):
                for what, one, other in (("inputs", x, x_again), ("targets", y, y_again)):
                    if one.shape != other.shape or not bool(((one == other) | (one != one)).all()):
                        first = f"first {number} batches" if number > 1 else "first batch"
                        raise self._differs(f"other {what} in the {first} of {part}")

    def _few(self, part: str) -> list[Batch]:
        return list(itertools.islice(self.batches(0, part), COMPARED[part]))

    def _differs(self, what: str) -> ValueError:
        return ValueError(
            f"{self.where}: two calls with seed 0 return {what}, so optimizers could not be compared from the same "
            "start; draw random numbers from torch, or from generators seeded with the seed"
        )


def _pair(found: Any, where: str) -> Batch:
    if isinstance(found, tuple | list) and len(found) == 2 and all(isinstance(each, Tensor) for each in found):
        return found[0].to("cpu"), found[1].to("cpu")
    shape = f"a {type(found).__name__}"
    if isinstance(found, tuple | list):
        shape += f" ({', '.join(type(each).__name__ for each in found[:4])}{', ...' if len(found) > 4 else ''})"
    raise ValueError(f"{where} yields {shape}; expected batches (inputs, targets), both tensors")


def _kind(tensor: Tensor) -> str:
    """For people: shape and dtype."""
    return f"{tuple(tensor.shape)} of {_dtype(tensor.dtype)}" if isinstance(tensor, Tensor) else str(type(tensor))


def _dtype(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")

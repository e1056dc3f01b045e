"""The batches of the members of a user's task, each those of its seed, and what evaluates the members."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from muonlab.train.engine import Engine

if TYPE_CHECKING:
    from muonlab.studies.compare.work.task import TaskMaterial

EVALUATED = 2048  # examples of a part, at most, per evaluation; the test set is read whole, in the end

Batch = tuple[Tensor, Tensor]
Batches = Batch | tuple[list[Tensor], list[Tensor]]  # of all members: stacks, or lists where their sizes differ
Loss = Callable[[Tensor, Tensor], Tensor]


class Loaders:
    """The batches of every member in a step: members of one seed share their loader's, epoch after epoch."""

    def __init__(self, material: "TaskMaterial", seeds: Sequence[int], device: str):
        self._material, self._seeds, self._device = material, list(seeds), device
        self._streams: dict[int, tuple[int, Iterator[Batch]]] = {}  # seed -> next step, its batches from there
        self._last: tuple[int, dict[int, Batch]] | None = None  # the step that was drawn last, as it may be asked again

    def __call__(self, step: int) -> tuple[Any, Any]:
        """Return the inputs and targets of a step (`Batches`)."""
        if self._last is None or self._last[0] != step:
            self._last = step, {seed: self._of_seed(seed, step) for seed in dict.fromkeys(self._seeds)}
        own = [self._last[1][seed] for seed in self._seeds]
        return _together(own, self._device)

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
        losses: of each member.
        device: where the members live.
        reason: why they train one after the other.
    """

    def __init__(
        self, material: "TaskMaterial", draw: Loaders, losses: Sequence[Loss], device: str, reason: str | None
    ):
        self._material, self._draw, self._device, self.reason = material, draw, device, reason
        # Of this seed are the data that all members are evaluated on, unless those of their seeds differ.
        self._seed = seed = draw.seeds[0]
        self._judges = {each: _judge(loss) for each, loss in zip(draw.seeds, losses, strict=True)}
        self._is_one_loss = len(set(map(id, losses))) == 1
        self._shared = dict[str, bool]()
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

    @property
    def _judge(self) -> Any:
        """What measures all members, or each of those that are left."""
        own = [self._judges[seed] for seed in self._draw.seeds]
        return own[0] if self._is_one_loss else own

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
            if len(found) == len(number):
                own = _together([found[seed] for seed in self._draw.seeds], self._device)
                counts = torch.tensor([len(found[seed][1]) for seed in self._draw.seeds], device=self._device)
                total += members.measure(self._judge, *own, by_member=True).double() * counts[:, None]
            else:
                for seed, pair in found.items():
                    of_all = members.measure(self._judge, *(each.to(self._device) for each in pair))
                    total += torch.where((seeds == seed)[:, None], of_all.double() * len(pair[1]), 0.0)
            for seed, (_, targets) in found.items():
                number[seed] += len(targets)
                if most is not None and number[seed] >= most:
                    del streams[seed]
        return total / torch.tensor([number[seed] for seed in self._draw.seeds], device=self._device)[:, None]


def _together(pairs: Sequence[Batch], device: str) -> Batches:
    """Return the batches of members as stacks (S, B, ...), or as lists where their sizes differ."""
    inputs, targets = ([pair[k].to(device) for pair in pairs] for k in (0, 1))
    if len({(x.shape, y.shape) for x, y in zip(inputs, targets, strict=True)}) > 1:
        return inputs, targets
    return torch.stack(inputs), torch.stack(targets)


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

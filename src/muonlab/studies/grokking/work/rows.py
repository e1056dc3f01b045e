"""The rows of an algorithmic task as the members of a population see them: split, order and labels."""

from collections.abc import Sequence

import torch
from torch import Tensor

from muonlab.data.algorithmic import Task, split
from muonlab.train.batches import Orders
from muonlab.train.seeds import generator


class Rows:
    """The rows of a task as S members see them, each with its own split, order and, where permuted, labels.

    Attributes:
        inputs: (rows, T) token ids, shared by all members.
        labels: (S, rows); the true ones, or for each member its own permutation of them.
        train, validation: (S, num_train) and (S, num_validation) row indices.

    Args:
        task, seeds: the task, and the seed of each member, of its split and its labels.
        order: the seed of the order of each member's batches; by default that of its split.
        train_share: share of the rows that is trained on.
        batch: rows in a batch, or "full"; at most num_train.
        pairs_together: keep (a, b) and (b, a) on the same side of the split.
        short_batch: keep the last batch of an epoch where it is short.
        random_labels: permute each member's labels over all rows, the control that nothing can generalise on.
        device: where the tensors live.
    """

    def __init__(
        self,
        task: Task,
        seeds: Sequence[int],
        *,
        order: Sequence[int] | None = None,
        train_share: float,
        batch: int | str,
        pairs_together: bool = False,
        short_batch: bool = False,
        random_labels: bool = False,
        device: str | torch.device = "cpu",
    ):
        sides = [split(task, train_share, generator(seed, "split"), pairs_together=pairs_together) for seed in seeds]
        self.inputs = task.inputs.to(device)
        self.train = torch.stack([train for train, _ in sides]).to(device)
        self.validation = torch.stack([validation for _, validation in sides]).to(device)
        labels = task.labels.expand(len(seeds), -1)
        if random_labels:
            orders = [torch.randperm(len(task.labels), generator=generator(seed, "labels")) for seed in seeds]
            labels = labels.gather(1, torch.stack(orders))
        self.labels = labels.contiguous().to(device)
        self.num_train, self.num_validation = self.train.shape[1], self.validation.shape[1]
        size = self.num_train if batch == "full" else int(batch)
        self._orders = Orders(self.num_train, size, seeds if order is None else order, short=short_batch, device=device)
        self.batch = self._orders.batch

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        """Return the batch of every member in a step: tokens (S, B, T) and labels (S, B)."""
        rows = self.train.gather(1, self._orders(step))  # (S, B)
        return self.inputs[rows], self.labels.gather(1, rows)

    def epoch(self, step: int) -> float:
        """Return the examples drawn in that many steps, divided by the size of the train set."""
        return self._orders.drawn(step) / self.num_train

    def keep(self, members: Sequence[int]) -> None:
        """Drop all members but those, given by their positions."""
        index = torch.tensor(members, device=self.train.device)
        self.train, self.validation, self.labels = (rows[index] for rows in (self.train, self.validation, self.labels))
        self._orders.keep(members)

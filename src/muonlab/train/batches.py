"""The batches of the members of a population: epochs in random order, one order per seed and epoch."""

from collections.abc import Sequence

import torch
from torch import Tensor

from muonlab.train.seeds import generator


class Orders:
    """Positions of the examples of every step.

    Attributes:
        batch: B.

    Args:
        number: of examples.
        batch: B; at most the number of examples.
        seeds: of the members' streams; members with one seed take the same batches.
        short: keep the rest of an epoch that does not fill a batch, as a last one that is short; if not, leave it out.
        device: where the positions are; they are drawn on the CPU and go there once an epoch.
    """

    def __init__(
        self,
        number: int,
        batch: int,
        seeds: Sequence[int],
        *,
        short: bool = False,
        device: str | torch.device = "cpu",
    ):
        self._device = device
        self.batch = min(batch, number)
        self._number, self._per_epoch = number, -(-number // self.batch) if short else number // self.batch
        self._seeds = list(seeds)
        self._order: tuple[int, Tensor] | None = None  # the epoch and its order, (S, number)

    def __call__(self, step: int) -> Tensor:
        """Return the positions (S, B) of the examples of a step."""
        epoch, position = divmod(step, self._per_epoch)
        if self._order is None or self._order[0] != epoch:
            own = {
                seed: torch.randperm(self._number, generator=generator(seed, "batches", epoch))
                for seed in dict.fromkeys(self._seeds)
            }
            self._order = epoch, torch.stack([own[seed] for seed in self._seeds]).to(self._device)
        return self._order[1][:, position * self.batch : (position + 1) * self.batch]

    def drawn(self, step: int) -> int:
        """Return the examples drawn in that many steps."""
        epochs, rest = divmod(step, self._per_epoch)
        return epochs * min(self._per_epoch * self.batch, self._number) + rest * self.batch

    def keep(self, members: Sequence[int]) -> None:
        """Drop all members but those, given by their positions."""
        self._seeds = [self._seeds[member] for member in members]
        self._order = None


class Batches:
    """Batches of examples that all members share, or of which each has its own rows.

    Args:
        inputs: (N, ...).
        labels: (N, ...).
        seeds: as of `Orders`.
        batch: as of `Orders`; None takes all rows in every step, in their order.
        rows: (S, n) rows of the examples that each member trains on; None where all train on all of them.
        device: where the batches go.
    """

    def __init__(
        self,
        inputs: Tensor,
        labels: Tensor,
        seeds: Sequence[int],
        batch: int | None,
        *,
        rows: Tensor | None = None,
        device: str | torch.device = "cpu",
    ):
        self._inputs, self._labels = inputs.to(device), labels.to(device)
        self.num_examples = len(inputs) if rows is None else rows.shape[1]
        self.rows = rows if rows is None else rows.to(device)
        self._orders = Orders(self.num_examples, batch or self.num_examples, seeds, device=device)
        self.batch, self._takes_all = self._orders.batch, batch is None
        self._num_members = len(seeds)
        self._whole: tuple[Tensor, Tensor] | None = None  # all rows, where they are the batch

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        """Return the inputs (S, B, ...) and labels (S, B, ...) of a step."""
        if not self._takes_all:
            return self._at(self._orders(step))
        if self._whole is None:
            every = torch.arange(self.num_examples, device=self._labels.device)
            self._whole = self._at(every.expand(self._num_members, -1))
        return self._whole

    def _at(self, positions: Tensor) -> tuple[Tensor, Tensor]:  # (S, B)
        rows = positions if self.rows is None else self.rows.gather(1, positions)
        return self._inputs[rows], self._labels[rows]

    def epoch(self, step: int) -> float:
        """Return the examples drawn in that many steps, divided by the number of examples."""
        return step * self.batch / self.num_examples

    def keep(self, members: Sequence[int]) -> None:
        """Drop all members but those, given by their positions."""
        self._num_members, self._whole = len(members), None
        if self.rows is not None:
            self.rows = self.rows[list(members)]
        self._orders.keep(members)

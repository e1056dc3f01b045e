"""The order in which members of a population take their examples."""

from collections.abc import Sequence

import torch
from torch import Tensor

from muonlab.train.seeds import generator


class Orders:
    """Epochs in random order, one order for each seed and epoch; what does not fill a batch waits for no one.

    Attributes:
        batch: B.

    Args:
        number: of examples.
        batch: B; at most the number of examples.
        seeds: of the streams of the members; members with one seed take the same batches.
    """

    def __init__(self, number: int, batch: int, seeds: Sequence[int]):
        self.batch = min(batch, number)
        self._number, self._per_epoch = number, number // self.batch
        self._seeds = list(seeds)
        self._order: tuple[int, Tensor] | None = None

    def __call__(self, step: int) -> Tensor:
        """Return the positions (S, B) of the examples of a step."""
        epoch, position = divmod(step, self._per_epoch)
        if self._order is None or self._order[0] != epoch:
            own = {
                seed: torch.randperm(self._number, generator=generator(seed, "batches", epoch))
                for seed in dict.fromkeys(self._seeds)
            }
            self._order = epoch, torch.stack([own[seed] for seed in self._seeds])
        return self._order[1][:, position * self.batch : (position + 1) * self.batch]

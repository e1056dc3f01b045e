"""Which examples each member of a population takes in each step."""

from collections.abc import Sequence

import torch
from torch import Tensor

from muonlab.train.features.material import Set
from muonlab.train.seeds import generator


class Batches:
    """Epochs in random order, one order for each seed and epoch; what does not fill a batch waits for no one.

    Args:
        examples: what is trained on.
        seeds: of the streams of the members; members with one seed take the same batches.
        batch: B; at most the number of examples.
        device: where the batches go.
    """

    def __init__(self, examples: Set, seeds: Sequence[int], batch: int, device: str | torch.device = "cpu"):
        self._examples = Set(*(tensor.to(device) for tensor in examples))
        self._number = len(examples.labels)
        self.batch = min(batch, self._number)
        self._per_epoch = self._number // self.batch
        self._seeds = list(seeds)
        self._order: tuple[int, Tensor] | None = None

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        """Return the inputs (S, B, ...) and labels (S, B, ...) of a step."""
        epoch, position = divmod(step, self._per_epoch)
        if self._order is None or self._order[0] != epoch:
            own = {
                seed: torch.randperm(self._number, generator=generator(seed, "batches", epoch))
                for seed in dict.fromkeys(self._seeds)
            }
            self._order = epoch, torch.stack([own[seed] for seed in self._seeds])
        rows = self._order[1][:, position * self.batch : (position + 1) * self.batch]  # (S, B)
        return self._examples.inputs[rows], self._examples.labels[rows]

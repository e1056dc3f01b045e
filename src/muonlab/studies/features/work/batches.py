"""Which examples each member of a population takes in each step."""

from collections.abc import Sequence

import torch
from torch import Tensor

from muonlab.studies.features.work.material import Set
from muonlab.train.orders import Orders


class Batches:
    """Batches of one set of examples, in the members' own order.

    Args:
        examples: what is trained on.
        seeds: of the streams of the members; members with one seed take the same batches.
        batch: B; at most the number of examples.
        device: where the batches go.
    """

    def __init__(self, examples: Set, seeds: Sequence[int], batch: int, device: str | torch.device = "cpu"):
        self._examples = Set(*(tensor.to(device) for tensor in examples))
        self._orders = Orders(len(examples.labels), batch, seeds)
        self.batch = self._orders.batch

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        """Return the inputs (S, B, ...) and labels (S, B, ...) of a step."""
        rows = self._orders(step)  # (S, B)
        return self._examples.inputs[rows], self._examples.labels[rows]

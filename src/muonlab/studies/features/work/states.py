"""A net that is measured: how it is called, where its hidden states are taken, and how many examples at once."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from muonlab.measure.features import gather
from muonlab.studies.features.work.material import Probing

ROWS = 64  # examples of a forward pass: small enough for the cache
LOGITS_BYTES = 2**26  # of the logits of a forward pass: 64 examples of 1024 tokens of 50257 words would take 13 GB

Pools = str | Mapping[str, str]  # one for all taps, or one each


def _call(net: nn.Module, inputs: Tensor) -> Tensor:
    return net(inputs)


@dataclass(frozen=True, eq=False)
class Subject:
    """A net in eval mode that is measured.

    Attributes:
        net: any module.
        taps: names of the modules whose outputs are its hidden states, in order.
        pool: how outputs become one vector an example, of `muonlab.measure.features`.
        rank_pool: the same for the states whose rank is measured.
        mask: from inputs (B, T), which tokens are real, (B, T); None where all are.
        call: from the net and inputs (B, ...) to logits (B, C) or (B, T, V).
        rows: B at most.
    """

    net: nn.Module
    taps: tuple[str, ...]
    pool: Pools
    rank_pool: Pools
    mask: Callable[[Tensor], Tensor] | None = None
    call: Callable[[nn.Module, Tensor], Tensor] = _call
    rows: int = ROWS

    def logits(self, inputs: Tensor) -> Tensor:
        """Return logits of inputs (B, ...)."""
        return self.call(self.net, inputs)


def subject(net: nn.Module, probing: Probing, example: Tensor) -> Subject:
    """Return a net of this project's, which knows its taps.

    Args:
        net: in eval mode.
        probing: says how its states are pooled.
        example: (1, ...) inputs.
    """
    taps: tuple[str, ...] = net.taps  # pyright: ignore[reportAssignmentType]
    mask = None if probing.padding is None else probing.mask
    with torch.no_grad():
        num_rows = rows(net(example))
    return Subject(net, taps, probing.pool, probing.rank_pool, mask, rows=num_rows)


def rows(logits: Tensor) -> int:
    """Return how many examples a forward pass takes, of the logits (1, ...) of one."""
    return max(1, min(ROWS, LOGITS_BYTES // (logits.numel() * logits.element_size())))


def hidden_states(measured: Subject, inputs: Tensor, pool: Pools) -> dict[str, Tensor]:
    """Return the hidden states (N, D) of every tap in one pass over inputs (N, ...)."""
    batches = inputs.split(measured.rows)
    return gather(measured.net, batches, measured.taps, pool=pool, forward=measured.call, mask=measured.mask)

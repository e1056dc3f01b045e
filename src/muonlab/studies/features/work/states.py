"""A net that is measured: its call, the taps of its hidden states, and its examples per pass."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from muonlab.measure.features import gather
from muonlab.studies.features.work.material import Material

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
        pool: how outputs become one vector per example, of `muonlab.measure.features`.
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


def subject(net: nn.Module, material: Material) -> Subject:
    """Return a net of this project's, in eval mode, which knows its taps."""
    taps: tuple[str, ...] = net.taps  # pyright: ignore[reportAssignmentType]
    assert material.pool is not None
    assert material.rank_pool is not None
    with torch.no_grad():
        num_rows = rows(net(material.judged.test.inputs[:1]))
    return Subject(net, taps, material.pool, material.rank_pool, mask_of(material), rows=num_rows)


def mask_of(material: Material) -> Callable[[Tensor], Tensor] | None:
    """Return what says which tokens are real, (B, T); None where all inputs are."""
    padding = material.judged.padding
    return None if padding is None else lambda tokens: tokens != padding


def rows(logits: Tensor) -> int:
    """Return how many examples a forward pass takes, of the logits (1, ...) of one."""
    return max(1, min(ROWS, LOGITS_BYTES // (logits.numel() * logits.element_size())))


def hidden_states(measured: Subject, inputs: Tensor, pool: Pools) -> dict[str, Tensor]:
    """Return the hidden states (N, D) of every tap in one pass over inputs (N, ...)."""
    batches = inputs.split(measured.rows)
    return gather(measured.net, batches, measured.taps, pool=pool, forward=measured.call, mask=measured.mask)

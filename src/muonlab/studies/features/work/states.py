"""A net that is measured: its call, the taps of its hidden states, and its examples per pass."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from muonlab.measure import taps
from muonlab.measure.features import gather
from muonlab.studies.features.config import OwnNet
from muonlab.studies.features.work.material import Material

TRIED = 2  # examples by which the shapes of hidden states are seen
ROWS = 64  # examples of a forward pass: small enough for the cache
LOGITS_BYTES = 2**26  # of the logits of a forward pass: 64 examples of 1024 tokens of 50257 words would take 13 GB

Pools = str | Mapping[str, str]  # one for all taps, or one each


def _call(net: nn.Module, inputs: Tensor) -> Tensor:
    return net(inputs)


@dataclass(frozen=True, eq=False)
class Subject:
    """A net in eval mode that is measured."""

    net: nn.Module
    taps: tuple[str, ...]  # names of the modules whose outputs are its hidden states, in order
    pool: Pools  # how outputs become one vector per example, of `muonlab.measure.features`
    rank_pool: Pools  # the same for the states whose rank is measured
    mask: Callable[[Tensor], Tensor] | None = None  # inputs (B, T) -> which tokens are real, (B, T); None: all
    call: Callable[[nn.Module, Tensor], Tensor] = _call  # net, inputs (B, ...) -> logits (B, C) or (B, T, V)
    rows: int = ROWS  # B at most

    def logits(self, inputs: Tensor) -> Tensor:
        """Return logits of inputs (B, ...)."""
        return self.call(self.net, inputs)


def subject(net: nn.Module, material: Material) -> Subject:
    """Return a net of a study, in eval mode.

    Raises:
        ValueError: a net of a user's own whose hidden states cannot be found.
    """
    inputs = material.judged.test.inputs[:TRIED]
    with torch.no_grad():
        num_rows = rows(net(inputs[:1]))
    if isinstance(material.net, OwnNet):
        chosen, pool, rank_pool = _found(net, inputs, material.net.call.name)
    else:
        chosen, pool, rank_pool = net.taps, material.pool, material.rank_pool
        assert pool is not None
        assert rank_pool is not None
    return Subject(net, chosen, pool, rank_pool, mask_of(material), rows=num_rows)  # pyright: ignore[reportArgumentType]


def _found(net: nn.Module, inputs: Tensor, name: str) -> tuple[tuple[str, ...], Pools, Pools]:
    """Return the taps of a user's own net, and how their states are pooled: of texts, ranks are of the last token."""
    try:
        chosen = taps.choose(net)
        pool = taps.pools(taps.tap_shapes(net, inputs), chosen, None, num_examples=len(inputs))
        gather(net, [inputs], chosen, pool=pool)  # a module that is called twice names no one state
    except (ValueError, RuntimeError) as error:
        why, *_ = str(error).split("; ")  # what to do about it is another thing here
        raise ValueError(
            f"net={name}: no hidden states can be measured, since {why}; give the net an attribute taps, the names of "
            "the modules whose outputs they are, from the input up"
        ) from error
    if inputs.is_floating_point():
        return chosen, pool, pool
    return chosen, pool, {tap: "last_token" if each == "mean_tokens" else each for tap, each in pool.items()}


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

"""The models of a group, loaded, called and made ready to be measured."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from muonlab.data.sources import DataError
from muonlab.measure import taps
from muonlab.studies.checkpoints.config import Group
from muonlab.studies.checkpoints.work.nets import logits
from muonlab.studies.features.work.material import Material
from muonlab.studies.features.work.states import Pools, Subject, mask_of, rows
from muonlab.study.dotted import one_line

TOGETHER_BYTES = 2**30  # of models that are in memory together
SAME = 1e-5  # of the largest logit: what rounding may change
MOST_OF_BYTES = 512  # token ids of a net that reads bytes: 256, some for special tokens, and filled up
TRIED = 2  # examples by which shapes are seen

# From net, inputs (B, ...) and which tokens are real, (B, T) or None, to what the net returns.
Call = Callable[[nn.Module, Tensor, Tensor | None], Any]


@dataclass(frozen=True, eq=False)
class Member:
    """One model of a group."""

    checkpoint: str  # the path it is from, or a name
    member: int | None  # its place among those of the file; None where the file has one
    load: Callable[[], nn.Module]
    num_bytes: int  # of its weights

    @property
    def place(self) -> str:
        """Where it is, for people."""
        return self.checkpoint if self.member is None else f"{self.checkpoint}, member {self.member}"


@dataclass(frozen=True, eq=False)
class Candidates:
    """Models of one architecture, not loaded yet, and what they are inspected on."""

    group: Group
    net: str  # what the architecture is called
    members: Sequence[Member]  # at least one
    untrained: Callable[[], nn.Module] | None  # makes the net with new weights, of torch's global generator
    call: Call
    given: Material
    is_judged: bool = True  # whether its answers are measured: a net without a head has none
    assumes_bytes: bool = False  # whether texts are read as bytes for want of a tokenizer

    @property
    def name(self) -> str:
        """Of the group."""
        return self.group.name

    def chunks(self) -> Iterator[list[Member]]:
        """Yield members that are in memory together: as many as are small, at least one."""
        chunk: list[Member] = []
        for member in self.members:
            if chunk and sum(each.num_bytes for each in (*chunk, member)) > TOGETHER_BYTES:
                yield chunk
                chunk = []
            chunk.append(member)
        yield chunk


def plain_call(net: nn.Module, inputs: Tensor, mask: Tensor | None) -> Any:
    """Call a net with inputs alone."""
    return net(inputs)


def ready(candidates: Candidates, net: nn.Module, device: str) -> Subject:
    """Return a net as what is measured, after a trial on two examples.

    Raises:
        DataError: what the net raises of such inputs; outputs that do not fit the data.
        ValueError: taps or pools that do not fit.
    """
    given = candidates.given
    examples = given.judged.test.inputs[:TRIED]
    net = net.to(device).eval()
    table = _table(net)
    if candidates.assumes_bytes and table is not None and table > MOST_OF_BYTES:
        raise DataError(
            f"{candidates.name}: the net has {table} token ids and no tokenizer is given; give tokenizer=PATH, the "
            "tokenizer.json that it was trained with, or tokenizer=bytes if it reads bytes all the same"
        )
    answer = _answer(candidates, table, device)
    try:
        with torch.no_grad():
            found = answer(net, examples)
    except DataError:
        raise
    except Exception as error:  # a user's net may raise anything
        raise DataError(
            f"{candidates.name}: the net does not take {_words(examples)}; it raised {one_line(error)}"
        ) from error
    if candidates.is_judged:
        _check(candidates, found, examples)
        _check_order(candidates, net, answer, found, examples)
    chosen = taps.choose(net, candidates.group.taps)
    pool, rank_pool = _pools(candidates, taps.tap_shapes(net, examples, answer), chosen, len(examples))
    return Subject(net, chosen, pool, rank_pool, mask_of(given), answer, rows(found[:1]))


def _table(net: nn.Module) -> int | None:
    """Return how many token ids the net has a vector for; None without a table."""
    if hasattr(net, "get_input_embeddings"):  # as models of Hugging Face's have it
        first = net.get_input_embeddings()  # pyright: ignore[reportCallIssue]
    else:
        first = next((module for module in net.modules() if isinstance(module, nn.Embedding)), None)
    return first.num_embeddings if isinstance(first, nn.Embedding) else None


def can_answer(candidates: Candidates, subject: Subject) -> bool:
    """Return whether what a net returns fits the labels of the data."""
    examples = candidates.given.judged.test.inputs[:TRIED]
    try:
        with torch.no_grad():
            _check(candidates, subject.logits(examples), examples)
    except DataError:
        return False
    return True


def _answer(candidates: Candidates, table: int | None, device: str) -> Callable[[nn.Module, Tensor], Tensor]:
    padding = candidates.given.judged.padding

    def answer(net: nn.Module, inputs: Tensor) -> Tensor:
        mask = None
        if padding is not None:
            mask = inputs != padding  # (B, T)
            if table is not None and padding >= table:
                inputs = inputs.where(mask, 0)  # no id of the net's stands for padding; any does, as it is masked
            mask = mask.to(device)
        output = candidates.call(net, inputs.to(device), mask)
        return logits(output, or_states=not candidates.is_judged).cpu()

    return answer


def _words(examples: Tensor) -> str:
    shape = tuple(examples.shape)
    return f"images {shape}" if examples.is_floating_point() else f"token ids {shape} up to {int(examples.max())}"


def _check(candidates: Candidates, found: Tensor, examples: Tensor) -> None:
    """Raise DataError where logits, (B, C) or (B, T, V), do not fit the labels."""
    given, name = candidates.given, candidates.name
    if given.judged.test.labels.ndim > 1:  # of every token of a text
        if tuple(found.shape[:2]) != tuple(examples.shape):
            raise DataError(
                f"{name}: the net gave {tuple(found.shape)} for token ids {tuple(examples.shape)}; a source of text "
                "expects logits (B, T, tokens) of the next token: give examples= alone to judge classes, or "
                "measures=margins,rank for a net without a head"
            )
        if given.vocabulary is not None and found.shape[2] < given.vocabulary:
            raise DataError(
                f"{name}: the net has {found.shape[2]} tokens and the tokenizer {given.vocabulary}; give "
                "tokenizer=PATH, the tokenizer.json that the net was trained with"
            )
        return
    if found.ndim != 2 or len(found) != len(examples):
        raise DataError(
            f"{name}: the net gave {tuple(found.shape)} for {_words(examples)}; expected logits ({len(examples)}, "
            "classes); measures=margins,rank need no head"
        )
    if given.classes is not None and found.shape[1] != len(given.classes):
        listed = ", ".join(given.classes[:10]) + (", ..." if len(given.classes) > 10 else "")
        raise DataError(
            f"{name}: the net has {found.shape[1]} outputs and the data {len(given.classes)} classes ({listed}); give "
            "data of the classes that the net tells apart, and classes= in the order of its outputs; or "
            "measures=margins,rank, which need no head"
        )


def _check_order(
    candidates: Candidates,
    net: nn.Module,
    answer: Callable[[nn.Module, Tensor], Tensor],
    found: Tensor,
    examples: Tensor,
) -> None:
    """Raise DataError where logits of next tokens (B, T, V) depend on later tokens: they may copy what they predict."""
    if candidates.given.judged.test.labels.ndim < 2 or examples.shape[1] < 2:
        return
    other = examples.clone()
    other[:, -1] = (other[:, -1] + 1) % (candidates.given.vocabulary or 2)
    with torch.no_grad():
        again = answer(net, other)
    if (found - again)[:, :-1].abs().max() > SAME * found.abs().max():
        raise DataError(
            f"{candidates.name}: its answers depend on later tokens, as those of a net that fills in masked tokens do; "
            "accuracy of the next token would mean nothing. Give measures=margins,rank, which read hidden states alone"
        )


def _pools(
    candidates: Candidates, shapes: Sequence[tuple[str, tuple[int, ...]]], chosen: Sequence[str], num_examples: int
) -> tuple[Pools, Pools]:
    """Return how states are pooled for probes and for ranks: of texts, ranks are those of the last token."""
    given, own = candidates.given, candidates.group.pool
    if own is None and given.pool is not None and given.rank_pool is not None:
        return given.pool, given.rank_pool
    pool = taps.pools(shapes, chosen, own, num_examples=num_examples)
    if given.judged.padding is None or own is not None:
        return pool, pool
    return pool, {name: "last_token" if each == "mean_tokens" else each for name, each in pool.items()}

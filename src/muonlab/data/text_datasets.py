"""Texts as data sets: next tokens of a text, and labelled passages as rows of one length; both corrupted."""

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from muonlab.data.dataset import DATA_SEED, SPLITS, Examples, Lazy, Sheet
from muonlab.data.examples import split
from muonlab.data.sources import DataError
from muonlab.data.text import Passages, Text
from muonlab.data.tokens import Tokenizer
from muonlab.measure.corrupt_text import CORRUPTIONS, corrupt

HELD_OUT = 0.1  # share of a text's characters, for validation and for test each
PIECE = 500  # characters of a text that are corrupted together
SHEET_WIDTH = 80  # characters


def cut(text: str, source: str) -> tuple[str, str, str]:
    """Return the beginning of a text, the part after it and its end: train, validation and test; together the whole."""
    held_out = round(HELD_OUT * len(text))
    first, second = len(text) - 2 * held_out, len(text) - held_out
    if min(held_out, first) < 1:
        raise DataError(f"{source} has {len(text)} characters, too few for three parts; give a longer text")
    return text[:first], text[first:second], text[second:]


def windows(text: str, length: int, source: str, encoder: Tokenizer) -> list[Tensor]:
    """Return the windows of each part of a text, (windows, T + 1) int64: the first T are inputs, the last T targets.

    Within a part, a window's last token is the next one's first, so that every token but the first is a target once. No
    window crosses from one part into another. What is left at the end of a part is dropped: at most T tokens.

    Args:
        text: the whole.
        length: T.
        source: where the text is from, for messages.
        encoder: makes the tokens.

    Raises:
        DataError: a length below 1, or a part too short for one window.
    """
    if length < 1:
        raise DataError(f"length={length} is too small; expected windows of at least 1 token")
    parts = []
    for name, part in zip(SPLITS, cut(text, source), strict=True):
        tokens = encoder.encode(part)
        if len(tokens) < length + 1:
            raise DataError(
                f"the {name} part of {source} has {len(tokens)} tokens, but one window of length={length} needs "
                f"{length + 1}; give a longer text, or a smaller length"
            )
        parts.append(tokens.unfold(0, length + 1, length))  # (windows, T + 1)
    return parts


def pad(texts: Sequence[str], length: int, encoder: Tokenizer) -> Tensor:
    """Return texts as rows of T tokens, (N, T) int64, cut where they are longer and filled up where they are shorter.

    Raises:
        DataError: a length below 1, or a text without a token.
    """
    if length < 1:
        raise DataError(f"length={length} is too small; expected examples of at least 1 token")
    inputs = torch.full((len(texts), length), encoder.padding, dtype=torch.int64)
    for row, text in enumerate(texts):
        tokens = encoder.encode(text)
        if not len(tokens):
            raise DataError(f"example {row}, {text[:40]!r}, has no token; leave it out")
        inputs[row, : len(tokens)] = tokens[:length]
    return inputs


class TextDataset(Lazy):
    """Next tokens of a text: inputs and labels (N, T), of windows of it. The end of the text is the test split.

    Under a corruption, contexts and next tokens are those of the corrupted text, some of which nobody could predict.

    Args:
        source: the text.
        length: T.
        encoder: makes the tokens.

    Raises:
        DataError: when a split is read, a part that is too short for one window.
    """

    corruptions = CORRUPTIONS

    def __init__(self, source: Text, length: int, encoder: Tokenizer):
        self.source, self._length, self._encoder = source, length, encoder
        self.padding: int | None = encoder.padding
        self.sizes = {"vocabulary": encoder.vocabulary}

    def __str__(self) -> str:
        return str(self.source)

    @cached_property
    def _splits(self) -> list[Examples]:
        generator = torch.Generator().manual_seed(DATA_SEED)
        parts = windows(self.source.text, self._length, self.source.source, self._encoder)
        orders = [part[torch.randperm(len(part), generator=generator)] for part in parts]  # (N, T + 1) each
        return [Examples(rows[:, :-1], rows[:, 1:]) for rows in orders]

    def corrupted(self, name: str, severity: int, number: int) -> Examples:
        """Return the first windows of the test text under a corruption.

        Raises:
            DataError: it leaves too little for one.
        """
        length = self._length
        _, _, held_out = cut(self.source.text, self.source.source)
        pieces, num_tokens = [], 0
        for index, start in enumerate(range(0, len(held_out), PIECE)):
            if num_tokens - 2 * len(pieces) > number * length:  # where pieces are joined there may be fewer tokens
                break
            pieces.append(corrupt(held_out[start : start + PIECE], name, severity, seed=DATA_SEED, index=index))
            num_tokens += len(self._encoder.encode(pieces[-1]))
        tokens = self._encoder.encode("".join(pieces))
        if len(tokens) < length + 1:
            raise DataError(
                f"{name} at severity {severity} leaves {len(tokens)} tokens of the test part of {self.source.source}, "
                f"but one window of length={length} needs {length + 1}; give a longer text or a smaller length"
            )
        rows = tokens.unfold(0, length + 1, length)[:number]  # (N, T + 1)
        return Examples(rows[:, :-1], rows[:, 1:])

    def sheet(self) -> Sheet:
        """Return the beginning of the test text under every corruption."""
        return _sheet(cut(self.source.text, self.source.source)[2][: 10 * SHEET_WIDTH], index=0)


class PassageDataset(Lazy):
    """Texts of some classes: inputs (N, T) and labels (N,).

    Args:
        passages: all of them.
        length: T, to which they are cut or filled up.
        encoder: makes the tokens.

    Raises:
        DataError: when a split is read, a class with too few texts.
    """

    corruptions = CORRUPTIONS

    def __init__(self, passages: Passages, length: int, encoder: Tokenizer):
        self.passages, self._length, self._encoder = passages, length, encoder
        self.padding: int | None = encoder.padding
        self.classes = passages.classes
        self.sizes = {"vocabulary": encoder.vocabulary, "classes": len(self.classes), "padding": encoder.padding}

    def __str__(self) -> str:
        return str(self.passages)

    @cached_property
    def _rows(self) -> list[Tensor]:
        generator = torch.Generator().manual_seed(DATA_SEED)
        parts = split(self.passages, validation=0.15, test=0.25, seed=DATA_SEED)
        return [rows[torch.randperm(len(rows), generator=generator)] for rows in parts]

    def _examples(self, texts: list[str], rows: Tensor) -> Examples:
        return Examples(pad(texts, self._length, self._encoder), self.passages.labels[rows])

    @cached_property
    def _splits(self) -> list[Examples]:
        return [self._examples([self.passages.texts[row] for row in rows.tolist()], rows) for rows in self._rows]

    def corrupted(self, name: str, severity: int, number: int) -> Examples:
        """Return the first test texts under a corruption."""
        rows = self._rows[2][:number]
        texts = [
            corrupt(self.passages.texts[row], name, severity, seed=DATA_SEED, index=row) or " " for row in rows.tolist()
        ]
        return self._examples(texts, rows)

    def sheet(self) -> Sheet:
        """Return the first test text under every corruption."""
        row = int(self._rows[2][0])
        return _sheet(self.passages.texts[row], index=row)


def _sheet(whole: str, index: int) -> Sheet:
    """Return the beginning of a text under every corruption, as a line each."""
    words = " ".join(whole.split())[:SHEET_WIDTH]
    lines = tuple(
        tuple(corrupt(words, name, severity, seed=DATA_SEED, index=index) for severity in range(6))
        for name in CORRUPTIONS
    )
    return Sheet(CORRUPTIONS, tuple(map(str, range(6))), lines=lines)

"""Texts as data sets: next tokens of a text, and labelled passages as rows of one length; both corrupted."""

from functools import cached_property

import torch
from torch import Tensor

from muonlab.data import text
from muonlab.data.dataset import DATA_SEED, Examples, Sheet
from muonlab.data.sources import DataError
from muonlab.data.text import Passages, Text
from muonlab.data.tokens import Tokenizer
from muonlab.data.windows import cut
from muonlab.measure.corrupt_text import CORRUPTIONS, corrupt

PIECE = 500  # characters of a text that are corrupted together
SHEET_WIDTH = 80  # characters


class TextDataset:
    """Next tokens of a text: inputs and labels (N, T), of windows of it. The end of the text is the test split.

    Under a corruption, contexts and next tokens are those of the corrupted text, some of which nobody could predict.

    Args:
        source: the text.
        length: T.
        tokenizer: its name or path.
        encoder: what that names.

    Raises:
        DataError: when a split is read, a part that is too short for one window.
    """

    corruptions = CORRUPTIONS

    def __init__(self, source: Text, length: int, tokenizer: str, encoder: Tokenizer):
        self.source, self._length, self._tokenizer, self._encoder = source, length, tokenizer, encoder
        self.padding: int | None = encoder.padding
        self.sizes = {"vocabulary": encoder.vocabulary}

    def __str__(self) -> str:
        return str(self.source)

    @cached_property
    def _splits(self) -> list[Examples]:
        windows = text.windows(self.source.text, self._length, self.source.source, tokenizer=self._tokenizer)
        generator = torch.Generator().manual_seed(DATA_SEED)
        orders = [
            part[torch.randperm(len(part), generator=generator)]
            for part in (windows.train, windows.validation, windows.test)
        ]  # (N, T + 1) each
        return [Examples(rows[:, :-1], rows[:, 1:]) for rows in orders]

    @property
    def train(self) -> Examples:
        """Windows to train on."""
        return self._splits[0]

    @property
    def validation(self) -> Examples:
        """Windows to choose by."""
        return self._splits[1]

    @property
    def test(self) -> Examples:
        """Windows to test on."""
        return self._splits[2]

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
        windows = tokens.unfold(0, length + 1, length)[:number]  # (N, T + 1)
        return Examples(windows[:, :-1], windows[:, 1:])

    def sheet(self) -> Sheet:
        """Return the beginning of the test text under every corruption."""
        return _sheet(cut(self.source.text, self.source.source)[2][: 10 * SHEET_WIDTH], index=0)


class PassageDataset:
    """Texts of some classes: inputs (N, T) and labels (N,).

    Args:
        passages: all of them.
        length: T, to which they are cut or filled up.
        encoder: what makes the tokens.

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
        """Rows of the texts of train, validation and test."""
        split = text.split(self.passages, validation=0.15, test=0.25, seed=DATA_SEED)
        generator = torch.Generator().manual_seed(DATA_SEED)
        parts = (split.train, split.validation, split.test)
        return [rows[torch.randperm(len(rows), generator=generator)] for rows in parts]

    def _examples(self, texts: list[str], rows: Tensor) -> Examples:
        return Examples(text.pad(texts, self._length, self._encoder).inputs, self.passages.labels[rows])

    @cached_property
    def _splits(self) -> list[Examples]:
        return [self._examples([self.passages.texts[row] for row in rows.tolist()], rows) for rows in self._rows]

    @property
    def train(self) -> Examples:
        """Texts to train on."""
        return self._splits[0]

    @property
    def validation(self) -> Examples:
        """Texts to choose by."""
        return self._splits[1]

    @property
    def test(self) -> Examples:
        """Texts to test on."""
        return self._splits[2]

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

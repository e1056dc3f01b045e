"""A text as windows of tokens, and labelled texts as rows of one length; both corrupted."""

from functools import cached_property

import torch
from torch import Tensor

from muonlab.data import text
from muonlab.data.sources import DataError
from muonlab.data.text import Passages, Text
from muonlab.data.tokens import Tokenizer
from muonlab.data.windows import cut
from muonlab.measure.corrupt_text import CORRUPTIONS, corrupt
from muonlab.studies.features.work.material import DATA_SEED, Set, Sets, Sheet

PIECE = 500  # characters of a text that are corrupted together
SHEET_WIDTH = 80  # characters


class Corpus:
    """Next tokens of a text.

    Args:
        source: the text.
        length: T.
        tokenizer: its name or path.
        encoder: what that names.
    """

    def __init__(self, source: Text, length: int, tokenizer: str, encoder: Tokenizer):
        self.source, self._length, self._tokenizer, self._encoder = source, length, tokenizer, encoder

    @cached_property
    def sets(self) -> Sets:
        """Inputs and labels (N, T): the end of the text is the test part.

        Raises:
            DataError: a part is too short for one window.
        """
        windows = text.windows(self.source.text, self._length, self.source.source, tokenizer=self._tokenizer)
        generator = torch.Generator().manual_seed(DATA_SEED)
        orders = [
            part[torch.randperm(len(part), generator=generator)]
            for part in (windows.train, windows.validation, windows.test)
        ]
        train, validation, test = (Set(rows[:, :-1], rows[:, 1:]) for rows in orders)
        counts = test.labels.flatten().bincount()
        return Sets(train, validation, test, chance=counts.max().item() / int(counts.sum()))

    def corrupted(self, name: str, severity: int, number: int) -> Set:
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
        windows = tokens.unfold(0, length + 1, length)[:number]
        return Set(windows[:, :-1], windows[:, 1:])

    def sheet(self) -> Sheet:
        """Return the beginning of the test text under every corruption."""
        return sheet(cut(self.source.text, self.source.source)[2][: 10 * SHEET_WIDTH], index=0)


class LabelledTexts:
    """Texts of some classes, in three parts, each in a random order.

    Args:
        passages: all of them.
        length: T, to which they are cut or filled up.
        encoder: what makes the tokens.
    """

    def __init__(self, passages: Passages, length: int, encoder: Tokenizer):
        self.passages, self._length, self._encoder = passages, length, encoder

    @cached_property
    def rows(self) -> list[Tensor]:
        """Rows of the texts of train, validation and test."""
        split = text.split(self.passages, validation=0.15, test=0.25, seed=DATA_SEED)
        generator = torch.Generator().manual_seed(DATA_SEED)
        parts = (split.train, split.validation, split.test)
        return [rows[torch.randperm(len(rows), generator=generator)] for rows in parts]

    @cached_property
    def sets(self) -> Sets:
        """Inputs (N, T) and classes (N,)."""
        train, validation, test = (
            Set(self._padded([self.passages.texts[row] for row in rows.tolist()]), self.passages.labels[rows])
            for rows in self.rows
        )
        return Sets(train, validation, test, chance=test.labels.bincount().max().item() / len(test.labels))

    def _padded(self, texts: list[str]) -> Tensor:
        return text.pad(texts, self._length, self._encoder).inputs

    def corrupted(self, name: str, severity: int, number: int) -> Set:
        """Return the first test texts under a corruption."""
        rows = self.rows[2][:number].tolist()
        texts = [corrupt(self.passages.texts[row], name, severity, seed=DATA_SEED, index=row) or " " for row in rows]
        return Set(self._padded(texts), self.passages.labels[rows])

    def sheet(self) -> Sheet:
        """Return the first test text under every corruption."""
        row = int(self.rows[2][0])
        return sheet(self.passages.texts[row], index=row)


def sheet(whole: str, index: int) -> Sheet:
    """Return the beginning of a text under every corruption, as a line each."""
    words = " ".join(whole.split())[:SHEET_WIDTH]
    lines = tuple(
        tuple(corrupt(words, name, severity, seed=DATA_SEED, index=index) for severity in range(6))
        for name in CORRUPTIONS
    )
    return Sheet(CORRUPTIONS, tuple(map(str, range(6))), lines=lines)

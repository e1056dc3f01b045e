"""Token ids as networks take them: windows of a text for language modelling, padded examples for classification."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from muonlab.data.sources import DataError
from muonlab.data.tokens import Tokenizer, build


@dataclass(frozen=True, eq=False)
class Windows:
    """Windows of a text in three parts that follow each other: (windows, T + 1) token ids each, int64.

    The first T of a window are the inputs, the last T the targets. Within a part, a window's last token is the next
    one's first, so that every token but the first is a target once. No window crosses from one part into another.

    Attributes:
        train: windows to train on.
        validation: windows to choose settings by.
        test: windows to report.
        tokenizer: what made the ids; of "characters", with those of the train part alone.
    """

    train: Tensor
    validation: Tensor
    test: Tensor
    tokenizer: Tokenizer


@dataclass(frozen=True, eq=False)
class Padded:
    """Texts as rows of one length.

    Attributes:
        inputs: (N, T) token ids, int64, filled up with `Tokenizer.padding` at the end.
        lengths: (N,) number of tokens that are no padding, 1 to T, int64.
        num_truncated: number of texts that were longer than T.
    """

    inputs: Tensor
    lengths: Tensor
    num_truncated: int


def cut(text: str, source: str, *, validation: float = 0.1, test: float = 0.1) -> tuple[str, str, str]:
    """Return the beginning of a text, the part after it and its end: train, validation and test; together it again.

    Args:
        text: the whole.
        source: where it is from, for messages.
        validation: share of the characters, in (0, 1).
        test: share of the characters, in (0, 1).

    Raises:
        DataError: a share out of range, shares that leave nothing to train on, or too few characters for them.
    """
    if not (0 < validation < 1 and 0 < test < 1 and validation + test < 1):
        raise DataError(
            f"validation={validation} and test={test} are out of range; expected shares above 0, below 1 together"
        )
    num_validation, num_test = round(validation * len(text)), round(test * len(text))
    first, second = len(text) - num_validation - num_test, len(text) - num_test
    if min(num_validation, num_test, first) < 1:
        raise DataError(
            f"{source} has {len(text)} characters, too few for validation={validation} and test={test}; give a longer "
            "text"
        )
    return text[:first], text[first:second], text[second:]


def windows(
    text: str,
    length: int,
    source: str = "the text",
    *,
    tokenizer: str | Path = "bytes",
    validation: float = 0.1,
    test: float = 0.1,
) -> Windows:
    """Return a text as windows for language modelling. What is left at the end of a part is dropped: at most T tokens.

    Args:
        text: the whole.
        length: T, the number of inputs and of targets in a window.
        source: where the text is from, for messages.
        tokenizer: "bytes", "characters" or the path of a tokenizer.json.
        validation: share of the characters, in (0, 1).
        test: share of the characters, in (0, 1).

    Raises:
        DataError: a length below 1, shares out of range, an unknown tokenizer, or a part too short for one window.
    """
    if length < 1:
        raise DataError(f"length={length} is too small; expected windows of at least 1 token")
    texts = cut(text, source, validation=validation, test=test)
    maker = build(tokenizer, texts[:1])
    parts = []
    for name, part in zip(("train", "validation", "test"), texts, strict=True):
        tokens = maker.encode(part)
        if len(tokens) < length + 1:
            raise DataError(
                f"the {name} part of {source} has {len(tokens)} tokens, but one window of length={length} needs "
                f"{length + 1}; give a longer text, a smaller length or a larger share"
            )
        parts.append(tokens.unfold(0, length + 1, length).contiguous())  # (windows, T + 1)
    return Windows(*parts, tokenizer=maker)


def pad(texts: Sequence[str], length: int, tokenizer: Tokenizer) -> Padded:
    """Return texts as rows of T tokens, cut where they are longer and filled up where they are shorter.

    Args:
        texts: (N,) texts.
        length: T.
        tokenizer: what makes the ids; one of characters is made of the texts trained on alone.

    Raises:
        DataError: a length below 1, or a text without a token.
    """
    if length < 1:
        raise DataError(f"length={length} is too small; expected examples of at least 1 token")
    inputs = torch.full((len(texts), length), tokenizer.padding, dtype=torch.int64)
    lengths = torch.zeros(len(texts), dtype=torch.int64)
    num_truncated = 0
    for row, text in enumerate(texts):
        tokens = tokenizer.encode(text)
        if not len(tokens):
            raise DataError(f"example {row}, {text[:40]!r}, has no token; leave it out")
        num_truncated += len(tokens) > length
        lengths[row] = min(len(tokens), length)
        inputs[row, : len(tokens)] = tokens[:length]
    return Padded(inputs, lengths, num_truncated)

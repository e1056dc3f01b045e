"""Texts to token ids and back: bytes, characters, or a tokenizer of Hugging Face's package `tokenizers`."""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from muonlab.data.sources import DataError, check_name, existing, package

TOKENIZERS = ("bytes", "characters")


class Tokenizer(Protocol):
    """A map from texts to token ids and back.

    Attributes:
        vocabulary: number of token ids, `padding` included.
        padding: the id that fills up a short example; never of a text.
    """

    vocabulary: int
    padding: int

    def encode(self, text: str) -> Tensor:
        """Return (T,) token ids, int64."""
        ...

    def decode(self, tokens: Tensor) -> str:
        """Return the text of (T,) token ids, padding left out."""
        ...


def _ids(data: bytes, dtype: torch.dtype) -> Tensor:
    """Return the numbers that bytes hold, as int64; torch.frombuffer refuses an empty buffer."""
    return torch.frombuffer(bytearray(data), dtype=dtype).long() if data else torch.empty(0, dtype=torch.int64)


class Bytes:
    """The bytes of UTF-8: ids 0 to 255, and 256 for padding."""

    vocabulary = 257
    padding = 256

    def encode(self, text: str) -> Tensor:
        """Return the bytes of a text, (T,) int64; a lone surrogate, which UTF-8 lacks, is "?"."""
        return _ids(text.encode("utf-8", "replace"), torch.uint8)

    def decode(self, tokens: Tensor) -> str:
        """Return the text of (T,) ids, padding left out, U+FFFD for invalid UTF-8 (such as half a character)."""
        return bytes(tokens[tokens != self.padding].tolist()).decode("utf-8", "replace")


class Characters:
    """Characters of some texts, by code point: ids 0, 1, ...; then one for all others ("unknown"), and one for padding.

    Args:
        texts: those that have the characters: the texts trained on, not those tested on.

    Raises:
        DataError: they have no characters.
    """

    def __init__(self, texts: Iterable[str]):
        self.characters = "".join(sorted(set().union(*texts)))
        if not self.characters:
            raise DataError("there are no characters to make a vocabulary of; expected a text that is not empty")
        self._points = _code_points(self.characters)
        self.unknown = len(self.characters)
        self.padding, self.vocabulary = self.unknown + 1, self.unknown + 2

    def encode(self, text: str) -> Tensor:
        """Return the ids of a text's characters, (T,) int64."""
        points = _code_points(text)
        ids = torch.searchsorted(self._points, points).clamp(max=self.unknown - 1)
        return torch.where(self._points[ids] == points, ids, self.unknown)

    def decode(self, tokens: Tensor) -> str:
        """Return the text of (T,) ids, padding left out, U+FFFD for unknown characters."""
        return "".join(f"{self.characters}\ufffd"[token] for token in tokens.tolist() if token != self.padding)


def _code_points(text: str) -> Tensor:
    order = "le" if sys.byteorder == "little" else "be"
    return _ids(text.encode(f"utf-32-{order}", "surrogatepass"), torch.int32)


class Trained:
    """A tokenizer in a file of the package `tokenizers`, such as the tokenizer.json of a model, and an id for padding.

    Raises:
        DataError: no such file, the package is not installed, or it cannot read the file.
    """

    def __init__(self, path: str | Path):
        place = existing(path)
        tokenizers = package("tokenizers", "tokenizers", f"the tokenizer in {path}")
        try:
            self._inner: Any = tokenizers.Tokenizer.from_file(str(place))
        except Exception as error:  # the package raises Exception itself
            raise DataError(f"{path} cannot be read as a tokenizer ({error}); expected a tokenizer.json") from error
        self._inner.no_padding()
        self._inner.no_truncation()
        self.padding = max(self._inner.get_vocab().values(), default=-1) + 1  # the size, unless it has gaps
        self.vocabulary = self.padding + 1

    def encode(self, text: str) -> Tensor:
        """Return the ids of a text's tokens, (T,) int64, without special tokens around them."""
        return torch.tensor(self._inner.encode(text, add_special_tokens=False).ids, dtype=torch.int64)

    def decode(self, tokens: Tensor) -> str:
        """Return the text of (T,) ids, padding left out, as the tokenizer has it (not always the text it came from)."""
        return self._inner.decode(tokens[tokens != self.padding].tolist())


def build(name: str | Path, texts: Iterable[str]) -> Tokenizer:
    """Return a tokenizer.

    Args:
        name: "bytes", "characters", or the path of a tokenizer.json.
        texts: the texts trained on, whose characters "characters" takes.

    Raises:
        DataError: an unknown name, or a file that cannot be read.
    """
    if str(name) == "bytes":
        return Bytes()
    if str(name) == "characters":
        return Characters(texts)
    if not str(name).endswith(".json"):
        check_name("tokenizer", str(name), TOKENIZERS, "expected the path of a tokenizer.json or one of")
    return Trained(name)

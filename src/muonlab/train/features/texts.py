"""A text to pretrain a language model on, another to transfer to, and labelled texts to probe with and transfer to."""

from functools import cached_property, partial

import torch
from torch import Tensor

from muonlab.measure.corrupt_text import CORRUPTIONS, corrupt
from muonlab.nets.gpt import GPT
from muonlab.runs.features import Family, GPTConfig, TextData
from muonlab.tasks import text
from muonlab.tasks.sources import DataError
from muonlab.tasks.text import Passages, Text
from muonlab.tasks.tokens import Tokenizer, build
from muonlab.tasks.windows import cut
from muonlab.train.features.material import DATA_SEED, Probing, Set, Sheet, Task

PIECE = 500  # characters of a text that are corrupted together


class TextMaterial:
    """What the nets of a text family are trained, probed and corrupted on.

    The accuracy of a language model is that of the next token. Under a corruption, contexts and next tokens are those
    of the corrupted text, some of which nobody could foresee: the same for every optimizer.

    Raises:
        DataError: what is wrong with the files.
    """

    corruptions = CORRUPTIONS

    def __init__(self, family: Family):
        assert isinstance(family.data, TextData)
        assert isinstance(family.net, GPTConfig)
        self._net, self._data = family.net, family.data
        data = self._data
        self._text = text.language(data.source, limit=data.limit)
        self._other = text.language(data.transfer_source, limit=data.transfer_limit)
        self._passages: Passages = text.examples(
            data.examples,
            test=data.examples_test,
            per_class=data.per_class,
            test_per_class=data.test_per_class,
            seed=DATA_SEED,
        )
        self._tokenizer: Tokenizer = build(data.tokenizer, ())

    @property
    def notes(self) -> tuple[str, ...]:
        """What was read, and what was left out."""
        overlap = "; some of these passages may stand in the text pretrained on, for every optimizer alike"
        return (
            f"pretrained on {self._text}",
            f"transferred to {self._other}",
            f"probed with, and transferred to, {self._passages}"
            + overlap * ((self._data.source, self._data.examples) == ("sources", "packages")),
        )

    def pretraining(self) -> Task:
        """Return the next token of the text."""
        return self._language(self._text)

    def transfer(self, task: str) -> Task:
        """Return the next token of the other text, or the classes of the labelled texts."""
        if task == "language":
            return self._language(self._other)
        classes = len(self._passages.classes)
        build_classifier = partial(build_net, self._net, self._tokenizer, classes)
        train, validation, test = self._labelled
        chance = test.labels.bincount().max().item() / len(test.labels)
        return Task(train, validation, test, build_classifier, chance)

    def _language(self, source: Text) -> Task:
        windows = text.windows(source.text, self._data.length, source.source, tokenizer=self._data.tokenizer)
        generator = torch.Generator().manual_seed(DATA_SEED)
        orders = [
            part[torch.randperm(len(part), generator=generator)]
            for part in (windows.train, windows.validation, windows.test)
        ]
        train, validation, test = (Set(rows[:, :-1], rows[:, 1:]) for rows in orders)
        counts = test.labels.flatten().bincount()
        chance = counts.max().item() / int(counts.sum())
        return Task(train, validation, test, partial(build_net, self._net, self._tokenizer, None), chance)

    @cached_property
    def _rows(self) -> list[Tensor]:
        """Rows of the labelled texts of train, validation and test, each in a random order."""
        split = text.split(self._passages, validation=0.15, test=0.25, seed=DATA_SEED)
        generator = torch.Generator().manual_seed(DATA_SEED)
        parts = (split.train, split.validation, split.test)
        return [rows[torch.randperm(len(rows), generator=generator)] for rows in parts]

    @cached_property
    def _labelled(self) -> list[Set]:
        return [
            Set(self._padded([self._passages.texts[row] for row in rows.tolist()]), self._passages.labels[rows])
            for rows in self._rows
        ]

    def _padded(self, texts: list[str]) -> Tensor:
        return text.pad(texts, self._data.length, self._tokenizer).inputs

    def probing(self) -> Probing:
        """Return the labelled texts."""
        train, validation, test = self._labelled
        padding = self._tokenizer.padding
        return Probing(train, validation, test, pool="mean_tokens", rank_pool="last_token", padding=padding)

    def corrupted(self, name: str, severity: int, number: int) -> tuple[Set, Set]:
        """Return the first windows of the test text, and the first labelled test texts, under a corruption."""
        length = self._data.length
        _, _, held_out = cut(self._text.text, self._text.source)
        pieces, num_tokens = [], 0
        for index, start in enumerate(range(0, len(held_out), PIECE)):
            if num_tokens - 2 * len(pieces) > number * length:  # where pieces are joined there may be fewer tokens
                break
            pieces.append(corrupt(held_out[start : start + PIECE], name, severity, seed=DATA_SEED, index=index))
            num_tokens += len(self._tokenizer.encode(pieces[-1]))
        tokens = self._tokenizer.encode("".join(pieces))
        if len(tokens) < length + 1:
            raise DataError(
                f"{name} at severity {severity} leaves {len(tokens)} tokens of the test part of {self._text.source}, "
                f"but one window of length={length} needs {length + 1}; give a longer text or a smaller length"
            )
        windows = tokens.unfold(0, length + 1, length)[:number]
        rows = self._rows[2][:number].tolist()
        texts = [corrupt(self._passages.texts[row], name, severity, seed=DATA_SEED, index=row) or " " for row in rows]
        labelled = Set(self._padded(texts), self._passages.labels[rows])
        return Set(windows[:, :-1], windows[:, 1:]), labelled

    def sheet(self) -> Sheet:
        """Return the first labelled test text under every corruption."""
        row = int(self._rows[2][0])
        words = " ".join(self._passages.texts[row].split())[:80]
        lines = tuple(
            tuple(corrupt(words, name, severity, seed=DATA_SEED, index=row) for severity in range(6))
            for name in CORRUPTIONS
        )
        return Sheet(CORRUPTIONS, tuple(map(str, range(6))), lines=lines)


def build_net(net: GPTConfig, tokenizer: Tokenizer, classes: int | None) -> GPT:
    """Return a language model, or a classifier of texts."""
    fields = net.model_dump(exclude={"kind"})
    if classes is None:
        return GPT(tokenizer.vocabulary, **fields)
    return GPT(tokenizer.vocabulary, classes, padding=tokenizer.padding, **fields)

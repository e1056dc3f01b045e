"""A text to pretrain a language model on, another to transfer to, and labelled texts to probe with and transfer to."""

from functools import partial

from muonlab.data import text
from muonlab.data.tokens import Tokenizer, build
from muonlab.measure.corrupt_text import CORRUPTIONS
from muonlab.nets.gpt import GPT
from muonlab.studies.features.config import Family, GPTConfig, TextData
from muonlab.studies.features.work.material import DATA_SEED, Probing, Set, Sets, Sheet, Task
from muonlab.studies.features.work.writings import Corpus, LabelledTexts


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
        self._tokenizer: Tokenizer = build(data.tokenizer, ())
        self._text, self._other = (
            Corpus(text.language(source, limit=limit), data.length, data.tokenizer, self._tokenizer)
            for source, limit in ((data.source, data.limit), (data.transfer_source, data.transfer_limit))
        )
        passages = text.examples(
            data.examples,
            test=data.examples_test,
            per_class=data.per_class,
            test_per_class=data.test_per_class,
            seed=DATA_SEED,
        )
        self._labelled = LabelledTexts(passages, data.length, self._tokenizer)

    @property
    def notes(self) -> tuple[str, ...]:
        """What was read, and what was left out."""
        overlap = "; some of these passages may stand in the text pretrained on, for every optimizer alike"
        return (
            f"pretrained on {self._text.source}",
            f"transferred to {self._other.source}",
            f"probed with, and transferred to, {self._labelled.passages}"
            + overlap * ((self._data.source, self._data.examples) == ("sources", "packages")),
        )

    def pretraining(self) -> Task:
        """Return the next token of the text."""
        return self._language(self._text)

    def transfer(self, task: str) -> Task:
        """Return the next token of the other text, or the classes of the labelled texts."""
        if task == "language":
            return self._language(self._other)
        return self._task(self._labelled.sets, len(self._labelled.passages.classes))

    def _language(self, windows: Corpus) -> Task:
        return self._task(windows.sets, None)

    def _task(self, sets: Sets, classes: int | None) -> Task:
        build = partial(build_net, self._net, self._tokenizer, classes)
        return Task(sets.train, sets.validation, sets.test, sets.chance, build)

    def probing(self) -> Probing:
        """Return the labelled texts."""
        sets, padding = self._labelled.sets, self._tokenizer.padding
        return Probing(
            sets.train, sets.validation, sets.test, pool="mean_tokens", rank_pool="last_token", padding=padding
        )

    def corrupted(self, name: str, severity: int, number: int) -> tuple[Set, Set]:
        """Return the first windows of the test text, and the first labelled test texts, under a corruption."""
        return self._text.corrupted(name, severity, number), self._labelled.corrupted(name, severity, number)

    def sheet(self) -> Sheet:
        """Return the first labelled test text under every corruption."""
        return self._labelled.sheet()


def build_net(net: GPTConfig, tokenizer: Tokenizer, classes: int | None) -> GPT:
    """Return a language model, or a classifier of texts."""
    fields = net.model_dump(exclude={"kind"})
    if classes is None:
        return GPT(tokenizer.vocabulary, **fields)
    return GPT(tokenizer.vocabulary, classes, padding=tokenizer.padding, **fields)

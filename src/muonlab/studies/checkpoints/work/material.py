"""A user's own images and texts, or those of the feature study, as what nets are judged, probed and corrupted on."""

from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from muonlab.data import images, text
from muonlab.data.sources import DataError
from muonlab.data.tokens import build
from muonlab.measure import corrupt_images, corrupt_text
from muonlab.studies.checkpoints.config import Images, Texts
from muonlab.studies.features.config import Family
from muonlab.studies.features.work.job import build_material
from muonlab.studies.features.work.material import DATA_SEED, Corruptible, Material, Probing, Set, Sets, Sheet
from muonlab.studies.features.work.pictures import Pictures
from muonlab.studies.features.work.writings import Corpus, LabelledTexts


class Given(Corruptible, Protocol):
    """What is inspected on.

    Attributes:
        notes: for the report: what was read, and what was left out.
        classes: names, in the order of the nets' outputs; None where these are tokens.
        vocabulary: number of token ids that texts have, padding left out; None of images.
        padding: token id that marks what is no text; None of images.
    """

    @property
    def notes(self) -> tuple[str, ...]: ...  # noqa: D102

    @property
    def classes(self) -> tuple[str, ...] | None: ...  # noqa: D102

    @property
    def vocabulary(self) -> int | None: ...  # noqa: D102

    @property
    def padding(self) -> int | None: ...  # noqa: D102

    def judged(self) -> Sets:
        """Return what nets answer."""
        ...

    def probed(self) -> Sets | None:
        """Return labelled examples whose states are probed, None without; windows of a text have no labels."""
        ...

    def transfer(self) -> Sets | None:
        """Return other classes for a linear probe; None without."""
        ...

    def sheet(self) -> Sheet:
        """Return an example under every corruption."""
        ...


class GivenImages:
    """Images of a user's.

    Raises:
        DataError: what is wrong with the files or the choice of classes.
    """

    corruptions = corrupt_images.CORRUPTIONS
    vocabulary = padding = None

    def __init__(self, data: Images):
        chosen = images.load(
            data.source,
            test=data.test,
            size=data.size,
            classes=data.classes,
            per_class=data.per_class,
            test_per_class=data.test_per_class,
            seed=DATA_SEED,
        )
        channels, height, width = chosen.images.shape[1:]
        if height != width:
            raise DataError(f"{data.source} has images of {height} x {width}; expected squares: give size=SIDE")
        if data.mean is not None and len(data.mean) != channels:
            raise DataError(f"mean has {len(data.mean)} numbers; expected one for each of {channels} channels")
        scaling = None
        if data.mean is not None and data.deviation is not None:
            scaling = tuple(torch.tensor(levels).view(1, -1, 1, 1) for levels in (data.mean, data.deviation))
        self._data, self.classes = data, chosen.classes
        self._own = self._pictures(chosen, scaling)

    def _pictures(self, chosen: images.Images, scaling: tuple[Tensor, ...] | None) -> Pictures:
        pair = None if scaling is None else (scaling[0], scaling[1])
        return Pictures(chosen, validation=self._data.validation, test_share=self._data.test_share, scaling=pair)

    @cached_property
    def _other(self) -> Pictures | None:
        if self._data.transfer_source is None:
            return None
        size = self._data.size or int(self._own.images.images.shape[-1])
        return self._pictures(images.load(self._data.transfer_source, size=size, seed=DATA_SEED), self._own.scaling)

    @property
    def notes(self) -> tuple[str, ...]:
        """What was read, and what was left out."""
        mean, deviation = (", ".join(f"{level:.3g}" for level in each.flatten().tolist()) for each in self._own.scaling)
        whose = "those of the images that probes are fitted on" if self._data.mean is None else "as given"
        found = (str(self._own.images), f"standardised by mean {mean} and deviation {deviation}, {whose}")
        return found if self._other is None else (*found, f"transferred to {self._other.images}")

    def judged(self) -> Sets:
        """Return the images."""
        return self._sets

    @cached_property
    def _sets(self) -> Sets:
        return self._own.sets()

    def probed(self) -> Sets:
        """Return the images."""
        return self._sets

    def transfer(self) -> Sets | None:
        """Return the images of other classes."""
        return None if self._other is None else self._other.sets()

    def corrupted(self, name: str, severity: int, number: int) -> tuple[Set, Set]:
        """Return the first test images under a corruption, twice: they are probed with too."""
        found = self._own.corrupted(name, severity, number)
        return found, found

    def sheet(self) -> Sheet:
        """Return the first test image under every corruption."""
        return self._own.sheet()


class GivenTexts:
    """Texts of a user's.

    Args:
        data: as the config has it.
        tokenizer: "bytes" or the path of a tokenizer.json.

    Raises:
        DataError: what is wrong with the files.
    """

    corruptions = corrupt_text.CORRUPTIONS

    def __init__(self, data: Texts, tokenizer: str):
        encoder = build(tokenizer, ())
        self.vocabulary, self.padding = encoder.vocabulary - 1, encoder.padding
        self._tokenizer = tokenizer
        self._text = self._examples = self._other = None
        if data.source is not None:
            whole = text.language(data.source, limit=data.limit)
            self._text = Corpus(whole, data.length, tokenizer, encoder)
        if data.examples is not None:
            passages = text.examples(data.examples, test=data.examples_test, per_class=data.per_class, seed=DATA_SEED)
            self._examples = LabelledTexts(passages, data.length, encoder)
        if data.transfer_source is not None:
            passages = text.examples(data.transfer_source, per_class=data.per_class, seed=DATA_SEED)
            self._other = LabelledTexts(passages, data.length, encoder)

    @property
    def notes(self) -> tuple[str, ...]:
        """What was read, and what was left out."""
        found = [f"tokens of {self._tokenizer}, {self.vocabulary} ids"]
        if self._text is not None:
            found.append(f"next tokens of the last tenth of {self._text.source}")
        if self._examples is not None:
            found.append(f"{'probed' if self._text else 'judged and probed'} with {self._examples.passages}")
        if self._other is not None:
            found.append(f"transferred to {self._other.passages}")
        return tuple(found)

    @property
    def classes(self) -> tuple[str, ...] | None:
        """Names of the classes of the labelled texts, where there is no text whose tokens are foretold."""
        return None if self._text is not None or self._examples is None else self._examples.passages.classes

    def judged(self) -> Sets:
        """Return windows of the text with the next tokens, or the labelled texts where there is no text."""
        return (self._text or self._labelled).sets

    @property
    def _labelled(self) -> LabelledTexts:
        assert self._examples is not None  # the schema asks for one of the two
        return self._examples

    def probed(self) -> Sets | None:
        """Return the labelled texts."""
        return None if self._examples is None else self._examples.sets

    def transfer(self) -> Sets | None:
        """Return the other labelled texts."""
        return None if self._other is None else self._other.sets

    def corrupted(self, name: str, severity: int, number: int) -> tuple[Set, Set]:
        """Return the first examples of those judged, and of those probed, under a corruption."""
        sides = (self._text or self._labelled, self._examples or self._text)
        first, second = (side.corrupted(name, severity, number) for side in sides if side is not None)
        return first, second

    def sheet(self) -> Sheet:
        """Return a text under every corruption."""
        return (self._examples or self._text or self._labelled).sheet()


class GivenStudy:
    """What a family of the feature study is measured on.

    Attributes:
        probing: how the study pools hidden states.
    """

    def __init__(self, family: Family):
        self._family = family
        self._material: Material = build_material(family)
        self.probing: Probing = self._material.probing()
        self.corruptions, self.notes = self._material.corruptions, self._material.notes
        self.net, self.build = family.net.kind, self._material.pretraining().build
        self.classes = self.vocabulary = None  # the nets are made for them
        self.padding = self.probing.padding

    def judged(self) -> Sets:
        """Return the task of pretraining."""
        return self._material.pretraining()

    def probed(self) -> Sets:
        """Return what is probed."""
        return Sets(self.probing.train, self.probing.validation, self.probing.test, chance=0.0)

    def transfer(self) -> Sets:
        """Return the classification that is transferred to."""
        return self._material.transfer("classes")

    def corrupted(self, name: str, severity: int, number: int) -> tuple[Set, Set]:
        """Return the first examples of those judged, and of those probed, under a corruption."""
        return self._material.corrupted(name, severity, number)

    def sheet(self) -> Sheet:
        """Return an example under every corruption."""
        return self._material.sheet()

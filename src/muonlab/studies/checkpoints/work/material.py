"""The data sets of an inspection: a user's own images and texts, or those of the feature study."""

from functools import partial

import torch

from muonlab.data import images, text
from muonlab.data.dataset import DATA_SEED
from muonlab.data.image_dataset import ImageDataset
from muonlab.data.sources import DataError
from muonlab.data.text_datasets import PassageDataset, TextDataset
from muonlab.data.tokens import build
from muonlab.studies.checkpoints.config import Data, Images, Texts
from muonlab.studies.features.work import material
from muonlab.studies.features.work.material import Material


def open_data(data: Data, tokenizer: str | None = None) -> Material:
    """Return what models are inspected on.

    Args:
        data: as the config has it.
        tokenizer: of texts, where they name none: "bytes" or the path of a tokenizer.json.

    Raises:
        DataError: what is wrong with the files or the choice of classes.
    """
    if data.kind == "images":
        return _images(data)
    if data.kind == "text":
        return _texts(data, data.tokenizer or tokenizer or "bytes")
    return material.read(data.family)


def _images(data: Images) -> Material:
    chosen = images.load(
        data.source,
        test=data.test,
        size=data.size,
        classes=data.classes,
        per_class=data.per_class,
        test_per_class=data.test_per_class,
        seed=DATA_SEED,
    )
    channels, side = chosen.images.shape[1:3]
    scaling = None
    if data.mean is not None and data.deviation is not None:
        if len(data.mean) != channels:
            raise DataError(f"mean has {len(data.mean)} numbers; expected one for each of {channels} channels")
        mean, deviation = (torch.tensor(levels).view(1, -1, 1, 1) for levels in (data.mean, data.deviation))
        scaling = mean, deviation
    dataset = partial(ImageDataset, validation=data.validation, test_share=data.test_share)
    own = dataset(chosen, scaling=scaling)
    mean, deviation = (", ".join(f"{level:.3g}" for level in each.flatten().tolist()) for each in own.scaling)
    whose = "those of the images that probes are fitted on" if scaling is None else "as given"
    notes = (str(own), f"standardised by mean {mean} and deviation {deviation}, {whose}")
    if data.transfer_source is None:
        return Material(own, own, {}, notes, classes=own.classes)
    others = images.load(data.transfer_source, size=data.size or int(side), seed=DATA_SEED)
    other = dataset(others, scaling=own)
    return Material(own, own, {"classes": other}, (*notes, f"transferred to {other}"), classes=own.classes)


def _texts(data: Texts, tokenizer: str) -> Material:
    encoder = build(tokenizer, ())
    vocabulary = encoder.vocabulary - 1
    whole = labelled = other = None
    notes = [f"tokens of {tokenizer}, {vocabulary} ids"]
    if data.source is not None:
        whole = TextDataset(text.language(data.source, limit=data.limit), data.length, encoder)
        notes.append(f"next tokens of the last tenth of {whole}")
    if data.examples is not None:
        passages = text.examples(data.examples, test=data.examples_test, per_class=data.per_class, seed=DATA_SEED)
        labelled = PassageDataset(passages, data.length, encoder)
        notes.append(f"{'probed' if whole else 'judged and probed'} with {labelled}")
    if data.transfer_source is not None:
        passages = text.examples(data.transfer_source, per_class=data.per_class, seed=DATA_SEED)
        other = PassageDataset(passages, data.length, encoder)
        notes.append(f"transferred to {other}")
    judged = whole or labelled
    assert judged is not None  # the schema asks for one of the two
    return Material(
        judged,
        labelled,
        {} if other is None else {"classes": other},
        tuple(notes),
        classes=None if whole or labelled is None else labelled.classes,  # in a text the next token is predicted
        vocabulary=vocabulary,
    )

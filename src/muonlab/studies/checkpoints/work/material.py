"""The data sets of an inspection: a user's own images and texts, or those of the feature study."""

from functools import partial

import torch

from muonlab.data import images, records, text
from muonlab.data.dataset import DATA_SEED
from muonlab.data.image_dataset import ImageDataset
from muonlab.data.image_set import with_channels
from muonlab.data.sources import DataError, existing
from muonlab.data.text_datasets import PassageDataset, TextDataset
from muonlab.data.tokens import build
from muonlab.studies.checkpoints.config import STANDARDISED, Data, Images, Texts
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
        **data.model_dump(include={"test", "size", "classes", "per_class", "test_per_class"}),
        seed=DATA_SEED,
    )
    wanted = data.channels or (3 if data.mean is not None and len(data.mean) == 3 else None)
    chosen = with_channels(chosen, wanted)
    channels, side = chosen.images.shape[1:3]  # of (N, C, H, W)
    scaling, whose = None, STANDARDISED
    if data.mean is not None and data.deviation is not None:
        if len(data.mean) not in (1, channels):
            raise DataError(f"mean has {len(data.mean)}, expected one number for each of {channels} channels")
        mean, deviation = (torch.tensor(levels).view(1, -1, 1, 1) for levels in (data.mean, data.deviation))
        scaling, whose = (mean, deviation), "as given"
    dataset = partial(ImageDataset, validation=data.validation, test_share=data.test_share)
    own = dataset(chosen, scaling=scaling)
    mean, deviation = (", ".join(f"{level:.3g}" for level in each.flatten().tolist()) for each in own.scaling)
    notes, transfers = [str(own), f"standardised by mean {mean} and deviation {deviation}, {whose}"], {}
    if data.transfer_source is not None:
        others = images.load(data.transfer_source, size=data.size or int(side), seed=DATA_SEED)
        others = with_channels(others, int(channels))
        transfers = {"classes": dataset(others, scaling=own)}
        notes.append(f"transferred to {transfers['classes']}")
    return Material(own, own, transfers, tuple(notes), classes=own.classes)


def _text(data: Texts) -> text.Text:
    """Return the text whose next tokens are predicted; the column is that of records."""
    assert data.source is not None
    is_file = data.source not in text.LANGUAGE
    column = data.text_column if is_file and records.is_records(existing(data.source, text.LANGUAGE)) else None
    return text.language(data.source, limit=data.limit, text_column=column)


def _texts(data: Texts, tokenizer: str) -> Material:
    encoder = build(tokenizer, ())
    columns = data.model_dump(include={"text_column", "label_column"})

    def labelled(source: str, test: str | None = None) -> PassageDataset:
        passages = text.examples(source, test=test, per_class=data.per_class, seed=DATA_SEED, **columns)
        return PassageDataset(passages, data.length, encoder)

    vocabulary = encoder.vocabulary - 1  # without padding
    whole = probed = None
    transfers, notes = {}, [f"tokens of {tokenizer}, {vocabulary} ids"]
    if data.source is not None:
        whole = TextDataset(_text(data), data.length, encoder)
        notes.append(f"next tokens of the last tenth of {whole}")
    if data.examples is not None:
        probed = labelled(data.examples, data.examples_test)
        notes.append(f"{'probed' if whole else 'judged and probed'} with {probed}")
    if data.transfer_source is not None:
        transfers = {"classes": labelled(data.transfer_source)}
        notes.append(f"transferred to {transfers['classes']}")
    judged = whole or probed
    assert judged is not None  # the schema asks for one of the two
    classes = probed.classes if whole is None and probed is not None else None  # in a text tokens are predicted
    return Material(judged, probed, transfers, tuple(notes), classes=classes, vocabulary=vocabulary)

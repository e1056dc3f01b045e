import numpy as np
import pytest
import torch

from muonlab.data import images as readers
from muonlab.data.sources import DataError
from muonlab.studies.checkpoints.config import Texts
from muonlab.studies.checkpoints.work.material import open_data


def test_classes_are_in_the_order_given(images):
    data = images.model_copy(update={"classes": ("2", "0")})
    given = open_data(data)
    assert given.classes == ("2", "0")
    test = given.judged.test
    digits = readers.digits()
    mean, deviation = given.judged.scaling
    pixels = ((test.inputs[test.labels == 0] * deviation + mean) * 255).round().byte()
    known = {row.numpy().tobytes() for row in digits.images[digits.labels == 2]}
    assert {row.numpy().tobytes() for row in pixels} <= known


def test_levels_that_are_given_are_taken_and_must_fit_the_channels(images):
    given = open_data(images.model_copy(update={"mean": (0.5,), "deviation": (0.25,)}))
    assert given.judged.test.inputs.min() == -2
    assert given.judged.test.inputs.max() == 2
    assert "mean 0.5 and deviation 0.25, as given" in given.notes[1]
    with pytest.raises(DataError, match="mean has 3 numbers; expected one for each of 1 channels"):
        open_data(images.model_copy(update={"mean": (0.5,) * 3, "deviation": (0.25,) * 3}))


def test_images_to_transfer_to_are_standardised_as_the_others(images, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (60, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "a.npz", images=pixels, labels=np.arange(60) % 2)
    own, other = (
        open_data(images),
        open_data(images.model_copy(update={"transfer_source": str(tmp_path / "a.npz")})),
    )
    assert own.transfers == {}
    other = other.transfers["classes"]
    mean, deviation = own.judged.scaling
    found = ((other.test.inputs * deviation + mean) * 255).round().byte()
    assert {row.numpy().tobytes() for row in found} <= {row.tobytes() for row in pixels}
    assert other.test.chance == pytest.approx(0.5, abs=0.1)


def test_a_text_is_judged_by_next_tokens_and_labelled_texts_are_probed(texts):
    source, examples = str(texts / "text.txt"), str(texts / "examples.txt")
    given = open_data(Texts(source=source, examples=examples, length=16))
    assert given.judged.test.kind == "tokens"
    assert given.probed.test.kind == "classes"
    assert given.classes is None
    assert (given.vocabulary, given.judged.padding) == (256, 256)
    windows, labelled = given.corrupted("drop", 0, 5)
    assert windows.inputs.shape == labelled.inputs.shape == (5, 16)
    assert labelled.inputs.equal(given.probed.test.inputs[:5])
    assert given.transfers == {}


def test_without_a_text_labelled_ones_are_judged_and_without_these_windows_have_ranks(texts):
    source, examples = str(texts / "text.txt"), str(texts / "examples.txt")
    classifier = open_data(Texts(examples=examples, transfer_source=examples, length=16))
    assert classifier.classes == ("minus", "plus")
    assert classifier.judged.test.labels.equal(classifier.probed.test.labels)
    first, second = classifier.corrupted("swap", 3, 4)
    assert first.inputs.equal(second.inputs)
    assert classifier.transfers["classes"].test.labels.equal(classifier.probed.test.labels)
    model = open_data(Texts(source=source, length=16))
    assert model.probed is None
    assert torch.equal(*(each.inputs for each in model.corrupted("swap", 3, 4)))
    assert len(model.measured.sheet().lines) == 10

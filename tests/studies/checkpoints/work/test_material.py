import numpy as np
import pytest
import torch

from muonlab.data import images as readers
from muonlab.data.sources import DataError
from muonlab.studies.checkpoints.config import Images, Texts
from muonlab.studies.checkpoints.work.material import GivenImages, GivenTexts


def test_classes_are_in_the_order_given(images):
    data = images.model_copy(update={"classes": ("2", "0")})
    given = GivenImages(data)
    assert given.classes == ("2", "0")
    test = given.judged().test
    digits = readers.digits()
    mean, deviation = given._own.scaling
    pixels = ((test.inputs[test.labels == 0] * deviation + mean) * 255).round().byte()
    known = {row.numpy().tobytes() for row in digits.images[digits.labels == 2]}
    assert {row.numpy().tobytes() for row in pixels} <= known


def test_levels_that_are_given_are_taken_and_must_fit_the_channels(images):
    given = GivenImages(images.model_copy(update={"mean": (0.5,), "deviation": (0.25,)}))
    assert given.judged().test.inputs.min() == -2
    assert given.judged().test.inputs.max() == 2
    assert "mean 0.5 and deviation 0.25, as given" in given.notes[1]
    with pytest.raises(DataError, match="mean has 3 numbers; expected one for each of 1 channels"):
        GivenImages(images.model_copy(update={"mean": (0.5,) * 3, "deviation": (0.25,) * 3}))


def test_images_to_transfer_to_are_standardised_as_the_others(images, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (60, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "a.npz", images=pixels, labels=np.arange(60) % 2)
    own, other = (
        GivenImages(images),
        GivenImages(images.model_copy(update={"transfer_source": str(tmp_path / "a.npz")})),
    )
    assert own.transfer() is None
    sets = other.transfer()
    mean, deviation = own._own.scaling
    found = ((sets.test.inputs * deviation + mean) * 255).round().byte()
    assert {row.numpy().tobytes() for row in found} <= {row.tobytes() for row in pixels}
    assert sets.chance == pytest.approx(0.5, abs=0.1)


def test_images_that_are_not_square_need_a_size(tmp_path):
    np.savez(tmp_path / "a.npz", images=np.zeros((40, 8, 12), dtype=np.uint8), labels=np.arange(40) % 2)
    with pytest.raises(DataError, match="images of 8 x 12; expected squares: give size=SIDE"):
        GivenImages(Images(source=str(tmp_path / "a.npz")))


def test_a_text_is_judged_by_next_tokens_and_labelled_texts_are_probed(texts):
    source, examples = str(texts / "text.txt"), str(texts / "examples.txt")
    given = GivenTexts(Texts(source=source, examples=examples, length=16), "bytes")
    assert given.judged().test.kind == "tokens"
    assert given.probed().test.kind == "classes"
    assert given.classes is None
    assert (given.vocabulary, given.padding) == (256, 256)
    windows, labelled = given.corrupted("drop", 0, 5)
    assert windows.inputs.shape == labelled.inputs.shape == (5, 16)
    assert labelled.inputs.equal(given.probed().test.inputs[:5])
    assert given.transfer() is None


def test_without_a_text_labelled_ones_are_judged_and_without_these_windows_have_ranks(texts):
    source, examples = str(texts / "text.txt"), str(texts / "examples.txt")
    classifier = GivenTexts(Texts(examples=examples, transfer_source=examples, length=16), "bytes")
    assert classifier.classes == ("minus", "plus")
    assert classifier.judged().test.labels.equal(classifier.probed().test.labels)
    first, second = classifier.corrupted("swap", 3, 4)
    assert first.inputs.equal(second.inputs)
    assert classifier.transfer().test.labels.equal(classifier.probed().test.labels)
    model = GivenTexts(Texts(source=source, length=16), "bytes")
    assert model.probed() is None
    assert torch.equal(*(each.inputs for each in model.corrupted("swap", 3, 4)))
    assert len(model.sheet().lines) == 10

"""The data sets of a family: which classes, limits, scaling and pools."""

import numpy as np
import pytest
import torch

from muonlab.data.dataset import SPLITS
from muonlab.data.sources import DataError
from muonlab.data.tokens import Bytes
from muonlab.studies.features.config import ViTConfig
from muonlab.studies.features.work import material


@pytest.fixture
def make(make_family):
    """A function that makes the material of a family."""
    return lambda kind="cnn", net=None, **data: material.read(make_family(kind, net=net, data=data))


@pytest.fixture
def own_test(tmp_path):
    """A .npz for training and one for testing: 4 classes of 20 and 6 images of 8 x 8, no two of them alike."""
    rng = np.random.default_rng(0)
    for name, number in (("train", 20), ("test", 6)):
        pixels = rng.integers(0, 256, (4 * number, 8, 8), dtype=np.uint8)
        np.savez(tmp_path / f"{name}.npz", images=pixels, labels=np.arange(4 * number) % 4)
    return {"source": str(tmp_path / "train.npz"), "test": str(tmp_path / "test.npz")}


def counts(data):
    return [getattr(data, split).labels.bincount().tolist() for split in SPLITS]


# -- images ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("choice", "own", "others"),
    [
        ({}, "0, 1, 2, 3, 4", "5, 6, 7, 8, 9"),
        ({"classes": ("7", "1")}, "7, 1", "0, 2, 3, 4, 5, 6, 8, 9"),
        ({"transfer_classes": ("2", "1", "0")}, "3, 4, 5, 6, 7, 8, 9", "2, 1, 0"),
        ({"classes": ("0", "9"), "transfer_classes": ("5", "3")}, "0, 9", "5, 3"),
    ],
)
def test_no_class_is_both_pretrained_on_and_transferred_to(make, choice, own, others):
    found = make(**choice)
    assert found.notes[1] == f"pretrained on {own}; transferred to {others}"
    for data, names in ((found.judged, own), (found.transfers["classes"], others)):
        assert data.classes == tuple(names.split(", "))
        assert len(data.train.labels.unique()) == len(data.classes)
        assert found.build(data).head.out_features == len(data.classes)


def test_what_is_downstream_is_standardised_as_the_images_of_pretraining(digits):
    assert digits.transfers["classes"].scaling is digits.judged.scaling
    assert digits.judged.train.inputs.mean().item() == pytest.approx(0, abs=1e-5)
    assert abs(digits.transfers["classes"].train.inputs.mean().item()) > 1e-4


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"classes": ("4", "3", "2"), "transfer_classes": ("3", "4", "5")}, "both have 3, 4; give a class to one"),
        ({"classes": ("0", "11")}, "unknown class '11'"),
        ({"transfer_classes": ("0", "11")}, "unknown class '11'"),
        ({"per_class": 500}, "per_class=500, but .* ask for at most that many"),
        ({"source": "nowhere"}, "there is no file or folder 'nowhere'"),
    ],
)
def test_a_choice_that_cannot_be_is_named(make, choice, message):
    with pytest.raises(DataError, match=message):
        make(**choice)


@pytest.mark.parametrize("number", [2, 3])
def test_too_few_classes_for_two_halves_are_said(make, tmp_path, number):
    np.savez(tmp_path / "a.npz", images=np.zeros((60, 8, 8), np.uint8), labels=np.arange(60) % number)
    with pytest.raises(DataError, match=rf"a\.npz has {number} classes; expected 4 or more, as half of them"):
        make(source=str(tmp_path / "a.npz"))


def test_limits_are_those_of_the_classes_outside_a_test_set_and_of_what_is_trained_on_without_one(make, own_test):
    found = make(**own_test, per_class=10, test_per_class=5, transfer_per_class=8, validation=0.25)
    assert counts(found.judged) == [[8, 8], [2, 2], [5, 5]]
    assert counts(found.transfers["classes"]) == [[6, 6], [2, 2], [5, 5]]
    assert counts(make(transfer_per_class=7).transfers["classes"])[0] == [7] * 5
    with pytest.raises(DataError, match=r"transfer_per_class=500, but .* ask for at most that many"):
        _ = make(transfer_per_class=500).transfers["classes"].train


def test_probes_see_the_images_of_pretraining_pooled_as_the_net_needs(digits, make_family):
    assert digits.measured is digits.probed is digits.judged
    assert (digits.pool, digits.rank_pool, digits.judged.padding) == ("mean_pixels", "mean_pixels", None)
    for pooling, expected in (("mean", "mean_tokens"), ("class", "cls")):
        net = ViTConfig(pooling=pooling, depth=1, width=12)  # type: ignore[arg-type]
        assert material.read(make_family().model_copy(update={"net": net})).pool == expected
    first, second = digits.corrupted("fog", 3, 5)
    assert first is second


# -- texts -------------------------------------------------------------------------------------------------


def test_the_nets_have_a_next_token_or_classes(words):
    tokens = words.judged.train.inputs[:3]
    assert words.build(words.judged)(tokens).shape == (3, 16, 257)
    assert words.build(words.transfers["language"])(tokens).shape == (3, 16, 257)
    net = words.build(words.transfers["classes"]).eval()
    padded = torch.cat([tokens, torch.full((3, 4), Bytes.padding)], dim=1)
    torch.testing.assert_close(net(padded), net(tokens))  # reads the last token that is real
    assert net(tokens).shape == (3, 2)


def test_a_text_is_judged_and_labelled_ones_are_probed_and_transferred_to(words):
    assert words.measured is words.transfers["classes"]
    assert (words.pool, words.rank_pool) == ("mean_tokens", "last_token")
    windows, labelled = words.corrupted("drop", 0, 10)
    assert windows.kind == "tokens"
    assert labelled.inputs.equal(words.probed.test.inputs[:10])


def test_limits_are_respected_and_the_notes_say_what_was_read(make):
    found = make("gpt", limit=5000, transfer_limit=2000, per_class=40)
    notes = "\n".join(found.notes)
    for words in ("text.txt: 5000 characters", "other.txt: 2000 characters", "examples.txt: 80 texts"):
        assert words in notes
    labels = [getattr(found.transfers["classes"], split).labels for split in SPLITS]
    assert torch.cat(labels).bincount().tolist() == [40, 40]


def test_labelled_texts_with_a_test_set_of_their_own_are_tested_on_it(make, tmp_path):
    (tmp_path / "test.txt").write_text("plus a b c\nminus d e f\nplus g h i\n")
    test = make("gpt", examples_test=str(tmp_path / "test.txt")).transfers["classes"].test
    assert sorted(Bytes().decode(row) for row in test.inputs) == ["a b c", "d e f", "g h i"]

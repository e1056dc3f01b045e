"""The data sets: a user's tensors, images, next tokens of a text, and labelled texts."""

import random
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from muonlab.data import images
from muonlab.data.dataset import SPLITS, Dataset, Examples, Tensors
from muonlab.data.image_dataset import ImageDataset
from muonlab.data.images import Images
from muonlab.data.text import Passages, Text
from muonlab.data.text_datasets import PassageDataset, TextDataset, cut, pad, windows
from muonlab.data.tokens import Bytes, Characters
from muonlab.measure import corrupt_images, corrupt_text
from muonlab.nets.named import build

# ---- tensors


def part(number, classes=3):
    return Examples(torch.randn(number, 4), torch.arange(number) % classes)


def test_the_first_examples_are_the_first_of_inputs_and_labels():
    examples = Examples(torch.arange(10).view(5, 2), torch.arange(5))
    assert examples.first(2).inputs.tolist() == [[0, 1], [2, 3]]
    assert (examples.first(2).labels.tolist(), len(examples.first(9).labels)) == ([0, 1], 5)
    assert Examples(torch.zeros(4, 1), torch.tensor([0, 2, 2, 1])).chance == 0.5
    tokens = torch.tensor([[0, 1, 2], [2, 2, 3]])
    assert (Examples(tokens, tokens).chance, Examples(tokens, tokens).kind) == (0.5, "tokens")


def test_tensors_of_a_user_are_a_data_set_that_nets_are_made_for():
    data: Dataset = Tensors(part(12), part(6), part(6))
    assert build("mlp", data.sizes, depth=1)(data.test.inputs).shape == (6, 3)
    assert data.corrupted("none", 0, 2).labels.tolist() == [0, 1]
    tokens = Examples(torch.arange(10).view(5, 2), torch.arange(5))
    assert Tensors(tokens, tokens, tokens).sizes == {"vocabulary": 10, "classes": 5}
    # A function is given the sizes that it asks for.
    assert build(lambda classes: torch.nn.Linear(4, classes), data.sizes).out_features == 3
    assert build(lambda **sizes: torch.nn.Linear(sizes["inputs"], 1), data.sizes).in_features == 4
    assert build(lambda: torch.nn.Linear(9, 9), data.sizes).in_features == 9


# ---- images

DIGITS = images.subset(images.digits(), classes=range(5), per_class=60)
SHARES = {"validation": 0.15, "test_share": 0.25}


def made(pixels, labels=None, is_test=None):
    """Return images of pixels (N, H, W, C) or (N, H, W)."""
    found = torch.as_tensor(pixels)
    found = found[:, None] if found.ndim == 3 else found.permute(0, 3, 1, 2)
    labels = torch.arange(len(found)) % 4 if labels is None else labels
    is_test = torch.zeros(len(found), dtype=torch.bool) if is_test is None else is_test
    return Images(images=found, labels=labels, classes=("a", "b", "c", "d"), is_test=is_test, source="made")


@pytest.fixture(scope="module")
def digits():
    return ImageDataset(DIGITS, **SHARES)


def test_the_splits_are_all_images_once_with_their_labels_and_standardised_by_the_train_split(digits):
    known = {image.numpy().tobytes(): label for image, label in zip(DIGITS.images, DIGITS.labels.tolist(), strict=True)}
    rows = images.split(DIGITS, validation=0.15, test=0.25, seed=0).train
    scale, seen = DIGITS.images[rows].float() / 255, []
    for split, share in zip(SPLITS, (0.6, 0.15, 0.25), strict=True):
        examples = getattr(digits, split)
        pixels = ((examples.inputs * scale.std() + scale.mean()) * 255).round().byte()
        seen += [row.numpy().tobytes() for row in pixels]
        assert [known[row.numpy().tobytes()] for row in pixels] == examples.labels.tolist()
        assert examples.labels.bincount().tolist() == [60 * share] * 5
    assert sorted(seen) == sorted(image.numpy().tobytes() for image in DIGITS.images)
    assert digits.sizes == {"classes": 5, "channels": 1, "image_size": 8}


def test_a_split_is_in_random_order():
    data = ImageDataset(made(np.zeros((400, 8, 8), np.uint8), torch.arange(400) // 100), **SHARES)  # class after class
    for split in SPLITS:
        assert getattr(data, split).first(20).labels.bincount(minlength=4).min() > 0


def test_colours_are_standardised_each_on_its_own_and_one_grey_is_not_divided_by_zero():
    pixels = np.random.default_rng(0).integers([0, 100, 200], [50, 150, 250], (80, 8, 8, 3)).astype(np.uint8)
    train = ImageDataset(made(pixels), **SHARES).train.inputs
    torch.testing.assert_close(train.mean((0, 2, 3)), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(train.std((0, 2, 3)), torch.ones(3), atol=1e-4, rtol=0)
    grey = ImageDataset(made(np.full((80, 8, 8), 9, np.uint8)), **SHARES)
    assert grey.train.inputs.abs().max() < 1e-3
    assert len(grey.corrupted("gaussian_noise", 5, 8).inputs.flatten(1).unique(dim=0)) == 8  # each has its own noise


def test_a_scaling_that_is_given_is_used_or_that_of_another_data_set(digits):
    halves = torch.full((1, 1, 1, 1), 0.5), torch.full((1, 1, 1, 1), 0.25)
    own = ImageDataset(DIGITS, **SHARES, scaling=halves)
    mean, deviation = digits.scaling
    torch.testing.assert_close(own.test.inputs, (digits.test.inputs * deviation + mean - 0.5) / 0.25)
    assert ImageDataset(DIGITS, **SHARES, scaling=own).test.inputs.equal(own.test.inputs)


def test_a_limit_is_one_of_the_train_images_unless_there_is_a_test_set(digits):
    few = ImageDataset(DIGITS, **SHARES, limit=("per", 7))
    assert few.train.labels.bincount().tolist() == [7] * 5
    assert few.test.labels.equal(digits.test.labels)
    whole = made(np.zeros((80, 8, 8), np.uint8), is_test=torch.arange(80) >= 60)
    tested = ImageDataset(whole, **SHARES, limit=("per", 1))
    assert tested.train.labels.bincount().min() > 1
    assert len(tested.test.labels) == 20


@pytest.mark.parametrize("name", corrupt_images.CORRUPTIONS)
def test_a_corruption_is_the_same_for_any_number_and_severity_zero_the_clean_split(digits, name):
    first, more = digits.corrupted(name, 5, 6), digits.corrupted(name, 5, 12)
    assert first.inputs.equal(more.inputs[:6])
    assert first.labels.equal(more.labels[:6])
    assert not first.inputs.equal(digits.test.inputs[:6])
    clean = digits.corrupted(name, 0, 10)
    assert clean.inputs.equal(digits.test.inputs[:10])
    assert clean.labels.equal(digits.test.labels[:10])


# ---- windows of a text, and rows of passages

WORDS = ("the", "old", "new", "red", "tall", "cat", "dog", "bird", "house", "river", "sees", "likes", "and", "then")


def written(number, seed):
    chance = random.Random(seed)
    return " ".join(chance.choice(WORDS) for _ in range(number))


TEXT = written(4000, seed=0)
PASSAGES = tuple(f"{written(3 + k % 4, seed=k)} {('yes', 'no')[k % 2]}" for k in range(120))


def text_dataset(text=TEXT, length=16, encoder=None):
    return TextDataset(Text(text, "made", "utf-8"), length, encoder or Bytes())


@pytest.fixture(scope="module")
def of_text():
    return text_dataset()


@pytest.fixture(scope="module")
def of_passages():
    everyone, labels = torch.arange(120), torch.arange(120) % 2
    choice = {"classes": ("plus", "minus"), "is_test": everyone < 0, "groups": everyone, "source": "made"}
    return PassageDataset(Passages(texts=PASSAGES, labels=labels, encoding="utf-8", **choice), 16, Bytes())


def read(tokens):
    return Bytes().decode(tokens)


@given(st.integers(200, 600), st.integers(1, 15))
@settings(max_examples=25, deadline=None)
def test_every_token_of_a_part_is_a_target_once_but_the_first_and_the_rest(num_characters, length):
    text = "".join(chr(ord("a") + place % 23) for place in range(num_characters))
    parts = cut(text, "it")
    assert "".join(parts) == text
    assert [len(each) for each in parts[1:]] == [round(0.1 * num_characters)] * 2
    for each, tokens in zip(parts, windows(text, length, "it", Bytes()), strict=True):
        assert tokens.shape[1] == length + 1
        assert all(row[-1] == after[0] for row, after in pairwise(tokens))
        targets = "".join(read(row) for row in tokens[:, 1:])
        assert each[1:].startswith(targets)
        assert len(each) - 1 - len(targets) < length


@given(st.lists(st.text(alphabet="abé", min_size=1, max_size=20), max_size=8), st.integers(1, 12))
@settings(max_examples=25, deadline=None)
def test_padded_texts_are_their_beginnings(texts, length):
    encoder = Characters(["abé"])
    padded = pad(texts, length, encoder)
    assert padded.shape == (len(texts), length)
    for text, row in zip(texts, padded, strict=True):
        assert encoder.decode(row) == text[:length]
        assert (row[len(text) :] == encoder.padding).all()


def test_a_label_is_the_next_token_and_the_windows_of_a_split_are_those_of_its_part(of_text):
    for split, piece in zip(SPLITS, cut(TEXT, "it"), strict=True):
        inputs, labels = getattr(of_text, split)
        assert labels[:, :-1].equal(inputs[:, 1:])
        found = [read(row) + read(following[-1:]) for row, following in zip(inputs, labels, strict=True)]
        in_order = [piece[start : start + 17] for start in range(0, len(piece) - 16, 16)]
        assert sorted(found) == sorted(in_order)
        assert found != in_order


def test_passages_are_in_one_split_each_under_their_label_filled_up_at_the_end(of_passages):
    parts = [getattr(of_passages, split) for split in SPLITS]
    assert [len(each.labels) for each in parts] == [72, 18, 30]
    assert sorted(read(row) for each in parts for row in each.inputs) == sorted(text[:16] for text in PASSAGES)
    for row, label in ((row, label) for each in parts for row, label in zip(*each, strict=True)):
        assert int(label) in {k % 2 for k, text in enumerate(PASSAGES) if text.startswith(read(row))}
        assert row[int((row != of_passages.padding).sum()) :].eq(256).all()
    assert of_passages.sizes == {"vocabulary": 257, "classes": 2, "padding": 256}


@pytest.mark.parametrize("name", corrupt_text.CORRUPTIONS)
def test_a_corruption_has_as_many_texts_as_asked_for_and_is_the_same_for_any_number(of_text, of_passages, name):
    for data in (of_text, of_passages):
        few, many = data.corrupted(name, 4, 5), data.corrupted(name, 4, 20)
        assert many.inputs.shape == (20, 16)
        assert few.inputs.equal(many.inputs[:5])
        assert few.labels.equal(many.labels[:5])
        assert not many.inputs.equal(data.corrupted(name, 0, 20).inputs)
    found = of_text.corrupted(name, 5, 40)
    assert found.labels[:, :-1].equal(found.inputs[:, 1:])
    assert found.labels[:-1, -1].equal(found.inputs[1:, 0])
    clean = of_passages.corrupted(name, 0, 10)
    assert clean.inputs.equal(of_passages.test.inputs[:10])
    assert clean.labels.equal(of_passages.test.labels[:10])


def test_a_corrupted_text_is_the_held_out_one_in_pieces(of_text):
    held_out = cut(TEXT, "it")[2]
    pieces = enumerate([held_out[:500], held_out[500:1000]])
    expected = "".join(corrupt_text.corrupt(piece, "keyboard", 5, seed=0, index=index) for index, piece in pieces)
    assert "".join(read(row) for row in of_text.corrupted("keyboard", 5, 50).inputs) == expected[:800]


class OfFourCharacters(Bytes):
    """Tokens of about four characters, as those of a trained tokenizer."""

    def encode(self, text):
        return torch.tensor([len(word) for word in text.split()])


@pytest.mark.parametrize("name", ["drop", "word_drop", "whitespace"])
def test_tokens_of_several_characters_leave_as_many_windows_too(name):
    for severity in (0, 5):
        assert len(text_dataset(encoder=OfFourCharacters()).corrupted(name, severity, 12).inputs) == 12


def test_the_sheet_shows_one_example_under_everything(digits, of_text, of_passages):
    sheet = digits.sheet()
    assert (sheet.rows, sheet.columns) == (corrupt_images.CORRUPTIONS, ("0", "1", "2", "3", "4", "5"))
    assert sheet.picture.shape == (1, 9 * 15 - 1, 9 * 6 - 1)
    for data in (of_text, of_passages):
        sheet = data.sheet()
        assert (sheet.rows, len(sheet.lines), len(sheet.lines[0])) == (corrupt_text.CORRUPTIONS, 10, 6)
        assert len({line[0] for line in sheet.lines}) == 1
        assert sum(line[5] != line[0] for line in sheet.lines) > 5  # a short text escapes some
    assert of_text.sheet().lines[0][0] == " ".join(cut(TEXT, "it")[2].split())[:80]

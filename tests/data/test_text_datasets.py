import random

import pytest
import torch

from muonlab.data.dataset import SPLITS
from muonlab.data.sources import DataError
from muonlab.data.text import Passages, Text
from muonlab.data.text_datasets import PassageDataset, TextDataset
from muonlab.data.tokens import Bytes
from muonlab.data.windows import cut
from muonlab.measure.corrupt_text import CORRUPTIONS, corrupt

WORDS = ("the", "old", "new", "red", "tall", "cat", "dog", "bird", "house", "river", "sees", "likes", "and", "then")


def written(number, seed):
    chance = random.Random(seed)
    return " ".join(chance.choice(WORDS) for _ in range(number))


TEXT = written(4000, seed=0)
PASSAGES = [f"{written(3 + k % 4, seed=k)} {('yes', 'no')[k % 2]}" for k in range(120)]


def text_dataset(text=TEXT, length=16, encoder=None):
    return TextDataset(Text(text, "made", "utf-8"), length, "bytes", encoder or Bytes())


@pytest.fixture(scope="module")
def windows():
    return text_dataset()


@pytest.fixture(scope="module")
def labelled():
    none = torch.zeros(120, dtype=torch.bool)
    passages = Passages(
        tuple(PASSAGES), torch.arange(120) % 2, ("plus", "minus"), none, torch.arange(120), "made", "utf-8"
    )
    return PassageDataset(passages, 16, Bytes())


def read(tokens):
    return Bytes().decode(tokens)


def test_a_label_is_the_next_token_and_no_window_reaches_from_one_split_into_another(windows):
    for split, piece in zip(SPLITS, cut(TEXT, "it"), strict=True):
        inputs, labels = getattr(windows, split)
        assert labels[:, :-1].equal(inputs[:, 1:])
        found = [read(row) + read(following[-1:]) for row, following in zip(inputs, labels, strict=True)]
        in_order = [piece[start : start + 17] for start in range(0, len(piece) - 16, 16)]
        assert sorted(found) == sorted(in_order)
        assert found != in_order


def test_passages_are_in_one_split_each_under_their_label_filled_up_at_the_end(labelled):
    parts = [getattr(labelled, split) for split in SPLITS]
    assert [len(part.labels) for part in parts] == [72, 18, 30]
    assert sorted(read(row) for part in parts for row in part.inputs) == sorted(text[:16] for text in PASSAGES)
    for row, label in ((row, label) for part in parts for row, label in zip(*part, strict=True)):
        assert int(label) in {k % 2 for k, text in enumerate(PASSAGES) if text.startswith(read(row))}
        length = int((row != labelled.padding).sum())
        assert row[length:].eq(256).all()
    assert labelled.sizes == {"vocabulary": 257, "classes": 2, "padding": 256}


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_corruption_has_as_many_examples_as_asked_for_and_is_the_same_for_any_number(windows, labelled, name):
    for data in (windows, labelled):
        few, many = data.corrupted(name, 4, 5), data.corrupted(name, 4, 20)
        assert many.inputs.shape == (20, 16)
        assert few.inputs.equal(many.inputs[:5])
        assert few.labels.equal(many.labels[:5])
        assert not many.inputs.equal(data.corrupted(name, 0, 20).inputs)
    found = windows.corrupted(name, 5, 40)
    assert found.labels[:, :-1].equal(found.inputs[:, 1:])
    assert found.labels[:-1, -1].equal(found.inputs[1:, 0])


def test_severity_zero_is_the_test_split(windows, labelled):
    found = windows.corrupted("drop", 0, 1000)
    assert sorted(map(tuple, found.inputs.tolist())) == sorted(map(tuple, windows.test.inputs.tolist()))
    assert labelled.corrupted("drop", 0, 10).inputs.equal(labelled.test.inputs[:10])
    assert labelled.corrupted("drop", 0, 10).labels.equal(labelled.test.labels[:10])


def test_a_corrupted_text_is_the_held_out_one_in_pieces(windows):
    held_out = cut(TEXT, "it")[2]
    pieces = [held_out[:500], held_out[500:1000]]
    expected = "".join(corrupt(piece, "keyboard", 5, seed=0, index=index) for index, piece in enumerate(pieces))
    found = "".join(read(row) for row in windows.corrupted("keyboard", 5, 50).inputs)
    assert found == expected[:800]


class Words(Bytes):
    """Tokens of about four characters, as those of a trained tokenizer."""

    def encode(self, text):
        return torch.tensor([len(word) for word in text.split()])


@pytest.mark.parametrize("name", ["drop", "word_drop", "whitespace"])
def test_tokens_of_several_characters_leave_as_many_windows_too(name):
    for severity in (0, 5):
        assert len(text_dataset(encoder=Words()).corrupted(name, severity, 12).inputs) == 12


def test_a_text_of_which_no_window_is_left_is_an_error():
    data = text_dataset("one two three four five six " * 7, length=19)  # of 196 characters 20 are tested on
    assert len(data.corrupted("drop", 0, 5).inputs) == 1
    with pytest.raises(
        DataError, match=r"drop at severity 5 leaves 1. tokens .* give a longer text or a smaller length"
    ):
        data.corrupted("drop", 5, 5)
    with pytest.raises(DataError, match=r"part of made has . tokens, but one window of length=16 needs 17"):
        _ = text_dataset("a short text of few words").train


def test_the_sheet_shows_one_text_under_everything(windows, labelled):
    for data in (windows, labelled):
        sheet = data.sheet()
        assert (sheet.rows, len(sheet.lines), len(sheet.lines[0])) == (CORRUPTIONS, 10, 6)
        assert len({line[0] for line in sheet.lines}) == 1
        assert sum(line[5] != line[0] for line in sheet.lines) > 5  # a short text escapes some
    assert windows.sheet().lines[0][0] == " ".join(cut(TEXT, "it")[2].split())[:80]

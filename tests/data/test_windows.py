import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from muonlab.data.sources import DataError
from muonlab.data.tokens import Bytes, Characters
from muonlab.data.windows import cut, pad, windows


@given(st.text(min_size=30), st.floats(0.05, 0.4), st.floats(0.05, 0.4))
@settings(deadline=None)
def test_parts_follow_each_other_and_are_together_the_text(text, validation, test):
    parts = cut(text, "it", validation=validation, test=test)
    assert "".join(parts) == text
    assert len(parts[1]) == round(validation * len(text))
    assert len(parts[2]) == round(test * len(text))


@given(st.integers(200, 600), st.integers(1, 15), st.sampled_from(["bytes", "characters"]))
@settings(deadline=None)
def test_every_token_of_a_part_is_a_target_once_but_the_first_and_the_rest(num_characters, length, tokenizer):
    text = "".join(chr(ord("a") + place % 23) for place in range(num_characters))
    found = windows(text, length, tokenizer=tokenizer)
    for part, tokens in zip(cut(text, "it"), (found.train, found.validation, found.test), strict=True):
        assert tokens.shape[1] == length + 1
        targets = "".join(found.tokenizer.decode(row) for row in tokens[:, 1:])
        inputs = "".join(found.tokenizer.decode(row) for row in tokens[:, :-1])
        assert part.startswith(inputs)
        assert part[1:].startswith(targets)
        assert len(part) - 1 - len(targets) < length


def test_no_window_holds_tokens_of_two_parts():
    text = "a" * 80 + "b" * 10 + "c" * 10
    found = windows(text, 4)
    assert found.train.unique().tolist() == [ord("a")]
    assert found.validation.unique().tolist() == [ord("b")]
    assert found.test.unique().tolist() == [ord("c")]


def test_characters_are_known_from_the_train_part_alone():
    found = windows("ab" * 40 + "c" * 10 + "ac" * 5, 4, tokenizer="characters")
    assert found.tokenizer.decode(torch.arange(2)) == "ab"
    assert found.tokenizer.vocabulary == 4  # with unknown and padding
    assert found.validation.unique().tolist() == [2]  # unknown
    assert found.test.unique().tolist() == [0, 2]


@pytest.mark.parametrize(
    ("text", "length", "shares", "message"),
    [
        ("ab" * 50, 10, {}, "the validation part of the text has 10 tokens, but one window of length=10 needs 11"),
        ("ab" * 50, 90, {}, "the train part of the text has 80 tokens, but one window of length=90 needs 91"),
        ("ab" * 50, 0, {}, "length=0 is too small"),
        ("ab" * 50, 5, {"validation": 0}, "validation=0 and test=0.1 are out of range"),
        ("ab" * 50, 5, {"validation": 0.5, "test": 0.5}, "are out of range; expected shares above 0, below 1 together"),
        ("abcd", 1, {}, "the text has 4 characters, too few"),
        ("ab" * 50, 5, {"tokenizer": "words"}, "unknown tokenizer 'words'"),
    ],
)
def test_texts_that_make_no_windows_are_refused(text, length, shares, message):
    with pytest.raises(DataError, match=message):
        windows(text, length, **shares)


@given(st.lists(st.text(alphabet="abé", min_size=1, max_size=20), max_size=8), st.integers(1, 12))
@settings(deadline=None)
def test_padded_texts_are_their_beginnings(texts, length):
    tokenizer = Characters(["abé"])
    padded = pad(texts, length, tokenizer)
    assert padded.inputs.shape == (len(texts), length)
    assert padded.lengths.tolist() == [min(len(text), length) for text in texts]
    assert padded.num_truncated == sum(len(text) > length for text in texts)
    for text, row, number in zip(texts, padded.inputs, padded.lengths.tolist(), strict=True):
        assert tokenizer.decode(row[:number]) == text[:length]
        assert (row[number:] == tokenizer.padding).all()


def test_a_text_without_a_token_and_a_length_below_one_are_refused():
    with pytest.raises(DataError, match="example 1, '', has no token"):
        pad(["a", ""], 5, Bytes())
    with pytest.raises(DataError, match="length=0 is too small"):
        pad(["a"], 0, Bytes())

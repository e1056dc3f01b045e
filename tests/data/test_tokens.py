import json
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from muonlab.data.sources import DataError
from muonlab.data.tokens import Bytes, Characters, Trained, build
from muonlab.data.windows import cut, pad, windows

TEXT = st.text(st.characters(exclude_categories=["Cs"]))


@given(TEXT)
def test_bytes_are_those_of_utf8_and_come_back(text):
    tokens = Bytes().encode(text)
    assert tokens.tolist() == list(text.encode())
    assert tokens.dtype == torch.int64
    assert Bytes().decode(tokens) == text


@given(TEXT, TEXT)
def test_characters_come_back_where_they_were_seen(known, other):
    tokenizer = Characters([known, "x"])
    assert tokenizer.decode(tokenizer.encode(known)) == known
    assert tokenizer.encode(known).tolist() == [sorted(set(known + "x")).index(character) for character in known]
    seen = set(known + "x")
    assert tokenizer.decode(tokenizer.encode(other)) == "".join(c if c in seen else "\ufffd" for c in other)
    assert tokenizer.vocabulary == len(seen) + 2


@pytest.mark.parametrize("tokenizer", [Bytes(), Characters(["ab é"])])
def test_padding_is_an_id_that_no_text_has_and_is_left_out_of_the_text(tokenizer):
    tokens = tokenizer.encode("ab é zzz")
    assert tokens.max() < tokenizer.padding < tokenizer.vocabulary
    padded = torch.cat([tokens, torch.full((3,), tokenizer.padding)])
    assert tokenizer.decode(padded) == tokenizer.decode(tokens)


def test_texts_at_the_ends():
    for tokenizer in (Bytes(), Characters(["ab"])):
        assert (tokenizer.encode("").shape, tokenizer.encode("").dtype) == ((0,), torch.int64)
        assert tokenizer.decode(tokenizer.encode("")) == ""
    assert Bytes().encode("a\ud800").tolist() == [97, ord("?")]  # lone surrogates
    assert Characters(["ab"]).encode("a\ud800").tolist() == [0, 2]
    assert Bytes().decode(Bytes().encode("aé")[:2]) == "a\ufffd"
    for texts in ([], [""]):
        with pytest.raises(DataError, match="no characters"):
            Characters(texts)


def test_a_tokenizer_is_built_by_name(tmp_path):
    assert isinstance(build("bytes", []), Bytes)
    assert build("characters", ["ba", "c"]).encode("abc").tolist() == [0, 1, 2]
    with pytest.raises(DataError, match=r"unknown tokenizer 'byte'; did you mean 'bytes'\? expected the path of"):
        build("byte", [])
    with pytest.raises(DataError, match=r"no file or folder '.*none\.json'"):
        build(tmp_path / "none.json", [])


def test_without_tokenizers_the_message_says_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "tokenizer.json").write_text("{}")
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(DataError, match=r"tokenizer\.json needs the package tokenizers, .*pip install tokenizers"):
        build(tmp_path / "tokenizer.json", [])


# A file as the package writes it: words by blanks, padded to 4 and cut at 5, which an encoding must not be.
WORDS = {
    "version": "1.0",
    "truncation": {"direction": "Right", "max_length": 5, "strategy": "LongestFirst", "stride": 0},
    "padding": {
        "strategy": {"Fixed": 4},
        "direction": "Right",
        "pad_to_multiple_of": None,
        "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": "[UNK]",
    },
    "added_tokens": [],
    "normalizer": None,
    "pre_tokenizer": {"type": "Whitespace"},
    "post_processor": None,
    "decoder": None,
    "model": {"type": "WordLevel", "vocab": {"[UNK]": 0, "a": 1, "good": 2, "film": 3}, "unk_token": "[UNK]"},
}


def test_a_tokenizer_in_a_file_is_that_of_the_package(tmp_path):
    pytest.importorskip("tokenizers")
    (tmp_path / "tokenizer.json").write_text(json.dumps(WORDS))
    tokenizer = build(str(tmp_path / "tokenizer.json"), [])
    assert tokenizer.encode("a film").tolist() == [1, 3]
    assert tokenizer.encode("a good good good good bad film").tolist() == [1, 2, 2, 2, 2, 0, 3]
    assert tokenizer.encode("").shape == (0,)
    assert (tokenizer.padding, tokenizer.vocabulary) == (4, 5)
    assert tokenizer.decode(torch.tensor([1, 3, 4, 4])) == "a film"


def test_a_file_that_is_no_tokenizer_is_refused(tmp_path):
    pytest.importorskip("tokenizers")
    (tmp_path / "tokenizer.json").write_text('{"version": "1.0"}')
    with pytest.raises(DataError, match=r"tokenizer\.json is no tokenizer that can be read"):
        Trained(tmp_path / "tokenizer.json")


# ---- windows of tokens


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

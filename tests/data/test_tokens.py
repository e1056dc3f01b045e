import json
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from muonlab.data.sources import DataError
from muonlab.data.tokens import Bytes, Characters, Trained, build

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


@pytest.mark.parametrize("tokenizer", [Bytes(), Characters(["ab"])])
def test_an_empty_text_has_no_tokens(tokenizer):
    assert tokenizer.encode("").shape == (0,)
    assert tokenizer.encode("").dtype == torch.int64
    assert tokenizer.decode(tokenizer.encode("")) == ""


def test_lone_surrogates_are_no_crash():
    assert Bytes().encode("a\ud800").tolist() == [97, ord("?")]
    assert Characters(["ab"]).encode("a\ud800").tolist() == [0, 2]


def test_half_a_character_decodes_to_a_replacement():
    assert Bytes().decode(Bytes().encode("aé")[:2]) == "a\ufffd"


def test_no_characters_are_refused():
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

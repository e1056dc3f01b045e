"""Texts out of files, and those that come with Python."""

import codecs
import csv
import io
import itertools
import json
import re
import sysconfig
from pathlib import Path
from pydoc_data.topics import topics

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from muonlab.data import library
from muonlab.data.encodings import decode, find, lines_of, with_newlines
from muonlab.data.tables import columns, label_first
from muonlab.data.text import Passages, examples, language, split, subset
from muonlab.data.tokens import Bytes, Characters, build

STDLIB = Path(sysconfig.get_path("stdlib"))
PROSE = "“Quoted” – déjà vu … naïve café, fiancée, façade, über, señor; and much plain English around it. " * 3
CONTROLS = [chr(code) for code in range(32) if chr(code) not in "\t\n\v\f\r\x1b"]
TEXT = st.text(st.characters(exclude_categories=["Cs"]))

# ---- encodings


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters=CONTROLS)))
def test_valid_utf8_is_read_as_it_was_written(text):
    text = text.removeprefix("\ufeff")
    assert decode(text.encode() or b" ", "it") == (text or " ", "utf-8", 0)


@pytest.mark.parametrize(
    ("mark", "written", "encoding"),
    [
        (codecs.BOM_UTF8, "utf-8", "utf-8-sig"),
        (codecs.BOM_UTF16_LE, "utf-16-le", "utf-16"),
        (codecs.BOM_UTF16_BE, "utf-16-be", "utf-16"),
        (codecs.BOM_UTF32_LE, "utf-32-le", "utf-32"),
        (codecs.BOM_UTF32_BE, "utf-32-be", "utf-32"),
    ],
)
def test_a_byte_order_mark_decides_and_is_not_part_of_the_text(mark, written, encoding):
    assert decode(mark + PROSE.encode(written), "it") == (PROSE, encoding, 0)
    assert decode(mark + PROSE.encode(written), "it", written).text == PROSE


def test_cp1252_and_latin1_are_told_apart_by_the_bytes_in_which_they_differ():
    assert decode(PROSE.encode("cp1252"), "it") == (PROSE, "cp1252", 0)
    assert find("café".encode("latin-1"), "it") == "cp1252"  # both read it alike
    assert decode(b"caf\xe9 \x81\x8d", "it") == ("caf\xe9 \x81\x8d", "latin-1", 0)
    stray = "“café” \x81 –".encode("cp1252", "ignore").replace(b"  ", b" \x81 ")  # a byte that cp1252 lacks
    assert decode(stray, "it") == ("“café” \ufffd –", "cp1252", 1)


@pytest.mark.parametrize("places", [[0, 40, 41], [5, 6, 7, 60]])
def test_a_few_invalid_bytes_leave_utf8_what_it_is(places):
    data = bytearray(("日本語 and naïve prose " * 20).encode())
    for place in places:
        data.insert(place, 0xFF)
    decoded = decode(bytes(data), "it")
    assert decoded[:2] == (bytes(data).decode("utf-8", "replace"), "utf-8")
    assert decoded.num_replaced == decoded.text.count("\ufffd") >= len(places)
    own = "“\ufffd” \ufffd".encode()  # of the text itself: not counted
    assert (decode(own, "it").num_replaced, decode(own + b"\xff", "it").num_replaced) == (0, 1)


@given(st.binary(min_size=1), st.sampled_from([None, "utf-8", "cp1252", "utf-16", "ascii", "shift-jis", "utf-7"]))
def test_no_bytes_are_a_crash_and_whatever_has_no_control_characters_is_read(data, encoding):
    if encoding:
        assert decode(data, "it", encoding)[:2] == (data.decode(encoding, "replace").removeprefix("\ufeff"), encoding)
    data = bytes(byte for byte in data if chr(byte) not in CONTROLS) or b"x"
    decoded = decode(data, "it")
    assert 0 <= decoded.num_replaced <= decoded.text.count("\ufffd")


def test_a_stray_control_character_is_read_and_utf16_in_its_encoding():
    assert decode(b"end of file\x1a" + b" and more" * 20, "it").text.startswith("end of file\x1a and")
    assert decode(PROSE.encode("utf-16-le"), "it", "utf-16-le").text == PROSE


@given(st.text(alphabet="ab\r\n\x85\u2028\x0b\x0c\x1c"))
@settings(max_examples=50, deadline=None)
def test_lines_are_those_of_open(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("lines") / "a"
    path.write_bytes(text.encode())
    assert with_newlines(text) == path.read_text(encoding="utf-8")
    with path.open(encoding="utf-8") as file:
        assert lines_of(text) == [line.removesuffix("\n") for line in file]


# ---- lines with labels, and tables


def test_labels_stand_first_on_a_line():
    rows = label_first("1 a good film\r\n0\tdull ,  and long\n\n  1   good \n", "it")
    assert rows == (("1", "0", "1"), ("a good film", "dull ,  and long", "good"), ())
    for separator in ("\x85", "\u2028", "\x0c"):  # a line ends at a newline alone
        assert label_first(f"1 one{separator}line\n0 two", "it").texts == (f"one{separator}line", "two")
    trec = "DESC:manner How did it ?\nDESC:def What is it ?\nHUM:ind Who ?\nHUM:ind Who else ?\n"
    assert label_first(trec, "it").labels == ("DESC", "DESC", "HUM", "HUM")
    assert label_first(trec, "it", sublabels=True).labels == ("DESC:manner", "DESC:def", "HUM:ind", "HUM:ind")
    assert label_first(trec, "it").texts[0] == "How did it ?"
    rows = label_first("1 good\n0\n\n0 bad\n : \n", "it")
    assert rows.labels == ("1", "0")
    assert rows.skipped == (("line 2", "no text after the label '0'"), ("line 5", "no text after the label ':'"))


FIELD = st.text(alphabet='ab,;"\n\t é', min_size=1).filter(str.strip)


@given(st.lists(st.tuples(FIELD, FIELD), min_size=1, max_size=6), st.sampled_from([",", "\t", ";"]))
@settings(max_examples=50, deadline=None)
def test_a_table_is_read_as_the_writer_of_csv_wrote_it(rows, delimiter):
    file = io.StringIO(newline="")
    writer = csv.writer(file, delimiter=delimiter)
    writer.writerow(["label", "other", "text"])
    writer.writerows([label, "x", text] for label, text in rows)
    found = columns(file.getvalue(), "it", tabs=delimiter == "\t")
    assert list(zip(found.labels, found.texts, strict=True)) == [(label.strip(), text.strip()) for label, text in rows]
    assert found.skipped == ()


def test_columns_are_taken_by_name_and_rows_that_are_not_whole_skipped_by_line():
    found = columns("a,b,c\n1,2,3\n4,5,6\n", "it", tabs=False, text_column="c", label_column="a")
    assert found[:2] == (("1", "4"), ("3", "6"))
    found = columns('text\tlabel\n"so he said\t1\nan 8" disk\t0\n', "it", tabs=True)
    assert found.texts == ('"so he said', 'an 8" disk')  # quotes that do not pair are characters
    found = columns('text,label\n"two\nlines",1\n,0\ngood,\nmore,1,2\nless\n\nfine,0\n  ,1\n', "it", tabs=False)
    assert (found.texts, found.labels) == (("two\nlines", "fine"), ("1", "0"))
    assert found.skipped == (
        ("line 4", "an empty text"),
        ("line 5", "an empty label"),
        ("line 6", "3 fields; expected 2"),
        ("line 7", "1 fields; expected 2"),
        ("line 10", "an empty text"),
    )


# ---- a user's files


@pytest.mark.parametrize("encoding", ["utf-8-sig", "cp1252"])
def test_a_file_of_text_is_read_in_its_encoding(tmp_path, encoding):
    (tmp_path / "a.txt").write_bytes("naïve café –\r\nnext".encode(encoding))
    text = language(tmp_path / "a.txt")
    assert (text.text, text.encoding, text.num_replaced) == ("naïve café –\nnext", encoding, 0)
    assert language(tmp_path / "a.txt", limit=4).text == "naï"
    assert f"17 characters, {encoding}, 0 places replaced" in str(text)
    (tmp_path / "b.txt").write_bytes("naïve café".encode("cp1252"))
    text = language(tmp_path / "b.txt", encoding="utf-8")
    assert (text.text, text.num_replaced) == ("na\ufffdve caf\ufffd", 2)


def lines(path, *rows, encoding="utf-8"):
    path.write_bytes("".join(f"{row}\n" for row in rows).encode(encoding))
    return path


def test_lines_with_labels_and_their_test_set(tmp_path):
    train = lines(tmp_path / "train", "b good one", "a bad one", "b good two", "a bad two", "a", encoding="cp1252")
    test = lines(tmp_path / "test", "a bad three", "b good two", "b café –", encoding="cp1252")
    passages = examples(train, test=test)
    assert passages.texts == ("good one", "bad one", "good two", "bad two", "bad three", "good two", "café –")
    assert [passages.classes[label] for label in passages.labels] == ["b", "a", "b", "a", "a", "b", "b"]
    assert passages.is_test.tolist() == [False] * 4 + [True] * 3
    assert (passages.encoding, passages.num_repeated, passages.chance) == ("utf-8 and cp1252", 1, 4 / 7)
    assert [item.name for item in passages.skipped] == [f"{train}, line 5"]
    assert "7 texts (3 of them its test set, 1 of which stand outside of it too), 2 classes" in str(passages)
    parts = split(passages, validation=0.3)
    assert (parts.test.tolist(), len(parts.validation)) == ([4, 5, 6], 2)


@pytest.mark.parametrize(("suffix", "delimiter"), [(".csv", ","), (".csv", ";"), (".tsv", "\t")])
def test_tables_are_read_by_the_names_of_their_columns(tmp_path, suffix, delimiter):
    path = tmp_path / f"a{suffix}"
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = [["review", "stars"], ['a "good", film', "5"], ["long; dull\nlong", "1"], ["fine", "10"]]
        csv.writer(file, delimiter=delimiter).writerows(rows)
    passages = examples(path, text_column="review", label_column="stars")
    assert passages.texts == ('a "good", film', "long; dull\nlong", "fine")
    assert (passages.classes, passages.labels.tolist()) == (("1", "5", "10"), [1, 0, 2])


def test_a_subset_keeps_texts_with_their_label_and_group():
    passages = Passages(
        texts=("x", "y", "z", "w"),
        labels=torch.tensor([0, 1, 2, 2]),
        classes=("a", "b", "c"),
        is_test=torch.tensor([False, False, False, True]),
        groups=torch.tensor([5, 6, 7, 8]),
        source="it",
        encoding="utf-8",
    )
    part = subset(passages, classes=["c", "a"])
    assert (part.texts, part.labels.tolist(), part.groups.tolist()) == (("x", "z", "w"), [1, 0, 0], [5, 7, 8])


def test_the_same_text_again_goes_to_the_same_part(tmp_path):
    rows = [f"{label} text {number}" for label in "ab" for number in range(20) for _ in range(1 + number % 3)]
    passages = examples(lines(tmp_path / "a", *rows))
    for seed in range(3):
        parts = split(passages, seed=seed)
        for label in (0, 1):
            sides = [{passages.texts[row] for row in part if passages.labels[row] == label} for part in parts]
            assert sum(map(len, sides)) == 20


# ---- what comes with Python


def test_documentation_is_that_of_pydoc_and_the_default():
    assert library.documentation() == topics
    text = language()
    assert text.text == "\n".join(topics[name] for name in sorted(topics))
    assert text.source.startswith(f"{len(topics)} topics of Python 3.")
    assert language(limit=1000).text == text.text[:1000]
    for limit, cut in [(None, "aéb"), (9, "aéb"), (4, "aéb"), (3, "aé"), (2, "a"), (1, "a")]:
        assert library.first("aéb", limit) == cut


def test_sources_are_files_of_the_library_in_the_same_order_whatever_the_limit():
    small, large = library.sources(100_000), library.sources(150_000)
    assert list(small) == list(large)[: len(small)] != sorted(small)
    *whole, last = small
    for name in whole:
        assert small[name] == large[name] == (STDLIB / name).read_text(encoding="utf-8")
    assert large[last].startswith(small[last])
    assert sum(len(text.encode()) for text in small.values()) == 100_000
    assert len(language("sources", limit=50_000).text.encode()) == 50_000
    names = list(library._files())
    assert "asyncio/events.py" in names
    assert not any({"test", "tests", "site-packages", "pydoc_data"} & set(name.split("/")) for name in names)


@pytest.fixture(scope="module")
def passages():
    return examples()


def test_passages_are_lines_of_their_module_that_do_not_give_the_package_away():
    found = library.packages()
    assert {package for package, _, _ in found} == set(library.PACKAGES)
    owner: dict[str, str] = {}
    modules = {module: (STDLIB / module).read_text(encoding="utf-8").split("\n") for _, module, _ in found}
    tops = {
        module: {
            line
            for line in itertools.takewhile(lambda line: not line or line.startswith("#"), own)
            if len(line) >= 20 and own.count(line) == 1
        }
        for module, own in modules.items()
    }
    assert sum(map(len, tops.values())) > 50
    for package, module, passage in found:
        own = passage.split("\n")
        assert module.startswith(f"{package}/")
        assert len(passage) >= library.PASSAGE > len("\n".join(own[:-1]))
        assert set(own) <= set(modules[module]) - tops[module]
        assert not any(name in passage.lower() for name in library.PACKAGES)
        for line in own:
            assert line.split()[0] != "import"
            assert len(line.strip()) < 20 or owner.setdefault(line.strip(), module) == module


def test_packages_are_told_apart_by_modules_that_no_other_part_has(passages):
    for seed in range(3):
        parts = split(passages, seed=seed)
        modules = [set(passages.groups[part].tolist()) for part in parts]
        assert sum(map(len, modules)) == len(set.union(*modules))
        for part, share in ((parts.validation, 0.1), (parts.test, 0.2)):
            assert share / 2 < len(part) / len(passages.texts) < 2 * share
            assert set(passages.labels[part].tolist()) == set(range(len(passages.classes)))


def test_packages_can_be_told_apart_but_not_by_their_words_alone(passages):
    parts = split(passages)
    words = [re.findall(r"\w+", text) for text in passages.texts]
    place = {word: number for number, word in enumerate(sorted({word for row in parts.train for word in words[row]}))}
    counts = torch.ones(len(place), len(passages.classes))  # of multinomial naive Bayes, from its definition
    for label in range(len(passages.classes)):
        own = [place[word] for row in parts.train[passages.labels[parts.train] == label] for word in words[row]]
        counts[:, label] += torch.tensor(own).bincount(minlength=len(place))
    logs, prior = (counts / counts.sum(dim=0)).log(), passages.labels[parts.train].bincount().log()
    scores = [logs[[place[word] for word in words[row] if word in place]].sum(dim=0) + prior for row in parts.test]
    accuracy = (torch.stack(scores).argmax(dim=1) == passages.labels[parts.test]).float().mean().item()
    assert passages.chance + 0.2 < accuracy < 0.95


# ---- tokens


@given(TEXT, TEXT)
@settings(max_examples=50)
def test_texts_come_back_from_their_tokens(text, other):
    tokens = Bytes().encode(text)
    assert (tokens.tolist(), tokens.dtype) == (list(text.encode()), torch.int64)
    assert Bytes().decode(tokens) == text
    known, characters = sorted(set(text + "x")), Characters([text, "x"])
    assert characters.encode(text).tolist() == [known.index(character) for character in text]
    assert characters.decode(characters.encode(text)) == text
    assert characters.decode(characters.encode(other)) == "".join(c if c in known else "\ufffd" for c in other)
    assert characters.vocabulary == len(known) + 2


@pytest.mark.parametrize("tokenizer", [Bytes(), Characters(["ab é"])])
def test_padding_is_an_id_that_no_text_has_and_is_left_out_of_the_text(tokenizer):
    tokens = tokenizer.encode("ab é zzz")
    assert tokens.max() < tokenizer.padding < tokenizer.vocabulary
    padded = torch.cat([tokens, torch.full((3,), tokenizer.padding)])
    assert tokenizer.decode(padded) == tokenizer.decode(tokens)
    assert (tokenizer.encode("").shape, tokenizer.encode("").dtype) == ((0,), torch.int64)
    assert tokenizer.decode(tokenizer.encode("")) == ""


def test_half_a_character_is_replaced():
    assert Bytes().encode("a\ud800").tolist() == [97, ord("?")]  # lone surrogates
    assert Characters(["ab"]).encode("a\ud800").tolist() == [0, 2]
    assert Bytes().decode(Bytes().encode("aé")[:2]) == "a\ufffd"
    assert build("characters", ["ba", "c"]).encode("abc").tolist() == [0, 1, 2]


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

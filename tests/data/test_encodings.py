import codecs
import gzip

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muonlab.data.encodings import decode, find, lines_of, with_newlines
from muonlab.data.sources import DataError

PROSE = "“Quoted” – déjà vu … naïve café, fiancée, façade, über, señor; and much plain English around it. " * 3


CONTROLS = [chr(code) for code in range(32) if chr(code) not in "\t\n\v\f\r\x1b"]


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters=CONTROLS)))
def test_valid_utf8_is_read_as_it_was_written(text):
    text = text.removeprefix("\ufeff")
    decoded = decode(text.encode() or b" ", "it")
    assert (decoded.text, decoded.encoding, decoded.num_replaced) == (text or " ", "utf-8", 0)


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
def test_a_byte_order_mark_decides_and_is_no_part_of_the_text(mark, written, encoding):
    decoded = decode(mark + PROSE.encode(written), "it")
    assert (decoded.text, decoded.encoding, decoded.num_replaced) == (PROSE, encoding, 0)
    assert decode(mark + PROSE.encode(written), "it", written).text == PROSE


def test_cp1252_and_latin1_are_told_apart_by_the_bytes_in_which_they_differ():
    assert decode(PROSE.encode("cp1252"), "it").text == PROSE
    assert find(PROSE.encode("cp1252"), "it") == "cp1252"
    assert find("café".encode("latin-1"), "it") == "cp1252"  # both read it alike
    assert decode(b"caf\xe9 \x81\x8d", "it").encoding == "latin-1"
    assert decode(b"caf\xe9 \x81\x8d", "it").text == "caf\xe9 \x81\x8d"


def test_a_stray_byte_that_cp1252_lacks_is_replaced_and_counted():
    decoded = decode("“café” \x81 –".encode("cp1252", "ignore").replace(b"  ", b" \x81 "), "it")
    assert (decoded.text, decoded.encoding, decoded.num_replaced) == ("“café” \ufffd –", "cp1252", 1)


@pytest.mark.parametrize("places", [[0, 40, 41], [5, 6, 7, 60]])
def test_a_few_invalid_bytes_leave_utf8_what_it_is(places):
    data = bytearray(("日本語 and naïve prose " * 20).encode())
    for place in places:
        data.insert(place, 0xFF)
    decoded = decode(bytes(data), "it")
    assert decoded.encoding == "utf-8"
    assert decoded.text == bytes(data).decode("utf-8", "replace")
    assert decoded.num_replaced == decoded.text.count("\ufffd") >= len(places)
    own = "“\ufffd” \ufffd".encode()  # of the text itself: not counted
    assert (decode(own, "it").num_replaced, decode(own + b"\xff", "it").num_replaced) == (0, 1)


@given(st.binary(min_size=1), st.sampled_from(["utf-8", "cp1252", "utf-16", "ascii", "shift-jis", "utf-7"]))
def test_no_bytes_in_an_encoding_that_is_given_are_a_crash(data, encoding):
    decoded = decode(data, "it", encoding)
    assert decoded.encoding == encoding
    assert decoded.text == data.decode(encoding, "replace").removeprefix("\ufeff")


@given(st.binary(min_size=1))
def test_no_bytes_are_a_crash_and_whatever_has_no_control_characters_is_read(data):
    data = bytes(byte for byte in data if chr(byte) not in CONTROLS) or b"x"
    decoded = decode(data, "it")
    assert 0 <= decoded.num_replaced <= decoded.text.count("\ufffd")


def test_a_binary_file_is_refused_and_a_stray_control_character_is_not():
    data = gzip.compress(bytes(PROSE, "utf-8"), mtime=0)
    with pytest.raises(DataError, match=r"it: \d+ of its \d+ bytes are control characters; expected a text"):
        decode(data, "it")
    assert decode(b"end of file\x1a" + b" and more" * 20, "it").text.startswith("end of file\x1a and")


def test_utf16_without_a_mark_is_refused_with_what_to_give():
    data = PROSE.encode("utf-16-le")
    with pytest.raises(
        DataError, match=r"it: \d+ of its \d+ bytes are control characters.*give encoding=utf-16-le or utf-16-be"
    ):
        decode(data, "it")
    assert decode(data, "it", "utf-16-le").text == PROSE


@pytest.mark.parametrize(
    ("encoding", "message"),
    [
        ("utf-9", r"unknown encoding 'utf-9'; did you mean 'utf-\d+"),
        ("hex-codec", "encoding 'hex-codec' is not for texts"),
        ("idna", "encoding 'idna'"),
    ],
)
def test_an_encoding_that_is_none_is_refused(encoding, message):
    with pytest.raises(DataError, match=message):
        decode(b"caf\xff\xff", "it", encoding)


@given(st.text(alphabet="ab\r\n\x85\u2028\x0b\x0c\x1c"))
def test_lines_are_those_of_open(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("lines") / "a"
    path.write_bytes(text.encode())
    with path.open(encoding="utf-8") as file:
        whole = file.read()
    assert with_newlines(text) == whole
    with path.open(encoding="utf-8") as file:
        assert lines_of(text) == [line.removesuffix("\n") for line in file]

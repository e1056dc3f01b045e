import csv
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from muonlab.data.sources import DataError
from muonlab.data.tables import columns, label_first


def test_labels_stand_first_on_a_line():
    rows = label_first("1 a good film\r\n0\tdull ,  and long\n\n  1   good \n", "it")
    assert rows.labels == ("1", "0", "1")
    assert rows.texts == ("a good film", "dull ,  and long", "good")
    assert rows.skipped == ()


@pytest.mark.parametrize("separator", ["\x85", "\u2028", "\x0c"])
def test_a_line_ends_at_a_newline_alone(separator):
    assert label_first(f"1 one{separator}line\n0 two", "it").texts == (f"one{separator}line", "two")


def test_labels_of_trec_are_the_coarse_ones_unless_asked_otherwise():
    text = "DESC:manner How did it ?\nDESC:def What is it ?\nHUM:ind Who ?\nHUM:ind Who else ?\n"
    assert label_first(text, "it").labels == ("DESC", "DESC", "HUM", "HUM")
    assert label_first(text, "it", sublabels=True).labels == ("DESC:manner", "DESC:def", "HUM:ind", "HUM:ind")
    assert label_first(text, "it").texts[0] == "How did it ?"


def test_a_line_without_a_text_is_skipped_by_its_number():
    rows = label_first("1 good\n0\n\n0 bad\n : \n", "it")
    assert rows.labels == ("1", "0")
    assert [(item.name, item.reason) for item in rows.skipped] == [
        ("line 2", "no text after the label '0'"),
        ("line 5", "no text after the label ':'"),
    ]


def test_a_text_without_labels_is_refused():
    words = ["It", "it", "we", "all", "the", "so", "for", "of", "We"]
    prose = "".join(f"{word} was the best of times,\n" for word in [*words, "We", "We"])
    with pytest.raises(DataError, match=r"of the 9 words that begin its lines 8 begin one line only, such as 'It'"):
        label_first(prose, "it")
    assert len(label_first(prose.replace("We was", "for was").replace("so was", "the was"), "it").labels) == 11
    for empty in ("", "\n \n", "word\nword\n"):
        with pytest.raises(DataError, match="no line with a label and a text"):
            label_first(empty, "it")


FIELD = st.text(alphabet='ab,;"\n\t é', min_size=1).filter(str.strip)


@given(st.lists(st.tuples(FIELD, FIELD), min_size=1, max_size=6), st.sampled_from([",", "\t", ";"]))
@settings(deadline=None)
def test_a_table_is_read_as_the_writer_of_csv_wrote_it(rows, delimiter):
    file = io.StringIO(newline="")
    writer = csv.writer(file, delimiter=delimiter)
    writer.writerow(["label", "other", "text"])
    writer.writerows([label, "x", text] for label, text in rows)
    found = columns(file.getvalue(), "it", tabs=delimiter == "\t")
    assert list(zip(found.labels, found.texts, strict=True)) == [(label.strip(), text.strip()) for label, text in rows]
    assert found.skipped == ()


def test_columns_are_taken_by_name():
    found = columns("a,b,c\n1,2,3\n4,5,6\n", "it", tabs=False, text_column="c", label_column="a")
    assert (found.labels, found.texts) == (("1", "4"), ("3", "6"))


def test_quotes_in_a_table_of_tabs_that_do_not_pair_are_characters():
    found = columns('text\tlabel\n"so he said\t1\nan 8" disk\t0\n', "it", tabs=True)
    assert found.texts == ('"so he said', 'an 8" disk')


def test_rows_that_are_not_whole_are_skipped_by_line():
    found = columns('text,label\n"two\nlines",1\n,0\ngood,\nmore,1,2\nless\n\nfine,0\n  ,1\n', "it", tabs=False)
    assert (found.texts, found.labels) == (("two\nlines", "fine"), ("1", "0"))
    assert [(item.name, item.reason) for item in found.skipped] == [
        ("line 4", "an empty text"),
        ("line 5", "an empty label"),
        ("line 6", "3 fields; expected 2"),
        ("line 7", "1 fields; expected 2"),
        ("line 10", "an empty text"),
    ]


@pytest.mark.parametrize(
    ("text", "names", "message"),
    [
        (
            "texts,label\na,1\n",
            {},
            r"unknown text column 'texts?'; did you mean 'texts'\? give text_column=; the columns",
        ),
        (
            "text,label\na,1\n",
            {"label_column": "lable"},
            "unknown label column 'lable'; did you mean 'label'.* text, label",
        ),
        ("text,label,text\na,1,b\n", {}, "has 2 columns named 'text'"),
        ("", {}, "has 0 rows; expected one that names the columns"),
        ("text,label\n", {}, "has 1 rows"),
        ("text,label\n,\n", {}, "no whole row: line 2 has an empty text"),
        ('text,label\n"open,1\nmore,0\n', {}, "cannot be read as a table at line 3.*expected fields in double quotes"),
        ("text,label\n" + "x" * 200_000 + ",1\n", {}, "line 2: field larger than field limit"),
    ],
)
def test_tables_that_cannot_be_read_are_refused(text, names, message):
    with pytest.raises(DataError, match=message):
        columns(text, "it", tabs=False, **names)

"""Texts and labels out of JSON lines, JSON, Parquet, folders of datasets and tables without names."""

import json

import pytest

from muonlab.data.sources import DataError
from muonlab.data.text import examples, language

PAIRS = [("good", "a good film"), ("bad", "dull, and far too long"), ("good", "see it"), ("bad", "no")] * 3
RECORDS = [{"id": number, "label": label, "text": text} for number, (label, text) in enumerate(PAIRS)]


def holds(found):
    return [
        (found.classes[label], text) for label, text in zip(found.labels.tolist(), found.texts, strict=True)
    ] == PAIRS


def lines(records):
    return "\n".join(map(json.dumps, records)) + "\n"


# Bug: JSON lines were read as text, or refused with "give text_column=", which was no setting.
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", lines(RECORDS)),
        ("a.ndjson", "\n" + lines(RECORDS)),
        ("a.json", json.dumps(RECORDS)),
        ("a.json", json.dumps({"version": 1, "data": RECORDS})),
        ("a.json", lines(RECORDS)),
    ],
)
def test_records_are_labelled_texts_and_a_text(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    assert holds(examples(tmp_path / name))
    assert language(tmp_path / name).text == "\n".join(text for _, text in PAIRS)


def test_fields_of_other_names_are_given_or_found_where_one_alone_is_of_texts(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(lines([{"stars": {"bad": 1, "good": 5}[label], "review": text} for label, text in PAIRS]))
    assert examples(path, label_column="stars").classes == ("1", "5")
    assert examples(path, label_column="stars", text_column="review").texts == tuple(text for _, text in PAIRS)
    with pytest.raises(
        DataError, match=r"unknown label field 'label'; .*give label_column=; the fields of .* are stars"
    ):
        examples(path)
    path.write_text(lines([{"title": "x", "body": "y", "label": 1}]))
    with pytest.raises(DataError, match=r"has no field 'text'; give text_column=, one of title, body, label"):
        language(path)


def test_records_without_a_text_are_skipped_and_named(tmp_path):
    (tmp_path / "a.jsonl").write_text(lines([*RECORDS, {"text": "", "label": 0}, {"text": "x"}]))
    skipped = examples(tmp_path / "a.jsonl").skipped
    assert [tuple(each) for each in skipped] == [("record 13", "an empty text"), ("record 14", "an empty label")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lines(RECORDS) + '{"text": ', "is not JSON from line 13"),
        ("[1, 2]\n", r"line 1 is '\[1, 2\]'; expected a JSON object"),
        (" \n", "holds no record"),
    ],
)
def test_a_torn_file_says_from_which_line(tmp_path, content, message):
    (tmp_path / "a.jsonl").write_text(content)
    with pytest.raises(DataError, match=message):
        language(tmp_path / "a.jsonl")


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_table_without_names_has_numbers(tmp_path, order):
    path = tmp_path / "a.tsv"
    path.write_text("".join("\t".join(pair[place] for place in order) + "\n" for pair in PAIRS))
    assert holds(examples(path))
    assert holds(examples(path, label_column=str(order.index(0) + 1), text_column=str(order.index(1) + 1)))
    path.write_text("sentiment\treview\n" + path.read_text())
    with pytest.raises(DataError, match=r"give text_column=; the columns of .* are sentiment, review"):
        examples(path)


def test_parquet_and_folders_of_datasets_are_records(tmp_path):
    arrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    from pyarrow import parquet

    table = arrow.Table.from_pylist(RECORDS)
    parquet.write_table(table, tmp_path / "a.parquet")
    assert holds(examples(tmp_path / "a.parquet"))
    part = tmp_path / "saved" / "train"
    part.mkdir(parents=True)
    (tmp_path / "saved" / "dataset_dict.json").write_text('{"splits": ["train"]}')
    with (
        arrow.OSFile(str(part / "data-00000-of-00001.arrow"), "wb") as file,
        arrow.ipc.new_stream(file, table.schema) as out,
    ):
        out.write_table(table)
    assert holds(examples(tmp_path / "saved"))
    (tmp_path / "torn.parquet").write_bytes((tmp_path / "a.parquet").read_bytes()[:-9])
    with pytest.raises(DataError, match=r"torn.parquet cannot be read as .parquet"):
        examples(tmp_path / "torn.parquet")

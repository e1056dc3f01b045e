import csv
import re
from pydoc_data.topics import topics

import pytest
import torch

from muonlab.data.sources import DataError
from muonlab.data.text import Passages, examples, language, split, subset


def lines(path, *rows, encoding="utf-8"):
    path.write_bytes("".join(f"{row}\n" for row in rows).encode(encoding))
    return path


def test_documentation_is_the_default_and_sources_end_at_the_limit():
    text = language()
    assert text.text == "\n".join(topics[name] for name in sorted(topics))
    assert text.source.startswith(f"{len(topics)} topics of Python 3.")
    assert language(limit=1000).text == text.text[:1000]
    assert len(language("sources", limit=50_000).text.encode()) == 50_000


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


@pytest.mark.parametrize("read", [language, examples])
def test_files_that_are_no_text_are_refused(tmp_path, read):
    (tmp_path / "empty.txt").write_bytes(b"")
    (tmp_path / "blank.txt").write_bytes(b" \n\n")
    (tmp_path / "a.zip").write_bytes(b"PK")
    with pytest.raises(DataError, match=r"empty\.txt is empty"):
        read(tmp_path / "empty.txt")
    with pytest.raises(DataError, match=r"blank\.txt (holds blanks alone|has no line)"):
        read(tmp_path / "blank.txt")
    with pytest.raises(DataError, match=r"a\.zip is no text but \.zip"):
        read(tmp_path / "a.zip")
    with pytest.raises(
        DataError, match=r"is a folder; expected a file of text, such as a\.zip, blank\.txt, empty\.txt in it"
    ):
        read(tmp_path)
    with pytest.raises(DataError, match=r"no file or folder .*blanc\.txt'; did you mean '.*blank\.txt'"):
        read(tmp_path / "blanc.txt")


def test_a_name_that_is_nearly_right_is_hinted_at():
    with pytest.raises(
        DataError, match=r"did you mean 'documentation'\? expected a path or one of documentation, sources"
    ):
        language("documentaton")
    with pytest.raises(DataError, match="did you mean 'packages'"):
        examples("package")
    with pytest.raises(DataError, match="limit=0 is too small"):
        language(limit=0)


def test_lines_with_labels_and_their_test_set(tmp_path):
    train = lines(tmp_path / "train", "b good one", "a bad one", "b good two", "a bad two", "a", encoding="cp1252")
    test = lines(tmp_path / "test", "a bad three", "b good two", "b café –", encoding="cp1252")
    passages = examples(train, test=test)
    assert passages.texts == ("good one", "bad one", "good two", "bad two", "bad three", "good two", "café –")
    assert [passages.classes[label] for label in passages.labels] == ["b", "a", "b", "a", "a", "b", "b"]
    assert passages.is_test.tolist() == [False] * 4 + [True] * 3
    assert passages.encoding == "utf-8 and cp1252"
    assert passages.num_repeated == 1
    assert passages.chance == 4 / 7
    assert [item.name for item in passages.skipped] == [f"{train}, line 5"]
    assert "7 texts (3 of them its test set, 1 of which stand outside of it too), 2 classes" in str(passages)
    parts = split(passages, validation=0.3)
    assert parts.test.tolist() == [4, 5, 6]
    assert len(parts.validation) == 2


@pytest.mark.parametrize(("suffix", "delimiter"), [(".csv", ","), (".csv", ";"), (".tsv", "\t")])
def test_tables_are_read_by_the_names_of_their_columns(tmp_path, suffix, delimiter):
    path = tmp_path / f"a{suffix}"
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = [["review", "stars"], ['a "good", film', "5"], ["long; dull\nlong", "1"], ["fine", "10"]]
        csv.writer(file, delimiter=delimiter).writerows(rows)
    passages = examples(path, text_column="review", label_column="stars")
    assert passages.texts == ('a "good", film', "long; dull\nlong", "fine")
    assert passages.classes == ("1", "5", "10")
    assert passages.labels.tolist() == [1, 0, 2]
    with pytest.raises(
        DataError, match=r"unknown text column 'text'; give text_column=; the columns of .* are review, stars"
    ):
        examples(path)


def test_what_does_not_fit_is_refused(tmp_path):
    path = lines(tmp_path / "a.txt", "1 good", "0 bad", "1 fine", "0 dull")
    with pytest.raises(DataError, match=r"text_column and label_column are for \.csv and \.tsv"):
        examples(path, label_column="x")
    with pytest.raises(DataError, match="one class only, '1'"):
        examples(lines(tmp_path / "one", "1 good", "1 fine"))
    with pytest.raises(DataError, match=r"unknown class '2'; .*test has it, but .*a\.txt has 0, 1"):
        examples(path, test=lines(tmp_path / "test", "2 bad", "2 worse"))
    with pytest.raises(DataError, match=r"per_class=3, but .* has only 2 examples of class '0'"):
        examples(path, per_class=3)
    with pytest.raises(DataError, match="is divided by module"):
        examples("packages", test=path)


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
    assert part.texts == ("x", "z", "w")
    assert part.labels.tolist() == [1, 0, 0]
    assert part.groups.tolist() == [5, 7, 8]
    assert part.is_test.tolist() == [False, False, True]


def test_the_same_text_again_goes_to_the_same_part(tmp_path):
    rows = [f"{label} text {number}" for label in "ab" for number in range(20) for _ in range(1 + number % 3)]
    passages = examples(lines(tmp_path / "a", *rows))
    for seed in range(3):
        parts = split(passages, seed=seed)
        for label in (0, 1):
            sides = [
                {passages.texts[row] for row in part if passages.labels[row] == label}
                for part in (parts.train, parts.validation, parts.test)
            ]
            assert sum(map(len, sides)) == 20


def test_packages_are_told_apart_by_modules_that_no_other_part_has():
    passages = examples()
    for seed in range(3):
        parts = split(passages, seed=seed)
        modules = [set(passages.groups[part].tolist()) for part in (parts.train, parts.validation, parts.test)]
        assert sum(map(len, modules)) == len(set.union(*modules))
        for part, share in ((parts.validation, 0.1), (parts.test, 0.2)):
            assert share / 2 < len(part) / len(passages.texts) < 2 * share
            assert set(passages.labels[part].tolist()) == set(range(len(passages.classes)))


def accuracy_of_naive_bayes(passages, parts):
    """Return the test accuracy of multinomial naive Bayes on words, from its definition."""
    words = [re.findall(r"\w+", text) for text in passages.texts]
    place = {word: number for number, word in enumerate(sorted({word for row in parts.train for word in words[row]}))}
    counts = torch.ones(len(place), len(passages.classes))
    for row in parts.train.tolist():
        for word in words[row]:
            counts[place[word], passages.labels[row]] += 1
    logs = (counts / counts.sum(dim=0)).log()
    prior = passages.labels[parts.train].bincount().log()
    scores = [logs[[place[word] for word in words[row] if word in place]].sum(dim=0) + prior for row in parts.test]
    return (torch.stack(scores).argmax(dim=1) == passages.labels[parts.test]).float().mean().item()


def test_packages_can_be_told_apart_but_not_by_their_words_alone():
    passages = examples()
    accuracy = accuracy_of_naive_bayes(passages, split(passages))
    assert passages.chance + 0.2 < accuracy < 0.95

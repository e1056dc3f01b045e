"""Texts for language modelling and for classification: those that come with Python, or a user's own files.

text = language("documentation")
passages = examples("packages")
parts = split(passages, seed=0)
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Unpack

import torch

from muonlab.data import library, records
from muonlab.data.encodings import Decoded, decode, with_newlines
from muonlab.data.examples import Choice, Labelled, check_classes, class_order, split, subset
from muonlab.data.sources import DataError, check_name, existing, read_bytes
from muonlab.data.tables import Rows, columns, label_first

__all__ = ["Passages", "Text", "examples", "language", "split", "subset"]

LANGUAGE = ("documentation", "sources")
EXAMPLES = ("packages",)
TABLES = (".csv", ".tsv")
BINARY = (".zip", ".gz", ".bz2", ".xz", ".npz", ".pdf", ".docx", ".jpg", ".png")


@dataclass(frozen=True)
class Text:
    r"""A text for language modelling.

    Attributes:
        text: the whole; lines end in \n.
        source: where it comes from.
        encoding: what its bytes were read as.
        num_replaced: number of places with invalid bytes, each now U+FFFD.
    """

    text: str
    source: str
    encoding: str
    num_replaced: int = 0

    def __str__(self) -> str:
        return f"{self.source}: {len(self.text)} characters, {self.encoding}, {self.num_replaced} places replaced"


@dataclass(frozen=True, eq=False, kw_only=True)
class Passages(Labelled):
    """Texts with their classes. Those of one document, and those that are the same, have one group.

    Attributes:
        texts: (N,) texts.
        encoding: what the bytes were read as.
        num_replaced: number of places with invalid bytes, each now U+FFFD.
    """

    texts: tuple[str, ...]
    encoding: str
    num_replaced: int = 0
    by_example = (*Labelled.by_example, "texts")

    @property
    def num_repeated(self) -> int:
        """Number of texts of the source's test set that are also outside of it."""
        sides: dict[bool, list[str]] = {False: [], True: []}
        for text, is_test in zip(self.texts, self.is_test.tolist(), strict=True):
            sides[is_test].append(text)
        known = set(sides[False])
        return sum(text in known for text in sides[True])

    def __str__(self) -> str:
        num_test = int(self.is_test.sum())
        repeated = f", {self.num_repeated} of which stand outside of it too" if num_test else ""
        return (
            f"{self.source}: {len(self.texts)} texts ({num_test} of them its test set{repeated}), "
            f"{len(self.classes)} classes, {self.encoding}, {self.num_replaced} places replaced, "
            f"{len(self.skipped)} lines skipped{self.names_of_skipped()}"
        )


def language(
    source: str | Path = LANGUAGE[0],
    *,
    encoding: str | None = None,
    limit: int | None = None,
    text_column: str | None = None,
) -> Text:
    """Return a text for language modelling. Nothing is downloaded.

    Args:
        source: "documentation" (the topics that Python's help() knows, about 0.5 MB of English), "sources" (the
            standard library's files, about 12 MB), a file of text, or records (`muonlab.data.records`), whose texts
            follow each other. A file of such a name is "./documentation".
        encoding: of a file; None finds it.
        limit: bytes of UTF-8 after which the rest is left out; None takes all.
        text_column: the field of records; None is "text", or the only one of texts.

    Raises:
        DataError: no such file, an empty one, one that is not a text, an unknown encoding, a limit below 1.
    """
    if limit is not None and limit < 1:
        raise DataError(f"limit={limit} is too small; expected at least 1 byte")
    if str(source) in LANGUAGE:
        is_documentation = str(source) == "documentation"
        found = library.documentation() if is_documentation else library.sources(limit)
        kind = "topics" if is_documentation else "sources"
        text = library.first("\n".join(found.values()), limit)
        return Text(text, f"{len(found)} {kind} of {library.version()}", "utf-8")
    path = existing(source, LANGUAGE)
    if records.is_records(path):
        held = records.read(path)
        text = library.first("\n".join(records.texts(held, str(source), text_column)), limit)
        return Text(text, f"{source} ({len(held)} records)", "utf-8")
    if text_column is not None:
        raise DataError(f"text_column={text_column} is for records ({', '.join(records.SUFFIXES)}); {source} is none")
    decoded = _decoded(source, encoding, LANGUAGE)
    text = library.first(with_newlines(decoded.text), limit)
    if not text.strip():
        raise DataError(f"{source} holds blanks alone; expected a text")
    return Text(text, str(source), decoded.encoding, decoded.num_replaced)


def _decoded(source: str | Path, encoding: str | None, others: tuple[str, ...]) -> Decoded:
    path = existing(source, others)
    if path.is_dir():
        inside = sorted(item.name for item in path.iterdir() if item.is_file())[:3]
        such = f", such as {', '.join(inside)} in it" if inside else ""
        raise DataError(f"{source} is a folder; expected a file of text{such}")
    if path.suffix.lower() in BINARY:
        raise DataError(
            f"{source} is a {path.suffix} file; expected .txt, .csv, .tsv, .jsonl, .parquet or lines with a label first"
        )
    return decode(read_bytes(path), str(source), encoding)


def examples(
    source: str | Path = EXAMPLES[0],
    *,
    test: str | Path | None = None,
    encoding: str | None = None,
    text_column: str | None = None,
    label_column: str | None = None,
    sublabels: bool = False,
    **choice: Unpack[Choice],
) -> Passages:
    """Return labelled texts. Nothing is downloaded.

    Args:
        source: "packages" (which package of Python's standard library a passage of source is from); a .csv or .tsv;
            records (.jsonl, .json, .parquet, or a folder of the package datasets); or any other file of lines with the
            label first, such as "1 a good film" or "DESC:manner How did serfdom develop ?".
        test: another such file, which becomes the test set.
        encoding: of the files; None finds it for each.
        text_column: of a table or of records; None is "text". Columns without names are 1, 2, ...
        label_column: of a table or of records; None is "label".
        sublabels: of lines with the label first: whether "DESC:manner" is a class, or "DESC".
        **choice: which of them, as of `subset`.

    Raises:
        DataError: whatever is wrong with the source or the choice; the message says what to do.
    """
    if str(source) in EXAMPLES:
        if test is not None:
            raise DataError(f"test={test} is for files; {source} is divided by module: see split")
        passages = _packages()
    else:
        files = [source] if test is None else [source, test]
        named = {"text_column": text_column, "label_column": label_column}
        rows, decoded = [], []
        for file in map(str, files):
            if records.is_records(path := existing(file, EXAMPLES)):
                rows.append(records.rows(records.read(path), file, **named))
                decoded.append(Decoded("", "utf-8", 0))
                continue
            decoded.append(found := _decoded(file, encoding, EXAMPLES))
            if (suffix := Path(file).suffix.lower()) in TABLES:
                rows.append(columns(found.text, file, tabs=suffix == ".tsv", **named))
            elif text_column or label_column:
                raise DataError(f"text_column and label_column are for tables and records; {file} is neither")
            else:
                rows.append(label_first(found.text, file, sublabels=sublabels))
        passages = _of_rows(list(map(str, files)), rows, decoded)
    return subset(passages, **choice)


def _of_rows(names: list[str], rows: list[Rows], decoded: list[Decoded]) -> Passages:
    classes = class_order(rows[0].labels)
    check_classes(classes, names[0])
    for name, side in zip(names[1:], rows[1:], strict=True):
        for label in class_order(side.labels):
            check_name("class", label, classes, f"{name} has it, but {names[0]} has")
    texts = tuple(text for side in rows for text in side.texts)
    number = {label: place for place, label in enumerate(classes)}
    first: dict[str, int] = {}
    return Passages(
        texts=texts,
        labels=torch.tensor([number[label] for side in rows for label in side.labels]),
        classes=classes,
        is_test=torch.arange(len(texts)) >= len(rows[0].texts),
        groups=torch.tensor([first.setdefault(text, place) for place, text in enumerate(texts)]),
        source=" and ".join(names),
        encoding=" and ".join(dict.fromkeys(found.encoding for found in decoded)),
        num_replaced=sum(found.num_replaced for found in decoded),
        skipped=tuple(
            item if len(names) == 1 else item._replace(name=f"{name}, {item.name}")
            for name, side in zip(names, rows, strict=True)
            for item in side.skipped
        ),
    )


def _packages() -> Passages:
    found = library.packages()
    modules = sorted({module for _, module, _ in found})
    return Passages(
        texts=tuple(text for _, _, text in found),
        labels=torch.tensor([library.PACKAGES.index(package) for package, _, _ in found]),
        classes=library.PACKAGES,
        is_test=torch.zeros(len(found), dtype=torch.bool),
        groups=torch.tensor([modules.index(module) for _, module, _ in found]),
        source=f"passages of {len(modules)} modules of {library.version()}",
        encoding="utf-8",
    )

"""Every fault in a user's files and choices: the message names the value, what was expected and what to do."""

import gzip
import os
import sys
import sysconfig

import numpy as np
import pytest
import torch

from image_files import CATS_AND_DOGS, PIXELS, idx, write, zipped
from muonlab.data import library
from muonlab.data.dataset import Examples, Tensors
from muonlab.data.encodings import decode
from muonlab.data.examples import Labelled, split, subset
from muonlab.data.image_arrays import from_arrays, read_idx, read_idx_array, read_npz
from muonlab.data.image_dataset import ImageDataset
from muonlab.data.image_folders import read
from muonlab.data.image_set import join, resize
from muonlab.data.images import Images, load
from muonlab.data.sources import DataError, check_name, existing, package, read_bytes
from muonlab.data.tables import columns, label_first
from muonlab.data.text import Text, examples, language
from muonlab.data.text_datasets import TextDataset, pad, windows
from muonlab.data.tokens import Bytes, Characters, build

GREY = PIXELS[:12, :, :, 0]  # (N, H, W)
LABELS = np.arange(12, dtype=np.uint8) % 3
PROSE = "“Quoted” – déjà vu … naïve café; and much plain English around it. " * 3


def refused(message, call, *arguments, **options):
    with pytest.raises(DataError, match=message):
        call(*arguments, **options)


# ---- files and names


def test_names_and_paths(tmp_path, monkeypatch):
    check_name("class", "cat", ["cat", "dog"])
    refused(
        r"unknown class 'dgo'; did you mean 'dog'\? expected one of cat, dog",
        check_name,
        "class",
        "dgo",
        ["cat", "dog"],
    )
    refused(r"'xyz'; the file has cat, dog$", check_name, "class", "xyz", ["cat", "dog"], "the file has")
    refused(r"17, 18, 19 and 980 more$", check_name, "class", "none", [str(number) for number in range(1000)])
    (tmp_path / "reviews.csv").write_text("x")
    (tmp_path / "empty").write_bytes(b"")
    assert existing(tmp_path / "reviews.csv") == tmp_path / "reviews.csv"
    refused(r"no file or folder '.*review\.csv'; did you mean '.*reviews\.csv'", existing, tmp_path / "review.csv")
    refused(r"did you mean 'digits'\? expected a path or one of digits", existing, "digit", ("digits",))
    refused("no file or folder", existing, tmp_path / "not" / "there" / "at all")
    refused(r"cannot be read|no file or folder", existing, tmp_path / ("x" * 5000))
    assert read_bytes(tmp_path / "reviews.csv") == b"x"
    refused("empty is empty", read_bytes, tmp_path / "empty")
    refused("is a folder; expected a file", read_bytes, tmp_path)
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # permissions do not bind an administrator
    refused(r"may not be read; check its permissions", existing, tmp_path / "reviews.csv")


def test_packages_that_are_missing_are_named_with_what_installs_them(tmp_path, monkeypatch):
    assert package("json.decoder", "json", "reading").__name__ == "json.decoder"
    refused(r"reading needs the package pi-co, .*pip install pi-co", package, "no_such_module.x", "pi-co", "reading")
    (tmp_path / "tokenizer.json").write_text("{}")
    for module, name, call in [
        ("numpy", "numpy", lambda: read_npz(tmp_path / "a.npz")),
        ("PIL.Image", "pillow", lambda: read(tmp_path)),
        ("sklearn.datasets", "scikit-learn", lambda: load("digits")),
        ("tokenizers", "tokenizers", lambda: build(tmp_path / "tokenizer.json", [])),
    ]:
        monkeypatch.setitem(sys.modules, module, None)
        refused(f"pip install {name}", call)


def test_a_python_without_its_texts(monkeypatch, tmp_path):
    with monkeypatch.context() as patch:
        patch.setattr(library, "PACKAGES", ("asyncio", "no_such_package"))
        refused("too little of the package no_such_package", library.packages)
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    refused(r"has no pydoc_data\.topics", library.documentation)
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    refused("no sources of its standard library", library._files.__wrapped__)


# ---- choices and splits


def labelled(*counts, num_test=0, groups=None):
    labels = torch.cat([torch.full((count,), label) for label, count in enumerate(counts)])
    is_test = torch.arange(len(labels)) < num_test
    return Labelled(
        labels=labels, classes=("ant", "bee", "cat")[: len(counts)], is_test=is_test, groups=groups, source="it"
    )


@pytest.mark.parametrize(
    ("data", "choice", "message"),
    [
        (labelled(9, 4, 9), {"classes": ["ant", "bet"]}, r"unknown class 'bet'; did you mean 'bee'\? it has ant, bee"),
        (labelled(9, 4, 9), {"classes": ["ant", "ant"]}, "class 'ant' is asked for twice"),
        (labelled(9, 4, 9), {"classes": ["ant"]}, "classes=ant has one class only, 'ant'"),
        (labelled(9, 4, 9), {"classes": []}, "has no class"),
        (labelled(9, 4, 9), {"per_class": 0}, "per_class=0 is too small"),
        (labelled(9, 4, 9), {"per_class": 5}, "per_class=5, but it has only 4 examples of class 'bee'"),
        (labelled(9, 4, 9), {"test_per_class": 1}, "test_per_class=1, but it has no test set"),
        (labelled(9, 4, 9, num_test=1), {"test_per_class": 2}, "has only 1 examples of class 'ant' in its test set"),
    ],
)
def test_choices(data, choice, message):
    refused(message, subset, data, **choice)


@pytest.mark.parametrize(
    ("data", "shares", "message"),
    [
        (labelled(9, 9, 9), {"validation": 0}, "validation=0 is out of range"),
        (labelled(9, 9, 9), {"test": 1.5}, "test=1.5 is out of range"),
        (labelled(9, 9, 9), {"validation": 0.5, "test": 0.5}, r"validation=0\.5 and test=0\.5 leave nothing to train"),
        (labelled(9, 0, 9), {}, "class 'bee' has 0 examples; a split needs 3, to train on and for validation"),
        (labelled(9, 2, 9), {}, "class 'bee' has 2 examples; a split needs 3, to train on and for validation"),
        (labelled(20, 20, groups=torch.arange(40) // 10), {}, "class 'ant' has 20 examples in 2 groups"),
    ],
)
def test_splits(data, shares, message):
    refused(message, split, data, **shares)


def test_tensors_and_data_sets_that_do_not_fit():
    inputs, labels = torch.zeros(3, 4), torch.zeros(3)
    own, none = Examples(inputs, labels), Examples(inputs[:0], labels[:0])
    refused("the validation split has 0 inputs and 0 labels", Tensors, own, none, own)
    refused("3 inputs and 2 labels; expected as many", Tensors, own, Examples(inputs, labels[:2]), own)
    wide = Examples(torch.zeros(3, 5), labels)
    refused(r"test split has inputs of shape \(5,\), the train split of \(4,\)", Tensors, own, own, wide)
    refused("fog: this data set has no corruptions", Tensors(own, own, own).corrupted, "fog", 1, 2)
    refused(r"per=500, but it leaves only \d+ images of some class", lambda: _image_dataset(made(), ("per", 500)).train)
    short, text = (
        Text("a short text of few words", "made", "utf-8"),
        Text("one two three four five six " * 7, "made", "utf-8"),
    )
    refused(r"part of made has . tokens, but one window of length=16", lambda: TextDataset(short, 16, Bytes()).train)
    data = TextDataset(text, 19, Bytes())  # of 196 characters 20 are tested on
    assert len(data.corrupted("drop", 0, 5).inputs) == 1
    refused("drop at severity 5 leaves 1. tokens .* give a longer text or a smaller", data.corrupted, "drop", 5, 5)


def _image_dataset(images, limit=None):
    return ImageDataset(images, validation=0.15, test_share=0.25, limit=limit)


# ---- images


def made(number=40, classes=("ant", "bee"), shape=(1, 8, 8), num_test=0, source="it"):
    is_test = torch.arange(number) < num_test
    pixels, labels = torch.zeros(number, *shape, dtype=torch.uint8), torch.arange(number) % len(classes)
    return Images(images=pixels, labels=labels, classes=classes, is_test=is_test, source=source)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b"\x89PNG\r\n", "not an IDX file: it begins with 89 50 4e 47; expected 00 00, a type"),
        (b"\0\0\x07\x01\0\0\0\x01\0", "not an IDX file: it begins with 00 00 07 01"),
        (b"\0\0", "not an IDX file"),
        (idx(GREY)[:-1], "is torn: it says it holds 12 x 5 x 4 numbers, 240 bytes, but has 239"),
        (idx(GREY)[:9], "is torn"),
        (idx(GREY) + b"\0", "is too long: .*240 bytes, but has 241"),
        (idx(GREY[:0]), "holds no numbers"),
        (gzip.compress(idx(GREY), mtime=0)[:-20], r"torn \.gz"),
        (gzip.compress(idx(GREY), mtime=0)[:5], r"torn \.gz"),
        (gzip.compress(idx(GREY), mtime=0)[:-8] + b"\0" * 8, r"torn \.gz"),
    ],
)
def test_idx_files(tmp_path, data, message):
    (tmp_path / "file").write_bytes(data)
    refused(message, read_idx_array, tmp_path / "file")


def test_folders_of_idx_files(tmp_path):
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(GREY)))
    refused(r"has no file of labels.*train-labels-idx1-ubyte \(or with \.gz\)", read_idx, tmp_path)
    (tmp_path / "more-images-idx3-ubyte").write_bytes(b"")
    refused("expected one train-images", read_idx, tmp_path)


def test_npz_files(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, pictures=GREY, labels=LABELS)
    refused(r"the keys pictures, labels; expected x_train, y_train.*; or images, labels", read_npz, path)
    np.savez(path, images=np.array([{}, 1], dtype=object), labels=LABELS)
    refused("without Python objects", read_npz, path)
    labels = {
        "x_train": GREY,
        "y_train": np.array(["cat", "dog"] * 6),
        "x_test": GREY,
        "y_test": np.array(["cow"] * 12),
    }
    np.savez(path, **labels)
    refused(r"unknown class 'cow'; .*the test set of .*a\.npz has it", read_npz, path)
    np.savez(path, images=GREY, labels=LABELS)
    np.save(tmp_path / "b.npy", GREY)
    whole, array = path.read_bytes(), (tmp_path / "b.npy").read_bytes()
    for data in (whole[:-10], whole[:100], whole[:200] + b"\0" + whole[201:], array, b"text"):
        path.write_bytes(data)
        refused(r"cannot be read as \.npz", read_npz, path)


@pytest.mark.parametrize(
    ("pixels", "labels", "message"),
    [
        (GREY.reshape(12, 20), LABELS, r"the shape \[12, 20\]; expected \(N, H, W\)"),
        (np.zeros((12, 5, 5, 5), np.uint8), LABELS, "with 1 or 3 channels"),
        (GREY[:0], LABELS[:0], "has no images"),
        (GREY.astype(np.int32) - 9, LABELS, r"images of int32 from -9 to \d+; expected whole numbers of 0 to 255"),
        (np.where(GREY[4, 2, 2] == GREY, np.nan, GREY), LABELS, r"a value in image \d+ that is not finite"),
        (GREY, LABELS[:11], r"12 images but labels of the shape \[11\]"),
        (GREY, np.eye(12) * 2, r"labels of the shape \[12, 12\]; expected \(12,\), or one-hot"),
        (GREY, LABELS + np.float32(0.5), "labels of a float type"),
        (GREY, LABELS.astype(np.int8) - 1, "label -1 at 0, out of range; expected 0 or more"),
        (GREY, LABELS * 0, "one class only, '0'"),
    ],
)
def test_arrays(pixels, labels, message):
    refused(message, from_arrays, "it", torch.from_numpy(pixels), torch.from_numpy(labels))


def test_arrays_and_their_names_or_test_set():
    own = torch.from_numpy(GREY), torch.from_numpy(LABELS)
    names = {"class_names": ["a", "b"]}
    refused("label 2 at 2, out of range; expected 0 to 1, for the 2 class names", from_arrays, "it", *own, **names)
    refused("class_names has 'a' twice", from_arrays, "it", *own, class_names=["a", "b", "a"])
    strange = own[0][:2], torch.tensor([0, 9])
    refused(
        r"the test set of it has the label 9 at 1, .* one of 0, 1, 2, the labels of", from_arrays, "it", *own, *strange
    )
    narrow = own[0][:, :, 1:], own[1]
    refused(r"\[1, 5, 4\] uint8 and \[1, 5, 3\] uint8; expected one", from_arrays, "it", *own, *narrow)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "holds no image; expected class folders"),
        (["1.png", "2.png"], "2 images but no class folders; expected one folder per class"),
        (["cat/1.png", "cat/2.png"], "one class only, 'cat'"),
        (["test/cat/1.png", "val/cat/1.png"], "has test and val/ but no train/"),
        (
            ["train/cat/1.png", "train/dog/1.png", "test/cot/1.png"],
            r"unknown class 'cot'; did you mean 'cat'\? it",
        ),
    ],
)
def test_folders_that_are_not_class_folders(tmp_path, names, message):
    refused(message, read, write(tmp_path, names))


def test_folders_and_zips(tmp_path):
    root = write(tmp_path / "root", CATS_AND_DOGS)
    for limit in ({"per_class": 0}, {"test_per_class": -1}):
        refused("is too small; expected at least 1", read, root, **limit)
    whole = zipped(root).read_bytes()
    for keep in (0, 10, 300, -30):
        (tmp_path / "torn.zip").write_bytes(whole[:keep])
        refused(r"torn\.zip cannot be read as a zip", read, tmp_path / "torn.zip")
    (root / "dog" / "3.png").write_text("no image")
    for name in ("1.png", "2.png", "3.png"):
        (root / "dog" / name).write_text("no image")
    refused(r"no image of class 'dog' .* 3 files the first is dog/1\.png: no image that can be read", read, root)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "train.zip").write_bytes(b"")
    refused(r"1 files, the first of them train\.zip, but no image.*by its own path", read, tmp_path / "other")


def test_a_class_that_few_images_are_left_of_says_which_were_left_out(tmp_path):
    root = write(tmp_path / "root", [f"{kind}/{number}.png" for kind in ("cat", "dog") for number in range(3)])
    for name in ("1.png", "2.png"):
        (root / "dog" / name).write_text("no image")
    message = "class 'dog' has 1 example, 2 left out, the first dog/1.png: no image that can be read; a split needs 3"
    refused(message, split, read(root))


def test_sources_of_images(tmp_path):
    (tmp_path / "a.txt").write_text("text")
    refused(r"a\.txt is not a source of images; expected a folder or \.zip", load, tmp_path / "a.txt")
    refused(r"no file or folder 'digit'; did you mean 'digits'\?", load, "digit")
    refused(r"class_names is for IDX and \.npz", load, write(tmp_path / "root", CATS_AND_DOGS), class_names=["x"])
    # Bug: the same images were trained and tested on.
    refused(r"test=.*root/\. is the source itself", load, tmp_path / "root", test=f"{tmp_path}/root/.")
    refused("test=digits is the source itself", load, "digits", test="digits")
    # Bug: any .gz was taken for IDX, "it begins with 68 65 6c 6c; expected 00 00".
    for name in ("a.tar.gz", "a.TAR", "a.txt.gz", "a.7z"):
        (tmp_path / name).write_bytes(b"x")
        refused(r"is packed in a form that is not read; unpack it", load, tmp_path / name)
    refused("unknown class '10'", load, classes=[1, 10])
    refused("other has a test set of its own", join, made(), made(num_test=1, source="other"))
    refused(r"unknown class 'bea'; did you mean 'bee'\?", join, made(), made(classes=("ant", "bea")))
    refused("8 x 8 uint8, other of 5 x 4 uint8.*size=", join, made(), made(shape=(1, 5, 4), source="other"))
    refused("too small", resize, made(), (4, 0))


# ---- texts


@pytest.mark.parametrize(
    ("data", "encoding", "message"),
    [
        (
            gzip.compress(PROSE.encode(), mtime=0),
            None,
            r"it: \d+ of its \d+ bytes are control characters; expected a text",
        ),
        (PROSE.encode("utf-16-le"), None, "control characters.*save it as UTF-8"),
        (b"caf\xff", "utf-9", r"unknown encoding 'utf-9'; did you mean 'utf-\d+"),
        (b"caf\xff", "hex-codec", "encoding 'hex-codec' is not for texts"),
        (b"caf\xff\xff", "idna", "encoding 'idna'"),
    ],
)
def test_bytes_that_are_not_a_text_and_encodings(data, encoding, message):
    refused(message, decode, data, "it", encoding)


@pytest.mark.parametrize(
    ("text", "names", "message"),
    [
        (
            "texts,label\na,1\n",
            {},
            r"unknown text column 'text'; did you mean 'texts'\? give text_column=; the columns",
        ),
        (
            "text,label\na,1\n",
            {"label_column": "lable"},
            "label column 'lable'; did you mean 'label'.* text, label",
        ),
        ("text,label,text\na,1,b\n", {}, "has 2 columns named 'text'"),
        ("", {}, "has no row; expected one that names the columns"),
        ("text,label\n", {}, "has one row;"),
        ("text,label\n,\n", {}, "no whole row: line 2 has an empty text"),
        ('text,label\n"open,1\nmore,0\n', {}, "cannot be read as a table at line 3.*expected fields in double quotes"),
        ("text,label\n" + "x" * 200_000 + ",1\n", {}, "line 2: field larger than field limit"),
    ],
)
def test_tables(text, names, message):
    refused(message, columns, text, "it", tabs=False, **names)


def test_lines_without_labels():
    words = ["It", "it", "we", "all", "the", "so", "for", "of", "We"]
    prose = "".join(f"{word} was the best of times,\n" for word in [*words, "We", "We"])
    refused("of the 9 words that begin its lines 8 begin one line only, such as 'It'", label_first, prose, "it")
    assert len(label_first(prose.replace("We was", "for was").replace("so was", "the was"), "it").labels) == 11
    for empty in ("", "\n \n", "word\nword\n"):
        refused("no line with a label and a text", label_first, empty, "it")


@pytest.mark.parametrize("call", [language, examples])
def test_files_that_are_not_texts(tmp_path, call):
    (tmp_path / "another_folder").mkdir()  # which is no text to suggest
    (tmp_path / "empty.txt").write_bytes(b"")
    (tmp_path / "blank.txt").write_bytes(b" \n\n")
    (tmp_path / "a.zip").write_bytes(b"PK")
    refused(r"empty\.txt is empty", call, tmp_path / "empty.txt")
    refused(r"blank\.txt (holds blanks alone|has no line)", call, tmp_path / "blank.txt")
    refused(r"a\.zip is a \.zip file; expected \.txt", call, tmp_path / "a.zip")
    refused(r"is a folder; expected a file of text, such as a\.zip, blank\.txt, empty\.txt in it", call, tmp_path)
    refused(r"no file or folder .*blanc\.txt'; did you mean '.*blank\.txt'", call, tmp_path / "blanc.txt")


def test_choices_among_texts(tmp_path):
    path, one, other = tmp_path / "a.txt", tmp_path / "one", tmp_path / "test"
    path.write_text("1 good\n0 bad\n1 fine\n0 dull\n")
    one.write_text("1 good\n1 fine\n")
    other.write_text("2 bad\n2 worse\n")
    refused(r"did you mean 'documentation'\? expected a path or one of documentation", language, "documentaton")
    refused("did you mean 'packages'", examples, "package")
    refused("limit=0 is too small", language, limit=0)
    refused(r"text_column and label_column are for tables and records", examples, path, label_column="x")
    refused("one class only, '1'", examples, one)
    refused(r"unknown class '2'; .*test has it, but .*a\.txt has 0, 1", examples, path, test=other)
    refused(r"per_class=3, but .* has only 2 examples of class '0'", examples, path, per_class=3)
    refused("is divided by module", examples, "packages", test=path)


def test_tokens_and_windows(tmp_path):
    pytest.importorskip("tokenizers")
    (tmp_path / "tokenizer.json").write_text('{"version": "1.0"}')
    refused(r"tokenizer\.json cannot be read as a tokenizer", build, tmp_path / "tokenizer.json", [])
    refused(r"no file or folder '.*none\.json'", build, tmp_path / "none.json", [])
    refused(r"unknown tokenizer 'byte'; did you mean 'bytes'\? expected the path of", build, "byte", [])
    for texts in ([], [""]):
        refused("no characters", Characters, texts)
    text, encoder = "ab" * 50, Bytes()
    refused("validation part of it has 10 tokens, but one window of .* needs 11", windows, text, 10, "it", encoder)
    refused("train part of it has 80 tokens, but one window of length=90 needs 91", windows, text, 90, "it", encoder)
    refused("length=0 is too small", windows, text, 0, "it", encoder)
    refused("it has 4 characters, too few", windows, "abcd", 1, "it", encoder)
    refused("example 1, '', has no token", pad, ["a", ""], 5, encoder)
    refused("length=0 is too small", pad, ["a"], 0, encoder)

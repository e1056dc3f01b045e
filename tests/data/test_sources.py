import os

import pytest

from muonlab.data.sources import DataError, check_name, existing, package, read_bytes


def test_a_known_name_passes_and_an_unknown_one_is_refused_with_the_nearest():
    check_name("class", "cat", ["cat", "dog"])
    with pytest.raises(DataError, match=r"unknown class 'dgo'; did you mean 'dog'\? expected one of cat, dog"):
        check_name("class", "dgo", ["cat", "dog"])
    with pytest.raises(DataError, match=r"'xyz'; the file has cat, dog$"):
        check_name("class", "xyz", ["cat", "dog"], "the file has")
    with pytest.raises(DataError, match=r"17, 18, 19 and 980 more$"):
        check_name("class", "none", [str(number) for number in range(1000)])


def test_a_missing_path_is_refused_with_the_nearest_beside_it(tmp_path):
    (tmp_path / "reviews.csv").write_text("x")
    with pytest.raises(DataError, match=r"no file or folder '.*review\.csv'; did you mean '.*reviews\.csv'"):
        existing(tmp_path / "review.csv")
    with pytest.raises(DataError, match=r"did you mean 'digits'\? expected a path or one of digits"):
        existing("digit", ("digits",))
    with pytest.raises(DataError, match="no file or folder"):
        existing(tmp_path / "not" / "there" / "at all")
    assert existing(tmp_path / "reviews.csv") == tmp_path / "reviews.csv"
    with pytest.raises(DataError, match=r"cannot be read|no file or folder"):
        existing(tmp_path / ("x" * 5000))


def test_a_file_without_permission_is_refused(tmp_path, monkeypatch):
    (tmp_path / "a").write_text("x")
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # permissions do not bind an administrator
    with pytest.raises(DataError, match=r"may not be read; check its permissions"):
        existing(tmp_path / "a")


def test_bytes_are_those_of_the_file_and_a_folder_or_an_empty_file_is_refused(tmp_path):
    (tmp_path / "full").write_bytes(b"\0\xff")
    (tmp_path / "empty").write_bytes(b"")
    assert read_bytes(tmp_path / "full") == b"\0\xff"
    with pytest.raises(DataError, match="empty is empty"):
        read_bytes(tmp_path / "empty")
    with pytest.raises(DataError, match="is a folder; expected a file"):
        read_bytes(tmp_path)


def test_a_package_that_is_missing_is_named_with_what_installs_it():
    assert package("json.decoder", "json", "reading").__name__ == "json.decoder"
    with pytest.raises(DataError, match=r"reading needs the package pi-co, .*pip install pi-co"):
        package("no_such_module.at_all", "pi-co", "reading")

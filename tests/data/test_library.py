import itertools
import sys
import sysconfig
from pathlib import Path
from pydoc_data.topics import topics

import pytest

from muonlab.data import library
from muonlab.data.sources import DataError

STDLIB = Path(sysconfig.get_path("stdlib"))


def test_documentation_is_that_of_pydoc_in_the_order_of_names():
    found = library.documentation()
    assert found == topics
    assert list(found) == sorted(topics)


def test_a_python_without_documentation_is_refused(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    with pytest.raises(DataError, match=r"has no pydoc_data\.topics"):
        library.documentation()


def test_sources_are_files_of_the_library_in_the_same_order_each_time():
    found = library.sources(300_000)
    assert list(found) == list(library.sources(300_000))
    assert list(found) != sorted(found)
    for name, text in list(found.items())[:-1]:  # the last one is cut
        assert text == (STDLIB / name).read_text(encoding="utf-8")
    assert sum(len(text.encode()) for text in found.values()) == 300_000


def test_a_larger_limit_goes_on_where_the_smaller_one_ended():
    small, large = (list(library.sources(limit).items()) for limit in (100_000, 150_000))
    assert small[:-1] == large[: len(small) - 1]
    name, text = small[-1]
    assert large[len(small) - 1][0] == name
    assert large[len(small) - 1][1].startswith(text)


def test_sources_have_no_tests_and_no_installed_packages():
    names = list(library.sources())
    assert "asyncio/events.py" in names
    assert not any({"test", "tests", "site-packages", "pydoc_data"} & set(name.split("/")) for name in names)


def test_the_beginning_of_a_text_is_cut_at_a_character():
    for limit, text in [(None, "aéb"), (9, "aéb"), (4, "aéb"), (3, "aé"), (2, "a"), (1, "a")]:
        assert library.first("aéb", limit) == text


def test_a_limit_or_a_length_below_one_is_refused():
    with pytest.raises(DataError, match="limit=0 is too small"):
        library.sources(0)
    with pytest.raises(DataError, match="length=0 is too small"):
        library.packages(0)


def test_a_python_without_its_sources_is_refused(monkeypatch, tmp_path):
    library._files.cache_clear()
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    with pytest.raises(DataError, match="no sources of its standard library"):
        library.sources()


def test_passages_are_long_enough_and_of_lines_of_their_module():
    found = library.packages(300)
    assert {package for package, _, _ in found} == set(library.PACKAGES)
    for package, module, passage in found[::97]:
        assert module.startswith(f"{package}/")
        lines = passage.split("\n")
        assert len(passage) >= 300 > len("\n".join(lines[:-1]))
        assert set(lines) <= set((STDLIB / module).read_text(encoding="utf-8").split("\n"))


def test_passages_do_not_name_a_package_nor_import_nor_share_long_lines_with_other_modules():
    owner: dict[str, str] = {}
    for _, module, passage in library.packages():
        assert not any(name in passage.lower() for name in library.PACKAGES)
        for line in passage.split("\n"):
            assert line.split()[0] != "import"
            assert len(line.strip()) < 20 or owner.setdefault(line.strip(), module) == module


def test_passages_leave_out_the_comments_at_the_top_of_a_file():
    passages = library.packages()
    tops: dict[str, list[str]] = {}
    for module in {module for _, module, _ in passages}:
        lines = (STDLIB / module).read_text(encoding="utf-8").split("\n")
        top = itertools.takewhile(lambda line: not line or line.startswith("#"), lines)
        tops[module] = [line for line in top if len(line) >= 20 and lines.count(line) == 1]
    assert sum(map(len, tops.values())) > 50
    assert [line for _, module, passage in passages for line in tops[module] if line in passage.split("\n")] == []


def test_a_python_that_lacks_a_package_is_refused(monkeypatch):
    monkeypatch.setattr(library, "PACKAGES", ("asyncio", "no_such_package"))
    with pytest.raises(DataError, match="too little of the package no_such_package"):
        library.packages()

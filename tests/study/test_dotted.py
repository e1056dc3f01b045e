import hashlib
import pickle
import sys

import pytest

from muonlab.study import dotted
from muonlab.study.dotted import Dotted
from muonlab.study.settings import UsageError

SOURCE = """
import neighbour

class Tool:
    def __init__(self, size=neighbour.SIZE):
        self.size = size

def make(shape, classes=2, *more, **others):
    return shape, classes

NUMBER = 3
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The current folder, with a file of a user's and its neighbour."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "tools.py").write_text(SOURCE)
    (tmp_path / "neighbour.py").write_text("SIZE = 7\n")
    yield tmp_path
    for name in [name for name in sys.modules if name.split("_")[0] in ("tools", "neighbour")]:
        del sys.modules[name]


def test_an_object_is_found_by_the_path_of_its_file_and_by_the_name_of_its_module(here):
    assert dotted.load("net", "tools.py:Tool")().size == 7
    assert dotted.load("net", f"{here}/tools.py:NUMBER") == 3
    assert dotted.load("net", "tools:make")((1,)) == ((1,), 2)
    assert dotted.load("net", "collections:OrderedDict.fromkeys")("a") == {"a": None}


def test_the_classes_of_a_file_pickle_and_are_the_same_each_time(here):
    kind = dotted.load("net", "tools.py:Tool")
    assert dotted.load("net", "./tools.py:Tool") is kind
    assert pickle.loads(pickle.dumps(kind(5))).size == 5


def test_a_config_holds_the_digest_of_the_file_that_defines_the_object(here):
    found = dotted.find("net", "tools.py:make")
    assert found == Dotted(name="tools.py:make", sha256=hashlib.sha256(SOURCE.encode()).hexdigest())
    assert found.load("net") is dotted.load("net", "tools.py:make")
    assert dotted.find("net", "builtins:len").sha256 is None
    (here / "other.py").write_text("from tools import make\nsize = make\n")
    assert dotted.find("net", "other.py:size").sha256 == found.sha256
    (here / "tools.py").write_text(SOURCE + "\n")
    with pytest.raises(UsageError, match=r"net=tools.py:make: its source has changed since the study was asked for"):
        found.load("net")


def test_a_function_that_is_given_itself_has_the_name_by_which_a_worker_finds_it(here):
    own = dotted.load("net", "tools.py:make")
    assert dotted.name_of("net", own) == "tools.py:make"
    assert dotted.name_of("net", dotted.load("net", "tools:Tool")) == "tools:Tool"
    for value in (lambda: 0, 3):
        with pytest.raises(UsageError, match="which a worker cannot find by a name; expected a class or function"):
            dotted.name_of("net", value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("make", "^net=make is not valid; expected package.module:attribute or path/file.py:attribute$"),
        ("tools.py:", "^net=tools.py: is not valid"),
        ("tols.py:make", r"^net: there is no file tols.py; did you mean tools.py\?"),
        ("no.such:make", r"^net: no.such cannot be imported \(ModuleNotFoundError: No module named 'no'\); start in"),
        ("broken.py:x", r"^net: broken.py cannot be imported \(ZeroDivisionError: division by zero\); mend it$"),
        ("tools.py:mak", r"^net=tools.py:mak: there is no 'mak' in tools.py; did you mean 'make'\?"),
        ("tools.py:NUMBER", "^net=tools.py:NUMBER is 3, which cannot be called; expected a net$"),
    ],
)
def test_what_cannot_be_used_is_named_with_the_cause_and_near_names(here, name, message):
    (here / "broken.py").write_text("1 / 0\n")
    for _ in range(2):  # a file that failed is not half there afterwards
        with pytest.raises(UsageError, match=message):
            dotted.find("net", name, "a net")


def test_what_a_function_asks_for(here):
    make = dotted.load("net", "tools.py:make")
    assert dotted.needed(make) == ["shape"]
    assert dotted.arguments(make) == ["shape", "classes"]
    assert dotted.takes(make, "anything")
    assert not dotted.takes(dotted.load("net", "tools.py:Tool"), "anything")


def test_the_files_in_the_current_folder_that_objects_may_stand_in():
    assert dotted.sources_here(["a.b:x", "a.b:y", "c/d.py:z"]) == ["a/b.py", "a/b/__init__.py", "c/d.py"]

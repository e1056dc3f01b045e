import pytest
from hypothesis import given
from hypothesis import strategies as st

from muonlab.studies.grokking.config import MuonConfig, NetConfig, ProtocolConfig
from muonlab.study.settings import UsageError, as_texts, check_name, combinations, make, parse, whole_number

KEYS = ("tasks", "seeds", "muon.lr")


def test_commas_are_axes():
    assert parse(["tasks=add,mul", "muon.lr=0.01"], KEYS) == {"tasks": ["add", "mul"], "muon.lr": ["0.01"]}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["tasks"], r"'tasks' is not a setting; expected key=value, such as tasks=add,mul"),
        (["taks=add"], r"unknown setting 'taks'; did you mean 'tasks'\? expected one of tasks, seeds, muon\.lr"),
        (["zzz=1"], r"unknown setting 'zzz'; expected one of"),
        (["seeds=1", "seeds=2"], r"seeds is given twice"),
        (["tasks=add,"], r"tasks= has an empty value"),
        (["tasks="], r"tasks= has an empty value"),
    ],
)
def test_a_word_that_is_no_setting_is_named(words, message):
    with pytest.raises(UsageError, match=message):
        parse(words, KEYS)


def test_values_from_python_become_texts():
    assert as_texts("seeds", 20) == ["20"]
    assert as_texts("muon.lr", [0.01, 0.02]) == ["0.01", "0.02"]
    with pytest.raises(UsageError, match="empty value"):
        as_texts("tasks", [])


def test_a_known_name_passes():
    check_name("task", "add", ["add", "mul"])


@pytest.mark.parametrize("texts", [["0"], ["-3"], ["1.5"], ["two"], ["1", "2"], [""], ["1001"], ["9" * 5000], ["²"]])
def test_what_is_no_whole_number_is_refused(texts):
    with pytest.raises(UsageError, match="expected one whole number from 1 to 1000"):
        whole_number("seeds", texts, at_least=1, at_most=1000)


def test_a_whole_number_is_read():
    assert whole_number("seeds", ["20"], at_least=1, at_most=1000) == 20


@given(
    st.dictionaries(st.sampled_from("abcd"), st.lists(st.text(min_size=1), min_size=1, max_size=3, unique=True)),
    st.sets(st.sampled_from("abcd")),
)
def test_every_combination_comes_once(settings, keys):
    found = list(combinations(settings, sorted(keys)))
    expected = 1
    for key in keys & set(settings):
        expected *= len(settings[key])
    assert len(found) == len({tuple(c.items()) for c in found}) == expected
    assert all(set(c) == keys & set(settings) for c in found)


@pytest.mark.parametrize(
    ("model", "values", "prefix", "message"),
    [
        (MuonConfig, {"lr": "-1"}, "muon.", r"^muon\.lr=-1 is not valid; expected at least 0$"),
        (MuonConfig, {"lr": "nan"}, "muon.", r"^muon\.lr=nan is not valid; expected a finite number$"),
        (NetConfig, {"width": "wide"}, "", r"^width=wide is not valid; expected a whole number$"),
        (NetConfig, {"gated": "maybe"}, "", r"^gated=maybe is not valid; expected true or false$"),
        (NetConfig, {"norm": "layer"}, "", r"^norm=layer is not valid; expected 'rms' or 'none'$"),
        (NetConfig, {"heads": "3", "width": "64"}, "", r"^width=64 is not a multiple of 2 \* heads = 6"),
        (ProtocolConfig, {"batch": "0"}, "", r"^batch=0 is not valid; expected at least 1 or 'full'$"),
    ],
)
def test_a_value_that_its_field_does_not_allow_is_named(model, values, prefix, message):
    with pytest.raises(UsageError, match=message):
        make(model, values, prefix)


def test_texts_become_values():
    assert make(NetConfig, {"width": "64", "gated": "no", "dropout": "0.1"}).model_dump(exclude_defaults=True) == {
        "width": 64,
        "gated": False,
        "dropout": 0.1,
    }

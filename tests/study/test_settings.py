from typing import Annotated

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from muonlab.studies.grokking.config import NetConfig, ProtocolConfig
from muonlab.study.optimizers import RatedMuon
from muonlab.study.settings import UsageError, as_texts, check_name, choose, combinations, make, parse, whole_number

KEYS = ("tasks", "seeds", "muon.lr", "sgd.lr", "optimizers")


def test_commas_are_axes():
    assert parse(["tasks=add,mul", "muon.lr=0.01"], KEYS) == {"tasks": ["add", "mul"], "muon.lr": ["0.01"]}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["tasks"], r"'tasks' is not a setting; expected key=value, such as tasks=add,mul"),
        (
            ["taks=add"],
            r"unknown setting 'taks'; did you mean 'tasks'\? `muonlab settings STUDY` \(docs/settings.md\) lists",
        ),
        (["zzz=1"], r"unknown setting 'zzz'; `muonlab settings STUDY` \(docs/settings.md\) lists every setting"),
        (["lr=0.1"], r"unknown setting 'lr'; there is one for each: give muon.lr or sgd.lr"),
        (
            ["lr=0.1", "optimizers=muon"],
            r"unknown setting 'lr'; did you mean 'muon\.lr'\? `muonlab settings",
        ),  # the study has no SGD
        (["seeds=1", "seeds=2"], r"seeds is given twice; give it once, as seeds=2 or seeds=1$"),
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
    st.dictionaries(st.sampled_from("abcd"), st.lists(st.sampled_from("wxyz"), min_size=1, max_size=3, unique=True)),
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
        (RatedMuon, {"lr": "-1"}, "muon.", r"^muon\.lr=-1 is not valid; expected at least 0$"),
        (RatedMuon, {"lr": "nan"}, "muon.", r"^muon\.lr=nan is not valid; expected a finite number$"),
        (NetConfig, {"width": "wide"}, "", r"^width=wide is not valid; expected a whole number$"),
        (NetConfig, {"gated": "maybe"}, "", r"^gated=maybe is not valid; expected true or false$"),
        (NetConfig, {"norm": "batch"}, "", r"^norm=batch is not valid; expected 'rms', 'layer' or 'none'$"),
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


# -- the settings of a study -----------------------------------------------------------------------


class Config(BaseModel):
    budget: Annotated[int, Field(ge=1)] = 5
    limit: Annotated[int, Field(ge=1)] | None = 7
    depths: tuple[int, ...] = ()


PRESETS = {"tiny": {"budget": ["3"], "net.depths": ["1", "2"], "optimizers": ["muon"], "muon.rates": ["0.1", "0.3"]}}
KNOWN = ("budget", "limit", "net.budget", "net.limit", "net.depths", "optimizers", "muon.rates", "sgd.rates")


def chosen(**given):
    return choose(PRESETS, "tiny", {key.replace("__", "."): value for key, value in given.items()}, KNOWN)


def test_a_config_is_built_of_the_fields_under_a_prefix():
    assert chosen().build(Config) == Config(budget=3)
    assert chosen(net__budget=4).build(Config, "net.") == Config(budget=4, depths=(1, 2))
    assert chosen(budget=9).given == {"budget": ["9"]}


def test_all_stands_for_no_limit_where_there_may_be_none():
    assert chosen(limit="all").build(Config).limit is None
    with pytest.raises(UsageError, match="budget=all is not valid; expected a whole number"):
        chosen(budget="all").build(Config)


@pytest.mark.parametrize(
    ("given", "read", "message"),
    [
        ({"budget": [1, 2]}, lambda c: c.build(Config), "^budget=1,2 is not valid; expected one value, not 2"),
        ({"net__budget": 0}, lambda c: c.build(Config, "net."), "^net.budget=0 is not valid; expected at least 1"),
        ({"muon__rates": ["x"]}, lambda c: c.numbers("muon.rates"), "^muon.rates=x is not valid; expected numbers"),
        ({"muon__rates": 1}, lambda c: c.numbers("muon.rates", 2), "^muon.rates=1 is not valid; expected two numbers"),
        ({"muon__rates": ["-1", "nan"]}, lambda c: c.numbers("muon.rates"), "above 0"),
        ({"optimizers": ["muon", "muon"]}, lambda c: c.names("optimizers", ["muon"], "optimizer"), "names muon twice"),
        (
            {"optimizers": "lion"},
            lambda c: c.names("optimizers", ["muon"], "optimizer"),
            "^unknown optimizer 'lion'; exp",
        ),
        (
            {"sgd__rates": 1},
            lambda c: c.refuse_unused({"sgd": False}),
            "^sgd.rates has no effect: the study has optimi",
        ),
    ],
)
def test_a_setting_that_cannot_be_is_named_with_what_was_expected(given, read, message):
    with pytest.raises(UsageError, match=message):
        read(chosen(**given))


def test_numbers_rise_and_names_are_known():
    found = chosen(muon__rates=["1", "0.1", "1e0"])
    assert found.numbers("muon.rates") == (0.1, 1.0)
    assert found.names("optimizers", ["muon"], "optimizer") == ("muon",)
    assert found.whole("budget", at_least=1, at_most=9) == 3
    found.refuse_unused({"muon": True})


def test_an_unknown_preset_or_setting_is_refused():
    with pytest.raises(UsageError, match=r"unknown preset 'tinny'; did you mean 'tiny'\?"):
        choose(PRESETS, "tinny", None, KNOWN)
    with pytest.raises(UsageError, match=r"unknown setting 'steps'; did you mean 'budget' or 'net\.budget'\?"):
        choose(PRESETS, "tiny", {"steps": 1}, KNOWN)

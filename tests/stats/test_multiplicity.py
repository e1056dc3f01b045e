import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests

from muonlab.stats.multiplicity import holm

p_values = st.dictionaries(st.sampled_from("abcdefghij"), st.one_of(st.none(), st.floats(0, 1)), max_size=8)


@given(p_values)
@settings(max_examples=60, deadline=None)
def test_holm_equals_that_of_statsmodels(raw):
    adjusted = holm(raw)
    assert list(adjusted) == list(raw)
    assert {key for key, p in adjusted.items() if p is None} == {key for key, p in raw.items() if p is None}
    known = {key: p for key, p in raw.items() if p is not None}
    if known:
        oracle = multipletests(list(known.values()), method="holm")[1]
        assert [adjusted[key] for key in known] == pytest.approx(list(oracle), abs=1e-12)


@given(p_values)
@settings(max_examples=40, deadline=None)
def test_adjusted_p_is_no_smaller_and_keeps_the_order(raw):
    adjusted = holm(raw)
    known = sorted((key for key, p in raw.items() if p is not None), key=lambda key: raw[key])
    values = [adjusted[key] for key in known]
    assert all(raw[key] <= adjusted[key] <= 1 for key in known)
    assert values == sorted(values)


def test_a_test_without_p_is_not_counted():
    assert holm({"add": 0.01, "gcd": None, "mul": 0.04}) == {"add": 0.02, "gcd": None, "mul": 0.04}


@pytest.mark.parametrize("p", [-0.1, 1.1, float("nan")])
def test_an_impossible_p_is_refused(p):
    with pytest.raises(ValueError, match="'add'"):
        holm({"add": p})

import pytest

from muonlab.nets.arguments import check_choice, check_multiple, check_positive


def test_what_is_allowed_passes():
    check_choice("norm", "rms", ("layer", "rms"))
    check_choice("norm", "rms", {"rms": 1})
    check_positive(depth=1, width=10**6)
    check_multiple("width", 12, "heads", 3, "attention needs")


@pytest.mark.parametrize("value", ["RMS", "", None, 3])
def test_an_unknown_option_is_named_with_those_that_are_known(value):
    with pytest.raises(ValueError, match=f"unknown norm={value!r}; expected 'layer' or 'rms'"):
        check_choice("norm", value, ("layer", "rms"))


@pytest.mark.parametrize("value", [0, -1, 1.5, 2.0, "2", None, True])
def test_a_size_that_is_no_whole_number_of_at_least_one_is_named(value):
    with pytest.raises(ValueError, match=f"depth={value!r} is no size; expected a whole number of at least 1"):
        check_positive(width=3, depth=value)


def test_a_size_that_its_parts_do_not_divide_is_named_with_them():
    with pytest.raises(ValueError, match="width=16 is not a multiple of heads=3, which attention needs"):
        check_multiple("width", 16, "heads", 3, "attention needs")


def test_a_plain_number_that_does_not_divide_a_size_needs_no_name():
    with pytest.raises(ValueError, match="width=30 is not a multiple of 4, which positions need"):
        check_multiple("width", 30, "", 4, "positions need")

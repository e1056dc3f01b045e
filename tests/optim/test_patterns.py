from fnmatch import fnmatchcase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muonlab.optim.patterns import closest, matches


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("head", "head.weight"),
        ("weight", "head.weight"),
        ("head.weight", "head.weight"),
        ("attn.qkv", "blocks.0.attn.qkv.weight"),
        ("blocks.*.attn", "blocks.0.attn.qkv.weight"),
        ("blocks.?.attn.*.weight", "blocks.0.attn.qkv.weight"),
        ("blocks.[01]", "blocks.1.attn.qkv.weight"),
        ("*head", "overhead.weight"),
        ("*", "weight"),
    ],
)
def test_a_pattern_matches_a_run_of_components(pattern, name):
    assert matches(pattern, name)


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("head", "overhead.weight"),
        ("Head", "head.weight"),
        ("blocks.*.qkv", "blocks.0.attn.qkv.weight"),  # a star stands for one component
        ("attn.weight", "blocks.0.attn.qkv.weight"),
        ("a.b.c", "a.b"),
        ("", "head.weight"),
    ],
)
def test_a_pattern_matches_whole_components_in_a_row_alone(pattern, name):
    assert not matches(pattern, name)


components = st.lists(st.text("ab*?", min_size=1, max_size=3), min_size=1, max_size=4)


@given(components, components)
def test_matching_is_a_search_for_the_pattern_between_dots(pattern, name):
    """The definition, spelled otherwise: some split of the name into before, run and after."""
    runs = [name[i:j] for i in range(len(name)) for j in range(i + 1, len(name) + 1)]
    expected = any(
        len(run) == len(pattern) and all(fnmatchcase(part, glob) for part, glob in zip(run, pattern, strict=True))
        for run in runs
    )
    assert matches(".".join(pattern), ".".join(name)) is expected


@given(components, st.data())
def test_every_run_of_a_name_without_globs_is_a_pattern_for_it(name, data):
    name = [part.replace("*", "x").replace("?", "y") for part in name]
    start = data.draw(st.integers(0, len(name) - 1))
    stop = data.draw(st.integers(start + 1, len(name)))
    assert matches(".".join(name[start:stop]), ".".join(name))


def test_the_closest_runs_are_as_long_as_the_pattern():
    names = ["blocks.0.attn.qkv.weight", "blocks.1.attn.qkv.weight", "head.weight"]
    assert closest("attn.qvk", names)[0] == "attn.qkv"
    assert closest("haed", names) == ["head"]
    assert closest("zzzzzz", names) == []

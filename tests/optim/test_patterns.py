from fnmatch import fnmatchcase

from hypothesis import given
from hypothesis import strategies as st

from muonlab.optim.patterns import closest, matches


def test_a_pattern_matches_a_run_of_components():
    for pattern, name in [
        ("head", "head.weight"),
        ("weight", "head.weight"),
        ("head.weight", "head.weight"),
        ("attn.qkv", "blocks.0.attn.qkv.weight"),
        ("blocks.*.attn", "blocks.0.attn.qkv.weight"),
        ("blocks.?.attn.*.weight", "blocks.0.attn.qkv.weight"),
        ("blocks.[01]", "blocks.1.attn.qkv.weight"),
        ("*head", "overhead.weight"),
        ("*", "weight"),
    ]:
        assert matches(pattern, name)


def test_a_pattern_matches_whole_components_in_a_row_alone():
    for pattern, name in [
        ("head", "overhead.weight"),
        ("Head", "head.weight"),
        ("blocks.*.qkv", "blocks.0.attn.qkv.weight"),  # a star stands for one component
        ("attn.weight", "blocks.0.attn.qkv.weight"),
        ("a.b.c", "a.b"),
        ("", "head.weight"),
    ]:
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


def test_the_closest_runs_are_as_long_as_the_pattern():
    names = ["blocks.0.attn.qkv.weight", "blocks.1.attn.qkv.weight", "head.weight"]
    assert closest("attn.qvk", names)[0] == "attn.qkv"
    assert closest("haed", names) == ["head"]
    assert closest("zzzzzz", names) == []

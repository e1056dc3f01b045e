import pytest
import torch

from muonlab.optim.layout import layout
from optim.training import draw


@pytest.mark.parametrize(
    ("shape", "kind", "expected"),
    [
        ((4, 3), None, (1, 4, 3)),
        ((1, 1), None, (1, 1, 1)),
        ((5, 4, 3), None, (5, 4, 3)),
        ((5, 4, 3), "convolution", (1, 5, 12)),
        ((8, 2, 3, 5), None, (1, 8, 30)),
        ((8, 2, 3, 5, 7), None, (1, 8, 210)),
        ((8, 2, 3, 5), "experts", (16, 3, 5)),
        ((4, 3), "convolution", (1, 4, 3)),
        ((4, 3), "matrix", (1, 4, 3)),
    ],
)
def test_a_shape_is_so_many_matrices(shape, kind, expected):
    found = layout(shape, kind)
    assert (found.count, found.rows, found.columns) == expected
    assert found.shapes == (expected,)
    assert found.blocks == (expected[1],)


@pytest.mark.parametrize(
    ("shape", "split", "blocks", "shapes"),
    [
        ((12, 4), 1, (12,), ((1, 12, 4),)),
        ((12, 4), 3, (4, 4, 4), ((3, 4, 4),)),
        ((12, 4), (4, 4, 4), (4, 4, 4), ((3, 4, 4),)),
        ((12, 4), [8, 2, 2], (8, 2, 2), ((1, 8, 4), (1, 2, 4), (1, 2, 4))),
        ((5, 6, 4), 2, (3, 3), ((10, 3, 4),)),
        ((5, 6, 4), (4, 2), (4, 2), ((5, 4, 4), (5, 2, 4))),
        ((6, 2, 3, 3), 3, (2, 2, 2), ((3, 2, 18),)),
    ],
)
def test_a_split_makes_blocks_of_rows(shape, split, blocks, shapes):
    found = layout(shape, split=split)
    assert found.blocks == blocks
    assert found.shapes == shapes


@pytest.mark.parametrize(
    ("shape", "kind", "split"),
    [
        ((6, 4), None, None),
        ((6, 4), None, 3),
        ((6, 4), None, (1, 3, 2)),
        ((3, 6, 4), None, (4, 2)),
        ((3, 6, 4), None, 2),
        ((6, 2, 3, 3), None, (4, 2)),
        ((2, 3, 6, 4), "experts", (1, 5)),
    ],
)
def test_stacks_are_views_of_the_blocks_of_rows(shape, kind, split):
    x, found = draw(*shape), layout(shape, kind, split)
    stacks = found.stacks(x)
    assert tuple(tuple(stack.shape) for stack in stacks) == found.shapes
    assert all(stack.untyped_storage().data_ptr() == x.untyped_storage().data_ptr() for stack in stacks)
    # The matrices are those of the definition: a block of rows of one of `count` matrices.
    first = x.reshape(found.count, found.rows, found.columns)[0, : found.blocks[0]]
    assert torch.equal(stacks[0][0], first)
    assert torch.equal(stacks[-1][-1], x.reshape(found.count, found.rows, found.columns)[-1, -found.blocks[-1] :])


def test_without_entries_there_are_no_matrices():
    for shape in [(0, 3), (3, 0), (0, 4, 4), (2, 3, 0, 1)]:
        assert layout(shape, split=2).count == 0


@pytest.mark.parametrize(
    ("shape", "kind"), [((), None), ((5,), None), ((5,), "convolution"), ((5, 4), "experts"), ((5, 4, 3), "matrix")]
)
def test_what_is_no_matrix_is_refused(shape, kind):
    with pytest.raises(ValueError, match="MuonAdamW") as refusal:
        layout(shape, kind)
    assert str(shape) in str(refusal.value)


def test_a_split_that_does_not_fit_is_refused():
    for split, words in [
        (5, "does not divide the 12 rows"),
        (0, "does not divide"),
        (-3, "does not divide"),
        (24, "does not divide"),
        ((4, 4), "does not sum to the 12 rows"),
        ((12, 0), "all of them positive"),
        ((14, -2), "all of them positive"),
        ((6.0, 6.0), "rows of each"),
        ((), "does not sum"),
        (3.0, "expected a number of equal blocks"),
        (True, "expected a number of equal blocks"),
        ("qkv", "expected a number of equal blocks"),
    ]:
        with pytest.raises(ValueError, match=r"^split=") as refusal:
            layout((12, 4), split=split)
        assert words in str(refusal.value)
        assert repr(split) in str(refusal.value)

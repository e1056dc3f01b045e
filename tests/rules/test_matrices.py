"""Which matrices are orthogonalized together: all of them once, together where that pays, no more than fit."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from matrices import draw
from muonlab.rules.matrices import SIDE, Matrices, batches
from muonlab.rules.polar import chunk

SHAPES = [(6, 4), (3, 3), (4, 6), (300, 400), (300, 300), (64, 9000)]


def pieces_of(shapes, dtype=torch.float32):
    return [Matrices(*[torch.tensor(float(index), dtype=dtype).expand(shape)] * 3) for index, shape in shapes]


@given(st.lists(st.tuples(st.integers(1, 5), st.sampled_from(SHAPES)), max_size=6), st.booleans())
@settings(deadline=None)
def test_every_matrix_is_in_one_batch_of_a_size_that_fits(given_shapes, mixes):
    pieces = pieces_of((index, (count, *shape)) for index, (count, shape) in enumerate(given_shapes))
    seen = []
    for batch in batches(pieces, mixes):
        shapes = {each.shape for alike in batch for each in alike}
        assert len(batch) == len(shapes)
        assert len(shapes) == 1 or (mixes and len({min(shape) for shape in shapes}) == 1)
        members = [each for alike in batch for each in alike]
        num_matrices = sum(len(each.p) for each in members)
        assert num_matrices == 1 or num_matrices <= max(chunk(*shape, 4, torch.device("cpu")) for shape in shapes)
        seen += [(int(value), each.shape) for each in members for value in each.p[:, 0, 0]]
    expected = [(index, shape) for index, (count, shape) in enumerate(given_shapes) for _ in range(count)]
    assert sorted(seen) == sorted(expected)


def test_equal_smaller_sides_go_together_where_products_are_small_and_dtypes_never():
    pieces = pieces_of(enumerate([(1, 6, 4), (2, 4, 6), (1, 3, 3), (1, SIDE + 1, 500), (1, 500, SIDE + 1)]))
    pieces += pieces_of([(9, (1, 6, 4))], torch.float64)
    found = [{int(each.p[0, 0, 0]) for alike in batch for each in alike} for batch in batches(pieces, mixes=True)]
    assert sorted(map(sorted, found)) == [[0, 1], [2], [3], [4], [9]]


def test_parts_are_views_of_the_parameter():
    p = draw(5, 300, 400)
    for batch in batches([Matrices(p, p.clone(), p.clone())], mixes=False):
        batch[0][0].p.zero_()
    assert not p.any()

import pytest
import torch

from matrices import cosine, layer
from muonlab.rules import choice, polar

SHAPES = [(1, 1), (1, 100), (16, 16), (128, 128), (128, 512), (64, 576), (192, 200), (768, 3072), (4096, 4096)]
WIDE = [torch.float32, torch.float64, torch.complex64, torch.complex128]


def test_it_is_a_method_with_steps_that_it_has():
    for shape in SHAPES:
        method, steps = choice.choose(*shape)
        assert method != "auto"
        polar.check(method, steps)


def test_a_matrix_and_its_transpose_are_worked_on_alike():
    """An optimizer puts them into one batch."""
    for shape in SHAPES:
        assert choice.choose(*shape) == choice.choose(*reversed(shape))


def test_the_last_row_of_the_table_fits_every_shape():
    assert (choice.TABLE[-1].side, choice.TABLE[-1].aspect) == (None, 1)


SIDES = {row.side for row in choice.TABLE if row.side}
EDGES = {(side + more, round(row.aspect * side) + 2) for row in choice.TABLE for side in SIDES for more in (0, 1)}


@pytest.mark.parametrize("shape", sorted(EDGES | {(16, 16), (24, 200), (47, 60), (48, 60), (100, 128), (260, 400)}))
@pytest.mark.parametrize(("kind", "floor"), [("gaussian", 0.99), ("1/i", 0.995), ("condition 1e3", 0.93)])
def test_what_it_chooses_is_as_accurate_as_stated(kind, floor, shape):
    for dtype in [torch.float32, torch.bfloat16]:
        G, expected = layer(kind, *shape)
        method, steps = choice.choose(*shape)
        assert cosine(polar.orthogonalize(G.float(), method, steps=steps, dtype=dtype), expected) >= floor


def test_stages_share_out_the_steps():
    for side in [1, choice.FEW_ROWS - 1, choice.FEW_ROWS, 1000]:
        for dtype in [*WIDE, torch.bfloat16]:
            for steps in range(1, 13):
                found = choice.stages(steps, side, dtype)
                assert sum(found) == steps
                assert min(found) >= 1


def test_stages_are_short_where_rounding_is_coarse():
    for steps in range(1, 13):
        assert set(choice.stages(steps, choice.FEW_ROWS - 1, torch.bfloat16)) == {1}
        assert max(choice.stages(steps, choice.FEW_ROWS, torch.bfloat16)) <= 3
        assert all(max(choice.stages(steps, 16, dtype)) <= 5 for dtype in WIDE)

from itertools import product

import pytest
import torch

from matrices import cosine, layer
from muonlab.rules import choice, polar

SHAPES = [
    (1, 1),
    (1, 100),
    (16, 16),
    (128, 128),
    (128, 512),
    (64, 576),
    (192, 200),
    (768, 768),
    (768, 3072),
    (4096, 4096),
]
COUNTS = [1, 2, 16, 500]
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.complex64, torch.complex128]
DEVICES = ["cpu", "cuda", "mps", "xpu"]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_it_is_a_method_with_steps_that_it_has(dtype, device):
    for shape, count in product(SHAPES, COUNTS):
        method, steps = choice.choose(*shape, count, dtype, device)
        assert method != "auto"
        polar.check(method, steps)


@pytest.mark.parametrize("device", DEVICES)
def test_a_matrix_and_its_transpose_are_worked_on_alike(device):
    """An optimizer puts them into one batch."""
    for (rows, columns), count, dtype in product(SHAPES, COUNTS, DTYPES):
        assert choice.choose(rows, columns, count, dtype, device) == choice.choose(columns, rows, count, dtype, device)


@pytest.mark.parametrize("shape", [(16, 16), (24, 200), (100, 128), (192, 192), (192, 800), (193, 193), (260, 300)])
@pytest.mark.parametrize(("kind", "floor"), [("gaussian", 0.99), ("1/i", 0.995), ("condition 1e3", 0.93)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_what_it_chooses_is_as_accurate_as_stated(dtype, kind, floor, shape):
    G, expected = layer(kind, *shape)
    chosen = {choice.choose(*shape, count, dtype, device) for count in COUNTS for device in DEVICES}
    for method, steps in chosen:
        assert cosine(polar.orthogonalize(G.float(), method, steps=steps, dtype=dtype), expected) >= floor


def test_stages_share_out_the_steps_and_are_short():
    for steps in range(1, 13):
        found = choice.stages(steps)
        assert sum(found) == steps
        assert all(1 <= length <= 3 for length in found)
        assert len(found) == max(1, steps // 2)

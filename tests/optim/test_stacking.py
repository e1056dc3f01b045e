from itertools import chain

import pytest
import torch

from muonlab.optim.layout import layout
from muonlab.optim.stacking import batches, orthogonalized
from muonlab.rules import polar
from optim.training import draw

SHAPES = [(6, 4), (3, 3), (4, 6), (6, 4), (2, 9, 4), (6, 2, 2, 1), (0, 4), (3, 3)]


def layouts_of(shapes, splits=()):
    return [layout(shape, split=dict(splits).get(index)) for index, shape in enumerate(shapes)]


def test_every_parameter_is_in_one_batch_and_equal_smaller_sides_are_together():
    found = batches(layouts_of(SHAPES), [draw(*shape) for shape in SHAPES])
    assert sorted(chain.from_iterable(found)) == [0, 1, 2, 3, 4, 5, 7]  # the one without entries needs none
    assert {frozenset(batch) for batch in found} == {frozenset({0, 2, 3, 4, 5}), frozenset({1, 7})}


def test_dtypes_and_unequal_splits_are_apart():
    shapes = [(6, 4)] * 5
    tensors = [draw(*shape, dtype=torch.float32 if index < 4 else torch.float64) for index, shape in enumerate(shapes)]
    found = batches(layouts_of(shapes, {1: 2, 2: (4, 2), 3: (4, 2)}.items()), tensors)
    assert {frozenset(batch) for batch in found} == {frozenset({0}), frozenset({1}), frozenset({2, 3}), frozenset({4})}


def test_a_batch_is_not_larger_than_what_is_worked_on_at_a_time(monkeypatch):
    monkeypatch.setattr(polar, "CHUNK_BYTES", {"cpu": 3 * 6 * 4 * 8, "cuda": 0})
    shapes = [(6, 4)] * 7 + [(2, 6, 4)] * 3 + [(24, 4)] * 2
    found = batches(layouts_of(shapes), [draw(*shape) for shape in shapes])
    assert sorted(chain.from_iterable(found)) == list(range(12))
    for batch in found:
        entries = sum(torch.Size(shapes[index]).numel() for index in batch)
        assert entries <= 3 * 6 * 4 or len(batch) == 1


def recorded(call, seen):
    """Record the shapes that a function is called with; its answers lie in one memory, as those of a workspace may."""
    memory = torch.empty(10_000, dtype=torch.float64)

    def polar_of(stacks):
        seen.append([tuple(stack.shape) for stack in stacks])
        sizes = [stack.numel() for stack in stacks]
        results = [part.view(s.shape) for part, s in zip(memory[: sum(sizes)].split(sizes), stacks, strict=True)]
        for result, stack in zip(results, stacks, strict=True):
            result.copy_(call(stack))
        return results

    return polar_of


@pytest.mark.parametrize("limit", [None, 200])
@pytest.mark.parametrize("split", [None, 3, (1, 3, 2)])
def test_each_matrix_is_given_to_the_function_and_comes_back_to_its_place(monkeypatch, split, limit):
    if limit is not None:  # one or two matrices at a time
        monkeypatch.setattr(polar, "CHUNK_BYTES", {"cpu": limit, "cuda": 0})
    tensors = [draw(*shape, seed=seed) for seed, shape in enumerate([(6, 4), (6, 4), (2, 6, 4)])]
    layouts = [layout(tensor.shape, split=split) for tensor in tensors]
    seen = []
    results = orthogonalized([x.clone() for x in tensors], layouts, recorded(lambda stack: 2 * stack, seen))
    for x, result in zip(tensors, results, strict=True):
        torch.testing.assert_close(result, 2 * x, rtol=0, atol=0)
    shapes = list(chain.from_iterable(seen))
    assert sum(shape[0] for shape in shapes) == 4 * (1 if split is None else 3)
    assert {shape[1:] for shape in shapes} == {(rows, 4) for rows in layouts[0].blocks}
    if limit is not None:
        assert all(shape[0] == 1 or 8 * torch.Size(shape).numel() <= limit for shape in shapes)


def test_wide_and_tall_matrices_are_given_as_they_are():
    shapes = [(4, 6), (6, 4), (2, 6, 4), (4, 9)]
    tensors = [draw(*shape, seed=seed) for seed, shape in enumerate(shapes)]
    seen = []

    def by_rows(stack):  # so that a turn, or a mix-up, would show
        return stack * torch.arange(1.0, stack.shape[1] + 1, dtype=torch.float64)[:, None]

    results = orthogonalized([x.clone() for x in tensors], layouts_of(shapes), recorded(by_rows, seen))
    assert sorted(chain.from_iterable(seen)) == [(1, 4, 6), (1, 4, 9), (3, 6, 4)]
    for x, result in zip(tensors, results, strict=True):
        assert torch.equal(result, by_rows(x.reshape(-1, *x.shape[-2:])).reshape(x.shape))

import random
from collections import Counter

import pytest

from muonlab.jobs.order import in_order, levels, uses_whole_budget

TASKS, LOSSES, OPTIMIZERS = ("add", "mul", "div", "exp"), ("softmax", "stablemax", "sparsemax"), ("muon", "adamw")


@pytest.fixture
def cells(make_cell):
    """24 conditions task by task, then controls: the order of a plan."""
    true = [make_cell(task={"name": t}, loss=x, optimizer=o) for t in TASKS for x in LOSSES for o in OPTIMIZERS]
    controls = [make_cell(task={"name": t, "labels": "random"}, optimizer=o) for t in TASKS for o in OPTIMIZERS]
    return [*true, *controls]


def test_every_cell_comes_once_and_the_order_follows_from_the_cells(cells):
    ordered = in_order(cells)
    assert Counter(cell.id for cell in ordered) == Counter(cell.id for cell in cells)
    assert in_order(iter(cells)) == ordered != cells


@pytest.mark.parametrize("seed", range(5))
def test_from_the_start_every_level_has_its_share_whatever_the_order_of_the_plan(cells, seed):
    random.Random(seed).shuffle(cells)
    ordered = in_order(cells)
    for length in range(1, 25):
        first = ordered[:length]
        for name, known in (
            ("task", [cell.task.name for cell in first]),
            ("loss", [cell.loss for cell in first]),
            ("optimizer", [cell.optimizer.name for cell in first]),
        ):
            num = {"task": len(TASKS), "loss": len(LOSSES), "optimizer": len(OPTIMIZERS)}[name]
            counts = Counter(known)
            assert max(counts.values()) <= length / num + 1.5, (length, counts)
            assert len(counts) == num or length < num + 3, (length, counts)


def test_controls_on_random_labels_are_last(cells):
    assert [cell.task.labels for cell in in_order(cells)] == ["true"] * 24 + ["random"] * 8


def test_cells_alike_keep_the_order_of_the_plan(make_cell):
    blocks = [make_cell(seeds=(start, start + 1)) for start in (0, 2, 4)]
    assert in_order(blocks) == blocks
    assert in_order([]) == []


def test_levels_know_labels_and_single_seeds_not_apart_but_all_else(make_cell):
    same = (make_cell(seeds=(3, 4, 5)), make_cell(task={"labels": "random"}))
    assert {levels(cell) for cell in same} == {levels(make_cell())}
    for other in (
        make_cell(task={"name": "mul"}),
        make_cell(net={"width": 8}),
        make_cell(loss="sparsemax"),
        make_cell(hyper={"lr": 0.5}),
        make_cell(protocol={"batch": 4}),
        make_cell(seeds=(0,)),
    ):
        assert sum(a != b for a, b in zip(levels(other), levels(make_cell()), strict=True)) == 1


def test_what_uses_the_whole_budget(make_cell):
    assert not uses_whole_budget(make_cell())
    assert uses_whole_budget(make_cell(task={"labels": "random"}))
    assert uses_whole_budget(make_cell(protocol={"follow": "budget"}))

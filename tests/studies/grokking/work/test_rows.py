import pytest
import torch

from muonlab.data import algorithmic
from muonlab.studies.grokking.work.rows import Rows

TASK = algorithmic.build("add", modulus=7)


def make(seeds=(0, 1, 2), batch=8, **changes) -> Rows:
    return Rows(TASK, seeds, train_share=0.7, batch=batch, **changes)


def test_train_and_validation_rows_part_all_rows():
    rows = make()
    for train, validation in zip(rows.train, rows.validation, strict=True):
        assert torch.equal(torch.cat([train, validation]).sort().values, torch.arange(49))


def test_an_epoch_visits_a_train_row_at_most_once_and_no_other():
    rows = make()
    for member in range(3):
        taken = torch.cat([rows(step)[0][member] for step in range(34 // 8)])
        codes = (taken[:, 0] * 7 + taken[:, 2]).tolist()
        assert len(set(codes)) == len(codes) == 8 * (34 // 8)
        assert set(codes) <= set(rows.train[member].tolist())


def test_batches_carry_the_labels_of_their_rows():
    inputs, labels = make()(5)
    assert torch.equal(labels, (inputs[..., 0] + inputs[..., 2]) % 7)


def test_a_member_sees_what_it_sees_alone_after_any_drop():
    together, alone = make((5, 6, 7)), make((6,))
    together(3)
    together.keep([1])
    for step in (3, 4, 11):
        for of_stack, of_one in zip(together(step), alone(step), strict=True):
            assert torch.equal(of_stack, of_one)


def test_random_labels_are_a_permutation_of_the_true_ones_and_differ_by_member():
    rows = make(random_labels=True)
    for labels in rows.labels:
        assert torch.equal(labels.bincount(), TASK.labels.bincount())
    assert not torch.equal(rows.labels[0], rows.labels[1])
    assert (rows.labels[0] == TASK.labels).double().mean() < 0.5


@pytest.mark.parametrize("batch", ["full", 1000])
def test_a_full_batch_is_all_train_rows(batch):
    rows = make(batch=batch)
    assert rows.batch == rows.num_train
    assert rows.epoch(3) == 3


def test_an_epoch_is_as_many_examples_as_there_are_train_rows():
    assert make().epoch(17) == 17 * 8 / 34


def test_the_short_last_batch_of_an_epoch_is_kept_or_dropped():
    task = algorithmic.build("add", modulus=7)  # 49 rows, 34 of them to train on
    dropped, kept = (Rows(task, (0,), train_share=0.7, batch=10, short_batch=short) for short in (False, True))
    assert [len(kept(step)[1][0]) for step in range(5)] == [10, 10, 10, 4, 10]
    assert [len(dropped(step)[1][0]) for step in range(4)] == [10, 10, 10, 10]
    assert kept.epoch(4) == 1
    assert [kept.epoch(step) for step in range(4)] == [dropped.epoch(step) for step in range(4)]
    epoch = torch.cat([kept(step)[0][0] for step in range(4)])
    assert {tuple(row) for row in epoch.tolist()} == {tuple(row) for row in task.inputs[kept.train[0]].tolist()}

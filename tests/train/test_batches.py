import pytest
import torch

from muonlab.train.batches import Batches

# The label of an example is its input, so that each shows which it is.
INPUTS, LABELS = torch.arange(10)[:, None].float(), torch.arange(10)


def make(seeds=(0, 1), batch=3, rows=None):
    return Batches(INPUTS, LABELS, seeds, batch, rows=rows)


def epoch(batches, number):
    return torch.cat([batches(step)[1] for step in range(3 * number, 3 * number + 3)], dim=1)


def test_an_epoch_takes_no_example_twice_the_next_has_another_order_and_in_time_every_example_is_taken():
    batches = make()
    epochs = [epoch(batches, number) for number in range(6)]
    for labels in (row for each in epochs for row in each):
        assert len(labels) == labels.unique().numel() == 9
    assert not epochs[0].equal(epochs[1])
    assert torch.cat([each[0] for each in epochs]).unique().tolist() == list(range(10))
    assert batches.epoch(7) == 7 * 3 / 10


def test_members_of_one_seed_take_the_same_batches_and_others_do_not():
    inputs, labels = make(seeds=(7, 3, 7), batch=5)(3)
    assert inputs.shape == (3, 5, 1)
    assert labels.equal(inputs[..., 0].long())
    assert labels[0].equal(labels[2])
    assert not labels[0].equal(labels[1])


def test_a_batch_follows_from_its_step_and_the_member_alone_whatever_was_taken_and_whoever_has_left():
    batches = make(seeds=(7, 3, 5))
    seen = [batches(step)[1] for step in range(8)]
    batches.keep([1, 2])
    for step in (7, 0, 4):
        assert batches(step)[1].equal(seen[step][1:])
        assert make(seeds=(3,))(step)[1][0].equal(seen[step][1])


@pytest.mark.parametrize("batch", [10, 11, 500])
def test_a_batch_is_at_most_all_examples(batch):
    batches = make(batch=batch)
    assert batches.batch == 10
    assert batches(0)[1][0].sort().values.equal(LABELS)


@pytest.mark.parametrize("batch", [None, 2])
def test_members_with_rows_of_their_own_take_those_alone(batch):
    rows = torch.tensor([[0, 1, 2, 3], [9, 8, 7, 6], [4, 5, 0, 1]])
    batches = make(seeds=(0, 0, 0), batch=batch, rows=rows)
    for step in (0, 5):
        labels = batches(step)[1]
        if batch is None:
            assert labels.equal(rows)
        else:
            # One seed, one order: the members take the same places of their own rows.
            places = [(own == label).nonzero().item() for own, label in zip(rows, labels[:, 0], strict=True)]
            assert len(set(places)) == 1
    batches.keep([2, 1])
    assert set(batches(0)[1][0].tolist()) <= {4, 5, 0, 1}
    assert batches(0)[1].shape == (2, batch or 4)

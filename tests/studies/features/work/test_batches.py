import pytest
import torch

from muonlab.studies.features.work.batches import Batches
from muonlab.studies.features.work.material import Set

# The label of an example is its input, so that each shows which it is.
TEN = Set(torch.arange(10)[:, None].float(), torch.arange(10))


def epoch(batches, number):
    return torch.cat([batches(step)[1] for step in range(3 * number, 3 * number + 3)], dim=1)


def test_an_epoch_takes_no_example_twice_and_the_next_has_another_order():
    batches = Batches(TEN, seeds=(0, 1), batch=3)
    first, second = epoch(batches, 0), epoch(batches, 1)
    for labels in (*first, *second):
        assert len(labels) == 9
        assert labels.unique().numel() == 9
    assert not first.equal(second)


def test_over_the_epochs_every_example_is_taken():
    batches = Batches(TEN, seeds=(0,), batch=3)
    assert torch.cat([epoch(batches, number) for number in range(6)], dim=1).unique().tolist() == list(range(10))


def test_inputs_and_labels_stay_together():
    inputs, labels = Batches(TEN, seeds=(0, 1), batch=4)(5)
    assert inputs.shape == (2, 4, 1)
    assert labels.equal(inputs[..., 0].long())


def test_members_of_one_seed_take_the_same_batches_and_others_do_not():
    labels = Batches(TEN, seeds=(7, 3, 7), batch=5)(3)[1]
    assert labels[0].equal(labels[2])
    assert not labels[0].equal(labels[1])


def test_a_member_takes_the_batches_that_it_takes_alone():
    together, alone = Batches(TEN, seeds=(7, 3), batch=3), Batches(TEN, seeds=(3,), batch=3)
    for step in range(8):
        assert together(step)[1][1].equal(alone(step)[1][0])


def test_a_batch_follows_from_its_step_whatever_was_taken_before():
    batches = Batches(TEN, seeds=(0,), batch=3)
    seen = [batches(step)[1] for step in range(8)]
    for step in (7, 0, 4):
        assert batches(step)[1].equal(seen[step])
        assert Batches(TEN, seeds=(0,), batch=3)(step)[1].equal(seen[step])


@pytest.mark.parametrize("batch", [10, 11, 500])
def test_a_batch_is_at_most_all_examples(batch):
    batches = Batches(TEN, seeds=(0,), batch=batch)
    assert batches.batch == 10
    assert batches(0)[1][0].sort().values.equal(TEN.labels)

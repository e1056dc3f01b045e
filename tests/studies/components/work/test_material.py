import pytest
import torch

from muonlab.studies.components.config import Components
from muonlab.studies.components.work.material import Seen, build_material, build_problem, streams

PROBLEM = Components(classes=4, dimension=6, train=24, validation=20, test=28, noise=0.2, spurious=1)


def test_the_streams_of_a_seed_follow_from_problem_and_net_and_from_nothing_else(make_job):
    own = streams(make_job(seeds=(0, 5), search_seeds=(9,)))
    assert list(own) == [9, 0, 5]
    assert len(set(own.values())) == 3
    for same in ({"optimizer": {"name": "muon"}}, {"rates": (3.0,)}, {"eps": (0.1,)}, {"budget": 7}, {"batch": 8}):
        assert streams(make_job(**same))[0] == own[0]
    for other in ({"components": {"noise": 0.2}}, {"net": {"depth": 1}}):
        assert streams(make_job(**other))[0] != own[0]


def test_a_seed_has_the_material_that_it_has_alone():
    together, alone = build_material(PROBLEM, (7, 8), "cpu"), build_material(PROBLEM, (8,), "cpu")
    assert together.train.shape == (2, 24, 6)
    for name, tensor in vars(together).items():
        assert tensor[1].equal(getattr(alone, name)[0]), name
    assert not together.train[0].equal(together.train[1])


def test_every_seed_has_directions_of_its_own():
    first, second = (build_problem(PROBLEM, seed).directions for seed in (1, 2))
    assert abs(first - second).max() > 0.1


def test_the_sides_share_no_noise_and_the_labels_of_changed_inputs_are_those_of_the_test():
    material = build_material(PROBLEM, (1,), "cpu")
    assert material.validation.shape == (1, 20, 6)
    rows = torch.cat([material.train, material.validation, material.test], 1)[0]
    assert torch.cdist(rows, rows).fill_diagonal_(1).min() > 1e-3
    problem = build_problem(PROBLEM, 1)
    along = torch.from_numpy(problem.directions[:, 0]).float()
    assert (material.removed[0] @ along - material.test[0] @ along).abs().min() > 0.1
    assert not material.swapped.equal(material.test)
    torch.testing.assert_close(material.marked[0], torch.from_numpy(problem.means).float())
    assert (material.means - material.marked).abs().max() > 0.1


def test_the_material_of_models_is_that_of_their_seeds():
    material = build_material(PROBLEM, (7, 8), "cpu")
    chosen = material.of(torch.tensor([1, 1, 0]))
    for name, tensor in vars(material).items():
        assert getattr(chosen, name).equal(tensor[[1, 1, 0]])


def test_without_batches_every_step_takes_all_examples():
    material = build_material(PROBLEM, (7, 8), "cpu")
    seen = Seen(material, [1, 0, 1], None)
    for step in (0, 5):
        inputs, labels = seen.batch(step)
        assert inputs.equal(material.train[[1, 0, 1]])
        assert labels.equal(material.train_labels[[1, 0, 1]])
    assert seen.sides["validation"][0].equal(material.validation[[1, 0, 1]])


def test_members_of_one_seed_take_the_same_batches_which_are_rows_of_their_own_training():
    material = build_material(PROBLEM, (7, 8), "cpu")
    seen = Seen(material, [1, 0, 1], (10, (7, 8)))
    inputs, labels = seen.batch(3)
    assert inputs.shape == (3, 10, 6)
    assert inputs[0].equal(inputs[2])
    for member, place in enumerate((1, 0, 1)):
        distances = torch.cdist(inputs[member].double(), material.train[place].double())
        assert distances.amin(1).max() < 1e-5
        assert labels[member].equal(material.train_labels[place][distances.argmin(1)])
    epoch = torch.cat([seen.batch(step)[0][0] for step in (2, 3)])  # two batches of 10 in an epoch of 24
    assert torch.cdist(epoch.double(), epoch.double()).fill_diagonal_(1).min() > 1e-3


@pytest.mark.parametrize("batching", [None, (10, (7, 8))])
def test_members_that_stay_go_on_with_their_own(batching):
    material = build_material(PROBLEM, (7, 8), "cpu")
    seen = Seen(material, [1, 0, 1], batching)
    before = seen.batch(3)
    seen.keep([1, 2])
    for first, second in zip(before, seen.batch(3), strict=True):
        assert first[1:].equal(second)
    assert seen.sides["validation"][1].equal(material.validation_labels[[0, 1]])

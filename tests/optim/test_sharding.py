import torch

from muonlab.optim.sharding import Cut, assign, exchange
from optim.ranks import check_cases


def test_over_ranks(tmp_path):
    # One test and not one per case: starting the ranks is what takes the time.
    assert (
        check_cases(tmp_path, "optim.distributed_exchange", "optim.distributed_muon", "optim.distributed_qk_clip") > 30
    )


def test_the_update_does_not_depend_on_the_layout_of_parallelism(tmp_path):
    assert check_cases(tmp_path, "optim.distributed_layouts", num_ranks=8) > 3


def test_shards_are_cut_as_torch_chunk_cuts():
    for length in [0, 1, 3, 5, 8, 17]:
        for num_ranks in [1, 2, 4, 7]:
            chunks = [chunk.shape for chunk in torch.zeros(2, length, 3).chunk(num_ranks, dim=1)]
            expected = chunks + [torch.Size((2, 0, 3))] * (num_ranks - len(chunks))
            assert Cut(0, num_ranks, 1, (2, length, 3)).shard_shapes() == expected


def loads(costs, owners, num_ranks):
    return [
        sum(cost for cost, owner in zip(costs, owners, strict=True) if owner == (rank,)) for rank in range(num_ranks)
    ]


def test_the_costliest_come_first_and_go_to_the_rank_with_the_least():
    costs = (1.0, 5.0, 4.0, 3.0, 3.0)
    owners = assign(costs, (frozenset({0}),) * 5, (2,))
    assert owners == [(1,), (0,), (1,), (1,), (0,)]
    assert loads(costs, owners, 2) == [8.0, 8.0]


def test_equal_costs_are_shared_equally():
    owners = assign((2.0,) * 12, (frozenset({0, 1}),) * 12, (2, 2))
    assert [owners.count(place) for place in ((0, 0), (0, 1), (1, 0), (1, 1))] == [3, 3, 3, 3]


def test_tensors_that_occupy_a_whole_mesh_dimension_count_for_all_of_its_ranks():
    # The first is computed along mesh dimension 1 by every rank of row 0; the others go to row 1 until it has as much.
    row, place = frozenset({0}), frozenset({0, 1})
    owners = assign((10.0, 4.0, 4.0, 4.0), (row, place, place, place), (2, 2))
    assert owners[0][0] == 0
    assert sorted(owners[1:]) == [(1, 0), (1, 0), (1, 1)]


def test_plain_tensors_are_computed_at_once_and_never_changed():
    directions = [torch.ones(2, 3), torch.ones(4, 2, 2)]
    calls = []

    def double(tensors, indices):
        calls.append(indices)
        return [2 * tensor for tensor in tensors]

    results = exchange(directions, double, parameters=directions, costs=[1.0, 2.0], num_batch_axes=[0, 1])
    assert calls == [[0, 1]]
    assert [result.mean() for result in results] == [2, 2]
    assert [direction.mean() for direction in directions] == [1, 1]


def test_empty_tensors_are_not_computed():
    directions = [torch.ones(2, 3), torch.ones(0, 3)]
    shapes = []

    def same(tensors, indices):
        shapes.extend(tuple(tensor.shape) for tensor in tensors)
        return tensors

    results = exchange(directions, same, parameters=directions, costs=[1.0, 0.0], num_batch_axes=[0, 0])
    assert shapes == [(2, 3)]
    assert [tuple(result.shape) for result in results] == [(2, 3), (0, 3)]

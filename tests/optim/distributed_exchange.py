"""The cases of optim/sharding.py that need several ranks (`ranks.check_cases`)."""

from contextlib import contextmanager
from itertools import pairwise

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.distributed.tensor.placement_types import _StridedShard

from muonlab.optim.sharding import agree, exchange, local_shard
from muonlab.rules.polar import orthogonalize
from optim.ranks import NUM_RANKS, case, line, of_all_ranks, refusal, square


def random(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed + sum(shape)), dtype=torch.float64).to(dtype)


def polar_factors(tensor, num_batch_axes):
    """Matrix by matrix, so that a result does not depend, in its last bit, on which others are in the same batch."""
    matrices = tensor.reshape(tensor.shape[:num_batch_axes].numel(), tensor.shape[num_batch_axes], -1)
    return torch.stack([orthogonalize(matrix) for matrix in matrices.unbind()]).view(tensor.shape)


class Counted:
    """The function that is exchanged; it counts the matrices that it computes, by index, and its calls."""

    def __init__(self, num_batch_axes):
        self.num_batch_axes, self.counts, self.calls = num_batch_axes, [0] * len(num_batch_axes), 0

    def __call__(self, tensors, indices):
        self.calls += 1
        assert tensors
        for tensor, index in zip(tensors, indices, strict=True):
            assert type(tensor) is Tensor
            self.counts[index] += tensor.shape[: self.num_batch_axes[index]].numel()
        return [polar_factors(tensor, self.num_batch_axes[k]) for tensor, k in zip(tensors, indices, strict=True)]


def run(shards, parameters, wholes, expected, num_batch_axes=None, **options):
    """Exchange, hold the results to `expected`, and return the matrices each rank computed, (ranks, parameters)."""
    num_batch_axes = num_batch_axes or [0] * len(shards)
    counted, before = Counted(num_batch_axes), [shard.clone() for shard in shards]
    costs = [float(whole.numel()) for whole in wholes]
    results = exchange(shards, counted, parameters=parameters, costs=costs, num_batch_axes=num_batch_axes, **options)
    for result, each in zip(results, expected, strict=True):
        assert type(result) is Tensor
        assert result.dtype == each.dtype
        assert torch.equal(result, each), (result, each)
    for shard, each in zip(shards, before, strict=True):
        assert torch.equal(local_shard(shard, shard), local_shard(each, each))
    return torch.tensor(of_all_ranks(counted.counts))


def check(wholes, mesh, placements, num_batch_axes=None, times=1, **options):
    """Exchange DTensors and local shards of them; each matrix is computed `times` times over all ranks."""
    num_batch_axes = num_batch_axes or [0] * len(wholes)
    if not isinstance(placements[0], list):  # one layout for all
        placements = [placements] * len(wholes)

    def parts(tensors):
        each = zip(tensors, placements, strict=True)
        return [distribute_tensor(tensor, mesh, places, src_data_rank=None) for tensor, places in each]

    sharded = parts(wholes)
    answers = [polar_factors(whole, axes) for whole, axes in zip(wholes, num_batch_axes, strict=True)]
    expected = [answer.to_local() for answer in parts(answers)]
    for directions in (sharded, [tensor.to_local() for tensor in sharded]):
        counts = run(directions, sharded, wholes, expected, num_batch_axes, **options)
        matrices = [whole.shape[:axes].numel() for whole, axes in zip(wholes, num_batch_axes, strict=True)]
        assert counts.sum(0).tolist() == [times * count for count in matrices], counts
    return counts


@contextmanager
def sent_elements():
    """Yield a list that gets the number of elements that this rank passes to each all-to-all."""
    original, counts = dist.all_to_all_single, []

    def recording(output, input, *arguments, **options):
        counts.append(input.numel())
        return original(output, input, *arguments, **options)

    dist.all_to_all_single = recording
    try:
        yield counts
    finally:
        dist.all_to_all_single = original


@case
def sharded_on_one_mesh_dimension():
    counts = check([random(8, 5, seed=seed) for seed in range(8)], line(), [Shard(0)])
    assert counts.sum(1).tolist() == [2] * 4  # shared evenly
    # Unevenly, with empty shards, and fewer matrices than ranks.
    check([random(5, 4), random(3, 6), random(1, 7), random(9, 9), random(2, 3)], line(), [Shard(0)])
    check([random(7, 3)], line(), [Shard(0)])
    check([random(5, 8), random(4, 3), random(6, 1)], line(), [Shard(1)])
    check([random(6, 3, 2, 2), random(3, 2, 5)], line(), [[Shard(0)], [Shard(1)]])  # convolutions
    wholes = [random(5, 4, seed=seed) for seed in range(6)]
    counts = check(wholes, line(), [[Shard(0)], [Shard(1)], [Replicate()]] * 2)
    assert counts.sum(1).max() - counts.sum(1).min() <= 1  # balanced over all of them together
    dtypes = [torch.float32, torch.bfloat16, torch.float64, torch.bfloat16]
    counts = check([random(6, 5, dtype=dtype) for dtype in dtypes], line(), [Shard(0)])
    assert counts.sum(1).max() == 1  # balanced over dtypes too


@case
def transposed_shards():
    wholes = [random(6, 5)]
    sharded = distribute_tensor(wholes[0].T.contiguous(), line(), [Shard(1)], src_data_rank=None)
    expected = distribute_tensor(polar_factors(wholes[0], 0), line(), [Shard(0)], src_data_rank=None)
    assert dist.get_rank() > 0 or not sharded.to_local().T.is_contiguous()
    parameter = distribute_tensor(wholes[0], line(), [Shard(0)], src_data_rank=None)
    run([sharded.to_local().T], [parameter], wholes, [expected.to_local()])


@case
def many_rounds():
    wholes = [random(4 + seed % 3, 5, seed=seed) for seed in range(9)]
    most = -(-len(wholes) // NUM_RANKS)  # matrices that one rank owns
    for round_bytes, num_rounds in ((1, most), (2**40, 1)):
        with sent_elements() as counts:
            check(wholes, line(), [Shard(0)], round_bytes=round_bytes)
        assert len(counts) == 4 * num_rounds  # there and back, for both kinds of directions
        check(wholes, line(), [Replicate()], round_bytes=round_bytes)


@case
def empty_tensors_and_no_tensors():
    empty = distribute_tensor(torch.zeros(0, 3), line(), [Shard(0)])
    (result,) = exchange([empty], None, parameters=[empty], costs=[1.0], num_batch_axes=[0])
    assert result.shape == (0, 3)
    assert exchange([], None, parameters=[], costs=[], num_batch_axes=[]) == []


@case
def stacks_of_experts():
    wholes = [random(8, 3, 4), random(3, 4, 3), random(1, 2, 2)]  # the last two leave ranks without an expert
    with sent_elements() as sent:
        counts = check(wholes, line(), [Shard(0)], num_batch_axes=[1, 1, 1])
    assert sent == []  # no communication
    chunks, rank = [torch.arange(length).chunk(NUM_RANKS) for length in (8, 3, 1)], dist.get_rank()
    assert counts[rank].tolist() == [len(each[rank]) if rank < len(each) else 0 for each in chunks]
    # Sharded within, they are shared by all ranks, and keep their order over rounds.
    counts = check([random(8, 4, 3), random(3, 5, 2)], line(), [[Shard(1)], [Shard(2)]], num_batch_axes=[1, 1])
    assert counts[:, 0].tolist() == [2] * 4
    check([random(2, 3, 4, 5), random(3, 2, 2, 3)], line(), [[Shard(2)], [Shard(1)]], num_batch_axes=[2, 2])
    check([random(7, 2, 3), random(5, 2, 3)], line(), [Shard(1)], num_batch_axes=[1, 1], round_bytes=1)
    for placements in ([Shard(0), Shard(1)], [Shard(1), Shard(0)], [Shard(0), Shard(0)], [Replicate(), Shard(0)]):
        counts = check([random(6, 4, 3), random(3, 5, 2)], square(), placements, num_batch_axes=[1, 1])
        assert counts.sum(1).min() > 0


@case
def hybrid_sharding_computes_each_matrix_on_one_of_the_replicas():
    wholes = [random(5, 4, seed=seed) for seed in range(8)] + [random(1, 3)]
    for placements in ([Replicate(), Shard(0)], [Shard(0), Replicate()], [Replicate(), Shard(1)]):
        with sent_elements() as sent:
            counts = check(wholes, square(), placements)
        # There and back, for both kinds of directions; and only among one of the two sets of replicas.
        assert sum(of_all_ranks(sum(sent))) == 4 * sum(whole.numel() for whole in wholes)
        assert counts.sum(1).tolist() in ([3, 2, 2, 2], [2, 3, 2, 2])
    counts = check([random(5, 4, seed=seed) for seed in range(4)], square(), [Replicate(), Replicate()])
    assert counts.sum(1).tolist() == [1, 1, 1, 1]


@case
def two_sharded_mesh_dimensions():
    wholes = [random(8, 4), random(5, 7), random(3, 1), random(2, 2), random(9, 5)]
    for placements in ([Shard(0), Shard(1)], [Shard(1), Shard(0)], [Shard(0), Shard(0)], [Shard(1), Shard(1)]):
        counts = check(wholes, square(), placements)
        assert counts.sum(1).max() <= 2
        check(wholes, square(), placements, round_bytes=1)
    wholes = [random(4, 4, seed=seed) for seed in range(8)]  # layouts of tensor parallelism side by side
    layouts = [[Shard(0), Shard(1)], [_StridedShard(0, split_factor=2), Shard(0)], [Shard(0), Replicate()]]
    counts = check(wholes, square(), [*layouts, [Replicate(), Replicate()]] * 2)
    assert counts.sum(1).tolist() == [2, 2, 2, 2]
    # Placements that are not known here are computed by every rank.
    check([random(8, 4)], square(), [_StridedShard(0, split_factor=2), Replicate()], times=4)


@case
def meshes_side_by_side():
    wholes = [random(6, 4), random(5, 5), random(3, 4)]

    def laid_out(tensors):
        return [
            distribute_tensor(tensors[0], line(), [Shard(0)], src_data_rank=None),
            distribute_tensor(tensors[1], square(), [Shard(1), Replicate()], src_data_rank=None),
            tensors[2],
        ]

    parameters, answers = laid_out(wholes), laid_out([polar_factors(whole, 0) for whole in wholes])
    expected = [answer.to_local() if isinstance(answer, DTensor) else answer for answer in answers]
    counts = run(parameters, parameters, wholes, expected, process_group=dist.group.WORLD)
    assert counts.sum(0).tolist() == [1, 1, 1]


@case
def plain_tensors_in_process_groups():
    wholes = [random(5, 4, seed=seed) for seed in range(6)] + [random(7, 3, 2), random(3, 2, dtype=torch.float32)]
    axes = [0] * 6 + [1, 0]
    expected = [polar_factors(whole, each) for whole, each in zip(wholes, axes, strict=True)]
    counts = run(wholes, wholes, wholes, expected, axes, process_group=dist.group.WORLD)
    assert counts.sum(0).tolist() == [1] * 6 + [7, 1]
    assert (counts[:, 6] > 0).sum() > 1  # a stack is shared
    assert run(wholes, wholes, wholes, expected, axes).min() == 1  # without a group every rank computes them

    half, halves = dist.get_rank() // 2, [dist.new_group([0, 1]), dist.new_group([2, 3])]
    wholes = [random(5, 4, seed=seed + half) for seed in range(2)]
    counts = run(wholes, wholes, wholes, [polar_factors(whole, 0) for whole in wholes], process_group=halves[half])
    assert counts.sum(1).tolist() == [1, 1, 1, 1]
    options = {"parameters": wholes, "costs": [1, 1], "num_batch_axes": [0, 0]}
    message = refusal(lambda: exchange(wholes, None, **options, process_group=halves[1 - half]))
    assert "is not in its process_group" in message


@case
def every_rank_ends_with_the_same_bits():
    whole = random(6, 5)

    def by_rank(tensors, indices):
        return [tensor + dist.get_rank() for tensor in tensors]

    options = {"parameters": [whole] * 3, "costs": [3, 2, 1], "num_batch_axes": [0] * 3}
    results = torch.stack(exchange([whole] * 3, by_rank, **options, process_group=dist.group.WORLD))
    assert all(torch.equal(each, results) for each in of_all_ranks(results))
    assert len({float(each) for each in results[:, 0, 0]}) == 3


# --------------------------------------------------------------------------------------------------- the real shards


def train(net, tensor):
    net(tensor).square().sum().backward()
    return [parameter for parameter in net.parameters() if parameter.ndim == 2]


def net_of(*widths):
    torch.manual_seed(0)
    return nn.Sequential(*(nn.Linear(*pair, dtype=torch.float64) for pair in pairwise(widths)))


@case
def fully_sharded_net():
    for mesh in (line(), square()):
        tensor = random(8, 6)
        wholes = [parameter.grad for parameter in train(net_of(6, 8, 5, 3, 1), tensor)]
        net = net_of(6, 8, 5, 3, 1)
        for layer in net:
            fully_shard(layer, mesh=mesh)
        parameters = train(fully_shard(net, mesh=mesh), tensor)  # each rank has the same data, so the mean is the same
        gradients = [parameter.grad for parameter in parameters]
        for gradient, whole in zip(gradients, wholes, strict=True):
            torch.testing.assert_close(gradient.full_tensor(), whole)
        # The polar factors of the gradients that these ranks have: an average has its own last bit.
        wholes = [gradient.full_tensor() for gradient in gradients]
        num_shards, rank = mesh.size(mesh.ndim - 1), mesh.get_local_rank(mesh.ndim - 1)
        shards = [polar_factors(whole, 0).chunk(num_shards) for whole in wholes]
        expected = [each[rank] if rank < len(each) else each[0][:0] for each in shards]
        for directions in (gradients, [gradient.to_local() for gradient in gradients]):
            assert run(directions, parameters, wholes, expected).sum(0).tolist() == [1, 1, 1, 1]


@case
def fully_sharded_tensor_parallel_net():
    mesh = square()
    data, model = mesh["outer"], mesh["inner"]
    for widths in ((8, 8, 4), (6, 7, 5), (3, 1, 2)):  # even, uneven, with empty shards
        net = net_of(*widths)
        wholes = [parameter.data.clone() for parameter in net.parameters() if parameter.ndim == 2]
        parallelize_module(net, model, {"0": ColwiseParallel(), "1": RowwiseParallel()})
        fully_shard(net, mesh=data)
        parameters = [parameter for parameter in net.parameters() if parameter.ndim == 2]
        assert isinstance(parameters[0].placements[0], _StridedShard)

        def shard(tensor, axes, mesh=mesh):
            """Cut as the net is: by tensor parallelism first."""
            for axis, mesh_dim in zip(axes, (1, 0), strict=True):
                chunks, rank = tensor.chunk(2, dim=axis), mesh.get_local_rank(mesh_dim)
                tensor = chunks[rank] if rank < len(chunks) else tensor.narrow(axis, 0, 0)
            return tensor

        expected = [shard(polar_factors(whole, 0), axes) for whole, axes in zip(wholes, ((0, 0), (1, 0)), strict=True)]
        # FSDP has (0, 0) for what is left of an empty (2, 0); a result is shaped as the shard that it is added to.
        expected = [each.view_as(local_shard(p, p)) for each, p in zip(expected, parameters, strict=True)]
        counts = run(parameters, parameters, wholes, expected)
        assert counts.sum(0).tolist() == [1, 1]


@case
def what_is_partial_or_laid_out_otherwise():
    mesh, whole = line(), random(4, 4)
    options = {"costs": [1.0], "num_batch_axes": [0]}
    partial = DTensor.from_local(whole, mesh, [Partial()])
    sharded = distribute_tensor(whole, mesh, [Shard(0)], src_data_rank=None)
    assert torch.equal(local_shard(partial, sharded), sharded.to_local() * NUM_RANKS)  # a gradient is reduced
    assert "Partial" in refusal(lambda: exchange([whole], None, parameters=[partial], **options))
    message = refusal(lambda: exchange([whole], None, parameters=[sharded], **options))
    assert "direction 0 has the shape (4, 4)" in message
    assert "and its parameter does not" in refusal(lambda: exchange([sharded], None, parameters=[whole], **options))


@case
def flags_agreed():
    rank, whole = dist.get_rank(), random(3, 4)
    sharded = distribute_tensor(whole, line(), [Shard(0)], src_data_rank=None)
    flags = torch.tensor([True, rank != 3, True, rank != 3, rank != 0])
    parameters, before = [sharded, sharded, whole, whole, sharded], flags.clone()
    assert agree(flags, parameters, dist.group.WORLD).tolist() == [True, False, True, False, False]
    assert agree(flags, parameters).tolist() == [True, False, True, rank != 3, False]
    assert torch.equal(flags, before)
    assert agree(torch.ones(0, dtype=torch.bool), []).shape == (0,)
    for placements in ([Replicate(), Shard(0)], [Shard(1), Shard(0)]):
        for bad in range(4):
            sharded = distribute_tensor(whole, square(), placements, src_data_rank=None)
            assert agree(torch.tensor([rank != bad, True]), [sharded, sharded]).tolist() == [False, True]

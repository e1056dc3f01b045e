"""QK-clip where ranks see other batches: the largest logit is that of all, and shards are scaled as the whole is."""

import copy

import torch
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from muonlab import MuonAdamW
from optim.ranks import NUM_RANKS, case, line, of_all_ranks, square

WIDTH, TAU = 12, 0.1


class Net(nn.Module):
    """Its 12 rows of query are shared unevenly with its heads: 3 rows a rank, 4 a head."""

    def __init__(self):
        super().__init__()
        self.num_heads, self.num_key_value_heads = 3, 1
        self.q_proj, self.k_proj = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 4)
        self.v_proj, self.o_proj = nn.Linear(WIDTH, 4), nn.Linear(WIDTH, WIDTH)

    def forward(self, x):
        q, k, v = (layer(x).unflatten(-1, (-1, 4)).transpose(1, 2) for layer in (self.q_proj, self.k_proj, self.v_proj))
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, enable_gqa=True)
        return self.o_proj(mixed.transpose(1, 2).flatten(2))


def batches():
    generator = torch.Generator().manual_seed(1)
    return [(1 + rank) * torch.randn(2, 5, WIDTH, generator=generator) for rank in range(NUM_RANKS)]


def trained(net, inputs, dtype=torch.float32, **arguments):
    """Return the weights after two steps, and the largest logits of the second."""
    optimizer = MuonAdamW(net, lr=0.1, qk_clip=TAU, rules={}, rounding="remainder", **arguments)
    for _ in range(2):
        optimizer.zero_grad()
        sum(net(x.to(dtype)).square().mean() for x in inputs).div(len(inputs)).backward()
        optimizer.step()
    assert optimizer.qk_clip is not None
    (maxima,) = optimizer.qk_clip.maxima.values()
    return [p.full_tensor() if isinstance(p, DTensor) else p.detach() for p in net.parameters()], maxima


def check(wrapped, dtype=torch.float32, tolerance=1e-4, **arguments):
    torch.manual_seed(0)
    net = Net().to(dtype)
    whole = copy.deepcopy(net)
    net = wrapped(net)
    mine = batches()[torch.distributed.get_rank()]
    weights, maxima = trained(net, [mine], dtype, **arguments)
    expected, all_maxima = trained(whole, batches(), dtype)
    assert (maxima > TAU).any()
    torch.testing.assert_close(maxima, all_maxima, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(weights, expected, rtol=tolerance, atol=tolerance)
    together = of_all_ranks([weight.float().tolist() for weight in weights])
    assert all(each == together[0] for each in together)


@case
def qk_clip_of_replicas():
    check(DistributedDataParallel)
    check(DistributedDataParallel, process_group=torch.distributed.group.WORLD)


@case
def qk_clip_of_shards():
    check(lambda net: fully_shard(net, mesh=line()))
    check(lambda net: fully_shard(net, mesh=square()))
    check(lambda net: fully_shard(net, mesh=line()), torch.bfloat16, tolerance=0.05)

import pytest
import torch
from torch import nn

from muonlab.nets.norm import RMSNorm, reset_norms


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rms_norm_equals_torch(dtype):
    x = 3 * draw(4, 5, 8).to(dtype)
    ours, theirs = RMSNorm(8).to(dtype), torch.nn.RMSNorm(8, eps=1e-5, dtype=dtype)
    with torch.no_grad():
        ours.weight.copy_(draw(8, seed=1))
        theirs.weight.copy_(draw(8, seed=1))
    torch.testing.assert_close(ours(x), theirs(x))


@pytest.mark.parametrize("norm", [RMSNorm(4), nn.LayerNorm(4), nn.GroupNorm(2, 4), nn.BatchNorm2d(4)])
def test_a_norm_begins_anew_wherever_it_stands(norm):
    fresh = {name: tensor.clone() for name, tensor in norm.state_dict().items()}
    net = nn.Sequential(nn.Linear(3, 4), nn.Sequential(norm))
    linear = [p.clone() for p in net[0].parameters()]
    with torch.no_grad():
        for tensor in norm.state_dict().values():
            tensor.fill_(7)
    reset_norms(net)
    assert all(torch.equal(tensor, fresh[name]) for name, tensor in norm.state_dict().items())
    assert all(map(torch.equal, net[0].parameters(), linear))

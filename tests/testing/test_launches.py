"""What a step asks a device to start is counted as torch would start it."""

import pytest
import torch

from muonlab.testing import Call, Launches, count_launches, list_calls


def meta(*shape):
    return torch.empty(*shape, device="meta")


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda: meta(4, 4).T.T.reshape(2, 8), (0, 0, 0)),  # other names for the same memory
        (lambda: meta(4, 4) @ meta(4, 4) + 1, (2, 2, 1)),
        (lambda: torch.baddbmm(*[meta(3, 4, 4)] * 3), (1, 1, 1)),
        # 110 tensors of one list are a kernel; 320 blocks of 65,536 entries are one as well.
        (lambda: torch._foreach_add_([meta(4)] * 110, 1), (1, 1, 0)),
        (lambda: torch._foreach_add_([meta(4)] * 111, 1), (1, 2, 0)),
        (lambda: torch._foreach_lerp_([meta(4)] * 64, [meta(4)] * 64, 0.5), (1, 1, 0)),
        (lambda: torch._foreach_lerp([meta(4)] * 64, [meta(4)] * 64, 0.5), (1, 2, 0)),  # three lists: 48
        (lambda: torch._foreach_add_([meta(320, 65_536)], 1), (1, 1, 0)),
        (lambda: torch._foreach_add_([meta(321, 65_536)], 1), (1, 2, 0)),
        # Tensors of two orders in memory, or dtypes, are taken one by one; a copy may have two dtypes.
        (lambda: torch._foreach_add_([meta(4, 5)] * 9, [meta(5, 4).T] * 9), (1, 9, 0)),
        (lambda: torch._foreach_add_([meta(4)] * 9, [meta(4).half()] * 9), (2, 10, 0)),
        (lambda: torch._foreach_copy_([meta(4)] * 9, [meta(4).half()] * 9), (2, 2, 0)),
        (lambda: torch._foreach_norm([meta(4)] * 9), (1, 2, 0)),
    ],
)
def test_calls_kernels_and_products(function, expected):
    assert count_launches(function) == Launches(*expected)


def test_what_torchs_own_optimizer_launches():
    # Five times three products on a matrix.
    p = torch.nn.Parameter(meta(8, 8))
    p.grad = meta(8, 8)
    optimizer = torch.optim.Muon([p])
    optimizer.step()
    assert count_launches(optimizer.step).products == 15


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda: torch.bmm(meta(3, 4, 5), meta(3, 5, 6)), ("bmm", 1, 2 * 3 * 4 * 5 * 6, 4 * 3 * (20 + 30 + 24))),
        (lambda: torch.baddbmm(meta(3, 4, 6), meta(3, 4, 5), meta(3, 5, 6)), ("baddbmm", 1, 720, 4 * 3 * 98)),
        (lambda: meta(8).add_(meta(8)), ("add_", 1, 0, 4 * 24)),  # two read, one written
        (lambda: meta(8).copy_(meta(8)), ("copy_", 1, 0, 4 * 16)),
        (lambda: torch.mul(meta(8), meta(8), out=meta(8)), ("mul", 1, 0, 4 * 24)),
        (lambda: torch._foreach_lerp_([meta(8)] * 2, [meta(8)] * 2, 0.5), ("_foreach_lerp_", 1, 0, 4 * 48)),
    ],
)
def test_flops_and_bytes(function, expected):
    assert list_calls(function) == [Call(*expected)]

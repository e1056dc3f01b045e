import pytest
import torch

from muonlab.nets.rotary import rotate

T = 6


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_rotation_is_multiplication_by_a_complex_phase():
    x, base, half = draw(2, T, 3, 8), 100.0, 4
    positions = torch.arange(T)
    angles = positions[:, None] * base ** (-torch.arange(half, dtype=torch.float64) / half)
    turned = torch.complex(x[..., :half], x[..., half:]) * torch.exp(1j * angles)[:, None, :]
    expected = torch.cat([turned.real, turned.imag], dim=-1)
    torch.testing.assert_close(rotate(x, positions, base), expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("shift", [1, 17, 1000])
def test_shifting_all_positions_leaves_the_attention_scores(shift):
    q, k, positions = draw(2, T, 3, 8), draw(2, T, 3, 8, seed=1), torch.arange(T)

    def scores(positions_q, positions_k):
        return torch.einsum("bqhd,bkhd->bhqk", rotate(q, positions_q, 1e6), rotate(k, positions_k, 1e6))

    at_home = scores(positions, positions)
    torch.testing.assert_close(scores(positions + shift, positions + shift), at_home, rtol=0, atol=1e-11)
    assert (scores(positions + shift, positions) - at_home).abs().max() > 0.1

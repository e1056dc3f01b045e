import pytest
import torch

from muonlab.testing.symmetry import EXTRA
from testing.specimens import Matrix, Plain, failures

EXTRAS = [check.__name__ for check in EXTRA]


class HasAnEpsilon(Matrix):
    """Divides by a norm that is never below 1e-7, as torch.optim.Muon: small gradients move little."""

    def polar(self, x):
        return super().polar(x) * (x.norm() / x.norm().clamp(min=1e-7)).to(x.dtype)


class FlattensExperts(Matrix):
    def direction(self, gradient, state, group):
        flat = super().direction(gradient.flatten(0, 1) if gradient.ndim == 3 else gradient, state, group)
        return flat.reshape(gradient.shape)


class TakesConvolutionsForOne(Matrix):
    """Orthogonalizes the sum of convolutions of one shape."""

    def direction(self, gradient, state, group):
        alike = [p.grad for p in group["params"] if gradient.ndim == 4 and p.shape == gradient.shape]
        return super().direction(sum(alike) if alike else gradient, state, group)


class ScalesByTheKernel(Matrix):
    """Takes the last two axes for rows and columns."""

    def direction(self, gradient, state, group):
        return super().direction(gradient, state, group) * max(1, gradient.shape[-2] / gradient.shape[-1]) ** 0.5


class NormalizesRows(Matrix):
    def polar(self, x):
        x = x / x.abs().max()
        return x / torch.linalg.vector_norm(x, dim=-1, keepdim=True)


class OrthogonalizesRealAndImaginaryPartsApart(Matrix):
    def polar(self, x):
        return torch.complex(super().polar(x.real), super().polar(x.imag))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64, torch.complex64])
def test_an_exact_muon_has_every_symmetry(dtype):
    assert failures(Matrix, dtype=dtype, also=EXTRAS) == {}


@pytest.mark.parametrize(
    ("broken", "check", "dtype", "seen"),
    [
        (HasAnEpsilon, "scale_invariance", torch.float32, "by gradients times 7.9e-31 and times 1 differ"),
        (FlattensExperts, "experts_apart", torch.float32, "matrix 0 of a parameter of shape (3, 6, 4)"),
        (
            TakesConvolutionsForOne,
            "convolutions_flat",
            torch.float32,
            "parameter 0 of shape (6, 2, 3, 2) and of",
        ),
        (ScalesByTheKernel, "convolutions_flat", torch.float32, "and of the same as a matrix (6, 12) differ"),
        (NormalizesRows, "transpose", torch.float32, "the updates of parameter 0 of shape (6, 4) and of its transpose"),
        (OrthogonalizesRealAndImaginaryPartsApart, "complex_phase", torch.complex64, "turned with its gradients"),
    ],
)
def test_a_broken_symmetry_is_found(broken, check, dtype, seen):
    found = failures(broken, dtype=dtype, only=EXTRAS)
    assert set(found) == {check}
    assert seen in found[check]


def test_the_other_optimizers_are_not_scale_invariant():
    assert set(failures(Plain, only=EXTRAS)) == {"scale_invariance"}

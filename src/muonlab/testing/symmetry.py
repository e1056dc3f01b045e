"""Extra checks: symmetries that a matrix optimizer has and others do not."""

import cmath

import torch
from torch import Tensor

from muonlab.testing.trial import NotApplicableError, Trial, expect, named, wide


def scale_invariance(trial: Trial) -> None:
    """Gradients times any factor, over the range of the dtype, give the same update."""
    exponent = 100 if torch.finfo(trial.dtype).max > 1e31 else 8
    starts, history = trial.starts(), trial.history()
    expected = trial.trained(starts, history)
    for scale in (2.0**-exponent, 2.0**exponent):  # powers of two, so that nothing is rounded on the way
        seen = trial.trained(starts, [[gradient * scale for gradient in gradients] for gradients in history])
        trial.expect_all_close(seen, expected, starts, f"{{}} by gradients times {scale:.1e} and times 1")


def experts_apart(trial: Trial) -> None:
    """A stack of matrices in one parameter is updated as its matrices are alone."""
    shape = (3, 6, 4)
    (start,), history = trial.starts([shape]), trial.history(shapes=[shape])
    # Experts see gradients of very different size: one norm over all of them would show.
    sizes = torch.tensor([1.0, 16.0, 256.0], device=trial.device, dtype=trial.dtype).view(3, 1, 1)
    history = [[gradient * sizes for gradient in gradients] for gradients in history]
    (stacked,) = trial.trained([start], history)
    for expert in range(len(start)):
        (alone,) = trial.trained([start[expert]], [[gradients[0][expert]] for gradients in history])
        what = f"the updates of matrix {expert} of a parameter of shape {shape} and of that matrix alone"
        trial.expect_close(stacked[expert], alone, start[expert], what)


def convolutions_flat(trial: Trial) -> None:
    """The weight of a convolution, (out, in, height, width), is updated as the matrix (out, in * height * width) is."""
    shape = (6, 2, 3, 2)  # not a square kernel; and two, so that taking equal ones for one matrix would show
    starts, history = trial.starts([shape, shape]), trial.history(shapes=[shape, shape])
    weights = trial.trained(starts, history)
    for i, start in enumerate(starts):
        (matrix,) = trial.trained([start.flatten(1)], [[gradients[i].flatten(1)] for gradients in history])
        what = f"the updates of {named(i, start)} and of the same as a matrix {tuple(matrix.shape)}"
        trial.expect_close(weights[i].flatten(1), matrix, start.flatten(1), what)


def transpose(trial: Trial) -> None:
    """The transpose of a matrix has the transposed update, up to a factor that follows from its shape."""
    shapes = [shape for shape in trial.shapes if len(shape) == 2]
    if not shapes:
        raise NotApplicableError("none of the shapes is a matrix")
    # From zero: decay shrinks both alike, but the factor is on the update alone.
    starts = [torch.zeros_like(start) for start in trial.starts(shapes)]
    history = trial.history(shapes=shapes)
    plain = trial.trained(starts, history)
    turned = trial.trained([_turned(x) for x in starts], [[_turned(g) for g in gradients] for gradients in history])
    for i, (one, other, start) in enumerate(zip(plain, turned, starts, strict=True)):
        expected, seen = wide(one), wide(other).mT
        factor = float((expected.conj() * seen).real.sum() / expected.abs().square().sum())
        what = f"the updates of {named(i, one)} and of its transpose"
        expect(factor > 0, f"{what} are not alike (factor {factor:.2g})")
        trial.expect_close(seen, factor * expected, start, what)


def _turned(x: Tensor) -> Tensor:
    return x.mT.contiguous()


def complex_phase(trial: Trial) -> None:
    """Gradients times a complex number of modulus one turn the update by as much."""
    if not trial.dtype.is_complex:
        raise NotApplicableError(f"{trial.dtype} has no phase")
    starts = [torch.zeros_like(start) for start in trial.starts()]
    history, phase = trial.history(), cmath.exp(0.7j)
    plain = trial.trained(starts, history)
    turned = trial.trained(starts, [[gradient * phase for gradient in gradients] for gradients in history])
    expected = [end * phase for end in plain]
    trial.expect_all_close(turned, expected, starts, "{}, turned with its gradients and after them,")

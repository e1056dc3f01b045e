"""The polar factor of a matrix: its singular vectors kept, its singular values sent towards one."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from muonlab.rules.exact import exact
from muonlab.rules.iterations import bounded, newton_schulz, newton_schulz_
from muonlab.rules.operands import Workspace, is_number, on_host
from muonlab.rules.polynomials import JORDAN, Polynomial, cubic, polar_express
from muonlab.rules.products import fast_products

METHODS = ("auto", "quintic", "polar_express", "cubic", "gram", "aol", "exact")
STEPS = {"quintic": 5, "polar_express": 5, "cubic": 7, "gram": 5, "aol": 4}
CHUNK_BYTES = 2**22  # of matrices that are worked on at a time on a CPU: what its cache holds
# Elsewhere, where a call costs more than a pass over memory: by the count of calls, not by a measured time. The hidden
# matrices of GPT-2-small are 2^28.3 bytes. Temporary memory is up to three times as much.
DEVICE_CHUNK_BYTES = 2**29


def check(
    method: str,
    steps: int | None = None,
    coefficients: Sequence[float] | None = None,
    dtype: torch.dtype | None = None,
    prefix: str = "",
) -> None:
    """Raise ValueError for an unknown method or arguments that it does not take; names in messages get the prefix."""
    if method not in METHODS:
        raise ValueError(f"method={method!r} is out of range; expected one of {', '.join(METHODS)}")
    if steps is not None and (not isinstance(steps, int) or isinstance(steps, bool) or not 1 <= steps < 100):
        raise ValueError(f"{prefix}steps={steps!r} is out of range; expected a whole number from 1 to 99")
    is_three = isinstance(coefficients, tuple | list) and len(coefficients) == 3
    if coefficients is not None and not (is_three and all(map(is_number, coefficients))):
        raise ValueError(f"{prefix}coefficients={coefficients!r}; expected three finite numbers (a, b, c)")
    if method == "exact" and dtype in (torch.bfloat16, torch.float16):
        raise ValueError(f"{prefix}dtype={dtype} with method='exact'; expected torch.float32 or torch.float64")
    if steps is not None and method == "exact":
        raise ValueError(
            f"{prefix}steps={steps} with method='exact', which does not iterate; expected {prefix}steps=None"
        )
    if steps is not None and method == "auto":
        raise ValueError(f"{prefix}steps={steps} with method='auto', which chooses them; name a method that iterates")
    if coefficients is not None and method != "quintic":
        raise ValueError(
            f"{prefix}coefficients={coefficients} with method={method!r}; they are for method='quintic' alone"
        )


def normalize(G: Tensor, *, eps: float = 1e-7) -> Tensor:
    """Return G / |G|_F, (*members, rows, columns), over the whole range of its dtype; zero matrices stay zero."""
    X = divide_by_largest_entry_(G.clone())
    return X / (torch.linalg.matrix_norm(X, keepdim=True) + eps)


@torch.no_grad()
def orthogonalize(
    G: Tensor,
    method: str = "auto",
    *,
    steps: int | None = None,
    coefficients: Polynomial | None = None,
    eps: float = 1e-7,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Return the polar factor U V^H of each matrix, where G = U S V^H, or an approximation of it; not differentiable.

    Methods, all of matrix products alone but the last:

    - quintic: Jordan's iteration from G / |G|_F. Singular values end between about 0.7 and 1.2.
    - polar_express: the best quintics in turn, from G over a bound of its largest singular value.
    - gram: the same polynomials, two or three at a time on the small Gram matrix: fewer operations the longer the
      matrix.
    - cubic: the best cubics in turn; two products a step instead of three.
    - aol: rows (columns of a tall matrix) scaled to almost orthogonal ones, then four quintics: the polar factor of
      the scaled matrix, which is not that of G.
    - exact: by eigenvectors of the Gram matrix or by the SVD, to the precision of the dtype; singular values that are
      zero to rounding stay zero.
    - auto: the cheapest of them that is accurate enough, by shape (`muonlab doctor`).

    Args:
        G: matrices, (*members, rows, columns), real or complex; never changed. Zero matrices stay zero. The answer
            does not depend on the scale of G, over the whole range of its dtype.
        method: one of METHODS.
        steps: iterations; by default 5, for cubic 7 and for aol 4. Not for exact and auto.
        coefficients: (a, b, c) of a x + b x^3 + c x^5 for quintic; Jordan's by default.
        eps: keeps a zero matrix zero in quintic; relative to the largest entry.
        dtype: dtype of the products; G's own by default, float32 where that is float16.

    Returns:
        A tensor with the shape and dtype of G.

    Raises:
        ValueError: G does not hold matrices of floating point numbers, or an argument that the method does not take.

    Examples:
        >>> orthogonalize(torch.tensor([[3.0, 0.0], [0.0, -0.1]]), "exact")
        tensor([[ 1.,  0.],
                [ 0., -1.]])

    References:
        quintic: Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/. polar_express: arXiv 2505.16932.
        cubic: arXiv 2506.10935. aol: arXiv 2512.04632.
    """
    check(method, steps, coefficients, None if G.is_complex() else dtype)
    if dtype is not None and not (dtype.is_floating_point or dtype.is_complex):
        raise ValueError(f"dtype={dtype} for matrix products; expected a floating point or complex one")
    if G.ndim < 2:
        raise ValueError(f"a tensor of shape {tuple(G.shape)} holds no matrices; expected at least two axes")
    if not (G.is_floating_point() or G.is_complex()):
        raise ValueError(f"matrices of {G.dtype} have no polar factor; expected floating point or complex numbers")
    if G.numel() == 0:
        return G.clone()
    stack = G.reshape(-1, *G.shape[-2:])
    size = chunk(G.shape[-2], G.shape[-1], G.element_size(), G.device)
    hyper = {"steps": steps, "coefficients": coefficients, "eps": eps, "dtype": dtype}
    parts = [orthogonalize_([part.clone()], method, **hyper)[0] for part in stack.split(size)]
    return (parts[0] if len(parts) == 1 else torch.cat(parts)).reshape(G.shape)


@fast_products()
def orthogonalize_(
    stacks: Sequence[Tensor],
    method: str = "auto",
    *,
    steps: int | None = None,
    coefficients: Polynomial | None = None,
    eps: float = 1e-7,
    dtype: torch.dtype | None = None,
    workspace: Workspace | None = None,
    is_scaled: bool = False,
) -> list[Tensor]:
    """Return what `orthogonalize` returns, of stacks whose memory is worked in.

    Args:
        stacks: (k, rows, columns) each, of one dtype, min(rows, columns) the same: they go through most of the
            products together.
        method: and steps, coefficients, eps and dtype, as of `orthogonalize`.
        workspace: where temporary tensors come from. The results may be in it, until it is used again.
        is_scaled: norms are between 1e-15 and 1e15, or zero.
    """
    like = stacks[0]
    dtype = product_dtype(like, method, dtype)
    if method == "auto":
        shapes = [G.shape[-2:] for G in stacks]  # a list: dynamo knows no max of a generator by key
        method, steps = choose(*max(shapes, key=max))
    steps, work = steps or STEPS.get(method, 0), workspace or Workspace()
    if not is_scaled or method == "quintic":  # whose eps is relative to the largest entry
        stacks = [divide_by_largest_entry_(G) for G in stacks]
    if method == "quintic":
        norms = [torch.linalg.matrix_norm(G, keepdim=True) + eps for G in stacks]
        stacks = [G.div_(torch.where(norm > 0, norm, 1)) for G, norm in zip(stacks, norms, strict=True)]
    given = [
        G if G.dtype == dtype else work.take(f"X{index}", G.shape, G, dtype).copy_(G) for index, G in enumerate(stacks)
    ]
    if method == "quintic":
        found = [_quintic(X, [coefficients or JORDAN] * steps, workspace, f"Y{index}") for index, X in enumerate(given)]
    elif method == "exact":
        found = [exact(X.mH).mH.resolve_conj() if X.shape[-2] > X.shape[-1] else exact(X) for X in given]
    else:
        polynomials = cubic(steps) if method == "cubic" else polar_express(steps)
        lengths = stages(steps, min(like.shape[-2:]), dtype) if method == "gram" else (1,) * steps
        found = bounded(given, polynomials, lengths, preconditioned=method == "aol", workspace=work)
    return [X if X.dtype == G.dtype else G.copy_(X) for X, G in zip(found, stacks, strict=True)]


def _quintic(X: Tensor, polynomials: Sequence[Polynomial], workspace: Workspace | None, name: str) -> Tensor:
    if X.dtype == torch.bfloat16 and workspace is not None:  # passes over memory count where products are fast
        return newton_schulz_(X, polynomials, workspace, name)
    if X.shape[-2] > X.shape[-1]:  # the small Gram matrix is the cheap one
        return newton_schulz(X.mH, polynomials).mH.resolve_conj()
    return newton_schulz(X, polynomials)


def chunk(rows: int, columns: int, itemsize: int, device: torch.device) -> int:
    """Return how many matrices are worked on at a time: what fits the cache of a CPU, or few batches elsewhere."""
    return max(1, (CHUNK_BYTES if on_host(device) else DEVICE_CHUNK_BYTES) // (rows * columns * itemsize))


def product_dtype(G: Tensor, method: str, dtype: torch.dtype | None) -> torch.dtype:
    """Return the dtype of products of a method on matrices like G, where `dtype` is asked for."""
    is_wide = G.dtype == torch.float16 or (method == "exact" and G.element_size() < 4)
    dtype = dtype or (torch.float32 if is_wide else G.dtype)
    if G.is_complex() and not dtype.is_complex:  # there are no complex products in bfloat16
        return torch.complex128 if dtype == torch.float64 else torch.complex64
    return dtype


def divide_by_largest_entry_(G: Tensor) -> Tensor:
    """Divide each matrix by its largest entry, in place, so that no norm or product of it under- or overflows."""
    if G.is_complex():
        # An absolute value can overflow where its parts do not: so by the largest part first.
        parts = torch.view_as_real(G)  # (k, rows, columns, 2); flattened, those of a transposed G would be a copy
        largest = parts.abs().amax(dim=(-3, -2, -1), keepdim=True)
        parts.div_(torch.where(largest > 0, largest, 1))
        peak = G.abs().amax(dim=(-2, -1), keepdim=True)
    else:
        # Two reductions are one pass each; abs().amax() makes a copy, a norm of order infinity is ten times as slow.
        peak = torch.maximum(G.amax(dim=(-2, -1), keepdim=True), -G.amin(dim=(-2, -1), keepdim=True))
    return G.div_(torch.where(peak > 0, peak, 1))


# --- what method="auto" means: the cheapest method that is accurate enough, by shape


@dataclass(frozen=True)
class Row:
    """A choice, which holds for the shapes that it fits first."""

    side: int | None  # the largest smaller side; None for any
    aspect: float  # the least ratio of the larger side to the smaller one
    method: str
    steps: int


# Accurate enough: a cosine to the exact polar factor of .99 for Gaussian matrices, .995 for singular values 1/i and .93
# for singular values from 1 to 1e-3, evenly in their logarithm; up to 768 rows, beyond which 1/i asks for more steps.
# Made by `python benchmarks/polar.py` on one core of an Intel Xeon with AMX (records/optimizer/methods.txt), where
# bfloat16 and float32 have the same order. Four steps reach .0055 of the largest singular value, enough for 192 of 1/i.
# The exact method is faster for a single matrix of 64 rows, and there only; it is never chosen, as it takes all that is
# above float32's rounding for signal. No GPU was measured: the same rows stand for them.
TABLE = (
    Row(192, 1.25, "gram", 4),
    Row(192, 1, "polar_express", 4),
    Row(None, 1.5, "gram", 5),
    Row(None, 1, "polar_express", 5),
)


def choose(rows: int, columns: int) -> tuple[str, int]:
    """Return the method and its steps for matrices of a shape."""
    side, aspect = min(rows, columns), max(rows, columns) / min(rows, columns)
    row = next(row for row in TABLE if (row.side is None or side <= row.side) and aspect >= row.aspect)
    return row.method, row.steps


# With fewer, stages of (2, 3) threw singular values of some spectra of two values to infinity: seen at 8 to 16 rows,
# and at 24 with a margin of .95; from 48 rows on in none of some hundreds.
FEW_ROWS = 48


def stages(steps: int, side: int, dtype: torch.dtype) -> tuple[int, ...]:
    """Return how many polynomials act on one Gram matrix, of `side` rows, before it is formed again.

    In bfloat16 two, and three at the end if they are odd, as its rounding grows with the squares of their slopes; for
    few rows, over which rounding does not average out, one. In wider dtypes up to five.
    """
    if dtype not in (torch.bfloat16, torch.float16):
        whole, rest = divmod(steps, 5)
        return (5,) * whole + ((rest,) if rest else ())
    if side < FEW_ROWS or steps == 1:
        return (1,) * steps
    return (2,) * (steps // 2 - 1) + (2 + steps % 2,)

"""What bounds Muon's step of a population: the products of its iteration alone, and what forms of it take.

    python benchmarks/iteration.py [--members 16] [--rounds 15] [--save FILE]

Milliseconds per member of five of Jordan's quintics in bfloat16 on the hidden matrices of the grokking Transformer of
one layer (4 of 128 x 128, 3 of 512 x 128, one of them wide), processor time of one thread, median over the rounds, all
forms in one process and in random order, with 8 MB of other memory touched in between. The last column is the cosine to
the exact polar factor, of matrices with singular values from 1 to 1e-3, evenly in their logarithm.
"""

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from optimizer.machine import machine
from torch import Tensor

from muonlab.rules import muon
from muonlab.rules.iterations import newton_schulz_
from muonlab.rules.operands import Workspace
from muonlab.rules.polynomials import JORDAN
from muonlab.rules.products import fast_products

SHAPES = {(128, 128): 4, (512, 128): 2, (128, 512): 1}
STEPS = 5
Form = Callable[[Tensor, Workspace], Tensor]  # matrices (k, rows, columns) of norm one -> their polar factors


def as_it_is(X: Tensor, work: Workspace) -> Tensor:
    """What a step calls."""
    return newton_schulz_(X, [JORDAN] * STEPS, work, "Y")


def products_alone(X: Tensor, work: Workspace) -> Tensor:
    """Its products without their additions: no polar factor, but the floor."""
    A, W, Y = _memory(X, work)
    for _ in range(STEPS):
        _gram(X, A)
        torch.bmm(A, A, out=W)
        _apply(W, X, Y)
        X, Y = Y, X
    return X


def on_the_diagonal(X: Tensor, work: Workspace) -> Tensor:
    """The multiple of X comes by the diagonal of the small matrix, so no product adds to a copy of X."""
    A, W, Y = _memory(X, work)
    a, b, c = JORDAN
    for _ in range(STEPS):
        _gram(X, A)
        torch.baddbmm(A, A, A, beta=b, alpha=c, out=W)
        W.diagonal(dim1=-2, dim2=-1).add_(a)
        _apply(W, X, Y)
        X, Y = Y, X
    return X


def by_halves(X: Tensor, work: Workspace) -> Tensor:
    """Symmetric products by three of their four blocks; the fourth is mirrored."""
    A, W, Y = _memory(X, work)
    a, b, c = JORDAN
    is_tall, half = X.shape[1] > X.shape[2], A.shape[1] // 2
    for _ in range(STEPS):
        rows = X.mT if is_tall else X  # (k, side, length)
        A[:, :half] = torch.bmm(rows[:, :half], rows.mT)
        A[:, half:, half:] = torch.bmm(rows[:, half:], rows[:, half:].mT)
        A[:, half:, :half] = A[:, :half, half:].mT
        W[:, :half] = torch.baddbmm(A[:, :half], A[:, :half], A, beta=b, alpha=c)
        W[:, half:, half:] = torch.baddbmm(A[:, half:, half:], A[:, half:], A[:, :, half:], beta=b, alpha=c)
        W[:, half:, :half] = W[:, :half, half:].mT
        torch.baddbmm(X, *((X, W) if is_tall else (W, X)), beta=a, out=Y)
        X, Y = Y, X
    return X


def _memory(X: Tensor, work: Workspace) -> tuple[Tensor, Tensor, Tensor]:
    side = min(X.shape[1:])
    return *(work.take(name, (len(X), side, side), X) for name in ("A", "W")), work.take("Y", X.shape, X)  # pyright: ignore[reportReturnType]


def _gram(X: Tensor, A: Tensor) -> None:
    torch.bmm(X.mT, X, out=A) if X.shape[1] > X.shape[2] else torch.bmm(X, X.mT, out=A)


def _apply(W: Tensor, X: Tensor, Y: Tensor) -> None:
    torch.bmm(*((X, W) if X.shape[1] > X.shape[2] else (W, X)), out=Y)


FORMS: dict[str, Form] = {
    "products alone": products_alone,
    "as it is": as_it_is,
    "by the diagonal": on_the_diagonal,
    "symmetric halves": by_halves,
}


def drawn(num: int, shape: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Return matrices of Frobenius norm one whose singular values are even in their logarithm."""
    side = min(shape)
    U, V = (torch.linalg.qr(torch.randn(num, length, side, generator=generator))[0] for length in shape)
    X = U * torch.logspace(0, -3, side) @ V.mT
    return X / torch.linalg.matrix_norm(X, keepdim=True)


def cosine(form: Form) -> float:
    """Return the least mean cosine of a form to the exact polar factor, over the shapes."""
    generator, least = torch.Generator().manual_seed(0), 1.0
    for shape in SHAPES:
        X = drawn(4, shape, generator)
        U, _, Vh = torch.linalg.svd(X, full_matrices=False)
        found = form(X.bfloat16(), Workspace()).float()
        of_each = (found * (U @ Vh)).sum((1, 2)) / found.square().sum((1, 2)).sqrt() / min(shape) ** 0.5
        least = min(least, of_each.mean().item())
    return least


def jobs(num_members: int) -> dict[str, Callable[[], object]]:
    """Return what is timed, by name."""
    generator, found = torch.Generator().manual_seed(0), {}
    for size in (4, 8, 16, 64):
        for name, form in FORMS.items():
            if name in ("products alone", "as it is") or size == 16:
                found[f"{name}, {size} at once"] = _repeated(form, size, num_members, generator)
    shapes = [shape for shape, count in SHAPES.items() for _ in range(count)]
    ps, grads = ([torch.randn(num_members, *shape, generator=generator) for shape in shapes] for _ in range(2))
    states, work = [muon.init(p) for p in ps], Workspace()
    found["the whole step"] = lambda: muon.update_(grads, states, ps, work, lr=0.02, polar_dtype=torch.bfloat16)
    return found


def _repeated(form: Form, size: int, num_members: int, generator: torch.Generator) -> Callable[[], object]:
    own, work = [], Workspace()
    for shape, count in SHAPES.items():
        own += [each.bfloat16() for each in drawn(count * num_members, shape, generator).split(size)]
    begin = [each.clone() for each in own]

    def run() -> None:
        for X, start in zip(own, begin, strict=True):
            form(X.copy_(start), work)

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--members", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--save", type=Path, help="write JSON to this file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found, order, other = jobs(options.members), random.Random(0), torch.ones(2**21)
    seconds: dict[str, list[float]] = {name: [] for name in found}
    with fast_products():
        for _ in range(options.rounds + 1):
            for name in order.sample(sorted(found), len(found)):
                other.add_(1)
                start = time.thread_time()
                found[name]()
                seconds[name].append(time.thread_time() - start)
        cosines = {name: cosine(form) for name, form in FORMS.items() if form is not products_alone}
    ms = {name: 1e3 * statistics.median(times[1:]) / options.members for name, times in seconds.items()}
    for name, each in ms.items():
        own = cosines.get(name.partition(",")[0])
        print(f"{name:32} {each:6.2f} ms a member" + (f"   {own:.3f}" if own else ""))
    if options.save:
        result = {"environment": machine("cpu", 1), "members": options.members, "rounds": options.rounds}
        options.save.write_text(json.dumps({**result, "ms_per_member": ms, "cosines": cosines}, indent=1) + "\n")


if __name__ == "__main__":
    main()

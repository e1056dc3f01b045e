"""How near a contender's update is to the polar factor, on matrices whose singular values are known."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import Parameter

from optimizer.contenders import BARE, Contender
from optimizer.parameters import as_matrix

SHAPES = ((768, 768), (768, 3072), (128, 128), (64, 576))
SPECTRA = ("gaussian", "1/i", "condition 1e3", "half rank")


def singular_values(spectrum: str, small: int) -> Tensor:
    if spectrum == "1/i":
        return 1 / torch.arange(1, small + 1, dtype=torch.float64)
    if spectrum == "condition 1e3":
        return torch.logspace(0, -3, small, dtype=torch.float64)
    if spectrum == "half rank":
        return torch.ones(small // 2, dtype=torch.float64)
    raise ValueError(spectrum)


def case(rows: int, columns: int, spectrum: str, seed: int) -> tuple[Tensor, Tensor, int]:
    """Return a float32 matrix (rows, columns), its polar factor over its range in float64, and its rank."""
    generator = torch.Generator().manual_seed(seed)
    G = torch.randn(rows, columns, generator=generator, dtype=torch.float64)
    if spectrum == "gaussian":
        U, _, Vh = torch.linalg.svd(G.float().double(), full_matrices=False)
        return G.float(), U @ Vh, min(rows, columns)
    values = singular_values(spectrum, min(rows, columns))
    U = torch.linalg.qr(torch.randn(rows, len(values), generator=generator, dtype=torch.float64)).Q
    V = torch.linalg.qr(torch.randn(columns, len(values), generator=generator, dtype=torch.float64)).Q
    return ((U * values) @ V.mT).float(), U @ V.mT, len(values)


def cases(seed: int = 0) -> Iterator[tuple[tuple[int, int], str, tuple[Tensor, Tensor, int]]]:
    for shape in SHAPES:
        for spectrum in SPECTRA:
            yield shape, spectrum, case(*shape, spectrum, seed)


def orthogonalized(contender: Contender, G: Tensor) -> Tensor:
    """Return what the contender makes of G, (rows, columns) in float64.

    Taken from outside: a parameter of zeros after one step with lr 1 and without decay and momentum is minus that,
    times the scale of the shape, which all contenders share.
    """
    p = Parameter(torch.zeros_like(G))
    optimizer = contender.build([p], BARE)
    contender.before_step()
    p.grad = G.clone()
    optimizer.step()
    rows, columns = as_matrix(G.shape)
    return -p.detach().double().cpu() / max(1.0, rows / columns) ** 0.5


def errors(X: Tensor, polar: Tensor, rank: int) -> dict[str, float]:
    """Return the cosine of X with the polar factor, and the largest and rank-th singular value of X.

    What X has outside the range of the matrix, rounding that was blown up, is not in the polar factor: it lowers
    `cosine`, but not `cosine_in_range`, which looks at the part of X between the range and the row space.
    """
    inside = polar @ (polar.mT @ X @ polar.mT) @ polar  # polar @ polar.mT and polar.mT @ polar project
    squares = torch.linalg.eigvalsh(X @ X.mT if X.shape[0] <= X.shape[1] else X.mT @ X).flip(0)
    values = squares.clamp(min=0).sqrt()
    return {
        "cosine": float((X * polar).sum() / (X.norm() * polar.norm())),
        "cosine_in_range": float((inside * polar).sum() / (inside.norm() * polar.norm())),
        "smallest": float(values[rank - 1]),
        "largest": float(values[0]),
    }


def accuracy(contenders: list[Contender], device: str, problems: dict[str, str]) -> list[dict]:
    """Return cosine and singular values of each contender for each shape and spectrum."""
    table = []
    for shape, spectrum, (G, polar, rank) in cases():
        for contender in contenders:
            if contender.name in problems:
                continue
            try:
                X = orthogonalized(contender, G.to(device))
            except Exception as error:  # a peer's failure is a result
                problems[contender.name] = f"{type(error).__name__}: {error}".splitlines()[0]
                continue
            row = {"contender": contender.name, "shape": list(shape), "spectrum": spectrum}
            table.append({**row, **errors(X, polar, rank)})
    return table

"""Designs of experiments: points that lie evenly in the unit cube."""

from scipy.stats import qmc

DIMENSIONS = 16  # of the sequence; a design has the first of them, since the scrambling depends on the number


def scattered(number: int, dimensions: int, seed: int = 0) -> list[list[float]]:
    """Return points of a scrambled Sobol sequence (Owen 1998), number x dimensions, the first of a power of two.

    Args:
        number: of points.
        dimensions: of the cube, at most `DIMENSIONS`.
        seed: of the scrambling. Designs of one seed agree in the dimensions that they share.
    """
    points = qmc.Sobol(DIMENSIONS, rng=seed).random_base2((number - 1).bit_length())
    return points[:number, :dimensions].tolist()

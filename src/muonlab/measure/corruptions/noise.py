"""Noise of a sensor: Gaussian, Poisson, salt and pepper.

Constants of CIFAR-C (arXiv 1903.12261, create_c/make_cifar_c.py). Noise has no lengths.
"""

from functools import cache

import torch
from torch import Tensor

from muonlab.measure.corruptions.draws import normal, uniform

GAUSSIAN = (0.04, 0.06, 0.08, 0.09, 0.10)  # standard deviation
SHOT = (500, 250, 100, 75, 50)  # photons that a white pixel receives on average
IMPULSE = (0.01, 0.02, 0.03, 0.05, 0.07)  # share of the numbers replaced by black or white
LEVELS = 256


def gaussian_noise(images: Tensor, severity: int, keys: Tensor) -> Tensor:
    """Add independent normal noise to every number."""
    return images + GAUSSIAN[severity - 1] * normal(keys, 0, *images.shape[1:])


def shot_noise(images: Tensor, severity: int, keys: Tensor) -> Tensor:
    """Count photons: Poisson(photons * x) / photons.

    The count is the sum of two, whose rates are x's first and second eight bits, each drawn as the quantile of a
    uniform number: exact for x of 16 bits.
    """
    photons, shape = SHOT[severity - 1], images.shape[1:]
    levels = (images.contiguous() * LEVELS**2).round()
    counts = _poisson(levels // LEVELS, photons / LEVELS, uniform(keys, 0, *shape))
    return (counts + _poisson(levels % LEVELS, photons / LEVELS**2, uniform(keys, 1, *shape))) / photons


def impulse_noise(images: Tensor, severity: int, keys: Tensor) -> Tensor:
    """Replace a share of the numbers, independently per channel, by 0 or 1 with equal chance."""
    share = IMPULSE[severity - 1]
    chance = uniform(keys, 0, *images.shape[1:])
    return torch.where(chance < share / 2, 0.0, torch.where(chance > 1 - share / 2, 1.0, images))


def _poisson(levels: Tensor, rate: float, chance: Tensor) -> Tensor:
    """Return the quantile at chance, in (0, 1), of the Poisson distribution with mean levels * rate."""
    table = _poisson_table(rate)
    found = torch.searchsorted(table.flatten().to(levels.device), levels + chance)
    return found - levels * table.shape[1]


@cache
def _poisson_table(rate: float) -> Tensor:
    """Return (levels, counts): level + P(count <= k) for the mean level * rate, ascending over the whole table."""
    most = LEVELS * rate
    counts = torch.arange(1, int(most + 8 * most**0.5 + 16), dtype=torch.float64)
    levels = torch.arange(LEVELS + 1, dtype=torch.float64)[:, None]
    return levels + torch.special.gammaincc(counts, levels * rate)

import numpy as np
import pytest
import scipy.stats
import torch

from muonlab.measure.corruptions import noise
from muonlab.measure.corruptions.draws import fold, uniform

KEYS = fold(torch.arange(8), 5)
NUM = 8 * 3 * 32 * 32


def flat(value):
    return torch.full((8, 3, 32, 32), value, dtype=torch.float64)


def assert_moments(sample, mean, variance, kurtosis=3.0):
    """Within five standard errors."""
    assert abs(sample.mean().item() - mean) < 5 * (variance / NUM) ** 0.5
    assert abs(sample.var().item() - variance) < 5 * variance * ((kurtosis - 1) / NUM) ** 0.5


@pytest.mark.parametrize("severity", range(1, 6))
def test_gaussian_noise_has_the_published_deviation(severity):
    deviation = (0.04, 0.06, 0.08, 0.09, 0.10)[severity - 1]
    assert_moments(noise.gaussian_noise(flat(0.5), severity, KEYS), 0.5, deviation**2)


@pytest.mark.parametrize("severity", range(1, 6))
@pytest.mark.parametrize("value", [1 / 3, 0.01])
def test_shot_noise_has_the_moments_of_photons(severity, value):
    photons = (500, 250, 100, 75, 50)[severity - 1]
    found = noise.shot_noise(flat(value), severity, KEYS)
    assert_moments(found, value, value / photons, kurtosis=3 + 1 / (value * photons))
    counts = found * photons
    assert (counts - counts.round()).abs().max() < 1e-9


def test_shot_noise_of_little_light_is_poissons_distribution():
    counts = (50 * noise.shot_noise(flat(0.03), 5, KEYS)).round().long().flatten()
    seen = torch.bincount(counts, minlength=7)[:7].numpy()
    expected = NUM * scipy.stats.poisson.pmf(np.arange(7), 1.5)
    scale = seen.sum() / expected.sum()
    assert scipy.stats.chisquare(seen, expected * scale).pvalue > 0.01


def test_black_has_no_photons():
    assert (noise.shot_noise(flat(0.0), 5, KEYS) == 0).all()


@pytest.mark.parametrize("rate", [500 / 256, 50 / 256, 50 / 65536])
def test_counts_are_scipys_quantiles(rate):
    levels = torch.arange(257.0, dtype=torch.float64).expand(8, -1)
    chance = uniform(KEYS, 0, 257)
    wanted = scipy.stats.poisson.ppf(chance.numpy(), levels.numpy() * rate)
    np.testing.assert_array_equal(noise._poisson(levels.contiguous(), rate, chance).numpy(), np.maximum(wanted, 0))


@pytest.mark.parametrize("severity", range(1, 6))
def test_impulse_noise_makes_the_published_share_black_or_white(severity):
    share = (0.01, 0.02, 0.03, 0.05, 0.07)[severity - 1]
    found = noise.impulse_noise(flat(0.3), severity, KEYS)
    for value in (0, 1):
        count = int((found == value).sum())
        assert scipy.stats.binomtest(count, NUM, share / 2).pvalue > 0.001
    assert set(found.unique().tolist()) == {0.0, 0.3, 1.0}


def test_impulses_of_a_severity_are_impulses_of_the_next():
    mild, strong = (noise.impulse_noise(flat(0.3), severity, KEYS) for severity in (2, 3))
    assert torch.equal(strong[mild != 0.3], mild[mild != 0.3])


def test_channels_have_noise_of_their_own():
    found = noise.gaussian_noise(flat(0.5), 3, KEYS)
    rows = found.transpose(0, 1).flatten(1)
    assert (torch.corrcoef(rows) - torch.eye(3)).abs().max() < 5 / rows.shape[1] ** 0.5

import colorsys
import math

import numpy as np
import pytest
import scipy.stats
import torch

from muonlab.measure.corruptions import noise, weather
from muonlab.measure.corruptions.draws import fold, uniform

KEYS = fold(torch.arange(12), 5)
NUM = 12 * 3 * 32 * 32
sizes_and_severities = pytest.mark.parametrize(
    ("size", "severity"), [((8, 8), 5), ((28, 28), 1), ((32, 32), 3), ((40, 33), 4), ((64, 64), 2)]
)


def flat(value, size=(32, 32), channels=3):
    return torch.full((12, channels, *size), value, dtype=torch.float64)


def images(*size):
    return torch.rand(12, *size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@sizes_and_severities
def test_snow_falls_on_an_image_and_on_its_rotation_alike(size, severity):
    found = weather.snow(flat(0.2, size, 1), severity, KEYS)
    torch.testing.assert_close(found, found.rot90(2, (2, 3)))


@pytest.mark.parametrize("severity", range(1, 6))
def test_snow_whitens_what_no_flake_meets_by_the_published_formula(severity):
    keep = (0.95, 0.9, 0.9, 0.85, 0.8)[severity - 1]
    colour = torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64)
    grey = 0.299 * 0.1 + 0.587 * 0.2 + 0.114 * 0.3
    found = weather.snow(colour.view(3, 1, 1).expand(12, 3, 32, 32), severity, KEYS)
    whitened = keep * colour + (1 - keep) * (1.5 * grey + 0.5)
    flakes = found - whitened.view(3, 1, 1)
    torch.testing.assert_close(flakes[:, 0], flakes[:, 2])
    assert flakes.min() > -1e-12
    assert severity > 2 or flakes.amin((1, 2, 3)).max() < 1e-3


def test_light_snow_has_as_many_flakes_as_the_normal_distribution_beyond_the_threshold():
    keys = fold(torch.arange(400), 2)
    found = weather.snow(torch.full((400, 1, 32, 32), 0.0, dtype=torch.float64), 2, keys) - 0.1 * 0.5
    # (flake, its rotation) times the mean of N(0.1, 0.2) where it is above 0.5, which is two deviations away
    tail, density = 0.5 * math.erfc(2 / math.sqrt(2)), math.exp(-2) / math.sqrt(2 * math.pi)
    expected = 2 * (0.1 * tail + 0.2 * density)
    flakes = 400 * 1024 * tail
    assert found.mean().item() == pytest.approx(expected, rel=5 / math.sqrt(flakes) + 0.02)


@sizes_and_severities
def test_frost_is_the_published_mixture_of_image_and_ice(size, severity):
    keep, amount = ((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.425), (0.75, 0.45))[severity - 1]
    picture = images(1, *size)
    ice = weather.frost(flat(0.0, size, 1), severity, KEYS) / amount
    torch.testing.assert_close(weather.frost(picture, severity, KEYS), keep * picture + amount * ice)
    assert ice.min() >= 0
    assert ice.max() <= 1 + 1e-12


def test_ice_is_sparse_and_of_each_image_its_own():
    ice = weather.ice(fold(torch.arange(100), 0), 32, 32)
    assert 0.11 < ice.mean() < 0.18
    assert (ice < 0.1).double().mean() > 0.4
    assert (ice > 0.7).double().mean() > 0.02
    rows = torch.corrcoef(ice.flatten(1)) - torch.eye(100)
    assert rows.abs().max() < 0.6
    assert rows.abs().mean() < 0.12


def plasma_by_loops(lots, decay):
    """Diamond-square, one place after the other."""
    side = len(lots)
    field = np.zeros((side, side))
    amplitude, step = 1.0, side
    while step >= 2:
        half = step // 2
        for y in range(0, side, step):
            for x in range(0, side, step):
                corners = [field[(y + b) % side, (x + a) % side] for a in (0, step) for b in (0, step)]
                field[y + half, x + half] = np.mean(corners) + amplitude * lots[y + half, x + half]
        for y in range(0, side, half):
            for x in range((y // half + 1) % 2 * half, side, step):
                around = [
                    field[(y + b) % side, (x + a) % side] for a, b in ((half, 0), (-half, 0), (0, half), (0, -half))
                ]
                field[y, x] = np.mean(around) + amplitude * lots[y, x]
        amplitude, step = amplitude / decay**2, half
    return (field - field.min()) / (field.max() - field.min())


def test_plasma_is_diamond_square():
    decay = 1.75
    found = weather.plasma(KEYS[:2], 16, decay)
    lots = 2 * uniform(KEYS[:2], 0, 16, 16).numpy() - 1
    for k in range(2):
        np.testing.assert_allclose(found[k].numpy(), plasma_by_loops(lots[k], decay), atol=1e-12)


@sizes_and_severities
def test_fog_is_the_published_mixture(size, severity):
    amount = (0.2, 0.5, 0.75, 1, 1.5)[severity - 1]
    picture = images(3, *size)
    picture[:, 0, 0, 0] = 1
    clear = weather.fog(picture, severity, KEYS) * (1 + amount)
    haze = (clear - picture) / amount
    torch.testing.assert_close(haze, haze[:, :1].expand(-1, 3, -1, -1))
    assert haze.min() > -1e-12
    assert haze.max() < 1 + 1e-12
    assert (haze.amax((1, 2, 3)) - haze.amin((1, 2, 3))).min() > 0.3


@pytest.mark.parametrize("severity", range(1, 6))
def test_brightness_is_colorsys_and_of_grey_an_addition(severity):
    added = (0.05, 0.1, 0.15, 0.2, 0.3)[severity - 1]
    picture = images(3, 8, 8)[:1]
    picture[0, :, 0, 0] = 0
    picture[0, :, 0, 1] = 0.95
    found = weather.brightness(picture, severity, KEYS)
    for y, x in np.ndindex(8, 8):
        hue, saturation, value = colorsys.rgb_to_hsv(*picture[0, :, y, x].tolist())
        wanted = colorsys.hsv_to_rgb(hue, saturation, min(1, value + added))
        np.testing.assert_allclose(found[0, :, y, x].numpy(), wanted, atol=1e-12)
    torch.testing.assert_close(weather.brightness(flat(0.4, (8, 8), 1), 5, KEYS), flat(0.7, (8, 8), 1))
    torch.testing.assert_close(weather.brightness(flat(0.9, (8, 8), 1), 5, KEYS), flat(1.0, (8, 8), 1))


# ---- noise


def assert_moments(sample, mean, variance, kurtosis=3.0):
    """Within five standard errors."""
    assert abs(sample.mean().item() - mean) < 5 * (variance / NUM) ** 0.5
    assert abs(sample.var().item() - variance) < 5 * variance * ((kurtosis - 1) / NUM) ** 0.5


@pytest.mark.parametrize("severity", range(1, 6))
def test_gaussian_noise_has_the_published_deviation(severity):
    deviation = (0.04, 0.06, 0.08, 0.09, 0.10)[severity - 1]
    assert_moments(noise.gaussian_noise(flat(0.5), severity, KEYS), 0.5, deviation**2)


@pytest.mark.parametrize(("severity", "value"), [(1, 0.01), (2, 1 / 3), (3, 1 / 3), (4, 0.01), (5, 0.01)])
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
    assert (noise.shot_noise(flat(0.0), 5, KEYS) == 0).all()


@pytest.mark.parametrize("severity", range(1, 6))
def test_impulse_noise_makes_the_published_share_black_or_white(severity):
    share = (0.01, 0.02, 0.03, 0.05, 0.07)[severity - 1]
    found = noise.impulse_noise(flat(0.3), severity, KEYS)
    for value in (0, 1):
        count = int((found == value).sum())
        assert scipy.stats.binomtest(count, NUM, share / 2).pvalue > 0.001
    assert set(found.unique().tolist()) == {0.0, 0.3, 1.0}
    mild, strong = (noise.impulse_noise(flat(0.3), severity, KEYS) for severity in (2, 3))  # impulses stay
    assert torch.equal(strong[mild != 0.3], mild[mild != 0.3])

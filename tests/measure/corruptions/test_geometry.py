import numpy as np
import pytest
import scipy.ndimage
import torch

from muonlab.measure.corruptions.geometry import (
    canvas,
    gaussian,
    resize,
    sample,
    scale_of,
    smooth,
    smoothing,
    spread,
    variance_of,
    zoom,
)


def images(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize(("size", "wide"), [((8, 8), (32, 32)), ((8, 16), (32, 64)), ((64, 48), (43, 32))])
def test_the_canvas_has_a_shorter_side_of_32(size, wide):
    assert canvas(images(1, 1, *size)) == wide
    assert scale_of(images(1, 1, *size)) == min(size) / 32


@pytest.mark.parametrize(("padding", "mode"), [("border", "nearest"), ("reflection", "mirror")])
def test_sample_is_scipys_bilinear_interpolation(padding, mode):
    picture = images(2, 1, 9, 14)
    y, x = 20 * images(2, 9, 14) - 5, 20 * images(3, 9, 14)[1:] - 3
    found = sample(picture, y, x, padding)
    for k in range(2):
        wanted = scipy.ndimage.map_coordinates(picture[k, 0].numpy(), [y[k].numpy(), x[k].numpy()], order=1, mode=mode)
        np.testing.assert_allclose(found[k, 0].numpy(), wanted, atol=1e-12)


@pytest.mark.parametrize("factor", [1.0, 1.13, 2.25])
def test_zoom_is_scipys_affine_transform_about_the_middle(factor):
    picture = images(1, 1, 10, 15)
    middle = np.array([4.5, 7.0])
    matrix = np.eye(2) / factor
    wanted = scipy.ndimage.affine_transform(
        picture[0, 0].numpy(), matrix, offset=middle - matrix @ middle, order=1, mode="nearest"
    )
    np.testing.assert_allclose(zoom(picture, factor)[0, 0].numpy(), wanted, atol=1e-12)


@pytest.mark.parametrize(("sigma", "truncate"), [(0.05, 4), (0.4, 4), (1.3, 3), (6.4, 3)])
@pytest.mark.parametrize("boundary", ["nearest", "reflect"])
def test_smooth_is_scipys_gaussian_filter(sigma, truncate, boundary):
    picture = images(2, 13, 32)
    wanted = scipy.ndimage.gaussian_filter(picture.numpy(), sigma, axes=(1, 2), truncate=truncate, mode=boundary)
    np.testing.assert_allclose(smooth(picture, smoothing(sigma, truncate), boundary).numpy(), wanted, atol=1e-12)


@pytest.mark.parametrize("step", [0.25, 0.875, 1.0, 2.5])
def test_spread_keeps_the_sum_and_moves_each_tap(step):
    matrix = spread(3, step)
    reach = len(matrix) // 2
    offsets = torch.arange(-reach, reach + 1, dtype=torch.float64)
    torch.testing.assert_close(matrix.sum(0), torch.ones(7, dtype=torch.float64))
    torch.testing.assert_close(offsets @ matrix, step * torch.arange(-3, 4, dtype=torch.float64))
    assert ((matrix > 0).sum(0) <= 2).all()


def test_taps_drawn_together_blur_less_in_proportion_when_they_were_neighbours():
    kernel = gaussian(0.6, 1)
    assert variance_of(spread(1, 0.25) @ kernel) == pytest.approx(0.25 * variance_of(kernel))
    assert variance_of(kernel) == pytest.approx(float(2 * kernel[0]))


def test_a_smaller_layer_holds_the_mean_of_what_was_there():
    layer = images(1, 1, 32, 32)
    assert resize(layer, (8, 8)).mean().item() == pytest.approx(layer.mean().item(), abs=0.01)
    assert resize(layer, (8, 8)).std() < 0.4 * layer.std()
    assert resize(layer, (32, 32)) is layer

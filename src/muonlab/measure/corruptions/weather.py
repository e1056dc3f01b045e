"""Snow, frost, fog, bright light.

Constants of CIFAR-C (arXiv 1903.12261, create_c/make_cifar_c.py), unless said to be ours. What falls on the image
is drawn on a canvas of at least 32 pixels a side, and averaged down for smaller images.
"""

import math

import torch
from torch import Tensor

from muonlab.measure.corruptions.blur import smear
from muonlab.measure.corruptions.draws import normal, uniform
from muonlab.measure.corruptions.geometry import canvas, resize, scale_of, size_of, zoom

# Mean and standard deviation of the flakes' field, enlargement, threshold, radius and sigma of their fall, share of the
# image that is not whitened
SNOW = (
    (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
    (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
    (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
    (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
    (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
)
# Weights of image and ice. Published for 4 is (.85, .4): no farther than 3 from a dark image. Its .425 is ours.
FROST = ((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.425), (0.75, 0.45))
FOG = ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75))  # amount, decay of the finer structure
BRIGHTNESS = (0.05, 0.1, 0.15, 0.2, 0.3)  # added to the value of hue, saturation, value
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
ICE_COLOUR = (0.88, 0.95, 1.0)  # ours
NUM_STARS = 4  # ours, on a square


def snow(images: Tensor, severity: int, keys: Tensor) -> Tensor:
    """Whiten, and add falling flakes and their rotation by 180 degrees. Flakes and their fall are lengths."""
    mean, deviation, enlargement, threshold, radius, sigma, keep = SNOW[severity - 1]
    flakes = zoom(mean + deviation * normal(keys, 0, 1, *canvas(images)), enlargement)
    flakes = resize(flakes.where(flakes >= threshold, 0).clamp_(max=1), size_of(images))
    angle = -(0.25 + 0.5 * uniform(keys, 1)) * math.pi
    flakes = smear(flakes, radius, sigma, angle)
    white = torch.maximum(images, 1.5 * grey(images) + 0.5)
    return keep * images + (1 - keep) * white + flakes + flakes.rot90(2, (2, 3))


def frost(images: Tensor, severity: int, keys: Tensor) -> Tensor:
    """Add ice, weighted, to the image, weighted. The sizes of the ice are lengths.

    The original crops photographs of frost; here the ice is drawn.
    """
    keep, amount = FROST[severity - 1]
    layer = resize(ice(keys, *_layer_size(images)), size_of(images))
    colour = images.new_tensor(ICE_COLOUR if images.shape[1] == 3 else (1.0,))
    return keep * images + amount * layer * colour[:, None, None]


def ice(keys: Tensor, height: int, width: int) -> Tensor:
    """Return frost on glass (N, 1, height, width) in [0, 1].

    Six-armed stars, as ice crystals grow, with side branches at 60 degrees that shorten towards the arms' ends, over a
    thin veil of smooth noise. Dark between the stars, 0.15 on average: a bright texture would compensate for the
    image's loss of weight, and a higher severity could be nearer to the clean image.
    """
    side = min(height, width)
    num = round(NUM_STARS * height * width / side**2)
    lots = uniform(keys, 0, num, 4)[..., None, None]  # (N, stars, 4, 1, 1)
    y = torch.arange(height, dtype=lots.dtype, device=keys.device)[:, None]
    x = torch.arange(width, dtype=lots.dtype, device=keys.device)[None, :]
    layer = torch.zeros(len(keys), height, width, dtype=lots.dtype, device=keys.device)
    for star in range(num):
        top, left, turn, long = lots[:, star].unbind(1)
        drawn = _star((y - top * height) / side, (x - left * width) / side, turn, 0.15 + 0.25 * long)
        layer = torch.maximum(layer, drawn)
    veil = resize(uniform(keys, 1, 1, 5, 5), (height, width)) ** 2
    return (layer[:, None] + 0.12 * veil).clamp_(max=1)


def _star(y: Tensor, x: Tensor, turn: Tensor, radius: Tensor) -> Tensor:
    """Return a star's brightness at places relative to its middle; its turn is a share of a full one."""
    distance, angle = torch.hypot(y, x), torch.atan2(y, x) + 2 * math.pi * turn
    angle = (angle + math.pi / 6) % (math.pi / 3) - math.pi / 6  # to the nearest arm
    along, across = distance * angle.cos(), distance * angle.sin().abs()
    left = (1 - along / radius).clamp_(min=0)  # 1 at the middle, 0 at the end of an arm
    arm = torch.exp(-((across / 0.018) ** 2))
    branch = torch.cos(math.pi / 0.09 * (along - across / math.sqrt(3))) ** 16 * (across < 0.4 * radius * left)
    return left.sqrt() * torch.maximum(arm, 0.6 * branch)


def fog(images: Tensor, severity: int, keys: Tensor) -> Tensor:
    """Add a fractal haze, then darken so that the brightest number stays what it was; sizes follow the image's side."""
    amount, decay = FOG[severity - 1]
    height, width = _layer_size(images)
    layer = plasma(keys, max(height, width), decay)[:, None, :height, :width]
    layer = resize(layer, size_of(images))
    brightest = images.amax((1, 2, 3), keepdim=True)
    return (images + amount * layer) * brightest / (brightest + amount)


def plasma(keys: Tensor, side: int, decay: float) -> Tensor:
    """Return fractal noise (N, S, S), 0 to 1, by the diamond-square algorithm on a torus, S a power of 2 from side up.

    Amplitudes shrink by the square of decay from one level to the next: the published program multiplies its amplitude
    into noise of that same amplitude.
    """
    side = 2 ** math.ceil(math.log2(side))
    lots = 2 * uniform(keys, 0, side, side) - 1
    field = torch.zeros_like(lots)
    amplitude, step = 1.0, side
    while step >= 2:
        half = step // 2
        corners = field[:, ::step, ::step]
        pairs = corners + corners.roll(-1, 1)
        centres = (pairs + pairs.roll(-1, 2)) / 4 + amplitude * lots[:, half::step, half::step]
        above = (corners + corners.roll(-1, 2) + centres + centres.roll(1, 1)) / 4
        left = (pairs + centres + centres.roll(1, 2)) / 4
        field[:, half::step, half::step] = centres
        field[:, ::step, half::step] = above + amplitude * lots[:, ::step, half::step]
        field[:, half::step, ::step] = left + amplitude * lots[:, half::step, ::step]
        amplitude, step = amplitude / decay**2, half
    field -= field.amin((1, 2), keepdim=True)
    return field / field.amax((1, 2), keepdim=True)


def brightness(images: Tensor, severity: int, keys: Tensor) -> Tensor:
    """Add to the value of hue, saturation, value, at most up to 1; no lengths.

    A colour whose largest channel v becomes w is multiplied by w / v; black becomes grey.
    """
    value = images.amax(1, keepdim=True)
    raised = (value + BRIGHTNESS[severity - 1]).clamp_(max=1)
    return torch.where(value > 0, images * (raised / value.where(value > 0, 1)), raised)


def grey(images: Tensor) -> Tensor:
    """Return the luminance (N, 1, H, W)."""
    if images.shape[1] == 1:
        return images
    return (images * images.new_tensor(LUMA)[:, None, None]).sum(1, keepdim=True)


def _layer_size(images: Tensor) -> tuple[int, int]:
    return canvas(images) if scale_of(images) < 1 else size_of(images)

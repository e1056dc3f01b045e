"""Images a second of each image corruption, beside loops over images in numpy, scipy and Pillow, and a small ResNet.

python benchmarks/corruptions.py [--batch 256] [--severity 3] [--json]
"""

import argparse
import io
import json
import time
from collections.abc import Callable

import numpy as np
import scipy.ndimage
import torch
import torch.nn.functional as F
from optimizer.machine import machine
from PIL import Image
from torch import Tensor, nn

from muonlab.measure.corrupt_images import CORRUPTIONS, corrupt, image_seeds
from muonlab.measure.corruptions import blur, digital, jpeg, noise

SHAPES = ((3, 32, 32), (1, 28, 28))
NUM_ROUNDS = 5


class Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.second = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norms = nn.ModuleList([nn.BatchNorm2d(outputs), nn.BatchNorm2d(outputs)])
        self.short = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        inner = F.relu(self.norms[0](self.first(x)))
        return F.relu(self.norms[1](self.second(inner)) + self.short(x))


def resnet20(channels: int) -> nn.Module:
    """Return the 20 layers that arXiv 1512.03385 trains on CIFAR-10: 41 million multiplications a colour image."""
    layers: list[nn.Module] = [nn.Conv2d(channels, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    width = 16
    for wider in (16, 32, 64):
        layers += [Block(width, wider, 1 if wider == 16 else 2), Block(wider, wider, 1), Block(wider, wider, 1)]
        width = wider
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)).eval()


def loops(severity: int, shape: tuple[int, ...]) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """Return corruptions of one image (C, H, W), each as a program without batches would write it."""
    rng = np.random.default_rng(0)
    height, width = shape[1:]
    kernel = blur.defocus_kernel(severity, min(height, width) / 32).numpy()
    strength, sigma = (32 * share for share in digital.ELASTIC[severity - 1])

    def elastic(image: np.ndarray) -> np.ndarray:
        shift = [
            strength * scipy.ndimage.gaussian_filter(rng.uniform(-1, 1, (height, width)), sigma, truncate=3)
            for _ in range(2)
        ]
        place = np.mgrid[:height, :width] + np.stack(shift)
        return np.stack([scipy.ndimage.map_coordinates(each, place, order=1, mode="mirror") for each in image])

    def zoom(image: np.ndarray) -> np.ndarray:
        middle = (np.array([height, width]) - 1) / 2
        factors = 1 + np.arange(blur.ZOOM[severity - 1] + 1) / 100
        total = image.copy()
        for factor in factors:
            for channel, each in enumerate(image):
                total[channel] += scipy.ndimage.affine_transform(
                    each, [1 / factor] * 2, middle - middle / factor, order=1, mode="nearest"
                )
        return total / (len(factors) + 1)

    def encode(image: np.ndarray) -> np.ndarray:
        file = io.BytesIO()
        levels = np.round(255 * image).astype(np.uint8).transpose(1, 2, 0)
        Image.fromarray(levels.squeeze()).save(file, "JPEG", quality=jpeg.QUALITY[severity - 1])
        return np.asarray(Image.open(file)) / 255

    return {
        "gaussian_noise": lambda image: np.clip(
            image + rng.normal(scale=noise.GAUSSIAN[severity - 1], size=image.shape), 0, 1
        ),
        "shot_noise": lambda image: np.clip(
            rng.poisson(image * noise.SHOT[severity - 1]) / noise.SHOT[severity - 1], 0, 1
        ),
        "defocus_blur": lambda image: np.stack(
            [scipy.ndimage.correlate(each, kernel, mode="mirror") for each in image]
        ),
        "zoom_blur": zoom,
        "elastic_transform": elastic,
        "jpeg_compression": encode,
    }


def rate(run: Callable[[], object], num: int) -> float:
    """Return images a second of the processor's own time, the median over rounds after one to warm up."""
    run()
    seconds = []
    for _ in range(NUM_ROUNDS):
        start = time.process_time()
        run()
        seconds.append(time.process_time() - start)
    return num / sorted(seconds)[NUM_ROUNDS // 2]


def measure(shape: tuple[int, ...], num: int, severity: int) -> dict[str, dict[str, float]]:
    images = torch.rand(num, *shape, generator=torch.Generator().manual_seed(0))
    images = F.avg_pool2d(F.pad(images, (1, 1, 1, 1), mode="reflect"), 3, 1)
    seeds, single = image_seeds(0, range(num)), images.double().numpy()
    net = resnet20(shape[0])
    with torch.no_grad():
        found = {"ResNet-20 forward": {"ours": rate(lambda: net(images), num)}}
    for name in CORRUPTIONS:
        found[name] = {"ours": rate(lambda name=name: corrupt(images, name, severity, seeds=seeds), num)}
    for name, function in loops(severity, shape).items():
        found[name]["loop"] = rate(lambda function=function: [function(image) for image in single], num)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--severity", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = {"x".join(map(str, reversed(shape))): measure(shape, options.batch, options.severity) for shape in SHAPES}
    if options.json:
        print(json.dumps({"environment": machine("cpu", 1), **vars(options), "rates": found}, indent=1))
        return
    print(f"images a second, one thread, batches of {options.batch}, severity {options.severity}, n = {NUM_ROUNDS}")
    for shape, rates in found.items():
        print(f"\n{shape:20}{'batched':>10}{'a loop':>10}")
        for name, each in rates.items():
            loop = f"{each['loop']:10.0f}" if "loop" in each else ""
            print(f"{name:20}{each['ours']:10.0f}{loop}")
        mean = len(CORRUPTIONS) / sum(1 / rates[name]["ours"] for name in CORRUPTIONS)
        print(f"{'all fifteen':20}{mean:10.0f}   {mean / rates['ResNet-20 forward']['ours']:.2f} of the ResNet's")


if __name__ == "__main__":
    main()

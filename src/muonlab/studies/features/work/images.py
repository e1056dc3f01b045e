"""Images of half of the classes to pretrain on and be probed with, of the other half to transfer to."""

from functools import cached_property, partial

import torch

from muonlab.data import images
from muonlab.data.images import Images
from muonlab.data.sources import DataError
from muonlab.measure.corrupt_images import CORRUPTIONS
from muonlab.nets.resnet import ResNet
from muonlab.nets.vit import ViT
from muonlab.studies.features.config import CNNConfig, Family, ImageData, ViTConfig
from muonlab.studies.features.work.material import DATA_SEED, Probing, Set, Sheet, Task
from muonlab.studies.features.work.pictures import Part, Pictures, Scaling


class ImageMaterial:
    """What the nets of an image family are trained, probed and corrupted on.

    Images are standardised by mean and deviation of the channels of the pretraining images, downstream too, as the
    pretrained weights expect it. They are corrupted before.

    Raises:
        DataError: what is wrong with the files or the choice of classes.
    """

    corruptions = CORRUPTIONS

    def __init__(self, family: Family):
        assert isinstance(family.data, ImageData)
        assert isinstance(family.net, CNNConfig | ViTConfig)
        self._net, self._data = family.net, family.data
        data = self._data
        wanted = None if data.classes is None or data.transfer_classes is None else self._wanted()
        # Every class once; a limit applies to each.
        self._all = images.load(
            data.source,
            test=data.test,
            size=data.size,
            classes=wanted,
            per_class=data.per_class,
            test_per_class=data.test_per_class,
            seed=DATA_SEED,
        )
        number = len(self._all.classes)
        if data.classes is None and data.transfer_classes is None and number < 4:
            raise DataError(
                f"{data.source} has {number} classes; expected 4 or more, as half of them are pretrained on and the "
                "others transferred to; give images of more classes"
            )
        if self._all.images.shape[-1] != self._all.images.shape[-2]:
            height, width = self._all.images.shape[-2:]
            raise DataError(f"{data.source} has images of {height} x {width}; expected squares: give size=SIDE")
        if both := sorted({*self._own} & {*self._other}):
            raise DataError(f"classes and transfer_classes both have {', '.join(both)}; give a class to one of them")

    def _wanted(self) -> tuple[str, ...]:
        data = self._data
        return tuple(dict.fromkeys((*(data.classes or ()), *(data.transfer_classes or ()))))

    @property
    def notes(self) -> tuple[str, ...]:
        """What was read, and what was left out."""
        return (str(self._all), f"pretrained on {', '.join(self._own)}; transferred to {', '.join(self._other)}")

    @property
    def _own(self) -> tuple[str, ...]:
        names, others = self._all.classes, self._data.transfer_classes
        if self._data.classes is not None:
            return self._data.classes
        return names[: len(names) // 2] if others is None else tuple(name for name in names if name not in others)

    @property
    def _other(self) -> tuple[str, ...]:
        if self._data.transfer_classes is not None:
            return self._data.transfer_classes
        return tuple(name for name in self._all.classes if name not in self._own)

    @cached_property
    def _pretrained_on(self) -> Pictures:
        return self._pictures(images.subset(self._all, classes=self._own))

    def _pictures(self, chosen: Images, scaling: Scaling | None = None) -> Pictures:
        data = self._data
        return Pictures(chosen, validation=data.validation, test_share=data.test_share, scaling=scaling)

    def pretraining(self) -> Task:
        """Return the classification of the first half of the classes."""
        return self._task(self._pretrained_on, self._pretrained_on.parts)

    def transfer(self, task: str) -> Task:
        """Return the classification of the other half of the classes."""
        chosen = (
            images.subset(self._all, classes=self._other, per_class=self._data.transfer_per_class, seed=DATA_SEED)
            if bool(self._all.is_test.any())
            else images.subset(self._all, classes=self._other)
        )
        pictures = self._pictures(chosen, self._pretrained_on.scaling)
        return self._task(pictures, self._few(pictures.parts))

    def _few(self, parts: list[Part]) -> list[Part]:
        """Return the parts with no more training images of a class than asked for, if the source has no test set."""
        limit = self._data.transfer_per_class
        if limit is None or bool(self._all.is_test.any()):
            return parts
        pixels, labels, rows = parts[0]
        if labels.bincount().min() < limit:
            raise DataError(
                f"transfer_per_class={limit}, but {self._data.source} leaves only {labels.bincount().min()} images of "
                "some class to fine-tune on; ask for at most that many"
            )
        kept = torch.cat([(labels == label).nonzero().squeeze(1)[:limit] for label in labels.unique()])
        kept = kept.sort().values
        return [Part(pixels[kept], labels[kept], rows[kept]), *parts[1:]]

    def _task(self, pictures: Pictures, parts: list[Part]) -> Task:
        sets, chosen = pictures.sets(parts), pictures.images
        build = partial(build_net, self._net, len(chosen.classes), tuple(chosen.images.shape[1:]))
        return Task(sets.train, sets.validation, sets.test, sets.chance, build)

    def probing(self) -> Probing:
        """Return the images of pretraining."""
        task = self.pretraining()
        if isinstance(self._net, CNNConfig):
            pool = "mean_pixels"
        else:
            pool = "cls" if getattr(self._net, "pooling", "") == "class" else "mean_tokens"
        return Probing(task.train, task.validation, task.test, pool, rank_pool=pool)

    def corrupted(self, name: str, severity: int, number: int) -> tuple[Set, Set]:
        """Return the first test images of pretraining under a corruption, twice: they are probed with too."""
        found = self._pretrained_on.corrupted(name, severity, number)
        return found, found

    def sheet(self) -> Sheet:
        """Return the first test image under every corruption."""
        return self._pretrained_on.sheet()


def build_net(net: CNNConfig | ViTConfig, classes: int, shape: tuple[int, ...]) -> torch.nn.Module:
    """Return the net for images (C, H, W)."""
    channels, size, _ = shape
    fields = net.model_dump(exclude={"kind"})
    make = ResNet if isinstance(net, CNNConfig) else ViT
    return make(classes, channels=channels, image_size=size, **fields)

import re

import numpy as np
import pytest

from muonlab.studies.features.config import Family, ImageData, ViTConfig
from muonlab.studies.features.work.trial import check


def try_out(family, *tasks):
    check(family=family.model_dump(mode="json"), tasks=tasks)


def test_what_fits_passes(make_family):
    try_out(make_family(), "classes")
    try_out(make_family("gpt"), "classes", "language")


@pytest.mark.parametrize(
    ("kind", "data", "message"),
    [
        ("cnn", {"source": "nowhere"}, "cnn on digits: there is no file or folder 'nowhere'"),
        (
            "cnn",
            {"transfer_per_class": 1000},
            "cnn on digits: images.transfer_per_class=1000, but .* leaves only",
        ),
        ("gpt", {"length": 1000, "limit": 11000}, "gpt on .*length=1000"),
        ("gpt", {"transfer_limit": 50}, "gpt on "),
    ],
)
def test_what_only_a_later_job_would_find_is_said_with_the_family(make_family, kind, data, message):
    tasks = ("classes",) if kind == "cnn" else ("classes", "language")
    with pytest.raises(ValueError, match=message):
        try_out(make_family(kind, data=data), *tasks)


@pytest.mark.parametrize(
    ("kind", "data", "named"),
    [
        ("cnn", {"per_class": 100_000}, "images.per_class=100000, but"),
        ("cnn", {"transfer_per_class": 1000}, "images.transfer_per_class=1000, but"),
        ("cnn", {"classes": ("0",)}, "images.classes=0 has one class"),
        ("gpt", {"per_class": 100_000}, "text.per_class=100000, but"),
    ],
)
def test_settings_are_named_as_they_are_given(make_family, kind, data, named):
    with pytest.raises(ValueError, match=re.escape(named)):
        try_out(make_family(kind, data=data), "classes")


def test_a_patch_that_does_not_divide_images_is_named_as_it_is_given(make_family, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (80, 9, 9), dtype=np.uint8)
    np.savez(tmp_path / "odd.npz", images=pixels, labels=np.arange(80) % 4)
    family = Family(net=ViTConfig(), data=ImageData(name="odd", source=str(tmp_path / "odd.npz")))
    with pytest.raises(ValueError, match=r"vit on odd: image_size=9 is not a multiple of vit\.patch=2"):
        try_out(family, "classes")

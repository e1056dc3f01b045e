"""Limits on examples per class: upper bounds in a preset, exact where a user gives them."""

import numpy as np
import pytest
from PIL import Image

from muonlab.studies.features.jobs import trials
from muonlab.studies.features.plan import plan
from muonlab.studies.features.work.job import check


def _folders(place, number, classes="abcd"):
    rng = np.random.default_rng(0)
    for name in classes:
        (place / name).mkdir(parents=True)
        for k in range(number):
            Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)).save(place / name / f"{k}.png")
    return place


# Bug: a preset's counts were asked of every folder, and no value turned them off.
def test_a_presets_counts_are_upper_bounds_and_those_of_a_user_are_exact(tmp_path):
    place = _folders(tmp_path / "pictures", 12)
    own = {"families": "cnn", "images": str(place)}

    def tried(**given):
        asked = plan("real", {**own, **given})
        return [note for _, arguments in trials(asked) for note in check(**arguments)]

    said = f"{place} has 12 examples of some class and no test set: images.per_class=1500 and images.test_per_class=200"
    assert tried() == [f"{said} of the preset are upper bounds"]
    assert tried(**{"images.per_class": "all", "images.test_per_class": "all"}) == []
    for key, message in (
        ("images.per_class", r"images.per_class=13, but .*pictures has only 12 examples of class 'a'"),
        ("images.test_per_class", r"images.test_per_class=13, but .*pictures has no test set; leave it out"),
        ("images.transfer_per_class", r"images.transfer_per_class=13, but .*pictures leaves only 7 images"),
    ):
        with pytest.raises(ValueError, match=message):
            tried(**{key: "13"})

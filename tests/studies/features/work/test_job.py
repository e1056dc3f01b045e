"""A job from its config to its result, and the trial of a family before anything runs."""

import re

import numpy as np
import pytest

from muonlab.data.sources import DataError
from muonlab.jobs.files import read_json
from muonlab.studies.features.config import AdamW, Family, ImageData, Measure, Training, Transfer, ViTConfig
from muonlab.studies.features.work import job


def test_a_finished_job_is_read_and_not_done_again(make_pretrain, run, tmp_path, monkeypatch):
    config = make_pretrain(training={"budget": 1})
    first = run(config, tmp_path)
    before = (tmp_path / "result.json").read_bytes()
    monkeypatch.setattr(job.material, "read", lambda *_: pytest.fail("done again"))
    assert run(config, tmp_path) == first == read_json(tmp_path / "result.json")
    assert (tmp_path / "result.json").read_bytes() == before


def test_a_config_or_data_that_are_wrong_are_no_result(make_pretrain, make_family, run, tmp_path):
    with pytest.raises(ValueError, match=r"pretrain\.rates"):
        job.run(config=make_pretrain().model_dump(mode="json") | {"rates": [-1]}, folder=str(tmp_path / "job"))
    assert not (tmp_path / "job").exists()
    with pytest.raises(DataError, match="there is no file or folder"):
        run(make_pretrain(make_family(data={"source": str(tmp_path / "none")})), tmp_path / "job")
    assert not (tmp_path / "job" / "result.json").exists()


def test_each_kind_of_job_is_done_by_its_own(pretrained, make_family, make_state, few, run):
    family, states = make_family(), (make_state(seeds=(0,), steps=(40,)),)
    seen = []
    measured = run(
        Measure(family=family, weights=pretrained.name, seeds=(0, 1), states=states, looks=(40,), measuring=few),
        pretrained.parent / "by job, measured",
        report=seen.append,
    )
    assert [model["seed"] for model in measured["models"]] == [0]
    assert not {"controls", "sheet"} & measured.keys()
    assert [event["step"] for event in seen] == sorted(event["step"] for event in seen)
    assert seen[-1] == {"step": seen[-1]["budget"], "budget": seen[-1]["budget"], "alive": 1}
    transferred = run(
        Transfer(family=family, task="classes", seeds=(5,), optimizer=AdamW(), training=Training(budget=1), rates=(1,)),
        pretrained.parent / "by job, transferred",
    )
    assert [member["seed"] for member in transferred["members"]] == [5]


# -- the trial -------------------------------------------------------------------------------------


def try_out(family):
    tasks = ("classes",) if family.data.kind == "images" else ("classes", "language")
    job.check(family=family.model_dump(mode="json"), tasks=tasks)


@pytest.mark.parametrize("kind", ["cnn", "gpt"])
def test_what_fits_passes(make_family, kind):
    try_out(make_family(kind))


@pytest.mark.parametrize(
    ("kind", "data", "named"),
    [
        ("cnn", {"source": "nowhere"}, "cnn on digits: there is no file or folder 'nowhere'"),
        ("cnn", {"per_class": 100_000}, "images.per_class=100000, but"),
        ("cnn", {"transfer_per_class": 1000}, "images.transfer_per_class=1000, but"),
        ("cnn", {"classes": ("0",)}, "images.classes=0 has one class"),
        ("gpt", {"per_class": 100_000}, "text.per_class=100000, but"),
        ("gpt", {"length": 1000, "limit": 11000}, "length=1000"),
        ("gpt", {"transfer_limit": 50}, "gpt on "),
    ],
)
def test_what_only_a_later_job_would_find_is_said_as_it_is_given(make_family, kind, data, named):
    with pytest.raises(ValueError, match=re.escape(named)):
        try_out(make_family(kind, data=data))


def test_a_patch_that_does_not_divide_images_is_named_as_it_is_given(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (80, 9, 9), dtype=np.uint8)
    np.savez(tmp_path / "odd.npz", images=pixels, labels=np.arange(80) % 4)
    family = Family(net=ViTConfig(), data=ImageData(name="odd", source=str(tmp_path / "odd.npz")))
    with pytest.raises(ValueError, match=r"vit on odd: image_size=9 is not a multiple of vit\.patch=2"):
        try_out(family)

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from muonlab.nets import gpt, prenorm, resnet, vit
from muonlab.studies.features.config import (
    CNNConfig,
    Family,
    GPTConfig,
    ImageData,
    Measure,
    Pretrain,
    State,
    TextData,
    Training,
    Transfer,
    ViTConfig,
    read,
)
from muonlab.study.optimizers import AdamW, Muon

IMAGES = ImageData(name="digits", source="digits")
TEXT = TextData(name="words", source="a.txt", transfer_source="b.txt", examples="c.txt")
CNN = Family(net=CNNConfig(), data=IMAGES)
STATE = State(name="final", seeds=(0,), steps=(3,))
JOBS = (
    Pretrain(family=CNN, optimizer=Muon(), training=Training(), rates=(0.1, 0.2), seeds=(0, 4), keep=True),
    Measure.model_validate(
        {"family": CNN, "weights": "a", "seeds": (0,), "states": (STATE,), "looks": (0, 3), "measuring": {}}
    ),
    Transfer(family=Family(net=GPTConfig(), data=TEXT), task="language", seeds=(1,), optimizer=AdamW(), rates=(1.0,)),
    Transfer(family=Family(net=ViTConfig(), data=IMAGES), task="classes", seeds=(1,), weights="a", mode="linear"),
)


@pytest.mark.parametrize("job", JOBS, ids=lambda job: f"{job.kind} {job.family.name}")
def test_a_job_is_read_back_from_its_json(job):
    assert read(job.model_dump(mode="json")) == job


@pytest.mark.parametrize(
    ("field", "value"),
    [("rates", []), ("rates", [-0.1]), ("seeds", [-1]), ("seeds", []), ("optimizer", {"name": "lion"}), ("sedes", [0])],
)
def test_a_value_that_is_not_allowed_is_named(field, value):
    config = JOBS[0].model_dump(mode="json") | {field: value}
    with pytest.raises(ValueError, match=rf"pretrain\.{field}"):
        read(config)


def test_an_unknown_kind_is_named_with_those_there_are():
    with pytest.raises(ValueError, match="'pretrain', 'measure', 'transfer'"):
        read(JOBS[0].model_dump(mode="json") | {"kind": "distil"})


@pytest.mark.parametrize(("net", "data"), [(GPTConfig(), IMAGES), (CNNConfig(), TEXT), (ViTConfig(), TEXT)])
def test_a_net_that_does_not_read_the_data_is_refused(net, data):
    with pytest.raises(ValueError, match=f"net {net.kind} does not read {data.kind}"):
        Family(net=net, data=data)


def test_a_job_cannot_be_changed():
    with pytest.raises(ValidationError, match="frozen"):
        JOBS[0].keep = False  # type: ignore[misc]


@given(budget=st.integers(1, 500), looks=st.integers(1, 200))
def test_looks_begin_at_zero_come_closer_together_at_the_start_and_end_at_the_budget(budget, looks):
    steps = Training(budget=budget, looks=looks).steps
    assert steps[0] == 0
    assert steps[-1] == budget
    gaps = [after - before for before, after in pairwise(steps)]
    assert min(gaps) > 0
    assert len(gaps) <= min(looks, budget)
    assert all(after >= before - 1 for before, after in pairwise(gaps))  # but for rounding
    if budget >= 4 * looks > 4:
        assert gaps[0] < gaps[-1]


@pytest.mark.parametrize(
    ("model", "field", "known"),
    [
        (CNNConfig, "norm", resnet.NORMS),
        (ViTConfig, "pooling", vit.POOLINGS),
        (ViTConfig, "positions", vit.POSITIONS),
        (GPTConfig, "norm", gpt.NORMS),
        (GPTConfig, "positions", gpt.POSITIONS),
        (GPTConfig, "feed_forward", tuple(prenorm.ACTIVATIONS)),
    ],
)
def test_the_schema_names_what_the_nets_offer(model, field, known):
    assert set(model.model_json_schema()["properties"][field]["enum"]) == set(known)


@pytest.mark.parametrize(
    ("make", "fields", "message"),
    [
        (CNNConfig, {"width": 12}, r"cnn.width=12 is not a multiple of cnn.groups=8, which a group norm needs"),
        (ViTConfig, {"width": 50}, r"vit.width=50 is not a multiple of vit.heads=3"),
        (ViTConfig, {"width": 54, "positions": "sincos"}, r"vit.width=54 is not a multiple of 4"),
        (GPTConfig, {"width": 66, "positions": "learned"}, r"gpt.width=66 is not a multiple of gpt.heads=4"),
        (GPTConfig, {"width": 68}, r"gpt.width=68 is not a multiple of 2 \* gpt.heads=8, which gpt.positions=rope"),
    ],
)
def test_parts_of_a_net_that_do_not_fit_are_named(make, fields, message):
    with pytest.raises(ValueError, match=message):
        make(**fields)


def test_what_one_option_needs_the_other_does_not():
    assert CNNConfig(width=12, norm="batch").width == 12
    assert ViTConfig(width=54).width == 54
    assert GPTConfig(width=68, positions="learned").width == 68


def test_patches_are_whole_where_the_side_is_known():
    net = ViTConfig(patch=4)
    assert Family(net=net, data=IMAGES).data.side == 8
    assert Family(net=net, data=ImageData(name="x", source="x")).data.side is None
    with pytest.raises(ValueError, match=r"images.size=30 is not a multiple of vit.patch=4"):
        Family(net=net, data=ImageData(name="x", source="x", size=30))
    with pytest.raises(ValueError, match=r"the side of digits=8 is not a multiple of vit.patch=16"):
        Family(net=ViTConfig(patch=16), data=IMAGES)

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from muonlab.runs.features import (
    AdamW,
    CNNConfig,
    Family,
    GPTConfig,
    ImageData,
    Pretrain,
    TextData,
    Training,
    ViTConfig,
    read,
)

DIGITS = ImageData(name="digits", source="digits")
TEXT = TextData(name="x", source="x", transfer_source="y", examples="z")


@given(st.integers(1, 10_000), st.integers(1, 200))
def test_looks_rise_from_none_to_the_budget_and_come_apart(budget, looks):
    steps = Training(budget=budget, looks=looks).steps
    assert (steps[0], steps[-1]) == (0, budget)
    assert list(steps) == sorted(set(steps))
    assert len(steps) <= looks + 1


def test_a_job_is_read_from_its_json():
    job = Pretrain(
        family=Family(net=CNNConfig(), data=DIGITS),
        optimizer=AdamW(),
        training=Training(),
        rates=(0.1,),
        seeds=(0, 1),
    )
    assert read(job.model_dump(mode="json")) == job
    with pytest.raises(ValidationError):
        read({**job.model_dump(mode="json"), "unknown": 1})


@pytest.mark.parametrize(("net", "data"), [(GPTConfig(), DIGITS), (CNNConfig(), TEXT), (ViTConfig(), TEXT)])
def test_a_net_reads_its_own_kind_of_data(net, data):
    with pytest.raises(ValueError, match="does not read"):
        Family(net=net, data=data)


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
    assert Family(net=net, data=DIGITS).data.side == 8
    assert Family(net=net, data=ImageData(name="x", source="x")).data.side is None
    with pytest.raises(ValueError, match=r"images.size=30 is not a multiple of vit.patch=4"):
        Family(net=net, data=ImageData(name="x", source="x", size=30))
    with pytest.raises(ValueError, match=r"the side of digits=8 is not a multiple of vit.patch=16"):
        Family(net=ViTConfig(patch=16), data=DIGITS)

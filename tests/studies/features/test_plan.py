"""What is asked, from settings and presets; and the configs that it consists of."""

import sys
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muonlab.jobs import store
from muonlab.nets import gpt, prenorm, resnet, vit
from muonlab.studies.features import KEYS, PRESETS, FeatureStudy, begin, outline, plan
from muonlab.studies.features.config import (
    AdamW,
    CNNConfig,
    Family,
    GPTConfig,
    ImageData,
    Measure,
    Muon,
    OwnNet,
    Pretrain,
    State,
    TextData,
    Training,
    Transfer,
    ViTConfig,
    read,
)
from muonlab.study.dotted import Dotted
from muonlab.study.settings import UsageError, written

FILES = {
    "images": "data/mnist",
    "text": "data/war_and_peace.txt",
    "transfer_text": "documentation",
    "examples": "data/TREC.train.all+data/TREC.test.all",
}
ALL = {"families": ["cnn", "vit", "gpt"], "optimizers": ["muon", "adamw", "sgd"]}
NET = """
from torch import nn

def build(classes, channels, image_size, width=4):
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * image_size**2, width), nn.Linear(width, classes))

def language(vocabulary, classes, padding): ...
"""


# -- families --------------------------------------------------------------------------------------


def test_every_family_is_a_net_with_a_set_of_data():
    study = plan("real", {**FILES, "images": ["data/mnist", "data/cifar10/train.zip+data/cifar10/test.zip"]})
    assert [each.name for each in study.families] == [
        *("cnn on mnist", "cnn on cifar10", "vit on mnist", "vit on cifar10", "gpt on war_and_peace")
    ]
    first, second, *_, text = (each.family.data for each in study.families)
    assert (first.source, first.test) == ("data/mnist", None)
    assert (second.source, second.test) == ("data/cifar10/train.zip", "data/cifar10/test.zip")
    assert isinstance(text, TextData)
    assert (text.examples, text.examples_test) == ("data/TREC.train.all", "data/TREC.test.all")
    assert [each.tasks for each in plan("tiny").families] == [("classes",), ("classes", "language")]


def test_one_other_text_serves_several_texts():
    texts = {"text": ["data/a.txt", "data/b.txt"], "transfer_text": ["data/b.txt", "data/a.txt"]}
    study = plan("real", {"families": "gpt", "examples": "data/TREC.train.all", **texts})
    data = [each.family.data for each in study.families]
    assert [(each.source, each.transfer_source, each.examples) for each in data] == [
        ("data/a.txt", "data/b.txt", "data/TREC.train.all"),
        ("data/b.txt", "data/a.txt", "data/TREC.train.all"),
    ]


@pytest.mark.parametrize(
    ("given", "budgets", "batches"),
    [
        ({"cnn.budget": 7}, [7, 240, 300], [32, 32, 16]),
        ({"budget": 7, "gpt.batch": 5}, [7, 7, 7], [32, 32, 5]),  # before what a preset has for one family
    ],
)
def test_a_familys_own_training_goes_before_that_of_all(given, budgets, batches):
    found = [each.training for each in plan("laptop", given).families]
    assert ([each.budget for each in found], [each.batch for each in found]) == (budgets, batches)


def test_optimizers_and_rates():
    study = plan("tiny", {"optimizers": ["adamw", "muon"], "muon.rates": ["0.1", "0.01", "1e-1"]})
    assert [type(each) for each in study.optimizers] == [AdamW, Muon]
    assert study.searches["muon"].rates == (0.01, 0.1)  # a rising grid without repeats


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A file minenet.py in the current folder, with nets of a user's own."""
    (tmp_path / "minenet.py").write_text(NET)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "minenet", raising=False)  # that of another test


def test_several_widths_and_budgets_are_cases_of_one_net():
    found = plan("tiny", {"cnn.width": [8, 16], "gpt.budget": [5, 6]}).families
    assert [(each.name, each.cluster, each.training.budget) for each in found] == [
        ("cnn on digits, width 8", "cnn on digits", 12),
        ("cnn on digits, width 16", "cnn on digits", 12),
        ("gpt on sources, 5 steps", "gpt on sources", 5),
        ("gpt on sources, 6 steps", "gpt on sources", 6),
    ]
    assert "axes" not in plan("tiny").families[0].model_dump()  # of studies that were asked before there were any
    with pytest.raises(UsageError, match="budget=9,9 names 9 twice"):
        plan("tiny", {"budget": [9, 9]})


@pytest.mark.usefixtures("mine")
def test_a_net_of_ones_own_stands_in_place_of_the_families_or_next_to_them():
    alone = plan("tiny", {"net": "minenet.py:build", "net.width": 6, "budget": 9})
    (family,) = alone.families
    assert (family.name, family.training.budget, family.family.data.kind) == ("build on digits", 9, "images")
    assert isinstance(family.family.net, OwnNet)
    assert (family.family.net.call.name, family.family.net.arguments) == ("minenet.py:build", {"width": 6})
    assert len(family.family.net.call.sha256 or "") == 64
    both = plan("tiny", {"net": "minenet.py:language", "families": "cnn"})
    assert [each.name for each in both.families] == ["cnn on digits", "language on sources"]  # it takes a vocabulary


def test_a_net_of_ones_own_may_be_given_as_the_function():
    (family,) = plan("tiny", {"net": resnet.ResNet}).families
    assert family.family.net.call.name == "muonlab.nets.resnet:ResNet"


@pytest.mark.usefixtures("mine")
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"net": "cnn"}, "net=cnn is not valid; expected package.module:attribute .* are families=cnn,vit,gpt"),
        ({"net": "minenet.py:biuld"}, "there is no 'biuld' in minenet.py; did you mean 'build'"),
        ({"net": "minenet.py:build", "net.widht": 3}, "net.widht has no effect: net=minenet.py:build does not take it"),
        ({"net": "minenet.py:build", "cnn.width": 8}, "cnn.width has no effect: the study has net=minenet.py:build"),
        ({"net": ["minenet.py:build", "minenet:build"]}, "two nets with their data are called 'build on digits'"),
        ({"net.width": 3}, "unknown setting 'net.width'"),
    ],
)
def test_a_net_that_cannot_be_is_one_message(settings, message):
    with pytest.raises(UsageError, match=message):
        plan("tiny", settings)


# -- every setting ---------------------------------------------------------------------------------

# For every key, a value that is not its default in any preset; other numbers are 11.
VALUES = written(
    """
    families=vit optimizers=sgd,muon seeds=7 search_seeds=3 extensions=1 matched=checkpoints images=data/mnist
    text=documentation transfer_text=sources examples=data/TREC.train.all schedule=cosine warmup=0.2 size=24 classes=1,2
    transfer_classes=3,4 validation=0.2 test_share=0.3 tokenizer=data/tokenizer.json depths=1,2 width=72 heads=4
    groups=2 patch=1 pooling=class positions=learned feed_forward=gelu bias=true tied=false norm=layer path_severity=5
    margin_severity=5 momentum=0.8 weight_decay=0.3 beta1=0.5 beta2=0.5 eps=1e-6 nesterov=true rates=0.02,0.07
    lr=0.02,0.07 cnn.norm=batch vit.positions=sincos vit.heads=6 gpt.heads=2 gpt.width=96 measure.examples=11
    muon.nesterov=false adamw_factor=3 coupled=true equilibrate=row renormalize=row hyperball=true decay=independent
    muon.variant=normuon
    """
)


@pytest.mark.parametrize("key", [key for key in KEYS if key != "net"])
def test_every_setting_changes_what_is_asked(key):
    chosen = {**ALL, key: VALUES.get(key, VALUES.get(key.rpartition(".")[2], ["11"]))}
    before, after = (plan("laptop", each).model_dump(exclude={"settings"}) for each in (ALL, chosen))
    assert before != after
    assert plan("laptop", chosen).settings[key] == chosen[key]


@pytest.mark.parametrize(
    ("preset", "settings", "message"),
    [
        ("laptpo", {}, r"unknown preset 'laptpo'; did you mean 'laptop'\?"),
        ("laptop", {"famlies": "cnn"}, r"unknown setting 'famlies'; did you mean 'families'\?"),
        ("laptop", {"optimizers": ["muon", "muon"]}, r"optimizers=muon,muon names muon twice"),
        ("laptop", {"patience": 3}, r"unknown setting 'patience'"),
        ("laptop", {"seeds": 0}, r"^seeds=0 is not valid; expected one whole number from 1 to 1000"),
        ("laptop", {"matched": "steps"}, r"^matched=steps is not valid; expected schedules or checkpoints"),
        ("laptop", {"extensions": -1}, r"^extensions=-1 is not valid; expected one whole number from 0 to 20"),
        ("laptop", {"muon.rates": 0.1}, r"^muon.rates=0.1 is not valid; expected two numbers or more, all above 0"),
        ("laptop", {"muon.momentum": 1}, r"^muon.momentum=1 is not valid; expected less than 1"),
        ("laptop", {"budget": 0}, r"^budget=0 is not valid; expected at least 1"),
        ("laptop", {"cnn.budget": 0}, r"^cnn.budget=0 is not valid; expected at least 1"),
        ("laptop", {"cnn.depths": [1, 0]}, r"^cnn.depths=0 is not valid; expected at least 1"),
        ("laptop", {"text.length": 2000}, r"^text.length=2000 is not valid; expected at most 1024"),
        # -- what does not fit together, before anything runs
        ("laptop", {"vit.width": 50}, r"^vit.width=50 is not a multiple of vit.heads=3, which attention needs"),
        ("laptop", {"vit.width": 54, "vit.positions": "sincos"}, r"^vit.width=54 is not a multiple of 4"),
        ("laptop", {"vit.patch": 3}, r"^the side of digits=8 is not a multiple of vit.patch=3"),
        ("laptop", {"images.size": 25}, r"^images.size=25 is not a multiple of vit.patch=2, which whole patches need"),
        ("laptop", {"gpt.width": 66}, r"^gpt.width=66 is not a multiple of gpt.heads=4, which attention needs"),
        ("laptop", {"gpt.width": 68, "gpt.positions": "rope"}, r"^gpt.width=68 is not a multiple of 2 \* gpt.heads=8"),
        ("laptop", {"cnn.width": 12}, r"^cnn.width=12 is not a multiple of cnn.groups=8, which a group norm needs"),
        # -- what is not there
        ("real", {}, r"preset=real trains on your files; give images=PATH"),
        ("real", {"families": "gpt", "text": "a.txt"}, r"give transfer_text=PATH"),
        ("real", {"families": "gpt", "text": "a.txt", "transfer_text": "b.txt"}, r"give examples=PATH"),
        (
            "real",
            {**FILES, "text": ["a.txt", "b.txt", "c.txt"], "transfer_text": ["d.txt", "e.txt"]},
            r"transfer_text has 2 values for 3 of text; expected one, or one for each",
        ),
        # -- what changes nothing
        ("laptop", {"families": "cnn", "gpt.depth": 2}, r"gpt.depth has no effect: the study has families=cnn"),
        ("laptop", {"families": "cnn", "examples": "x.csv"}, r"examples has no effect"),
        ("laptop", {"families": "gpt", "images": "digits"}, r"images has no effect: the study has families=gpt"),
        ("laptop", {"optimizers": "muon", "sgd.momentum": 0}, r"sgd.momentum has no effect: .* optimizers=muon"),
        ("laptop", {"families": "gpt", "budget": 9, "gpt.budget": 8}, r"budget has no effect: gpt.budget go"),
        ("laptop", {"cnn.norm": "batch", "cnn.groups": 4}, r"cnn.groups has no effect: cnn.norm=batch"),
    ],
)
def test_a_mistake_is_named_with_what_was_expected(preset, settings, message):
    with pytest.raises(UsageError, match=message):
        plan(preset, settings)


def test_the_same_study_comes_from_its_own_json_and_from_a_folder(tmp_path):
    asked = plan("tiny", {"seeds": 3})
    assert FeatureStudy.model_validate_json(asked.model_dump_json()) == asked
    begin(asked, tmp_path / "study")
    held = store.read(tmp_path / "study")
    assert (held.study, held.preset, held.settings) == ("features", "tiny", {"seeds": ["3"]})
    assert FeatureStudy.model_validate({**held.config, "preset": held.preset, "settings": held.settings}) == asked


# -- presets ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_is_a_study_in_which_optimizers_have_the_same_search(preset):
    study = plan(preset, {key: value for key, value in FILES.items() if key not in PRESETS[preset]})
    if preset != "tiny":
        assert {each.family.net.kind for each in study.families} == {"cnn", "vit", "gpt"}
        assert [each.name for each in study.optimizers] == ["muon", "adamw", "sgd"]
        assert study.seeds >= 5
    assert len({(len(search.rates), search.extensions) for search in study.searches.values()}) == 1
    for search in study.searches.values():
        ratios = [b / a for a, b in pairwise(search.rates)]
        assert ratios == pytest.approx([10**0.5] * len(ratios), rel=0.06)  # about logarithmic


def test_the_paper_preset_has_the_nets_that_the_paper_names():
    cnn, vit, gpt = (each.family.net for each in plan("paper", FILES).families)
    assert cnn.model_dump() | {"norm": "batch", "width": 64, "depths": (2, 2, 2, 2)} == cnn.model_dump()  # ResNet-18
    assert (vit.depth, vit.width, vit.heads, vit.patch, vit.pooling) == (12, 384, 6, 16, "class")  # ViT-S/16
    assert (gpt.depth, gpt.width, gpt.heads, gpt.norm, gpt.positions) == (12, 768, 12, "layer", "learned")  # GPT-2
    assert (gpt.feed_forward, gpt.bias, gpt.tied) == ("gelu_tanh", True, True)


def test_the_presets_rise_in_cost():
    studies = (
        plan(each, {k: v for k, v in FILES.items() if k not in PRESETS[each]} | {"seeds": 1}) for each in PRESETS
    )
    costs = [sum(cost for _, cost in outline(study)) for study in studies]
    assert costs == sorted(costs)


# -- configs ---------------------------------------------------------------------------------------

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
    Pretrain(
        family=Family(net=OwnNet(call=Dotted(name="a:b"), arguments={"width": 3}), data=TEXT),
        optimizer=Muon(),
        training=Training(),
        rates=(0.1,),
        seeds=(0,),
    ),
)


@pytest.mark.parametrize("job", JOBS, ids=lambda job: f"{job.kind} {job.family.name}")
def test_a_job_is_read_back_from_its_json(job):
    assert read(job.model_dump(mode="json")) == job


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        *(
            (field, value, rf"pretrain\.{field}")
            for field, value in (("rates", []), ("rates", [-0.1]), ("seeds", [-1]))
        ),
        ("optimizer", {"name": "lion"}, r"pretrain\.optimizer"),
        ("sedes", [0], r"pretrain\.sedes"),
        ("kind", "distil", "'pretrain', 'measure', 'transfer'"),
    ],
)
def test_a_value_that_is_not_allowed_is_named(field, value, message):
    with pytest.raises(ValueError, match=message):
        read(JOBS[0].model_dump(mode="json") | {field: value})


@given(budget=st.integers(1, 500), looks=st.integers(1, 200))
def test_looks_begin_at_zero_come_closer_together_at_the_start_and_end_at_the_budget(budget, looks):
    steps = Training(budget=budget, looks=looks).steps
    assert (steps[0], steps[-1]) == (0, budget)
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


def test_what_one_option_needs_the_other_does_not():
    assert plan("laptop", {"cnn.width": 12, "cnn.norm": "batch"}).families[0].family.net.width == 12
    assert ViTConfig(width=54).width == 54
    assert GPTConfig(width=68, positions="learned").width == 68
    side = plan("laptop", {"images": "data/mnist", "vit.patch": 7}).families[1].family.data.side
    assert side is None  # only the files know
    with pytest.raises(ValueError, match=r"images.size=30 is not a multiple of vit.patch=4"):
        Family(net=ViTConfig(patch=4), data=ImageData(name="x", source="x", size=30))


# Bug: muon's two decays were read for A, which has one of its own, and refused as two values of one setting.
def test_what_a_label_says_goes_before_several_values_of_its_name():
    asked = {"optimizers": ["A=muon", "B=muon", "adamw"], "muon.weight_decay": ["0", "0.1"], "A.weight_decay": ["0.3"]}
    arms = {arm.label: arm for arm in plan("tiny", asked).arms}
    tried = {label: [each.weight_decay for each in plan("tiny", asked).tried(arms[label])] for label in ("A", "B")}
    assert tried == {"A": [0.3], "B": [0.0, 0.1]}

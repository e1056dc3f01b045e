import pytest

from muonlab.jobs import store
from muonlab.studies.features import KEYS, PRESETS, FeatureStudy, begin, plan
from muonlab.studies.features.config import ImageData, TextData
from muonlab.study.optimizers import AdamW, Muon
from muonlab.study.settings import UsageError

FILES = {
    "images": "data/mnist",
    "text": "data/war_and_peace.txt",
    "transfer_text": "documentation",
    "examples": "data/TREC.train.all+data/TREC.test.all",
}
ALL = {"families": ["cnn", "vit", "gpt"], "optimizers": ["muon", "adamw", "sgd"]}


def names(study):
    return [each.family.name for each in study.families]


def test_every_family_is_a_net_with_a_set_of_data():
    study = plan("real", {**FILES, "images": ["data/mnist", "data/cifar10/train.zip+data/cifar10/test.zip"]})
    assert names(study) == ["cnn on mnist", "cnn on cifar10", "vit on mnist", "vit on cifar10", "gpt on war_and_peace"]
    first, second, *_ = (each.family.data for each in study.families)
    assert (first.source, first.test) == ("data/mnist", None)
    assert (second.source, second.test) == ("data/cifar10/train.zip", "data/cifar10/test.zip")
    text = study.families[-1].family.data
    assert isinstance(text, TextData)
    assert (text.examples, text.examples_test) == ("data/TREC.train.all", "data/TREC.test.all")


def test_one_other_text_serves_several_texts():
    texts = {"text": ["data/a.txt", "data/b.txt"], "transfer_text": ["data/b.txt", "data/a.txt"]}
    study = plan("real", {"families": "gpt", "examples": "data/TREC.train.all", **texts})
    data = [each.family.data for each in study.families]
    assert [(each.source, each.transfer_source) for each in data] == [
        ("data/a.txt", "data/b.txt"),
        ("data/b.txt", "data/a.txt"),
    ]
    assert {each.examples for each in data} == {"data/TREC.train.all"}


def test_only_texts_are_transferred_to_another_text():
    assert [each.tasks for each in plan("tiny").families] == [("classes",), ("classes", "language")]


def test_a_familys_own_training_goes_before_that_of_all():
    study = plan("laptop", {"cnn.budget": 7})
    assert [each.training.budget for each in study.families] == [7, 240, 300]


def test_what_is_given_for_all_goes_before_what_a_preset_has_for_a_family():
    study = plan("laptop", {"budget": 7, "gpt.batch": 5})
    assert [(each.training.budget, each.training.batch) for each in study.families] == [(7, 32), (7, 32), (7, 5)]


def test_rates_are_a_rising_grid_without_repeats():
    assert plan("tiny", {"muon.rates": ["0.1", "0.01", "1e-1"]}).searches["muon"].rates == (0.01, 0.1)


def test_the_first_optimizer_is_the_one_that_the_others_are_compared_with():
    study = plan("tiny", {"optimizers": ["adamw", "muon"]})
    assert [type(each) for each in study.optimizers] == [AdamW, Muon]


# For every key, a value that is not its default in any preset, and what must be given beside it.
VALUES: dict[str, object] = {
    "families": "vit",
    "optimizers": ["sgd", "muon"],
    "seeds": 7,
    "search_seeds": 3,
    "extensions": 1,
    "images": "data/mnist",
    "text": "documentation",
    "transfer_text": "sources",
    "examples": "data/TREC.train.all",
    "schedule": "cosine",
    "warmup": 0.2,
    "size": 24,
    "classes": ["1", "2"],
    "transfer_classes": ["3", "4"],
    "validation": 0.2,
    "test_share": 0.3,
    "tokenizer": "data/tokenizer.json",
    "depths": [1, 2],
    "width": 72,
    "heads": 4,
    "groups": 2,
    "patch": 1,
    "pooling": "class",
    "positions": "learned",
    "feed_forward": "gelu",
    "bias": "true",
    "tied": "false",
    "norm": "layer",
    "path_severity": 5,
    "margin_severity": 5,
    "momentum": 0.8,
    "weight_decay": 0.3,
    "beta1": 0.5,
    "beta2": 0.5,
    "eps": 1e-6,
    "nesterov": "true",
    "rates": [0.02, 0.07],
    "lr": [0.02, 0.07],
}
SPECIAL = {
    "cnn.norm": "batch",
    "vit.positions": "sincos",
    "vit.heads": 6,
    "gpt.heads": 2,
    "gpt.width": 96,
    "measure.examples": 11,
    "muon.nesterov": "false",
}


@pytest.mark.parametrize("key", KEYS)
def test_every_setting_changes_what_is_asked(key):
    value = SPECIAL.get(key, VALUES.get(key, VALUES.get(key.rpartition(".")[2], 11)))
    chosen = {**ALL, key: value}
    before, after = (plan("laptop", each).model_dump(exclude={"settings"}) for each in (ALL, chosen))
    assert before != after
    assert plan("laptop", chosen).settings[key] == [str(x) for x in (value if isinstance(value, list) else [value])]


@pytest.mark.parametrize(
    ("preset", "settings", "message"),
    [
        ("laptpo", {}, r"unknown preset 'laptpo'; did you mean 'laptop'\?"),
        ("laptop", {"famlies": "cnn"}, r"unknown setting 'famlies'; did you mean 'families'\?"),
        ("laptop", {"cnn.dephts": 1}, r"unknown setting 'cnn.dephts'; did you mean 'cnn.depths'\?"),
        ("laptop", {"families": "vti"}, r"unknown family 'vti'; did you mean 'vit'\?"),
        ("laptop", {"optimizers": "adam"}, r"unknown optimizer 'adam'; did you mean 'adamw'\?"),
        ("laptop", {"optimizers": ["muon", "muon"]}, r"optimizers=muon,muon names muon twice"),
        ("laptop", {"patience": 3}, r"unknown setting 'patience'"),
        ("laptop", {"seeds": 0}, r"^seeds=0 is not valid; expected one whole number from 1 to 1000"),
        ("laptop", {"seeds": 1.5}, r"^seeds=1.5 is not valid"),
        ("laptop", {"search_seeds": [1, 2]}, r"^search_seeds=1,2 is not valid"),
        ("laptop", {"extensions": -1}, r"^extensions=-1 is not valid; expected one whole number from 0 to 20"),
        ("laptop", {"muon.rates": 0.1}, r"^muon.rates=0.1 is not valid; expected two numbers or more, all above 0"),
        ("laptop", {"muon.rates": [0.1, 0.1]}, r"^muon.rates=0.1,0.1 is not valid; expected two numbers"),
        ("laptop", {"sgd.rates": [-0.1, 0.1]}, r"^sgd.rates=-0.1,0.1 is not valid; .* above 0"),
        ("laptop", {"sgd.rates": ["nan", "0.1"]}, r"^sgd.rates=nan,0.1 is not valid"),
        ("laptop", {"sgd.rates": ["fast", "0.1"]}, r"^sgd.rates=fast,0.1 is not valid"),
        ("laptop", {"muon.momentum": 1}, r"^muon.momentum=1 is not valid; expected less than 1"),
        ("laptop", {"budget": 0}, r"^budget=0 is not valid; expected at least 1"),
        ("laptop", {"cnn.budget": 0}, r"^cnn.budget=0 is not valid; expected at least 1"),
        ("laptop", {"transfer.budget": 0}, r"^transfer.budget=0 is not valid; expected at least 1"),
        ("laptop", {"cnn.batch": [1, 2]}, r"^cnn.batch=1,2 is not valid; expected one value, not 2"),
        ("laptop", {"schedule": "step"}, r"^schedule=step is not valid; expected 'constant', 'linear' or 'cosine'"),
        ("laptop", {"cnn.depths": [1, 0]}, r"^cnn.depths=0 is not valid; expected at least 1"),
        ("laptop", {"measure.path_severity": 6}, r"^measure.path_severity=6 is not valid; expected at most 5"),
        ("laptop", {"text.length": 2000}, r"^text.length=2000 is not valid; expected at most 1024"),
        # -- what does not fit together, before anything runs
        ("laptop", {"vit.width": 50}, r"^vit.width=50 is not a multiple of vit.heads=3, which attention needs"),
        ("laptop", {"vit.width": 54, "vit.positions": "sincos"}, r"^vit.width=54 is not a multiple of 4"),
        ("laptop", {"vit.patch": 3}, r"^the side of digits=8 is not a multiple of vit.patch=3"),
        ("laptop", {"vit.patch": 16}, r"^the side of digits=8 is not a multiple of vit.patch=16"),
        ("laptop", {"images.size": 25}, r"^images.size=25 is not a multiple of vit.patch=2, which whole patches need"),
        ("laptop", {"gpt.width": 66}, r"^gpt.width=66 is not a multiple of gpt.heads=4, which attention needs"),
        ("laptop", {"gpt.width": 68, "gpt.positions": "rope"}, r"^gpt.width=68 is not a multiple of 2 \* gpt.heads=8"),
        ("laptop", {"cnn.width": 12}, r"^cnn.width=12 is not a multiple of cnn.groups=8, which a group norm needs"),
        # -- what is not there
        ("real", {}, r"preset=real trains on your files; give images=PATH"),
        ("paper", {"families": "gpt"}, r"preset=paper trains on your files; give text=PATH"),
        ("real", {"families": "gpt", "text": "a.txt"}, r"give transfer_text=PATH"),
        ("real", {"families": "gpt", "text": "a.txt", "transfer_text": "b.txt"}, r"give examples=PATH"),
        (
            "real",
            {**FILES, "text": ["a.txt", "b.txt", "c.txt"], "transfer_text": ["d.txt", "e.txt"]},
            r"transfer_text has 2 values for 3 of text; expected one, or one for each",
        ),
        # -- what changes nothing
        ("laptop", {"families": "cnn", "gpt.depth": 2}, r"gpt.depth has no effect: the study has families=cnn"),
        ("laptop", {"families": "cnn", "text.length": 9}, r"text.length has no effect"),
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


def test_a_batch_norm_needs_no_groups():
    assert plan("laptop", {"cnn.width": 12, "cnn.norm": "batch"}).families[0].family.net.width == 12


def test_a_side_that_only_the_files_know_is_not_guessed():
    study = plan("laptop", {"images": "data/mnist", "vit.patch": 7})
    data = study.families[1].family.data
    assert isinstance(data, ImageData)
    assert data.side is None


def test_the_same_study_comes_from_its_own_json():
    study = plan("laptop")
    assert type(study).model_validate_json(study.model_dump_json()) == study
    assert set(PRESETS) == {"tiny", "laptop", "real", "paper"}


def test_a_folder_holds_the_study_that_was_begun_in_it(tmp_path):
    asked = plan("tiny", {"seeds": 3})
    begin(asked, tmp_path / "study")
    held = store.read(tmp_path / "study")
    assert (held.study, held.preset, held.settings) == ("features", "tiny", {"seeds": ["3"]})
    assert FeatureStudy.model_validate({**held.config, "preset": held.preset, "settings": held.settings}) == asked

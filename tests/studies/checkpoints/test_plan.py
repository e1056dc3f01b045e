"""What the words of a command ask for: groups, data, measures; and what is wrong with them."""

import hashlib
import json
from functools import partial
from pathlib import Path

import pytest

import synthetic_features as synthetic
from muonlab.studies.checkpoints.config import Inspect
from muonlab.studies.checkpoints.models import expanded, split
from muonlab.studies.checkpoints.plan import KEYS, Described, Named, plan
from muonlab.study.settings import UsageError


def known(path, **others):
    return Described(path, hashlib.sha256(path.encode()).hexdigest(), **others)


def asked(*paths, describe=known, also=None, **settings):
    paths = (*paths, *([also] if also else []))
    groups = [path if isinstance(path, Named) else Named("", (path,)) for path in paths]
    return plan(groups, settings, describe)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The current folder, with some files in it."""
    monkeypatch.chdir(tmp_path)
    for name in ("a.pt", "b.pt", "seeds/0.pt", "seeds/1.pt", "more/a.pt", "odd=name.pt"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).touch()


# ---- the words of a command ----


@pytest.mark.usefixtures("here")
def test_paths_groups_and_settings_are_told_apart():
    groups, settings = split(["a.pt", "S=seeds/*.pt,b.pt", "data=digits", "net.S=m:f", "out=x", "odd=name.pt"], ["out"])
    seeds = Named("S", ("seeds/0.pt", "seeds/1.pt", "b.pt"))
    assert groups == [Named("", ("a.pt",)), seeds, Named("", ("odd=name.pt",))]
    assert settings == {"data": ["digits"], "net.S": ["m:f"], "out": ["x"]}
    assert expanded(["seeds/*.pt", "a.pt"]) == ("seeds/0.pt", "seeds/1.pt", "a.pt")


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["c.pt"], r"there is no checkpoint 'c.pt'; expected a file or a folder of weights, NAME=PATH,PATH for"),
        (["a.pt", "dat=digits"], r"unknown setting 'dat'; did you mean 'data'\?"),
        (["a.pt", "dta=seeds"], r"unknown setting 'dta'; did you mean 'data'\?"),  # and no group, though it is there
        (["a.pt", "data=x", "data=y"], r"data is given twice"),
        (["a.pt", "data="], r"data= has an empty value"),
    ],
)
def test_a_word_that_fits_nothing_is_named(words, message):
    with pytest.raises(UsageError, match=message):
        split(words)


# ---- groups ----


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["x/a.pt", "x/b.pt"], ["a", "b"]),
        (["x/net.pt", "y/net.pt"], ["x", "y"]),
        (["x/y/net.pt", "z/y/net.pt"], ["x/y/net.pt", "z/y/net.pt"]),
        ([Named("Muon", ("x/a.pt", "x/b.pt")), "x/c.pt"], ["Muon", "c"]),
    ],
)
def test_a_group_has_the_first_name_that_no_other_has(paths, names):
    assert [group.name for group in asked(*paths, data="digits").job.groups] == names


def test_settings_of_all_groups_or_of_one():
    given = {"net": "m:f", "net.Q": "m:g", "taps.Q": ["x.*", "y"], "pool": "flatten"}
    named = {"names": ["P", "Q"], "colors": ["#AA00ff", "sgd"]}
    first, second = asked("a.pt", "b.pt", data="digits", **named, **given).job.groups
    assert (first.name, first.color, first.net, first.taps, first.pool) == ("P", "#aa00ff", "m:f", (), "flatten")
    assert (second.name, second.color, second.net, second.taps) == ("Q", "sgd", "m:g", ("x.*", "y"))


def test_a_job_is_what_was_asked():
    found = asked("a.pt", describe=partial(known, num_members=5), data="digits", **{"measure.examples": 9})
    assert (found.job.measuring.examples, found.num_nets) == (9, 5)
    assert found.job.groups[0].checkpoints[0].sha256 == known("a.pt").sha256
    assert Inspect.model_validate(found.job.model_dump(mode="json")) == found.job
    assert found.settings == {"models": ["a.pt"], "data": ["digits"], "measure.examples": ["9"]}
    assert len(set(KEYS)) == len(KEYS)
    assert "measure.path_examples" not in KEYS


# Bug: weights compared with themselves were "undecided".
def test_the_same_weights_in_two_groups_are_one_model():
    twice = [Named("A", ("a.pt", "b.pt")), Named("B", ("a.pt",))]
    with pytest.raises(UsageError, match=r"a\.pt of A and a\.pt of B have the same weights: they are one model"):
        asked(*twice, data="digits")
    assert len(asked(*twice, data="digits", **{"pool.B": "flatten"}).job.groups) == 2


# ---- data and measures ----


@pytest.mark.parametrize(
    ("settings", "kind", "measures"),
    [
        ({"data": "digits"}, "images", ("robustness", "margins", "rank")),
        ({"data": "digits", "transfer": "other.zip"}, "images", ("robustness", "margins", "rank", "transfer")),
        ({"data": "text.txt", "limit": "all"}, "text", ("robustness", "rank")),
        ({"data": "text.txt", "examples": "labels.tsv"}, "text", ("robustness", "margins", "rank")),
        ({"examples": "labels.tsv"}, "text", ("robustness", "margins", "rank")),
        ({"data": "digits", "measures": "rank"}, "images", ("rank",)),
        ({"data": "digits", "measures": ["rank", "cka"], "also": "b.pt"}, "images", ("rank", "cka")),
    ],
)
def test_what_is_measured_follows_from_the_data(settings, kind, measures):
    job = asked("a.pt", **settings).job
    assert (job.data.kind, job.measures) == (kind, measures)


def test_sources_and_settings_of_images(tmp_path):
    for source in ("x.npz", "train-images-idx3-ubyte", "t10k-images.gz", str(tmp_path)):
        assert asked("a.pt", data=source).job.data.kind == "images"
    data = asked("a.pt", data="x.zip", classes=["cat", "dog"], mean=[0.5, 0.4], deviation=[0.2, 0.3], size=32).job.data
    assert (data.classes, data.mean, data.deviation, data.size) == (("cat", "dog"), (0.5, 0.4), (0.2, 0.3), 32)


# Bug: a language model without its tokenizer was measured on bytes.
def test_a_folder_without_tokenizer_is_refused_unless_bytes_are_asked_for(tmp_path):
    folder = partial(asked, str(tmp_path), describe=partial(known, kind="huggingface"))
    with pytest.raises(UsageError, match=r"has no tokenizer\.json; give tokenizer=PATH.*or tokenizer=bytes"):
        folder(data="war.txt")
    assert folder(data="war.txt", tokenizer="bytes").job.data.tokenizer == "bytes"
    assert folder(data="digits").job.data.kind == "images"
    (tmp_path / "tokenizer.json").touch()
    assert folder(data="war.txt").job.data.tokenizer is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"data": None}, r"no data is given; expected data=PATH, a folder or zip of class folders"),
        ({"examples": "x"}, r"examples has no effect: data=digits is images; leave it out"),
        ({"data": "x.txt", "size": 8}, r"size has no effect: data=x.txt is a text; leave it out"),
        ({"data": "x.txt", "examples_test": "y"}, r"examples_test is the test set of examples; give examples, too"),
        ({"data": "x.txt", "measures": "margins"}, r"measures has margins, which needs examples=PATH: labelled texts"),
        ({"measures": "transfer"}, r"which needs transfer=PATH: data of other classes; give it"),
        ({"measures": "ranks"}, r"unknown measure 'ranks'; did you mean 'rank'\?"),
        ({"measures": ["rank", "cka"]}, r"measures has cka, which compares two models, and there is one; give another"),
        ({"measures": ["cka"], "also": "b.pt"}, r"measures=cka answers no question alone; add another"),
        ({"measures": ["rank", "rank"]}, r"measures=rank,rank names rank twice"),
        ({"net.b": "m:f"}, r"unknown group 'b'; expected one of a"),
        ({"colors": ["red"]}, r"colors=red is not valid; expected #rrggbb or one of muon, adamw"),
        ({"names": ["A", "B"]}, r"names=A,B is not one for each group, whose number is 1"),
        ({"measure.examples": 0}, r"measure\.examples=0 is not valid"),
        ({"size": 4}, r"size=4 is not valid; expected at least 8"),
        ({"pool": "max"}, r"pool=max is not valid"),
        ({"mean": 0.5}, r"mean and deviation go together"),
        ({"mean": 0.5, "deviation": [1, 1, 1]}, r"go together, and 1 and 3 numbers are given"),
    ],
)
def test_a_setting_that_cannot_be_is_named(settings, message):
    given = {key: value for key, value in {"data": "digits", **settings}.items() if value is not None}
    with pytest.raises(UsageError, match=message):
        asked("a.pt", **given)


@pytest.mark.parametrize(
    ("paths", "names", "message"),
    [
        ([], None, "no checkpoint is given"),
        (["a.pt", "a.pt"], None, "one checkpoint is given twice"),
        (["a.pt", "b.pt"], ["A", "A"], "groups has 'A' twice"),
    ],
)
def test_groups_that_cannot_be_are_named(paths, names, message):
    with pytest.raises(UsageError, match=message):
        asked(*paths, data="digits", **({"names": names} if names else {}))


# ---- weights that a study of features kept ----


@pytest.fixture
def kept(tmp_path):
    """Paths of weights of Muon and of AdamW, as their study left them, and what is known of them."""
    study = synthetic.study(families=["cnn"])
    own = study.families[0]
    paths = []
    for name in ("muon", "adamw"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps({"config": {"optimizer": {"name": name}}}))
        paths.append(str(tmp_path / name / "weights-12.safetensors"))
    return paths, partial(known, num_members=2, family=own.family, measuring=own.measuring)


def test_weights_of_a_study_need_neither_net_nor_data(kept):
    paths, describe = kept
    found = asked(*paths, describe=describe)
    assert [group.name for group in found.job.groups] == ["Muon", "AdamW"]
    assert (found.job.data.kind, found.num_nets) == ("study", 4)
    assert found.job.measures == ("robustness", "margins", "rank", "transfer")
    own = describe("x").measuring
    assert found.job.measuring == own
    few = asked(paths[0], describe=describe, **{"measure.examples": 7})
    assert few.job.measuring == own.model_copy(update={"examples": 7})


def test_data_of_a_study_is_one_and_whole(kept):
    paths, describe = kept
    with pytest.raises(UsageError, match="size has no effect without data"):
        asked(paths[0], describe=describe, size=16)
    family = describe("x").family
    other = family.model_copy(update={"data": family.data.model_copy(update={"name": "y"})})
    families = dict(zip(paths, (family, other), strict=True))
    with pytest.raises(UsageError, match="were trained on different data; give data=PATH"):
        asked(*paths, describe=lambda path: known(path, family=families[path]))


# Bug: data or a net's source that had changed under its name gave the numbers of before.
@pytest.mark.usefixtures("here")
def test_other_content_under_the_same_name_is_another_job():
    def read():
        job = asked("a.pt", data="words.txt", net="nets:build").job
        return {each.path: each.sha256 for each in job.read}

    Path("words.txt").write_text("one")
    Path("nets.py").write_text("def build(): ...")
    first = read()
    assert first.keys() == {"words.txt", "nets.py"}
    Path("words.txt").write_text("two")
    second = read()
    assert (second["words.txt"] == first["words.txt"], second["nets.py"] == first["nets.py"]) == (False, True)
    assert asked("a.pt", data="digits", net="elsewhere:build").job.read == ()

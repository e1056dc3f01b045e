import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import pytest

import synthetic_features as synthetic
from muonlab.studies.checkpoints.models import expanded, split
from muonlab.studies.checkpoints.plan import KEYS, Named, is_images, plan
from muonlab.studies.features.config import Family, Measuring
from muonlab.study.settings import UsageError


@dataclass
class Known:
    """What is known of a checkpoint."""

    sha256: str
    kind: str = "torch"
    num_members: int = 1
    family: Family | None = None
    measuring: Measuring | None = None


def known(path, **others):
    return Known(hashlib.sha256(path.encode()).hexdigest(), **others)


def asked(*paths, **settings):
    groups = [path if isinstance(path, Named) else Named("", (path,)) for path in paths]
    return plan(groups, settings, known)


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
    assert groups == [
        Named("", ("a.pt",)),
        Named("S", ("seeds/0.pt", "seeds/1.pt", "b.pt")),
        Named("", ("odd=name.pt",)),
    ]
    assert settings == {"data": ["digits"], "net.S": ["m:f"], "out": ["x"]}


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["c.pt"], r"there is no checkpoint 'c.pt'; expected a file or a folder of weights, NAME=PATH,PATH for"),
        (["S=seeds/9.pt"], r"there is no checkpoint 'seeds/9.pt'"),
        (["a.pt", "dat=digits"], r"unknown setting 'dat'; did you mean 'data'\?"),
        (["a.pt", "dta=seeds"], r"unknown setting 'dta'; did you mean 'data'\?"),  # and no group, though it is there
        (["a.pt", "data=x", "data=y"], r"data is given twice"),
        (["a.pt", "data="], r"data= has an empty value"),
    ],
)
def test_a_word_that_fits_nothing_is_named(words, message):
    with pytest.raises(UsageError, match=message):
        split(words)


@pytest.mark.usefixtures("here")
def test_patterns_give_their_files_in_order():
    assert expanded(["seeds/*.pt", "a.pt"]) == ("seeds/0.pt", "seeds/1.pt", "a.pt")


# ---- names and groups ----


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


def test_given_names_and_colours():
    job = asked("a.pt", "b.pt", data="digits", names=["P", "Q"], colors=["#AA00ff", "sgd"]).job
    assert [(group.name, group.color) for group in job.groups] == [("P", "#aa00ff"), ("Q", "sgd")]


def test_nets_taps_and_pools_of_all_groups_or_of_one():
    given = {"net": "m:f", "net.b": "m:g", "taps.b": ["x.*", "y"], "pool": "flatten"}
    first, second = plan([Named("", ("a.pt",)), Named("", ("b.pt",))], {"data": "digits", **given}, known).job.groups
    assert (first.net, first.taps, first.pool) == ("m:f", (), "flatten")
    assert (second.net, second.taps, second.pool) == ("m:g", ("x.*", "y"), "flatten")


def test_equal_questions_are_equal_jobs_and_other_weights_another():
    assert asked("a.pt", data="digits").job == asked("a.pt", data="digits").job
    assert asked("a.pt", data="digits").job.groups[0].checkpoints[0].sha256 == known("a.pt").sha256
    assert asked("a.pt", data="digits", **{"measure.examples": 9}).job.measuring.examples == 9


def test_nets_are_counted_with_the_members_of_their_files():
    found = plan([Named("", ("a.pt",))], {"data": "digits"}, lambda path: known(path, num_members=5))
    assert found.num_nets == 5


# ---- data and measures ----


@pytest.mark.parametrize(
    ("settings", "kind", "measures"),
    [
        ({"data": "digits"}, "images", ("robustness", "margins", "rank")),
        ({"data": "digits", "transfer": "other.zip"}, "images", ("robustness", "margins", "rank", "transfer")),
        ({"data": "text.txt"}, "text", ("robustness", "rank")),
        ({"data": "text.txt", "examples": "labels.tsv"}, "text", ("robustness", "margins", "rank")),
        ({"examples": "labels.tsv"}, "text", ("robustness", "margins", "rank")),
        ({"data": "digits", "measures": "rank"}, "images", ("rank",)),
    ],
)
def test_what_is_measured_follows_from_the_data(settings, kind, measures):
    job = asked("a.pt", **settings).job
    assert (job.data.kind, job.measures) == (kind, measures)


@pytest.mark.parametrize("source", ["digits", "x.zip", "x.npz", "train-images-idx3-ubyte", "t10k-images.gz"])
def test_sources_of_images(source, tmp_path):
    assert is_images(source)
    assert is_images(str(tmp_path))
    assert not is_images("war.txt")


def test_lists_of_numbers_and_of_names():
    data = asked("a.pt", data="x.zip", classes=["cat", "dog"], mean=[0.5, 0.4], deviation=[0.2, 0.3], size=32).job.data
    assert (data.classes, data.mean, data.deviation, data.size) == (("cat", "dog"), (0.5, 0.4), (0.2, 0.3), 32)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, r"no data is given; expected data=PATH, a folder or zip of class folders"),
        ({"data": "digits", "examples": "x"}, r"examples has no effect: data=digits is images; leave it out"),
        ({"data": "x.txt", "size": 8}, r"size has no effect: data=x.txt is a text; leave it out"),
        ({"data": "digits", "measures": "ranks"}, r"unknown measure 'ranks'; did you mean 'rank'\?"),
        ({"data": "digits", "net.b": "m:f"}, r"unknown group 'b'; expected one of a"),
        ({"data": "digits", "colors": ["red"]}, r"colors=red is not valid; expected #rrggbb or one of muon, adamw"),
        ({"data": "digits", "colors": ["ink", "ink"]}, r"colors has 2 values for 1 groups"),
        ({"data": "digits", "names": ["A", "B"]}, r"names has 2 values for 1 groups"),
        ({"data": "digits", "measure.examples": 0}, r"measure\.examples=0 is not valid"),
        (
            {"data": "digits", "measure.exampels": 9},
            r"unknown setting 'measure.exampels'; did you mean 'measure.examples'",
        ),
        ({"data": "digits", "size": 4}, r"size=4 is not valid; expected at least 8"),
        ({"data": "digits", "size": [8, 9]}, r"size=8,9 is not valid; expected one value, not 2"),
        ({"data": "digits", "pool": "max"}, r"pool=max is not valid"),
        ({"data": "x.txt", "measures": "margins"}, r"measures has margins, which needs examples=PATH: labelled texts"),
        ({"data": "digits", "mean": 0.5}, r"mean and deviation go together"),
        ({"data": "digits", "measures": "transfer"}, r"which needs transfer=PATH: data of other classes; give it"),
    ],
)
def test_a_setting_that_cannot_be_is_named(settings, message):
    with pytest.raises(UsageError, match=message):
        asked("a.pt", **settings)


def test_no_checkpoint_and_one_twice():
    with pytest.raises(UsageError, match="no checkpoint is given"):
        plan([], {"data": "digits"}, known)
    with pytest.raises(UsageError, match="one checkpoint is given twice"):
        asked("a.pt", "a.pt", data="digits")


# Bug: weights compared with themselves were "undecided".
def test_the_same_weights_in_two_groups_are_one_model():
    twice = [Named("A", ("a.pt", "b.pt")), Named("B", ("a.pt",))]
    with pytest.raises(UsageError, match=r"a\.pt of A and a\.pt of B have the same weights: they are one model"):
        asked(*twice, data="digits")
    assert len(asked(*twice, data="digits", **{"pool.B": "flatten"}).job.groups) == 2


# Bug: a language model without its tokenizer was measured on bytes.
def test_a_folder_without_tokenizer_is_refused_unless_bytes_are_asked_for(tmp_path):
    def folder(**settings):
        return plan([Named("", (str(tmp_path),))], settings, lambda path: known(path, kind="huggingface"))

    with pytest.raises(UsageError, match=r"has no tokenizer\.json; give tokenizer=PATH.*or tokenizer=bytes"):
        folder(data="war.txt")
    assert folder(data="war.txt", tokenizer="bytes").job.data.tokenizer == "bytes"
    assert folder(data="digits").job.data.kind == "images"
    (tmp_path / "tokenizer.json").touch()
    assert folder(data="war.txt").job.data.tokenizer is None


# ---- weights that a study of features kept ----


@pytest.fixture
def kept(tmp_path):
    """Paths of weights of Muon and of AdamW, as their study left them, and what is known of them."""
    study = synthetic.study(families=["cnn"])
    plan_ = study.families[0]
    paths = []
    for name in ("muon", "adamw"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps({"config": {"optimizer": {"name": name}}}))
        paths.append(str(tmp_path / name / "weights-12.safetensors"))
    return paths, lambda path: known(path, num_members=2, family=plan_.family, measuring=plan_.measuring)


def test_weights_of_a_study_need_neither_net_nor_data(kept):
    paths, describe = kept
    found = plan([Named("", (path,)) for path in paths], {}, describe)
    assert [group.name for group in found.job.groups] == ["Muon", "AdamW"]
    assert (found.job.data.kind, found.num_nets) == ("study", 4)
    assert found.job.measuring == describe(paths[0]).measuring
    assert found.job.measures == ("robustness", "margins", "rank", "transfer")


def test_settings_change_what_the_study_measured(kept):
    paths, describe = kept
    found = plan([Named("", paths[:1])], {"measure.examples": 7}, describe)
    assert found.job.measuring == describe(paths[0]).measuring.model_copy(update={"examples": 7})


def test_data_of_the_study_is_not_changed_in_part(kept):
    paths, describe = kept
    with pytest.raises(UsageError, match="size has no effect without data"):
        plan([Named("", paths[:1])], {"size": 16}, describe)


def test_weights_trained_on_different_data_need_data(kept):
    paths, describe = kept
    other = describe("x").family.model_copy(update={"data": describe("x").family.data.model_copy(update={"name": "y"})})
    families = {paths[0]: describe("x").family, paths[1]: other}
    with pytest.raises(UsageError, match="were trained on different data; give data=PATH"):
        plan([Named("", (path,)) for path in paths], {}, lambda path: known(path, family=families[path]))


def test_every_key_is_there_once():
    assert len(set(KEYS)) == len(KEYS)
    assert {"data", "net", "measure.examples", "tokenizer", "size"} <= set(KEYS)
    assert "measure.path_examples" not in KEYS


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
    Path("nets.py").write_text("def build(): pass")
    assert read()["nets.py"] != first["nets.py"]
    assert asked("a.pt", data="digits", net="elsewhere:build").job.read == ()

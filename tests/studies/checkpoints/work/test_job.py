"""An inspection from its config to its result: of weights of a study, of files, and of modules in memory."""

import copy
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from muonlab.data import images as readers
from muonlab.data.sources import DataError
from muonlab.jobs import store
from muonlab.jobs.files import read_json, write_json
from muonlab.jobs.job import JobFile
from muonlab.studies.checkpoints.config import Images, StudyData, Texts
from muonlab.studies.checkpoints.work import job
from muonlab.studies.checkpoints.work.checkpoints import describe
from muonlab.studies.checkpoints.work.material import open_data
from muonlab.studies.features.config import Measure, Transfer
from muonlab.studies.features.work import weights
from nested import equal
from studies.checkpoints.conftest import NETS, asked, group

ALL = ("robustness", "margins", "rank", "transfer")
BUILD = f"{NETS}:build"
pytestmark = pytest.mark.usefixtures("nets")

# -- data ------------------------------------------------------------------------------------------


def test_images_are_in_the_order_of_classes_and_standardised_as_asked(images, tmp_path):
    drawn = np.random.default_rng(0).integers(0, 256, (60, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "a.npz", images=drawn, labels=np.arange(60) % 2)
    changed = {"classes": ("2", "0"), "transfer_source": str(tmp_path / "a.npz")}
    given, digits = open_data(images.model_copy(update=changed)), readers.digits()
    (mean, deviation), test, other = given.judged.scaling, given.judged.test, given.transfers["classes"].test
    for inputs, known in (
        (test.inputs[test.labels == 0], digits.images[digits.labels == digits.classes.index("2")]),
        (other.inputs, torch.from_numpy(drawn)),  # standardised as the others
    ):
        pixels = ((inputs * deviation + mean) * 255).round().byte()
        assert {row.numpy().tobytes() for row in pixels} <= {row.numpy().tobytes() for row in known}
    assert (given.classes, other.chance) == (("2", "0"), pytest.approx(0.5, abs=0.1))
    given = open_data(images.model_copy(update={"mean": (0.5,), "deviation": (0.25,)}))
    assert (given.judged.test.inputs.min(), given.judged.test.inputs.max()) == (-2, 2)
    assert "mean 0.5 and deviation 0.25, as given" in given.notes[1]
    with pytest.raises(DataError, match="mean has 2, expected one number for each of 1 channels"):
        open_data(images.model_copy(update={"mean": (0.5,) * 2, "deviation": (0.25,) * 2}))


def test_what_texts_are_judged_by_and_probed_with(texts):
    source, examples = str(texts / "text.txt"), str(texts / "examples.txt")
    both = open_data(Texts(source=source, examples=examples, length=16))
    assert (both.judged.test.kind, both.probed.test.kind, both.classes) == ("tokens", "classes", None)
    assert (both.vocabulary, both.judged.padding, both.transfers) == (256, 256, {})
    windows, labelled = both.corrupted("drop", 0, 5)
    assert windows.inputs.shape == labelled.inputs.shape == (5, 16)
    assert labelled.inputs.equal(both.probed.test.inputs[:5])
    classifier = open_data(Texts(examples=examples, transfer_source=examples, length=16))
    assert classifier.classes == ("minus", "plus")
    for other in (classifier.probed, classifier.transfers["classes"]):
        assert classifier.judged.test.labels.equal(other.test.labels)
    model = open_data(Texts(source=source, length=16))
    assert model.probed is None
    for given in (classifier, model):
        assert torch.equal(*(each.inputs for each in given.corrupted("swap", 3, 4)))


# -- weights that a study kept: the study's numbers come back ----------------------------------------


@pytest.fixture(scope="module")
def study(make_pretrain, make_state, run, few, tmp_path_factory):
    """A function that trains a family in a study's folder, and measures it as the study does; once each."""
    root = tmp_path_factory.mktemp("inspected") / "study"
    known = {}

    def make(family):
        if family not in known:
            name = f"job{len(known)}"
            sizes = {"examples": 10, "probe_train": 45, "probe_validation": 20, "path_examples": 2}
            little = few.model_copy(update=sizes)
            training = make_pretrain(family, training={"budget": 12, "looks": 2})
            plan = {"family": family.model_dump(mode="json"), "measuring": little.model_dump(mode="json")}
            store.create(root, "features", "tiny", {}, {"families": [plan]})
            run(training, root / name)
            held = JobFile(name=name, target="", cost=1.0, config=training.model_dump(mode="json"))
            write_json(root / name / "config.json", held.model_dump(mode="json"))
            own = {"family": family, "weights": name, "seeds": (0, 1), "states": (make_state(steps=(12, 12)),)}
            measured = Measure(looks=(12,), control=True, measuring=little, **own)
            moved = Transfer(task="classes", mode="linear", measuring=little, **own)
            is_cnn = family.net.kind == "cnn"
            known[family] = (
                root / name / "weights-12.safetensors",
                run(measured, root / f"{name}-measured"),
                run(moved, root / f"{name}-moved") if is_cnn else None,
            )
        return known[family]

    return make


@pytest.fixture
def cnn(make_family):
    """A CNN of two blocks on the digits."""
    return make_family(net={"depths": (1, 1)})


@pytest.mark.parametrize("kind", ["cnn", "gpt"])
def test_the_studys_numbers_come_back(kind, study, cnn, make_family, inspect):
    family = cnn if kind == "cnn" else make_family(kind, net={"depth": 2})
    path, measured, moved = study(family)
    held = describe(path)
    assert (held.kind, held.num_members, held.family) == ("population", 2, family)
    measures = ALL if moved else ALL[:3]
    found = inspect(group("muon", path), data=StudyData(family=family), measures=measures, measuring=held.measuring)
    for key in ("corruptions", "chance", "probe_chance", "num_examples", "num_probe_test", "num_probe_train", "sheet"):
        assert found[key] == measured[key], key
    equal(found["controls"], measured["controls"])
    assert len(found["models"]) == 2
    for k, (own, theirs) in enumerate(zip(found["models"], measured["models"], strict=True)):
        assert (own["group"], own["checkpoint"], own["member"]) == ("muon", str(path), k)
        equal(own, {key: theirs[key] for key in ("clean_loss", "clean_accuracy", "accuracy", "layers")})
    for own, other in zip(found["models"], moved["members"], strict=True) if moved else ():
        assert own["transfer"]["accuracy"] == pytest.approx(other["test_accuracy"], rel=1e-12)
        assert own["transfer"]["chance"] == moved["chance"]
    assert found["kind"] == ("classes" if kind == "cnn" else "tokens")
    assert (found["groups"][0]["net"], found["groups"][0]["taps"]) == (kind, ["blocks.0", "blocks.1"])


def test_a_study_net_is_known_on_data_of_the_users_too(study, cnn, inspect):
    path, measured, _ = study(cnn)
    data = Images(source="digits", classes=tuple("01234"))
    found = inspect(group("g", path), data=data, measures=("rank",), measuring=describe(path).measuring)
    own, theirs = (each["models"][0]["layers"] for each in (found, measured))
    equal([layer["raw"] for layer in own], [layer["raw"] for layer in theirs])


def test_weights_that_are_not_finite_are_left_out_and_said(study, cnn, inspect, tmp_path):
    path = study(cnn)[0]
    shutil.copy(path.parent / "config.json", tmp_path)
    tensors, place = weights.load(path.parent, 12), tmp_path / "w.safetensors"
    rank = {"data": StudyData(family=cnn), "measures": ("rank",)}
    tensors["parameter/head.weight"][0] = torch.nan
    save_file(tensors, place)
    found = inspect(group("g", place), **rank)
    assert [row["member"] for row in found["models"]] == [1]
    assert any("member 0 has weights that are not finite; left out" in note for note in found["notes"])
    tensors["parameter/head.weight"][1] = torch.inf
    save_file(tensors, place)
    with pytest.raises(DataError, match="g: no model has weights that are finite"):
        inspect(group("g", place), into="other", **rank)


def test_weights_without_their_study_or_of_another_are_refused(study, cnn, make_family, inspect, tmp_path):
    path, alone = study(cnn)[0], tmp_path / "alone.safetensors"
    shutil.copy(path, alone)
    other = make_family(data={"name": "others", "classes": ("1", "2")})
    for place, data, message in (
        (alone, StudyData(family=cnn), r"alone.safetensors has no config.json of a training job of the feature study"),
        (alone, Images(source="digits"), r"holds weights alone; give net=package.module:function"),
        (path, StudyData(family=other), r"was trained on other data \(digits\)"),
    ):
        with pytest.raises(DataError, match=message):
            inspect(group("g", place), data=data)


# -- nets of a user's ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def result(files, images, little, tmp_path_factory):
    """The result of an inspection of two checkpoints of one net in every measure."""
    own = group("g", files / "a.safetensors", files / "b.pt", net=BUILD, color="#112233")
    data = images.model_copy(update={"transfer_source": "digits"})
    config = asked(own, data=data, measures=ALL, measuring=little)
    return job.run(config=config.model_dump(mode="json"), folder=str(tmp_path_factory.mktemp("everything")))


def test_files_of_several_kinds_are_a_group(result, files):
    rows = [(row["group"], row["checkpoint"], row["member"]) for row in result["models"]]
    assert rows == [("g", str(files / "a.safetensors"), None), ("g", str(files / "b.pt"), None)]
    parameters = 64 * 16 + 16 + 2 * (16 * 16 + 16) + 16 * 3 + 3
    own = {"name": "g", "color": "#112233", "net": BUILD, "num_parameters": parameters, "taps": ["2.0", "2.1"]}
    assert result["groups"] == [own]


def test_numbers_of_examples_have_the_mean_that_is_reported(result):
    for row in result["models"]:
        assert np.mean(row["clean_by_example"]) == pytest.approx(row["clean_accuracy"])
        assert np.mean(row["corrupted_by_example"]) == pytest.approx(np.mean(list(row["accuracy"].values())))
        assert np.mean(row["transfer"]["by_example"]) == pytest.approx(row["transfer"]["accuracy"])
        assert row["transfer"]["accuracy"] > row["transfer"]["chance"]  # ten classes, by a probe
        assert set(row["clean_by_example"]) <= {0.0, 1.0}
        for layer in row["layers"]:
            for kind in ("by_norm", "raw"):
                listed = layer["margins_by_example"][kind]
                assert len(listed) == result["num_probe_test"] == 20
                assert np.mean(listed) == pytest.approx(layer["margins"]["clean"][kind]["mean"])


def test_the_controls_find_nothing(result):
    controls, chance = result["controls"], 1 / 3
    assert controls["tap"] == "2.1"
    new = controls["untrained"]
    assert new["num_examples"] == 20
    assert len(set(new["clean_accuracies"])) > 1  # of nets of their own
    assert abs(np.mean(new["clean_accuracies"]) - chance) < 0.3
    number = controls["shuffled_labels"]["num_test"]
    assert abs(controls["shuffled_labels"]["test_accuracy"] - chance) < 3 * np.sqrt(chance * (1 - chance) / number)
    assert controls["rank_one"]["raw"]["effective_rank"] == pytest.approx(1, abs=1e-4)


@pytest.mark.kernels
def test_the_same_command_gives_the_same_bytes_and_a_finished_one_is_read(files, inspect, tmp_path, monkeypatch):
    own, measures, events = group("g", files / "a.safetensors", net=BUILD), ("margins",), []
    first = inspect(own, measures=measures, options={"report": events.append}, into="first")
    torch.rand(3)  # another state of the global generator
    inspect(own, measures=measures, into="second")
    assert (tmp_path / "first/result.json").read_bytes() == (tmp_path / "second/result.json").read_bytes()
    steps = [event["step"] for event in events]
    assert steps == sorted(steps)
    assert steps[-1] == events[-1]["budget"]
    monkeypatch.setattr(job, "candidates", lambda *_: pytest.fail("done again"))
    assert inspect(own, measures=measures, into="first") == first
    assert read_json(tmp_path / "first/env.json")["peak_memory_mb"] > 10


@pytest.mark.kernels
def test_a_model_has_the_same_numbers_from_memory_or_a_file_alone_or_in_company(
    result, files, images, little, net, inspect, monkeypatch
):
    groups = (
        group("g", files / "a.safetensors", files / "b.pt", net=BUILD),
        group("deeper", files / "deeper.pt", net=f"{NETS}:deeper"),
    )
    config = asked(*groups, data=images, measures=("rank",), measuring=little)
    found = job.inspect_modules(config, {"g": [net(0), net(1)], "deeper": [net(3, 3)]})
    assert [row["checkpoint"] for row in found["models"]] == ["g 0", "g 1", "deeper 0"]
    assert [len(each["taps"]) for each in found["groups"]] == [2, 3]
    assert "untrained" not in found["controls"]  # nothing makes new ones
    monkeypatch.setattr("muonlab.studies.checkpoints.work.candidates.TOGETHER_BYTES", 0)
    alone = inspect(*groups, measures=config.measures)["models"]
    for own, single in zip(found["models"], alone, strict=True):  # float32, in stacks of another height
        equal(single["layers"], own["layers"], rel=1e-4, abs=1e-6)
    for own, whole in zip(found["models"], result["models"], strict=False):
        equal(whole["layers"], own["layers"], rel=1e-4, abs=1e-6)


def test_only_what_is_asked_for_is_there(files, images, inspect):
    own = group("g", files / "a.safetensors", net=BUILD)
    robust = inspect(own, measures=("robustness",))
    keys = {"group", "checkpoint", "member", "clean_loss", "clean_accuracy", "accuracy"}
    assert robust["models"][0].keys() == {*keys, "clean_by_example", "corrupted_by_example"}
    assert robust["controls"].keys() == {"tap", "untrained"}
    ranks = inspect(own, measures=("rank",), into="ranks")["models"][0]
    assert ranks.keys() == {"group", "checkpoint", "member", "layers"}
    assert "margins" not in ranks["layers"][0]


def test_a_function_that_gives_trained_nets_has_no_untrained_one(files, inspect):
    found = inspect(group("g", files / "a.safetensors", net=f"{NETS}:trained"), measures=("rank",))
    assert "untrained" not in found["controls"]
    assert "g: a new net has the weights of the one before, so none is untrained" in found["notes"]


def test_a_checkpoint_that_has_changed_is_refused(net, inspect, tmp_path):
    torch.save(net(0).state_dict(), tmp_path / "a.pt")
    own = group("g", tmp_path / "a.pt", net=BUILD)
    torch.save(net(1).state_dict(), tmp_path / "a.pt")
    with pytest.raises(DataError, match=r"a.pt has changed since it was asked for; ask again"):
        inspect(own)


def test_the_table_of_taps_has_shapes_and_choices(files, images):
    table = job.tap_table(asked(group("g", files / "a.safetensors", net=BUILD), data=images))
    assert ("g", "1", (1, 16), False) in table
    assert [name for _, name, _, is_tap in table if is_tap] == ["2.0", "2.1"]


# -- modules in memory -----------------------------------------------------------------------------


@pytest.fixture
def inspect_modules(files, images, little):
    """A function that measures modules by group."""

    def measure(modules, measures, data=None, **fields):
        groups = [group(name, files / "a.safetensors", **fields) for name in modules]
        config = asked(*groups, data=data or images, measures=measures, measuring=little)
        return job.inspect_modules(config, modules)

    return measure


def test_a_net_that_learnt_is_told_from_one_that_did_not(net, images, inspect_modules):
    trained, train = net(0), open_data(images).judged.train
    optimizer = torch.optim.Adam(trained.parameters(), lr=0.01)
    for _ in range(40):
        optimizer.zero_grad()
        nn.functional.cross_entropy(trained(train.inputs), train.labels).backward()
        optimizer.step()
    old, new = inspect_modules({"trained": [trained], "new": [net(0)]}, ("robustness",))["models"]
    assert old["clean_accuracy"] > 0.9 > 0.6 > new["clean_accuracy"]
    assert max(old["accuracy"]["gaussian_noise"]) < old["clean_accuracy"] + 0.05


def test_models_of_two_architectures_in_one_group_are_refused(net, inspect_modules):
    with pytest.raises(DataError, match="g has models of several architectures; give each a group of its own"):
        inspect_modules({"g": [net(0), net(0, 3)]}, ("rank",))


def test_numbers_that_are_not_finite_are_null(net, inspect_modules):
    dead = net()
    for parameter in dead[2][1][0].parameters():
        parameter.data.zero_()
    (_, last) = inspect_modules({"dead": [dead]}, ("margins",))["models"][0]["layers"]
    assert last["margins_by_example"]["by_norm"] is None
    assert len(last["margins_by_example"]["raw"]) == 20
    assert last["margins"]["clean"]["by_norm"]["mean"] is None


def test_a_text_without_labelled_ones_has_robustness_and_ranks(texts, inspect_modules):
    data = Texts(source=str(texts / "text.txt"), length=16)
    language = nn.Sequential(nn.Embedding(256, 8), nn.Linear(8, 8), nn.Linear(8, 256))
    found = inspect_modules({"g": [language]}, ("robustness", "rank"), data, taps=("1",))
    assert (found["probe_chance"], found["num_probe_test"]) == (None, 0)
    (row,) = found["models"]
    assert len(row["clean_by_example"]) == len(row["corrupted_by_example"]) == found["num_examples"]
    assert row["layers"][0]["raw"]["effective_rank"] > 1


def test_copies_of_weights_are_left_out(net, inspect_modules):
    nets = [net(0), copy.deepcopy(net(0)), net(1)]
    found = inspect_modules({"g": nets, "h": [net(0)]}, ("rank",))
    assert [row["checkpoint"] for row in found["models"]] == ["g 0", "g 2", "h 0"]
    assert "g: g 1 has the weights of g 0; left out" in found["notes"]


# -- similarity of layers --------------------------------------------------------------------------


def test_layers_of_two_models_are_compared_over_the_same_examples(net, inspect_modules):
    twin = copy.deepcopy(net(0))
    with torch.no_grad():  # another order of the hidden units is a rotation
        order = torch.randperm(len(twin[1].weight))
        twin[1].weight.copy_(twin[1].weight[order])
        twin[1].bias.copy_(twin[1].bias[order])
    models = {"g": [net(0), net(1)], "h": [twin], "deep": [net(0, 3)]}
    found = inspect_modules(models, ("rank", "cka"), taps=("1", "2.*"))
    pairs = [(row["groups"], row["checkpoints"]) for row in found["cka"]]
    assert pairs == [(["g", "g"], ["g 0", "g 1"]), (["g", "h"], ["g 0", "h 0"]), (["g", "deep"], ["g 0", "deep 0"])]
    _, same, deeper = found["cka"]
    assert same["value"][0][0] == pytest.approx(1, abs=1e-6)
    assert same["lower"][0][0] <= same["value"][0][0] <= same["upper"][0][0]
    assert same["value"][1][1] < 0.999
    assert deeper["taps"] == [["1", "2.0", "2.1"], ["1", "2.0", "2.1", "2.2"]]
    assert [len(row) for row in deeper["value"]] == [4, 4, 4]
    assert same["num_examples"] == 20


def test_similarity_is_measured_only_where_it_is_asked_for_and_can_be(net, inspect_modules, little):
    assert "cka" not in inspect_modules({"g": [net(0)], "h": [net(1)]}, ("rank",))
    dead = net(1)
    with torch.no_grad():
        for parameter in dead[1].parameters():
            parameter.zero_()
    assert inspect_modules({"g": [net(0)], "h": [dead]}, ("rank", "cka"), taps=("1",))["cka"][0]["value"] == [[None]]

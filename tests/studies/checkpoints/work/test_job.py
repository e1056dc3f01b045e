import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from muonlab.data.sources import DataError
from muonlab.jobs import store
from muonlab.jobs.files import read_json, write_json
from muonlab.jobs.job import JobFile
from muonlab.studies.checkpoints.config import Images, Inspect, StudyData
from muonlab.studies.checkpoints.work import job
from muonlab.studies.checkpoints.work.checkpoints import describe
from muonlab.studies.features.config import Measure, Transfer
from muonlab.studies.features.work import weights
from nested import equal

ALL = ("robustness", "margins", "rank", "transfer")


# -- the study's numbers come back -----------------------------------------------------------------


@pytest.fixture(scope="module")
def study(make_pretrain, make_state, run, few, tmp_path_factory):
    """A function that trains a family in a study's folder, and measures it as the study does; once each."""
    root = tmp_path_factory.mktemp("inspected") / "study"
    known = {}

    def make(family, examples=24):
        if family in known:
            return known[family]
        name = f"job{len(known)}"
        little = few.model_copy(update={"examples": examples, "path_examples": 2})
        training = make_pretrain(family, training={"budget": 12, "looks": 2})
        plan = {"family": family.model_dump(mode="json"), "measuring": little.model_dump(mode="json")}
        store.create(root, "features", "tiny", {}, {"families": [plan]})
        run(training, root / name)
        held = JobFile(name=name, target="", cost=1.0, config=training.model_dump(mode="json"))
        write_json(root / name / "config.json", held.model_dump(mode="json"))
        states = (make_state(steps=(12, 12)),)
        own = {"family": family, "weights": name, "seeds": (0, 1), "states": states, "measuring": little}
        measured = run(Measure(looks=(12,), control=True, **own), root / f"{name}-measured")
        moved = run(Transfer(task="classes", mode="linear", **own), root / f"{name}-moved")
        known[family] = root / name / "weights-12.safetensors", measured, moved, described(root / name)
        return known[family]

    return make


def described(folder):
    return describe(folder / "weights-12.safetensors")[0]


@pytest.fixture
def two(make_family):
    """A CNN of two blocks on the digits."""
    return make_family(net={"depths": (1, 1)})


@pytest.mark.parametrize("kind", ["cnn", "gpt"])
def test_the_studys_numbers_come_back(kind, study, two, make_family, group, inspect):
    family = two if kind == "cnn" else make_family(kind, net={"depth": 2})
    path, measured, moved, described = study(family, examples=24 if kind == "cnn" else 10)
    assert (described.kind, described.num_members, described.family) == ("population", 2, family)
    config = Inspect(
        groups=(group("muon", [path]),),
        data=StudyData(family=described.family),
        measures=ALL,
        measuring=described.measuring,
    )
    found = inspect(config)
    for key in ("corruptions", "chance", "probe_chance", "num_examples", "num_probe_test", "num_probe_train", "sheet"):
        assert found[key] == measured[key], key
    equal(found["controls"], measured["controls"])
    assert len(found["models"]) == 2
    for k, (own, theirs, other) in enumerate(zip(found["models"], measured["models"], moved["members"], strict=True)):
        assert (own["group"], own["checkpoint"], own["member"]) == ("muon", str(path), k)
        equal(own, {key: theirs[key] for key in ("clean_loss", "clean_accuracy", "accuracy", "layers")})
        assert own["transfer"]["accuracy"] == pytest.approx(other["test_accuracy"], rel=1e-12)
        assert own["transfer"]["chance"] == moved["chance"]
    assert found["kind"] == ("classes" if kind == "cnn" else "tokens")
    (described_group,) = found["groups"]
    assert described_group["net"] == kind
    assert described_group["taps"] == ["blocks.0", "blocks.1"]


@pytest.mark.kernels
def test_nets_of_two_architectures_are_measured_as_each_is_alone(study, two, make_family, group, inspect, little):
    one = make_family()
    data = StudyData(family=one)
    groups = tuple(group(name, [study(family)[0]]) for name, family in (("one", one), ("two", two)))
    both = inspect(Inspect(groups=groups, data=data, measures=("rank",), measuring=little))
    alone = inspect(Inspect(groups=groups[1:], data=data, measures=("rank",), measuring=little), "alone")
    equal(alone["models"], [row for row in both["models"] if row["group"] == "two"], rel=1e-4)
    assert [len(each["taps"]) for each in both["groups"]] == [1, 2]


def test_weights_that_are_not_finite_are_left_out_and_said(study, two, group, inspect, little, tmp_path):
    path = study(two)[0]
    (tmp_path / "job").mkdir()
    shutil.copy(path.parent / "config.json", tmp_path / "job")
    tensors = weights.load(path.parent, 12)
    tensors["parameter/head.weight"][0] = torch.nan
    save_file(tensors, tmp_path / "job/w.safetensors")
    held = group("g", [tmp_path / "job/w.safetensors"])
    own = Inspect(groups=(held,), data=StudyData(family=two), measures=("rank",), measuring=little)
    found = inspect(own)
    assert [row["member"] for row in found["models"]] == [1]
    assert any("member 0 has weights that are not finite; left out" in note for note in found["notes"])
    tensors["parameter/head.weight"][1] = torch.inf
    save_file(tensors, tmp_path / "job/w.safetensors")
    with pytest.raises(DataError, match="g: no model has weights that are finite"):
        inspect(own.model_copy(update={"groups": (group("g", [tmp_path / "job/w.safetensors"]),)}), "other")


def test_weights_without_their_study_need_a_net(study, two, group, inspect, little, tmp_path):
    alone = tmp_path / "alone.safetensors"
    shutil.copy(study(two)[0], alone)
    own = Inspect(groups=(group("g", [alone]),), data=StudyData(family=two), measuring=little)
    with pytest.raises(DataError, match=r"alone.safetensors has no config.json of a training job of the feature study"):
        inspect(own)
    with pytest.raises(DataError, match=r"holds weights alone; give net=package.module:function"):
        inspect(own.model_copy(update={"data": Images(source="digits")}), "other")


def test_data_of_another_study_are_refused(study, two, make_family, group, inspect, little):
    other = make_family(data={"name": "others", "classes": ("1", "2")})
    with pytest.raises(DataError, match=r"was trained on other data \(digits\)"):
        inspect(Inspect(groups=(group("g", [study(two)[0]]),), data=StudyData(family=other), measuring=little))


def test_a_study_net_is_known_on_data_of_the_users_too(study, two, group, inspect, little):
    path, measured, _, described = study(two)
    data = Images(source="digits", classes=tuple("01234"))
    own = Inspect(groups=(group("g", [path]),), data=data, measures=("rank",), measuring=described.measuring)
    (row, _) = inspect(own)["models"]
    equal([layer["raw"] for layer in row["layers"]], [layer["raw"] for layer in measured["models"][0]["layers"]])


# -- nets of a user's ------------------------------------------------------------------------------


def test_a_group_of_several_kinds_of_files(save, package, group, images, little, inspect):
    paths = [save("a.safetensors"), save("b.pt", seed=1), save("c.pth", seed=2)]
    config = Inspect(
        groups=(group("g", paths, net=f"{package}:build", color="#112233"),), data=images, measuring=little
    )
    found = inspect(config)
    assert [(row["checkpoint"], row["member"]) for row in found["models"]] == [(str(path), None) for path in paths]
    (own,) = found["groups"]
    assert own == {
        "name": "g",
        "color": "#112233",
        "net": f"{package}:build",
        "num_parameters": 64 * 16 + 16 + 2 * (16 * 16 + 16) + 16 * 3 + 3,
        "taps": ["2.0", "2.1"],
    }
    for row in found["models"]:
        assert np.mean(row["clean_by_example"]) == pytest.approx(row["clean_accuracy"])
        assert np.mean(row["corrupted_by_example"]) == pytest.approx(np.mean(list(row["accuracy"].values())))
        assert set(row["clean_by_example"]) <= {0.0, 1.0}
        for layer in row["layers"]:
            for kind in ("by_norm", "raw"):
                listed = layer["margins_by_example"][kind]
                assert len(listed) == found["num_probe_test"] == 24
                assert np.mean(listed) == pytest.approx(layer["margins"]["clean"][kind]["mean"])
        assert "transfer" not in row


def test_the_controls_find_nothing(save, package, group, images, little, inspect):
    path = save("a.safetensors")
    own = group("g", [path], net=f"{package}:build")
    asked = Inspect(groups=(own,), data=images, measures=("margins", "rank"), measuring=little)
    controls = inspect(asked)["controls"]
    chance = 1 / 3
    assert controls["tap"] == "2.1"
    assert controls["untrained"]["num_examples"] == 24
    assert len(set(controls["untrained"]["clean_accuracies"])) > 1  # of nets of their own
    assert abs(np.mean(controls["untrained"]["clean_accuracies"]) - chance) < 0.3
    number = controls["shuffled_labels"]["num_test"]
    assert abs(controls["shuffled_labels"]["test_accuracy"] - chance) < 3 * np.sqrt(chance * (1 - chance) / number)
    assert controls["rank_one"]["raw"]["effective_rank"] == pytest.approx(1, abs=1e-4)


def test_a_function_that_gives_trained_nets_has_no_untrained_one(
    save, package, group, images, little, inspect, tmp_path
):
    own = group("g", [save("a.safetensors")], net=f"{package}trained:build")
    (tmp_path / f"{package}trained.py").write_text(
        f"import torch\nimport {package}\n\n\ndef build():\n    torch.manual_seed(0)\n    return {package}.build()\n"
    )
    result = inspect(Inspect(groups=(own,), data=images, measures=("margins",), measuring=little))
    assert "untrained" not in result["controls"]
    assert "g: a new net has the weights of the one before, so none is untrained" in result["notes"]


@pytest.mark.kernels
def test_the_same_command_gives_the_same_bytes_and_a_finished_one_is_read(
    save, package, group, images, little, inspect, tmp_path, monkeypatch
):
    own = group("g", [save("a.safetensors"), save("b.pt", seed=1)], net=f"{package}:build")
    config = Inspect(groups=(own,), data=images, measuring=little)
    events = []
    first = inspect(config, "first", report=events.append)
    torch.rand(3)  # another state of the global generator
    inspect(config, "second")
    assert (tmp_path / "first/result.json").read_bytes() == (tmp_path / "second/result.json").read_bytes()
    steps = [event["step"] for event in events]
    assert steps == sorted(steps)
    assert steps[-1] == events[-1]["budget"]
    monkeypatch.setattr(job, "candidates", lambda *_: pytest.fail("done again"))
    assert inspect(config, "first") == first
    assert read_json(tmp_path / "first/env.json")["peak_memory_mb"] > 10


@pytest.mark.kernels
def test_checkpoints_one_by_one_are_measured_as_together(save, package, group, images, little, inspect, monkeypatch):
    own = group("g", [save("a.safetensors"), save("b.pt", seed=1)], net=f"{package}:build")
    config = Inspect(groups=(own,), data=images, measures=("robustness", "rank"), measuring=little)
    together = inspect(config, "together")
    monkeypatch.setattr("muonlab.studies.checkpoints.work.candidates.TOGETHER_BYTES", 0)
    equal(inspect(config, "one by one"), together, rel=1e-4, abs=1e-6)  # float32, in stacks of another height


def test_only_what_is_asked_for_is_there(save, package, group, images, little, inspect):
    own = group("g", [save("a.safetensors")], net=f"{package}:build")
    ranks = inspect(Inspect(groups=(own,), data=images, measures=("rank",), measuring=little), "ranks")
    (row,) = ranks["models"]
    assert row.keys() == {"group", "checkpoint", "member", "layers"}
    assert "margins" not in row["layers"][0]
    robust = inspect(Inspect(groups=(own,), data=images, measures=("robustness",), measuring=little), "robust")
    assert "layers" not in robust["models"][0]
    assert robust["controls"].keys() == {"tap", "untrained"}
    moved = images.model_copy(update={"transfer_source": "digits"})
    (row,) = inspect(Inspect(groups=(own,), data=moved, measures=("transfer",), measuring=little), "moved")["models"]
    assert np.mean(row["transfer"]["by_example"]) == pytest.approx(row["transfer"]["accuracy"])
    assert row["transfer"]["accuracy"] > 0.5 > row["transfer"]["chance"]  # ten classes, by a probe


def test_a_checkpoint_that_has_changed_is_refused(save, package, group, images, little, inspect):
    own = group("g", [save("a.safetensors")], net=f"{package}:build")
    save("a.safetensors", seed=1)
    with pytest.raises(DataError, match=r"a.safetensors has changed since it was asked for; ask again"):
        inspect(Inspect(groups=(own,), data=images, measuring=little))


def test_the_table_of_taps_has_shapes_and_choices(save, package, group, images, little):
    own = group("g", [save("a.safetensors")], net=f"{package}:build")
    table = job.tap_table(Inspect(groups=(own,), data=images, measuring=little))
    assert ("g", "1", (1, 16), False) in table
    assert [name for _, name, _, is_tap in table if is_tap] == ["2.0", "2.1"]

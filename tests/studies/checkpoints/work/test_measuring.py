import copy

import pytest
import torch
from torch import nn

from muonlab.data.sources import DataError
from muonlab.studies.checkpoints.config import Inspect, Texts
from muonlab.studies.checkpoints.work.material import open_data
from muonlab.studies.checkpoints.work.measuring import inspect_models

MEASURES = ("robustness", "rank")


def test_modules_in_memory_have_the_numbers_of_their_files(make_net, save, package, group, images, little, inspect):
    groups = {"a": [make_net(0), make_net(1)], "b": [make_net(2, number=3)]}
    found = inspect_models(groups, images, measures=MEASURES, measuring=little)
    config = Inspect(
        groups=(
            group("a", [save("a.pt"), save("b.pt", 1)], net=f"{package}:build"),
            group("b", [save("c.pt", 2, 3)], net=f"{package}:deeper"),
        ),
        data=images,
        measures=MEASURES,
        measuring=little,
    )
    files = inspect(config)
    named = {"checkpoint", "member"}
    for own, other in zip(found["models"], files["models"], strict=True):
        assert {key: own[key] for key in own.keys() - named} == {key: other[key] for key in other.keys() - named}
    assert [row["checkpoint"] for row in found["models"]] == ["a 0", "a 1", "b 0"]
    assert [len(own["taps"]) for own in found["groups"]] == [2, 3]
    assert "untrained" not in found["controls"]  # nothing makes them anew


def test_a_net_that_learnt_is_told_from_one_that_did_not(make_net, images, little):
    trained = make_net(0)
    train = open_data(images).judged.train
    optimizer = torch.optim.Adam(trained.parameters(), lr=0.01)
    for _ in range(40):
        optimizer.zero_grad()
        nn.functional.cross_entropy(trained(train.inputs), train.labels).backward()
        optimizer.step()
    found = inspect_models(
        {"trained": [trained], "new": [make_net(0)]}, images, measures=["robustness"], measuring=little
    )
    old, new = found["models"]
    assert old["clean_accuracy"] > 0.9 > 0.6 > new["clean_accuracy"]
    assert max(old["accuracy"]["gaussian_noise"]) < old["clean_accuracy"] + 0.05


def test_models_of_two_architectures_in_one_group_are_refused(make_net, images, little):
    with pytest.raises(DataError, match="g has models of several architectures; give each a group of its own"):
        inspect_models({"g": [make_net(0), make_net(0, number=3)]}, images, measures=["rank"], measuring=little)


def test_numbers_that_are_not_finite_are_null(make_net, images, little):
    net = make_net()
    net[2][1][0].weight.data.zero_()
    net[2][1][0].bias.data.zero_()
    dead = copy.deepcopy(net)
    found = inspect_models({"dead": [dead]}, images, measures=["margins"], measuring=little)
    (_, last) = found["models"][0]["layers"]
    assert last["margins_by_example"]["by_norm"] is None
    assert len(last["margins_by_example"]["raw"]) == 24
    assert last["margins"]["clean"]["by_norm"]["mean"] is None


def test_a_text_without_labelled_ones_has_robustness_and_ranks(texts, little):
    data = Texts(source=str(texts / "text.txt"), length=16)
    net = nn.Sequential(nn.Embedding(256, 8), nn.Linear(8, 8), nn.Linear(8, 256))
    found = inspect_models({"g": [net]}, data, measures=["robustness", "rank"], measuring=little, taps=["1"])
    assert found["probe_chance"] is None
    assert found["num_probe_test"] == 0
    (row,) = found["models"]
    assert len(row["clean_by_example"]) == len(row["corrupted_by_example"]) == found["num_examples"]
    assert row["layers"][0]["raw"]["effective_rank"] > 1


def test_copies_of_weights_are_left_out(make_net, images, little):
    nets = [make_net(0), copy.deepcopy(make_net(0)), make_net(1)]
    found = inspect_models({"g": nets, "h": [make_net(0)]}, images, measures=["rank"], measuring=little)
    assert [row["checkpoint"] for row in found["models"]] == ["g 0", "g 2", "h 0"]
    assert "g: g 1 has the weights of g 0; left out" in found["notes"]

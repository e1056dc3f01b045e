import json
import math

import numpy as np
import pytest

import synthetic_features as synthetic
from muonlab.jobs.files import StudyError
from muonlab.studies.features.readings import read


@pytest.fixture(scope="module")
def found():
    return synthetic.found()


def first(*args, **kwargs):
    """Return the results of the first family."""
    return next(iter(synthetic.found(*args, **kwargs).runs.families.values()))


def test_what_a_study_holds(found):
    assert [arm.label for arm in found.arms] == ["muon", "adamw"]
    assert list(found.runs.families) == ["cnn on digits", "gpt on sources"]
    assert found.expected == len(found.records)
    cnn = found.runs.families["cnn on digits"]
    assert [len(cnn.of(name, state)) for name, state in (("muon", "final"), ("adamw", "untrained"))] == [4, 4]
    assert len(cnn.transfers) == 2 + 3 * 2  # two probes, three kinds of weights by two optimizers
    assert cnn.probed["muon", "final"].keys() == {0, 1, 2, 3}


def test_numbers_of_a_model(found):
    model = found.runs.families["cnn on digits"].of("muon", "final")[0]
    assert model.corrupted_accuracy == pytest.approx(np.mean(list(model.accuracy.values())))
    assert model.margin("by_norm") == pytest.approx(np.mean([0.985, 1.985]))
    assert model.margin("raw", "corrupted") == pytest.approx(2.5 * np.mean([0.985, 1.985]))
    assert model.rank() == pytest.approx(np.mean([3.985, 4.985]))
    assert model.rank("stable_rank", "centred") == pytest.approx(np.mean([3.985, 4.985]) / 2 + 0.5)


def test_a_search_knows_its_edge_and_what_diverged():
    def loss(optimizer, rate, seed, part):
        return None if optimizer == "muon" and rate > 0.005 and part > 0.5 else 2 - part

    cnn = first(planted=synthetic.Planted(loss=loss))
    muon, adamw = cnn.searches["muon"], cnn.searches["adamw"]
    assert (muon.best, muon.edge, muon.scores[0.01], muon.losses[0.01]) == (0.003, "low", (0, math.inf), [None])
    assert (adamw.best, adamw.edge, adamw.num_runs) == (0.003, "low", 2)  # of equals the smaller


def test_a_run_that_diverged_is_in_no_measure_and_on_no_path():
    def loss(optimizer, rate, seed, part):
        return None if (optimizer, seed) == ("adamw", 1) and part > 0.5 else 2 - part

    cnn = first(planted=synthetic.Planted(loss=loss))
    assert {model.seed for model in cnn.of("adamw", "final")} == {0, 2, 3}
    assert {row["seed"] for row in cnn.path["adamw"]} == {0, 2, 3}
    assert cnn.effective_robustness("adamw").keys() == {0, 2, 3}


def test_effective_robustness_is_the_height_above_the_rivals_line():
    planted = synthetic.Planted(shift=lambda what, net, optimizer: 0.05 * (what == "path" and optimizer == "muon"))
    cnn = first(planted=planted)
    rows = [row for row in cnn.path["adamw"] if row["step"] > 0]
    clean, corrupted = (np.array([row[key] for row in rows]) for key in ("clean", "corrupted"))
    slope, intercept = np.polyfit(np.log(clean / (1 - clean)), np.log(corrupted / (1 - corrupted)), 1)
    assert cnn.fit == pytest.approx((slope, intercept))
    last = next(row for row in cnn.path["muon"] if row["seed"] == 2 and row["step"] == 12)
    expected = slope * math.log(last["clean"] / (1 - last["clean"])) + intercept
    found = cnn.effective_robustness("muon")[2]
    assert found == pytest.approx(math.log(last["corrupted"] / (1 - last["corrupted"])) - expected)
    assert found > 0


def test_a_way_of_transfer(found):
    way = found.runs.families["cnn on digits"].transferred("classes", "muon", "adamw")
    assert way is not None
    assert way.accuracies == pytest.approx({0: 0.485, 1: 0.495, 2: 0.505, 3: 0.515})
    assert (way.rate, way.num_last, way.chance) == (0.01, 1, 0.25)
    assert way.search is not None
    assert (way.search.edge, way.search.scores[0.01]) == ("high", (0, 1.0))  # the best evaluation counts, not the last
    assert found.runs.families["cnn on digits"].transferred("language", "muon", "adamw") is None


def test_a_study_that_has_just_begun(nothing):
    families = nothing.runs.families.values()
    assert all(not family.models and not family.finals and family.fit is None for family in families)
    assert {record.status for record in nothing.records} == {"waiting"}


def test_no_study(tmp_path):
    with pytest.raises(StudyError, match="holds no study"):
        read(tmp_path)


def test_the_margins_of_a_probe_without_weights_count_as_zero(tmp_path):
    asked = synthetic.study(families=["cnn"])
    folder = synthetic.write(tmp_path, asked)
    for path in folder.glob("*/result.json"):
        result = json.loads(path.read_text())
        for model in result.get("models", ()):
            kinds = model["layers"][0]["margins"]["clean"]
            kinds["by_norm"] = dict.fromkeys(("mean", "mean_interval", "median", "median_interval"))
        path.write_text(json.dumps(result))
    (family,) = read(folder)[0].families.values()
    for model in family.models:
        others = [layer["margins"]["clean"]["by_norm"]["median"] for layer in model.layers[1:]]
        assert model.margin("by_norm") == pytest.approx(sum(others) / (len(others) + 1))
        assert model.layers[0]["margins"]["clean"]["by_norm"]["mean_interval"] == [0.0, 0.0]

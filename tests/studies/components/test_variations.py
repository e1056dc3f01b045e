import pytest

from muonlab.studies.components import plan
from muonlab.studies.components.config import Components
from muonlab.studies.components.variations import VARIATIONS, vary, weakest
from muonlab.study.settings import UsageError

BASE = plan("laptop").base


def difference(name):
    """Return the fields in which a variation differs from the base."""
    varied = vary(name, BASE)
    assert varied is not None
    before, after = (case.model_dump(exclude={"name", "role", "map"}) for case in (BASE, varied))
    return {
        (*((part,) if part != "optimizers" else ()), key): value
        for part in after
        for key, value in (after[part].items() if isinstance(after[part], dict) else [("", after[part])])
        if value != (before[part][key] if isinstance(after[part], dict) else before[part])
    }


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("random", {("components", "patterns"): "random"}),
        ("aligned", {("components", "rotation"): 0.0}),
        ("spurious", {("components", "spurious"): 4}),
        ("imbalance", {("components", "imbalance"): 10.0}),
        ("few", {("components", "train"): 32}),
        ("batches", {("batch", ""): 32}),
        ("squared", {("loss", ""): "squared"}),
        ("deep", {("net", "depth"): 2}),
        ("power", {("components", "strengths"): "power"}),
    ],
)
def test_a_variation_changes_one_factor(name, changed):
    assert difference(name) == changed


def test_momentum_and_weight_decay_change_every_optimizer():
    still = {each.name: each for each in vary("momentum", BASE).optimizers}
    assert (still["muon"].momentum, still["sgd"].momentum, still["adamw"].beta1) == (0, 0, 0)
    assert {each.weight_decay for each in vary("decay", BASE).optimizers} == {0.1}


@pytest.mark.parametrize("name", VARIATIONS)
def test_a_variation_of_itself_is_none(name):
    varied = vary(name, BASE)
    again = None if name in ("few", "batches") else vary(name, varied.model_copy(update={"role": "map"}))
    assert varied.role == "variation"
    assert (varied.map, varied.name) == (name, VARIATIONS[name][0](varied))
    if again is not None:  # only names differ, which are no factor
        assert again.model_dump(exclude={"name", "map", "role"}) == varied.model_dump(exclude={"name", "map", "role"})


def test_a_setting_that_is_a_variation_already_is_left_out():
    study = plan("laptop", {"patterns": "random", "rotation": 0})
    assert not {"random", "aligned"} & {case.map for case in study.cases if case.role == "variation"}


@pytest.mark.parametrize(
    ("settings", "number"),
    [({}, 4), ({"classes": 2}, 1), ({"patterns": "random"}, 1), ({"rank": 5}, 2), ({"classes": 5, "dimension": 8}, 1)],
)
def test_the_weakest_are_those_of_the_last_level_or_the_last_one(settings, number):
    assert weakest(Components(**settings)) == number


def test_a_problem_that_cannot_be_has_no_weakest():
    with pytest.raises(UsageError, match="expected 3 numbers"):
        weakest(Components(strengths=(1.0,)))

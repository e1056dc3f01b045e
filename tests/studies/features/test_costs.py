import pytest
from hypothesis import given
from hypothesis import strategies as st
from muonlab.studies.features.costs import measuring_cost, products, training_cost
from muonlab.studies.features.rounds import outline

from muonlab.studies.features.config import (
    CNNConfig,
    Family,
    GPTConfig,
    ImageData,
    Measure,
    Measuring,
    State,
    Training,
)
from muonlab.studies.features.plan import plan

FAMILIES = [each.family for each in plan("laptop").families]
families = st.sampled_from(FAMILIES)
counts = st.integers(1, 500)


def larger(family, **fields):
    return Family(net=family.net.model_copy(update=fields), data=family.data)


def measure(family, *, states=1, seeds=2, looks=3, **measuring):
    every = tuple(range(seeds))
    return Measure(
        family=family,
        weights="",
        seeds=every,
        states=(State(name="", seeds=every, steps=(0,) * seeds),) * states,
        looks=tuple(range(looks)),
        measuring=Measuring(**measuring),
    )


@given(families, counts, counts, counts)
def test_training_costs_in_proportion_to_steps_and_members_and_more_for_a_larger_batch(family, budget, members, batch):
    cost = training_cost(family, Training(budget=budget, batch=batch), members)
    assert cost > 0
    assert training_cost(family, Training(budget=3 * budget, batch=batch), members) == pytest.approx(3 * cost)
    assert training_cost(family, Training(budget=budget, batch=batch), 3 * members) == pytest.approx(3 * cost)
    assert training_cost(family, Training(budget=budget, batch=batch + 1), members) > cost


@pytest.mark.parametrize(
    ("family", "fields"),
    [
        (FAMILIES[0], {"width": 32}),
        (FAMILIES[0], {"depths": (1, 1, 1, 1)}),
        (FAMILIES[0], {"depths": (2, 1, 1)}),
        (FAMILIES[1], {"width": 96}),
        (FAMILIES[1], {"depth": 4}),
        (FAMILIES[1], {"patch": 1}),
        (FAMILIES[2], {"width": 128}),
        (FAMILIES[2], {"depth": 3}),
    ],
)
def test_a_larger_net_costs_more(family, fields):
    assert products(larger(family, **fields)) > products(family)


@given(st.sampled_from(FAMILIES[:2]), st.integers(2, 50))
def test_larger_images_cost_more(family, half):
    def of(side):
        return products(Family(net=family.net, data=ImageData(name="x", source="x", size=side)))

    assert of(2 * half + 8) > of(2 * half + 6)


@given(families, st.integers(1, 4), st.integers(1, 6), st.integers(1, 9), counts)
def test_measures_cost_more_for_more_states_seeds_looks_and_examples(family, states, seeds, looks, examples):
    sizes = {"states": states, "seeds": seeds, "looks": looks, "examples": examples, "path_examples": examples}
    cost = measuring_cost(family, measure(family, **sizes))
    for name, size in sizes.items():
        assert measuring_cost(family, measure(family, **{**sizes, name: size + 1})) > cost


def test_products_are_those_of_the_matrices():
    """By hand: one stage of one block has two 3 x 3 convolutions; a decoder has its matrices and attention."""
    cnn = Family(net=CNNConfig(width=8, depths=(1,)), data=ImageData(name="x", source="digits"))
    assert products(cnn) == 64 * 9 * 2 * 8**2
    net = GPTConfig(depth=1, width=16, heads=2, feed_forward="gelu")
    gpt = Family(net=net, data=FAMILIES[2].data.model_copy(update={"length": 10}))
    assert products(gpt) == 10 * (12 * 16**2 + 2 * 10 * 16 + 257 * 16)


def test_every_job_of_a_laptop_takes_some_time_and_all_of_them_minutes():
    costs = [cost for _, cost in outline(plan("laptop"))]
    assert min(costs) > 0
    assert 60 < sum(costs) < 3600

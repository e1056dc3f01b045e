from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from muonlab.nets import mlp
from muonlab.rules import polar
from muonlab.studies.components.config import SGD, AdamW, Agree, Components, Muon, Net, Simulate, read
from muonlab.studies.components.theory import problem


def make_simulate(**fields):
    given = {"components": Components(), "optimizer": Muon(), "eps": (0.1,), "rates": (0.1, 0.2), "seeds": (0, 1)}
    return Simulate.model_validate(given | fields)


def make_agree(**fields):
    given = {"components": Components(noise=0), "flow": "gradient", "time": 1.0, "steps": (10, 20)}
    return Agree.model_validate(given | fields)


JOBS = (
    make_simulate(),
    make_simulate(optimizer=SGD(), loss="squared", batch=32, net=Net(depth=2), search_seeds=(7,)),
    make_simulate(optimizer=AdamW(), components=Components(tree=(2, 4), strengths=(3.0, 1.0), rank=4)),
    make_agree(),
    make_agree(flow="sign", loss="squared"),
)


@pytest.mark.parametrize("job", JOBS)
def test_a_job_is_read_back_from_its_json(job):
    assert read(job.model_dump(mode="json")) == job


def test_a_job_cannot_be_changed():
    with pytest.raises(ValidationError, match="frozen"):
        JOBS[0].budget = 3  # type: ignore[misc]


def test_an_unknown_kind_is_named_with_those_there_are():
    with pytest.raises(ValueError, match="'simulate', 'agree'"):
        read(JOBS[0].model_dump(mode="json") | {"kind": "measure"})


# What a problem refuses, and what `muonlab.studies.components.theory.problem.build` says to the same.
PROBLEMS = [
    ({"classes": 1}, "classes=1: expected two or more"),
    ({"rank": 8}, "rank=8 for 8 classes: expected 1 to 7"),
    ({"dimension": 6}, "7 components in 6 inputs: .* raise dimension to 7 or more"),
    ({"classes": 20, "rank": 19, "dimension": 18}, "19 components in 18 inputs"),
    ({"tree": (2, 3)}, r"tree=\(2, 3\) has 6 classes, but classes=8"),
    ({"tree": (8, 1)}, r"tree \(8, 1\): expected two children or more"),
    ({"tree": ()}, r"tree=\(\) has 1 classes, but classes=8"),
    ({"tree": (2, 4), "patterns": "random"}, r"tree=\(2, 4\) without patterns='tree': leave it out"),
    ({"strengths": (2.0, -1.0, -2.0)}, "expected numbers above 0 that do not rise"),
    ({"strengths": (1.0, 2.0, 0.5)}, "expected numbers above 0 that do not rise"),
    ({"strengths": (2.0, 1.0, 0.0)}, "expected numbers above 0 that do not rise"),
]


@pytest.mark.parametrize(("fields", "message"), PROBLEMS)
def test_a_problem_that_cannot_be_is_refused_in_the_words_of_the_theory(fields, message):
    with pytest.raises(ValueError, match=message):
        Components(**fields)
    with pytest.raises(ValueError, match=message):
        problem.build(**fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"spurious": 8}, "spurious=8 of 7 components: expected 0 to 7"),
        ({"spurious": -1}, "spurious"),
        ({"strengths": ()}, r"strengths=\[\]: expected numbers above 0"),
        ({"ratio": 0.5}, "ratio"),
        ({"scale": 0}, "scale"),
        ({"rotation": 1.1}, "rotation"),
        ({"imbalance": 0.9}, "imbalance"),
        ({"noise": -0.1}, "noise"),
        ({"train": 0}, "train"),
        ({"rank": 0}, "rank"),
        ({"shape": 3}, "shape"),
    ],
)
def test_a_setting_of_the_problem_out_of_range_is_named(fields, message):
    with pytest.raises(ValueError, match=message):
        Components(**fields)


def test_all_components_may_be_spurious():
    assert Components(spurious=7).num_components == 7
    assert Components(rank=3, spurious=3).num_components == 3


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"batch": 257}, "batch=257 of 256 training examples: expected at most as many, or None for all of them"),
        ({"eps": (0.1, 0.0)}, "eps.1"),
        ({"eps": (-0.1,)}, "eps.0"),
        ({"eps": ()}, "eps"),
        ({"rates": ()}, "rates"),
        ({"rates": (-0.1,)}, "rates.0"),
        ({"seeds": ()}, "seeds"),
        (
            {"search_seeds": (1, 2)},
            "seed 1 is there twice among seeds .* a seed that has chosen a rate cannot judge it",
        ),
        ({"seeds": (3, 3)}, "seed 3 is there twice"),
        ({"net": {"depth": 3}}, "net.depth"),
        ({"optimizer": {"name": "lion"}}, "optimizer"),
        ({"optimizer": {"name": "sgd", "dampening": 0.1}}, "dampening"),
        ({"loss": "hinge"}, "loss"),
        ({"budget": 0}, "budget"),
    ],
)
def test_a_setting_of_a_simulation_out_of_range_is_named(fields, message):
    with pytest.raises(ValueError, match=message):
        make_simulate(**fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"components": Components()}, "noise=0.1, spurious=0: the closed forms are of class means; expected 0, 0"),
        ({"components": Components(noise=0, spurious=1)}, "noise=0, spurious=1: the closed forms"),
        ({"components": Components(noise=0, imbalance=2)}, "imbalance=2 with flow=gradient: .* needs equal priors"),
        (
            {"components": Components(noise=0, patterns="random")},
            "patterns=random with loss=softmax and flow=gradient: the closed form is that of a tree",
        ),
        ({"steps": (10, 30)}, r"steps=\(10, 30\): expected doublings, as in \(50, 100, 200\)"),
        ({"steps": (10,)}, "steps"),
        ({"time": 0}, "time"),
        ({"flow": "newton"}, "flow"),
    ],
)
def test_an_agreement_without_a_closed_form_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        make_agree(**fields)


def test_sign_descent_at_small_logits_takes_any_problem_and_the_squared_loss_any_patterns():
    make_agree(flow="sign", components=Components(noise=0, imbalance=2, patterns="random"))
    make_agree(loss="squared", components=Components(noise=0, patterns="random"))


@given(budget=st.integers(1, 10_000), looks=st.integers(1, 200))
def test_looks_begin_at_zero_grow_apart_geometrically_and_end_at_the_budget(budget, looks):
    steps = make_simulate(budget=budget, looks=looks).steps
    assert steps[0] == 0
    assert steps[1] == 1
    assert steps[-1] == budget
    assert all(first < second for first, second in pairwise(steps))
    assert len(steps) <= looks + 2
    factor = budget ** (1 / looks)
    assert all(second <= factor * (first + 0.5) + 0.5 + 1e-6 for first, second in pairwise(steps[1:]))


def test_the_schema_names_what_the_nets_and_rules_offer():
    assert set(Net.model_json_schema()["properties"]["activation"]["enum"]) <= set(mlp.ACTIVATIONS)
    assert set(Muon.model_json_schema()["properties"]["method"]["enum"]) <= set(polar.METHODS)

import itertools
import math

import numpy as np
import pytest

from muonlab.studies.components.theory import crossing
from muonlab.studies.components.work.material import build_problem, streams
from muonlab.studies.components.work.simulating import between, reached

OPTIMIZERS = ("sgd", "adamw", "muon")


def member(result, rate, seed):
    return next(each for each in result["members"] if (each["rate"], each["seed"]) == (rate, seed))


def assert_close(found, expected, rel=1e-4):
    """Compare results, deep: numbers to a share, all else as it is."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            assert_close(found[name], value, rel)
    elif isinstance(expected, list):
        assert len(found) == len(expected)
        for first, second in zip(found, expected, strict=True):
            assert_close(first, second, rel)
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, rel=rel, abs=1e-5)
    else:
        assert found == expected


@pytest.mark.kernels
@pytest.mark.parametrize(("name", "depth", "batch"), [("sgd", 0, None), ("adamw", 1, 10), ("muon", 1, 10)])
def test_a_member_is_what_it_is_alone(make_job, simulate, name, depth, batch):
    fields = {"net": {"depth": depth, "width": 8}, "optimizer": {"name": name}, "eps": (1.0, 0.3), "batch": batch}
    together = simulate(make_job(**fields, rates=(0.01, 0.3), seeds=(4, 6), search_seeds=(5,)))
    alone = simulate(make_job(**fields, rates=(0.3,), seeds=(6,)))
    assert_close(member(together, 0.3, 6), alone["members"][0])


@pytest.mark.kernels
def test_a_seed_starts_from_the_same_weights_and_data_under_all_optimizers_and_rates(make_job, simulate):
    jobs = [
        make_job(net={"depth": 1, "width": 8}, optimizer={"name": name}, rates=(0.01, 0.1), seeds=(0, 1), budget=1)
        for name in OPTIMIZERS
    ]
    everyone = [each for job in jobs for each in simulate(job)["members"]]
    for seed in (0, 1):
        members = [each for each in everyone if each["seed"] == seed]
        for name in ("train_loss", "validation_loss"):
            assert [each[name][0] for each in members] == pytest.approx([members[0][name][0]] * len(members), rel=1e-5)
        assert len({each["train_loss"][1] for each in members}) == len(members)
        for each in members:
            assert_close(each["start"], members[0]["start"])
            assert each["start"]["train_loss"] == each["train_loss"][0]
        assert 1 < members[0]["start"]["rank_hidden"] <= 8
        assert members[0]["start"]["weight_norm"] != members[0]["end"]["weight_norm"]
    assert len({round(each["train_loss"][0], 4) for each in everyone}) == 2


@pytest.mark.parametrize(
    ("flow", "optimizer"),
    [
        ("gradient", {"name": "sgd", "momentum": 0}),
        ("spectral", {"name": "muon", "momentum": 0, "nesterov": False, "method": "exact"}),
    ],
)
def test_with_small_steps_the_measures_at_eps_are_those_of_the_closed_forms(make_job, simulate, flow, optimizer):
    eps, rate = (0.5, 0.2), {"gradient": 0.4, "spectral": 0.05}[flow]
    job = make_job(
        components={"noise": 0, "ratio": 4}, optimizer=optimizer, rates=(rate,), eps=eps, budget=400, looks=100
    )
    (found,) = simulate(job)["members"]
    problem = build_problem(job.components, streams(job)[0])
    for at in found["at"]:
        time = crossing.first_time(problem, flow, at["eps"], "softmax")
        assert time is not None
        assert at["step"] * rate == pytest.approx(time, rel=0.02)
        expected = crossing.at_loss(problem, flow, at["eps"], "softmax")
        assert expected is not None
        for name in ("margin_worst", "margin_mean", "component_margins", "rank_weights", "rank_logits", "weight_norm"):
            np.testing.assert_allclose(at["values"][name], expected[name], rtol=0.02, err_msg=name)
        assert at["values"]["test_accuracy"] == 1


def test_what_is_read_at_eps_lies_between_the_evaluations_around_it(make_job, simulate):
    fields = {"net": {"depth": 1, "width": 8}, "components": {"noise": 0.3}}
    result = simulate(make_job(**fields, eps=(0.9,), budget=100, looks=5))
    (found,) = result["members"]
    (at,) = found["at"]
    number = next(k for k, loss in enumerate(found["train_loss"]) if loss <= 0.9)
    assert number > 1
    high, low = found["train_loss"][number - 1 : number + 1]
    share = math.log(high / 0.9) / math.log(high / low)
    # Runs that never reach their eps end at those evaluations.
    before, after = (
        simulate(make_job(**fields, eps=(1e-9,), budget=result["steps"][k], looks=5))["members"][0]["end"]
        for k in (number - 1, number)
    )
    assert before["train_loss"] == pytest.approx(high)
    assert at["step"] == pytest.approx(result["steps"][number - 1] * (1 - share) + result["steps"][number] * share)
    assert at["values"].pop("train_loss") == 0.9
    for name, value in at["values"].items():
        ends = np.array(before[name], float), np.array(after[name], float)
        is_loss = name.endswith("_loss")
        first, second = np.log(ends) if is_loss else ends
        expected = (1 - share) * first + share * second
        expected = np.exp(expected) if is_loss else expected
        np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-6, err_msg=name)


def test_within_the_first_step_from_zero_a_rank_is_that_after_it(make_job, simulate):
    fields = {"rates": (1.0,), "components": {"noise": 0.3}, "looks": 5}
    (found,) = simulate(make_job(**fields, eps=(1.3,)))["members"]
    at = found["at"][0]
    (after,) = simulate(make_job(**fields, eps=(1e-9,), budget=1))["members"]
    assert 0 < at["step"] < 1
    for name in ("rank_weights", "rank_logits_sigma", "margin_worst_by_norm"):
        assert at["values"][name] == pytest.approx(after["end"][name])
    assert 0 < at["values"]["weight_norm"] < 0.99 * after["end"]["weight_norm"]


def test_eps_that_is_not_reached_is_said_and_not_dropped(make_job, simulate):
    result = simulate(make_job(eps=(1.3, 1e-6), budget=5, rates=(0.0, 0.1)))
    still, moving = result["members"]
    nothing = {"step": None, "reason": "not reached", "values": None}
    assert still["at"] == [{"eps": eps} | nothing for eps in (1.3, 1e-6)]
    assert still["train_loss"] == pytest.approx([math.log(4)] * len(result["steps"]))
    assert moving["at"][0]["reason"] is None
    assert moving["at"][1] == {"eps": 1e-6} | nothing
    assert moving["end"]["train_loss"] == moving["train_loss"][-1]
    assert moving["diverged_at"] is None


def test_a_member_that_diverges_says_when_and_leaves_the_others_alone(make_job, simulate):
    fields = {"loss": "squared", "eps": (1.0, 1e-9), "budget": 30}
    result = simulate(make_job(**fields, rates=(1e6, 0.05)))
    lost, sound = result["members"]
    assert lost["diverged_at"] in result["steps"][1:]
    number = result["steps"].index(lost["diverged_at"])
    assert None not in lost["train_loss"][:number]
    assert set(lost["train_loss"][number:]) == {None}
    assert lost["end"]["train_loss"] == lost["train_loss"][number - 1]  # the last that is there
    assert math.isfinite(lost["end"]["test_loss"])
    assert lost["at"][0]["step"] == 0  # 3/8 at the start, at which W is zero
    assert lost["at"][1] == {"eps": 1e-9, "step": None, "reason": "diverged", "values": None}
    assert_close(sound, simulate(make_job(**fields, rates=(0.05,)))["members"][0])
    (alone,) = simulate(make_job(**fields, rates=(1e6,)))["members"]  # where all diverge there is a result, too
    assert_close(alone, lost)


def test_a_member_ends_at_the_smallest_eps_which_changes_nothing_before_it(make_job, simulate):
    fields = {"optimizer": {"name": "muon"}, "rates": (0.1, 0.3), "budget": 40}
    short, long = (simulate(make_job(**fields, eps=eps)) for eps in ((0.5,), (0.5, 1e-12)))
    for first, second in zip(short["members"], long["members"], strict=True):
        assert_close(first["at"][0], second["at"][0])
        number = sum(loss is not None for loss in first["train_loss"])
        assert_close(first["train_loss"][:number], second["train_loss"][:number])
        assert first["train_loss"][number - 1] <= 0.5
        assert first["end"]["train_loss"] == first["train_loss"][number - 1]
    ends = [sum(loss is not None for loss in each["train_loss"]) for each in short["members"]]
    assert ends[1] < ends[0] < len(short["steps"])


def test_members_come_with_what_they_are(make_job, simulate):
    problem = {"classes": 6, "dimension": 8, "tree": (2, 3), "imbalance": 3, "test": 50}
    result = simulate(make_job(components=problem, rates=(0.1, 0.2), seeds=(3, 1), search_seeds=(7,), budget=1))
    labels = [(each["rate"], each["seed"], each["is_search"]) for each in result["members"]]
    assert labels == [(rate, seed, seed == 7) for rate, seed in itertools.product((0.1, 0.2), (7, 3, 1))]
    assert result["levels"] == [0, 1, 1, 1, 1]
    assert (result["num_components"], result["num_parameters"]) == (5, 48)
    shares = 3 ** (-np.arange(6) / 5)
    assert result["chance"] == pytest.approx(shares.max() / shares.sum(), abs=1 / 50)


def test_where_every_component_is_spurious_nothing_is_learnt_but_by_heart(make_job, simulate):
    problem = {"spurious": 3, "noise": 1.0, "test": 1000, "train": 12, "dimension": 12}
    (found,) = simulate(
        make_job(components=problem, optimizer={"name": "adamw"}, rates=(0.1,), eps=(0.05,), budget=300)
    )["members"]
    values = found["at"][0]["values"]
    assert values["train_loss"] == 0.05
    assert abs(values["test_accuracy"] - 1 / 4) < 4 * (3 / 16 / 1000) ** 0.5
    assert values["component_margin_worst"] is None


def test_of_one_component_nothing_is_left_without_it_and_its_swap_is_the_other_class(make_job, simulate):
    problem = {"classes": 2, "noise": 0, "test": 400}
    (found,) = simulate(make_job(components=problem, rates=(1.0,), budget=100))["members"]
    assert found["end"]["test_accuracy"] == 1
    assert found["end"]["accuracy_removed"] == 0.5
    assert found["end"]["accuracy_swapped"] == 0


# -- between two evaluations -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ([math.e, 1.0, math.exp(-3), math.exp(-9)], (2, 1 / 3)),  # eps is e^-1
        ([2.0, math.exp(-1), 2.0, 0.1], (1, 1.0)),  # the first counts, though the loss may rise again
        ([0.3, 0.1], (0, 1.0)),
        ([1.0, 0.0], (1, 1 / 708.4)),  # a loss of zero has been reached somewhere on the way
        ([], None),
        ([1.0, 0.6], None),
        ([1.0, None], None),
    ],
)
def test_a_loss_is_reached_between_two_evaluations_where_its_logarithm_says(losses, expected):
    assert reached(losses, math.exp(-1)) == (None if expected is None else pytest.approx(expected, rel=1e-4))


def test_values_are_read_between_two_evaluations_one_by_one():
    before = {"a": 1.0, "b": [0.0, 10.0], "c": None, "d": 1.0}
    after = {"a": 3.0, "b": [1.0, 20.0], "c": 1.0, "d": None}
    assert between(before, after, 0.25) == {"a": 1.5, "b": [0.25, 12.5], "c": 1.0, "d": None}
    assert between(before, after, 1.0) == after


@pytest.mark.parametrize(("before", "after", "expected"), [(0.8, 0.2, 0.4), (0.8, 0.0, 0.4), (None, 0.1, 0.1)])
def test_losses_are_read_on_the_line_of_their_logarithms(before, after, expected):
    assert between({"test_loss": before}, {"test_loss": after}, 0.5)["test_loss"] == pytest.approx(expected)

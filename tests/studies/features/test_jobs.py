import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from invented_features import bowl, drive, looks
from muonlab.studies.features import jobs_of
from muonlab.studies.features.config import (
    CNNConfig,
    Family,
    GPTConfig,
    ImageData,
    Measure,
    Measuring,
    Pretrain,
    State,
    Training,
    Transfer,
)
from muonlab.studies.features.jobs import (
    FINAL,
    JOB_SECONDS,
    UNTRAINED,
    common_loss,
    first_at,
    measuring_cost,
    outline,
    products,
    scores,
    steps,
    training_cost,
)
from muonlab.studies.features.plan import plan

DIVERGED = [5.0, None, None, None, None]


def tiny(**settings):
    return plan("tiny", {"families": "cnn", "muon.rates": [0.003, 0.01, 0.03], "extensions": 2, **settings})


def of(done, role, optimizer=None, by=None):
    return [s for s in done if s.role == role and optimizer in (None, s.arm) and by in (None, s.by)]


def rates(done, role="search", optimizer="muon"):
    return [s.config.rates for s in of(done, role, optimizer)]


def best_at(rate):
    """Losses whose lowest level is at this rate."""
    return lambda step, own, seed: bowl(step, own * 0.01 / rate, seed)


# -- the search ------------------------------------------------------------------------------------


def test_the_final_runs_have_the_best_rate_of_all_that_were_tried():
    done, _ = drive(tiny(), best_at(0.09), roles=("search", "final"))
    (final,) = of(done, "final", "muon")
    assert final.config.rates == (0.09,)
    assert final.config.keep
    assert final.config.seeds == (0, 1)


def test_a_rate_that_diverged_is_worse_than_any_other():
    def losses(step, rate, seed):
        return DIVERGED if rate > 0.005 else [9.0, 8.0, 8.0, 8.0, 8.0 + (rate < 0.003)]

    done, _ = drive(tiny(), losses, roles=("search", "final"))
    assert rates(done) == [(0.003, 0.01, 0.03), (0.0009,)]
    assert rates(done, "final") == [(0.003,)]


def test_where_every_rate_diverged_a_search_goes_down_and_then_gives_no_final_runs_but_the_others_go_on():
    def losses(step, rate, seed):
        return DIVERGED if (step.arm, step.role) == ("muon", "search") else bowl(step, rate, seed)

    done, _ = drive(tiny(), losses)
    assert rates(done) == [(0.003, 0.01, 0.03), (0.0009,), (0.00027,)]
    assert of(done, "final", "muon") == []
    assert [s.arm for s in of(done, "final")] == ["adamw"]
    (measure,) = of(done, "measure")
    assert [state.name for state in measure.config.states] == [FINAL]
    assert {s.arm for s in of(done, "transfer")} == {"adamw", "none"}


def test_pretraining_is_judged_by_its_last_evaluation_and_fine_tuning_by_its_best():
    members = [
        {"rate": 0.1, "seed": 0, "validation_loss": [3.0, 1.0, 2.0], "diverged_at": None},
        {"rate": 0.1, "seed": 1, "validation_loss": [3.0, 2.0, 4.0], "diverged_at": None},
        {"rate": 0.3, "seed": 0, "validation_loss": [3.0, 0.5, None], "diverged_at": 9},
    ]
    assert scores({"members": members}, best=False) == {0.1: (0, 3.0), 0.3: (0, math.inf)}
    assert scores({"members": members}, best=True) == {0.1: (0, 1.5), 0.3: (0, 0.5)}
    nothing = [{"rate": 0.1, "seed": 0, "validation_loss": [None]}]
    assert scores({"members": nothing}, best=True) == {0.1: (0, math.inf)}


def test_the_searches_use_these_losses():
    """A run that is best in between: the last look decides pretraining, the best look fine-tuning."""

    def losses(step, rate, seed):
        number = len(looks(step))
        dips = rate == 0.003
        return [5.0, *[0.1 if dips else 1.0] * (number - 2), 2.0 if dips else 1.0]

    done, _ = drive(tiny(extensions=0), losses)
    assert of(done, "final", "muon")[0].config.rates == (0.01,)
    assert {s.config.rates for s in of(done, "transfer") if s.config.mode == "full"} == {(0.003,)}


def test_no_choice_reads_the_test_set():
    """Results without anything of the test set lead to the end; with it, to the same jobs."""
    study = tiny()
    done, results = drive(study)
    members = [member for result in results.values() for member in result.get("members", ())]
    assert members
    assert not any(key.startswith("test") for member in members for key in member)
    for member in members:
        member |= {"test_accuracy": -member["rate"], "test_loss": member["rate"]}
    assert {step.job.id for step in steps(study, results)} == {step.job.id for step in done}


# -- states at matched loss ------------------------------------------------------------------------


def test_the_target_is_the_smallest_loss_that_all_runs_of_both_reached():
    own = [{"validation_loss": [3.0, 1.0, 1.5], "diverged_at": None}]
    rival = [
        {"validation_loss": [3.0, 2.5, 2.0], "diverged_at": None},
        {"validation_loss": [3.0, 0.1, None], "diverged_at": 20},
    ]
    assert common_loss(own, rival) == 2.0
    assert common_loss(own, own) == 1.0
    assert common_loss(own, rival[1:]) is None
    assert first_at(own[0], [0, 10, 20], 2.0) == 10
    assert first_at({"validation_loss": [None, 2.0, 1.0]}, [0, 10, 20], 2.0) == 10


losses_of_runs = st.lists(st.lists(st.floats(0, 9), min_size=4, max_size=4), min_size=1, max_size=4)


@given(losses_of_runs, losses_of_runs)
def test_every_run_reaches_the_target_and_some_run_none_below(own, rival):
    groups = [[{"validation_loss": run, "diverged_at": None} for run in group] for group in (own, rival)]
    target = common_loss(*groups)
    runs = [run for group in groups for run in group]
    assert max(min(run["validation_loss"]) for run in runs) == target
    for run in runs:
        step = first_at(run, [0, 1, 2, 3], target)
        assert run["validation_loss"][step] <= target
        assert all(loss > target for loss in run["validation_loss"][:step])


def fixed(step, rate, seed):
    """Muon reaches 1 early, AdamW 2 at its end; AdamW's second run diverges in its final runs."""
    if step.role != "final":
        return bowl(step, rate, seed)
    if step.arm == "muon":
        return [5.0, 3.0, 1.5 + seed, 1.0 + seed / 2, 1.0]
    return DIVERGED if seed == 1 else [5.0, 4.0, 3.0, 2.5, 2.0]


def test_states_are_the_end_and_the_first_look_at_the_matched_loss_and_a_diverged_run_is_left_out():
    done, _ = drive(tiny(), fixed)
    own, rival = (of(done, "measure", name)[0].config for name in ("muon", "adamw"))
    at = of(done, "final")[0].config.training.steps
    assert [(s.name, s.seeds, s.steps) for s in own.states] == [
        (FINAL, (0, 1), (at[-1],) * 2),
        ("matched to adamw", (0, 1), (at[2], at[3])),
        (UNTRAINED, (0, 1), (0, 0)),
    ]
    assert [(s.name, s.seeds, s.steps) for s in rival.states] == [
        (FINAL, (0,), (at[-1],)),
        ("matched to muon", (0,), (at[-1],)),
    ]
    assert own.control
    assert not rival.control
    assert rival.looks == at


def test_a_diverged_run_is_not_fine_tuned_and_the_rest_go_on():
    done, _ = drive(tiny(search_seeds=2), fixed)
    tuned = [s.config for s in of(done, "transfer", "adamw") if s.config.mode == "full"]
    assert len(tuned) == 2  # by muon and by adamw
    assert all(config.seeds == (0, 1) and config.fine_tuned == (0,) for config in tuned)
    assert all(s.config.seeds == (0, 1) for s in of(done, "transfer", "none"))


def test_an_optimizer_whose_final_runs_all_diverged_is_not_measured_and_the_others_are():
    def losses(step, rate, seed):
        return DIVERGED if (step.arm, step.role) == ("adamw", "final") else bowl(step, rate, seed)

    done, _ = drive(tiny(), losses)
    (measure,) = of(done, "measure")
    assert measure.arm == "muon"
    assert [state.name for state in measure.config.states] == [FINAL, UNTRAINED]
    assert {s.arm for s in of(done, "transfer")} == {"muon", "none"}


# -- which jobs, in which order, under which names ---------------------------------------------------


def test_others_wait_for_searches_then_final_runs_then_searches_of_transfer_then_measures():
    done, results = drive(plan("tiny"))
    order = ["search", "final", "transfer search", "measure", "transfer"]
    ranks = [order.index(step.role) for step in steps(plan("tiny"), results)]
    assert ranks == sorted(ranks)
    seen = [step.job.id for step in done]
    assert len(set(seen)) == len(seen)
    position = {job: number for number, job in enumerate(seen)}
    for step in done:
        if isinstance(step.config, Measure | Transfer) and step.config.weights:
            assert position[step.config.weights] < position[step.job.id]


@pytest.mark.parametrize("preset", ["tiny", "laptop"])
def test_the_outline_names_the_jobs_that_come_as_often_as_they_come(preset):
    study = plan(preset, {"extensions": 0})
    done, _ = drive(study)
    assert sorted(step.job.name for step in done) == sorted(name for name, _ in outline(study))


def test_the_outline_costs_what_the_jobs_will():
    study = plan("laptop", {"extensions": 0})
    done, _ = drive(study)
    assert sorted(step.job.cost for step in done) == pytest.approx(sorted(cost for _, cost in outline(study)))


def test_jobs_of_equal_settings_have_equal_ids_and_a_family_or_rival_more_leaves_pretraining_as_it_was():
    first, _ = drive(tiny())
    again, _ = drive(tiny())
    assert [step.job.id for step in first] == [step.job.id for step in again]
    more, _ = drive(tiny(families=["vit", "cnn"]))
    assert {step.job.id for step in first} < {step.job.id for step in more}
    rival, _ = drive(tiny(optimizers=["muon", "adamw", "sgd"]))
    pretraining = {step.job.id for step in first if isinstance(step.config, Pretrain)}
    assert pretraining < {step.job.id for step in rival}


def test_more_seeds_are_new_final_runs_and_the_searches_stand():
    few, _ = drive(tiny(seeds=2))
    many, _ = drive(tiny(seeds=3))
    new = {step.job.id for step in many}
    kept = [step for step in few if step.job.id in new]
    expected = [*of(few, "search"), *of(few, "transfer search", "none")]  # all others start from the final runs
    assert sorted(step.job.name for step in kept) == sorted(step.job.name for step in expected)


def test_one_optimizer_alone_is_trained_and_measured():
    done, _ = drive(tiny(optimizers="muon"))
    assert [state.name for state in of(done, "measure")[0].config.states] == [FINAL, UNTRAINED]


def test_jobs_follow_from_results():
    study = tiny()
    first = jobs_of(study, {})
    assert [job.name for job in first] == [
        f"cnn on digits: {words}"
        for words in (
            "Muon, search",
            "AdamW, search",
            "new weights, fine-tuned on classes by Muon, search",
            "new weights, fine-tuned on classes by AdamW, search",
        )
    ]
    _, results = drive(study, roles=("search",))
    known = jobs_of(study, {first[0].id: results[first[0].id]})
    assert "Muon, final runs" in [job for job in known if job.id != first[0].id][1].name
    assert (known[0].case, known[0].arm, known[0].role) == ("cnn on digits", "muon", "search")


# -- costs -----------------------------------------------------------------------------------------


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
    def seconds(budget: int, batch: int, members: int) -> float:  # without what every job takes
        return training_cost(family, Training(budget=budget, batch=batch), members) - JOB_SECONDS

    cost = seconds(budget, batch, members)
    assert cost > 0
    assert seconds(3 * budget, batch, members) == pytest.approx(3 * cost)
    assert seconds(budget, batch, 3 * members) == pytest.approx(3 * cost)
    assert seconds(budget, batch + 1, members) > cost


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

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from muonlab.studies.features.rounds import (
    FINAL,
    UNTRAINED,
    best_rate,
    common_loss,
    first_at,
    jobs_of,
    mean_losses,
    next_rate,
    outline,
    steps,
)

from invented_features import bowl, drive, looks
from muonlab.studies.features.config import Measure, Pretrain, Transfer
from muonlab.studies.features.plan import Search, plan

DIVERGED = [5.0, None, None, None, None]


def tiny(**settings):
    return plan("tiny", {"families": "cnn", "muon.rates": [0.003, 0.01, 0.03], "extensions": 2, **settings})


def of(done, role, optimizer=None, by=None):
    return [s for s in done if s.role == role and optimizer in (None, s.optimizer) and by in (None, s.by)]


def rates(done, role="search", optimizer="muon"):
    return [s.config.rates for s in of(done, role, optimizer)]


def best_at(rate):
    """Losses whose lowest level is at this rate."""
    return lambda step, own, seed: bowl(step, own * 0.01 / rate, seed)


# -- the search ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("best", "expected"),
    [
        (0.01, [(0.003, 0.01, 0.03)]),
        (0.09, [(0.003, 0.01, 0.03), (0.09,), (0.27,)]),
        (0.0009, [(0.003, 0.01, 0.03), (0.0009,), (0.00027,)]),
        (1e-9, [(0.003, 0.01, 0.03), (0.0009,), (0.00027,)]),
    ],
)
def test_a_search_goes_on_beyond_an_edge_and_stops_inside_or_after_its_extensions(best, expected):
    done, _ = drive(tiny(), best_at(best), roles=("search",))
    assert rates(done) == expected


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
        return DIVERGED if (step.optimizer, step.role) == ("muon", "search") else bowl(step, rate, seed)

    done, _ = drive(tiny(), losses)
    assert rates(done) == [(0.003, 0.01, 0.03), (0.0009,), (0.00027,)]
    assert of(done, "final", "muon") == []
    assert [s.optimizer for s in of(done, "final")] == ["adamw"]
    (measure,) = of(done, "measure")
    assert [state.name for state in measure.config.states] == [FINAL]
    assert {s.optimizer for s in of(done, "transfer")} == {"adamw", "none"}


grids = (
    st.lists(st.floats(1e-5, 10), min_size=2, max_size=6, unique=True)
    .map(sorted)
    .filter(lambda grid: all(b > a * (1 + 1e-9) for a, b in itertools.pairwise(grid)))
)


@given(grids, st.data())
def test_the_next_rate_lies_beyond_the_edge_by_about_the_ratio_of_the_grid_or_nowhere(grid, data):
    search = Search(rates=tuple(grid))
    best = data.draw(st.sampled_from(grid))
    found = next_rate({rate: float(rate != best) for rate in grid}, search)
    if best == grid[0]:
        assert 0 < found < grid[0]
        assert found == pytest.approx(grid[0] ** 2 / grid[1], rel=0.06)
    elif best == grid[-1]:
        assert found > grid[-1]
        assert found == pytest.approx(grid[-1] ** 2 / grid[-2], rel=0.06)
    else:
        assert found is None


def test_pretraining_is_judged_by_its_last_look_and_fine_tuning_by_its_best():
    members = [
        {"rate": 0.1, "seed": 0, "validation_loss": [3.0, 1.0, 2.0], "diverged_at": None},
        {"rate": 0.1, "seed": 1, "validation_loss": [3.0, 2.0, 4.0], "diverged_at": None},
        {"rate": 0.3, "seed": 0, "validation_loss": [3.0, 0.5, None], "diverged_at": 9},
    ]
    assert mean_losses({"members": members}, best=False) == {0.1: 3.0, 0.3: math.inf}
    assert mean_losses({"members": members}, best=True) == {0.1: 1.5, 0.3: 0.5}
    nothing = [{"rate": 0.1, "seed": 0, "validation_loss": [None]}]
    assert mean_losses({"members": nothing}, best=True) == {0.1: math.inf}


def test_the_smaller_of_equally_good_rates_is_chosen_and_none_where_all_diverged():
    assert best_rate({0.3: 1.0, 0.1: 1.0, 0.03: 2.0}) == 0.1
    assert best_rate({0.3: math.inf, 0.1: math.inf}) is None


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
    if step.optimizer == "muon":
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
        return DIVERGED if (step.optimizer, step.role) == ("adamw", "final") else bowl(step, rate, seed)

    done, _ = drive(tiny(), losses)
    (measure,) = of(done, "measure")
    assert measure.optimizer == "muon"
    assert [state.name for state in measure.config.states] == [FINAL, UNTRAINED]
    assert {s.optimizer for s in of(done, "transfer")} == {"muon", "none"}


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

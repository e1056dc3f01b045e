import math

import pytest

import synthetic_components as synthetic
from muonlab.jobs.job import identity
from muonlab.studies.components import jobs_of, outline, plan, trials
from muonlab.studies.components.config import Agree, read
from muonlab.studies.components.jobs import POLICY, cost, reached, scores, steps
from muonlab.study.search import SEARCH_FROM, best


def test_every_problem_has_a_job_for_each_optimizer():
    study = synthetic.study()
    held = [step for step in steps(study, {}) if step.case is not None]
    assert len(held) == 3 * len(study.cases)
    assert {(step.case.name, step.arm) for step in held} == {
        (case.name, name) for case in study.cases for name in study.optimizers
    }
    assert sum(isinstance(step.config, Agree) for step in steps(study, {})) == len(study.agreements) == 5


def test_seeds_that_choose_a_rate_are_not_compared():
    for step in steps(synthetic.study(), {}):
        if step.case is not None:
            assert step.config.seeds == tuple(range(6))
            assert step.config.search_seeds == (SEARCH_FROM, SEARCH_FROM + 1)


def test_jobs_are_what_workers_read():
    study = plan("tiny")
    for job in jobs_of(study, {}):
        assert read(job.config).model_dump(mode="json") == job.config
        assert job.id == identity(job.config)
        assert job.cost > 0


def better_outside(name, rate, seed):
    return 1 / (1 + rate)


def test_a_search_goes_on_beyond_the_edge_until_its_extensions_are_used_up(tmp_path):
    study = synthetic.study(extensions=2, ratio=2, noise=0.1, depth=0, variations="none")
    results = {}
    rounds = []
    while new := [step for step in steps(study, results) if step.job.id not in results]:
        rounds.append({(step.arm, step.config.rates) for step in new if step.case is not None})
        results |= {step.job.id: synthetic.result(step, synthetic.Planted(loss=better_outside)) for step in new}
    assert [dict(each)["sgd"] for each in rounds] == [(0.1, 0.3), (0.9, 2.7), (8.1, 24.0)]
    names = [step.job.name for step in steps(study, results)]
    assert sum(name.endswith("rates beyond the edge") for name in names) == 2 * 3 * 2  # of the map and of the control


def test_nothing_is_asked_for_beyond_an_edge_before_its_job_is_done_or_where_the_best_lies_inside():
    study = synthetic.study(extensions=2, **{"muon.rates": [0.01, 0.03, 0.1]}, optimizers="muon")
    inside = synthetic.Planted(loss=lambda name, rate, seed: abs(rate - 0.03))
    results = {step.job.id: synthetic.result(step, inside) for step in steps(study, {})}
    assert {step.extension for step in steps(study, {})} == {step.extension for step in steps(study, results)} == {0}


def test_two_cases_that_ask_for_one_job_share_it():
    study = plan("tiny", {"depth": [0, 2], "variations": "deep"})
    found = jobs_of(study, {})
    assert len({job.id for job in found}) == len(found) == len(outline(study)) < len(steps(study, {}))


def test_there_is_nothing_to_try_out():
    assert trials(plan("tiny")) == []


def test_more_members_steps_and_layers_cost_more():
    def of(**settings):
        study = plan("tiny", {"variations": "none", **settings})
        return sum(cost(step.config) for step in steps(study, {}) if step.case is not None)

    assert of() < of(budget=600) < of(budget=600, seeds=20) < of(budget=600, seeds=20, depth=1)


# -- scores ----------------------------------------------------------------------------------------


def member(rate, seed, loss, *, is_search=True, end=0.7, diverged=None, step=20.0):
    values = None if loss is None else {"validation_loss": loss}
    return {
        "rate": rate,
        "seed": seed,
        "is_search": is_search,
        "diverged_at": diverged,
        "train_loss": [1.0, None if diverged else end],
        "at": [{"values": values, "step": None if loss is None else step}],
    }


def test_a_rate_is_scored_by_the_mean_validation_loss_of_the_seeds_that_choose():
    members = [member(0.1, 0, 0.4), member(0.1, 1, 0.6), member(0.1, 2, 9.0, is_search=False)]
    assert scores(members, 0) == {0.1: (0, pytest.approx(0.5))}


def test_rates_at_which_a_seed_does_not_reach_the_loss_are_after_all_that_do():
    members = [member(0.1, 0, 0.9), member(0.1, 1, 0.9), member(0.3, 0, 0.1), member(0.3, 1, None)]
    found = scores(members, 0)
    assert found[0.3] == (1, 0.1)
    assert best(found, POLICY) == 0.1


# Bug: a rate that leapt from a loss of 2 to 0.2 and to 1e-7 was the best, by a validation loss read between the leaps.
def test_rates_that_leap_over_the_loss_are_after_all_that_step_down_to_it():
    members = [member(0.1, 0, 0.5), member(0.1, 1, 0.5), member(1.0, 0, 0.4, step=4.9), member(1.0, 1, 0.4, step=5.0)]
    found = scores(members, 0)
    assert found == {0.1: (0, 0.5), 1.0: (1, 0.4)}
    assert best(found, POLICY) == 0.1


def test_where_none_reaches_it_the_smallest_loss_at_the_end_counts():
    members = [member(0.1, 0, None, end=0.7), member(0.3, 0, None, end=0.6), member(1.0, 0, None, diverged=3)]
    found = scores(members, 0)
    assert found == {0.1: (1, 0.7), 0.3: (1, 0.6), 1.0: (1, math.inf)}
    assert best(found, POLICY) == 0.3


def test_where_all_diverged_there_is_no_best():
    found = scores([member(rate, 0, None, diverged=1) for rate in (0.1, 0.3)], 0)
    assert best(found, POLICY) is None


def test_values_that_are_no_numbers_are_not_reached():
    assert not reached({"at": [{"values": {"validation_loss": None}}]}, 0)

import pytest

import synthetic_components as synthetic
from muonlab.studies.components.jobs import steps
from muonlab.studies.components.readings import FIELDS, value_of
from muonlab.studies.components.work import job


def test_every_problem_has_the_runs_of_every_arm(found):
    asked = found.runs.asked
    assert set(found.runs.own) == {(case.name, name) for case in asked.cases for name in asked.optimizers}
    assert [arm.label for arm in found.arms] == ["muon", "adamw", "sgd"]
    assert (len(found.cases), list(asked.maps)) == (8, ["depth 0", "depth 1"])
    assert [case.map for case in asked.varied] == ["aligned", "spurious"]
    assert len(found.runs.agreements) == 5
    assert found.expected == len(found.records)


def test_values_are_those_of_the_best_rate_and_of_the_seeds_that_are_compared(found):
    own = found.runs.of(found.cases[0], "muon")
    assert own.best(1) == 0.03
    assert set(own.compared(1)) == set(range(6))
    assert all(member["rate"] == 0.03 for member in own.compared(1).values())
    assert all(1.2 < value < 1.4 for value in own.values(1, "margin").values())
    assert own.missed(1) == {}


def test_the_rank_of_a_net_with_hidden_layers_is_that_of_its_hidden_states(found):
    linear, deep = (found.runs.of(next(c for c in found.cases if c.net.depth == d), "sgd") for d in (0, 1))
    assert all(2.9 < value < 3.1 for value in linear.values(0, "rank").values())
    assert all(4.9 < value < 5.1 for value in deep.values(0, "rank").values())


def test_runs_that_never_reached_a_loss_are_counted_by_reason():
    def censored(case, name, rate, seed, place):
        return {0: "not reached", 1: "diverged"}.get(seed) if name == "sgd" and place == 1 else None

    runs = synthetic.found(planted=synthetic.Planted(censored=censored)).runs
    own = runs.of(runs.asked.base, "sgd")
    assert own.missed(1) == {"not reached": 1, "diverged": 1}
    assert own.missed(0) == {}
    assert set(own.values(1, "margin")) == {2, 3, 4, 5}


def test_the_rate_is_chosen_at_each_loss_of_its_own():
    def censored(case, name, rate, seed, place):
        return "not reached" if rate == 0.03 and place == 1 else None

    own = synthetic.found(planted=synthetic.Planted(censored=censored)).runs.own.values()
    muon = next(each for each in own if each.arm == "muon")
    assert (muon.best(0), muon.best(1)) == (0.03, 0.1)


def test_rates_beyond_an_edge_are_read_with_the_first_ones():
    planted = synthetic.Planted(loss=lambda name, rate, seed: 1 / (1 + rate))
    asked = synthetic.study(extensions=1, ratio=2, noise=0.1, depth=0, variations="none")
    own = synthetic.found(asked, planted).runs.of(asked.base, "muon")
    assert list(own.scores(1)) == [0.03, 0.1, 0.33, 1.1]
    assert (own.best(1), own.edge(1)) == (1.1, "high")


def test_what_is_not_done_is_not_there():
    part = synthetic.found(undone=lambda step: step.arm == "sgd")
    assert part.runs.of(part.runs.asked.base, "sgd") is None
    assert sum(record.status == "done" for record in part.records) < part.expected


@pytest.mark.parametrize("depth", [0, 1])
def test_results_of_a_worker_have_what_is_read(tmp_path, depth):
    asked = synthetic.study(seeds=1, search_seeds=1, budget=3, looks=2, depth=depth, variations="none")
    step = next(step for step in steps(asked, {}) if step.case is not None)
    result, invented = (
        job.run(config=step.job.config, folder=str(tmp_path)),
        synthetic.result(step, synthetic.Planted()),
    )
    assert set(result) == set(invented)
    (member, *_), (invented_member, *_) = result["members"], invented["members"]
    assert set(member) == set(invented_member)
    assert set(member["at"][0]) == set(invented_member["at"][0])
    assert set(member["end"]) == set(invented_member["end"])
    assert all(isinstance(value_of(member["end"], step.case, quantity), float) for quantity in FIELDS)

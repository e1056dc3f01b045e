import pytest

import synthetic_components as synthetic
from muonlab.studies.components.quantities import EVERY, MARGIN, RANK
from muonlab.studies.components.rounds import steps
from muonlab.studies.components.work import job


def test_every_problem_has_the_runs_of_every_optimizer(runs):
    assert set(runs.own) == {(case.name, name) for case in runs.asked.cases for name in runs.asked.optimizers}
    assert (runs.first, runs.rivals) == ("muon", ("adamw", "sgd"))
    assert len(runs.mapped) == 8
    assert list(runs.maps) == ["depth 0", "depth 1"]
    assert [case.map for case in runs.varied] == ["aligned", "spurious"]
    assert len(runs.agreements) == 5
    assert runs.expected == len(runs.records)


def test_values_are_those_of_the_best_rate_and_of_the_seeds_that_are_compared(runs):
    own = runs.of(runs.mapped[0], "muon")
    assert own.best(1) == 0.03
    assert set(own.compared(1)) == set(range(6))
    assert all(member["rate"] == 0.03 for member in own.compared(1).values())
    assert all(1.2 < value < 1.4 for value in own.values(1, MARGIN).values())
    assert own.missed(1) == {}


def test_the_rank_of_a_net_with_hidden_layers_is_that_of_its_hidden_states(runs):
    linear, deep = (runs.of(next(c for c in runs.mapped if c.net.depth == d), "sgd") for d in (0, 1))
    assert all(2.9 < value < 3.1 for value in linear.values(0, RANK).values())
    assert all(4.9 < value < 5.1 for value in deep.values(0, RANK).values())


def test_runs_that_never_came_down_are_counted_by_reason():
    def censored(case, name, rate, seed, place):
        return {0: "not reached", 1: "diverged"}.get(seed) if name == "sgd" and place == 1 else None

    runs = synthetic.runs(planted=synthetic.Planted(censored=censored))
    own = runs.of(runs.asked.base, "sgd")
    assert own.missed(1) == {"not reached": 1, "diverged": 1}
    assert own.missed(0) == {}
    assert set(own.values(1, MARGIN)) == {2, 3, 4, 5}


def test_the_rate_is_chosen_at_each_loss_of_its_own():
    def censored(case, name, rate, seed, place):
        return "not reached" if rate == 0.03 and place == 1 else None

    own = synthetic.runs(planted=synthetic.Planted(censored=censored)).own.values()
    muon = next(each for each in own if each.optimizer == "muon")
    assert (muon.best(0), muon.best(1)) == (0.03, 0.1)


def test_rates_beyond_an_edge_are_read_with_the_first_ones():
    planted = synthetic.Planted(loss=lambda name, rate, seed: 1 / (1 + rate))
    asked = synthetic.study(extensions=1, ratio=2, noise=0.1, depth=0, variations="none")
    own = synthetic.runs(asked, planted).of(asked.base, "muon")
    assert list(own.scores(1)) == [0.03, 0.1, 0.33, 1.1]
    assert (own.best(1), own.edge(1)) == (1.1, "high")


def test_what_is_not_done_is_not_there():
    runs = synthetic.runs(undone=lambda step: step.optimizer == "sgd")
    assert runs.of(runs.asked.base, "sgd") is None
    assert sum(record.status == "done" for record in runs.records) < runs.expected


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
    assert all(isinstance(quantity.of(member["end"], step.case), float) for quantity in EVERY)

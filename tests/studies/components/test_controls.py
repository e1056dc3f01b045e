import pytest

import synthetic_components as synthetic
from muonlab.stats.proportions import chance_limit
from muonlab.studies.components.controls import ERROR, Control, failed, judge_controls


def test_controls_pass_where_there_is_nothing_to_find(runs):
    found = judge_controls(runs)
    assert [control.name for control in found] == ["same optimizer"] * 2 + ["labels without information"] * 3
    assert failed(found) == []
    assert {control.state for control in found} == {"passed"}
    assert found[0].n == 8
    assert found[2].limit == chance_limit(0.25, 64 * 6, 1, ERROR)


def test_an_optimizer_that_differs_from_itself_fails():
    runs = synthetic.runs(synthetic.study(variations="none"))
    for (_, name), own in runs.own.items():
        for member in own.members if name == "muon" else ():
            for at in member["at"]:
                at["values"]["margin_worst"] += 5.0 * (member["seed"] % 2)
    (control,) = failed(judge_controls(runs))
    assert (control.name, control.value, control.limit) == ("same optimizer", 1, chance_limit(0.05, 8, 1, ERROR))
    assert "differs from itself is 1.000, more than the 0.375 that chance explains" in control.in_words


def test_labels_that_can_be_told_fail():
    found = failed(judge_controls(synthetic.runs(planted=synthetic.Planted(informed=0.4))))
    assert {control.name for control in found} == {"labels without information"}
    assert len(found) == 3


@pytest.mark.parametrize("seeds", [2, 5])
def test_halves_of_few_seeds_are_no_control(seeds):
    names = {control.name for control in judge_controls(synthetic.runs(synthetic.study(seeds=seeds)))}
    assert names == {"labels without information"}


def test_where_chance_may_give_anything_a_control_cannot_tell():
    assert Control("same optimizer", "", 1.0, 0.05, 1.0, 2).state == "cannot tell"

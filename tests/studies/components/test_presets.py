import pytest

from muonlab.studies.components import KEYS, PRESETS, outline, plan


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_is_a_study_of_known_settings(preset):
    assert set(PRESETS[preset]) <= set(KEYS)
    assert plan(preset).preset == preset


@pytest.mark.parametrize("preset", PRESETS)
def test_every_optimizer_has_the_same_budget_of_search(preset):
    assert len({(len(search.rates), search.extensions) for search in plan(preset).searches.values()}) == 1


@pytest.mark.parametrize("preset", ["laptop", "full"])
def test_what_answers_the_question_has_depths_noises_and_halves_of_the_seeds(preset):
    study = plan(preset)
    assert {case.net.depth for case in study.cases if case.role == "map"} >= {0, 1}
    assert {case.components.noise for case in study.cases} >= {0, 0.1}
    assert study.seeds >= 6
    assert study.base.components.ratio == 4


def test_the_laptop_preset_has_about_as_many_jobs_as_four_minutes_hold():
    assert 110 <= len(outline(plan("laptop"))) <= 150


def test_the_presets_rise_in_cost():
    costs = [sum(cost for _, cost in outline(plan(preset))) for preset in ("tiny", "laptop", "full")]
    assert costs == sorted(costs)

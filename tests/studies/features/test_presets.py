import pytest

from muonlab.studies.features import KEYS, PRESETS, plan
from muonlab.studies.features.jobs import training_cost

FILES = {"images": "data/mnist", "text": "data/a.txt", "transfer_text": "data/b.txt", "examples": "data/c.all"}


def asked(preset):
    return plan(preset, {key: value for key, value in FILES.items() if key not in PRESETS[preset]})


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_is_a_study_of_known_settings(preset):
    assert set(PRESETS[preset]) <= set(KEYS)
    assert asked(preset).preset == preset


@pytest.mark.parametrize("preset", ["laptop", "real", "paper"])
def test_what_answers_the_question_has_all_nets_and_optimizers_and_five_seeds(preset):
    study = asked(preset)
    assert {each.family.net.kind for each in study.families} == {"cnn", "vit", "gpt"}
    assert [each.name for each in study.optimizers] == ["muon", "adamw", "sgd"]
    assert study.seeds >= 5


@pytest.mark.parametrize("preset", PRESETS)
def test_every_optimizer_has_the_same_budget_of_search(preset):
    study = asked(preset)
    assert len({(len(search.rates), search.extensions) for search in study.searches.values()}) == 1


@pytest.mark.parametrize("preset", PRESETS)
def test_the_first_grid_is_about_logarithmic(preset):
    for search in asked(preset).searches.values():
        ratios = [b / a for a, b in zip(search.rates, search.rates[1:], strict=False)]
        assert ratios == pytest.approx([10**0.5] * len(ratios), rel=0.06)


def test_the_paper_preset_has_the_nets_that_the_paper_names():
    cnn, vit, gpt = (each.family.net for each in asked("paper").families)
    assert cnn.model_dump() | {"norm": "batch", "width": 64, "depths": (2, 2, 2, 2)} == cnn.model_dump()  # ResNet-18
    assert (vit.depth, vit.width, vit.heads, vit.patch, vit.pooling) == (12, 384, 6, 16, "class")  # ViT-S/16
    assert (gpt.depth, gpt.width, gpt.heads, gpt.norm, gpt.positions) == (12, 768, 12, "layer", "learned")  # GPT-2
    assert (gpt.feed_forward, gpt.bias, gpt.tied) == ("gelu_tanh", True, True)


def test_the_presets_rise_in_cost():
    def cost(preset):
        return sum(training_cost(each.family, each.training, 1) for each in asked(preset).families)

    assert cost("tiny") < cost("laptop") < cost("real") < cost("paper")

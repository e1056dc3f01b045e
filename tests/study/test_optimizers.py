import pytest
from pydantic import Field, TypeAdapter, ValidationError

from muonlab.studies.components import config as components
from muonlab.studies.features import config as features
from muonlab.study.optimizers import Growing, Muon


class Config(Growing):
    added = frozenset({"new"})
    old: int = 1
    new: float = Field(0.5, ge=0)


def test_a_field_added_later_is_left_out_at_its_default_and_kept_elsewhere():
    assert Config().model_dump() == Config(new=0.5).model_dump() == {"old": 1}
    assert Config(new=2).model_dump(mode="json") == {"old": 1, "new": 2.0}
    assert Config.model_validate(Config(new=2).model_dump()) == Config(new=2)
    assert TypeAdapter(Config).validate_python({"old": 1}) == Config()
    with pytest.raises(ValidationError):
        Config(new=-1)


# The fields that jobs had when their results were made: another one in the dump would give them other ids.
@pytest.mark.parametrize(
    ("recipe", "dump"),
    [
        (features.SGD(), {"momentum": 0.9, "weight_decay": 5e-4, "nesterov": False}),
        (features.AdamW(), {"weight_decay": 0.05, "beta1": 0.9, "beta2": 0.98, "eps": 1e-8}),
        (features.Muon(), {"momentum": 0.95, "weight_decay": 0.05, "beta1": 0.9, "beta2": 0.98, "eps": 1e-8}),
        (components.SGD(), {"momentum": 0.9, "weight_decay": 0.0}),
        (components.AdamW(), {"weight_decay": 0.0, "beta1": 0.9, "beta2": 0.98, "eps": 1e-8}),
        (components.Muon(), {"momentum": 0.95, "nesterov": True, "weight_decay": 0.0, "method": "quintic"}),
    ],
)
def test_the_dump_of_a_study_s_optimizers_is_as_it_was(recipe, dump):
    assert recipe.model_dump(mode="json") == {"name": recipe.name, **dump}


@pytest.mark.parametrize("model", [Muon, features.Muon, features.AdamW, features.SGD, components.Muon, components.SGD])
def test_every_hyper_parameter_is_described(model):
    assert all(field.description for name, field in model.model_fields.items() if name != "name")

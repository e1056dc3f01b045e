import pytest
from pydantic import Field, TypeAdapter, ValidationError

from muonlab.studies.components import config as components
from muonlab.study.fields import Growing
from muonlab.study.optimizers import SGD, AdamW, Muon, RatedAdamW, RatedMuon, RatedSGD


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


BETAS = {"beta1": 0.9, "beta2": 0.98, "eps": 1e-8}
OTHERS = {f"adamw_{key}": value for key, value in {"lr": 0.001, "weight_decay": 1.0, **BETAS}.items()}
OF_MUON = {"momentum": 0.95, "nesterov": True, "steps": 5, "scale": True, "orthogonalize": True, "polar_dtype": "same"}


# The fields that jobs had when their results were made, in their order: another one in the dump would give them other
# ids, and another order other bytes of config.json.
@pytest.mark.parametrize(
    ("recipe", "dump"),
    [
        (SGD(), {"momentum": 0.9, "weight_decay": 5e-4, "nesterov": False}),
        (AdamW(), {"weight_decay": 0.05, **BETAS}),
        (Muon(), {"momentum": 0.95, "weight_decay": 0.05, **BETAS}),
        (components.SGD(), {"momentum": 0.9, "weight_decay": 0.0}),
        (components.AdamW(), {"weight_decay": 0.0, **BETAS}),
        (components.Muon(), {"momentum": 0.95, "nesterov": True, "weight_decay": 0.0, "method": "quintic"}),
        (RatedSGD(), {"lr": 0.1, "weight_decay": 1e-4, "momentum": 0.9, "nesterov": False}),
        (RatedAdamW(), {"lr": 0.001, "weight_decay": 1.0, **BETAS}),
        (RatedMuon(), {"lr": 0.02, "weight_decay": 0.01, **OF_MUON, "takes": "hidden", **OTHERS}),
    ],
)
def test_the_dump_of_a_study_s_optimizers_is_as_it_was(recipe, dump):
    assert list(recipe.model_dump(mode="json").items()) == [("name", recipe.name), *dump.items()]

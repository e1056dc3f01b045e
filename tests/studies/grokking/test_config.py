import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from muonlab.data.algorithmic import TASKS
from muonlab.jobs.job import canonical_json
from muonlab.losses import LOSSES
from muonlab.optim.routing import TAKES
from muonlab.studies.grokking import config as config_room
from muonlab.studies.grokking.config import CellConfig, NetConfig, ProtocolConfig, TaskConfig
from muonlab.study.optimizers import RatedAdamW, RatedMuon, RatedSGD


def names(model, field):
    return set(model.model_json_schema()["properties"][field]["enum"])


def test_the_schema_names_what_the_rooms_offer():
    assert set(config_room.TASKS) == set(TASKS)
    assert names(CellConfig, "loss") == set(LOSSES)
    assert names(RatedMuon, "takes") == set(TAKES)


def test_an_id_is_fixed_for_all_time(make_cell):
    # A change here orphans every finished cell: raise RESULTS_VERSION, or do not change the schema.
    assert make_cell().id == "53e3b3965f405d75"


def test_equal_configs_have_equal_ids_however_they_were_written(make_cell):
    config = make_cell(hyper={"lr": 1})
    assert make_cell(hyper={"lr": "1.0"}).id == config.id
    assert CellConfig.model_validate_json(config.model_dump_json()).id == config.id


@pytest.mark.parametrize(
    "changes",
    [
        {"task": {"modulus": 11}},
        {"task": {"labels": "random"}},
        {"net": {"width": 32}},
        {"optimizer": "adamw"},
        {"hyper": {"lr": 0.5}},
        {"loss": "sparsemax"},
        {"protocol": {"budget": 40}},
        {"seeds": (0, 1)},
    ],
)
def test_every_part_of_a_config_is_in_its_id(make_cell, changes):
    assert make_cell(**changes).id != make_cell().id


def test_the_results_version_is_in_the_id(make_cell):
    config = make_cell()
    assert config.model_copy(update={"results_version": config.results_version + 1}).id != config.id


@pytest.mark.parametrize(
    ("model", "values"),
    [
        (RatedMuon, {"lr": -1}),
        (RatedMuon, {"lr": float("nan")}),
        (RatedMuon, {"lr": float("inf")}),
        (RatedMuon, {"momentum": 1.0}),
        (RatedMuon, {"steps": 0}),
        (RatedAdamW, {"beta2": 1.0}),
        (RatedSGD, {"weight_decay": -0.1}),
        (NetConfig, {"width": 30}),
        (NetConfig, {"dropout": 1.0}),
        (NetConfig, {"depht": 2}),
        (ProtocolConfig, {"budget": 99, "cadence": 10}),
        (ProtocolConfig, {"batch": 0}),
        (TaskConfig, {"name": "add", "train_share": 1.0}),
        (TaskConfig, {"name": "parity", "train_share": 0.5, "bits": 21}),
    ],
)
def test_what_cannot_be_is_refused(model, values):
    with pytest.raises(ValidationError):
        model(**values)


def test_a_config_cannot_be_changed(make_cell):
    with pytest.raises(ValidationError, match="frozen"):
        make_cell().task.modulus = 5


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(st.dictionaries(st.text(), json_values))
def test_canonical_json_does_not_depend_on_the_order_of_keys(value):
    assert canonical_json(dict(reversed(value.items()))) == canonical_json(value)
    assert json.loads(canonical_json(value)) == value

from dataclasses import replace

import pytest

import synthetic_features as synthetic
from muonlab.report.findings import Series
from muonlab.studies.features.nets import Compared
from muonlab.studies.features.sections import at_the_end
from muonlab.study.study import Arm


@pytest.fixture(scope="package")
def found():
    """A whole study in which corrupted accuracy is higher by 0.1 with Muon."""
    planted = synthetic.Planted(shift=lambda what, net, name: 0.1 * (what == "corrupted" and name == "muon"))
    return synthetic.found(planted=planted)


@pytest.fixture(scope="package")
def nothing():
    """A study of which no job is done."""
    return synthetic.found(undone=lambda step: True)


@pytest.fixture(scope="package")
def ends(found):
    """The whole study, as the sections on measured nets take it."""
    return at_the_end(found)


@pytest.fixture
def alone(ends):
    """One net of each of two arms, on one data set."""
    place = ends.places[0]
    models = {key: place.models[key][:1] for key in ("muon", "adamw")}
    arms = Arm("muon", Series("A", "muon")), Arm("adamw", Series("B", "adamw"))
    return Compared(arms, (replace(place, models=models),), runs="checkpoints", of_examples=True)


@pytest.fixture
def rows_of():
    """Return the rows of a table by key."""

    def rows(table):
        keys = [column.key for column in table.columns]
        return [dict(zip(keys, row, strict=True)) for row in table.rows]

    return rows

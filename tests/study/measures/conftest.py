from dataclasses import replace

import pytest
from muonlab.studies.features.seeds import at_the_end
from muonlab.study.measures.compared import Compared, Side

import synthetic_features as synthetic
from muonlab.report.findings import Series
from muonlab.studies.features.readings import read


@pytest.fixture(scope="package")
def runs(tmp_path_factory):
    """A whole study in which corrupted accuracy is higher by 0.1 with Muon."""
    planted = synthetic.Planted(shift=lambda what, net, name: 0.1 * (what == "corrupted" and name == "muon"))
    return read(synthetic.write(tmp_path_factory.mktemp("study"), planted=planted))


@pytest.fixture(scope="package")
def ends(runs):
    """The same, as the sections of a report take it."""
    return at_the_end(runs)


@pytest.fixture
def alone(ends):
    """One net of each of two sides, on one data set."""
    place = ends.places[0]
    models = {key: place.models[key][:1] for key in ("muon", "adamw")}
    sides = Side("muon", Series("A", "muon")), Side("adamw", Series("B", "adamw"))
    return Compared(sides, (replace(place, models=models),), runs="checkpoints", of_examples=True)


@pytest.fixture
def rows_of():
    """Return the rows of a table by key."""

    def rows(table):
        keys = [column.key for column in table.columns]
        return [dict(zip(keys, row, strict=True)) for row in table.rows]

    return rows

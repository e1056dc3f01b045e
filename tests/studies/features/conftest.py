import pytest

import synthetic_features as synthetic
from muonlab.studies.features.readings import read


@pytest.fixture(scope="package")
def runs(tmp_path_factory):
    """A whole study in which corrupted accuracy is higher by 0.1 with Muon."""
    planted = synthetic.Planted(shift=lambda what, net, name: 0.1 * (what == "corrupted" and name == "muon"))
    return read(synthetic.write(tmp_path_factory.mktemp("study"), planted=planted))


@pytest.fixture
def rows_of():
    """Return the rows of a table by key."""

    def rows(table):
        keys = [column.key for column in table.columns]
        return [dict(zip(keys, row, strict=True)) for row in table.rows]

    return rows

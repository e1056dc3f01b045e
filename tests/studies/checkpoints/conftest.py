import pytest

import synthetic_inspection as synthetic
from muonlab.studies.checkpoints.readings import read

BETTER = {"A": {"corrupted": 0.1, "margin": 0.5, "rank": 1.0, "transfer": 0.2}}


@pytest.fixture
def pair(tmp_path):
    """One checkpoint of A and of B; A is higher in everything."""
    return read(synthetic.write(tmp_path / "pair", synthetic.asked(A=1, B=1), BETTER))


@pytest.fixture
def seeds(tmp_path):
    """Four checkpoints of A and of B; A is higher in everything."""
    return read(synthetic.write(tmp_path / "seeds", synthetic.asked(A=4, B=4), BETTER))


@pytest.fixture
def rows_of():
    """Return the rows of a table by key."""

    def rows(table):
        keys = [column.key for column in table.columns]
        return [dict(zip(keys, row, strict=True)) for row in table.rows]

    return rows

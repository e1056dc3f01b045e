import pytest

import synthetic_components as synthetic


def margin_and_rank(field, case, name):
    """Muon's margin is higher by 0.3, lower by 0.3 where ratio and noise are largest; its ranks are higher by 0.5."""
    if name != "muon":
        return 0.0
    is_hard = case.components.ratio == 8 and case.components.noise == 0.3
    return {"margin_worst": -0.3 if is_hard else 0.3, "rank_weights": 0.5, "rank_hidden": 0.5}.get(field, 0.0)


@pytest.fixture(scope="package")
def planted():
    return synthetic.Planted(shift=margin_and_rank)


@pytest.fixture(scope="package")
def found(planted):
    """A whole study in which Muon's margin and rank are higher but for one corner of the map."""
    return synthetic.found(planted=planted)


@pytest.fixture(scope="package")
def nothing():
    """A study of which no job is done."""
    return synthetic.found(undone=lambda step: True)


@pytest.fixture
def rows_of():
    """Return the rows of a table by key."""

    def rows(table):
        keys = [column.key for column in table.columns]
        return [dict(zip(keys, row, strict=True)) for row in table.rows]

    return rows

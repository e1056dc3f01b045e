import pytest


@pytest.fixture
def rows_of():
    """Return the rows of a table by key."""

    def rows(table):
        keys = [column.key for column in table.columns]
        return [dict(zip(keys, row, strict=True)) for row in table.rows]

    return rows

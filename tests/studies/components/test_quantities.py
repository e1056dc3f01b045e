from muonlab.studies.components import plan
from muonlab.studies.components.quantities import BESIDE, CLAIMED, EVERY, RANK, ROBUST


def test_names_of_files_differ():
    assert len({quantity.key for quantity in EVERY}) == len(EVERY) == len(CLAIMED) + len(BESIDE) + len(ROBUST)


def test_a_number_that_is_not_there_is_none():
    (linear, deep) = (plan("tiny", {"depth": depth}).base for depth in (0, 1))
    values = {"rank_weights": 2.0, "rank_hidden": None}
    assert (RANK.of(values, linear), RANK.of(values, deep)) == (2.0, None)

import pytest

from muonlab.stats.effects import difference
from muonlab.study.measures.claims import Block, adjusted, answer

SURE, UNSURE = [1.0, 1.01, 0.99, 1.0], [0.0, 1.0, 2.0, 1.0]


def block(own, other, rival="b"):
    return Block("p", rival, "accuracy", "accuracy", difference(own, other), (0.0, 0.0))


def up(rival="b"):
    return block([x + 1 for x in SURE], SURE, rival)


def down(rival="b"):
    return block(SURE, [x + 1 for x in SURE], rival)


def unsure(rival="b"):
    return block(UNSURE, SURE, rival)


def test_nothing_to_adjust():
    assert adjusted([]) == ()


def test_p_is_adjusted_over_all_blocks_and_two_runs_are_too_few():
    first, second = adjusted([up(), unsure()])
    assert first.adjusted_p == pytest.approx(2 * first.effect.p)
    assert (first.side, second.side) == ("higher", "undecided")
    few = block([1.0, 1.1], [0.0, 0.1])
    assert adjusted([few])[0].adjusted_p is None


@pytest.mark.parametrize(
    ("blocks", "num_asked", "expected"),
    [
        ([up(), up()], 2, "yes"),
        ([down(), down()], 2, "no"),
        ([up(), down()], 2, "mixed"),
        ([up(), unsure()], 2, "inconclusive"),  # half is not enough
        ([up()], 2, "inconclusive"),  # one was not measured
        ([up("b"), up("b"), up("b"), unsure("c")], 4, "inconclusive"),  # not against every rival
        ([], 0, "inconclusive"),
    ],
)
def test_what_blocks_say_together(blocks, num_asked, expected):
    rivals = dict.fromkeys(each.rival for each in blocks)
    assert answer(adjusted(blocks), list(rivals), num_asked) == expected

import pytest

import synthetic_components as synthetic
from muonlab.studies.components.claims import judge
from muonlab.studies.components.sensitivity import spreads, table


def by_rate(loss_of_the_other):
    """Muon's margin is higher by 0.3 at the rate 0.03 and lower by 0.3 at 0.1, whose validation loss is given."""
    runs = synthetic.runs(
        synthetic.study(variations="none"),
        synthetic.Planted(
            loss=lambda name, rate, seed: 0.5 if rate in (0.03, 0.1) and rate == 0.03 else loss_of_the_other
        ),
    )
    for (_, name), own in runs.own.items():
        for member in own.members if name == "muon" else ():
            for at in member["at"]:
                at["values"]["margin_worst"] += 0.3 if member["rate"] == 0.03 else -0.3
    return runs


@pytest.mark.parametrize(("loss", "turned", "alternatives"), [(0.501, 8, 8), (0.6, 0, 0)])
def test_a_side_may_turn_with_a_rate_that_is_as_good(rows_of, loss, turned, alternatives):
    runs = by_rate(loss)
    rows = rows_of(table(runs, spreads(runs, judge(runs))))
    adamw = next(row for row in rows if (row["quantity"], row["rival"]) == ("worst-class margin", "AdamW"))
    assert (adamw["decided"], adamw["turned"], adamw["kept"]) == (8, turned, 8 - turned)
    assert adamw["alternatives"] == alternatives


def test_undecided_cells_do_not_turn(runs):
    found = spreads(runs, judge(runs))
    assert len(found) == 32
    assert not any(each.turns for each in found)
    assert all(each.smallest <= each.pair.interval.value <= each.largest for each in found)

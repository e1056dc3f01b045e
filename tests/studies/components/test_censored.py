import synthetic_components as synthetic
from muonlab.studies.components.censored import censored


def test_runs_that_never_came_down_are_counted_by_reason(rows_of):
    def lost(case, name, rate, seed, place):
        if name != "sgd" or place == 0 or case.components.ratio != 8:
            return None
        return {0: "diverged", 1: "not reached", 2: "not reached"}.get(seed)

    summary, table = censored(synthetic.runs(planted=synthetic.Planted(censored=lost)))
    sgd = next(row for row in rows_of(summary) if (row["eps"], row["optimizer"]) == (0.5, "SGD"))
    assert (sgd["not_reached"], sgd["diverged"], sgd["n"]) == (8, 4, 48)
    rows = rows_of(table)
    assert {(row["optimizer"], row["eps"]) for row in rows} == {("SGD", 0.5)}
    assert {(row["not_reached"], row["diverged"], row["n"]) for row in rows} == {(2, 1, 6)}


def test_none_is_said_too(runs):
    (text,) = censored(runs)
    assert text.text == "Every compared run came down to every loss."


def test_nothing_done():
    assert censored(synthetic.runs(undone=lambda step: True)) == ()

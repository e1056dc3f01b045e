import csv
import io

import pytest

from muonlab.report.data import answers_csv, figure_csv, table_csv
from muonlab.report.findings import (
    Answered,
    Answers,
    Axis,
    Column,
    Curves,
    Distribution,
    Figure,
    Forest,
    ForestRow,
    Grid,
    GridCell,
    Group,
    Line,
    Lines,
    Reply,
    Run,
    Series,
    Survival,
    SurvivalLine,
    Table,
    Trace,
    Traces,
)
from muonlab.stats.results import Estimate

MUON = Series("Muon, tuned", "muon")


def parsed(text):
    return list(csv.reader(io.StringIO(text)))


def test_an_interval_takes_three_columns_and_a_comma_is_quoted():
    columns = (Column("name", "Name"), Column("ratio", "Ratio", "ratio"), Column("ok", "OK"))
    rows = (("a, b", Estimate(0.5, 0.25, None), True), ('say "x"', None, False))
    assert parsed(table_csv(Table("t", "T", columns, rows))) == [
        ["name", "ratio", "ratio_lower", "ratio_upper", "ok"],
        ["a, b", "0.5", "0.25", "", "yes"],
        ['say "x"', "", "", "", "no"],
    ]


LINE = SurvivalLine(
    MUON, 2, 1, (0, 50, 100), (1, 0.5, 0.5), (1, 0.01, 0.01), (1, 0.91, 0.91), (2, 2, 1), (0, 1, 0), (100,)
)
RUN = Run(MUON, 3, (0, 50), (0.1, None), (0.0, 0.25))
GROUP = Group(MUON, "Muon here", (40.0,), (100.0,))
POINTS = Line(MUON, 5, (0, 1), (0.9, None), (0.85, None), (0.95, None))
PRINTED = Group(MUON, "Muon there", (), (), (40, 79, 106))


@pytest.mark.parametrize(
    ("panel", "rows"),
    [
        (
            Survival("add", (LINE,)),
            [
                ["panel", "series", "time", "at_risk", "events", "censored", "survival", "lower", "upper"],
                ["add", "Muon, tuned", "0", "2", "0", "0", "1", "1", "1"],
                ["add", "Muon, tuned", "50", "2", "1", "0", "0.5", "0.01", "0.91"],
                ["add", "Muon, tuned", "100", "1", "0", "1", "0.5", "0.01", "0.91"],
            ],
        ),
        (
            Curves("add", (RUN,)),
            [
                ["panel", "series", "seed", "step", "train", "validation"],
                ["add", "Muon, tuned", "3", "0", "0.1", "0.0"],
                ["add", "Muon, tuned", "3", "50", "", "0.25"],
            ],
        ),
        (
            Distribution("", (GROUP, PRINTED)),
            [
                ["panel", "group", "what", "value"],
                ["", "Muon here", "crossed", "40.0"],
                ["", "Muon here", "censored", "100.0"],
                *[["", "Muon there", "quartile", value] for value in ("40", "79", "106")],
            ],
        ),
        (
            Forest("", (ForestRow("all", Estimate(0.6, 0.5, 0.7), "5 + 5"),), 1.0, "a", "b"),
            [
                ["panel", "row", "n", "value", "lower", "upper", "decided"],
                ["", "all", "5 + 5", "0.6", "0.5", "0.7", "yes"],
            ],
        ),
        (
            Grid(
                "depth 0", ("2", "8"), ("0.1",), ((GridCell(Estimate(0.5, 0.4, 0.6), "higher", "6"), None),), "a", "b"
            ),
            [
                ["panel", "x", "y", "n", "value", "lower", "upper", "side"],
                ["depth 0", "2", "0.1", "6", "0.5", "0.4", "0.6", "higher"],
            ],
        ),
        (
            Traces("", (Trace(MUON, 3, (0, 0.5), (2.0, None)),), Axis("seconds")),
            [
                ["panel", "series", "seed", "x", "y"],
                ["", "Muon, tuned", "3", "0", "2.0"],
                ["", "Muon, tuned", "3", "0.5", ""],
            ],
        ),
        (
            Lines("fog", (POINTS,), (("chance", 0.1),)),
            [
                ["panel", "series", "n", "x", "y", "lower", "upper"],
                ["fog", "Muon, tuned", "5", "0", "0.9", "0.85", "0.95"],
                ["fog", "Muon, tuned", "5", "1", "", "", ""],
            ],
        ),
    ],
)
def test_a_figure_writes_all_that_it_draws(panel, rows):
    assert parsed(figure_csv(Figure("f", "F", "", Axis("x"), Axis("y"), (panel,)))) == rows


def test_answers_write_a_row_for_every_effect_and_one_where_there_are_none():
    effects = (
        ForestRow("minus AdamW", Estimate(0.5, 0.25, 0.75), "5 + 5", decided=False),
        ForestRow("minus SGD", Estimate(0.5, -0.25, None), "3"),
    )
    replies = Reply("inconclusive", "Inconclusive", (0, 1, 1), effects), None, Reply("yes", "Yes", (2, 0, 0))
    table = Answers("answers", "Claims", ("Equal", "Matched", "Both"), (Answered("(a) Loss", "loss", replies),))
    head, *rows = parsed(answers_csv(table))
    assert ",".join(head).endswith("answer,higher,lower,undecided,against,effect,effect_lower,effect_upper,decided,n")
    first = ["(a) Loss", "loss", "Equal", "inconclusive", "0", "1", "1"]
    assert rows == [
        [*first, "minus AdamW", "0.5", "0.25", "0.75", "no", "5 + 5"],
        [*first, "minus SGD", "0.5", "-0.25", "", "no", "3"],
        ["(a) Loss", "loss", "Both", "yes", "2", "0", "0", "", "", "", "", "", ""],
    ]

"""The sections of the components report, and the report of whatever part of a study is done."""

import json

import pytest

import synthetic_components as synthetic
from muonlab.jobs.files import StudyError
from muonlab.report import page
from muonlab.report.findings import Grid, Record
from muonlab.studies.components import analyse, sections
from muonlab.studies.components.tuning import tuning
from muonlab.studies.components.verdict import judge_all

SECTIONS = [
    "Claim (e): margin and rank at equal loss",
    "By loss",
    "Without the strong components",
    "Variations",
    "Closed forms",
    "Tuning",
    "Censored and diverged",
    "Controls",
    "Data and settings",
    "What the words mean",
]


def of(**planted):
    return synthetic.found(planted=synthetic.Planted(**planted))


def up(field, case, name):
    return 0.3 * (name == "muon")


# -- whatever part of a study is done --------------------------------------------------------------


def test_a_study_becomes_a_report_with_every_figure_and_its_data(tmp_path, planted):
    folder = synthetic.write(tmp_path, synthetic.study(depth=0, variations="aligned"), planted)
    findings = analyse(folder)
    assert [section.title for section in findings.sections] == SECTIONS
    assert findings.question == "Is Muon’s margin and rank larger at equal loss, and where is it not?"
    terms = dict(findings.sections[-1].elements[0].terms)
    assert all(terms.values())
    assert "0.5, the one" in terms["Main eps"]
    assert "1% of the larger mean" in terms["Higher, lower"]
    assert "Claim (e) of arXiv 2606.09658" in page.write(findings, folder).read_text()
    files = {path.name for path in (folder / "report").iterdir()}
    assert {"map-margin.csv", "map-margin-1.svg", "gains.csv", "agreement.csv", "sensitivity.csv"} <= files


def test_results_of_an_unfinished_study_are_analysed(tmp_path):
    folder = synthetic.write(tmp_path, synthetic.study(depth=0, variations="none"))
    for job in sorted(folder.glob("*/result.json"))[::2]:
        job.unlink()
    assert "This study is not finished" in analyse(folder).notices[0].text


def test_another_folder_is_refused(tmp_path):
    with pytest.raises(StudyError):
        analyse(tmp_path)


def test_nothing_done(nothing):
    (text,) = sections.maps(nothing, judge_all(nothing))
    assert text.text == "No problem has runs of two arms yet."
    assert sections.by_loss(nothing) == sections.removal(nothing) == sections.variations(nothing) == ()
    assert sections.censored(nothing) == tuning(nothing, ()) == ()


# -- the map ---------------------------------------------------------------------------------------


def test_a_map_for_every_depth_and_rival(found, rows_of):
    margin, rank, cells, others = sections.maps(found, judge_all(found))
    assert (margin.name, rank.name) == ("map-margin", "map-rank")
    assert [panel.title for panel in margin.panels] == [
        "depth 0, against AdamW",
        "depth 0, against SGD",
        "depth 1, against AdamW",
        "depth 1, against SGD",
    ]
    for panel in margin.panels:
        assert isinstance(panel, Grid)
        assert (panel.x, panel.y) == (("2", "8"), ("0.1", "0.3"))
        assert [[cell.side for cell in row] for row in panel.cells] == [["higher", "higher"], ["higher", "lower"]]
    assert (margin.panels[1].upper_side, margin.panels[1].lower_side) == ("Muon higher", "SGD higher")
    assert "over all 16 cells" in margin.caption
    rows = rows_of(cells)
    assert len(rows) == 32
    assert all(row["mean_first"] - row["mean_rival"] == pytest.approx(row["difference"].value) for row in rows)
    counted = {(row["quantity"], row["rival"]): row for row in rows_of(others)}
    assert counted["test accuracy", "SGD"]["undecided"] == 8
    assert all(row["higher"] + row["lower"] + row["undecided"] == row["cells"] for row in counted.values())


def test_what_is_not_done_is_an_empty_cell():
    def undone(step):
        return step.arm == "sgd" and step.case is not None and step.case.components.ratio == 8

    part = synthetic.found(undone=undone)
    figure = sections.maps(part, judge_all(part))[0]
    assert [[cell is None for cell in row] for row in figure.panels[1].cells] == [[False, True], [False, True]]


# -- by loss ---------------------------------------------------------------------------------------


def test_lines_over_eps_for_the_middle_of_every_map(found):
    margin, rank, _ = sections.by_loss(found)
    assert (margin.name, rank.name) == ("by-eps-margin", "by-eps-rank")
    assert [panel.title for panel in margin.panels] == ["depth 0", "depth 1"]
    adamw, sgd = margin.panels[0].lines
    assert (adamw.series.label, adamw.series.role, adamw.x, adamw.n) == ("less AdamW", "adamw", (0.5, 1), 6)
    assert sgd.y == pytest.approx((0.3, 0.3), abs=0.02)


def test_sides_at_every_loss_and_gaps_where_no_pair_reached_it(rows_of):
    def censored(case, name, rate, seed, place):
        return "not reached" if name == "sgd" and place == 1 and seed < 4 else None

    *_, table = sections.by_loss(of(shift=up, censored=censored))
    rows = {(row["quantity"], row["eps"], row["rival"]): row for row in rows_of(table)}
    lost = rows["worst-class margin", 0.5, "SGD"]
    assert (lost["undecided"], lost["censored"], lost["cells"]) == (8, 8, 8)
    whole = rows["worst-class margin", 1, "SGD"]
    assert (whole["higher"], whole["censored"]) == (8, 0)
    margin, *_ = sections.by_loss(of(censored=lambda case, name, rate, seed, place: "not reached" if place else None))
    assert margin.panels[0].lines[0].y[0] is None
    assert margin.panels[0].lines[0].y[1] is not None


# -- without the strong components, and variations -------------------------------------------------


def test_maps_and_means_without_the_strong_components(rows_of):
    def shift(field, case, name):
        return {"accuracy_removed": 0.2, "accuracy_swapped": -0.2}.get(field, 0.0) * (name == "muon")

    removed, swapped, table = sections.removal(of(shift=shift))
    assert removed.panels[0].kind == "accuracy"
    assert {cell.side for panel in removed.panels for row in panel.cells for cell in row} == {"higher"}
    assert {cell.side for panel in swapped.panels for row in panel.cells for cell in row} == {"lower"}
    rows = rows_of(table)
    assert [(row["map"], row["optimizer"]) for row in rows] == [
        (f"depth {depth}", name) for depth in (0, 1) for name in ("Muon", "AdamW", "SGD")
    ]
    assert rows[0]["removed"].value - rows[1]["removed"].value == pytest.approx(0.2, abs=0.02)


def test_variations_follow_the_base(rows_of):
    def shift(field, case, name):
        return (1.0 if case.map == "aligned" else 0.3) * (name == "muon" and field == "margin_worst")

    asked = synthetic.study(variations=["aligned", "decay", "squared"], squared_eps=[0.3, 0.2])
    margin, rank, test, every, means = sections.variations(synthetic.found(asked, synthetic.Planted(shift=shift)))
    assert (margin.name, rank.name, test.name) == ("varied-margin", "varied-rank", "varied-test")
    base, aligned, decay, squared = margin.panels[0].rows
    assert (base.label, base.emphasis, aligned.emphasis) == (sections.BASE, True, False)
    assert [row.label for row in (aligned, decay, squared)] == [
        *("along the axes (rotation 0)", "weight decay 0.1", "squared loss")
    ]
    assert (base.estimate.value, aligned.estimate.value) == pytest.approx((0.3, 1.0), abs=0.02)
    assert "With squared loss at 0.2, else at 0.5" in margin.caption
    assert len(rows_of(every)) == 3 * 2 * 4
    rows = {(row["case"], row["optimizer"]): row for row in rows_of(means)}
    assert len(rows) == 4 * 3
    assert rows["weight decay 0.1", "Muon"]["decay"] == pytest.approx(0.03 * 0.1)
    assert rows[sections.BASE, "Muon"]["decay"] is None


def test_without_variations_there_is_no_section():
    assert sections.variations(synthetic.found(synthetic.study(variations="none"))) == ()


# -- tuning ----------------------------------------------------------------------------------------


def better_outside(name, rate, seed):
    return 1 / (1 + rate)


def test_edges_and_extensions_are_counted(rows_of):
    asked = synthetic.study(extensions=1, ratio=2, noise=0.1, depth=0, variations="none")
    figure, summary, rates = tuning(synthetic.found(asked, synthetic.Planted(loss=better_outside)), ())
    line = figure.panels[0].lines[0]
    assert (line.series.label, line.x, line.n) == ("Muon", (0.03, 0.1, 0.33, 1.1), 2)
    assert line.y == pytest.approx([1 / (1 + rate) for rate in line.x])
    muon = rows_of(summary)[0]
    assert [muon[key] for key in ("extended", "high", "low", "problems", "num_runs")] == [2, 2, 0, 2, 2 * 4 * 2]
    row = rows_of(rates)[0]
    assert (row["rate"], row["edge"], row["tried"]) == (1.1, "high", "0.03, 0.1, 0.33, 1.1")
    assert row["loss"] == pytest.approx(1 / 2.1)


def test_rates_that_never_reached_the_loss_are_named_and_leave_a_gap(rows_of):
    def censored(case, name, rate, seed, place):
        return "not reached" if rate == 0.1 and name == "muon" else None

    figure, _, rates = tuning(of(censored=censored), ())
    assert figure.panels[0].lines[0].y[1] is None
    assert rows_of(rates)[0]["short"] == "0.1"
    _, rates = tuning(of(censored=lambda case, name, rate, seed, place: "not reached"), ())
    assert {row["loss"] for row in rows_of(rates)} == {None}


# -- censored runs, settings and jobs --------------------------------------------------------------


def test_runs_that_never_reached_a_loss_are_counted_by_reason(found, rows_of):
    def lost(case, name, rate, seed, place):
        if name != "sgd" or place == 0 or case.components.ratio != 8:
            return None
        return {0: "diverged", 1: "not reached", 2: "not reached"}.get(seed)

    summary, table = sections.censored(of(censored=lost))
    sgd = next(row for row in rows_of(summary) if (row["eps"], row["optimizer"]) == (0.5, "SGD"))
    assert (sgd["not_reached"], sgd["diverged"], sgd["n"]) == (8, 4, 48)
    rows = rows_of(table)
    assert {(row["optimizer"], row["eps"]) for row in rows} == {("SGD", 0.5)}
    assert {(row["not_reached"], row["diverged"], row["n"]) for row in rows} == {(2, 1, 6)}
    (text,) = sections.censored(found)
    assert text.text == "Every compared run reached every loss."


def test_what_was_asked_and_run(found, nothing, rows_of):
    problem, optimizers, jobs, *records = sections.sources(found)
    rows = {row["setting"]: row for row in rows_of(problem)}
    assert (rows["ratio"]["value"], rows["ratio"]["others"]) == ("2", "2, 8")
    assert (rows["batch"]["value"], rows["eps"]["value"]) == ("all examples", "1, 0.5")
    settings = {row["optimizer"]: row for row in rows_of(optimizers)}
    assert [settings[name]["momentum"] for name in ("Muon", "SGD", "AdamW")] == [0.95, 0.9, None]
    assert len(rows_of(jobs)) == found.expected
    assert isinstance(records[0], Record)
    assert records[0].title.startswith("Config in full: muonlab run components preset=tiny seeds=6")
    assert json.loads(records[0].text)["seeds"] == 6
    assert len(sections.sources(nothing)) == 4  # no environment before a job has begun

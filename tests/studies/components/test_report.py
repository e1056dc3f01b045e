"""The sections of the components report, and the report of whatever part of a study is done."""

import numpy as np
import pytest

import synthetic_components as synthetic
from muonlab.jobs.files import StudyError
from muonlab.report import page
from muonlab.studies.components import analyse, sections
from muonlab.studies.components.closed import at_equal, closed, flows, gains
from muonlab.studies.components.remarks import _closed
from muonlab.studies.components.theory.crossing import at_loss
from muonlab.studies.components.theory.problem import build
from muonlab.studies.components.tuning import tuning
from muonlab.studies.components.verdict import judge_all

SECTIONS = [
    *("Claim (e): margin and rank at equal loss", "By loss", "Without the strong components", "Variations"),
    *("Closed forms", "Tuning", "Censored and diverged", "Controls", "Data and settings"),
    *("Who updates what, and does it repeat?", "What the words mean"),
]


def of(asked=None, **planted):
    return synthetic.found(synthetic.study(**asked or {}), synthetic.Planted(**planted))


def up(field, case, name):
    return 0.3 * (name == "muon")


# -- whatever part of a study is done --------------------------------------------------------------


def test_a_study_becomes_a_report_with_every_figure_and_its_data(tmp_path, planted):
    with pytest.raises(StudyError):
        analyse(tmp_path)
    folder = synthetic.write(
        tmp_path,
        synthetic.study(optimizers=["muon", "sgd"], depth=0, noise=0.1, ratio=2, variations="aligned"),
        planted,
    )
    findings = analyse(folder)
    assert [section.title for section in findings.sections] == SECTIONS
    assert findings.question == "Is Muon’s margin and rank larger at equal loss, and where is it not?"
    terms = dict(findings.sections[-1].elements[0].terms)
    assert all(terms.values())
    assert "0.5, the one" in terms["Main eps"]
    assert "1% of the larger mean" in terms["Higher, lower"]
    assert "Claim (e) of arXiv 2606.09658" in page.write(findings, folder).read_text()
    files = {path.name for path in (folder / "report").iterdir()}
    assert {"map-margin.csv", "map-margin.svg", "gains.csv", "agreement.csv", "sensitivity.csv"} <= files
    for job in sorted(folder.glob("*/result.json"))[::2]:
        job.unlink()
    assert "This study is not finished" in analyse(folder).notices[0].text


def test_nothing_done(nothing):
    (text,) = sections.maps(nothing, judge_all(nothing))
    assert text.text == "No problem has runs of two arms yet."
    assert sections.by_loss(nothing) == sections.removal(nothing) == sections.variations(nothing) == ()
    assert sections.censored(nothing) == tuning(nothing, ()) == ()
    assert sections.variations(of({"variations": "none", "depth": 0})) == ()
    assert len(sections.sources(nothing)) == 4  # no environment before a job has begun


# -- the map ---------------------------------------------------------------------------------------


def test_a_map_for_every_depth_and_rival(found, rows_of):
    margin, rank, cells, others = sections.maps(found, judge_all(found))
    assert (margin.name, rank.name) == ("map-margin", "map-rank")
    assert [panel.title for panel in margin.panels] == [
        f"depth {depth}, against {rival}" for depth in (0, 1) for rival in ("AdamW", "SGD")
    ]
    for panel in margin.panels:
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


def test_sides_at_every_loss_and_gaps_where_no_pair_reached_it(rows_of):
    def censored(case, name, rate, seed, place):
        is_lost = (name == "sgd" and seed < 4) or name == "adamw"
        return "not reached" if place == 1 and is_lost else None

    margin, _, table = sections.by_loss(of(shift=up, censored=censored))
    rows = {(row["quantity"], row["eps"], row["rival"]): row for row in rows_of(table)}
    lost, whole = (rows["worst-class margin", eps, "SGD"] for eps in (0.5, 1))
    assert (lost["undecided"], lost["censored"], lost["cells"]) == (8, 8, 8)
    assert (whole["higher"], whole["censored"]) == (8, 0)
    assert [panel.title for panel in margin.panels] == ["depth 0", "depth 1"]
    adamw, sgd = margin.panels[0].lines
    assert (adamw.series.label, adamw.series.role, adamw.x, sgd.n) == ("minus AdamW", "adamw", (0.5, 1), 6)
    assert [y is None for y in adamw.y] == [True, False]
    assert sgd.y == pytest.approx((0.3, 0.3), abs=0.02)


# -- without the strong components, and variations -------------------------------------------------


def test_maps_and_means_without_the_strong_components(rows_of):
    def shift(field, case, name):
        return {"accuracy_removed": 0.2, "accuracy_swapped": -0.2}.get(field, 0.0) * (name == "muon")

    removed, swapped, table = sections.removal(of(shift=shift))
    assert removed.panels[0].kind == "accuracy"
    sides = [{cell.side for panel in each.panels for row in panel.cells for cell in row} for each in (removed, swapped)]
    assert sides == [{"higher"}, {"lower"}]
    rows = {(row["map"], row["optimizer"]): row for row in rows_of(table)}
    assert len(rows) == 2 * 3
    muon = rows["depth 0", "Muon"]
    assert (muon["removed"].value, muon["swapped"].value) == pytest.approx((1.2, 0.8), abs=0.02)
    assert (muon["removed"].n, muon["chance"]) == (6, 0.25)


def test_variations_against_the_middle_of_the_map(rows_of):
    def shift(field, case, name):
        return (1.0 if case.map == "aligned" else 0.3) * (name == "muon" and field == "margin_worst")

    asked = {"variations": ["aligned", "decay", "squared"], "squared_eps": [0.3, 0.2]}
    margin, rank, test, every, means = sections.variations(of(asked, shift=shift))
    assert (margin.name, rank.name, test.name) == ("varied-margin", "varied-rank", "varied-test")
    base, aligned, decay, squared = margin.panels[0].rows
    assert (base.label, base.emphasis, aligned.emphasis) == (sections.BASE, True, False)
    labels = ["along the axes (rotation 0)", "weight decay 0.1", "squared loss"]
    assert [row.label for row in (aligned, decay, squared)] == labels
    assert (base.estimate.value, aligned.estimate.value) == pytest.approx((0.3, 1.0), abs=0.02)
    assert "With squared loss at 0.2, else at 0.5" in margin.caption
    assert len(rows_of(every)) == 3 * 2 * 4
    rows = {(row["case"], row["optimizer"]): row for row in rows_of(means)}
    assert len(rows) == 4 * 3
    assert rows["weight decay 0.1", "Muon"]["decay"] == pytest.approx(0.03 * 0.1)
    assert (rows[sections.BASE, "Muon"]["decay"], rows[sections.BASE, "Muon"]["n"]) == (None, 6)


# -- tuning ----------------------------------------------------------------------------------------


def test_edges_and_extensions_are_counted(rows_of):
    asked = {"extensions": 1, "ratio": 2, "noise": 0.1, "depth": 0, "variations": "none"}
    figure, summary, rates = tuning(of(asked, loss=lambda name, rate, seed: 1 / (1 + rate)), ())
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
        return "not reached" if name == "sgd" or (name == "muon" and rate == 0.1) else None

    figure, _, rates = tuning(of(censored=censored), ())
    assert figure.panels[0].lines[0].y[1] is None
    rows = {row["optimizer"]: row for row in rows_of(rates)}
    assert (rows["Muon"]["short"], rows["SGD"]["short"], rows["SGD"]["loss"]) == ("0.1", "0.1, 0.3", None)


# -- censored runs ---------------------------------------------------------------------------------


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


# -- closed forms ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def without_noise():
    asked = {"ratio": [1, 2], "noise": [0, 0.1], "depth": 0}
    return of(asked, shift=lambda field, case, name: 0.3 * (name == "muon" and field == "margin_worst"))


def test_flows_are_those_of_the_theory_with_what_simulation_found(without_noise, rows_of):
    known = flows(without_noise.runs.asked)
    one, two = known
    assert (one.components.ratio, two.components.ratio, two.components.noise, two.eps) == (1, 2, 0, 0.5)
    expected = at_loss(build(classes=4, dimension=8, ratio=2.0), "spectral", 0.5)
    assert two.spectral["margin_worst"] == pytest.approx(expected["margin_worst"])
    assert one.difference("margin_worst") == one.difference("rank_weights") == 0
    one, two = rows_of(at_equal(without_noise, known))
    assert two["margin_simulated"].value == pytest.approx(0.3, abs=0.02)
    assert two["margin_difference"] == pytest.approx(two["margin_spectral"] - two["margin_gradient"])
    assert two["margin_difference"] > 0.01
    assert one["margin_turn"] is None
    eps, ahead = two["margin_turn"].split(" ")
    assert 0 < float(eps) < 0.5
    assert ahead == "(gradient)"
    # a net with hidden layers is not compared with flows of a linear one
    deep = of({"ratio": [1, 2], "noise": 0, "depth": 1})
    assert [row["margin_simulated"] for row in rows_of(at_equal(deep, known))] == [None, None]


def test_every_turn_is_told_where_the_order_turns_more_than_once(rows_of):
    asked = {"loss": "squared", "patterns": "random", "classes": 8, "dimension": 8, "ratio": 4, "depth": 0}
    twice = of({**asked, "variations": "none"})
    (row,) = rows_of(at_equal(twice, known := flows(twice.runs.asked)))
    assert row["margin_turn"] == "0.0248 (gradient), 0.00879 (spectral)"
    (sentence,) = _closed(known)
    assert "At losses of 0.0248 to 0.00879 at ratio 4 gradient flow" in sentence
    assert len(closed(twice, known)) == 3


def test_gains_of_each_flow_rise_from_zero_to_the_smallest_loss(without_noise):
    figure = gains(without_noise.runs.asked)
    gradient, spectral, sign = figure.panels
    for panel in figure.panels:
        assert len(panel.lines) == 2
        for line in panel.lines:
            assert line.y[0] == 0
            assert np.all(np.diff(line.y) > 0)
    assert spectral.lines[0].series.label == "strength 2"
    strong, weak = (np.array(line.y) for line in spectral.lines)
    ratio = without_noise.runs.asked.base.components.ratio
    assert weak[1:] / strong[1:] == pytest.approx(np.full(len(weak) - 1, 1 / ratio))
    assert sign.title.endswith("along the axes")
    assert gradient.lines[0].n == 1


def test_figures_without_a_closed_form_are_left_out(rows_of):
    rank = synthetic.study(rank=1, depth=0, variations="none")  # classes 1 and 2 look alike, log 2 is left
    assert gains(rank) is None
    assert len(gains(synthetic.study(classes=3, variations="none", depth=0)).panels) == 2  # no sign descent
    random = of({"patterns": "random"})
    assert flows(random.runs.asked) == []
    assert [table.name for table in closed(random, [])] == ["agreement"]

import numpy as np
import pytest

import synthetic_components as synthetic
from muonlab.studies.components.closed import agreement, at_equal, closed, flows, gains
from muonlab.studies.components.theory.crossing import at_loss
from muonlab.studies.components.theory.problem import build


@pytest.fixture(scope="module")
def found():
    return synthetic.found(synthetic.study(ratio=[1, 4], noise=[0, 0.1]), synthetic.Planted(shift=shift))


def shift(field, case, name):
    return 0.3 * (name == "muon" and field == "margin_worst")


def test_flows_are_those_of_the_theory_at_the_main_loss(found):
    one, four = flows(found.runs.asked)
    assert (one.components.ratio, four.components.ratio, four.components.noise, four.eps) == (1, 4, 0, 0.5)
    expected = at_loss(build(classes=4, dimension=8, ratio=4.0), "spectral", 0.5)
    assert four.spectral["margin_worst"] == pytest.approx(expected["margin_worst"])
    assert four.difference("margin_worst") > 0.1
    assert one.difference("margin_worst") == one.difference("rank_weights") == 0


def test_what_simulation_found_is_shown_with_them(found, rows_of):
    one, four = rows_of(at_equal(found, flows(found.runs.asked)))
    assert four["margin_simulated"].value == pytest.approx(0.3, abs=0.02)
    assert four["margin_difference"] == pytest.approx(four["margin_spectral"] - four["margin_gradient"])
    assert one["margin_turn"] is None
    eps, ahead = four["margin_turn"].split(" ")
    assert 0 < float(eps) < 0.5
    assert ahead == "(gradient)"


def test_every_turn_is_told_where_the_order_turns_more_than_once(rows_of):
    asked = synthetic.study(loss="squared", patterns="random", classes=8, dimension=8, ratio=4, depth=0)
    (row,) = rows_of(at_equal(synthetic.found(asked), flows(asked)))
    assert row["margin_turn"] == "0.0248 (gradient), 0.00879 (spectral)"


def test_a_net_with_hidden_layers_is_not_compared_with_flows_of_a_linear_one(rows_of):
    deep = synthetic.found(synthetic.study(depth=1, noise=0))
    assert [row["margin_simulated"] for row in rows_of(at_equal(deep, flows(deep.runs.asked)))] == [None, None]


def test_a_loss_that_no_flow_reaches_leaves_no_figure():
    asked = synthetic.study(rank=1, depth=0, variations="none")  # classes 1 and 2 look alike, log 2 is left
    assert gains(asked) is None


def test_gains_of_each_flow_rise_from_zero_to_the_smallest_loss(found):
    figure = gains(found.runs.asked)
    gradient, spectral, sign = figure.panels
    assert [len(panel.lines) for panel in figure.panels] == [2, 2, 2]
    for panel in figure.panels:
        for line in panel.lines:
            assert line.y[0] == 0
            assert np.all(np.diff(line.y) > 0)
    assert spectral.lines[0].series.label == "strength 2"
    strong, weak = (np.array(line.y) for line in spectral.lines)
    assert weak[1:] / strong[1:] == pytest.approx(np.full(len(weak) - 1, spectral_ratio(found)))
    assert sign.title.endswith("along the axes")
    assert gradient.lines[0].n == 1


def spectral_ratio(found):
    return 1 / found.runs.asked.base.components.ratio


def test_agreement_has_errors_sizes_and_orders(found, rows_of):
    rows = rows_of(agreement(found))
    assert len(rows) == 5 * 2
    first, second = rows[:2]
    assert (first["steps"], first["error"], first["order"]) == (10, 0.01, None)
    assert (second["steps"], second["error"], second["order"]) == (20, 0.005, 1.0)


def test_problems_without_closed_forms_have_what_is_known_of_squared_loss_alone():
    random = synthetic.found(synthetic.study(patterns="random"))
    assert flows(random.runs.asked) == []
    assert [table.name for table in closed(random, [])] == ["agreement"]


def test_sign_descent_is_left_out_where_it_has_no_closed_form():
    asked = synthetic.study(classes=3, variations="none", depth=0)
    assert len(gains(asked).panels) == 2


def test_squared_loss_has_flows_too():
    squared = synthetic.found(synthetic.study(loss="squared", squared_eps=[0.3, 0.2], depth=0))
    known = flows(squared.runs.asked)
    assert {each.eps for each in known} == {0.2}
    assert len(closed(squared, known)) == 3

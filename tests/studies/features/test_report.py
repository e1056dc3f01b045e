"""The report of whatever part of a study is done; its sections, and those on measured nets that `inspect` has, too."""

import dataclasses
import json
from dataclasses import replace
from statistics import fmean

import pytest

import synthetic_features as synthetic
from muonlab.jobs import store
from muonlab.jobs.files import StudyError
from muonlab.report.findings import Figure, Picture, Record, Table, Text
from muonlab.report.page import png, write
from muonlab.stats.effects import mean as mean_of
from muonlab.stats.proportions import as_share
from muonlab.studies.features import layers, robustness, sections
from muonlab.studies.features.analysis import analyse
from muonlab.studies.features.beyond import beyond_clean
from muonlab.studies.features.nets import Measured, is_sighted, with_zeros
from muonlab.studies.features.sections import learning_curves, tuning
from muonlab.studies.features.verdict import judge_all
from muonlab.studies.features.work.pretraining import EVALUATED

ONE = {"families": ["cnn"]}


def elements(findings, kind):
    return [e for section in findings.sections for e in section.elements if isinstance(e, kind)]


def texts(findings):
    return [notice.text for notice in findings.notices]


def check(folder, is_drawn=False):
    """Analyse a folder; whatever part of a study it holds makes a whole report."""
    findings = analyse(folder)
    json.dumps(dataclasses.asdict(findings), allow_nan=False)
    for table in elements(findings, Table):
        assert {len(row) for row in table.rows} <= {len(table.columns)}, table.name
    for name, meaning in next(e for e in findings.sections[-1].elements).terms:
        assert meaning, name
        assert "{" not in meaning
    if is_drawn:
        write(findings, folder)
    return findings


# -- whatever part of a study is done --------------------------------------------------------------


def test_a_whole_study(tmp_path):
    findings = check(synthetic.write(tmp_path), is_drawn=True)
    assert [section.title for section in findings.sections] == [
        *("Claims", "Robustness", "Margins by layer", "Ranks by layer", "Transfer"),
        *("Equal budget next to matched loss", "Tuning", "Learning curves", "Controls", "Corruptions"),
        *("Data and settings", "Who updates what, and does it repeat?", "What the words mean"),
    ]
    assert (findings.notices, findings.title) == ((), "features, preset tiny")
    assert [figure.name for figure in elements(findings, Figure)] == [
        *("claim-a", "claim-b", "claim-c-linear-probe", "claim-c-fine-tuning-on-classes"),
        *(
            "claim-c-fine-tuning-on-text",
            "claim-d",
            "severity",
            "margins",
            "ranks",
            "tuning",
            "learning",
            "learning-flops",
        ),
    ]
    assert [picture.name for picture in elements(findings, Picture)] == ["sheet-images"]
    effects, answers = findings.first
    assert [len(panel.rows) for panel in effects.panels] == [2, 2, 2, 2]  # AdamW, at equal budget and at matched loss
    assert answers.claims[2].quantity == "mean of linear probe, fine-tuning on classes, fine-tuning on text"
    assert [reply.sides for reply in answers.claims[0].replies] == [(0, 0, 2)] * 2


def test_a_study_just_begun(tmp_path):
    findings = check(synthetic.write(tmp_path, undone=lambda step: True), is_drawn=True)
    assert texts(findings)[0].startswith("This study is not finished: 0 of the 10 jobs known so far are done")
    assert texts(findings)[1] == (
        "Not measured yet: Muon, AdamW on cnn on digits (final runs of Muon, AdamW first); Muon, AdamW on gpt on "
        "sources (final runs of Muon, AdamW first)."
    )
    assert [section.title for section in findings.sections][:2] == ["Claims", "Controls"]


@pytest.mark.parametrize("role", ["final", "transfer search", "measure", "transfer"])
def test_a_study_stopped_on_the_way(tmp_path, role):
    lost = {"undone": lambda step: step.role == role}
    assert "not finished" in texts(check(synthetic.write(tmp_path, synthetic.study(**ONE), **lost)))[0]


def test_jobs_that_failed_are_named(tmp_path):
    findings = check(synthetic.write(tmp_path, synthetic.study(**ONE), failed=lambda step: step.role == "transfer"))
    assert "cnn on digits: AdamW weights, fine-tuned on classes by AdamW failed: out of memory." in texts(findings)


def test_one_arm_alone(tmp_path):
    findings = check(synthetic.write(tmp_path, synthetic.study(optimizers=["sgd"], **ONE)))
    assert findings.question == "Are features trained with SGD more robust and more transferable, and why?"
    assert findings.verdict.answer == "inconclusive"
    assert "severity" in {figure.name for figure in elements(findings, Figure)}


@pytest.mark.parametrize("lost", ["adamw", "muon"])
def test_all_runs_of_an_arm_diverged_in_the_search_or_one_after(tmp_path, lost):
    def everywhere(optimizer, rate, seed, part):
        return None if optimizer == lost and part > 0.5 else 2 - part

    def in_one_run(optimizer, rate, seed, part):  # the search has seed 0 alone
        return None if (optimizer, seed) == (lost, 3) and part > 0.5 else 2 - part

    study = synthetic.study(**ONE)
    findings = check(synthetic.write(tmp_path / "all", study, synthetic.Planted(loss=everywhere)))
    name = {"adamw": "AdamW", "muon": "Muon"}[lost]
    assert f"{name} on cnn on digits diverged at every learning rate tried." in texts(findings)
    check(synthetic.write(tmp_path / "one", study, synthetic.Planted(loss=in_one_run)))


def test_all_measured_runs_of_an_arm_diverged(tmp_path, monkeypatch):
    real = synthetic.pretrained

    def pretrained(step, config, planted):
        found = real(step, config, planted)
        for member in found["members"] if (step.role, step.arm) == ("final", "adamw") else ():
            member["diverged_at"] = 12
            for curve in ("train_loss", "validation_loss"):
                member[curve] = [*member[curve][:-1], None]
        return found

    monkeypatch.setattr(synthetic, "pretrained", pretrained)
    findings = check(synthetic.write(tmp_path, synthetic.study(**ONE)))
    assert "All AdamW runs of cnn on digits diverged: no measure includes them." in texts(findings)
    assert findings.verdict.answer == "inconclusive"


def test_an_earlier_request_stays_unless_the_newest_asks_all_that_it_asked(tmp_path):
    effect = synthetic.Planted(shift=lambda what, net, name: 0.1 * (what == "corrupted" and name == "muon"))
    synthetic.write(tmp_path, synthetic.study(families=["gpt"]), effect)
    for part in ({"seeds": 3}, {"optimizers": "muon"}, {}):  # the last one asks all that the two before it asked
        synthetic.write(tmp_path, synthetic.study(**ONE, **part))
    findings = check(tmp_path, is_drawn=True)
    assert len(store.read(tmp_path).requests) == 4
    (earlier,) = [section for section in findings.sections if section.title.startswith("Asked before")]
    head, *claims = [each.text for each in earlier.elements if isinstance(each, Text)]
    assert head.startswith("muonlab run features preset=tiny families=gpt")
    assert "(a) robustness: yes" not in findings.verdict.sentence
    assert "higher”: yes, here. Mean over 1 case" in claims[0]
    names = [element.name for element in elements(findings, Table)]
    assert names.count("claims") == names.count("claims-request-1") == len(set(names)) - len(names) + 1


def test_a_failed_control_comes_first(tmp_path):
    findings = check(synthetic.write(tmp_path, synthetic.study(**ONE), synthetic.Planted(shuffled=0.7)))
    assert texts(findings)[0].startswith("A CONTROL FAILED: shuffled labels of cnn on digits")


# Bug: budgets share the jobs that new weights have, which were counted for each, and a whole study was "not finished".
def test_a_whole_study_of_two_horizons_is_finished(tmp_path):
    findings = check(synthetic.write(tmp_path, synthetic.study(**ONE, budget=[12, 24])))
    assert not any("not finished" in text for text in (*texts(findings), *findings.verdict.cautions))


def test_no_study(tmp_path):
    with pytest.raises(StudyError):
        analyse(tmp_path)


# -- claims ----------------------------------------------------------------------------------------


def test_a_panel_for_each_comparison_and_every_one_in_a_table(found, rows_of):
    shown = sections.claims(found, judge_all(found))
    figures = [e for e in shown if isinstance(e, Figure)]
    # Only weights of the end are fine-tuned.
    assert [len(figure.panels) for figure in figures] == [2, 2, 2, 1, 1, 2]
    assert [panel.title for panel in figures[0].panels] == ["at equal budget", "at matched clean validation loss"]
    forest = figures[0].panels[0]
    assert (forest.no_effect, forest.lower_side, forest.upper_side) == (0.0, "AdamW higher", "Muon higher")
    assert [(row.label, row.n) for row in forest.rows] == [
        ("cnn on digits, AdamW", "4 + 4"),
        ("gpt on sources, AdamW", "4 + 4"),
    ]
    rows, others = (rows_of(table) for table in shown[-2:])
    assert len(rows) == 2 * (2 + 2 + 3 + 2) + 1  # of transfer the probe twice, fine-tuning once, text by the GPT alone
    first = rows[0]
    assert (first["claim"], first["comparison"]) == ("(a) corrupted accuracy", "equal budget")
    assert (first["mean_first"], first["mean_rival"]) == pytest.approx((0.7, 0.6))
    assert (first["difference"].value, first["side"]) == (pytest.approx(0.1), "higher")
    assert len(others) == 2 * 2 * (3 + 4)
    assert {row["claim"][:3] for row in others} == {"(b)", "(d)"}


def test_the_end_and_matched_loss(rows_of):
    def loss(optimizer, rate, seed, part):
        return 2 - part - (0.5 if optimizer == "muon" else 0.0)  # Muon is ahead: 1.5 - part reaches 1 halfway

    found = synthetic.found(synthetic.study(**ONE), synthetic.Planted(loss=loss))
    (table,) = sections.states(found)
    rows = rows_of(table)
    assert [(row["state"], row["optimizer"]) for row in rows] == [
        ("end", "Muon"),
        ("end", "AdamW"),
        ("matched to AdamW", "Muon"),
        ("matched to Muon", "AdamW"),
    ]
    steps = found.runs.families["cnn on digits"].finals["muon"]["steps"]
    step = next(step for step in steps if 1.5 - step / 12 <= 1)
    assert [row["step"] for row in rows] == [12, 12, step, 12]
    assert [row["validation_loss"] for row in rows] == pytest.approx([0.5, 1, 1.5 - step / 12, 1])
    assert f"up to {EVALUATED['classes']} examples, or {EVALUATED['tokens']} windows" in table.note


# -- transfer --------------------------------------------------------------------------------------


def test_whose_weights_by_whose_fine_tuning(rows_of):
    planted = synthetic.Planted(shift=lambda what, net, name: {"muon": 0.1, "none": -0.2}.get(name, 0.0))
    matrix, ways = map(rows_of, sections.transfer(synthetic.found(planted=planted)))
    assert [(row["task"], row["weights"]) for row in matrix] == [
        (task, weights)
        for task in ("other classes", "classes of texts", "another text")
        for weights in ("Muon", "AdamW", "new weights")
    ]
    assert [row["by_adamw"].value for row in matrix[:3]] == pytest.approx([0.6, 0.5, 0.3])
    assert [row["linear"].value for row in matrix[:2]] == pytest.approx([0.6, 0.5])
    assert matrix[2]["linear"] is None
    assert len(ways) == 3 * 2 + 2 * 3 * 2
    assert {(row["rate"], row["edge"], row["searched"], row["n"], row["num_last"]) for row in ways} == {
        (0.01, "high", 2, 4, 1)
    }


# -- tuning ----------------------------------------------------------------------------------------


def test_loss_by_learning_rate(rows_of):
    def loss(optimizer, rate, seed, part):
        return None if (optimizer, rate) == ("muon", 0.01) and part > 0 else 2 - part + 10 * rate + seed

    figure, table = tuning(synthetic.found(synthetic.study(search_seeds=2, **ONE), synthetic.Planted(loss=loss)))
    muon, adamw = figure.panels[0].lines
    assert (muon.x, muon.n, muon.y) == ((0.003, 0.01), 2, (pytest.approx(1.53), None))
    assert adamw.y == pytest.approx((1.53, 1.6))
    row = rows_of(table)[0]
    assert [row[key] for key in ("rate", "edge", "tried", "diverged", "num_runs")] == [
        *(0.003, "low", "0.003, 0.01", "0.01", 4)
    ]
    assert row["loss"] == pytest.approx(1.53)


def test_losses_far_apart_have_a_log_axis_and_where_all_diverged_there_is_a_table_alone(rows_of):
    planted = synthetic.Planted(loss=lambda optimizer, rate, seed, part: 100.0 if rate == 0.01 else 1.0)
    assert tuning(synthetic.found(planted=planted))[0].y.log
    planted = synthetic.Planted(loss=lambda optimizer, rate, seed, part: None if part else 1.0)
    (table,) = tuning(synthetic.found(planted=planted))
    assert {row["rate"] for row in rows_of(table)} == {None}


def test_learning_curves_leave_out_what_diverged():
    def loss(optimizer, rate, seed, part):
        return None if (optimizer, seed) == ("muon", 1) and part > 0.5 else 2 - part + seed

    figure, by_flops = learning_curves(synthetic.found(synthetic.study(**ONE), synthetic.Planted(loss=loss)))
    assert by_flops.panels[0].lines[0].x[-1] == 12 * 1e6  # of a step that the results have
    muon, adamw = figure.panels[0].lines
    assert (muon.n, adamw.n) == (3, 4)
    assert (muon.x[-1], muon.y[-1], adamw.y[-1]) == (12, pytest.approx(1 + 5 / 3), pytest.approx(2.5))


# -- data and settings -----------------------------------------------------------------------------


def test_what_was_read_asked_and_run(found, rows_of):
    data, read, optimizers, jobs, config, environment = sections.sources(found)
    row = rows_of(data)[0]
    assert (row["num_parameters"], row["num_train"], row["num_examples"], row["budget"]) == (5000, 500, 200, 12)
    assert rows_of(read)[0] == {"family": "cnn on digits", "note": "read 700 examples, 2 skipped"}
    muon, adamw = rows_of(optimizers)
    assert (muon["momentum"], adamw["momentum"], adamw["weight_decay"]) == (0.95, None, 0.05)
    assert len(rows_of(jobs)) == found.expected
    assert isinstance(config, Record)
    assert json.loads(config.text) == found.runs.asked.model_dump(mode="json")
    assert json.loads(environment.text) == {"device": "cpu", "sessions": [{"seconds": 2.0}]}


def test_a_sheet_for_every_data_set():
    picture, table = sections.sheets(synthetic.found(synthetic.study(families=["cnn", "vit", "gpt"])))
    assert (picture.row_labels, picture.column_labels) == (("fog", "gaussian noise"), ("0", "1", "2", "3", "4", "5"))
    assert png(picture)
    assert table.rows[7] == ("word drop", 1, "a passage of some length")


def test_nothing_done(nothing):
    assert sections.transfer(nothing) == sections.states(nothing) == beyond_clean(nothing) == ()
    assert sections.sheets(nothing) == tuning(nothing) == learning_curves(nothing) == ()


# -- measured nets, as `inspect` shows them, too ---------------------------------------------------


def test_a_probe_without_weights_has_margins_of_zero():
    layer = synthetic.layer("blocks.0", 1.0, 4.0)
    layer["margins"]["clean"]["by_norm"] = dict.fromkeys(("mean", "mean_interval", "median", "median_interval"))
    found = with_zeros(layer)["margins"]["clean"]["by_norm"]
    assert found == {"mean": 0.0, "mean_interval": [0.0, 0.0], "median": 0.0, "median_interval": [0.0, 0.0]}
    assert with_zeros({"tap": "a", "raw": {}}) == {"tap": "a", "raw": {}, "margins": {}}
    assert with_zeros({"tap": "a", "margins": {"clean": {}, "corrupted": None}})["margins"] == {"clean": {}}


def test_a_probe_finds_something_where_it_misjudges_fewer_than_chance():
    model = Measured(None, None, {}, [synthetic.layer("a", 1.0, 4.0)])  # misjudges a quarter
    assert is_sighted([model], 0, 0.5)
    assert not is_sighted([model], 0, 0.8)


def test_margins_and_ranks_by_layer(ends, rows_of):
    figure, zero, every = layers.margins(ends)
    assert [panel.title for panel in figure.panels[:2]] == ["cnn on digits, clean", "cnn on digits, corrupted"]
    muon, adamw, new = figure.panels[1].lines
    assert (muon.x, muon.y) == ((1, 2), pytest.approx((0.5, 1.0)))
    assert (adamw.n, new.series.role, new.lower) == (4, "none", (None, None))
    assert (rows_of(zero)[0]["layer"], rows_of(zero)[0]["untrained"].value) == (1, 0.25)
    first, examples = rows_of(every)[0], rows_of(every)[0]["median_examples"]
    assert (first["margin"], first["optimizer"], first["tap"], first["n"]) == ("by norm", "Muon", "blocks.0", 4)
    assert (examples.value, examples.lower, examples.upper) == pytest.approx((1.0, 0.7, 1.3))
    figure, mean, every = layers.ranks(ends)
    assert figure.panels[0].lines[0].y == pytest.approx((4.0, 5.0))
    assert rows_of(mean)[0]["muon"].value == pytest.approx(4.5)
    row = rows_of(every)[0]
    assert (row["examples"], row["width"], row["examples_per_width"], row["n"]) == (40, 8, 5.0, 4)
    assert row["effective_rank_sigma_centred"].value == pytest.approx(6.5)


def test_accuracy_by_severity_and_by_corruption(found, ends, rows_of):
    figure, mean, every = robustness.robustness(ends)
    muon, adamw = figure.panels[0].lines
    assert muon.x == (0, 1, 2, 3, 4, 5)
    assert muon.y == pytest.approx((0.7, 0.74, 0.72, 0.7, 0.68, 0.66))
    assert adamw.y[1:] == pytest.approx((0.64, 0.62, 0.6, 0.58, 0.56))
    models = found.runs.families["cnn on digits"].of("muon", "final")
    values = [fmean(own[2] for own in model.accuracy.values()) for model in models]
    found = as_share(mean_of(values))
    assert (muon.lower[3], muon.upper[3]) == (found.lower, found.upper)
    assert figure.panels[0].marks == (("chance", 0.2),)
    row = rows_of(mean)[1]
    assert (row["corruption"], row["muon"].value, row["adamw"].value) == ("fog", *map(pytest.approx, (0.65, 0.55)))
    row = rows_of(every)[4]
    assert (row["severity"], row["muon"].value) == (5, pytest.approx(0.7 - 0.05 - 0.04))


def test_one_net_per_arm_has_intervals_over_examples_alone(alone):
    margins, ranks = layers.margins(alone)[0], layers.ranks(alone)[0]
    for figure, line, half in ((margins, margins.panels[0].lines[0], 0.3), (ranks, ranks.panels[0].lines[1], 0.2)):
        assert (line.n, line.lower[0], line.upper[0]) == pytest.approx((1, line.y[0] - half, line.y[0] + half))
        assert "with 95% intervals over test examples." in figure.caption
    figure, table, _ = robustness.robustness(alone)
    assert figure.caption.startswith("Test accuracy, mean over all corruptions, with no intervals: one net per arm.")
    assert {line.lower for line in figure.panels[0].lines} == {(None,) * 6}
    assert table.note == "Mean over the five severities, with no intervals: one net per arm."


def changed(compared, name, change):
    """Return what is compared with a change in every net of the only place, or of one arm."""
    (place,) = compared.places
    models = {k: [change(m) if name in (None, k) else m for m in each] for k, each in place.models.items()}
    return replace(compared, places=(replace(place, models=models),))


def test_different_nets_are_drawn_by_relative_depth(alone, rows_of):
    assert (alone.places[0].is_alike, alone.places[0].depth) == (True, 2)
    deeper = changed(
        *(alone, "adamw"),
        lambda model: replace(
            model,
            layers=[{**layer, "tap": f"stages.{n}"} for n, layer in enumerate([*model.layers, model.layers[-1]])],
        ),
    )
    figure, zero, every = layers.margins(deeper)
    assert [line.x for line in figure.panels[0].lines] == [(0.5, 1.0), pytest.approx((1 / 3, 2 / 3, 1.0))]
    assert (figure.x.label, figure.caption[-9:]) == ("layer / number of layers", "each net.")
    assert [row["muon"] is None for row in rows_of(zero)[:3]] == [False, False, True]
    assert [row["tap"] for row in rows_of(every)[:5]] == ["blocks.0", "stages.0", "blocks.1", "stages.1", "stages.2"]
    assert len(rows_of(layers.every_rank(deeper))) == 5


@pytest.mark.parametrize("lost", ["margins", "raw", "accuracy"])
def test_a_measure_that_was_not_asked_for_is_not_shown(alone, lost):
    def bare(model):
        kept = [{k: v for k, v in layer.items() if k != lost} for layer in model.layers]
        return replace(model, layers=kept, accuracy={} if lost == "accuracy" else model.accuracy)

    less = changed(alone, None, bare)
    assert bool(layers.margins(less)) == (lost != "margins")
    assert bool(layers.ranks(less)) == (lost != "raw")
    assert bool(robustness.robustness(less)) == (lost != "accuracy")
    assert layers.margins(replace(alone, places=())) == ()

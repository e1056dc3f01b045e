"""The report of an inspection: what claims measure, its sections, tables, sentences and cautions.

What comparisons decide is tested in tests/study.
"""

import dataclasses
import json
import re
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

import synthetic_inspection as synthetic
from muonlab.jobs import store
from muonlab.jobs.files import StudyError, write_json
from muonlab.report.findings import Table
from muonlab.report.page import write
from muonlab.stats.effects import mean
from muonlab.stats.proportions import as_share
from muonlab.studies.checkpoints import analyse, jobs_of, outline, tables
from muonlab.studies.checkpoints.claims import judged
from muonlab.studies.checkpoints.config import StudyData, Texts
from muonlab.studies.checkpoints.readings import Inspected, arms_of, read
from muonlab.studies.checkpoints.verdict import SINGLE, cautions, verdict

SECTIONS = [
    *("Claims", "Checkpoints", "Robustness", "Margins by layer", "Ranks by layer", "Transfer", "Controls"),
    *("Corruptions", "Data and settings", "What the words mean"),
]


def analysed(folder):
    """Findings for which all holds that holds for whatever was measured."""
    findings = analyse(folder)
    json.dumps(dataclasses.asdict(findings), allow_nan=False)
    for table in (e for section in findings.sections for e in section.elements if isinstance(e, Table)):
        assert {len(row) for row in table.rows} <= {len(table.columns)}, table.name
    return findings


def found_of(folder, planted=None, *, sizes=None, **others):
    return read(synthetic.write(folder, synthetic.asked(**(sizes or {"A": 4, "B": 4})), planted, **others))


def said(found):
    return verdict(found, judged(found))


def by_letter(found):
    return {each.claim.letter: each.comparisons[0] for each in judged(found)}


def rows_of(table):
    keys = [column.key for column in table.columns]
    return [dict(zip(keys, row, strict=True)) for row in table.rows]


def blind(found, *layers):
    for net in (net for nets in found.runs.nets.values() for net in nets):
        for layer in layers:
            net.layers[layer]["margins"]["clean"]["below_zero"] = 0.9


# -- what claims measure ---------------------------------------------------------------------------


def test_two_checkpoints_are_compared_over_pairs_of_examples(pair):
    own, other = (pair.runs.nets[name][0] for name in "AB")
    own.layers[0]["margins_by_example"]["by_norm"][:] = np.linspace(2, 4, 40)  # layers that differ
    found = by_letter(pair)
    oracle = stats.ttest_rel(own.corrupted_by_example, other.corrupted_by_example)
    bounds, first = oracle.confidence_interval(), found["a"]
    assert (first.estimate.lower, first.estimate.upper) == pytest.approx((bounds.low, bounds.high))
    assert first.effect.p == pytest.approx(oracle.pvalue)
    assert first.means == pytest.approx((np.mean(own.corrupted_by_example), np.mean(other.corrupted_by_example)))
    assert (first.test, first.n, first.side) == ("examples", "40 pairs", "higher")
    # Margins are means over the layers of each example; ranks combine their own intervals, planted 0.4 wide.
    rows = [np.mean([layer["margins_by_example"]["by_norm"] for layer in net.layers], axis=0) for net in (own, other)]
    assert found["b"].estimate.value == pytest.approx(np.mean(rows[0] - rows[1]))
    ranks = found["d"].estimate
    assert (ranks.value, ranks.upper) == pytest.approx((1.0, 1.0 + np.hypot(0.2, 0.2)))


def test_groups_are_compared_by_welch_over_their_checkpoints(seeds, tmp_path):
    own, other = ([net.transfer["accuracy"] for net in seeds.runs.nets[name]] for name in "AB")
    found = by_letter(seeds)["c"]
    assert (found.effect.p, found.n) == (pytest.approx(stats.ttest_ind(own, other, equal_var=False).pvalue), "4 + 4")
    assert {each.claim.letter: each.answer for each in judged(seeds)} == dict.fromkeys("abcd", "yes")
    three = judged(found_of(tmp_path / "three", sizes={"A": 1, "B": 1, "C": 3}))[0].comparisons
    assert [each.test for each in three] == ["examples", "welch"]  # the test is chosen for each pair
    assert three[1].estimate.lower is None


def test_means_are_over_the_layers_of_each_net_that_its_probes_can_read(pair, tmp_path):
    found = by_letter(found_of(tmp_path / "deep", depth={"B": 3}))
    assert (*found["d"].means, *found["b"].means) == pytest.approx((4.5, 5.0, 1.5, 2.0))
    pair.runs.nets["A"][0].layers[0]["margins"]["clean"]["below_zero"] = 0.9
    assert by_letter(pair)["b"].means[1] == pytest.approx(2.0, abs=0.05)  # of both: their layers correspond


# -- sections and tables ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sizes", "measures", "lost"),
    [
        ({"A": 1, "B": 1}, synthetic.EVERY, set()),
        ({"A": 4, "B": 3, "C": 1}, synthetic.EVERY, set()),
        ({"A": 2}, synthetic.EVERY, {"Claims"}),
        ({"A": 1, "B": 1}, ("rank",), {"Robustness", "Margins by layer", "Transfer"}),
        ({"A": 1, "B": 1}, ("robustness",), {"Margins by layer", "Ranks by layer", "Transfer"}),
        ({"A": 1, "B": 1}, ("margins", "transfer"), {"Robustness", "Ranks by layer"}),
    ],
)
def test_what_was_measured_has_its_sections(tmp_path, sizes, measures, lost):
    what = synthetic.asked(**sizes)
    job = what.job.model_copy(update={"measures": measures})
    findings = analysed(synthetic.write(tmp_path, replace(what, job=job), {"A": {"rank": 1.0}}))
    assert [section.title for section in findings.sections] == [title for title in SECTIONS if title not in lost]
    assert (findings.notices, len(findings.verdict.more)) == ((), len(measures) if len(sizes) > 1 else 1)
    words = "Are the features of A more robust and more transferable than those of B"
    assert findings.question.startswith(words if len(sizes) > 1 else "How robust and how transferable are")
    if sizes == {"A": 4, "B": 3, "C": 1}:
        assert write(findings, tmp_path).exists()


def test_an_inspection_that_is_not_done_or_failed(tmp_path):
    what = synthetic.asked(A=1, B=2)
    assert [name for name, _ in outline(what)] == ["measures of A and B"]
    synthetic.inspection.begin(what, tmp_path)
    (one,) = jobs_of(what, {})
    assert said(read(tmp_path)).label == "Not measured yet"
    store.add(tmp_path, one)
    write_json(tmp_path / one.id / "failed.json", {"reason": "DataError: no such net"})
    assert analysed(tmp_path).notices[0].text == "The measures are not done: DataError: no such net."


def test_a_folder_that_cannot_be_read(tmp_path):
    with pytest.raises(StudyError, match="holds no study"):
        analyse(tmp_path)
    asked = {"study": "inspect", "preset": "none", "settings": {}, "config": {"groups": []}}
    (tmp_path / "study.json").write_text(json.dumps(asked))
    with pytest.raises(StudyError, match="is not an inspection that this version of muonlab reads"):
        analyse(tmp_path)


def test_a_panel_for_each_claim_and_a_row_for_each_comparison(pair, seeds):
    figure, answers = tables.first_screen(pair, judged(pair))
    (table,) = tables.claims(pair, judged(pair))
    titles = ["(a) Robustness", "(b) Margins", "(c) Transfer", "(d) Rank"]
    assert [panel.title for panel in figure.panels] == [claim.claim for claim in answers.claims] == titles
    assert "With one checkpoint per group the interval is over test examples" in table.note
    rows = rows_of(table)
    assert [row["over"] for row in rows] == ["40 pairs of test examples"] * 3 + ["40 examples each"]
    assert [row["side"] for row in rows] == ["higher"] * 4
    assert [claim.replies[0].label for claim in answers.claims] == ["Higher"] * 4  # of these checkpoints, no "yes"
    figure, answers = tables.first_screen(seeds, judged(seeds))
    (table,) = tables.claims(seeds, judged(seeds))
    assert (figure.panels[0].rows[0].n, rows_of(table)[0]["over"]) == ("4 + 4", "n = 4 + 4 checkpoints")
    (reply,) = answers.claims[0].replies
    assert (reply.label, reply.direction) == ("Yes", "1 higher, 0 lower, 0 undecided")
    assert (reply.effects[0].label, reply.effects[0].estimate) == ("minus B", by_letter(seeds)["a"].estimate)


def test_transfer_has_intervals_over_examples_or_over_checkpoints(pair, seeds):
    (row, _) = rows_of(tables.transfer(pair)[0])
    hits = pair.runs.nets["A"][0].transfer["by_example"]
    interval = stats.binomtest(int(sum(hits)), len(hits)).proportion_ci(0.95, "wilson")
    assert (row["accuracy"].lower, row["accuracy"].upper) == pytest.approx((interval.low, interval.high))
    assert (row["chance"], row["n"]) == (0.25, 1)
    values = [net.transfer["accuracy"] for net in seeds.runs.nets["A"]]
    assert rows_of(tables.transfer(seeds)[0])[0]["accuracy"] == as_share(mean(values))


def test_every_checkpoint_has_its_row(seeds):
    nets = seeds.runs.nets
    nets["A"][0] = replace(nets["A"][0], clean_accuracy=0.975, clean_by_example=[1.0] * 39 + [0.0])
    nets["B"][0] = replace(nets["B"][0], accuracy={}, clean_accuracy=None, layers=[], transfer=None)
    rows = rows_of(tables.checkpoints(seeds)[0])
    assert [row["checkpoint"] for row in rows[:2]] == ["A-0.safetensors", "A-1.safetensors"]
    assert (len(rows), rows[0]["rank"]) == (8, pytest.approx(5.5 - 0.005))
    assert (rows[0]["clean"].value, rows[0]["clean"].upper) == (0.975, pytest.approx(0.9956, abs=1e-4))  # Wilson's
    assert [rows[4][key] for key in ("clean", "corrupted", "margin", "rank", "transfer")] == [None] * 5


def test_nets_and_settings(pair):
    table, notes, config, *_ = tables.sources(pair)
    row = rows_of(table)[0]
    assert (row["net"], row["taps"], row["num_parameters"]) == ("nets:build", "blocks.0, blocks.1", 5000)
    assert rows_of(notes) == [{"note": "read 700 examples, 2 skipped"}]
    assert config.title == "Config in full: muonlab inspect A=... B=... data=digits"
    family = synthetic.synthetic.study(families=["cnn"]).families[0].family
    for data, name in {
        Texts(source="a/war.txt"): "war",
        Texts(examples="b/labelled.tsv"): "labelled",
        Texts(source="cifar10/train.zip"): "cifar10",
        StudyData(family=family): "digits",
    }.items():
        assert Inspected(pair.runs.asked.model_copy(update={"data": data}), {}, None).data == name


def test_groups_have_colours_of_their_own():
    def roles(**colors):
        groups = [synthetic.group(name, color=color) for name, color in colors.items()]
        return [(arm.series.role, arm.series.style) for arm in arms_of(groups)]

    assert roles(a=None, b=None) == [("muon", 0), ("adamw", 0)]
    assert roles(AdamW=None, mine=None, Muon=None) == [("adamw", 0), ("sgd", 0), ("muon", 0)]
    assert roles(a="#aa3377", b=None, c="sgd") == [("#aa3377", 0), ("muon", 0), ("sgd", 0)]
    assert len(set(roles(**{f"g{k}": None for k in range(12)}))) == 12


# -- the verdict -----------------------------------------------------------------------------------


def test_one_checkpoint_per_group_is_never_a_plain_answer(pair):
    found = said(pair)
    label = "Higher: robustness, margins, transfer, rank."
    assert (found.answer, found.label, found.cautions[0]) == ("inconclusive", label, SINGLE)
    assert found.sentence == "A minus B, one checkpoint each, on digits."
    assert "of these checkpoints, higher. Accuracy on corrupted inputs, A minus B: 0.100 [" in found.more[0]
    assert "over 40 pairs of test examples" in found.more[0]
    assert "over 40 examples each" in found.more[3]
    assert not any(": yes" in words for words in found.more)
    assert dict(found.scope)["nets"] == "A nets:build, 5,000 parameters; B nets:build, 5,000 parameters"
    assert "seeds alone" not in dict(found.scope)["not known here"]


def test_several_checkpoints_per_group_are_an_answer(seeds, tmp_path):
    found = said(seeds)
    assert (found.answer, found.label) == ("yes", "Yes")
    assert found.sentence == "A minus B, 4 checkpoints each, on digits."
    assert found.more[0].endswith("(n = 4 + 4 checkpoints).")
    assert SINGLE not in found.cautions
    assert "differ in their seeds alone" in dict(found.scope)["not known here"]
    found = said(found_of(tmp_path / "mixed", {"A": {"rank": -1.0}}))
    label = "The opposite: rank. Open: robustness, margins, transfer."
    assert (found.answer, found.label) == ("mixed", label)
    assert "because none of 1 comparisons is decided (p > 0.05" in found.more[0]
    assert "(d) Rank, “hidden states have a higher effective rank”: no: the opposite." in found.more[3]


def test_several_rivals_of_one_checkpoint_or_more(tmp_path):
    found = said(found_of(tmp_path / "three", {"A": {"rank": 1.0}}, sizes={"A": 1, "B": 1, "C": 1}))
    assert found.label == "Higher: rank. Undecided: robustness, margins, transfer."
    assert "of these checkpoints, higher than B, higher than C" in found.more[3]
    found = said(found_of(tmp_path / "mixed", sizes={"A": 1, "B": 1, "C": 3}))
    assert found.label == "Undecided: robustness, margins, transfer, rank."
    assert found.sentence == "A minus B and C, 1 and 1 and 3 checkpoints, on digits."
    assert "over 40 pairs of test examples" in found.more[0]
    assert "n = 1 + 3 checkpoints" in found.more[0]


@pytest.mark.parametrize("broken", [{"shuffled": 0.7}, {"line": 1.5}])
def test_where_a_control_fails_nothing_is_concluded(tmp_path, broken):
    better = {"A": {"corrupted": 0.1}}
    many = said(found_of(tmp_path / "a", better, **broken))
    assert many.answer == "inconclusive"
    assert "because a control failed (" in many.more[0]
    assert analyse(tmp_path / "a").notices[0].text.startswith("A CONTROL FAILED: ")
    one = said(found_of(tmp_path / "b", better, sizes={"A": 1, "B": 1}, **broken))
    assert one.label == "Undecided: robustness, margins, transfer, rank."
    assert "of these checkpoints, nothing, because a control failed" in one.more[0]


@pytest.mark.parametrize("number", [1, 3])
def test_the_same_weights_given_twice_are_one_model(tmp_path, number):
    found = found_of(tmp_path, sizes={"A": number, "B": number})
    nets = found.runs.nets
    nets["B"] = [replace(net, group="B", checkpoint=f"copy-{k}.pt") for k, net in enumerate(nets["A"])]
    verdict = said(found)
    assert (verdict.label, verdict.more) == ("The same model", ())
    assert verdict.sentence == "A and B are one model: every measure gives the same numbers."
    assert tables.first_screen(found, judged(found)) == ()
    nets["B"][-1] = replace(nets["B"][-1], clean_accuracy=0.123)
    assert said(found).label != "The same model"


def test_one_group_alone_is_described(tmp_path):
    found = said(found_of(tmp_path, sizes={"A": 2}))
    assert (found.answer, found.label) == ("inconclusive", "No comparison")
    numbers = "accuracy 0.700, 0.600 on corrupted inputs, probe margin / norm 1.50, effective rank 4.50"
    assert found.more == (f"A: {numbers}, linear probe on other data 0.500.",)


@pytest.mark.parametrize(
    ("planted", "others", "words"),
    [
        ({"A": {"loss": 1.0}}, {}, ["The groups do not fit clean data equally well, .* A 2, B 1"]),
        (None, {"depth": {"B": 3}}, ["The nets differ in their layers"]),
        (None, {"sizes": {"A": 4, "B": 2}}, ["there are: A 4, B 2"]),
        (None, {"sizes": {"A": 1}}, ["With one group there is no comparison"]),
        ({"A": {"corrupted": 0.1}}, {}, []),
    ],
)
def test_each_caution_has_its_sentence(tmp_path, planted, others, words):
    found = cautions(found_of(tmp_path, planted, **others))
    assert len(found) == len(words)
    assert all(map(re.search, words, found))


def test_cautions_about_blind_layers_perfect_nets_controls_and_copies(pair, seeds):
    blind(pair, 0)
    nets = pair.runs.nets
    nets["A"] = [replace(net, clean_accuracy=1.0) for net in nets["A"]]
    nets["B"] = [replace(nets["A"][0], group="B", checkpoint="copy.pt")]
    assert cautions(replace(pair, controls=())) == [
        "A and B are one model: they have the same numbers in every measure.",
        "Every net is almost perfect on clean inputs: little is left to differ.",
        "Probes are no better than chance, so these layers are left out of (b): A (1 of 2 layers), B (1 of 2 layers).",
        "No control was measured: nothing shows that the measures can fail.",
    ]
    nets["B"] = [replace(nets["B"][0], clean_accuracy=0.9)]
    for found, words in ((seeds, "inconclusive"), (pair, "of these checkpoints, not compared")):
        blind(found, 0, 1)
        because = "no layer has probes that do better than chance in both"
        assert said(found).more[1].endswith(f"{words}, because {because}.")


def test_the_similarity_of_layers_is_a_map(tmp_path):
    what = synthetic.asked(A=1, B=1)
    folder = synthetic.write(tmp_path, what)
    (place,) = tmp_path.glob("*/result.json")
    result = json.loads(place.read_text())
    taps = {"taps": [["x"], list("pqrstuvwxyzabc")], "widest": 64, "num_examples": 40}
    row = {"groups": ["A", "B"], "checkpoints": ["a.pt", "b.pt"], **taps}
    numbers = {"value": [0.9] * 13 + [None], "lower": [0.8] * 14, "upper": [0.95] * 14}
    numbers["shuffled"] = [0.1] * 12 + [0.85, 0.1]
    write_json(place, result | {"cka": [row | {key: [each] for key, each in numbers.items()}]})
    findings = analysed(folder)
    (section,) = [each for each in findings.sections if each.title == "Similarity of layers"]
    (figure,) = section.elements
    (panel,) = figure.panels
    assert (panel.x, panel.y) == (("1", "2", "3", "5", "6", "7", "8", "9", "10", "12", "13", "14"), ("1",))
    (cells,) = panel.cells
    assert [cell.side for cell in cells] == ["higher"] * 10 + ["undecided"] * 2  # shuffled examples are as alike
    assert (cells[0].estimate.value, cells[0].estimate.lower, cells[-1].estimate.value) == (0.9, 0.8, None)
    for words in ("same 40 test examples", "at most 0.850 here", "up to 64 wide, more than there", "12 layers of each"):
        assert words in figure.caption
    assert "cka-1.svg" in {path.name for path in (write(findings, tmp_path).parent / "report").iterdir()}

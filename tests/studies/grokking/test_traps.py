"""Traps of comparisons, each planted in a study that nobody ran: the plan, or the report, must see it."""

import json
import re

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import synthetic_study as synthetic
from muonlab.jobs import store
from muonlab.nets.transformer import Transformer
from muonlab.report.findings import Table, Text
from muonlab.studies import grokking
from muonlab.studies.grokking.analysis import analyse, find
from muonlab.studies.grokking.cells import jobs_of, outline, plan
from muonlab.studies.grokking.choosing import Choice
from muonlab.studies.grokking.comparison import every_pair, pairs_of
from muonlab.studies.grokking.conditions import read
from muonlab.studies.grokking.costs import needed_share
from muonlab.studies.grokking.thresholds import at_thresholds
from muonlab.studies.grokking.verdict import judge
from muonlab.studies.grokking.work import cell as work
from muonlab.studies.grokking.work import material
from muonlab.study.settings import UsageError


def of(*optimizers, tasks=("add",), seeds=range(5), **changes):
    return [synthetic.cell(task, "softmax", each, seeds, **changes) for task in tasks for each in optimizers]


def rates(optimizer, *values, **changes):
    return [own for rate in values for own in of(optimizer, optimizer__lr=rate, **changes)]


def judged(folder, cells, fate, **options):
    """Return the first comparison and the verdict."""
    runs = read(synthetic.write(folder, cells, fate, **options))
    pairs = pairs_of(runs)
    return pairs[0], judge(find(runs), pairs)


def by_rate(best, others=900):
    """Runs of Muon cross at about `others`, at the best rate sooner; AdamW's in between."""

    def fate(config, seed):
        if config.optimizer.name == "adamw":
            return 700 + 50 * (seed % 5)
        return (400 if config.optimizer.lr == best else others) + 50 * (seed % 5)

    return fate


# -- choice of the settings ------------------------------------------------------------------------


def test_a_search_has_seeds_of_its_own_and_only_the_best_is_judged(tmp_path):
    settings = {"muon.lr": ["0.01", "0.02", "0.04"], "seeds": ["3"], "control_seeds": ["1"]}
    plain, searched = plan("tiny", settings), plan("tiny", settings | {"search_seeds": ["2"]})
    assert searched.cells == plain.cells  # so that what is done stands
    assert [(c.arm, c.optimizer.lr, c.seeds) for c in searched.search] == [
        ("muon", rate, (1000, 1001)) for rate in (0.01, 0.02, 0.04)
    ]
    first = jobs_of(searched, {})
    roles = sorted((job.role, job.arm) for job in first)
    assert roles == [("control", "adamw"), ("control", "muon"), ("run", "adamw"), *[("search", "muon")] * 3]
    results = {}
    for own in searched.search:
        fates = {1000: 300, 1001: 200 if own.optimizer.lr == 0.02 else 300}
        results[own.id] = synthetic.result_of(own, fates, 0.0).model_dump(mode="json")
    (best,) = (job for job in jobs_of(searched, results) if job.role == "run" and job.arm == "muon")
    assert best.id in {own.id for own in plain.cells if own.optimizer.lr == 0.02}
    assert sorted(name for name, _ in outline(searched)) == sorted(job.name for job in jobs_of(searched, results))
    grokking.begin(searched, tmp_path)
    assert [each["seeds"] for each in store.read(tmp_path).config["search"]] == [[1000, 1001]] * 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"search_seeds": ["2"]}, r"search_seeds has no effect, as every optimizer has one setting; .*muon.lr=0.01"),
        ({"search_seeds": ["2"], "seeds": ["7", "1001"], "muon.lr": ["1", "2"]}, "seed 1001 is one of the search"),
    ],
)
def test_a_search_without_a_choice_or_on_judged_seeds_is_refused(settings, message):
    with pytest.raises(UsageError, match=message):
        plan("tiny", settings)


def test_what_was_chosen_on_other_seeds_is_judged_as_it_stands_and_what_was_not_counts_for_every_choice(tmp_path):
    cells = [*rates("muon", 0.01, 0.02, 0.04), *of("adamw")]
    search = rates("muon", 0.01, 0.02, 0.04, seeds=(1000, 1001))
    own, verdict = judged(tmp_path / "a", cells, by_rate(0.02), search=search)
    assert (own.variants[0], own.tried, own.num_choices) == ("Muon lr=0.02", (3, 1), 1)
    assert "UNEQUAL tuning" in verdict.sentence
    assert "(UNEQUAL tuning), chosen by runs with seeds of their own" in dict(verdict.scope)["Tuning"]
    assert not any("very runs that are judged" in each for each in verdict.cautions)
    assert [each.pair.variants[0] for each in every_pair(own)] == ["Muon lr=0.02"]
    assert len(read(tmp_path / "a").cells) == 3 + 2  # those of the other rates are not asked for
    same, verdict = judged(tmp_path / "b", cells, by_rate(0.02))
    assert (same.ratio.value, same.num_choices) == (own.ratio.value, 3)
    assert same.test.p == pytest.approx(3 * own.test.p)
    assert same.ratio.lower < own.ratio.lower < own.ratio.upper < same.ratio.upper
    assert "for all 3 pairs of settings at once" in verdict.more[0]
    assert any("very runs that are judged" in each for each in verdict.cautions)


# Bug: where no run of a search crossed, the rate that was listed first was judged, though another did far better.
def test_of_rates_at_which_no_run_crosses_the_most_accurate_is_judged_and_it_is_said(tmp_path):
    searched = plan("tiny", {"adamw.lr": ["0.001", "0.003", "0.01"], "seeds": ["3"], "search_seeds": ["2"]})
    results = {}
    for own in searched.search:
        result = synthetic.result_of(own, {1000: None, 1001: None}, 0.0)
        accuracy = 0.9 if own.optimizer.lr == 0.003 else 0.3
        members = [each.model_copy(update={"best_validation_accuracy": accuracy}) for each in result.members]
        results[own.id] = result.model_copy(update={"members": tuple(members)}).model_dump(mode="json")
    (best,) = (job for job in jobs_of(searched, results) if job.role == "run" and job.arm == "adamw")
    assert best.id in {own.id for own in searched.cells if own.optimizer.lr == 0.003}

    def fate(config, seed):
        return 300 + 50 * (seed % 5) if config.optimizer.name == "muon" else None

    cells, search = [*of("muon"), *rates("adamw", 0.001, 0.003)], rates("adamw", 0.001, 0.003, seeds=(1000, 1001))
    _, verdict = judged(tmp_path, cells, fate, search=search)
    words = "No run of any setting of AdamW crossed within the budget, so the one with the highest validation accuracy"
    assert any(each.startswith(words) for each in verdict.cautions)


def test_the_most_accurate_of_rates_at_which_no_run_crosses_may_lie_on_an_edge():
    scores = {rate: (-1, 0.0, -accuracy) for rate, accuracy in ((0.01, 0.2), (0.02, 0.3), (0.04, 0.9))}
    own = Choice("c", {str(rate): score for rate, score in scores.items()}, True, scores, 0.04)
    assert (own.is_by_accuracy, own.edge, own.further[0] > 0.04) == (True, "high", True)


def test_who_is_behind_with_its_best_rate_on_an_edge_might_overtake(tmp_path):
    def fate(config, seed):
        return {"muon": 300, "adamw": 700 - 100 * (config.optimizer.lr == 0.01)}[config.optimizer.name] + 50 * seed

    cells = [*of("muon", seeds=range(8)), *rates("adamw", 0.001, 0.003, 0.01, seeds=range(8))]
    pair, verdict = judged(tmp_path / "a", cells, fate)
    assert pair.choices[1].edge == "high"
    assert verdict.answer == "inconclusive"
    assert "best learning rate of AdamW, 0.01, is the largest that was tried, and with one" in verdict.sentence
    assert any("AdamW 0.01, the largest of 3 (next: 0.033)" in each for each in verdict.cautions)
    _, verdict = judged(tmp_path / "b", [*cells, *rates("adamw", 0.033, seeds=range(8))], fate)
    assert verdict.answer == "yes"


# -- what so many runs cannot decide ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"seeds": ["3"]}, r"3 \+ 3 runs in one block can never decide: .* is 0.10., more than 0.05; seeds=4 can"),
        ({"seeds": ["5"]}, None),
        ({"seeds": ["5"], "tasks": ["add", "sub", "mul", "exp", "gcd", "div"]}, None),
        (
            {"seeds": ["5"], "tasks": ["add", "sub", "mul", "exp", "gcd", "div", "parity"]},
            r"5 \+ 5 runs in one block cannot decide on a task by itself: .* over 7 tasks is 0.05.*; seeds=6 can",
        ),
        ({"seeds": ["5"], "muon.lr": ["0.01", "0.02"]}, "chosen on the very runs that are judged, so p counts 2 times"),
    ],
)
def test_the_plan_says_what_it_cannot_decide(settings, said):
    notes = plan("tiny", settings).notes
    assert len(notes) == (said is not None)
    if said:
        assert re.search(said, notes[0])


# -- runs that are none ----------------------------------------------------------------------------


def test_an_optimizer_all_of_whose_runs_diverged_is_not_slower(tmp_path):
    def fate(config, seed):
        return "diverged" if config.optimizer.name == "muon" else 700 + 50 * seed

    _, verdict = judged(tmp_path / "a", of("muon", "adamw"), fate)
    assert verdict.answer == "inconclusive"
    assert "all 5 Muon runs diverged, so that nothing is known of its times" in verdict.sentence

    def some(config, seed):
        return "diverged" if seed == 0 else {"muon": 300, "adamw": 700}[config.optimizer.name] + 50 * seed

    _, verdict = judged(tmp_path / "b", of("muon", "adamw"), some)
    assert "of which 1 Muon and 1 AdamW diverged and count with the whole budget" in verdict.sentence


def test_a_run_that_is_a_copy_of_another_is_no_second_run(tmp_path):
    cells = of("muon", "adamw")
    folder = synthetic.write(tmp_path, cells)
    path = folder / cells[0].id / "metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        for key in ("train_loss", "train_accuracy", "validation_loss", "validation_accuracy"):
            line[key][3] = line[key][1]
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    runs = read(folder)
    assert [condition.copies for condition in runs.conditions] == [[(1, 3)], []]
    verdict = judge(find(runs), pairs_of(runs))
    assert verdict.answer == "inconclusive"
    assert "one run, bit by bit (Muon on add · softmax, seeds 1 and 3)" in verdict.sentence


# -- what counts as grokked ------------------------------------------------------------------------


def test_the_comparison_is_read_at_other_thresholds_where_the_runs_tell(tmp_path):
    def fate(config, seed):
        return {"muon": 400, "adamw": 800}[config.optimizer.name] + 50 * seed

    pair, verdict = judged(tmp_path / "a", of("muon", "adamw", protocol__follow="budget"), fate)
    found = {(each.threshold, each.kind): each for each in at_thresholds(pair)}
    assert found[0.9, "first"].ratio.value <= found[0.95, "first"].ratio.value * 1.05
    assert found[0.95, "first"].crossed == (5, 5)
    assert any("At other thresholds of validation accuracy the ratio is at 0.90 0." in each for each in verdict.more)
    # A run that ended early does not tell when it would have crossed a higher one.
    folder = tmp_path / "a"
    for path in folder.glob("*/metrics.jsonl"):
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join(lines[:21]))
    for path in folder.glob("*/result.json"):
        result = json.loads(path.read_text())
        for member in result["members"]:
            member["last_step"] = 1000
        path.write_text(json.dumps(result))
    (pair,) = pairs_of(read(folder))
    found = {(each.threshold, each.kind): each for each in at_thresholds(pair)}
    assert found[0.99, "first"].unknown > 0
    assert found[0.99, "first"].ratio.value is None


# -- the paper, and FLOPs --------------------------------------------------------------------------


def test_only_a_study_of_its_optimizers_carries_the_papers_section(tmp_path):
    for optimizers, has_it in ((("muon", "adamw"), True), (("muon", "sgd"), False)):
        findings = analyse(synthetic.write(tmp_path / optimizers[1], of(*optimizers)))
        assert any("paper" in section.title for section in findings.sections) == has_it


def test_the_papers_own_statistic_is_computed_and_said(tmp_path):
    def fate(config, seed):
        return 500 + 50 * ((seed + (config.optimizer.name == "muon")) % 5)

    findings = analyse(synthetic.write(tmp_path, of("muon", "adamw"), fate))
    said = [each.text for section in findings.sections for each in section.elements if isinstance(each, Text)]
    assert any("pooled over the runs that crossed, does not reproduce here: Muon " in each for each in said)


def test_the_share_of_needed_products_is_that_of_a_net_that_leaves_out_the_rest():
    config = synthetic.cell("add", "softmax", "adamw", [0], net__positions="learned")
    net = config.net
    built = Transformer(98, 97, depth=net.depth, width=net.width, ff_width=net.ff_width, positions="learned", context=4)
    counts = []
    for shortcuts in (True, False):
        built.shortcuts = shortcuts
        with FlopCounterMode(display=False) as counter:
            built(torch.zeros(64, 4, dtype=torch.long))
        counts.append(counter.get_total_flops())
    assert needed_share(config) == pytest.approx(counts[0] / counts[1], rel=0.03)


# -- where the spread comes from -------------------------------------------------------------------


def test_only_what_varies_differs_between_seeds():
    for source in ("all", "init", "split", "order"):
        (config,) = plan(
            "tiny", {"varies": [source], "optimizers": ["adamw"], "seeds": ["2"], "control_seeds": ["0"]}
        ).cells
        task = material.build_task(config)
        rows = work.build_rows(config, task, (3, 4), "cpu")
        weights = work.build_population(config, task, (3, 4), "cpu").parameters
        order = rows._orders(0)
        differs = {
            "init": any((w[0] != w[1]).any() for w in weights.values()),
            "split": bool((rows.train[0] != rows.train[1]).any()),
            "order": bool((order[0] != order[1]).any()),
        }
        assert differs == {each: source in ("all", each) for each in differs}


def test_runs_in_which_not_all_varies_tell_where_the_spread_comes_from_and_are_not_judged(tmp_path):
    widths = {"all": 100, "init": 50, "split": 50, "order": 0}

    def fate(config, seed):
        return 300 + 300 * (config.optimizer.name == "adamw") + widths[config.protocol.varies] * (seed % 4)

    cells = [own for source in widths for own in of("muon", "adamw", seeds=range(8), protocol__varies=source)]
    findings = analyse(synthetic.write(tmp_path, cells, fate))
    tables = {each.name: each for section in findings.sections for each in section.elements if isinstance(each, Table)}
    assert "8 Muon and 8 AdamW runs" in findings.verdict.sentence
    found = {(row[2], row[3]): row[-1] for row in tables["spread"].rows}
    assert found["Muon", "all"] == 1
    assert found["Muon", "order"] == 0
    logs = {each: np.log([275 + widths[each] * (seed % 4) for seed in range(8)]) for each in widths}
    assert found["Muon", "init"] == pytest.approx(logs["init"].var() / logs["all"].var())


# -- answers that a hostile reader would turn round -------------------------------------------------


# Bug: "yes, Sooner" of an optimizer none of whose runs stayed where it had crossed.
def test_an_optimizer_that_is_sooner_and_does_not_stay_there_is_no_yes(tmp_path):
    def collapses(config, seed, number=8):
        if config.optimizer.name == "adamw":
            return 900 + 50 * (seed % 4)
        return (300 + 50 * (seed % 4), 0.3 if seed < number else 0.96)

    cells = of("muon", "adamw", seeds=range(8), protocol__follow="budget")
    _, verdict = judged(tmp_path / "a", cells, collapses)
    assert (verdict.answer, verdict.label) == ("mixed", "Sooner, but it does not last")
    assert "Muon crossed sooner than AdamW, but 0 of 8 Muon runs stayed there (AdamW 8 of 8)" in verdict.sentence
    _, verdict = judged(tmp_path / "b", cells, lambda config, seed: collapses(config, seed, 2))
    assert (verdict.answer, verdict.label) == ("yes", "Sooner")


# Bug: "nothing is known of its times: Muon needed 2.58 times AdamW's steps".
def test_of_an_optimizer_that_diverged_throughout_no_number_is_given(tmp_path):
    def fate(config, seed):
        return "diverged" if config.optimizer.name == "muon" else 700 + 50 * seed

    _, verdict = judged(tmp_path, of("muon", "adamw"), fate)
    assert verdict.interval is None
    assert "needed" not in " ".join([verdict.sentence, *verdict.more, *verdict.cautions])
    assert not any("ratio is" in each for each in (*verdict.more, *verdict.cautions))

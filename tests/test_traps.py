"""The twenty-eight traps of optimizer comparisons, each with the tests that plant it and see it caught in a report.

`GUARDS` names them; those that nothing else plants are planted here, in studies that nobody ran.
"""

import ast
import re
from dataclasses import replace
from pathlib import Path

import pytest

import synthetic_components as components
import synthetic_features as features
import synthetic_study as grokking
from muonlab.jobs import store
from muonlab.jobs.files import read_json, write_json
from muonlab.jobs.job import JobRecord
from muonlab.report.findings import Series, Table
from muonlab.studies.features.analysis import analyse as analyse_features
from muonlab.studies.features.jobs import steps
from muonlab.studies.features.plan import plan
from muonlab.studies.features.verdict import judge_all, verdict
from muonlab.studies.grokking.analysis import analyse
from muonlab.study import fairness, recorded
from muonlab.study.optimizers import RatedAdamW, RatedMuon
from muonlab.study.settings import UsageError
from muonlab.study.study import Arm, Found, Rule

ROOT = Path(__file__).parent
HERE = "test_traps.py"
OF_GROKKING = "studies/grokking/test_traps.py"
OF_FEATURES = "studies/features/test_claims.py"
OF_COMPARE = "studies/compare/test_task.py"

GUARDS: dict[int, tuple[str, ...]] = {
    1: (
        f"{HERE}::test_01_a_special_case_that_beats_its_general_form_is_named",
        f"{HERE}::test_01_grokking_has_its_special_cases_next_to_their_general_form",
    ),
    2: (
        f"{HERE}::test_02_a_rival_with_fewer_settings_to_choose_from_is_set_aside",
        f"{HERE}::test_02_who_is_behind_with_fewer_settings_leaves_it_open",
        "studies/compare/test_switch_report.py::test_how_many_trials_a_candidate_needs_for_what_the_baseline_reaches",
    ),
    3: (
        f"{HERE}::test_03_what_one_optimizer_has_from_another_is_marked_transferred",
        "studies/features/test_matching.py::test_residuals_stand_in_a_table_and_a_rate_that_was_not_tuned_there_is_named",
    ),
    4: (
        f"{OF_GROKKING}::test_who_is_behind_with_its_best_rate_on_an_edge_might_overtake",
        f"{HERE}::test_04_a_best_rate_on_an_edge_is_in_the_sentence",
        f"{HERE}::test_04_a_best_decay_on_an_edge_is_named_and_none_at_all_is_no_edge",
        f"{OF_COMPARE}::test_a_loser_whose_best_rate_lies_near_an_edge_is_not_said_to_be_worse",
    ),
    5: (
        f"{HERE}::test_05_decays_are_searched_with_all_rates_and_their_product_is_shown",
        "study/test_space.py::test_a_range_is_printed_as_the_setting_that_a_user_types_or_as_its_product_with_the_rate",
    ),
    6: (
        f"{HERE}::test_06_the_rate_of_what_muon_leaves_to_adamw_is_searched_and_routing_is_counted",
        "train/test_recorded.py::test_every_parameter_of_a_member_is_counted_with_what_updates_it",
    ),
    7: (
        "studies/features/test_matching.py::test_the_one_that_ends_lower_trains_for_fewer_steps_and_is_measured_at_its_end",
        "studies/features/test_matching.py::test_a_study_matched_by_checkpoints_says_so_and_whom_it_favours",
    ),
    8: (
        f"{HERE}::test_08_steps_flops_and_seconds_stand_in_every_report",
        f"{OF_GROKKING}::test_the_share_of_needed_products_is_that_of_a_net_that_leaves_out_the_rest",
    ),
    9: (
        f"{OF_GROKKING}::test_what_was_chosen_on_other_seeds_is_judged_as_it_stands_and_what_was_not_counts_for_every_choice",
        "studies/features/test_jobs.py::test_no_choice_reads_the_test_set",
    ),
    10: (f"{OF_GROKKING}::test_the_comparison_is_read_at_other_thresholds_where_the_runs_tell",),
    11: (
        "studies/grokking/test_comparison.py::test_the_ratio_is_that_of_mean_steps_with_censored_runs_at_the_budget",
        "studies/components/test_report.py::test_runs_that_never_reached_a_loss_are_counted_by_reason",
    ),
    12: (
        f"{OF_GROKKING}::test_the_plan_says_what_it_cannot_decide",
        "study/test_judge.py::test_two_runs_are_too_few_and_sure_but_negligible_differences_are_undecided",
    ),
    13: (
        f"{OF_GROKKING}::test_runs_in_which_not_all_varies_tell_where_the_spread_comes_from_and_are_not_judged",
        f"{HERE}::test_13_what_does_not_vary_between_seeds_is_in_the_scope",
    ),
    14: (
        "stats/test_blocked.py::test_labels_never_move_between_blocks",
        "study/test_judge.py::test_pairs_are_of_one_seed_and_what_is_in_none_is_counted",
    ),
    15: (
        "stats/test_blocked.py::test_p_is_the_share_of_arrangements_of_the_studentized_ratio_and_never_below_that_of_student",
        "stats/test_blocked.py::test_five_and_five_runs_have_no_p_of_two_in_a_thousand",
    ),
    16: (
        "study/test_judge.py::test_a_comparison_agrees_with_scipy_and_holm",
        "studies/grokking/test_report.py::test_a_task_on_which_the_test_points_the_other_way_makes_no_answer_mixed",
    ),
    17: (
        f"{OF_GROKKING}::test_a_run_that_is_a_copy_of_another_is_no_second_run",
        f"{HERE}::test_17_a_copy_sets_its_optimizer_aside_and_is_named",
        f"{HERE}::test_17_a_copy_sets_a_problem_aside_in_a_study_of_components",
        f"{HERE}::test_17_copies_are_seen_in_the_records_of_any_study",
    ),
    18: (
        "studies/grokking/test_report.py::test_a_control_must_stay_below_what_guessing_explains_at_any_evaluation",
        f"{OF_FEATURES}::test_each_control_can_fail_and_leaves_no_answer",
    ),
    19: (f"{HERE}::test_19_runs_of_two_precisions_are_never_compared",),
    20: (
        f"{HERE}::test_20_every_report_says_whether_a_step_repeats",
        "train/test_recorded.py::test_a_step_is_made_twice_and_leaves_nothing_behind",
    ),
    21: (
        "studies/features/test_beyond.py::test_no_line_is_read_where_one_of_the_two_has_never_been",
        "studies/features/test_beyond.py::test_the_error_of_the_line_is_in_the_interval",
    ),
    22: (
        "measure/test_margins.py::test_normalised_margins_do_not_know_the_scale_or_a_common_part_of_the_weights",
        f"{OF_FEATURES}::test_another_form_of_the_measure_that_answers_differently_is_named",
    ),
    23: (f"{OF_FEATURES}::test_another_form_of_the_measure_that_answers_differently_is_named",),
    24: (
        "measure/test_probes.py::test_problems_go_on_beyond_the_grid_each_its_own_way_until_the_best_is_inside",
        f"{OF_FEATURES}::test_layers_whose_probes_find_nothing_do_not_enter_margins_and_are_named",
    ),
    25: (
        "studies/features/test_report.py::test_whose_weights_by_whose_fine_tuning",
        f"{OF_FEATURES}::test_fine_tuning_that_still_gets_better_at_its_end_is_not_converged",
    ),
    26: (
        f"{HERE}::test_26_size_and_horizon_are_in_the_first_sentence",
        f"{OF_FEATURES}::test_horizons_of_one_net_count_as_one_case_and_each_is_compared",
    ),
    27: (
        "studies/grokking/test_report.py::test_inconclusive_because",
        "study/test_judge.py::test_a_comparison_is_made_once_and_only_where_both_are_measured",
    ),
    28: (
        "stats/test_p_values.py::test_the_printed_pair_of_the_paper_is_impossible",
        "studies/grokking/test_report.py::test_the_paper_stands_next_to_ours",
    ),
}


def test_every_trap_has_tests_that_exist_and_a_line_in_the_docs():
    assert sorted(GUARDS) == list(range(1, 29))
    for number, ids in GUARDS.items():
        for place, name in (each.split("::") for each in ids):
            tree = ast.parse((ROOT / place).read_text(encoding="utf-8"))
            assert name in {each.name for each in tree.body if isinstance(each, ast.FunctionDef)}, (number, name)
    page = (ROOT.parent / "docs" / "reports.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", page, re.MULTILINE)
    assert [int(number) for number, *_ in rows] == list(range(1, 29))


# -- what the tests share --------------------------------------------------------------------------

CNN = {"families": ["cnn"]}


def said_of(asked=None, planted=None, **options):
    found = features.found(features.study(**{**CNN, **(asked or {})}), planted, **options)
    return found, verdict(found, judge_all(found))


def of(*optimizers, seeds=range(8), **changes):
    return [grokking.cell("add", "softmax", each, seeds, **changes) for each in optimizers]


def tables_of(findings):
    return {each.name: each for section in findings.sections for each in section.elements if isinstance(each, Table)}


def rows_of(table):
    return [dict(zip([column.key for column in table.columns], row, strict=True)) for row in table.rows]


def higher(quantity, net, optimizer):
    return 0.1 * (quantity == "corrupted" and optimizer == "muon")


def spread(losses):
    """Losses at the end by optimizer, falling from 2; seeds differ a little."""
    return lambda optimizer, rate, seed, part: 2 - part * (2 - losses[optimizer]) + 0.01 * seed


# -- 1 to 6: tuning --------------------------------------------------------------------------------


def test_01_a_special_case_that_beats_its_general_form_is_named():
    three = {"optimizers": ["muon", "adamw", "sgd"]}
    _, said = said_of(three, features.Planted(loss=spread({"muon": 0.5, "adamw": 1.0, "sgd": 0.8})))
    assert any(
        "AdamW is not tuned as well as it can be, as a special case of it does better: AdamW 1.01, SGD 0.815 on cnn"
        in each
        for each in said.cautions
    )
    _, said = said_of(three, features.Planted(loss=spread({"muon": 0.5, "adamw": 0.8, "sgd": 1.0})))
    assert not any("special case" in each for each in said.cautions)
    # An optimizer with decay contains itself without it.
    arms = [Arm(label, Series(label, "adamw"), RatedAdamW(weight_decay=decay)) for label, decay in (("a", 1), ("b", 0))]
    assert [(one.label, other.label) for one, other in fairness.special_cases(arms)] == [("a", "b")]
    assert [each.holds for each in fairness.inclusions(arms, {"x": {"a": [1, 1.1, 1.2], "b": [2, 2.1, 2.2]}})] == [True]
    assert [each.holds for each in fairness.inclusions(arms, {"x": {"a": [1], "b": [0.5, 0.6]}})] == [None]


def test_01_grokking_has_its_special_cases_next_to_their_general_form(tmp_path):
    def fate(config, seed):
        return {"muon": 300, "adamw": 1200, "sgd": 700}[config.optimizer.name] + 50 * (seed % 4)

    findings = analyse(grokking.write(tmp_path, of("muon", "adamw", "sgd"), fate))
    (row,) = rows_of(tables_of(findings)["inclusion"])
    assert (row["general"], row["special"], row["holds"]) == ("AdamW", "SGD", "NO")
    assert any(each.startswith("AdamW is not tuned as well as it can be") for each in findings.verdict.cautions)


def test_02_a_rival_with_fewer_settings_to_choose_from_is_set_aside():
    planted = features.Planted(shift=higher)
    found, said = said_of({"muon.rates": ["0.001", "0.003", "0.01"]}, planted)
    assert "Out of the verdict: AdamW on cnn on digits was tried with 2 settings, and Muon with 3." in said.sentence
    assert judge_all(found)[0][0].answer == "inconclusive"
    _, said = said_of({"adamw.rates": ["0.001", "0.003", "0.01"]}, planted)
    assert "Out of the verdict" not in said.sentence
    assert any("Rivals had more settings to choose from: Muon 2, AdamW 3." in each for each in said.cautions)


def test_02_who_is_behind_with_fewer_settings_leaves_it_open(tmp_path):
    def fate(config, seed):
        return {"muon": 300, "adamw": 900}[config.optimizer.name] + 50 * (seed % 4)

    rates = [own for rate in (0.01, 0.02, 0.04) for own in of("muon", optimizer__lr=rate)]
    found = analyse(grokking.write(tmp_path / "a", [*rates, *of("adamw")], fate)).verdict
    assert found.answer == "inconclusive"
    assert "AdamW, which is behind, had 1 of the other’s 3 settings to choose from" in found.sentence
    assert "UNEQUAL tuning" in found.sentence
    assert analyse(grokking.write(tmp_path / "b", of("muon", "adamw"), fate)).verdict.answer == "yes"


def test_03_what_one_optimizer_has_from_another_is_marked_transferred(tmp_path):
    arms = [Arm("muon", Series("Muon", "muon")), Arm("adamw", Series("AdamW", "adamw"))]
    tried = {"muon": [RatedMuon(lr=0.02)], "adamw": [RatedAdamW(lr=0.001), RatedAdamW(lr=0.003)]}
    (words,) = fairness.transferred(arms, tried)
    assert (
        words == "Muon’s weight decay 1, beta1 0.9, beta2 0.98 and eps 1e-08, for what it leaves to AdamW, from AdamW"
    )
    tried["muon"] = [RatedMuon(adamw_weight_decay=decay) for decay in (0.1, 1.0)]  # searched, so not transferred
    assert "weight decay" not in fairness.transferred(arms, tried)[0]
    scope = dict(analyse(grokking.write(tmp_path, of("muon", "adamw"))).verdict.scope)
    assert "Muon’s learning rate 0.001, weight decay 1, beta1" in scope["Transferred"]
    scope = dict(said_of()[1].scope)
    assert "weight decay 0.05, beta1 0.9, beta2 0.98 and eps 1e-08 of Muon and AdamW" in scope["transferred"]
    assert "Muon’s learning rate, for what it leaves to AdamW" in scope["transferred"]


def test_04_a_best_rate_on_an_edge_is_in_the_sentence():
    inside = {f"{name}.rates": ["0.003", "0.01", "0.03"] for name in ("muon", "adamw")}
    assert "on an edge" not in said_of(inside)[1].sentence
    _, said = said_of({**inside, "adamw.rates": ["0.01", "0.03", "0.1"]})
    assert "each with its own tuned learning rate (on an edge: AdamW)." in said.sentence
    assert any(each.startswith("A best learning rate lies at the edge") for each in said.cautions)


def test_04_a_best_decay_on_an_edge_is_named_and_none_at_all_is_no_edge():
    def said(*decays):
        asked = features.study(**CNN, **{"adamw.weight_decay": list(decays)})
        found = features.found(asked, known=run_with(asked, decayed))
        return [each for each in verdict(found, judge_all(found)).cautions if each.startswith("A best setting is")]

    (words,) = said("0.01", "0.05", "0.1")
    assert words.endswith("may lie beyond: AdamW on cnn on digits (weight decay 0.1, the largest of 3).")
    assert said("0.05", "0.1", "0.2") == said("0.05", "0.1") == []


DECAYS = {**CNN, "adamw.weight_decay": ["0", "0.1"], "muon.weight_decay": ["0.05", "0.2"]}


def decayed(step, planted):
    """A result whose losses know the decay, which those of `synthetic_features` do not."""
    found = features.result(step, planted)
    own = getattr(step.config, "optimizer", None)
    if own is not None and step.role in ("search", "final"):
        for member in found["members"]:
            for key in ("train_loss", "validation_loss"):
                member[key] = [loss + abs(own.weight_decay - 0.1) for loss in member[key]]
    return found


def run_with(asked, result):
    done = {}
    while todo := [step for step in steps(asked, done) if step.job.id not in done]:
        done |= {step.job.id: result(step, features.Planted()) for step in todo}
    return done


def test_05_decays_are_searched_with_all_rates_and_their_product_is_shown(tmp_path):
    asked = features.study(**DECAYS)
    done = run_with(asked, decayed)
    every = [step for step in steps(asked, done) if step.role in ("search", "final")]
    searched = [(step.arm, step.config.optimizer.weight_decay, step.config.rates) for step in every[:4]]
    rates = (0.003, 0.01)
    assert searched == [("muon", 0.05, rates), ("muon", 0.2, rates), ("adamw", 0.0, rates), ("adamw", 0.1, rates)]
    finals = {step.arm: step.config for step in every if step.role == "final"}
    assert {arm: config.optimizer.weight_decay for arm, config in finals.items()} == {"muon": 0.05, "adamw": 0.1}
    findings = analyse_features(features.write(tmp_path, asked, known=done))
    tables = tables_of(findings)
    rows = rows_of(tables["tuning-settings"])
    assert [(row["optimizer"], row["setting"], row["chosen"]) for row in rows] == [
        *(("Muon", "weight_decay 0.05", True), ("Muon", "weight_decay 0.2", False)),
        *(("AdamW", "weight_decay 0", False), ("AdamW", "weight_decay 0.1", True)),
    ]
    assert [row["product"] for row in rows_of(tables["tuning-rates"])] == pytest.approx([0.01 * 0.05, 0.01 * 0.1])
    assert dict(findings.verdict.scope)["tuning"].startswith("learning rate and weight decay, by validation loss")


def test_06_the_rate_of_what_muon_leaves_to_adamw_is_searched_and_routing_is_counted(tmp_path):
    asked = features.study(**CNN, **{"muon.adamw_factor": ["0.3", "1"], "muon.weight_decay": ["0.05", "0.1"]})
    settings = {(each.adamw_factor, each.weight_decay) for each in asked.variants["muon"]}
    assert settings == {(0.3, 0.05), (0.3, 0.1), (1, 0.05), (1, 0.1)}
    names = [step.job.name for step in steps(asked, {})]
    for factor in (0.3, 1):  # of which 1 is a default that a dump leaves out
        assert f"cnn on digits: Muon with weight_decay 0.1, adamw_factor {factor:g}, search" in names
    with pytest.raises(UsageError, match="muon has 100 combinations of settings"):
        plan("tiny", {"muon.weight_decay": [f"0.{k}" for k in range(10)], "muon.adamw_factor": list(range(1, 11))})
    folder = grokking.write(tmp_path, of("muon", "adamw"))
    held = {"muon": {"muon": {"tensors": 4, "parameters": 300}, "adamw": {"tensors": 2, "parameters": 100}}}
    for record in store.records(folder):
        note(record, routing=held.get(record.arm, {"adamw": {"tensors": 6, "parameters": 400}}))
    rows = rows_of(tables_of(analyse(folder))["routing"])
    assert [(row["optimizer"], row["rule"], row["tensors"], row["share"]) for row in rows] == [
        *(("Muon", "Muon", 4, 0.75), ("Muon", "AdamW", 2, 0.25), ("AdamW", "AdamW", 6, 1.0)),
    ]


def note(record, **facts):
    path = Path(str(record.folder)) / "env.json"
    write_json(path, {**read_json(path), **facts})


# -- 8, 13: axes and seeds -------------------------------------------------------------------------


def test_08_steps_flops_and_seconds_stand_in_every_report(tmp_path):
    tables = tables_of(analyse(grokking.write(tmp_path / "a", of("muon", "adamw"))))
    (row, _) = rows_of(tables["costs"])
    assert (row["flops_per_step"], row["seconds_per_step"]) == (1.3e9, pytest.approx(0.004))
    assert {"median_steps", "median_epochs", "median_flops", "median_seconds"} < {*rows_of(tables["times"])[0]}
    findings = analyse_features(features.write(tmp_path / "b", features.study(**CNN)))
    assert {row["flops"] for row in rows_of(tables_of(findings)["step-costs"])} == {1e6}


def test_13_what_does_not_vary_between_seeds_is_in_the_scope():
    assert "split and test set are fixed" in dict(said_of()[1].scope)["runs"]


# -- 17, 19, 20: runs that are none ----------------------------------------------------------------


def copied(step, planted):
    """AdamW's second run is its first."""
    found = features.result(step, planted)
    if step.role == "final" and step.arm == "adamw":
        found["members"][1] |= {key: found["members"][0][key] for key in ("train_loss", "validation_loss")}
    return found


def test_17_a_copy_sets_its_optimizer_aside_and_is_named(tmp_path):
    asked = features.study(**CNN)
    done = run_with(asked, copied)
    found = features.found(asked, known=done)
    said = verdict(found, judge_all(found))
    assert "Out of the verdict: AdamW on cnn on digits has runs that are one run, bit by bit." in said.sentence
    (notice,) = analyse_features(features.write(tmp_path, asked, known=done)).notices
    assert notice.text.startswith(
        "Runs that should differ are one run, bit by bit, and count as several: cnn on digits"
    )
    assert notice.text.endswith("final runs, seeds 0 and 1.")


def test_17_a_copy_sets_a_problem_aside_in_a_study_of_components(monkeypatch):
    assert not components.found().aside
    real = components.member

    def member(config, case, name, rate, seed, measured, planted):
        found = real(config, case, name, rate, seed, measured, planted)
        own = real(config, case, name, rate, 0, measured, planted)["train_loss"]
        return found | ({"train_loss": own} if name == "sgd" and seed == 1 else {})

    monkeypatch.setattr(components, "member", member)
    found = components.found()
    assert {arm for _, arm in found.aside} == {"sgd"}
    assert set(found.aside.values()) == {"has runs that are one run, bit by bit (seeds 0 and 1)"}


def job(seed_losses, optimizer="muon", name="a", **config):
    members = [{"seed": s, "train_loss": own, "validation_loss": own, "diverged_at": None} for s, own in seed_losses]
    held = {"seeds": [s for s, _ in seed_losses], "optimizer": {"name": optimizer}, **config}
    return JobRecord(name, name, held, Path(name), "done", None, {"members": members}, {"device": "cpu", "threads": 1})


CURVE, OTHER = [2.302585, 1.0471976, 0.57721566], [2.302585, 1.0471976, 0.57721567]


def test_17_copies_are_seen_in_the_records_of_any_study():
    assert recorded.copies([job([(0, CURVE), (1, OTHER)])]) == []
    assert recorded.copies([job([(0, CURVE), (1, CURVE)])]) == ["a, seeds 0 and 1"]
    assert recorded.copies([job([(0, CURVE)]), job([(1, CURVE)], name="b")]) == ["a, seeds 0 and 1"]
    # An optimizer that is another one under a new name.
    assert recorded.copies([job([(0, CURVE)]), job([(0, CURVE)], "adamw", "b")]) == ["a and b, seed 0"]
    # Other batches are another comparison, and curves too short to tell runs are no evidence.
    assert recorded.copies([job([(0, CURVE)]), job([(1, CURVE)], batch=3)]) == []
    assert recorded.copies([job([(0, [2.3, 1.0]), (1, [2.3, 1.0])])]) == []


def test_19_runs_of_two_precisions_are_never_compared(tmp_path):
    cells = [*of("muon", protocol__dtype="float32"), *of("adamw", protocol__dtype="float64")]
    found = analyse(grokking.write(tmp_path, cells)).verdict
    assert found.answer == "inconclusive"
    assert "no block of it holds" in found.sentence


def test_20_every_report_says_whether_a_step_repeats(tmp_path):
    folder = grokking.write(tmp_path, of("muon", "adamw"))
    assert dict(analyse(folder).verdict.scope)["Same bytes twice"] == "Not tried in these jobs (cpu, 1 thread)"
    records = store.records(folder)
    for record in records:
        note(record, repeats=True)
    words = "Yes, a step computed twice in each of 2 jobs (cpu, 1 thread)"
    assert dict(analyse(folder).verdict.scope)["Same bytes twice"] == words
    note(records[0], repeats=False, device="cuda:0")
    findings = analyse(folder)
    assert [each.text for each in findings.notices] == [
        "Not deterministic: a step computed twice differed in 1 of 2 jobs (cpu, cuda:0, 1 thread), so chance is more "
        "than the seeds."
    ]
    alone = [replace(job([(0, CURVE)]), environment={"repeats": None})]
    assert recorded.badge(alone) == "Not tried in 1 jobs, whose members train one after the other"
    assert recorded.section(Found(None, (), (), 1, Rule(), records=())) == ()


# -- 26: scope -------------------------------------------------------------------------------------


def test_26_size_and_horizon_are_in_the_first_sentence(tmp_path):
    assert "in cnn on digits (5,000 parameters, 12 steps)" in said_of()[1].sentence
    sentence = analyse(grokking.write(tmp_path, of("muon", "adamw"))).verdict.sentence
    assert "(2 layers, width 128, 420,000 parameters, horizon of 2,000 steps)" in sentence

import numpy as np
import pytest

import synthetic_study as synthetic
from muonlab.studies.grokking.analysis import find
from muonlab.studies.grokking.comparison import pairs_of
from muonlab.studies.grokking.conditions import read
from muonlab.studies.grokking.verdict import judge


def verdict(folder, fate=synthetic.usual_fate, cells=None, **options):
    runs = read(synthetic.write(folder, cells, fate, **options))
    return judge(find(runs), pairs_of(runs))


def slower(factors):
    """A fate in which Muon needs factors[task] times the steps of AdamW, plus a little noise."""

    def fate(config, seed):
        if config.task.labels == "random":
            return None
        base = 600 + 50 * seed + (50 * (seed % 2) if config.optimizer.name == "muon" else 0)
        return round(base * (factors[config.task.name] if config.optimizer.name == "muon" else 1) / 50) * 50

    return fate


def test_sooner_with_interval_n_p_and_scope(tmp_path):
    found = verdict(tmp_path)
    assert (found.answer, found.label) == ("yes", "Sooner")
    assert found.interval.upper < 1
    for part in (
        "Muon crossed sooner than AdamW",
        "95% interval",
        "2 blocks",
        "10 Muon and 10 AdamW runs",
        "p =",
        "add",
    ):
        assert part in found.sentence
    for part in ("2 layers, width 128, 420,000 parameters", "batch 512", "horizon of 2,000 steps", "neither", "tuned"):
        assert part in found.sentence
    assert found.cautions == ()


def test_later_is_said_as_loudly(tmp_path):
    found = verdict(tmp_path, slower({"add": 1.6, "mul": 1.6}))
    assert (found.answer, found.label) == ("no", "Later")
    assert found.sentence.startswith("Muon crossed later than AdamW")


def test_no_difference_needs_a_narrow_interval_and_most_runs_crossing(tmp_path):
    def fate(config, seed):
        return None if config.task.labels == "random" else 1000 + 50 * (seed % 2)

    found = verdict(tmp_path / "a", fate)
    assert (found.answer, found.label) == ("no", "No difference")

    def rarely(config, seed):
        return fate(config, seed) if seed == 0 else None

    assert verdict(tmp_path / "b", rarely).label == "Inconclusive"


def test_depends_on_the_task(tmp_path):
    found = verdict(tmp_path, slower({"add": 0.4, "mul": 1.6}))
    assert (found.answer, found.label) == ("mixed", "Depends on the task")
    assert "sooner than AdamW on add and later on mul" in found.sentence


def noisy(config, seed):
    draw = np.random.default_rng([seed, len(config.optimizer.name), ord(config.task.name[0])])
    return None if config.task.labels == "random" else round(draw.uniform(100, 1900) / 50) * 50


def never(config, seed):
    return None


def same(config, seed):
    return None if config.task.labels == "random" else {"muon": 500, "adamw": 900}[config.optimizer.name]


def early(config, seed):
    return None if config.task.labels == "random" else {"muon": 50, "adamw": 900}[config.optimizer.name]


def torn(config, seed):
    """Seven of ten runs of Muon are sooner, three never cross."""
    if config.task.labels == "random" or (config.optimizer.name == "muon" and seed in (0, 4, 7)):
        return None
    return {"muon": 300, "adamw": 400}[config.optimizer.name] + 50 * (seed % 2)


@pytest.mark.parametrize(
    ("fate", "options", "reason"),
    [
        (noisy, {}, "contains 1"),
        (never, {}, "none of the 20 runs crossed"),
        (early, {}, "a smaller cadence would give an interval"),
        (synthetic.usual_fate, {"cells": synthetic.usual_cells(["add"], num_seeds=2)}, "at least 3 finished runs"),
        (synthetic.usual_fate, {"cells": synthetic.usual_cells(["add"], num_seeds=3)}, "permutation test"),
        (synthetic.usual_fate, {"control_accuracy": 0.2}, "2 of 2 controls on random labels rose above chance"),
        (
            synthetic.usual_fate,
            {"cells": [synthetic.cell("add", "softmax", "muon", range(5))]},
            "nothing to compare Muon with",
        ),
        (
            synthetic.usual_fate,
            {"cells": synthetic.usual_cells(["add", "mul", "sub"]), "waiting": [2, 5]},
            "only 1 of 3 blocks",
        ),
    ],
)
def test_inconclusive_because(tmp_path, fate, options, reason):
    found = verdict(tmp_path, fate, **options)
    assert (found.answer, found.label) == ("inconclusive", "Inconclusive")
    assert found.sentence.startswith("Inconclusive, because ")
    assert reason in found.sentence


def test_equal_times_of_all_runs_are_bounded_by_the_cadence(tmp_path):
    found = verdict(tmp_path, same)
    assert (found.answer, found.label) == ("yes", "Sooner")
    assert (found.interval.lower, found.interval.upper) == pytest.approx((450 / 900, 500 / 850))
    assert "needed 0.56 times AdamW’s steps (between 0.50 and 0.59 by the cadence alone" in found.sentence
    assert "95% interval" not in found.sentence


def test_a_test_that_points_the_other_way_supports_nothing(tmp_path):
    found = verdict(tmp_path, torn, synthetic.usual_cells(num_seeds=10))
    assert found.label == "Inconclusive"
    assert found.interval.lower > 1  # it would have been "later", with the p of "sooner"
    assert "ranked run by run Muon tends to be sooner, yet its mean is later, as runs that never" in found.sentence
    assert "of ranks that point the OTHER way" in found.sentence


def test_a_task_on_which_the_test_points_the_other_way_makes_no_answer_mixed(tmp_path):
    def fate(config, seed):
        if config.task.name == "add" or config.task.labels == "random":
            return synthetic.usual_fate(config, seed)
        return None if config.optimizer.name == "muon" and seed == 9 else torn(config, seed)

    found = verdict(tmp_path, fate, synthetic.usual_cells(num_seeds=10))
    assert found.label == "Inconclusive"
    assert any("mul 2." in text and "(the ranks of the test point the other way)" in text for text in found.more)


def test_nobody_crossed_is_said_without_a_number(tmp_path):
    found = verdict(tmp_path, never)
    assert "needed" not in found.sentence
    assert found.interval is None
    assert found.more[0].startswith("Within the budget, 0 of 10 Muon runs")
    assert len(found.more) == 1


def test_a_task_on_which_nobody_crossed_has_no_number(tmp_path):
    found = verdict(tmp_path, lambda config, seed: None if config.task.name == "mul" else 700 + 50 * seed)
    assert any("mul (no run crossed)" in text for text in found.more)


def test_a_study_without_muon_asks_of_its_first_arm(tmp_path):
    cells = [synthetic.cell(task, "softmax", o, range(5)) for task in ("add", "mul") for o in ("adamw", "sgd")]
    found = verdict(tmp_path, cells=cells)
    assert found.sentence.startswith("AdamW crossed sooner than SGD: it needed 0.")
    assert ("Tuning", "neither optimizer was tuned here") in found.scope
    assert any(caution.startswith("No control") for caution in found.cautions)


def test_a_comparison_that_is_not_asked_for_has_its_sentence_without_the_one_that_is(tmp_path):
    cells = [synthetic.cell("add", "softmax", optimizer, range(5)) for optimizer in ("muon", "adamw", "sgd")]
    found = verdict(tmp_path, cells=cells, waiting=[1])
    assert found.sentence == "Inconclusive, because the study holds no finished AdamW runs."
    assert found.more[0].startswith("Against SGD: Muon needed 0.")

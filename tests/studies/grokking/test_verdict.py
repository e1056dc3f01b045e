import numpy as np
import pytest

import synthetic_study as synthetic
from muonlab.studies.grokking.comparison import compare
from muonlab.studies.grokking.conditions import read
from muonlab.studies.grokking.controls import judge_controls
from muonlab.studies.grokking.verdict import judge


def verdict(folder, fate=synthetic.usual_fate, cells=None, **options):
    runs = read(synthetic.write(folder, cells, fate, **options))
    beside = compare(runs, "muon", "sgd")
    return judge(runs, compare(runs, "muon", "adamw"), judge_controls(runs), [beside] if beside else [])


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


@pytest.mark.parametrize(
    ("fate", "options", "reason"),
    [
        (noisy, {}, "contains 1"),
        (never, {}, "none of the 20 runs crossed"),
        (same, {}, "no interval"),
        (synthetic.usual_fate, {"cells": synthetic.usual_cells(["add"], num_seeds=2)}, "at least 3 finished runs"),
        (synthetic.usual_fate, {"cells": synthetic.usual_cells(["add"], num_seeds=3)}, "permutation test"),
        (synthetic.usual_fate, {"control_accuracy": 0.2}, "2 of 2 controls on random labels rose above chance"),
        (
            synthetic.usual_fate,
            {"cells": [synthetic.cell("add", "softmax", "muon", range(5))]},
            "no finished AdamW runs",
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


def test_whether_it_stays_is_said(tmp_path):
    def fate(config, seed):
        step = synthetic.usual_fate(config, seed)
        return (step, 0.61) if step and config.optimizer.name == "muon" and seed == 0 else step

    text = " ".join(verdict(tmp_path, fate).more)
    assert "8 of 10 Muon runs (80%, interval 49% to 94%) and 10 of 10 AdamW runs" in text
    assert "0.610 with Muon" in text
    assert "Counting only crossings that last, the ratio is" in text


def test_what_weakens_it_is_said(tmp_path):
    cells = synthetic.usual_cells(["add", "mul", "sub"])[:-2]
    found = verdict(tmp_path, cells=cells, failed=[4])
    assert found.answer == "yes"
    assert any("2 of the 3 blocks" in caution for caution in found.cautions)
    assert any("No control" in caution for caution in found.cautions)


def test_unequal_tuning_is_said_and_every_pair_counted(tmp_path):
    cells = [synthetic.cell("add", "softmax", "muon", range(5), optimizer__lr=r) for r in (0.01, 0.02)]
    cells.append(synthetic.cell("add", "softmax", "adamw", range(5)))
    found = verdict(tmp_path, cells=cells)
    assert "is the best of 2 settings and AdamW had one setting (UNEQUAL tuning)" in found.sentence
    assert any("equally many settings" in caution for caution in found.cautions)
    assert any(text.startswith("Of the 2 pairs of settings") for text in found.more)


def test_a_third_optimizer_has_its_sentence(tmp_path):
    cells = [*synthetic.usual_cells(["add"]), synthetic.cell("add", "softmax", "sgd", range(5))]
    found = verdict(tmp_path, cells=cells)
    assert any(text.startswith("Beside SGD: Muon needed 0.") for text in found.more)


def test_an_answer_that_turns_round_with_the_unit_is_a_caution(tmp_path):
    def fate(config, seed):
        if config.task.labels == "random":
            return None
        return 50 * (seed % 2) + {"muon": 1250, "adamw": 1500}[config.optimizer.name]

    found = verdict(tmp_path, fate)  # about .84 in steps, and a step of Muon costs 1.3 and 4 / 3 times as much
    assert found.answer == "yes"
    assert [caution.partition(" the answer turns round")[0] for caution in found.cautions] == [
        "Counted in training FLOPs",
        "Counted in seconds on this machine",
    ]
    assert any("in training FLOPs (later)" in text for text in found.more)


def test_tasks_and_losses_are_told_apart(tmp_path):
    found = verdict(tmp_path, cells=synthetic.usual_cells(losses=["softmax", "stablemax"]))
    assert any(text.startswith("By task, Muon is sooner on add 0.") for text in found.more)
    assert any(text.startswith("By loss, Muon is sooner with softmax 0.") for text in found.more)

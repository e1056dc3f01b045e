"""What `muonlab compare` says of requests and results at the edge of what makes sense."""

from pathlib import Path

import numpy as np
import pytest
import torch

from invented import invented, judged, reported
from muonlab import cli
from muonlab.jobs import local
from muonlab.report import page
from muonlab.report.findings import Table, Text
from muonlab.studies.compare import suite
from muonlab.studies.compare.analysis import find, looks
from muonlab.studies.compare.ask import ask
from muonlab.studies.compare.best import best
from muonlab.studies.compare.jobs import steps, tried
from muonlab.studies.compare.suite_report import answer
from muonlab.studies.compare.work import job
from muonlab.study.settings import UsageError
from muonlab.study.space import Space

OWN = """
from torch import nn
def task(seed): return nn.Linear(4, 2), [], [], nn.functional.cross_entropy
"""


@pytest.fixture(autouse=True)
def own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("own.py").write_text(OWN)


def asked_of(*words, task="own.py:task"):
    return ask([task, *words])[1]


def better(arm, point, seed):
    """Muon is ahead; rates in the middle of the range are best."""
    noise = np.random.default_rng([seed, arm == "muon", int(1e7 * point["lr"])]).normal()
    return (0.9 if arm == "muon" else 1.0) + 0.01 * noise + 0.05 * np.log10(100 * point["lr"]) ** 2


@pytest.mark.parametrize(("words", "budgets"), [(["steps=1"], [1]), (["steps=3", "horizons=0.1,0.2,1"], [3, 1])])
def test_horizons_of_the_same_number_of_steps_are_one(words, budgets):
    asked = asked_of(*words, "trials=4")
    assert [part.training.budget for part in asked.parts] == budgets
    found = reported(asked, better)
    page.write(found, Path("out"))
    assert sum("1 step:" in words for words in found.verdict.more) == len(budgets) - 1
    assert "1 steps" not in found.verdict.sentence


def test_trials_beyond_an_edge_are_no_repeats_where_the_rate_is_held():
    asked = asked_of("adamw.lr=0.01", "extensions=3", "horizons=1")
    found = invented(asked, lambda arm, point, seed: 1 - 0.1 * np.log10(point["lr"]))
    points = [tuple(point.items()) for point in tried(asked, found)["adamw"].points]
    assert len(points) == 16 + 3 * 8
    assert len(set(points)) == len(points)


def test_more_trials_keep_those_that_are_done_whatever_their_number_was():
    few, more = asked_of("trials=6", "horizons=1"), asked_of("trials=40", "horizons=1")
    found = invented(few, better)
    searches = [step for step in steps(more, found) if step.role == "search" and step.arm == "adamw"]
    assert [len(step.config.points) for step in searches] == [6, 16, 16, 2]
    assert searches[0].job.id in found
    space = more.searches["adamw"]
    assert isinstance(space, Space)
    assert [dict(point) for step in searches for point in step.config.points] == [*space.points]


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("present.lr=0", "present.lr=0 is not valid; expected a finite number above 0"),
        ("present.lr=-1", "present.lr=-1 is not valid"),
        ("present.beta1=2", "present.beta1=2.0 is not valid; expected less than 1"),
        ("present.weight_decay=nan", "present.weight_decay=nan is not valid; expected a finite number$"),
    ],
)
def test_a_present_setting_that_the_baseline_does_not_take_is_refused(word, expected):
    with pytest.raises(UsageError, match=expected):
        asked_of(word)


def test_one_optimizer_alone_is_not_a_no():
    verdict = judged(asked_of("optimizers=adamw", "horizons=1"), better)
    assert (verdict.answer, verdict.sentence) == ("inconclusive", "AdamW alone: nothing to compare.")


def test_a_final_run_that_diverged_has_an_advice_of_its_own():
    verdict = judged(
        asked_of("horizons=1"), lambda arm, *own: None if (arm, own[1]) == ("muon", 1) else better(arm, *own)
    )
    assert "because 1 of 5 Muon runs diverged" in verdict.sentence
    assert verdict.sentence.endswith(
        "Give a lower range of learning rates, muon.lr=LOW..HIGH, or more seeds, such as seeds=10."
    )


def test_a_request_in_other_words_is_no_other_look():
    asked = [asked_of(*words).model_dump(mode="json") for words in ([], ["trials=16"], ["seeds=8"])]
    configs = [{key: value for key, value in each.items() if key not in ("preset", "settings")} for each in asked]
    assert [looks(configs[:2]), looks(configs)] == [1, 2]


def test_a_suite_says_where_an_optimizer_diverges_and_what_the_present_setting_gives():
    """On one workload every trial of Muon diverges, on the other one final run does."""
    words = ["horizons=1", "extensions=0", "present.lr=0.02"]

    def diverging(arm, point, seed):
        return None if arm == "muon" and seed == 1 else better(arm, point, seed)

    asked = asked_of(*words, task="suite=mlp,cnn")
    found = invented(asked, diverging)
    for step in steps(asked, found):
        if step.arm == "muon" and step.case.trained.builtin == "mlp":
            for member in found[step.job.id]["members"]:
                member["diverged_at"] = 3
    founds = find(asked, steps(asked, found), found)
    whole = suite.of(founds)
    verdict = suite.verdict(whole, founds[0])
    assert "because no setting of Muon on mlp on friedman has ended without diverging" in verdict.sentence
    assert "Final runs diverged: 1 of 5 Muon runs on cnn on digits." in verdict.cautions
    said = [element.text for element in answer(whole) if isinstance(element, Text)]
    assert [words.partition(" (")[0] for words in said] == [
        "mlp on friedman: AdamW as you have it now",
        "cnn on digits: AdamW as you have it now",
    ]


def test_a_program_has_a_present_setting_of_its_own_and_its_loss_is_said_to_be_minus_its_metric():
    command = "command=python train.py {optimizer} --lr {lr} --m {momentum} --seed {seed} --steps {steps}"
    asked = ask([command, "metric=-accuracy", "adamw.momentum=0.5..0.9", "present.momentum=0.6", "horizons=1"])[1]
    found = reported(asked, lambda *own: better(*own) - 2)
    assert "ends below AdamW: a validation loss (minus accuracy) of −1." in found.verdict.sentence
    tables = [element for section in found.sections for element in section.elements if isinstance(element, Table)]
    (trials,) = [table for table in tables if table.name == "trials"]
    assert "of AdamW the setting that you have now" in trials.note
    texts = [element.text for section in found.sections for element in section.elements if isinstance(element, Text)]
    assert any("with the setting that you have now and" in text for text in texts)


def test_a_forecast_counts_as_many_evaluations_for_half_of_the_budget(monkeypatch):
    monkeypatch.setattr(local, "try_out", lambda *own: None)
    monkeypatch.setattr(job, "seconds_of", lambda part, device: (1.0, 10.0))
    study, asked, _ = ask(["own.py:task"])
    whole, half = cli._measured(study, asked, Path("out"), "cpu").seconds
    assert (300 * whole, 150 * half) == pytest.approx((300 + 21 * 10, 150 + 21 * 10))


def test_the_code_of_an_optimizer_whose_label_is_its_own_name_makes_it(monkeypatch):
    """Labels are often the names of classes; a function Own(model) must not call itself, nor torch hide torch."""
    Path("ownest.py").write_text("import torch\nclass Own(torch.optim.SGD):\n    pass\n")
    monkeypatch.syspath_prepend(".")
    asked = asked_of("optimizers=torch=adamw,Own=ownest.py:Own,mine=muon", "Own.lr=1e-3..1", "horizons=1")
    known = invented(asked, better)
    found = find(asked, steps(asked, known), known)[0]
    exec(best(found.arms, found.runs.points, 'a """title"""\\'), made := {})
    model = torch.nn.Linear(4, 2)
    assert [type(made[label](model)).__name__ for label in ("torch", "Own", "mine")] == ["AdamW", "Own", "MuonAdamW"]

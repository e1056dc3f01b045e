"""A study of transfer: what it asks, what it says of results whose truth is known, and a run that is killed."""

import math
import re
from pathlib import Path

import pytest
import torch

from inline import InlinePool
from muonlab.cli import main
from muonlab.jobs import local, store
from muonlab.rules.muon import ADJUSTMENTS
from muonlab.studies import transfer
from muonlab.studies.transfer.jobs import steps
from muonlab.studies.transfer.plan import RULES, SCALES
from muonlab.studies.transfer.readings import gather
from muonlab.studies.transfer.work import job
from muonlab.study.settings import UsageError
from muonlab.train import optimizers

# -- what is asked -----------------------------------------------------------------------------------


def test_there_is_a_rule_for_every_scale_of_muon():
    assert set(SCALES) == set(ADJUSTMENTS)
    assert [arm.label for arm in transfer.plan("laptop").arms] == list(RULES)


@pytest.mark.parametrize("preset", transfer.PRESETS)
def test_a_preset_comes_back_from_its_file(preset, tmp_path):
    asked = transfer.plan(preset, {"seeds": 3})
    transfer.begin(asked, tmp_path)
    file = store.read(tmp_path)
    assert transfer.TransferStudy.model_validate({**file.config, "preset": preset, "settings": file.settings}) == asked


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {"widths": [16, 40]},
            "a net of width 40 has heads of 16; expected multiples of 16",
        ),
        ({"widths": [16]}, "widths=16 is not valid; expected two numbers or more"),
        ({"rules": ["originel"]}, "unknown rule 'originel'; did you mean 'original'?"),
        ({"rules": ["adamw"], "muon.momentum": 0.9}, "muon.momentum has no effect"),
        ({"original.rates": [0.1, 0.2]}, "original.rates=0.1,0.2 is not valid; expected 3 numbers or more"),
        ({"tolerance": 0}, "tolerance=0 is not valid; expected greater than 0"),
        ({"text": "no_such.txt"}, "there is no such file"),
    ],
)
def test_what_cannot_be_is_refused(settings, words):
    with pytest.raises(UsageError, match=re.escape(words)):
        transfer.plan("laptop", settings)


def test_muon_has_the_scale_of_its_rule_and_adamw_the_rate_that_is_held():
    asked = transfer.plan("tiny", {"rules": ["spectral", "none"]})
    net = job.material_of(asked.nets[0], 4).build()
    for label, own in asked.optimizers.items():
        treated = optimizers.of_config(net, own, [{"lr": 0.1}, {"lr": 0.2}])
        matrix, head = treated["blocks.0.feed_forward.out.weight"], treated["head.weight"]
        assert matrix.hyper["adjust_lr_fn"] == label
        assert matrix.hyper["lr"].tolist() == [0.1, 0.2]
        assert (head.rule.__name__, head.hyper["lr"]) == ("muonlab.rules.adamw", 0.01)


# -- results whose truth is known ----------------------------------------------------------------------

MOVES = {"original": 0.0, "match_rms_adamw": -0.5, "spectral": 0.17, "none": 0.0, "adamw": 0.0}  # octaves per doubling
STARTS = dict.fromkeys(RULES, 0.09) | {"none": 40.0}  # best rate of the narrowest: of "none" far off the grid
SEEDS = {"seeds": 3, "extensions": 2}


def invented(step):
    """Return the result of a job: a parabola around the best rate, which a seed shifts by a little."""
    label, doublings = step.arm, math.log2(step.case.width / 16)
    if step.role == "check":
        changes = [[2 ** (MOVES[label] * doublings + 0.1 * seed) for seed in step.config.seeds]]
        return {"seeds": list(step.config.seeds), "rate": step.config.rate, "changes": {"head": changes}}
    best = math.log2(STARTS[label]) + MOVES[label] * doublings

    def loss(rate, seed):
        # A seed leans a little more with the width: so there is an interval. That of spectral is too wide to tell.
        lean = {"spectral": 0.1}.get(label, 0.02) * (seed - 1) * doublings
        return 2 + (math.log2(rate) - best - lean) ** 2

    points = list(step.config.points)
    members = [
        {"point": k, "seed": seed, "diverged_at": None, "validation_loss": [5.0, loss(point["lr"], seed)]}
        for k, point in enumerate(points)
        for seed in step.config.seeds
    ]
    return {"points": points, "members": members}


def answered(asked):
    """Return the steps and results of a study in which every job has ended."""
    found = {}
    while todo := [step for step in steps(asked, found) if step.job.id not in found]:
        found |= {step.job.id: invented(step) for step in todo}
    return steps(asked, found), found


@pytest.fixture(scope="module")
def rules():
    asked = transfer.plan("laptop", SEEDS)
    return {rule.arm.label: rule for rule in gather(asked, *answered(asked))}


def test_shifts_are_those_of_the_truth_and_answers_follow(rules):
    for label in ("original", "match_rms_adamw", "spectral"):
        assert rules[label].shift.value == pytest.approx(MOVES[label], abs=1e-9)
        assert rules[label].coordinate("head").value == pytest.approx(MOVES[label])
    assert rules["original"].judged == ("yes", "")
    assert rules["match_rms_adamw"].judged == ("no", "")
    assert rules["original"].regret.value == 0
    assert rules["match_rms_adamw"].regret.value > 30  # percent: 1.5 octaves off a parabola


def test_an_open_answer_says_what_would_settle_it(rules):
    answer, why = rules["spectral"].judged
    assert answer == "inconclusive"
    assert why.startswith("the interval contains 0.25; the grid is too coarse to tell: give rates with smaller ratios")
    asked = transfer.plan("laptop", SEEDS | {"tolerance": 0.4})
    (fewer,) = [rule for rule in gather(asked, *answered(asked)) if rule.arm.label == "spectral"]
    assert fewer.judged[1] == "the interval contains 0.4; about 11 seeds would settle it"


def test_a_best_rate_on_an_edge_is_said_and_decides_nothing(rules):
    answer, why = rules["none"].judged
    assert answer == "inconclusive"
    assert why == "at width 16 the best rate is the highest tried, 1.3: give none.rates beyond it, or more extensions"


def test_a_seed_that_diverged_at_every_rate_is_said():
    asked = transfer.plan("laptop", SEEDS | {"rules": ["original"]})
    known, found = answered(asked)
    for step in known:
        if step.role == "search" and step.case.width == 32:
            lost = [m | {"diverged_at": 80} if m["seed"] == 1 else m for m in found[step.job.id]["members"]]
            found[step.job.id] = found[step.job.id] | {"members": lost}
    (rule,) = gather(asked, known, found)
    assert rule.judged[0] == "inconclusive"
    assert rule.judged[1].startswith("at width 32 a seed diverged at every rate: give lower original.rates")


def test_the_rate_of_the_narrowest_net_is_run_at_the_widest_where_its_search_did_not_try_it():
    rates = {"match_rms_adamw.rates": [0.006, 0.012, 0.024], "rules": ["match_rms_adamw"]}
    wide = transfer.plan("laptop", SEEDS | rates)
    known, found = answered(wide)
    (kept,) = [step for step in known if step.role == "kept"]
    assert (kept.case.width, [point["lr"] for point in kept.config.points]) == (128, [0.096])
    (rule,) = gather(wide, known, found)
    assert rule.regret.value > 30


def test_half_a_study_says_what_it_has(tmp_path):
    asked = transfer.plan("laptop", SEEDS)
    transfer.begin(asked, tmp_path)
    found = transfer.analyse(tmp_path)
    assert found.verdict.answer == "inconclusive"
    assert found.verdict.sentence == "No rule has a best rate at every width yet."
    (rule, *_) = gather(asked, steps(asked, {}), {})
    assert rule.judged[1] == "not every width has a best rate yet; the same command goes on"


# -- real runs -----------------------------------------------------------------------------------------

FEW = {"rules": "original,adamw", "budget": 4, "evaluations": 2, "check_steps": 1}
WORDS = ["run", "transfer", "preset=tiny", "workers=1", *(f"{key}={value}" for key, value in FEW.items())]


def test_stopped_and_run_again_it_ends_with_the_same_bytes_and_a_report(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(local, "Pool", InlinePool)
    torch.set_num_threads(1)
    asked = transfer.plan("tiny", {key: str(value).split(",") for key, value in FEW.items()})
    for event in (events := local.run(transfer, asked, "runs/transfer", workers=1)):
        if event.kind == "finished" and len(store.Results(Path("runs/transfer"))) == 3:
            events.close()
            break
    with pytest.raises(SystemExit, match="0"):
        main(WORDS)
    words = capsys.readouterr().out
    assert "3 jobs done already, about 5 to do" in words
    # Bug: "moves by 0.00" where both widths were at the highest rate tried, as after four steps they are.
    assert "Under every rule some best rate lies on an edge of what was tried: how far it moves is not known." in words
    assert Path("runs/transfer/report.html").exists()

    list(local.run(transfer, asked, "whole", workers=1))
    ids = sorted(store.Results(Path("whole")))
    assert ids == sorted(store.Results(Path("runs/transfer")))
    assert len(ids) == len(transfer.outline(asked)) == 8
    page = (Path(__file__).parents[3] / "docs" / "files.md").read_text()
    keys = {key for each in store.Results(Path("whole")).values() for key in (*each, *each.get("members", [{}])[0])}
    assert {"members", "changes"} < keys
    assert [key for key in sorted(keys) if f"`{key}`" not in page] == []
    for each in ids:
        assert (
            Path("whole", each, "result.json").read_bytes() == Path("runs/transfer", each, "result.json").read_bytes()
        )


def test_a_coordinate_check_sees_the_change_of_every_layer():
    asked = transfer.plan("tiny")
    members, draw, _ = job.material_of(asked.nets[0], 4).members(
        asked.optimizers["original"], [{"lr": 0.1}] * 2, [0, 1], None, "cpu"
    )
    inputs = draw(0)[0][0]
    before = job.outputs(members, 1, inputs)
    assert set(before) == {"embedding", "blocks.0", "blocks.0.attention", "blocks.0.feed_forward", "head"}
    net = job.material_of(asked.nets[0], 4).build(1)
    assert torch.allclose(before["head"], net.eval()(inputs).flatten(1), atol=1e-5)
    members.step(*draw(0), 0)
    after = job.outputs(members, 1, inputs)
    assert all(not torch.equal(before[name], after[name]) for name in before)

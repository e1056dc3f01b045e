import os
import random
import signal
import subprocess
import sys
import time

import pytest
import torch

from matrices import draw
from muonlab.data.algorithmic import TASKS, TRAIN_SHARES
from muonlab.jobs.files import read_json, read_lines
from muonlab.measure import crossing
from muonlab.rules import muon
from muonlab.rules.polar import orthogonalize
from muonlab.stats.proportions import chance_limit
from muonlab.studies.grokking.work import material
from muonlab.studies.grokking.work.cell import run
from muonlab.studies.grokking.work.material import treatments

# A cell that groks in about a second: its seeds cross at different times, so the stack shrinks on the way.
GROKS = {
    "task": {"modulus": 23, "train_share": 0.8},
    "net": {"depth": 1, "width": 32, "ff_width": 64, "dropout": 0.1},
    "protocol": {"batch": 128, "budget": 200, "cadence": 10, "threshold": 0.6, "follow": 2, "dtype": "float32"},
    "seeds": (0, 1, 2, 3),
}


def test_the_result_says_what_the_curves_show(make_cell, tmp_path):
    config = make_cell(**GROKS)
    seen = []
    result = run(config, tmp_path, report=seen.append)
    rows = read_lines(tmp_path / "metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(0, rows[-1]["step"] + 1, 10))
    assert [event["step"] for event in seen] == [row["step"] for row in rows]
    assert (result.num_train, result.num_validation) == (423, 106)
    for number, member in enumerate(result.members):
        curves = [[row[key][number] for row in rows] for key in ("train_accuracy", "validation_accuracy")]
        alive = sum(value is not None for value in curves[0])
        times = crossing.times(curves[0][:alive], curves[1][:alive], crossing.Criterion(0.6, 0.99, 2))
        assert times.first is not None
        first = member.first_crossing
        assert first is not None
        assert (first.step, first.after_step) == (10 * times.first, 10 * (times.first - 1))
        assert first.epoch == pytest.approx(first.step * 128 / 423)
        assert first.flops == first.step * result.flops_per_step
        assert member.minimum_after_crossing == times.minimum_after
        assert member.last_step == 10 * (alive - 1)


def test_members_leave_when_they_are_decided(make_cell, tmp_path):
    result = run(make_cell(**GROKS), tmp_path)
    for member in result.members:
        assert member.sustained_crossing is not None
        assert member.last_step == member.sustained_crossing.step + 2 * 10
    assert len({member.last_step for member in result.members}) > 1


def test_flops_are_those_of_the_matrix_products(make_cell, tmp_path):
    # One layer, no gate, plain SGD: every product is forward, and backward once for its input and once for its weight.
    net = {"depth": 1, "width": 16, "heads": 2, "ff_width": 16, "gated": False, "causal": False}
    result = run(make_cell(net=net, optimizer="sgd", protocol={"budget": 5}), tmp_path)
    B, T, D, C = 8, 4, 16, 7
    projections, feed_forward = 4 * B * T * D * D, 2 * B * T * D * 16
    attention, head = 2 * B * T * T * D, B * D * C
    # The head is applied to the last position, all else to every one.
    assert result.flops_per_step == 2 * 3 * (projections + attention + feed_forward + head)


def test_how_a_cell_trains_is_recorded_and_compiling_changes_its_numbers_by_rounding(
    make_cell, tmp_path, compiled_programs
):
    config = make_cell(net={"dropout": 0.2}, seeds=(3, 4))
    eager, other = run(config, tmp_path / "a", compile="never"), run(config, tmp_path / "b", compile="always")
    sessions = [read_json(tmp_path / each / "env.json")["sessions"][0] for each in "ab"]
    assert [(each["is_compiled"], each["height"]) for each in sessions] == [(False, 2), (True, 1)]
    assert "compiled program" in (tmp_path / "b" / "log.txt").read_text()
    rows = [read_lines(tmp_path / each / "metrics.jsonl") for each in "ab"]
    for first, second in zip(*rows, strict=True):
        assert second["train_loss"] == pytest.approx(first["train_loss"], rel=1e-9)
    assert eager.flops_per_step == other.flops_per_step


@pytest.mark.parametrize("task", TASKS)
def test_random_labels_stay_at_chance(make_cell, tmp_path, task):
    config = make_cell(
        task={"name": task, "modulus": 23, "bits": 7, "train_share": TRAIN_SHARES[task], "labels": "random"},
        net={"depth": 1, "width": 32, "ff_width": 64, "dropout": 0},
        protocol={"batch": 128, "budget": 400, "cadence": 100, "dtype": "float32"},
        seeds=(0, 1),
    )
    result = run(config, tmp_path)
    limit = chance_limit(result.chance, result.num_validation, num_looks=2 * result.num_evaluations)
    for member in result.members:
        assert member.first_crossing is None
        assert member.best_validation_accuracy is not None
        assert member.best_validation_accuracy < limit
        assert member.last_train_accuracy is not None
        assert member.last_train_accuracy > limit  # it was learning its rows by heart


def test_a_member_that_diverges_is_a_result_and_the_others_go_on(make_cell, tmp_path):
    config = make_cell(optimizer="sgd", hyper={"lr": 1e30}, protocol={"dtype": "float32"})
    result = run(config, tmp_path)
    for member in result.members:
        assert member.diverged_at == 5
        assert member.first_crossing_reason == "diverged before crossing"
    assert read_lines(tmp_path / "metrics.jsonl")[-1]["train_loss"] == [None] * 3


RUN_IN_A_PROCESS = """
import sys
from pathlib import Path
from muonlab.studies.grokking.config import CellConfig
from muonlab.studies.grokking.work.cell import run
from muonlab.train import loop
from muonlab.train.population import Population
loop.CHECKPOINT_SECONDS = 0
Population.choose_height = lambda *_: 3  # of four members: as they leave, stacks of 3 and 1, then one of 3, 2, 1
config = CellConfig.model_validate_json(sys.argv[1])
run(config, Path(sys.argv[2]), report=lambda event: print(event, flush=True))
"""


def test_killed_at_ten_random_moments_it_ends_with_the_same_bytes(make_cell, tmp_path):
    longer = {"cadence": 4, "budget": 400, "threshold": 0.85, "follow": 3}
    settings = GROKS | {"protocol": GROKS["protocol"] | longer}
    config = make_cell(**settings)
    command = [sys.executable, "-c", RUN_IN_A_PROCESS, config.model_dump_json()]
    environment = {"OMP_NUM_THREADS": "1", **os.environ, "PATH": ""}
    subprocess.run([*command, str(tmp_path / "alone")], check=True, env=environment, stdout=subprocess.DEVNULL)
    rng, folder = random.Random(0), tmp_path / "killed"
    for _ in range(10):
        process = subprocess.Popen([*command, str(folder)], env=environment, stdout=subprocess.PIPE)
        assert process.stdout is not None
        for _ in range(rng.randint(4, 7)):  # it has said where it starts, and has come three to six evaluations on
            process.stdout.readline()
        time.sleep(rng.uniform(0, 0.05))
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    subprocess.run([*command, str(folder)], check=True, env=environment, stdout=subprocess.DEVNULL)
    for name in ("metrics.jsonl", "result.json"):
        assert (folder / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()
    lines = [line.split(" ", 1)[1] for line in (folder / "log.txt").read_text().splitlines()[:-1]]
    starts = [line for line in lines if not line.startswith("trains with")]
    assert starts[0] == "starts with 4 members"
    assert len(starts) == 11
    assert all(start.startswith("goes on from step") for start in starts[1:])
    assert not starts[-1].endswith("4 members"), "some kill should have come after a member had left"


# -- optimizers ------------------------------------------------------------------------------------------


def of_query(config):
    net = material.build_net(config, material.build_task(config))
    return treatments(net, config)["blocks.0.attention.query.weight"]


def test_every_field_of_an_optimizer_reaches_its_rule(make_cell):
    renamed = {"orthogonalize": "is_orthogonal", "scale": "adjust_lr_fn", "takes": None}
    for name in ("muon", "adamw", "sgd"):
        config = make_cell(optimizer=name)
        fields = {each for each in type(config.optimizer).model_fields if each != "name" and "adamw_" not in each}
        fields -= config.optimizer.added  # settings of a wrapper, a role or a rule of another name
        treatment = of_query(config)
        assert set(treatment.hyper) == {renamed.get(each, each) for each in fields} - {None}
        p = torch.ones(16, 16)
        treatment.rule.update(p, treatment.rule.init(p), p, **treatment.hyper)


def test_muon_has_the_scale_and_dtype_that_are_asked_for_and_adamw_a_rate_of_its_own(make_cell):
    plain = of_query(make_cell()).hyper
    assert (plain["adjust_lr_fn"], plain["polar_dtype"]) == ("original", None)
    other = make_cell(hyper={"lr": 0.03, "scale": False, "polar_dtype": "bfloat16", "adamw_lr": 0.002})
    hyper = of_query(other).hyper
    assert (hyper["lr"], hyper["adjust_lr_fn"], hyper["polar_dtype"]) == (0.03, "none", torch.bfloat16)
    net = material.build_net(other, material.build_task(other))
    own = {"lr": 0.002, "weight_decay": 1.0, "beta1": 0.9, "beta2": 0.98, "eps": 1e-8}
    assert treatments(net, other)["head.weight"].hyper == own


def test_muon_iterates_as_the_study_did_whatever_other_methods_there_are(make_cell):
    p = draw(3, 8, 16, dtype=torch.float32)
    treatment = of_query(make_cell(hyper={"lr": 1.0, "weight_decay": 0.0, "scale": False}))
    new_p, _ = muon.update(p, muon.init(p), torch.zeros_like(p), **treatment.hyper)
    expected = -orthogonalize((0.95 * 0.05 + 0.05) * p, "quintic", steps=5)
    torch.testing.assert_close(new_p, expected, rtol=0, atol=1e-5)

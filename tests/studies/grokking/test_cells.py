from pathlib import Path

import pytest

from muonlab.data.algorithmic import TASKS
from muonlab.studies.grokking import KEYS, LOSSES, PRESETS, jobs_of, outline, plan
from muonlab.studies.grokking.cells import labels
from muonlab.studies.grokking.costs import check_memory, seconds
from muonlab.studies.grokking.reading import read_cells
from muonlab.study.optimizers import RatedAdamW, RatedMuon
from muonlab.study.settings import UsageError


def conditions(made):
    return {(c.task.name, c.loss, c.optimizer.name) for c in made.cells if c.task.labels == "true"}


def test_the_paper_preset_is_its_whole_grid_with_the_sizes_of_the_code_it_cites():
    made = plan("paper")
    assert len(conditions(made)) == 7 * 3 * 2
    assert all(c.net.depth == 2 and c.net.width == 128 and c.protocol.batch == 512 for c in made.cells)
    seeds = [
        s for c in made.cells for s in c.seeds if (c.task.name, c.loss, c.optimizer.name) == ("add", "softmax", "muon")
    ]
    assert len(seeds) == 10 + 2  # and the control
    shares = {c.task.name: c.task.train_share for c in made.cells}
    assert shares == {"add": 0.8, "sub": 0.8, "mul": 0.5, "div": 0.8, "exp": 0.7, "gcd": 0.5, "parity": 0.5}


def test_the_laptop_preset_has_all_tasks_and_losses_both_optimizers_and_five_seeds():
    made = plan("laptop")
    assert {task for task, *_ in conditions(made)} == set(TASKS)
    assert {loss for _, loss, _ in conditions(made)} == set(LOSSES)
    assert {name for *_, name in conditions(made)} == {"muon", "adamw"}
    assert all(len(c.seeds) == 5 for c in made.cells if c.task.labels == "true")


RECORDS = Path(__file__).parents[3] / "records"


@pytest.mark.parametrize("preset", PRESETS)
def test_every_task_and_optimizer_of_a_preset_has_its_control(preset):
    made = plan(preset)
    controls = {(c.task.name, c.optimizer.name) for c in made.cells if c.task.labels == "random"}
    assert controls == {(task, optimizer) for task, _, optimizer in conditions(made)}
    assert plan(preset, {"control_seeds": 0}).cells == tuple(c for c in made.cells if c.task.labels == "true")


def test_several_values_are_an_axis_for_the_optimizer_that_has_them():
    made = plan("tiny", {"muon.lr": [0.01, 0.02], "control_seeds": 0})
    rates = [c.optimizer.lr for c in made.cells if isinstance(c.optimizer, RatedMuon)]
    assert rates == [0.01, 0.02]
    assert sum(isinstance(c.optimizer, RatedAdamW) for c in made.cells) == 1


def test_the_control_has_one_loss_and_the_first_value_of_every_axis_of_an_optimizer():
    made = plan("tiny", {"muon.lr": [0.01, 0.02], "losses": ["sparsemax", "softmax"], "depth": [1, 2]})
    controls = [c for c in made.cells if c.task.labels == "random"]
    assert {c.loss for c in controls} == {"sparsemax"}
    assert {c.optimizer.lr for c in controls if isinstance(c.optimizer, RatedMuon)} == {0.01}
    assert [c.net.depth for c in controls] == [1, 1, 2, 2] or [c.net.depth for c in controls] == [1, 2, 1, 2]


def test_more_seeds_are_new_cells_and_the_old_ones_stand():
    few, many = plan("tiny", {"seeds": 5}), plan("tiny", {"seeds": 20})
    assert {c.id for c in few.cells} < {c.id for c in many.cells}
    added = [c.seeds for c in many.cells if c.id not in {x.id for x in few.cells}]
    assert set(added) == {tuple(range(start, start + 5)) for start in (5, 10, 15)}


def test_a_remainder_of_seeds_is_a_smaller_block():
    made = plan("tiny", {"seeds": 7, "control_seeds": 0, "optimizers": "muon"})
    assert [c.seeds for c in made.cells] == [(0, 1, 2, 3, 4), (5, 6)]


def test_what_a_task_does_not_have_makes_no_cells_of_its_own():
    made = plan("tiny", {"tasks": ["add", "parity"], "modulus": [23, 29], "optimizers": "muon", "control_seeds": 0})
    assert [(c.task.name, c.task.modulus) for c in made.cells] == [("add", 23), ("add", 29), ("parity", 97)]


def test_every_field_can_be_set():
    values = {"name": "x", "polar_dtype": "float32", "takes": "matrices", "norm": "none", "dtype": "float64"}
    values |= {"batch": "full", "follow": "budget", "labels": "random", "losses": "sparsemax", "tasks": "add,parity"}
    values |= {"net": "mlp", "activation": "relu", "positions": "none", "warmup": "3"}
    values |= {
        "optimizers": "muon,adamw,sgd",
        "width": "24",
        "heads": "3",
        "budget": "100",
        "cadence": "50",
        "bits": "5",
    }
    for key in KEYS:
        kind = key.rsplit(".", 1)[-1]
        chosen = {"optimizers": ["muon", "adamw", "sgd"], "tasks": ["add", "parity"]}
        if key in chosen:
            assert plan("tiny", {key: chosen[key]}).settings == {key: chosen[key]}
            continue
        booleans = ("operator_token", "pairs_together", "gated", "causal", "nesterov", "scale", "orthogonalize")
        booleans += ("bias", "coupled", "short_batch")
        value = values.get(kind, "false" if kind in booleans else "0.5" if not _is_count(kind) else "3")
        extra = {"heads": "3", "width": "24"} if kind in ("heads", "width") else {}
        extra |= {"cadence": "50", "budget": "100"} if kind in ("cadence", "budget") else {}
        made = plan("tiny", chosen | extra | {key: value})
        assert made.settings[key] == [value]


def _is_count(kind):
    return kind in ("seeds", "control_seeds", "modulus", "depth", "ff_width", "steps")


@pytest.mark.parametrize(
    ("preset", "settings", "message"),
    [
        ("lapdog", {}, r"unknown preset 'lapdog'; did you mean 'laptop'\?"),
        ("laptop", {"tasks": "ad"}, r"unknown task 'ad'; did you mean 'add'\?"),
        ("laptop", {"losses": "softmx"}, r"unknown loss 'softmx'; did you mean 'softmax'\?"),
        ("laptop", {"optimizers": "moun"}, r"unknown optimizer 'moun'; did you mean 'muon'\?"),
        ("laptop", {"depht": 3}, r"unknown setting 'depht'; did you mean 'depth'\?"),
        ("laptop", {"muon.lr": -1}, r"muon\.lr=-1 is not valid; expected at least 0"),
        ("laptop", {"tasks": "div", "modulus": 60}, r"modulus=60 is not prime; div needs a prime"),
        ("laptop", {"seeds": 0}, r"seeds=0 is not valid; expected one whole number from 1 to 10000"),
        ("laptop", {"seeds": 1000000000}, r"seeds=1000000000 is not valid; expected one whole number from 1 to 10000"),
        ("laptop", {"train_share": 0.0001}, r"train_share=0\.0001 of 3481 rows leaves an empty side"),
        ("laptop", {"modulus": 200000}, r"modulus=200000 is not valid; expected at most 4096"),
        ("laptop", {"width": 100000000}, r"width=100000000 is not valid; expected at most 32768"),
        ("laptop", {"dropout": 0.999999}, r"dropout=0\.999999 is not valid; expected at most 0\.999"),
        ("laptop", {"sgd.lr": 1}, r"sgd\.lr has no effect on any cell of tasks=add,sub,.* optimizers=muon,adamw"),
        ("laptop", {"bits": 5, "tasks": "add"}, r"bits has no effect"),
        ("laptop", {"tasks": "parity", "bits": 21}, r"bits=21 is not valid; expected at most 20"),
    ],
)
def test_a_mistake_is_named_with_what_was_expected(preset, settings, message):
    with pytest.raises(UsageError, match=message):
        plan(preset, settings)


@pytest.fixture
def study():
    return plan("tiny", {"seeds": 7, "muon.lr": [0.01, 0.02]})


def test_every_cell_is_a_job_with_its_place_and_its_id(study):
    jobs = {job.id: job for job in jobs_of(study, {})}
    assert jobs.keys() == {cell.id for cell in study.cells}
    for cell in study.cells:
        job = jobs[cell.id]
        assert (job.case, job.arm, job.config) == ("add softmax", cell.optimizer.name, cell.model_dump(mode="json"))
        assert job.role == ("control" if cell.task.labels == "random" else "run")
    assert sorted((job.name, job.cost) for job in jobs.values()) == sorted(outline(study))


def test_the_order_of_the_jobs_follows_from_the_cells_alone(study):
    other = study.model_copy(update={"cells": study.cells[::-1]})
    assert [job.id for job in jobs_of(study, {})] == [job.id for job in jobs_of(other, {})]


def test_a_name_has_what_varies_among_its_neighbours(study):
    names = labels(study.cells)
    assert names[:2] == ["add softmax muon lr=0.01, seeds 0-4", "add softmax muon lr=0.01, seeds 5-6"]
    assert "add softmax adamw, seeds 5-6" in names
    assert "add softmax muon lr=0.01, random labels, seed 0" in names
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("more", [{"budget": 600}, {"seeds": 5}, {"width": 64}, {"batch": 256}, {"depth": 2}])
def test_a_larger_cell_costs_more(more):
    smallest = {"optimizers": "muon", "seeds": 2, "control_seeds": 0}
    assert sum(cost for _, cost in outline(plan("tiny", smallest | more))) > outline(plan("tiny", smallest))[0][1]


def test_costs_are_of_the_order_of_the_record():
    _, cells = read_cells(RECORDS / "laptop" / "study")
    used = sum(cell.record.seconds for cell in cells)
    assert used < sum(seconds(cell.config) for cell in cells) < 3 * used  # some end before their budget


def test_a_cell_that_no_machine_can_hold_is_refused():
    (huge,) = plan("tiny", {"width": 2**15, "heads": 2, "depth": 1000, "optimizers": "muon", "control_seeds": 0}).cells
    with pytest.raises(
        ValueError, match=r"a cell of this size needs \d+ GB and this machine has \d+ GB; a smaller net"
    ):
        check_memory(config=huge.model_dump(mode="json"))

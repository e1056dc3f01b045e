"""From settings to cells, their ids, and the jobs that they are; also of tasks, nets and optimizers of a user's own."""

import re
from pathlib import Path

import pytest
import torch

from muonlab.data.algorithmic import TASKS, TRAIN_SHARES
from muonlab.jobs import store
from muonlab.losses import LOSSES
from muonlab.optim.routing import TAKES
from muonlab.studies import grokking
from muonlab.studies.grokking import KEYS, begin, jobs_of, outline, plan
from muonlab.studies.grokking import config as config_room
from muonlab.studies.grokking.cells import ALSO, CHOICES, labels
from muonlab.studies.grokking.config import CellConfig
from muonlab.studies.grokking.costs import check_memory, seconds
from muonlab.studies.grokking.reading import read_cells
from muonlab.studies.grokking.settings import sections
from muonlab.studies.grokking.work import cell as work
from muonlab.studies.grokking.work import material
from muonlab.study.optimizers import RatedMuon
from muonlab.study.settings import UsageError

ROOT = Path(__file__).parents[3]
EXAMPLES = ROOT / "examples" / "grokking"
ONE = {"seeds": 1, "control_seeds": 0, "budget": 20}


def cells_of(preset="tiny", **settings):
    return plan(preset, {"control_seeds": 0} | settings).cells


# -- presets and axes ------------------------------------------------------------------------------


def test_the_schema_names_what_the_rooms_offer():
    def names(model, field):
        return set(model.model_json_schema()["properties"][field]["enum"])

    assert set(config_room.TASKS) == set(TASKS)
    assert names(CellConfig, "loss") == set(LOSSES) == set(grokking.LOSSES)
    assert names(RatedMuon, "takes") == set(TAKES)


@pytest.mark.parametrize(("preset", "num_seeds", "sizes"), [("laptop", 5, (1, 64, 256)), ("paper", 10, (2, 128, 512))])
def test_a_preset_is_its_whole_grid(preset, num_seeds, sizes):
    made = plan(preset)
    runs: dict[tuple, list[int]] = {}
    for cell in made.cells:
        assert (cell.net.depth, cell.net.width, cell.protocol.batch) == sizes
        assert cell.task.train_share == TRAIN_SHARES[cell.task.name]
        if cell.task.labels == "true":
            runs.setdefault((cell.task.name, cell.loss, cell.arm), []).extend(cell.seeds)
    assert set(runs) == {(task, loss, arm) for task in TASKS for loss in LOSSES for arm in ("muon", "adamw")}
    assert all(seeds == list(range(num_seeds)) for seeds in runs.values())
    controls = {(c.task.name, c.arm, c.loss) for c in made.cells if c.task.labels == "random"}
    assert controls == {(task, arm, "softmax") for task in TASKS for arm in ("muon", "adamw")}


def test_several_values_are_an_axis_and_the_control_has_the_first_of_an_optimizer_s():
    made = plan("tiny", {"muon.lr": [0.01, 0.02], "losses": ["sparsemax", "softmax"], "depth": [1, 2]})
    seen = [(c.task.labels, c.loss, c.arm, c.net.depth, c.optimizer.lr) for c in made.cells]
    runs = [
        ("true", loss, arm, depth, lr)
        for loss in ("sparsemax", "softmax")
        for arm, rates in (("muon", (0.01, 0.02)), ("adamw", (0.003,)))
        for depth in (1, 2)
        for lr in rates
    ]
    controls = [
        ("random", "sparsemax", arm, depth, lr) for arm, lr in (("muon", 0.01), ("adamw", 0.003)) for depth in (1, 2)
    ]
    assert seen == runs + controls


def test_what_a_task_does_not_have_makes_no_cells_of_its_own():
    made = cells_of(tasks=["add", "parity"], modulus=[23, 29], optimizers="muon")
    assert [(c.task.name, c.task.modulus) for c in made] == [("add", 23), ("add", 29), ("parity", 97)]


SETTINGS = {each.key: each for own in reversed(sections().values()) for each in own}
OTHERS = {
    "modulus": "29",
    "budget": "600",
    "cadence": "60",
    "width": "24",
    "train_share": "0.6",
}  # where 4 or 0.25 is refused


def another(key):
    """Return a value other than that of the preset."""
    each = SETTINGS[key]
    numbers = {"a whole number": "4", "a number": "0.25"}
    words = [word for word in re.split(", | or ", each.values) if word != each.presets["tiny"]]
    return OTHERS.get(key) or numbers.get(each.values.partition(",")[0].partition(" or ")[0]) or words[0]


@pytest.mark.parametrize("key", [key for key in KEYS if key not in (*CHOICES, *ALSO)])
def test_every_setting_decides_the_id_of_a_cell(key):
    owner, _, field = key.rpartition(".")
    base = {"tasks": ["add", "parity"], "optimizers": ["muon", "adamw", "sgd"]}
    base |= {f"{owner}.filter_lamb": 1} if field == "filter_alpha" else {}
    base |= {"sgd.takes": "hidden"} if owner == "sgd" and field.startswith("adamw_") else {}
    before, after = ({cell.id for cell in cells_of(**base, **more)} for more in ({}, {key: another(key)}))
    assert after - before


@pytest.mark.parametrize(
    ("settings", "notes"),
    [
        ({"tasks": "add,parity", "modulus": 23}, ["modulus has no effect with tasks=parity"]),
        ({"net": "transformer,mlp", "heads": 2}, ["heads has no effect with net=mlp"]),
        ({"positions": "rope,none", "rope_base": 9}, ["rope_base has no effect with positions=none"]),
        (
            {"muon.orthogonalize": "true,false", "muon.steps": 3},
            ["muon.steps has no effect with muon.orthogonalize=false"],
        ),
        ({"net": "transformer,mlp", "muon.lr": 0.1}, []),
    ],
)
def test_a_setting_without_effect_on_a_part_of_a_sweep_is_noted(settings, notes):
    found = plan("tiny", {key: str(own).split(",") for key, own in settings.items()}).notes
    assert [note for note in found if "no effect" in note] == notes


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tasks": "ad"}, r"unknown task 'ad'; did you mean 'add'\?"),
        ({"tasks": "sum"}, "unknown task 'sum'; .*or one of your own"),
        ({"losses": "softmx"}, r"unknown loss 'softmx'; did you mean 'softmax'\?"),
        ({"optimizers": "moun"}, r"unknown optimizer 'moun'; did you mean 'muon'\?"),
        ({"net": "resnet"}, "unknown net 'resnet'; expected one of transformer, mlp, or one of your own"),
        ({"depht": 3}, r"unknown setting 'depht'; did you mean 'depth'\?"),
        ({"task": "add", "tasks": "mul"}, "tasks is given twice, once by another word for it"),
        ({"muon.lr": -1}, r"muon\.lr=-1 is not valid; expected at least 0"),
        ({"tasks": "div", "modulus": 60}, r"modulus=60 is not prime; div needs a prime"),
        ({"seeds": 0}, r"seeds=0 is not valid; expected one whole number from 1 to 10000"),
        ({"seeds": 1000000000}, r"seeds=1000000000 is not valid; expected one whole number from 1 to 10000"),
        ({"train_share": 0.0001}, r"train_share=0\.0001 of 3481 rows leaves an empty side"),
        ({"modulus": 200000}, r"modulus=200000 is not valid; expected at most 4096"),
        ({"width": 100000000}, r"width=100000000 is not valid; expected at most 32768"),
        ({"width": 30}, r"width=30 is not a multiple of 2 \* heads = 8"),
        ({"budget": 99}, r"budget=99 is not a multiple of cadence=25"),
        ({"dropout": 0.999999}, r"dropout=0\.999999 is not valid; expected at most 0\.999"),
        ({"tasks": "parity", "bits": 21}, r"bits=21 is not valid; expected at most 20"),
        ({"sgd.lr": 1}, r"sgd\.lr has no effect with optimizers=muon,adamw; leave it out, or add"),
        ({"bits": 5, "tasks": "add"}, r"bits has no effect with tasks=add"),
        ({"net": "mlp", "heads": 2}, "heads has no effect with net=mlp"),
        ({"muon.filter_alpha": 0.5}, "muon.filter_alpha has no effect with muon.filter_lamb=0;"),
        ({"optimizers": "a=muon,b=muon"}, "a and b are one optimizer with the same settings"),
        ({"optimizers": "x=torch.optim:Nothing"}, "there is no 'Nothing' in torch.optim"),
        ({"optimizers": "x=torch.optim:SGD", "x.colour": 1}, "takes no colour"),
        ({"optimizers": "x=torch.optim:RAdam", "x.betas": [0.9, 0.99]}, r"x.betas=0.9 .* expected a list in brackets"),
        ({"net": f"{EXAMPLES}/one_hot_mlp.py:build", "net.x": 1}, "net.x has no effect"),
    ],
)
def test_a_mistake_is_named_with_what_was_expected(settings, message):
    given = {key: own.split(",") if isinstance(own, str) else own for key, own in settings.items()}
    with pytest.raises(UsageError, match=message):
        plan("laptop", given)


# -- ids and seeds ---------------------------------------------------------------------------------


def test_an_id_is_fixed_for_all_time_and_equal_configs_have_equal_ids(make_cell):
    # A change here orphans every finished cell: raise RESULTS_VERSION, or do not change the schema.
    assert make_cell().id == "53e3b3965f405d75"
    config = make_cell(hyper={"lr": 1})
    assert make_cell(hyper={"lr": "1.0"}).id == config.id
    assert CellConfig.model_validate_json(config.model_dump_json()).id == config.id
    assert len({each.id for each in (config, make_cell(seeds=(0, 1)), make_cell(loss="sparsemax"))}) == 3
    assert config.model_copy(update={"results_version": config.results_version + 1}).id != config.id


def blocks(results, **settings):
    jobs = jobs_of(plan("tiny", {"control_seeds": 0, "optimizers": "muon"} | settings), results)
    return sorted(tuple(job.config["seeds"]) for job in jobs)


def ids(**settings):
    return {cell.id: {} for cell in cells_of(optimizers="muon", **settings)}


@pytest.mark.parametrize(
    ("done", "seeds", "used"),
    [
        (None, 7, [(0, 1, 2, 3, 4), (5, 6)]),
        (3, 5, [(0, 1, 2), (3, 4)]),
        (7, 12, [(0, 1, 2, 3, 4), (5, 6), (7, 8, 9), (10, 11)]),
        (5, 3, [(0, 1, 2, 3, 4)]),
        (None, [7, 11, 13], [(7, 11, 13)]),
        ([7, 11, 13], [7, 11, 13, 17], [(7, 11, 13), (17,)]),
    ],
)
def test_more_or_fewer_seeds_never_recompute_those_that_are_done(done, seeds, used):
    assert blocks(ids(seeds=done) if done else {}, seeds=seeds) == used


def test_the_folder_holds_the_blocks_that_are_used(tmp_path):
    few, many = (plan("tiny", {"control_seeds": 0, "optimizers": "muon", "seeds": n}) for n in (3, 5))
    begin(few, tmp_path)
    (job,) = jobs_of(few, {})
    store.add(tmp_path, job)
    (tmp_path / job.id / "result.json").write_text("{}")
    begin(many, tmp_path)
    assert [cell.config.seeds for cell in read_cells(tmp_path)[1]] == [(0, 1, 2), (3, 4)]


# -- jobs ------------------------------------------------------------------------------------------


def test_every_cell_is_a_job_with_its_place_its_name_and_its_id():
    study = plan("tiny", {"seeds": 7, "muon.lr": [0.01, 0.02]})
    jobs = {job.id: job for job in jobs_of(study, {})}
    assert jobs.keys() == {cell.id for cell in study.cells}
    for cell in study.cells:
        job = jobs[cell.id]
        assert (job.case, job.arm, job.config) == ("add softmax", cell.arm, cell.model_dump(mode="json"))
        assert job.role == ("control" if cell.task.labels == "random" else "run")
    assert sorted((job.name, job.cost) for job in jobs.values()) == sorted(outline(study))
    other = study.model_copy(update={"cells": study.cells[::-1]})
    assert [job.id for job in jobs_of(other, {})] == list(jobs)
    names = labels(study.cells)
    assert names[:2] == ["add softmax muon lr=0.01, seeds 0-4", "add softmax muon lr=0.01, seeds 5-6"]
    assert {"add softmax adamw, seeds 5-6", "add softmax muon lr=0.01, random labels, seed 0"} < {*names}
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("more", [{"budget": 600}, {"seeds": 5}, {"width": 64}, {"batch": 256}, {"depth": 2}])
def test_a_larger_cell_costs_more(more):
    smallest = {"optimizers": "muon", "seeds": 2, "control_seeds": 0}
    assert sum(cost for _, cost in outline(plan("tiny", smallest | more))) > outline(plan("tiny", smallest))[0][1]


def test_costs_are_of_the_order_of_the_record():
    _, cells = read_cells(ROOT / "records" / "laptop" / "study")
    used = sum(cell.record.seconds for cell in cells)
    assert used < sum(seconds(cell.config) for cell in cells) < 3 * used  # some end before their budget


def test_a_cell_that_no_machine_can_hold_is_refused():
    (huge,) = cells_of(width=2**15, heads=2, depth=1000, optimizers="muon")
    with pytest.raises(
        ValueError, match=r"a cell of this size needs \d+ GB and this machine has \d+ GB; a smaller net"
    ):
        check_memory(config=huge.model_dump(mode="json"))


# -- of a user's own -------------------------------------------------------------------------------

TASK = """import torch

def pair(modulus):
    a = torch.arange(modulus**2)
    return torch.stack([a // modulus, a % modulus], 1), a % 3

def number():
    return 3
"""


def test_a_task_is_a_function_that_returns_inputs_and_labels(tmp_path):
    (tmp_path / "own.py").write_text(TASK)
    (cell,) = cells_of(**ONE, task=f"third={tmp_path}/own.py:pair", optimizers="muon", modulus=7)
    task = material.build_task(cell)
    assert (cell.task.name, task.vocabulary, task.classes, task.chance) == ("third", 7, 3, pytest.approx(17 / 49))
    assert task.inputs.shape == (49, 2)
    (wrong,) = cells_of(**ONE, tasks=f"{tmp_path}/own.py:number", optimizers="muon")
    with pytest.raises(ValueError, match=r"own.py:number returned a int; expected tensors \(inputs, labels\)"):
        work.check(config=wrong.model_dump(mode="json"))


def own_task(modulus):
    """Return inputs and labels."""
    return torch.arange(modulus)[:, None], torch.arange(modulus) % 2


def test_a_task_may_be_the_function_itself():
    (cell,) = cells_of(**ONE, task=own_task, optimizers="muon", modulus=7)
    assert (cell.task.name, material.build_task(cell).classes) == ("own_task", 2)


def test_variants_of_one_optimizer_are_arms_and_share_what_names_it():
    cells = cells_of(**ONE, optimizers=["a=muon", "b=muon"], **{"b.steps": 1, "muon.lr": 0.01})
    assert [(c.arm, c.optimizer.steps, c.optimizer.lr) for c in cells] == [("a", 5, 0.01), ("b", 1, 0.01)]
    points = cells_of(**ONE, optimizers="r=torch.optim:RAdam", **{"r.betas": [(0.8, 0.9), (0.9, 0.99)]})
    assert [c.optimizer.arguments["betas"] for c in points] == [[0.8, 0.9], [0.9, 0.99]]


def test_an_own_net_of_a_seed_has_the_weights_of_its_function():
    (cell,) = cells_of(**ONE, net=f"{EXAMPLES}/one_hot_mlp.py:build", optimizers="adamw")
    net = material.builder(cell, material.build_task(cell))
    assert callable(net)
    assert not isinstance(net, torch.nn.Module)
    assert net().hidden.in_features == 4 * 25

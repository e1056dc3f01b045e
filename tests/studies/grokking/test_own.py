"""Tasks, nets and optimizers of a user's own, labelled optimizers, and seeds that were run before."""

from pathlib import Path

import pytest
import torch

from muonlab.jobs import store
from muonlab.studies.grokking import begin, jobs_of, plan
from muonlab.studies.grokking.config import CellConfig
from muonlab.studies.grokking.reading import read_cells
from muonlab.studies.grokking.work import material, trial
from muonlab.studies.grokking.work.cell import run
from muonlab.study.settings import UsageError

EXAMPLES = Path(__file__).parents[3] / "examples" / "grokking"
ONE = {"seeds": 1, "control_seeds": 0, "budget": 20}


def cell_of(**settings):
    (cell,) = plan("tiny", ONE | settings).cells
    return cell


@pytest.mark.parametrize(
    "settings",
    [
        {"optimizers": f"ortho={EXAMPLES}/orthograd.py:OrthoGrad", "ortho.lr": 1e-3},
        {"optimizers": f"{EXAMPLES}/grokfast.py:Grokfast", "Grokfast.lr": 1e-3, "Grokfast.weight_decay": 1},
        {"optimizers": "adamw", "net": f"{EXAMPLES}/one_hot_mlp.py:build"},
        {"optimizers": "muon", "net": "mlp", "activation": "square", "depth": 2},
        {"optimizers": "sgd", "sgd.takes": "hidden", "positions": "learned", "norm": "layer", "bias": "true"},
        {"optimizers": "adamw", "adamw.filter_lamb": 2, "adamw.coupled": "true", "adamw.head_lr": 1e-4},
    ],
)
def test_what_the_literature_asks_for_runs_from_settings_alone(settings, tmp_path):
    cell = cell_of(**settings)
    trial.check(config=cell.model_dump(mode="json"))
    result = run(CellConfig.model_validate_json(cell.model_dump_json()), tmp_path)
    assert result.cell == cell.id
    assert result.members[0].last_step == 20


TASK = """import torch

def pair(modulus):
    a = torch.arange(modulus**2)
    return torch.stack([a // modulus, a % modulus], 1), a % 3

def number():
    return 3
"""


def test_a_task_is_a_function_that_returns_inputs_and_labels(tmp_path):
    (tmp_path / "own.py").write_text(TASK)
    cell = cell_of(tasks=f"third={tmp_path}/own.py:pair", optimizers="muon", modulus=7)
    task = material.build_task(cell)
    assert (cell.task.name, task.vocabulary, task.classes, task.chance) == ("third", 7, 3, pytest.approx(17 / 49))
    assert task.inputs.shape == (49, 2)
    wrong = cell_of(tasks=f"{tmp_path}/own.py:number", optimizers="muon")
    with pytest.raises(ValueError, match=r"own.py:number returned a int; expected tensors \(inputs, labels\)"):
        trial.check(config=wrong.model_dump(mode="json"))


def test_two_variants_of_one_optimizer_are_two_arms():
    cells = plan("tiny", ONE | {"optimizers": ["a=muon", "b=muon"], "a.steps": 5, "b.steps": 1, "muon.lr": 0.01}).cells
    assert [(c.arm, c.optimizer.steps, c.optimizer.lr) for c in cells] == [("a", 5, 0.01), ("b", 1, 0.01)]
    assert [job.arm for job in jobs_of(plan("tiny", ONE | {"optimizers": "a=muon"}), {})] == ["a"]
    with pytest.raises(UsageError, match="a and b are one optimizer with the same settings"):
        plan("tiny", ONE | {"optimizers": ["a=muon", "b=muon"]})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"optimizers": "x=torch.optim:Nothing"}, "there is no 'Nothing' in torch.optim"),
        ({"optimizers": "x=torch.optim:SGD", "x.colour": 1}, "takes no colour"),
        ({"net": "resnet"}, "unknown net 'resnet'; expected one of transformer, mlp, or one of your own"),
        ({"net": f"{EXAMPLES}/one_hot_mlp.py:build", "net.x": 1}, "net.x has no effect"),
        ({"net": "mlp", "heads": 2}, "heads has no effect"),
        ({"tasks": "sum"}, "unknown task 'sum'; .*or one of your own"),
    ],
)
def test_bad_names_say_what_was_expected(settings, message):
    with pytest.raises(UsageError, match=message):
        plan("tiny", {"control_seeds": 0} | settings)


def test_a_setting_may_touch_a_part_of_a_sweep():
    nets = plan("tiny", ONE | {"net": ["transformer", "mlp"], "optimizers": ["adamw", "muon"], "muon.lr": 0.1}).cells
    assert [(c.net.kind, c.optimizer.lr) for c in nets] == [
        ("transformer", 0.003),
        ("transformer", 0.1),
        ("mlp", 0.003),
        ("mlp", 0.1),
    ]


def blocks(results, **settings):
    made = plan("tiny", {"control_seeds": 0, "optimizers": "muon"} | settings)
    return sorted(tuple(job.config["seeds"]) for job in jobs_of(made, results))


def ids(**settings):
    return {cell.id: {} for cell in plan("tiny", {"control_seeds": 0, "optimizers": "muon"} | settings).cells}


def test_more_seeds_never_recompute_the_first_ones():
    assert blocks({}, seeds=5) == [(0, 1, 2, 3, 4)]
    assert blocks(ids(seeds=3), seeds=5) == [(0, 1, 2), (3, 4)]
    assert blocks(ids(seeds=7), seeds=12) == [(0, 1, 2, 3, 4), (5, 6), (7, 8, 9), (10, 11)]
    assert blocks(ids(seeds=5), seeds=3) == [(0, 1, 2, 3, 4)]
    assert blocks({}, seeds=[7, 11, 13]) == [(7, 11, 13)]
    assert blocks(ids(seeds=[7, 11, 13]), seeds=[7, 11, 13, 17]) == [(7, 11, 13), (17,)]


def test_the_folder_holds_the_blocks_that_are_used(tmp_path):
    few, many = (plan("tiny", {"control_seeds": 0, "optimizers": "muon", "seeds": n}) for n in (3, 5))
    begin(few, tmp_path)
    (job,) = jobs_of(few, {})
    store.add(tmp_path, job)
    (tmp_path / job.id / "result.json").write_text("{}")
    begin(many, tmp_path)
    assert [cell.config.seeds for cell in read_cells(tmp_path)[1]] == [(0, 1, 2), (3, 4)]


def test_an_own_net_of_a_seed_has_the_weights_of_its_function(tmp_path):
    cell = cell_of(net=f"{EXAMPLES}/one_hot_mlp.py:build", optimizers="adamw")
    net = material.builder(cell, material.build_task(cell))
    assert callable(net)
    assert not isinstance(net, torch.nn.Module)
    assert net().hidden.in_features == 4 * 25

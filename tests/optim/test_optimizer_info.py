"""torch's own machinery for tests of optimizers on Muon and MuonAdamW; what differs is in the documentation."""

import copy
import json
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import torch

from muonlab import Muon, MuonAdamW

HERE = Path(__file__).parent
DOCUMENTATION = HERE.parents[1] / "docs" / "optimizer.md"


@cache
def came_of_it() -> dict:
    command = [sys.executable, "torch_suite.py"]
    run = subprocess.run(command, cwd=HERE, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.splitlines()[-1])


@pytest.mark.parametrize("entry", ["Muon", "MuonAdamW_muon", "MuonAdamW_adamw", "torch_Muon", "torch_AdamW"])
def test_what_torch_expects_of_every_optimizer(entry):
    ending = f"_{entry}_cpu_float32"
    found = {name: outcome for name, outcome in came_of_it()["found"].items() if name.endswith(ending)}
    found = {name: each for name, each in found.items() if not (entry == "Muon" and "torch_Muon" in name)}
    assert len(found) >= 17
    failed = {name: text for name, (outcome, text) in found.items() if outcome == "failed"}
    assert not failed, "\n\n".join(failed.values())
    reasons = {text for outcome, text in found.values() if outcome == "skipped"}
    assert reasons <= set(came_of_it()["differences"].values())


def test_the_documentation_lists_the_differences():
    words = " ".join(DOCUMENTATION.read_text().replace("`", "").split())
    for reason in came_of_it()["differences"].values():
        assert reason in words


def test_parameters_without_names_go_to_the_rule_that_is_said():
    layer = torch.nn.Linear(3, 4)
    optimizer = MuonAdamW(layer.parameters(), rule="adamw")
    assert [len(group["params"]) for group in optimizer.param_groups] == [2]
    assert optimizer.param_groups[0]["rule"] == "adamw"
    of_groups = MuonAdamW({"params": [p], "rule": "adamw"} for p in layer.parameters())  # a generator, as in torch
    assert [len(group["params"]) for group in of_groups.param_groups] == [1, 1]
    with pytest.raises(ValueError, match="parameter 1: Muon takes matrices"):
        MuonAdamW(list(layer.parameters()), rule="muon")
    with pytest.raises(ValueError, match="rule= for all of them"):
        MuonAdamW(layer.parameters())
    with pytest.raises(TypeError, match="iterable of Tensors"):
        MuonAdamW(layer.weight)


def test_a_copy_has_a_process_group_of_none():
    assert "process_group" in vars(copy.deepcopy(Muon([torch.nn.Parameter(torch.ones(2, 2))])))

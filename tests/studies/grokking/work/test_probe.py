import pytest
import torch

from muonlab.studies.grokking.work.cell import build_population, build_task, run
from muonlab.studies.grokking.work.probe import Prober, check_device


def test_the_cost_grows_with_members_and_steps_and_one_shape_is_measured_once(make_cell, monkeypatch):
    prober = Prober()
    one = prober.cost(make_cell(seeds=(0,)))
    assert one.seconds > 0
    measured = []
    monkeypatch.setattr(prober, "_measure", lambda config: measured.append(config) or (0.1, 0.01, 1000))
    two = make_cell(seeds=(0, 1))
    assert prober.cost(two).seconds == pytest.approx(2 * (20 * 0.1 + 5 * 0.01))
    prober.cost(make_cell(seeds=(5, 6, 7), loss="sparsemax", task={"labels": "random"}))
    assert len(measured) == 2


def test_disk_is_enough_for_metrics_and_a_checkpoint_and_not_twice_that(make_cell, tmp_path):
    config = make_cell(optimizer="adamw")
    population = build_population(config, build_task(config), config.seeds, "cpu")
    state = sum(tensor.nbytes for tensor in population.tensors().values())
    run(config, tmp_path)
    used = state + (tmp_path / "metrics.jsonl").stat().st_size
    assert 0.9 * used < Prober().cost(config).disk_bytes < 2 * used


def test_a_device_that_is_not_there_is_named_with_what_is(monkeypatch):
    check_device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="device=mps has no float64"):
        check_device("mps")
    with pytest.raises(ValueError, match="device=tpu is not on this machine; there is cpu"):
        check_device("tpu")


def test_what_does_not_fit_into_memory_is_said_in_a_line(make_cell):
    huge = make_cell(net={"depth": 1000, "width": 2**15, "heads": 2, "ff_width": 2**17})
    with pytest.raises(MemoryError, match=r"a cell of this size needs \d+ GB and this machine has"):
        Prober().cost(huge)

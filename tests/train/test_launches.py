"""A step of a population on a GPU: its launches do not depend on the number of members, and nothing is read back.

There is no such device here: calls are counted, and reads found, on device "meta", whose tensors have no values.
"""

import pytest

from muonlab.studies.grokking.config import CellConfig, NetConfig, ProtocolConfig, TaskConfig
from muonlab.studies.grokking.work.cell import build_population, build_rows
from muonlab.studies.grokking.work.material import build_task
from muonlab.study.optimizers import RatedAdamW, RatedMuon
from muonlab.testing import count_launches
from muonlab.train.by_rule import Treatment
from muonlab.train.optimizers import by_member


def of_the_paper(optimizer, num_members):
    """The net and the batch of the paper (P1), on device "meta"."""
    config = CellConfig(
        study="launches",
        task=TaskConfig(name="add", modulus=97, train_share=0.8),
        net=NetConfig(depth=1, width=128, ff_width=512),
        loss="softmax",
        optimizer=optimizer,
        protocol=ProtocolConfig(batch=512),
        seeds=tuple(range(num_members)),
    )
    task = build_task(config)
    return (build(config, task, config.seeds, "meta") for build in (build_rows, build_population))


@pytest.mark.parametrize("optimizer", [RatedMuon(polar_dtype="bfloat16"), RatedAdamW()], ids=["muon", "adamw"])
def test_launches_do_not_depend_on_the_number_of_members(optimizer):
    found = []
    for num_members in (2, 16):
        rows, population = of_the_paper(optimizer, num_members)
        population.step(*rows(0), 0)
        parts = {
            "step": lambda rows=rows, population=population: population.step(*rows(1), 1),
            "draw": lambda rows=rows: rows(2),
            "evaluation": lambda rows=rows, population=population: population.evaluate(rows.inputs, rows.labels),
        }
        found.append({name: count_launches(part) for name, part in parts.items()})
    steps, draws, evaluations = ([each[name] for each in found] for name in ("step", "draw", "evaluation"))
    assert steps[0] == steps[1]
    assert steps[0].calls <= 400
    assert draws[0] == draws[1]
    assert draws[0].calls <= 4
    assert max(evaluation.calls for evaluation in evaluations) <= 300  # passes of 2^16 rows of all members


def test_nor_do_they_with_learning_rates_by_member():
    found = []
    for num_members in (2, 16):
        rows, population = of_the_paper(RatedMuon(), num_members)
        rates = by_member([0.01 * (1 + number) for number in range(num_members)], "meta")
        for name, treatment in list(population.optimizer.treatments.items()):
            hyper = {**treatment.hyper, "lr": rates}
            population.optimizer.treatments[name] = Treatment(treatment.rule, hyper, treatment.flatten)
        population.step(*rows(0), 0)
        found.append(count_launches(lambda rows=rows, population=population: population.step(*rows(1), 1)))
    assert found[0] == found[1]

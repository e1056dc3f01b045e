import math

import torch

from muonlab.studies.components.work import measured
from muonlab.studies.components.work.measured import Measured, plain


def make(calls):
    def read(parameters, places):
        calls.append(len(places))
        total = parameters["w"].flatten(1).sum(1)
        return {"total": total, "both": torch.stack([total, places.float()], 1), "none": total / 0 * 0}

    return Measured(read, places=[5, 6, 7])


def stacks(*values):
    return {"w": torch.tensor(values)[:, None].repeat(1, 2)}


def test_measures_are_those_of_the_member_at_that_look():
    found = make([])
    found.add(2, 0, stacks(1.0, 2.0), row=1)
    found.add(0, 3, stacks(4.0), row=0)
    assert found[2, 0] == {"total": 4.0, "both": [4.0, 7.0], "none": None}
    assert found[0, 3]["both"] == [8.0, 5.0]


def test_many_are_measured_at_once_and_each_only_once(monkeypatch):
    monkeypatch.setattr(measured, "MODELS", 3)
    calls = []
    found = make(calls)
    for look in range(5):
        found.add(0, look, stacks(float(look)), row=0)
    found.add(0, 1, stacks(9.0), row=0)  # it is known
    assert calls == [3]
    assert [found[0, look]["total"] for look in range(5)] == [0, 2, 4, 6, 8]
    assert calls == [3, 2]


def test_later_steps_do_not_change_what_waits():
    found, parameters = make([]), stacks(1.0)
    found.add(0, 0, parameters, row=0)
    parameters["w"] += 1
    assert found[0, 0]["total"] == 2.0


def test_what_is_not_finite_is_none():
    assert plain([1.0, math.nan, [math.inf]]) == [1.0, None, [None]]

"""What shares a treatment is updated together, and what is dropped, saved and restored is the members' own."""

import pytest
import torch

from muonlab.rules import adamw, muon
from muonlab.train.by_rule import ByRule, Treatment


def stacks(num_members=3):
    generator = torch.Generator().manual_seed(0)
    shapes = {"a": (4, 6), "b": (6, 4), "c": (6,), "d": (4, 6)}
    return {n: torch.randn(num_members, *s, generator=generator, dtype=torch.float64) for n, s in shapes.items()}


def treatments(lr=0.02):
    matrix, rest = Treatment(muon, {"lr": lr}), Treatment(adamw, {"lr": 0.01})
    return {"a": matrix, "b": matrix, "c": rest, "d": matrix}


def test_each_parameter_has_the_update_of_its_rule():
    ps, gradients = stacks(), {name: p.cos() for name, p in stacks().items()}
    optimizer, given = ByRule(ps, treatments()), treatments()
    expected = {name: (p.clone(), given[name].rule.init(p)) for name, p in ps.items()}
    for step in range(3):
        for name, (p, state) in expected.items():
            expected[name] = given[name].rule.update(gradients[name], state, p, **given[name].hyper)
        optimizer.step_stacked(ps, gradients, step)
    for name, (p, _) in expected.items():
        torch.testing.assert_close(ps[name], p, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("lr", [0.02, torch.tensor([0.01, 0.02, 0.04], dtype=torch.float64)])
def test_those_that_stay_go_on_with_their_own_state_and_hyper_parameters(lr):
    ps, few = stacks(), {name: p[[0, 2]].clone() for name, p in stacks().items()}
    gradients = {name: p.sin() for name, p in stacks().items()}
    whole, kept = ByRule(ps, treatments(lr)), ByRule(stacks(), treatments(lr))
    for step in range(4):
        whole.step_stacked(ps, gradients, step)
    others = stacks()
    for step in range(2):
        kept.step_stacked(others, gradients, step)
    kept.keep([0, 2])
    few = {name: p[[0, 2]] for name, p in others.items()}
    for step in range(2):
        kept.step_stacked(few, {name: g[[0, 2]] for name, g in gradients.items()}, step)
    for name, p in few.items():
        torch.testing.assert_close(p, ps[name][[0, 2]], rtol=1e-12, atol=1e-14)


def test_what_was_saved_is_not_moved_by_later_steps_once_it_is_loaded():
    ps, gradients = stacks(), {name: p.sin() for name, p in stacks().items()}
    optimizer = ByRule(ps, treatments())
    optimizer.step_stacked(ps, gradients, 0)
    saved = {name: tensor.clone() for name, tensor in optimizer.tensors().items()}
    other = ByRule(stacks(), treatments())
    other.load(saved)
    copies = {name: tensor.clone() for name, tensor in saved.items()}
    other.step_stacked(stacks(), gradients, 1)
    assert all(torch.equal(saved[name], copies[name]) for name in saved)
    assert set(saved) == {"state/a/momentum", "state/b/momentum", "state/d/momentum"} | {
        f"state/c/{key}" for key in ("exp_avg", "exp_avg_sq", "step")
    }

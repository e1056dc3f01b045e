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


KERNEL = (4, 2, 3, 3)


def kernels(order=(0, 1, 2, 3, 4)):
    """A stack (3, 4, 2, 3, 3) of kernels whose axes lie in memory in this order, beside a matrix and a vector."""
    whole = stacks()
    dense = torch.randn(3, *KERNEL, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    back = sorted(range(5), key=lambda axis: order[axis])
    return {"kernel": dense.permute(order).contiguous().permute(back), "a": whole["a"], "c": whole["c"]}


# In the second order no view of the stack is the matrices: what the rule has made of a copy must come back.
@pytest.mark.parametrize("order", [(0, 1, 2, 3, 4), (0, 1, 3, 4, 2)], ids=["", "channels last"])
@pytest.mark.parametrize("lr", [0.02, torch.tensor([0.01, 0.02, 0.04], dtype=torch.float64)])
def test_a_kernel_is_flattened_to_the_matrix_of_its_outputs_by_all_else(lr, order):
    ps, rule = kernels(order), Treatment(muon, {"lr": lr}, flatten=True)
    held, gradients = ps["kernel"], {name: p.cos() for name, p in ps.items()}
    optimizer = ByRule(ps, {"kernel": rule, "a": rule, "c": Treatment(adamw, {"lr": 0.01}, flatten=True)})
    p = kernels()["kernel"].reshape(3, 4, 18)
    state, own = muon.init(p), {"lr": lr.view(3, 1, 1) if isinstance(lr, torch.Tensor) else lr}
    for step in range(3):
        p, state = muon.update(gradients["kernel"].reshape(3, 4, 18), state, p, **own)
        optimizer.step_stacked(ps, gradients, step)
    torch.testing.assert_close(held, p.view(3, *KERNEL), rtol=1e-9, atol=1e-12)
    shapes = {name: tuple(tensor.shape) for name, tensor in optimizer.tensors().items()}
    assert shapes["state/kernel/momentum"] == (3, 4, 18)
    assert shapes["state/a/momentum"] == (3, 4, 6)
    assert shapes["state/c/exp_avg"] == (3, 6)


def test_flattened_kernels_go_on_from_a_checkpoint_and_without_those_that_leave():
    ps, gradients = kernels(), {name: p.sin() for name, p in kernels().items()}
    rule = Treatment(muon, {"lr": torch.tensor([0.01, 0.02, 0.04], dtype=torch.float64)}, flatten=True)
    by_name = {"kernel": rule, "a": rule, "c": Treatment(adamw, {"lr": 0.01})}
    whole, few = ByRule(ps, by_name), ByRule(kernels(), by_name)
    whole.step_stacked(ps, gradients, 0)
    few.load(whole.tensors())
    few.keep([0, 2])
    others = {name: p[[0, 2]] for name, p in ps.items()}
    whole.step_stacked(ps, gradients, 1)
    few.step_stacked(others, {name: g[[0, 2]] for name, g in gradients.items()}, 1)
    for name, p in others.items():
        torch.testing.assert_close(p, ps[name][[0, 2]], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("lr", [0.02, torch.tensor([0.01, 0.02, 0.04], dtype=torch.float64)])
def test_a_pace_multiplies_all_learning_rates_in_its_step_alone(lr):
    ps, paced = stacks(), stacks()
    gradients = {name: p.cos() for name, p in ps.items()}
    optimizer, expected = ByRule(paced, treatments(lr)), ByRule(ps, treatments(lr))
    for step, pace in enumerate((0.25, 0.0, 1.0)):
        matrix, rest = Treatment(muon, {"lr": lr * pace}), Treatment(adamw, {"lr": 0.01 * pace})
        expected.treatments = {name: rest if name == "c" else matrix for name in ps}
        expected.step_stacked(ps, gradients, step)
        optimizer.step_stacked(paced, gradients, step, pace)
    assert all(torch.equal(paced[name], p) for name, p in ps.items())


@pytest.mark.parametrize("pace", [-1.0, torch.nan, torch.inf])
def test_a_pace_is_a_finite_number_of_no_sign(pace):
    with pytest.raises(AssertionError):
        ByRule(stacks(), treatments()).step_stacked(stacks(), stacks(), 0, pace)

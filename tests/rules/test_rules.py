"""The contract that every rule passes."""

import pytest
import torch

from muonlab import rules

RULES = [rules.adamw, rules.muon, rules.sgd]
each_rule = pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__.split(".")[-1])


def draw(*shape, dtype=torch.float32, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def test_the_contract_covers_every_rule_of_the_room():
    modules = (getattr(rules, name) for name in rules.__all__)
    assert {module for module in modules if hasattr(module, "update")} == set(RULES)


@each_rule
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_init_gives_zeros_of_the_parameters_shape_and_dtype(rule, dtype):
    p = draw(3, 4, 2, dtype=dtype)
    state = rule.init(p)
    moments = {name: value for name, value in state.items() if name != "step"}
    assert moments
    for value in moments.values():
        assert (value.shape, value.dtype) == (p.shape, p.dtype)
    assert not any(value.any() for value in state.values())


@each_rule
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("lr", [0.1, torch.full((3, 1, 1), 0.1, dtype=torch.float64)], ids=["number", "tensor"])
def test_update_keeps_shapes_dtypes_and_state_keys(rule, dtype, lr):
    p = draw(3, 4, 2, dtype=dtype)
    state = rule.init(p)
    new_p, new_state = rule.update(draw(3, 4, 2, dtype=dtype, seed=1), state, p, lr=lr)
    assert (new_p.shape, new_p.dtype) == (p.shape, dtype)
    assert not torch.equal(new_p, p)
    assert {k: (v.shape, v.dtype) for k, v in new_state.items()} == {k: (v.shape, v.dtype) for k, v in state.items()}


@each_rule
def test_update_changes_none_of_its_inputs(rule):
    p, grad = draw(4, 2), draw(4, 2, seed=1)
    _, state = rule.update(grad, rule.init(p), p, lr=0.1)
    inputs = [p, grad, *state.values()]
    copies = [x.clone() for x in inputs]
    rule.update(grad, state, p, lr=0.1, weight_decay=0.1)
    assert all(torch.equal(x, copy) for x, copy in zip(inputs, copies, strict=True))


@each_rule
@pytest.mark.parametrize("zero", [0.0, -0.0])
def test_zero_gradient_and_zero_learning_rate_change_nothing(rule, zero):
    p = draw(4, 2)
    new_p, state = rule.update(torch.full((4, 2), zero), rule.init(p), p, lr=0.0)
    assert torch.equal(new_p, p)
    assert not any(value.any() for name, value in state.items() if name != "step")


@each_rule
def test_zero_gradient_without_decay_leaves_the_parameter_and_makes_no_nan(rule):
    p = draw(4, 2)
    new_p, _ = rule.update(torch.zeros(4, 2), rule.init(p), p, lr=0.1, weight_decay=0.0)
    assert torch.equal(new_p, p)


@each_rule
def test_several_member_axes_are_as_good_as_one(rule):
    p, grad = draw(2, 3, 4, 2, dtype=torch.float64), draw(2, 3, 4, 2, dtype=torch.float64, seed=1)
    twofold, _ = rule.update(grad, rule.init(p), p, lr=0.1)
    flat, _ = rule.update(grad.flatten(0, 1), rule.init(p.flatten(0, 1)), p.flatten(0, 1), lr=0.1)
    torch.testing.assert_close(twofold.flatten(0, 1), flat, rtol=0, atol=1e-12)

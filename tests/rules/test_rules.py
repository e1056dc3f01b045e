"""The contract that every rule passes."""

import pytest
import torch

from matrices import draw
from muonlab import rules
from muonlab.rules.muon import VARIANTS
from muonlab.rules.polar import METHODS

CASES = {
    "adamw": (rules.adamw, {}),
    "sgd": (rules.sgd, {}),
    "sgd, nesterov": (rules.sgd, {"momentum": 0.9, "nesterov": True}),
    **{f"muon, {method}": (rules.muon, {"method": method}) for method in METHODS},
    **{f"muon, {variant}": (rules.muon, {"variant": variant}) for variant in VARIANTS},
    "muon, cautious": (rules.muon, {"cautious": True}),
    "muon, not orthogonal": (rules.muon, {"is_orthogonal": False}),
}
each_rule = pytest.mark.parametrize(("rule", "options"), CASES.values(), ids=CASES)
DTYPES = [torch.float64, torch.float32, torch.bfloat16]


def init(rule, options, p):
    return rule.init(p, variant=options["variant"]) if "variant" in options else rule.init(p)


def test_the_contract_covers_every_rule_of_the_room():
    modules = (getattr(rules, name) for name in rules.__all__)
    assert {module for module in modules if hasattr(module, "update")} == {rule for rule, _ in CASES.values()}


@each_rule
def test_init_gives_zeros_of_the_parameters_shape_and_dtype(rule, options):
    for dtype in DTYPES:
        p = draw(3, 4, 2, dtype=dtype)
        state = init(rule, options, p)
        moments = {name: value for name, value in state.items() if name != "step"}
        assert moments
        for name, value in moments.items():
            is_of_rows = name == "second_moment" and options["variant"] == "normuon"
            assert (value.shape, value.dtype) == ((3, 4, 1) if is_of_rows else p.shape, p.dtype)
        assert not any(value.any() for value in state.values())


@each_rule
def test_update_keeps_shapes_dtypes_and_state_keys(rule, options):
    for dtype in DTYPES:
        for lr in [0.1, torch.full((3, 1, 1), 0.1, dtype=torch.float64)]:
            p = draw(3, 4, 2, dtype=dtype)
            state = init(rule, options, p)
            new_p, new_state = rule.update(draw(3, 4, 2, dtype=dtype, seed=1), state, p, lr=lr, **options)
            assert (new_p.shape, new_p.dtype) == (p.shape, dtype)
            assert not torch.equal(new_p, p)
            assert {k: (v.shape, v.dtype) for k, v in new_state.items()} == {
                k: (v.shape, v.dtype) for k, v in state.items()
            }


@each_rule
def test_update_changes_none_of_its_inputs(rule, options):
    p, grad = draw(4, 2), draw(4, 2, seed=1)
    _, state = rule.update(grad, init(rule, options, p), p, lr=0.1, **options)
    inputs, names = [p, grad, *state.values()], set(state)
    copies = [x.clone() for x in inputs]
    rule.update(grad, state, p, lr=0.1, weight_decay=0.1, **options)
    assert all(torch.equal(x, copy) for x, copy in zip(inputs, copies, strict=True))
    assert set(state) == names
    assert all(value is x for value, x in zip(state.values(), inputs[2:], strict=True))


@each_rule
def test_zero_gradient_without_decay_leaves_the_parameter_and_makes_no_nan(rule, options):
    p = draw(4, 2)
    new_p, _ = rule.update(torch.zeros_like(p), init(rule, options, p), p, lr=0.1, weight_decay=0.0, **options)
    assert torch.equal(new_p, p)


@each_rule
def test_several_member_axes_are_as_good_as_one(rule, options):
    p, grad = draw(2, 3, 4, 2), draw(2, 3, 4, 2, seed=1)
    twofold, _ = rule.update(grad, init(rule, options, p), p, lr=0.1, **options)
    flat, _ = rule.update(grad.flatten(0, 1), init(rule, options, p.flatten(0, 1)), p.flatten(0, 1), lr=0.1, **options)
    torch.testing.assert_close(twofold.flatten(0, 1), flat, rtol=0, atol=1e-12)

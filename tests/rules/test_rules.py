"""The contract that every rule passes, in its pure form and in place, and torch's own SGD, Adam and AdamW."""

from itertools import product

import pytest
import torch

from matrices import draw
from muonlab import rules
from muonlab.rules import adamw, in_place, muon, sgd
from muonlab.rules.muon import VARIANTS
from muonlab.rules.operands import Workspace
from muonlab.rules.polar import METHODS
from muonlab.rules.wrapped import Ahead, Coupled, Filtered, Independent

PARTS = {
    "equilibrated": {"equilibrate": "rowcol"},
    "renormalized": {"renormalize": "col_row"},
    "floor": {"update_floor": 2.0},
    "hyperball": {"hyperball": True},
    "parts together": {"equilibrate": "row", "renormalize": "row", "variant": "normuon", "update_floor": 0.5},
}
CASES = {
    "adamw": (adamw, {}),
    "adamw, other numbers": (adamw, {"beta1": 0.8, "beta2": 0.9, "eps": 0.1}),
    "coupled": (Coupled(adamw), {}),
    "filtered": (Filtered(adamw, 0.9, 2.0), {}),
    "sgd": (sgd, {}),
    "sgd, nesterov": (sgd, {"momentum": 0.9, "nesterov": True}),
    **{f"muon, {method}": (muon, {"method": method}) for method in METHODS},
    **{f"muon, {variant}": (muon, {"variant": variant}) for variant in VARIANTS},
    "muon, cautious": (muon, {"cautious": True}),
    "muon, plain momentum": (muon, {"momentum": 0.8, "nesterov": False, "steps": 3, "adjust_lr_fn": "none"}),
    **{f"muon, {name}": (muon, options) for name, options in PARTS.items()},
    "independent": (Independent(adamw), {}),
    "ahead": (Ahead(adamw, 0.8), {"lookahead": 0.5}),
    "muon, ahead, independent": (Ahead(Independent(muon)), {"lookahead": 0.5}),
    "muon, not orthogonal": (muon, {"is_orthogonal": False, "adjust_lr_fn": "match_rms_adamw"}),
}
each_rule = pytest.mark.parametrize(("rule", "options"), CASES.values(), ids=CASES)
DTYPES = [torch.float64, torch.float32, torch.bfloat16]


def init(rule, options, p):
    return rule.init(p, variant=options["variant"]) if "variant" in options else rule.init(p)


def stepped(rule, p, grads, **hyper):
    """Return the parameter and the state after a step for each gradient."""
    state = init(rule, hyper, p)
    for grad in grads:
        p, state = rule.update(grad, state, p, **hyper)
    return p, state


def shapes_of(state):
    return {name: (value.shape, value.dtype) for name, value in state.items()}


def test_the_contract_covers_every_rule_of_the_room():
    modules = (getattr(rules, name) for name in rules.__all__)
    assert {module for module in modules if hasattr(module, "update")} <= {rule for rule, _ in CASES.values()}


@each_rule
def test_shapes_and_dtypes_are_kept_and_no_input_is_changed(rule, options):
    for dtype, lr in product(DTYPES, [0.1, torch.full((3, 1, 1), 0.1, dtype=torch.float64)]):
        p, grad = draw(3, 4, 2, dtype=dtype), draw(3, 4, 2, dtype=dtype, seed=1)
        begin = init(rule, options, p)
        assert not any(value.any() for value in begin.values())
        _, state = rule.update(grad, begin, p, lr=lr, **options)
        assert shapes_of(state) == shapes_of(begin)
        inputs = [p, grad, *state.values()]
        copies = [x.clone() for x in inputs]
        new, after = rule.update(grad, state, p, lr=lr, weight_decay=0.1, **options)
        assert all(torch.equal(x, copy) for x, copy in zip(inputs, copies, strict=True))
        assert all(value is x for value, x in zip(state.values(), inputs[2:], strict=True))
        assert (new.shape, new.dtype) == (p.shape, dtype)
        assert not torch.equal(new, p)
        assert shapes_of(after) == shapes_of(state)


@each_rule
def test_zero_gradient_without_decay_leaves_the_parameter_and_makes_no_nan(rule, options):
    p = draw(4, 2)
    new, _ = rule.update(torch.zeros_like(p), init(rule, options, p), p, lr=0.1, weight_decay=0.0, **options)
    assert torch.equal(new, p)


@each_rule
def test_a_member_of_a_stack_is_the_run_alone(rule, options):
    # Batched and single matrix products round differently; the iteration lifts that to about 1e-13.
    is_of_matrices = rule is muon or getattr(getattr(rule, "rule", None), "rule", None) is muon
    shapes = [(8, 4), (4, 8)] + ([(7,)] if not is_of_matrices else [])
    hypers = [{"lr": 0.03 * k, "weight_decay": 0.1 * k} for k in range(4)]
    if "beta1" not in options and rule in (sgd, muon):
        hypers = [{**hyper, "momentum": 0.3 * k} for k, hyper in enumerate(hypers)]
    for shape in shapes:
        axes = (-1,) + (1,) * len(shape)
        stacked = {k: torch.tensor([h[k] for h in hypers], dtype=torch.float64).view(axes) for k in hypers[0]}
        p, grads = draw(4, *shape), draw(6, 4, *shape, seed=1)
        together, _ = stepped(rule, p, grads, **{**options, **stacked})
        for k, hyper in enumerate(hypers):
            alone, _ = stepped(rule, p[k], grads[:, k], **{**options, **hyper})
            torch.testing.assert_close(together[k], alone, rtol=0, atol=1e-10)
        if len(shape) == 2:  # several member axes are as good as one
            twofold, _ = stepped(rule, p.unflatten(0, (2, 2)), grads.unflatten(1, (2, 2)), lr=0.1, **options)
            flat, _ = stepped(rule, p, grads, lr=0.1, **options)
            torch.testing.assert_close(twofold.flatten(0, 1), flat, rtol=0, atol=1e-10)


@each_rule
def test_a_number_and_a_float64_tensor_give_the_same_bits(rule, options):
    for dtype in DTYPES[:2]:
        hyper = {"lr": 0.013, "weight_decay": 0.07}  # neither is a float32
        tensors = {name: torch.full((3, 1, 1), value, dtype=torch.float64) for name, value in hyper.items()}
        p, grads = draw(3, 5, 4, dtype=dtype), draw(4, 3, 5, 4, seed=1, dtype=dtype)
        one, one_state = stepped(rule, p, grads, **{**options, **hyper})
        other, other_state = stepped(rule, p, grads, **{**options, **tensors})
        assert torch.equal(one, other)
        assert all(torch.equal(one_state[name], other_state[name]) for name in one_state)


# In place


@pytest.mark.parametrize("is_transposed", [False, True], ids=["", "strided gradients"])
@each_rule
def test_in_place_equals_the_pure_rule(rule, options, is_transposed):
    shapes = [(3, 4, 6), (3, 6, 4), (3, 4, 4), (3, 4, 6), (3, 2, 4, 6)]
    for lr in (0.02, torch.tensor([0.01, 0.02, 0.03], dtype=torch.float64)):
        ps = [draw(*shape, seed=seed) for seed, shape in enumerate(shapes)]
        states, work = [init(rule, options, p) for p in ps], Workspace()
        expected = [(p.clone(), init(rule, options, p)) for p in ps]
        for step in range(4):
            grads = [draw(*shape, seed=10 * step + seed + 10) for seed, shape in enumerate(shapes)]
            grads = [grad.mT.contiguous().mT if is_transposed else grad for grad in grads]
            before = [grad.clone() for grad in grads]
            for index, (grad, (p, state)) in enumerate(zip(grads, expected, strict=True)):
                own = lr if isinstance(lr, float) else lr.view(-1, *[1] * (p.ndim - 1))
                expected[index] = rule.update(grad, state, p, lr=own, weight_decay=0.5, **options)
            in_place.update(rule, grads, states, ps, {"lr": lr, "weight_decay": 0.5, **options}, work)
            assert all(torch.equal(grad, old) for grad, old in zip(grads, before, strict=True))
        for p, state, (other, other_state) in zip(ps, states, expected, strict=True):
            torch.testing.assert_close(p, other, rtol=1e-10, atol=1e-12)
            torch.testing.assert_close(state, other_state, rtol=1e-10, atol=1e-12)


def test_products_in_bfloat16_stay_near_those_of_the_pure_rule():
    shapes = [(2, 32, 64), (2, 64, 32), (2, 32, 32)]
    ps = [draw(*shape, dtype=torch.float32) for shape in shapes]
    grads = [draw(*shape, seed=1, dtype=torch.float32) for shape in shapes]
    hyper = {"lr": 0.02, "polar_dtype": torch.bfloat16}
    expected = [muon.update(grad, muon.init(p), p, **hyper)[0] for grad, p in zip(grads, ps, strict=True)]
    begin = [p.clone() for p in ps]
    in_place.update(muon, grads, [muon.init(p) for p in ps], ps, hyper, Workspace())
    for p, other, start in zip(ps, expected, begin, strict=True):
        assert torch.linalg.norm(p - other) < 0.1 * torch.linalg.norm(other - start)  # bfloat16, in another order


@pytest.mark.parametrize("rule", [adamw, muon, sgd])
def test_a_hyper_parameter_that_the_rule_does_not_have_is_refused(rule):
    p = torch.ones(2, 3, 3)
    with pytest.raises(TypeError, match="momentums"):
        in_place.update(rule, [p], [rule.init(p)], [p], {"lr": 0.1, "momentums": 0.9}, Workspace())


# torch


ADAM = {"lr": 1e-2, "betas": (0.9, 0.98), "eps": 1e-8, "weight_decay": 0.3}


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 5e-6), (torch.float64, 1e-12)])
@pytest.mark.parametrize(
    ("rule", "theirs", "hyper"),
    [
        (adamw, torch.optim.AdamW, {"lr": 1e-3}),
        (adamw, torch.optim.AdamW, ADAM),
        (adamw, torch.optim.AdamW, {"lr": 1e-2, "betas": (0.5, 0.9), "eps": 0.1, "weight_decay": 0.0}),
        (adamw, torch.optim.AdamW, {"lr": 1e-2, "betas": (0.0, 0.0), "eps": 1e-8, "weight_decay": 0.1}),
        (Coupled(adamw), torch.optim.Adam, ADAM),
        (sgd, torch.optim.SGD, {"lr": 0.1, "weight_decay": 0.1}),
        (sgd, torch.optim.SGD, {"lr": 0.03, "momentum": 0.9, "weight_decay": 0.01}),
        (sgd, torch.optim.SGD, {"lr": 0.03, "momentum": 0.9, "weight_decay": 0.01, "nesterov": True}),
    ],
    ids=str,
)
def test_equals_torch_over_fifty_steps(rule, theirs, hyper, dtype, tolerance):
    start, grads = draw(5, 3, dtype=dtype), draw(50, 5, 3, seed=1, dtype=dtype)
    p = torch.nn.Parameter(start.clone())
    optimizer = theirs([p], **hyper)
    for grad in grads:
        p.grad = grad.clone()
        optimizer.step()
    named = {name: value for name, value in hyper.items() if name != "betas"}
    if "betas" in hyper:
        named["beta1"], named["beta2"] = hyper["betas"]
    torch.testing.assert_close(stepped(rule, start, grads, **named)[0], p.detach(), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("rule", [adamw, muon, sgd])
def test_a_filtered_rule_sees_the_gradient_plus_a_multiple_of_its_mean(rule):
    start, *grads = draw(11, 5, 3)
    slow, seen = grads[0], []
    for grad in grads:  # the loop of arXiv 2405.20233, algorithm 2
        slow = 0.9 * slow + 0.1 * grad
        seen.append(grad + 2.0 * slow)
    found, _ = stepped(Filtered(rule, 0.9, 2.0), start, grads, lr=0.1)
    torch.testing.assert_close(found, stepped(rule, start, seen, lr=0.1)[0], rtol=1e-12, atol=1e-12)
    found, _ = stepped(Filtered(rule, 0.9, 0.0), start, grads, lr=0.1)
    torch.testing.assert_close(found, stepped(rule, start, grads, lr=0.1)[0])

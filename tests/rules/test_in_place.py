"""The steps in place are those of the pure rules, whatever the shapes, the strides and the hyper-parameters."""

import pytest
import torch

from muonlab.rules import adamw, in_place, muon, sgd
from muonlab.rules.workspace import Workspace

SHAPES = [(3, 4, 6), (3, 6, 4), (3, 4, 4), (3, 4, 6), (3, 2, 4, 6)]
NUM_STEPS = 6
BY_MEMBER = torch.tensor([0.01, 0.02, 0.03], dtype=torch.float64)

CASES = [
    (adamw, {"lr": 0.01}),
    (adamw, {"lr": 0.02, "beta1": 0.8, "beta2": 0.9, "eps": 0.1, "weight_decay": 1.0}),
    (adamw, {"lr": BY_MEMBER}),
    (sgd, {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.1}),
    (muon, {"lr": 0.02}),
    (muon, {"lr": 0.02, "momentum": 0.8, "nesterov": False, "steps": 3, "weight_decay": 0.5, "adjust_lr_fn": "none"}),
    (muon, {"lr": 0.02, "method": "exact", "adjust_lr_fn": "match_rms_adamw", "is_orthogonal": True}),
    (muon, {"lr": 0.02, "is_orthogonal": False}),
    (muon, {"lr": 0.02, "cautious": True, "weight_decay": 1.0}),
    (muon, {"lr": 0.02, "variant": "normuon"}),
    (muon, {"lr": BY_MEMBER}),
]


def draw(generator, shape, is_transposed=False):
    if is_transposed:
        return torch.randn(*shape[:-2], shape[-1], shape[-2], generator=generator, dtype=torch.float64).mT
    return torch.randn(shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("is_transposed", [False, True], ids=["", "strided gradients"])
@pytest.mark.parametrize(("rule", "hyper"), CASES)
def test_equals_the_pure_rule(rule, hyper, is_transposed):
    generator = torch.Generator().manual_seed(0)
    ps = [draw(generator, shape) for shape in SHAPES]
    init = {"variant": hyper["variant"]} if "variant" in hyper else {}
    states, work = [rule.init(p, **init) for p in ps], Workspace()
    expected = [(p.clone(), rule.init(p, **init)) for p in ps]
    for _ in range(NUM_STEPS):
        grads = [draw(generator, shape, is_transposed) for shape in SHAPES]
        before = [grad.clone() for grad in grads]
        for index, (grad, (p, state)) in enumerate(zip(grads, expected, strict=True)):
            own = {
                name: value.view(-1, *[1] * (p.ndim - 1)) if isinstance(value, torch.Tensor) and value.ndim else value
                for name, value in hyper.items()
            }
            expected[index] = rule.update(grad, state, p, **own)
        in_place.update(rule, grads, states, ps, hyper, work)
        assert all(torch.equal(grad, old) for grad, old in zip(grads, before, strict=True))
    for p, state, (other, other_state) in zip(ps, states, expected, strict=True):
        torch.testing.assert_close(p, other, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(state, other_state, rtol=1e-10, atol=1e-12)


def test_a_rule_without_a_way_of_its_own_is_applied_one_by_one():
    class Halve:
        @staticmethod
        def update(grad, state, p, *, by):
            return p * by, {"count": state["count"] + 1}

    p, state = torch.ones(2, 3), {"count": torch.zeros(())}
    in_place.update(Halve, [p], [state], [p], {"by": torch.tensor([0.5, 0.25])}, Workspace())
    assert torch.equal(p, torch.tensor([[0.5] * 3, [0.25] * 3]))
    assert state["count"] == 1


def test_products_in_bfloat16_stay_near_those_of_the_pure_rule():
    generator = torch.Generator().manual_seed(0)
    shapes = [(2, 32, 64), (2, 64, 32), (2, 32, 32)]
    ps = [draw(generator, shape).float() for shape in shapes]
    grads = [draw(generator, shape).float() for shape in shapes]
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

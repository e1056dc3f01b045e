import pytest
import torch

from muonlab.rules import adamw, muon, sgd
from muonlab.rules.wrapped import Coupled, Filtered


def gradients(number, shape):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(number)]


def stepped(rule, p, grads, **hyper):
    state = rule.init(p)
    for grad in grads:
        p, state = rule.update(grad, state, p, **hyper)
    return p


def test_coupled_adamw_is_torchs_adam():
    start, *grads = gradients(21, (5, 3))
    p = torch.nn.Parameter(start.clone())
    optimizer = torch.optim.Adam([p], lr=0.1, betas=(0.9, 0.98), eps=1e-8, weight_decay=0.3)
    for grad in grads:
        p.grad = grad.clone()
        optimizer.step()
    found = stepped(Coupled(adamw), start, grads, lr=0.1, beta1=0.9, beta2=0.98, eps=1e-8, weight_decay=0.3)
    torch.testing.assert_close(found, p.detach(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("rule", [adamw, muon, sgd])
def test_a_filtered_rule_sees_the_gradient_plus_a_multiple_of_its_mean(rule):
    start, *grads = gradients(11, (5, 3))
    slow, seen = grads[0], []
    for grad in grads:  # the loop of arXiv 2405.20233, algorithm 2
        slow = 0.9 * slow + 0.1 * grad
        seen.append(grad + 2.0 * slow)
    found = stepped(Filtered(rule, 0.9, 2.0), start, grads, lr=0.1)
    torch.testing.assert_close(found, stepped(rule, start, seen, lr=0.1), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(
        stepped(Filtered(rule, 0.9, 0.0), start, grads, lr=0.1), stepped(rule, start, grads, lr=0.1)
    )

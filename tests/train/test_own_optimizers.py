"""Optimizers of a user's own: what is refused before anything runs, and what a stack of views does to them."""

import pytest
import torch
from torch import nn

from muonlab.losses import softmax
from muonlab.train import engine, optimizers
from muonlab.train.population import Population
from muonlab.train.sequential import Sequential


def net():
    return nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))


class Fused(torch.optim.Optimizer):
    """Moves its parameters into one tensor when it is made, and steps that."""

    def __init__(self, params, lr):
        super().__init__(params, {"lr": lr})
        own = self.param_groups[0]["params"]
        self.together = torch.cat([p.detach().flatten() for p in own])
        for p, part in zip(own, self.together.split([p.numel() for p in own]), strict=True):
            p.data = part.view_as(p)

    @torch.no_grad()
    def step(self, closure=None):
        gradients = [p.grad.flatten() for p in self.param_groups[0]["params"]]
        self.together.sub_(self.param_groups[0]["lr"] * torch.cat(gradients))


class Secretive(torch.optim.SGD):
    """Counts its steps where no checkpoint finds them, and slows down."""

    steps = 0

    def step(self, closure=None):
        self.steps += 1
        for group in self.param_groups:
            group["lr"] = 1 / self.steps
        super().step()


class Wrapper:
    """Follows torch's protocol without being one of its classes."""

    def __init__(self, params, lr):
        self.inner = torch.optim.SGD(params, lr=lr, momentum=0.9)

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def step(self):
        self.inner.step()


class Closure(torch.optim.SGD):
    def step(self, closure):
        """Need a closure."""


def drawn(call):
    return optimizers.factories(call, (1e-2, 3e-2))


def trained(call, seeds=(0, 1)):
    torch.manual_seed(0)
    inputs, labels = torch.randn(2, 16, 3), torch.randint(0, 2, (2, 16))
    found, reason = engine.build(net, softmax, drawn(call), seeds, inputs[0], labels[0])
    for step in range(4):
        found.step(inputs, labels, step)
    return found, reason


@pytest.mark.parametrize("call", [torch.optim.RAdam, Wrapper])
def test_an_optimizer_trains_a_population_as_it_trains_each_member_alone(call):
    optimizers.check(call, {}, net(), "own")
    found, reason = trained(call)
    assert isinstance(found, Population)
    assert reason is None
    inputs, labels = torch.manual_seed(0) and (torch.randn(2, 16, 3), torch.randint(0, 2, (2, 16)))
    alone = Sequential(net, softmax, drawn(call), (0, 1))
    for step in range(4):
        alone.step(inputs, labels, step)
    for name, p in alone.parameters.items():
        torch.testing.assert_close(found.parameters[name], p, rtol=1e-5, atol=1e-6)


def test_an_optimizer_that_moves_its_parameters_trains_one_member_after_the_other_and_says_so():
    found, reason = trained(Fused)
    assert isinstance(found, Sequential)
    assert reason.startswith(
        "the optimizer does not step parameters that are views into a stack (0.weight differs). So"
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda params, lr: 3, "own is not an optimizer: it made a int; expected torch's protocol, with step"),
        (lambda params: 3, r"own cannot be made for this net \(TypeError: .*unexpected keyword argument 'lr'"),
        (torch.optim.Muon, "own cannot be made for this net .ValueError: Muon only supports 2D parameters"),
        (Closure, "own cannot train this net: Closure needs a closure"),
        (Secretive, r"own keeps what its steps depend on outside of its state_dict\(\) \(0.weight differs after"),
        (lambda params, lr: torch.optim.SGD(params[:2], lr), "cannot train this net: .* leaves out 2.weight, 2.bias"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_message(call, message):
    with pytest.raises(ValueError, match=message):
        optimizers.check(call, {}, net(), "own")

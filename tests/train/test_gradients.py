"""Gradients of stacks are those of torch.autograd for each member, whatever the height and whatever memory allows."""

import pytest
import torch

from muonlab.train import gradients as room
from muonlab.train.gradients import Gradients

S, B, D = 5, 7, 3


def loss(parameters, inputs, targets):
    return ((inputs @ parameters["weight"]).tanh() - targets).square().mean()


def draw():
    generator = torch.Generator().manual_seed(0)
    parameters = {
        "weight": torch.randn(S, D, 2, generator=generator, dtype=torch.float64),
        "unused": torch.randn(S, 4, generator=generator, dtype=torch.float64),
    }
    shapes = ((S, B, D), (S, B, 2))
    return parameters, *(torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes)


def assert_right(found, parameters, *batch):
    for member in range(S):
        weight = parameters["weight"][member].clone().requires_grad_()
        loss({"weight": weight}, *(each[member] for each in batch)).backward()
        torch.testing.assert_close(found["weight"][member], weight.grad, rtol=1e-12, atol=1e-14)
    assert torch.equal(found["unused"], torch.zeros(S, 4, dtype=torch.float64))


@pytest.mark.parametrize("height", [1, 2, 5, 9])
def test_each_member_has_its_own(height):
    arguments = draw()
    assert_right(Gradients(loss, height)(*arguments), *arguments)


def test_where_memory_is_short_the_stack_is_halved():
    arguments, heights = draw(), []

    def short(parameters, inputs, targets):
        heights.append(1)
        if len(torch._C._functorch.get_unwrapped(inputs)) > 2:
            raise torch.OutOfMemoryError("no more")
        return loss(parameters, inputs, targets)

    gradients = Gradients(short, S)
    assert_right(gradients(*arguments), *arguments)
    assert (gradients.height, len(heights)) == (2, 2 + 3)  # at five and three members in vain, then 2, 2 and 1


def test_where_one_member_is_too_many_it_says_so():
    def none(parameters, inputs, targets):
        raise torch.OutOfMemoryError("none")

    with pytest.raises(torch.OutOfMemoryError):
        Gradients(none, S)(*draw())


@pytest.mark.parametrize(
    ("cost", "expected"),
    [
        ({1: 1.0, 2: 1.0, 4: 1.0, 5: 1.0}, 5),
        ({1: 3.0, 2: 0.5, 4: 2.0, 5: 2.0}, 2),
        ({1: 1.0, 2: 2.0, 4: 2.0, 5: 2.0}, 1),
    ],
)
def test_the_fastest_height_is_taken_and_the_tallest_among_equals(monkeypatch, cost, expected):
    gradients, now = Gradients(loss, 1), [0.0]

    class Clock:
        @staticmethod
        def perf_counter():
            return now[0]

    def timed(parameters, *batch):
        now[0] += cost[gradients.height] / (-(-S // gradients.height))  # one call of several
        return eager(parameters, *batch)

    eager = gradients._of_stack
    gradients._of_stack = timed
    monkeypatch.setattr(room, "time", Clock)
    gradients.choose_height(*draw())
    assert gradients.height == expected


def test_heights_that_memory_does_not_allow_are_not_chosen(monkeypatch):
    gradients = Gradients(loss, 1)
    eager = gradients._of_stack

    def short(parameters, inputs, targets):
        if len(inputs) > 2:
            raise torch.OutOfMemoryError("no more")
        return eager(parameters, inputs, targets)

    gradients._of_stack = short
    gradients.choose_height(*draw())
    assert gradients.height == 2


def test_a_program_is_not_given_what_it_was_not_made_for(compiled_programs):
    parameters, inputs, targets = draw()
    gradients = Gradients(loss, S)
    assert gradients.compile(parameters, inputs, targets)
    gradients.choose_height(parameters, inputs, targets)  # which would give it several members
    assert gradients.height == 1
    assert_right(gradients(parameters, inputs, targets), parameters, inputs, targets)
    fewer = inputs[:, :3], targets[:, :3]
    assert_right(gradients(parameters, *fewer), parameters, *fewer)
    other = inputs.float().double(), targets.mT.contiguous().mT  # of other strides
    assert_right(gradients(parameters, *other), parameters, *other)

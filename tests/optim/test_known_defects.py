"""What public Muons do wrong, one test each: it passes here, and fails on an optimizer that has the defect.

The defective ones are torch.optim.Muon, where it has the defect, or else the plain `Matrix` with one point changed.
Defects that the battery looks for are in testing/test_defects.py.
"""

import pytest
import torch
from torch import nn

from muonlab import Muon
from optim.training import draw
from testing.specimens import Matrix


def ours(params, **options):
    return Muon(params, **{"lr": 0.1, "weight_decay": 0.0, "method": "exact", **options})


def torchs(params, **options):
    return torch.optim.Muon(params, **{"lr": 0.1, "weight_decay": 0.0, **options})


def holds_here_and_not_for(expectation, defective, error=AssertionError):
    expectation(ours)
    with pytest.raises(error):
        expectation(defective)


def step_from_zero(make, *gradients, dtype=torch.float64, num_steps=1, **options):
    """Return what an optimizer makes of zeros by these gradients, one for each parameter."""
    params = [nn.Parameter(torch.zeros(gradient.shape, dtype=dtype)) for gradient in gradients]
    optimizer = make(params, **options)
    for _ in range(num_steps):
        for p, gradient in zip(params, gradients, strict=True):
            p.grad = gradient.clone()
        optimizer.step()
    return [p.detach() for p in params]


def test_momentum_in_bfloat16_is_not_overwritten_without_nesterov():
    """Defect: with nesterov=False and bfloat16 parameters, normalising in place overwrites the momentum."""

    def expectation(make):
        p = nn.Parameter(torch.zeros(6, 4, dtype=torch.bfloat16))
        optimizer = make([p], momentum=0.5, nesterov=False)
        p.grad = 8 * draw(6, 4, dtype=torch.bfloat16)
        optimizer.step()
        torch.testing.assert_close(
            optimizer.state[p]["momentum_buffer"].float(), 0.5 * p.grad.float(), rtol=0.01, atol=0
        )

    holds_here_and_not_for(expectation, torchs)


def test_equal_shape_convolutions_are_orthogonalized_apart():
    """Defect: convolutions of equal shape are stacked and then flattened to one matrix."""

    class Together(Matrix):
        def step(self):
            (group,) = self.param_groups
            stack = torch.stack([p.grad for p in group["params"]])
            for p, update in zip(group["params"], self.polar(stack.flatten(1)).reshape(stack.shape), strict=True):
                p.data.sub_(group["lr"] * update)

    def expectation(make):
        gradients = draw(6, 2, 3, 2), draw(6, 2, 3, 2, seed=1)
        together = step_from_zero(make, *gradients)
        for seen, gradient in zip(together, gradients, strict=True):
            (alone,) = step_from_zero(make, gradient.flatten(1))
            torch.testing.assert_close(seen.flatten(1), alone)

    holds_here_and_not_for(expectation, Together)


def test_the_scale_of_a_convolution_is_that_of_its_matrix():
    """Defect: the scale sqrt(max(1, rows / columns)) is taken from the last two axes, the kernel's height and width."""

    class OfTheKernel(Matrix):
        def direction(self, gradient, state, group):
            height, width = gradient.shape[-2:]
            return super().direction(gradient, state, group) * max(1, height / width) ** 0.5

    def expectation(make):
        gradient = draw(16, 1, 2, 2)
        (weight,), (matrix,) = step_from_zero(make, gradient), step_from_zero(make, gradient.flatten(1))
        torch.testing.assert_close(weight.flatten(1), matrix)
        # Orthogonal columns, four of them, times sqrt(16 / 4) and the learning rate.
        assert float(matrix.norm()) == pytest.approx(2 * 2 * 0.1)

    holds_here_and_not_for(expectation, OfTheKernel)


def test_channels_last_gradients_are_taken():
    """Defect: .view of a gradient in channels_last crashes."""

    class Views(Matrix):
        def direction(self, gradient, state, group):
            return super().direction(gradient.view(len(gradient), -1), state, group).view(gradient.shape)

    def expectation(make):
        gradient = draw(8, 3, 3, 3)
        (plain,) = step_from_zero(make, gradient)
        (other,) = step_from_zero(make, gradient.to(memory_format=torch.channels_last))
        torch.testing.assert_close(other, plain)
        p = nn.Parameter(torch.zeros(8, 3, 3, 3, dtype=torch.float64).to(memory_format=torch.channels_last))
        p.grad = gradient.to(memory_format=torch.channels_last)
        make([p]).step()
        torch.testing.assert_close(p.detach(), plain)

    holds_here_and_not_for(expectation, Views, error=RuntimeError)


def test_experts_are_not_flattened_together():
    """Defect: experts (E, rows, columns) are flattened to one matrix (E, rows * columns)."""

    class Flattens(Matrix):
        def polar(self, x):
            return super().polar(x.flatten(1)).reshape(x.shape)

    def expectation(make):
        gradient = draw(3, 6, 4)
        (stack,) = step_from_zero(make, gradient)
        for expert, each in zip(stack, gradient, strict=True):
            torch.testing.assert_close(expert, step_from_zero(make, each)[0])

    holds_here_and_not_for(expectation, Flattens)


@pytest.mark.parametrize("bad", [float("inf"), float("nan")])
def test_one_bad_gradient_does_not_poison_the_momentum(bad):
    """Defect: one Inf or NaN in a gradient stays in the momentum, and the matrix is NaN from then on."""

    def expectation(make):
        for options in ({}, {"nonfinite": "skip"}) if make is ours else ({},):
            p = nn.Parameter(torch.zeros(6, 4))
            optimizer = make([p], **options)
            for step in range(3):
                p.grad = draw(6, 4, seed=step, dtype=torch.float32)
                if step == 1:
                    p.grad[0, 0] = bad
                try:
                    optimizer.step()
                except ValueError:
                    assert step == 1
            assert torch.isfinite(p).all()
            assert torch.isfinite(optimizer.state[p]["momentum_buffer"]).all()

    holds_here_and_not_for(expectation, torchs)


def test_gradients_of_any_size_are_seen():
    """Defect: outside of 1e-10..1e18 gradients are lost, to an absolute epsilon below and to overflow above."""

    class Squares(Matrix):
        def polar(self, x):
            return super().polar(x / (x.square().sum().sqrt() + 1e-30))

    def expectation(make):
        gradient = draw(6, 4, dtype=torch.float32)
        (expected,) = step_from_zero(make, gradient, dtype=torch.float32)
        for scale in (1e-36, 1e-20, 1e-10, 1e18, 1e25, 1e37):
            (seen,) = step_from_zero(make, gradient * scale, dtype=torch.float32)
            torch.testing.assert_close(seen, expected, rtol=0, atol=0.005)

    holds_here_and_not_for(expectation, torchs)
    holds_here_and_not_for(expectation, Squares)


def test_bfloat16_weights_move_under_small_updates():
    """Defect: updates below half the spacing of a bfloat16 weight are rounded away, every one of them."""

    def expectation(make):
        for rounding in ("stochastic", "remainder") if make is ours else (None,):
            p = nn.Parameter(torch.ones(32, 32, dtype=torch.bfloat16))
            optimizer = make([p], lr=5e-3, **({} if rounding is None else {"rounding": rounding}))
            p.grad = draw(32, 32, dtype=torch.bfloat16)  # an entry of the polar factor is about 32^-1/2, the step 1e-3
            for _ in range(20):
                optimizer.step()
            U, _, Vh = torch.linalg.svd(p.grad.double())
            way, expected = p.detach().double() - 1, -20 * 5e-3 * U @ Vh
            assert 0.8 < float((way * expected).sum() / expected.square().sum()) < 1.2

    holds_here_and_not_for(expectation, torchs)


def test_what_is_not_two_dimensional_is_taken():
    """Defect: parameters of three and more axes are refused, so that each user flattens them as seems best."""

    def expectation(make):
        for shape in ((3, 6, 4), (8, 3, 3, 3), (4, 2, 2, 2, 2)):
            (p,) = step_from_zero(make, draw(*shape))
            assert float(p.norm()) > 0

    holds_here_and_not_for(expectation, torchs, error=ValueError)


def test_products_are_not_rounded_to_bfloat16_unasked():
    """Defect: whatever the dtype of a parameter, its matrix is cast to bfloat16."""

    def expectation(make):
        gradient = draw(6, 4)
        ends = [
            step_from_zero(make, gradient.to(dtype), dtype=dtype)[0].double()
            for dtype in (torch.float32, torch.float64)
        ]
        torch.testing.assert_close(*ends, rtol=0, atol=1e-7)
        U, _, Vh = torch.linalg.svd(gradient, full_matrices=False)
        torch.testing.assert_close(ends[1], -0.1 * (6 / 4) ** 0.5 * (U @ Vh))

    holds_here_and_not_for(expectation, torchs)


def test_equal_shapes_are_worked_on_together():
    """Defect: a loop over parameters launches hundreds of kernels a step."""

    def launches(make, num, **options):
        params = [nn.Parameter(draw(8, 8, seed=seed, dtype=torch.float32)) for seed in range(num)]
        optimizer = make(params, **options)
        for p in params:
            p.grad = draw(8, 8, dtype=torch.float32)
        optimizer.step()
        with torch.profiler.profile() as profile:
            optimizer.step()
        products = ("aten::mm", "aten::bmm", "aten::addmm", "aten::baddbmm")
        return sum(event.count for event in profile.key_averages() if event.key in products)

    def expectation(make):
        options = {"method": "polar_express"} if make is ours else {}
        assert launches(make, 24, **options) == launches(make, 1, **options)

    holds_here_and_not_for(expectation, torchs)

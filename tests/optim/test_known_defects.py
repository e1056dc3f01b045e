"""What public Muons do wrong, one test each: it passes here, and fails on an optimizer that has the defect.

The defective ones are torch.optim.Muon, where it has the defect, or else the plain `Matrix` with one point changed.
"""

import pytest
import torch
from torch import nn

from muonlab import Muon, MuonAdamW, split_params
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


def test_load_state_dict_restores_the_learning_rate():
    """Defect: load_state_dict keeps the lr (and momentum, and decay) of the constructor."""

    class Keeps(Matrix):
        def load_state_dict(self, state_dict):
            before = [dict(group) for group in self.param_groups]
            super().load_state_dict(state_dict)
            for group, old in zip(self.param_groups, before, strict=True):
                group.update(old)

    def expectation(make):
        p = nn.Parameter(draw(6, 4))
        optimizer = make([p], lr=0.1, momentum=0.9, weight_decay=0.3)
        optimizer.param_groups[0].update(lr=0.025, momentum=0.8, weight_decay=0.2)
        other = make([p], lr=0.5, momentum=0.5, weight_decay=0.0)
        other.load_state_dict(optimizer.state_dict())
        group = other.param_groups[0]
        assert (group["lr"], group["momentum"], group["weight_decay"]) == (0.025, 0.8, 0.2)

    holds_here_and_not_for(expectation, Keeps)


def test_the_imaginary_part_is_not_dropped():
    """Defect: a cast to bfloat16 drops the imaginary part of a complex gradient."""

    class Casts(Matrix):
        def polar(self, x):
            return super().polar(x.real).to(x.dtype)

    def expectation(make):
        gradient = draw(6, 4, dtype=torch.complex128)
        U, _, Vh = torch.linalg.svd(gradient, full_matrices=False)
        (p,) = step_from_zero(make, gradient, dtype=torch.complex128)
        torch.testing.assert_close(p / p.norm(), -(U @ Vh) / 2)

    holds_here_and_not_for(expectation, Casts)


def test_a_missing_gradient_is_left_missing_and_nothing_decays():
    """Defect: zeros are written where a gradient is missing, and weight decay and momentum applied."""

    class FillsIn(Matrix):
        def step(self, closure=None):
            for group in self.param_groups:
                for p in group["params"]:
                    p.grad = torch.zeros_like(p) if p.grad is None else p.grad
            return super().step(closure)

    def expectation(make):
        p, other = nn.Parameter(draw(6, 4)), nn.Parameter(draw(6, 4, seed=1))
        optimizer = make([p, other], weight_decay=0.5)
        for _ in range(2):
            other.grad = draw(6, 4, seed=2)
            optimizer.step()
        assert p.grad is None
        assert torch.equal(p.detach(), draw(6, 4))
        assert not optimizer.state.get(p)

    holds_here_and_not_for(expectation, FillsIn)


@pytest.mark.parametrize("nesterov", [True, False])
def test_gradients_are_neither_changed_nor_dropped(nesterov):
    """Defect: nesterov momentum is written into the gradient; or the gradient is set to None when it has been used."""

    class LerpsInPlace(Matrix):
        def direction(self, gradient, state, group):
            super().direction(gradient, state, group)
            return self.polar(gradient.lerp_(state["momentum_buffer"], group["momentum"]))

    class Drops(Matrix):
        def step(self, closure=None):
            super().step(closure)
            for p in self.param_groups[0]["params"]:
                p.grad = None

    def expectation(make):
        for dtype in (torch.float32, torch.bfloat16):
            p = nn.Parameter(draw(6, 4, dtype=dtype))
            optimizer = make([p], **({"nesterov": nesterov} if make is ours else {}))
            gradient = draw(6, 4, seed=1, dtype=dtype)
            for _ in range(2):
                p.grad = gradient
                optimizer.step()
                assert p.grad is gradient
                assert torch.equal(gradient, draw(6, 4, seed=1, dtype=dtype))

    holds_here_and_not_for(expectation, LerpsInPlace)
    holds_here_and_not_for(expectation, Drops)


def test_the_global_generator_is_not_touched():
    """Defect: stochastic rounding, or a power iteration's start, draws from the global generator."""

    class Draws(Matrix):
        def polar(self, x):
            torch.randn(x.shape[-1])
            return super().polar(x)

    def expectation(make):
        for dtype in (torch.float32, torch.bfloat16):
            before = torch.get_rng_state()
            step_from_zero(make, draw(6, 4, dtype=dtype), dtype=dtype)
            assert torch.equal(torch.get_rng_state(), before)

    holds_here_and_not_for(expectation, Draws)


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


def test_heads_and_embeddings_do_not_reach_muon():
    """Defect: whatever has two axes goes to Muon, so embeddings, output heads and positions do as well."""
    width = 8

    class Tied(nn.Module):
        def __init__(self, is_tied):
            super().__init__()
            self.wte, self.wpe = nn.Embedding(11, width), nn.Embedding(4, width)
            self.h = nn.ModuleList([nn.Linear(width, width), nn.LayerNorm(width)])
            self.lm_head = nn.Linear(width, 11, bias=False)
            if is_tied:
                self.lm_head.weight = self.wte.weight

    def by_axes(net):
        return {name for name, p in net.named_parameters() if p.ndim >= 2}

    def by_split(net):
        return {route.name for route in split_params(net).named("muon")}

    def by_optimizer(net):
        return set(MuonAdamW(net).param_groups[0]["param_names"])

    def expectation(route):
        for is_tied in (True, False):
            assert route(Tied(is_tied)) == {"h.0.weight"}

    expectation(by_split)
    expectation(by_optimizer)
    with pytest.raises(AssertionError):
        expectation(by_axes)


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


@pytest.mark.parametrize(
    "bad", [{"momentum": 1.5}, {"momentum": 1.0}, {"ns_steps": 0}, {"lr": float("nan")}, {"nestrov": True}], ids=str
)
def test_what_makes_no_sense_is_refused(bad):
    """Defect: a momentum of 1.5, zero steps, an lr of NaN or an unknown keyword is accepted."""

    def accepts_all(params, momentum=0.95, ns_steps=5, **options):
        return torch.optim.Muon(params, momentum=momentum, ns_steps=ns_steps, lr=max(0.1, options.get("lr", 0.1)))

    def expectation(make):
        with pytest.raises((ValueError, TypeError), match=next(iter(bad))):
            make([nn.Parameter(draw(6, 4))], **{"method": "quintic", **bad} if make is ours else bad)

    holds_here_and_not_for(expectation, accepts_all, error=pytest.fail.Exception)


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

import pytest
import torch
from scipy import optimize

from muonlab.measure.lbfgs import MAX_TRIALS, NUM_PAIRS, Pairs, minimise

pytestmark = pytest.mark.kernels

OPTIONS = {"tolerance": 0.0, "floor": 1e-9, "max_iterations": 200, "rounding": 1e-13}


@pytest.fixture
def problems():
    """Return P functions sum_i softplus-like curves with a ridge, of very different scale, and what evaluates them."""
    generator = torch.Generator().manual_seed(0)
    A = torch.randn(5, 40, 8, generator=generator, dtype=torch.float64) * torch.logspace(-1, 1, 5)[:, None, None]
    shift = torch.randn(5, 40, generator=generator, dtype=torch.float64)
    ridge = torch.full((5, 8), 0.1, dtype=torch.float64)

    def function(points, index):
        points = points.detach().requires_grad_()
        z = torch.einsum("pnd,pd->pn", A[index], points) - shift[index]
        values = torch.logaddexp(z, -2 * z).sum(1) + 0.05 * points.square().sum(1)
        return values.detach(), torch.autograd.grad(values.sum(), points)[0]

    return function, A.square().sum(1), ridge


def test_minima_are_scipys(problems):
    function, curvature, ridge = problems
    found = minimise(function, torch.zeros(5, 8, dtype=torch.float64), curvature, ridge, **OPTIONS)
    assert found.converged.all()
    for problem in range(5):

        def alone(x, problem=problem):
            value, gradient = function(torch.tensor(x)[None], torch.tensor([problem]))
            return value.item(), gradient[0].numpy()

        theirs = optimize.minimize(alone, [0.0] * 8, jac=True, method="BFGS", options={"gtol": 1e-10, "maxiter": 1000})
        torch.testing.assert_close(found.point[problem], torch.tensor(theirs.x), rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("factor", [1e-4, 1e4])
def test_a_bad_guess_of_the_curvature_costs_steps_and_not_the_answer(problems, factor):
    """A guess too small makes the first steps too long by that factor, one too large too short."""
    function, curvature, ridge = problems
    start = torch.ones(5, 8, dtype=torch.float64)
    best = minimise(function, start, curvature, ridge, **OPTIONS)
    found = minimise(function, start, factor * curvature, ridge, **OPTIONS)
    assert found.converged.all()
    torch.testing.assert_close(found.point, best.point, rtol=1e-7, atol=1e-8)


def test_a_problem_in_a_batch_is_the_problem_alone_and_is_evaluated_no_more_when_done(problems):
    function, curvature, ridge = problems
    seen = torch.zeros(5, dtype=torch.long)

    def counting(points, index):
        seen[index] += 1
        return function(points, index)

    start = torch.zeros(5, 8, dtype=torch.float64)
    together = minimise(counting, start, curvature, ridge, **OPTIONS)
    assert torch.equal(seen, together.evaluations)
    assert len(set(seen.tolist())) > 1
    for problem in range(5):
        among = torch.arange(5) == problem
        alone = minimise(function, start, curvature, ridge, among=among, **OPTIONS)
        # Rounding may move the step at which a gradient is small enough.
        assert (alone.evaluations - together.evaluations * among).abs().max() <= 2
        torch.testing.assert_close(alone.point[problem], together.point[problem], rtol=1e-9, atol=1e-11)
        assert torch.equal(alone.point[~among], start[~among])


def test_where_the_steps_run_out_the_flag_says_so(problems):
    function, curvature, ridge = problems
    start = torch.zeros(5, 8, dtype=torch.float64)
    assert not minimise(function, start, curvature, ridge, **OPTIONS | {"max_iterations": 2}).converged.any()


def test_a_function_that_cannot_decrease_ends_the_search_and_is_flagged():
    """A gradient that contradicts its function: no step is found."""

    def function(points, index):
        return points.sum(1), -torch.ones_like(points)

    ones = torch.ones(2, 3, dtype=torch.float64)
    found = minimise(function, ones, ones, ones, **OPTIONS)
    assert not found.converged.any()
    assert torch.equal(found.point, ones)
    assert (found.evaluations == 1 + MAX_TRIALS).all()


def test_rounding_of_the_value_does_not_end_the_search():
    """A value known to 1e-6 with an exact gradient, as in float32: the gradient leads to its zero nevertheless."""

    def function(points, index):
        return (0.5 * points.square().sum(1) * 1e6).round() / 1e6, points * torch.linspace(1, 1, 3)

    start = torch.tensor([[3.0, -2.0, 1.0]], dtype=torch.float64)
    guess = torch.tensor([[5.0, 0.3, 1.0]], dtype=torch.float64)
    found = minimise(function, start, guess, 0 * guess, **OPTIONS | {"rounding": 2e-6})
    assert found.converged.all()
    assert found.point.abs().max() <= 1e-9


def test_the_last_pair_is_a_secant_at_any_ridge():
    """H maps the last change of gradient, with the ridge's part at its present size, to the step."""
    generator = torch.Generator().manual_seed(0)
    steps, guess = torch.randn(4, 2, 6, generator=generator, dtype=torch.float64), torch.ones(2, 6, dtype=torch.float64)
    both, first = torch.arange(2), torch.tensor([0])
    pairs, hessian = Pairs(guess), torch.diag(torch.arange(1.0, 7.0, dtype=torch.float64))
    for step in steps[:3]:
        pairs.add(both, step, step @ hessian)
    pairs.add(first, steps[3, :1], steps[3, :1] @ hessian)  # the other stood still: its last is the one before
    last = torch.stack([steps[3, 0], steps[2, 1]])
    for ridge in (0 * guess, 3 * guess):
        change = last @ hessian + ridge * last
        torch.testing.assert_close(pairs.direction(both, change, guess, ridge), -last)


def test_a_problem_that_stands_still_keeps_its_pairs_however_many_the_others_add():
    generator = torch.Generator().manual_seed(0)
    steps = torch.randn(3 * NUM_PAIRS, 2, 6, generator=generator, dtype=torch.float64)
    pairs, alone, guess = Pairs(steps[0]), Pairs(steps[0]), torch.ones(2, 6, dtype=torch.float64)
    still, other = torch.tensor([0]), torch.tensor([1])
    for step in steps[:4]:
        for each in (pairs, alone):
            each.add(still, step[:1], 2 * step[:1])
    for step in steps:
        pairs.add(other, step[1:], 3 * step[1:])
    gradient = steps[5]
    found = pairs.direction(torch.arange(2), gradient, guess, guess)
    expected = alone.direction(still, gradient[:1], guess[:1], guess[:1])
    torch.testing.assert_close(found[:1], expected, rtol=1e-9, atol=1e-12)
    for step in steps[-NUM_PAIRS:]:  # and of the other no more than the last count
        alone.add(other, step[1:], 3 * step[1:])
    expected = alone.direction(other, gradient[1:], guess[1:], guess[1:])
    torch.testing.assert_close(found[1:], expected, rtol=1e-9, atol=1e-12)


def test_pairs_of_a_quadratic_hold_for_another_ridge():
    """They know all of its curvature: with them, the minimum at another ridge takes fewer evaluations."""
    H = torch.diag(torch.tensor([1.0, 10.0, 100.0], dtype=torch.float64))
    b = torch.tensor([[1.0, -2.0, 3.0]], dtype=torch.float64)

    def function_of(ridge):
        def function(points, index):
            hessian = H + ridge * torch.eye(3, dtype=torch.float64)
            return 0.5 * (points @ hessian * points).sum(1) - (points * b).sum(1), points @ hessian - b

        return function

    guess = torch.ones(1, 3, dtype=torch.float64)
    pairs = Pairs(guess)
    first = minimise(function_of(1.0), 0 * b, guess, guess, pairs=pairs, **OPTIONS)
    second = minimise(function_of(0.5), first.point, guess, 0.5 * guess, pairs=pairs, **OPTIONS)
    cold = minimise(function_of(0.5), first.point, guess, 0.5 * guess, **OPTIONS)
    torch.testing.assert_close(second.point, b / (H.diagonal() + 0.5))
    assert second.evaluations < cold.evaluations

"""Examples of a problem of several components. Letters: N examples, K classes, d inputs, r components."""

from dataclasses import dataclass

import torch
from torch import Tensor

from muonlab.studies.components.theory.problem import Problem


@dataclass(frozen=True, eq=False)
class Examples:
    """Examples of a problem, with what they are made of.

    Attributes:
        inputs: (N, d).
        labels: (N,) classes, int64.
        coefficients: (N, r) float64: c_k of each example; that of its label, but for spurious components.
        noise: (N, d) float64, what is added to the components.
    """

    inputs: Tensor
    labels: Tensor
    coefficients: Tensor
    noise: Tensor


def draw(
    problem: Problem,
    number: int,
    generator: torch.Generator,
    *,
    noise: float = 0.0,
    spurious: int = 0,
    dtype: torch.dtype = torch.float32,
) -> Examples:
    """Draw x = sum_k s_k c_k(y) u_k + noise * xi, with xi ~ N(0, I).

    Every class has its prior's share of the examples, rounded, and their order is random. So with equal priors, no
    noise and a number that is a multiple of K, a mean over examples is that over classes.

    Args:
        problem: the problem.
        number: N.
        generator: what the order, the spurious coefficients and the noise are drawn from; a CPU one.
        noise: standard deviation of the noise in each input.
        spurious: number of the weakest components that carry no information: each example takes their c_k from one
            class, drawn anew with the priors.
        dtype: of the inputs.

    Raises:
        ValueError: no examples, noise below 0, or spurious components out of range.

    Example:
        >>> import torch, muonlab
        >>> from muonlab.studies.components.theory.problem import build
        >>> train = draw(build(classes=8, dimension=32), 256, torch.Generator().manual_seed(0), noise=0.1)
        >>> net = torch.nn.Linear(32, 8, bias=False)
        >>> optimizer = muonlab.Muon(net.parameters(), lr=0.1, weight_decay=0.0)
        >>> for _ in range(60):
        ...     loss = torch.nn.functional.cross_entropy(net(train.inputs), train.labels)
        ...     optimizer.zero_grad()
        ...     loss.backward()
        ...     optimizer.step()
        >>> float((net(train.inputs).argmax(1) == train.labels).float().mean()) > 0.99
        True
    """
    if number < 1:
        raise ValueError(f"{number} examples: expected one or more")
    if noise < 0:
        raise ValueError(f"noise={noise:g}: expected 0 or more")
    if not 0 <= spurious <= problem.rank:
        raise ValueError(f"spurious={spurious} of {problem.rank} components: expected 0 to {problem.rank}")
    priors, patterns = torch.from_numpy(problem.priors), torch.from_numpy(problem.patterns)
    ordered = torch.arange(problem.num_classes).repeat_interleave(_counts(priors, number))
    labels = ordered[torch.randperm(number, generator=generator)]
    others = torch.multinomial(priors, number, replacement=True, generator=generator)
    coefficients = patterns[labels]  # (N, r)
    if spurious:
        coefficients[:, -spurious:] = patterns[others, -spurious:]
    added = noise * torch.randn(number, problem.dimension, generator=generator, dtype=torch.float64)
    inputs = coefficients @ _steered(problem) + added
    return Examples(inputs.to(dtype), labels, coefficients, added)


def means(problem: Problem, spurious: int = 0) -> Tensor:
    """Return E[x | y] for every class y, (K, d) in float64: of spurious components there is left their mean alone."""
    coefficients = torch.from_numpy(problem.patterns).clone()  # (K, r)
    if spurious:
        priors = torch.from_numpy(problem.priors).clone()  # aligned as torch aligns (docs/design/same-bytes.md)
        coefficients[:, -spurious:] = priors @ coefficients[:, -spurious:]
    return coefficients @ _steered(problem)


def strongest(problem: Problem) -> Tensor:
    """Return which components (r,), bool, are on the strongest level: the root's of a tree, else the first."""
    levels = torch.from_numpy(problem.levels)
    return levels == levels[0]


def removed(problem: Problem, examples: Examples, components: Tensor) -> Tensor:
    """Return the inputs (N, d) with some components, (r,) bool, taken out."""
    return _with(problem, examples, components, torch.zeros_like(examples.coefficients))


def swapped(problem: Problem, examples: Examples, components: Tensor, generator: torch.Generator) -> Tensor:
    """Return the inputs (N, d) with some components, (r,) bool, of another class.

    Each example takes them from one class that is drawn evenly among those that are not its own.
    """
    steps = torch.randint(1, problem.num_classes, examples.labels.shape, generator=generator)
    others = (examples.labels + steps) % problem.num_classes
    return _with(problem, examples, components, torch.from_numpy(problem.patterns)[others])


def _with(problem: Problem, examples: Examples, components: Tensor, coefficients: Tensor) -> Tensor:
    # Made anew, not taken off the inputs: what rounding would leave of a component is enough to tell classes apart.
    given = torch.where(components, coefficients, examples.coefficients)
    return (given @ _steered(problem) + examples.noise).to(examples.inputs.dtype)


def _steered(problem: Problem) -> Tensor:
    """Return diag(s) U', (r, d)."""
    return torch.from_numpy(problem.strengths)[:, None] * torch.from_numpy(problem.directions).mT


def _counts(priors: Tensor, number: int) -> Tensor:
    """Return how many examples each class has (K,): its share, the largest remainders rounded up."""
    shares = priors * number
    counts = shares.floor().long()
    left = (counts - shares).argsort(stable=True)[: number - int(counts.sum())]
    counts[left] += 1
    return counts

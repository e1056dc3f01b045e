"""What a simulation trains on and with: problems and examples of its seeds, the net, its loss and its optimizer.

Letters: P seeds, N examples, K classes, d inputs, r components, B batch.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from muonlab.nets import named
from muonlab.studies.components.config import OF_BIASES, SGD, AdamW, Components, Muon, Net, Simulate
from muonlab.studies.components.theory.problem import Problem, build
from muonlab.train import optimizers, seeds
from muonlab.train.by_rule import Treatment
from muonlab.train.seeds import fold_in, generator

# -- examples of one problem -----------------------------------------------------------------------


class Examples(NamedTuple):
    """Examples of a problem, with what they are made of."""

    inputs: Tensor  # (N, d)
    labels: Tensor  # (N,) int64
    coefficients: Tensor  # (N, r) float64: c_k of each example; that of its label, but for spurious components
    noise: Tensor  # (N, d) float64, what is added to the components


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
    noise and a number that is a multiple of K, a mean over examples is that over classes. Each example takes the c_k of
    the last `spurious` components from one class, drawn with the priors.
    """
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
    """Return E[x | y] for every class y, (K, d) in float64: of spurious components only their mean is left."""
    coefficients = torch.from_numpy(problem.patterns).clone()  # (K, r)
    if spurious:
        priors = torch.from_numpy(problem.priors).clone()  # aligned as torch aligns (docs/design/same-bytes.md)
        coefficients[:, -spurious:] = priors @ coefficients[:, -spurious:]
    return coefficients @ _steered(problem)


def removed(problem: Problem, examples: Examples) -> Tensor:
    """Return the inputs (N, d) without the strongest components: those of the tree's root, else the first."""
    return _with_strongest(problem, examples, torch.zeros_like(examples.coefficients))


def swapped(problem: Problem, examples: Examples, generator: torch.Generator) -> Tensor:
    """Return the inputs (N, d) with the strongest components of another class, for each example drawn evenly."""
    steps = torch.randint(1, problem.num_classes, examples.labels.shape, generator=generator)
    others = (examples.labels + steps) % problem.num_classes
    return _with_strongest(problem, examples, torch.from_numpy(problem.patterns)[others])


def _with_strongest(problem: Problem, examples: Examples, coefficients: Tensor) -> Tensor:
    # Made again, not taken off the inputs: what rounding would leave of a component is enough to tell classes apart.
    strongest = torch.from_numpy(problem.levels == problem.levels[0])  # (r,)
    given = torch.where(strongest, coefficients, examples.coefficients)
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


# -- all seeds of a job ----------------------------------------------------------------------------


Material = dict[str, Tensor]  # see `build_material`


def streams(job: Simulate) -> dict[int, int]:
    """Return seed -> seed of its random streams, which follow from problem and net; those of the search first."""
    trained = {"components": job.components.model_dump(mode="json"), "net": job.net.model_dump()}
    everyone = (*job.search_seeds, *job.seeds)
    return dict(zip(everyone, seeds.streams(trained, everyone), strict=True))


def build_problem(components: Components, seed: int) -> Problem:
    """Return the problem of a seed's stream."""
    drawn = {"noise", "spurious", "train", "validation", "test"}
    return build(**components.model_dump(exclude=drawn), seed=fold_in(seed, "problem"))


def build_material(components: Components, seeds: Sequence[int], device: str) -> Material:
    """Return problems and examples of P seeds' streams, stacked.

    Returns:
        "train", "validation", "test": inputs (P, N, d) in float32, and with "_labels" the classes (P, N); "removed" and
        "swapped": test inputs without their strongest components, and with those of another class; "means": (P, K, d)
        the class means, "marked" as they would be if no component were spurious; "patterns": (P, K, r) float64.
    """
    made = [_of_seed(components, build_problem(components, seed), seed) for seed in seeds]
    return {name: torch.stack([each[name] for each in made]).to(device) for name in made[0]}


def _of_seed(components: Components, problem: Problem, seed: int) -> Material:
    added = {"noise": components.noise, "spurious": components.spurious}
    found: Material = {}
    for side in ("train", "validation", "test"):
        examples = draw(problem, getattr(components, side), generator(seed, side), **added)
        found |= {side: examples.inputs, f"{side}_labels": examples.labels}
    return {
        **found,
        "removed": removed(problem, examples),  # of the test, which was drawn last
        "swapped": swapped(problem, examples, generator(seed, "swapped")),
        "means": means(problem, components.spurious).float(),
        "marked": means(problem).float(),
        "patterns": torch.from_numpy(problem.patterns),
    }


# -- what is trained -------------------------------------------------------------------------------


def softmax(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the cross-entropy of logits (B, K) and labels (B,), one per example, (B,).

    That of `muonlab.losses.softmax` to rounding, in a third of the time where classes are few: with the classes last,
    torch takes each example's few for a vector of its own.
    """
    return F.cross_entropy(logits.mT.contiguous()[None], labels[None], reduction="none")[0]


def squared(logits: Tensor, labels: Tensor) -> Tensor:
    """Return 1/2 |z - (e_y - 1/K)|^2 of logits (B, K) and labels (B,), one per example, (B,)."""
    num_classes = logits.shape[-1]
    targets = F.one_hot(labels, num_classes).to(logits.dtype) - 1 / num_classes
    return 0.5 * (logits - targets).square().sum(-1)


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"softmax": softmax, "squared": squared}


def build_net(components: Components, net: Net) -> nn.Module:
    """Return the net of a job, with weights of torch's global generator."""
    sizes = {"inputs": components.dimension, "classes": components.classes}
    if net.depth == 0:
        return named.build("linear", sizes, bias=False)
    return named.build("mlp", sizes, **net.model_dump())


def treatments(
    net: nn.Module, optimizer: SGD | AdamW | Muon, rates: Sequence[float], device: str = "cpu"
) -> dict[str, Treatment]:
    """Return parameter name -> treatment, with a learning rate per member.

    AdamW takes the biases that Muon leaves.
    """
    lr = {"lr": optimizers.by_member(rates, device)}
    hyper, others = {**lr, **optimizer.model_dump(exclude={"name"})}, None
    if isinstance(optimizer, Muon):
        hyper = {key: value for key, value in hyper.items() if key not in OF_BIASES} | {"adjust_lr_fn": "none"}
        others = {**lr, **{key: getattr(optimizer, key) for key in ("weight_decay", *OF_BIASES)}}
    return optimizers.treatments(net, optimizer.name, hyper, others=others, takes="matrices")

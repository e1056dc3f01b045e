"""The setting of a simulation: a problem and examples per seed, the net, its loss and its optimizer.

Letters: K classes, d inputs, r components, N examples, B batch.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from muonlab.nets import named
from muonlab.studies.components.config import OF_BIASES, SGD, AdamW, Components, Muon, Net, Simulate
from muonlab.studies.components.theory.problem import Problem, build
from muonlab.studies.components.work.examples import draw, means, removed, strongest, swapped
from muonlab.train import optimizers, seeds
from muonlab.train.by_rule import Treatment
from muonlab.train.seeds import fold_in, generator


@dataclass(frozen=True, eq=False)
class Material:
    """Problems and examples of P seeds, stacked; inputs (P, N, d) in float32, labels (P, N).

    Attributes:
        train, validation, test: inputs.
        train_labels, validation_labels, test_labels: classes.
        removed: test inputs without their strongest components.
        swapped: test inputs with the strongest components of another class.
        means: (P, K, d) the class means.
        marked: (P, K, d) the class means as they would be if no component were spurious.
        patterns: (P, K, r) float64.
    """

    train: Tensor
    train_labels: Tensor
    validation: Tensor
    validation_labels: Tensor
    test: Tensor
    test_labels: Tensor
    removed: Tensor
    swapped: Tensor
    means: Tensor
    marked: Tensor
    patterns: Tensor

    def of(self, seeds: Tensor) -> "Material":
        """Return that of some seeds, by their positions (M,), each as often as it is named."""
        return Material(**{field.name: getattr(self, field.name)[seeds] for field in fields(self)})


def streams(job: Simulate) -> dict[int, int]:
    """Return seed -> seed of its random streams, which follow from problem and net."""
    trained = {"components": job.components.model_dump(mode="json"), "net": job.net.model_dump()}
    everyone = (*job.search_seeds, *job.seeds)
    return dict(zip(everyone, seeds.streams(trained, everyone), strict=True))


def build_problem(components: Components, seed: int) -> Problem:
    """Return the problem of a seed's stream."""
    drawn = {"noise", "spurious", "train", "validation", "test"}
    return build(**components.model_dump(exclude=drawn), seed=fold_in(seed, "problem"))


def build_material(components: Components, seeds: Sequence[int], device: str) -> Material:
    """Return the material of the seeds' streams."""
    made = [_of_seed(components, build_problem(components, seed), seed) for seed in seeds]
    return Material(**{name: torch.stack([each[name] for each in made]).to(device) for name in made[0]})


def _of_seed(components: Components, problem: Problem, seed: int) -> dict[str, Tensor]:
    sides = {}
    for side in ("train", "validation", "test"):
        sides[side] = draw(
            problem,
            getattr(components, side),
            generator(seed, side),
            noise=components.noise,
            spurious=components.spurious,
        )
    test, strong = sides["test"], strongest(problem)
    return {
        **{side: examples.inputs for side, examples in sides.items()},
        **{f"{side}_labels": examples.labels for side, examples in sides.items()},
        "removed": removed(problem, test, strong),
        "swapped": swapped(problem, test, strong, generator(seed, "swapped")),
        "means": means(problem, components.spurious).float(),
        "marked": means(problem).float(),
        "patterns": torch.from_numpy(problem.patterns),
    }


# -- what is trained -----------------------------------------------------------------------------------


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

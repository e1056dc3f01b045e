"""What the members of a simulation see: a problem and examples for every seed. Letters: K classes, d inputs, r, N."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from muonlab.jobs.job import canonical_json
from muonlab.studies.components.config import Components, Simulate
from muonlab.studies.components.theory.problem import Problem, build
from muonlab.studies.components.work.examples import draw, means, removed, strongest, swapped
from muonlab.train.orders import Orders
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
    """Return seed -> seed of its random streams, which follows from problem and net, and from no optimizer.

    So all optimizers and rates give a seed the same problem, examples, batches and initial weights.
    """
    trained = canonical_json({"components": job.components.model_dump(mode="json"), "net": job.net.model_dump()})
    return {seed: fold_in(seed, trained) for seed in (*job.search_seeds, *job.seeds)}


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


class Seen:
    """What the members that are left see: batches of training, and both sides whole.

    Attributes:
        sides: "train" and "validation" -> inputs (S, N, d) and labels (S, N).

    Args:
        material: of all seeds.
        places: position of each member's seed.
        batching: examples of a batch, and streams of all seeds; None takes all examples in every step.
    """

    def __init__(self, material: Material, places: Sequence[int], batching: tuple[int, Sequence[int]] | None):
        index = torch.tensor(places)
        self.sides = {
            "train": (material.train[index], material.train_labels[index]),
            "validation": (material.validation[index], material.validation_labels[index]),
        }
        self._orders = Orders(material.train.shape[1], *batching) if batching else None
        self._places = index

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Return the inputs (S, B, d) and labels (S, B) of a step."""
        inputs, labels = self.sides["train"]
        if self._orders is None:
            return inputs, labels
        rows = self._orders(step)[self._places].to(labels.device)  # (S, B)
        return inputs.gather(1, rows[..., None].expand(-1, -1, inputs.shape[2])), labels.gather(1, rows)

    def keep(self, members: Sequence[int]) -> None:
        """Drop all members but those, given by their positions."""
        index = torch.tensor(members)
        self.sides = {side: (inputs[index], labels[index]) for side, (inputs, labels) in self.sides.items()}
        self._places = self._places[index]

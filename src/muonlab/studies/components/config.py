"""The schema of the components study's jobs: everything that decides the result of a job, as plain frozen data."""

import math
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, TypeAdapter, model_validator

from muonlab.study import optimizers
from muonlab.study.fields import Count, Frozen, Rate
from muonlab.study.optimizers import CoupledDecay, WeightDecay

# Raised by hand when a change of the code alters results. The commit is recorded next to a result, not hashed.
RESULTS_VERSION = 1

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Seeds = Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)]
Loss = Literal["softmax", "squared"]
OF_BIASES = ("beta1", "beta2", "eps")  # of AdamW, which has the biases that Muon leaves


class Components(BaseModel):
    """A problem of several components, and how much of it a member sees.

    x | y = sum_k s_k c_k(y) u_k + noise * xi with xi ~ N(0, I); `theory.problem.build` says what its settings
    mean. A member's seed draws the directions u_k, random patterns, the order of the priors and all examples.

    Attributes:
        classes: K.
        dimension: d.
        rank: r, the number of components; K - 1 by default.
        patterns: of the classes, on a tree or random.
        tree: children of every node, level by level from the root; by default the prime factors of K.
        strengths: how they fall; or numbers, one for each level of a tree, or for each component without one.
        ratio: strongest over weakest, for strengths that are named.
        scale: the largest strength, for strengths that are named.
        rotation: of the directions, 0 on the basis vectors, 1 random.
        imbalance: largest prior over the smallest.
        noise: standard deviation of the noise in each input.
        spurious: number of the weakest components that carry no information: every example, of training and test
            alike, takes their c_k from a class drawn at random. If all are spurious, nothing but memorising helps.
        train, validation, test: number of examples.
    """

    model_config = Frozen
    classes: Annotated[int, Field(le=1024)] = 8
    dimension: Annotated[int, Field(ge=1, le=1024)] = 32
    rank: Count | None = None
    patterns: Literal["tree", "random"] = "tree"
    tree: tuple[int, ...] | None = None
    strengths: Literal["geometric", "power", "equal"] | tuple[float, ...] = "geometric"
    ratio: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 4.0
    scale: Positive = 2.0
    rotation: Annotated[float, Field(ge=0, le=1)] = 1.0
    imbalance: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 1.0
    noise: Rate = 0.1
    spurious: Annotated[int, Field(ge=0)] = 0
    train: Count = 256
    validation: Count = 512
    test: Count = 512

    # Each message as `theory.problem.build` has it, which asks for numpy: here a job is refused before it runs.
    @model_validator(mode="after")
    def _components_fit(self):
        if self.classes < 2:
            raise ValueError(f"classes={self.classes}: expected two or more")
        number = self.num_components
        if number >= self.classes:
            raise ValueError(
                f"rank={number} for {self.classes} classes: expected 1 to {self.classes - 1}, as patterns of "
                f"{self.classes} classes that sum to zero span {self.classes - 1} dimensions at most"
            )
        if number > self.dimension:
            raise ValueError(
                f"{number} components in {self.dimension} inputs: directions are orthonormal, so raise dimension to "
                f"{number} or more, or lower rank"
            )
        if self.spurious > number:
            raise ValueError(f"spurious={self.spurious} of {number} components: expected 0 to {number}")
        return self

    @model_validator(mode="after")
    def _tree_has_the_classes(self):
        if self.tree is None:
            return self
        if self.patterns != "tree":
            raise ValueError(f"tree={self.tree} without patterns='tree': leave it out")
        if any(children < 2 for children in self.tree):
            raise ValueError(f"tree {self.tree}: expected two children or more on every level, as in (2, 2, 2)")
        if math.prod(self.tree) != self.classes:
            raise ValueError(
                f"tree={self.tree} has {math.prod(self.tree)} classes, but classes={self.classes}: its numbers must "
                f"multiply to {self.classes}"
            )
        return self

    @model_validator(mode="after")
    def _strengths_fall(self):
        given = self.strengths
        if isinstance(given, str):
            return self
        falls = all(first >= second for first, second in pairwise(given))
        if not (given and falls and all(math.isfinite(each) and each > 0 for each in given)):
            raise ValueError(f"strengths={list(given)}: expected numbers above 0 that do not rise, strongest first")
        return self

    @property
    def num_components(self) -> int:
        """r."""
        return self.classes - 1 if self.rank is None else self.rank


class Net(BaseModel):
    """A linear classifier without bias, from zero, or a `muonlab.nets.mlp.MLP`.

    Attributes:
        depth: hidden layers; none is the linear classifier.
        width: D, of a hidden layer.
        activation: of a hidden layer.
    """

    model_config = Frozen
    depth: Annotated[int, Field(ge=0, le=2)] = 0
    width: Annotated[int, Field(ge=1, le=4096)] = 64
    activation: Literal["relu", "gelu"] = "relu"


# Weights decay by nothing here, so that W has the norm that the closed forms say.
class SGD(optimizers.SGD):
    """SGD with momentum, for every parameter."""

    added = frozenset({"nesterov"})
    weight_decay: CoupledDecay = 0.0


class AdamW(optimizers.AdamW):
    """AdamW for every parameter."""

    weight_decay: WeightDecay = 0.0


class Muon(optimizers.Muon):
    """Muon for every matrix, the head too, as the theory is of W itself; AdamW of the same rate for biases.

    A step has spectral norm one times the rate, whatever the shape (adjust_lr_fn="none").
    """

    added = frozenset({"steps", *OF_BIASES})
    weight_decay: WeightDecay = 0.0
    method: Literal["quintic", "exact"] = Field("quintic", description="of the orthogonalisation")


Optimizer = Annotated[SGD | AdamW | Muon, Field(discriminator="name")]


class _Job(BaseModel):
    model_config = Frozen
    results_version: int = RESULTS_VERSION
    study: Literal["components"] = "components"
    components: Components


class Simulate(_Job):
    """Train one member for each rate and seed, and read its measures where its training loss is first at most eps.

    Attributes:
        batch: examples of a step; None takes all of training.
        budget: steps.
        looks: evaluations, at steps that grow geometrically from 1; those that fall on one step are one.
        eps: losses at which measures are read.
        rates: learning rates, members of one population.
        seeds: of members that are compared.
        search_seeds: of members by which a rate is chosen, others than those.
    """

    kind: Literal["simulate"] = "simulate"
    net: Net = Net()
    loss: Loss = "softmax"
    optimizer: Optimizer
    batch: Count | None = None
    budget: Annotated[int, Field(ge=1, le=10**7)] = 600
    looks: Annotated[int, Field(ge=1, le=1000)] = 80
    eps: Annotated[tuple[Positive, ...], Field(min_length=1)]
    rates: Annotated[tuple[Rate, ...], Field(min_length=1)]
    seeds: Seeds
    search_seeds: tuple[Annotated[int, Field(ge=0)], ...] = ()

    @model_validator(mode="after")
    def _batch_is_of_the_training(self):
        if self.batch is not None and self.batch > self.components.train:
            raise ValueError(
                f"batch={self.batch} of {self.components.train} training examples: expected at most as many, or None "
                "for all of them"
            )
        return self

    @model_validator(mode="after")
    def _seeds_differ(self):
        everyone = (*self.search_seeds, *self.seeds)
        if twice := sorted({seed for seed in everyone if everyone.count(seed) > 1}):
            raise ValueError(
                f"seed {twice[0]} is there twice among seeds {self.seeds} and search_seeds {self.search_seeds}: a seed "
                "that has chosen a rate cannot judge it"
            )
        return self

    @property
    def steps(self) -> tuple[int, ...]:
        """Steps after which there is an evaluation: 0, 1, then geometrically to the budget."""
        grown = {round(self.budget ** (look / self.looks)) for look in range(self.looks + 1)}
        return (0, *sorted(grown))


class Agree(_Job):
    """Train W on the class means alone, with ever smaller steps, and hold it to the closed form.

    Attributes:
        components: without noise.
        flow: "gradient" by SGD, "spectral" by Muon with exact polar factors, "sign" by AdamW without averages.
        time: at which both are compared. Sign descent is known in closed form for small logits alone, so there time
            falls too: n steps end at time * steps[0] / n.
        steps: numbers of steps, each twice the one before it; a step's size is its time over their number.
    """

    kind: Literal["agree"] = "agree"
    loss: Loss = "softmax"
    flow: Literal["gradient", "spectral", "sign"]
    time: Positive
    steps: Annotated[tuple[Annotated[int, Field(ge=1, le=10**6)], ...], Field(min_length=2)]

    @model_validator(mode="after")
    def _steps_double(self):
        if any(second != 2 * first for first, second in pairwise(self.steps)):
            raise ValueError(f"steps={self.steps}: expected doublings, as in (50, 100, 200)")
        return self

    @model_validator(mode="after")
    def _has_a_closed_form(self):
        given = self.components
        if given.noise or given.spurious:
            raise ValueError(
                f"noise={given.noise:g}, spurious={given.spurious}: the closed forms are of class means; expected 0, 0"
            )
        if self.flow == "sign":
            return self
        if given.imbalance != 1:
            raise ValueError(f"imbalance={given.imbalance:g} with flow={self.flow}: its closed form needs equal priors")
        if self.loss == "softmax" and given.patterns != "tree":
            raise ValueError(
                f"patterns={given.patterns} with loss=softmax and flow={self.flow}: the closed form is that of a tree"
            )
        return self


JobConfig = Annotated[Simulate | Agree, Field(discriminator="kind")]


_JOB: TypeAdapter[Simulate | Agree] = TypeAdapter(JobConfig)


def read(config: dict[str, Any]) -> Simulate | Agree:
    """Return the job of a config."""
    return _JOB.validate_python(config)

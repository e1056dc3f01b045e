"""The schema of the components study's jobs: everything that decides the result of a job, as plain frozen data."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, TypeAdapter

from muonlab.study import optimizers
from muonlab.study.fields import Count, Frozen, Rate
from muonlab.study.optimizers import CoupledDecay, WeightDecay

# Raised by hand when a change of the code alters results. The commit is recorded next to a result, not hashed.
RESULTS_VERSION = 1

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
AtLeastOne = Annotated[float, Field(ge=1, allow_inf_nan=False)]
Seed = Annotated[int, Field(ge=0)]
Loss = Literal["softmax", "squared"]
OF_BIASES = ("beta1", "beta2", "eps")  # of AdamW, which has the biases that Muon leaves


class Components(BaseModel):
    """A problem of several components, and the examples of it that a run sees.

    x | y = sum_k s_k c_k(y) u_k + noise * xi with xi ~ N(0, I). The fields up to `imbalance` are arguments of
    `theory.problem.build`, which refuses what cannot be; docs/settings.md explains all of them. A run's seed draws the
    directions u_k, random patterns, the order of the priors and all examples.
    """

    model_config = Frozen
    classes: Annotated[int, Field(le=1024)] = 8
    dimension: Annotated[int, Field(ge=1, le=1024)] = 32
    rank: Count | None = None
    patterns: Literal["tree", "random"] = "tree"
    tree: tuple[int, ...] | None = None
    strengths: Literal["geometric", "power", "equal"] | tuple[float, ...] = "geometric"
    ratio: AtLeastOne = 4.0
    scale: Positive = 2.0
    rotation: Annotated[float, Field(ge=0, le=1)] = 1.0
    imbalance: AtLeastOne = 1.0
    noise: Rate = 0.1
    # So many of the weakest components carry no information: every example, of training and test alike, takes their
    # c_k from a class drawn at random. If all are spurious, nothing but memorising helps.
    spurious: Annotated[int, Field(ge=0)] = 0
    train: Count = 256
    validation: Count = 512
    test: Count = 512

    @property
    def num_components(self) -> int:
        """r."""
        return self.classes - 1 if self.rank is None else self.rank

    def without_noise(self) -> "Components":
        """Return the problem of the class means alone, which the closed forms are about."""
        return self.model_copy(update={"noise": 0.0, "spurious": 0})


class Net(BaseModel):
    """A `muonlab.nets.mlp.MLP`; at depth 0 a linear classifier without bias, from zero."""

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

    added = frozenset({"steps", "variant", *OF_BIASES}) | optimizers.OF_PARTS
    weight_decay: WeightDecay = 0.0
    method: Literal["quintic", "exact"] = Field("quintic", description="of the orthogonalisation")


Optimizer = Annotated[SGD | AdamW | Muon, Field(discriminator="name")]


class _Job(BaseModel):
    model_config = Frozen
    results_version: int = RESULTS_VERSION
    study: Literal["components"] = "components"
    components: Components


class Simulate(_Job):
    """Train one run for each rate and seed, and measure it where its training loss is first at most eps."""

    kind: Literal["simulate"] = "simulate"
    net: Net = Net()
    loss: Loss = "softmax"
    optimizer: Optimizer
    batch: Count | None = None  # None takes all of training
    budget: Annotated[int, Field(ge=1, le=10**7)] = 600
    looks: Annotated[int, Field(ge=1, le=1000)] = 80
    eps: Annotated[tuple[Positive, ...], Field(min_length=1)]
    rates: Annotated[tuple[Rate, ...], Field(min_length=1)]
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)]  # of runs that are compared
    search_seeds: tuple[Seed, ...] = ()  # of runs by which a rate is chosen

    @property
    def steps(self) -> tuple[int, ...]:
        """Steps after which there is an evaluation: 0, 1, then geometrically to the budget, each once."""
        grown = {round(self.budget ** (look / self.looks)) for look in range(self.looks + 1)}
        return (0, *sorted(grown))


class Agree(_Job):
    """Train W on the class means alone, with ever smaller steps, and compare it with the closed form.

    Gradient flow is the limit of SGD, spectral flow of Muon with exact polar factors, sign descent of AdamW without
    averages. Sign descent is known in closed form for small logits alone, so its time falls too: n steps end at time *
    steps[0] / n.
    """

    kind: Literal["agree"] = "agree"
    loss: Loss = "softmax"
    flow: Literal["gradient", "spectral", "sign"]
    time: Positive  # at which both are compared
    # numbers of steps, each twice the one before it; a step's size is the time over their number
    steps: Annotated[tuple[Annotated[int, Field(ge=1, le=10**6)], ...], Field(min_length=2)]


_JOB: TypeAdapter[Simulate | Agree] = TypeAdapter(Annotated[Simulate | Agree, Field(discriminator="kind")])


def read(config: dict[str, Any]) -> Simulate | Agree:
    """Return the job of a config."""
    return _JOB.validate_python(config)

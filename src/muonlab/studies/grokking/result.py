"""The schema of a cell's result.json: what was seen of every member. Times on the clock are in env.json, not here."""

from pydantic import BaseModel

from muonlab.study.fields import Frozen

# What a line of metrics.jsonl holds of every member, in addition to step and epoch.
QUANTITIES = ("train_loss", "train_accuracy", "validation_loss", "validation_accuracy")


class Crossing(BaseModel):
    """When a member crossed: after `after_step` and not later than `step`, as far as the cadence tells."""

    model_config = Frozen
    step: int  # optimizer steps at the evaluation that saw the crossing
    after_step: int  # at the evaluation before it
    epoch: float  # examples drawn by then over the size of the train set
    flops: float  # floating-point operations of matrix products by then, in training alone


class MemberResult(BaseModel):
    """One run. A crossing is null where there was none, and then its reason says why."""

    model_config = Frozen
    seed: int
    first_crossing: Crossing | None  # first evaluation at or above the threshold, train accuracy having reached its own
    first_crossing_reason: str | None
    sustained_crossing: Crossing | None  # first such evaluation from which on it stayed
    sustained_crossing_reason: str | None
    minimum_after_crossing: float | None  # smallest validation accuracy seen after the first crossing
    best_validation_accuracy: float | None
    last_step: int  # of its last evaluation: a member leaves the population once its outcome is decided
    last_train_accuracy: float | None
    last_validation_accuracy: float | None
    diverged_at: int | None  # first evaluation with a loss that is not finite


class CellResult(BaseModel):
    """All members of a cell, and the sizes that put their numbers into proportion."""

    model_config = Frozen
    cell: str  # its id
    chance: float  # accuracy of the best constant answer over all rows
    num_train: int  # rows trained on, as many for every member
    num_validation: int
    num_parameters: int  # of one member
    num_evaluations: int  # up to the budget
    flops_per_step: float  # floating-point operations of matrix products in one step of one member
    members: tuple[MemberResult, ...]

"""The schema of a cell's result.json: what was seen of every member. Times on the clock are in env.json, not here."""

from pydantic import BaseModel

from muonlab.study.fields import Frozen

# What a line of metrics.jsonl holds of every member, beside step and epoch.
QUANTITIES = ("train_loss", "train_accuracy", "validation_loss", "validation_accuracy")


class Crossing(BaseModel):
    """When a member crossed: somewhere after `after_step` and not later than `step`, as the cadence has it.

    Attributes:
        step: optimizer steps at the evaluation that saw the crossing.
        after_step: steps at the evaluation before it (the times are interval-censored by the cadence).
        epoch: examples drawn by then, divided by the size of the train set.
        flops: floating-point operations of matrix products by then, in training alone.
    """

    model_config = Frozen
    step: int
    after_step: int
    epoch: float
    flops: float


class MemberResult(BaseModel):
    """One run. A crossing is null where there was none, and then its reason says why.

    Attributes:
        seed: seed of the member.
        first_crossing: first evaluation at or above the threshold, train accuracy having been at or above its own.
        sustained_crossing: first such evaluation from which on it stayed, as long as the protocol follows.
        minimum_after_crossing: smallest validation accuracy seen after the first crossing.
        last_step: the last evaluation of this member; it leaves the population once its outcome is decided.
        diverged_at: first evaluation with a loss that is not finite.
    """

    model_config = Frozen
    seed: int
    first_crossing: Crossing | None
    first_crossing_reason: str | None
    sustained_crossing: Crossing | None
    sustained_crossing_reason: str | None
    minimum_after_crossing: float | None
    best_validation_accuracy: float | None
    last_step: int
    last_train_accuracy: float | None
    last_validation_accuracy: float | None
    diverged_at: int | None


class CellResult(BaseModel):
    """All members of a cell, and the sizes that put their numbers into proportion.

    Attributes:
        cell: id of the cell.
        chance: accuracy of the best constant answer over all rows.
        num_train: rows trained on, the same for every member.
        num_validation: rows held out.
        num_parameters: parameters of one member.
        num_evaluations: evaluations up to the budget.
        flops_per_step: floating-point operations of matrix products in one step of one member.
    """

    model_config = Frozen
    cell: str
    chance: float
    num_train: int
    num_validation: int
    num_parameters: int
    num_evaluations: int
    flops_per_step: float
    members: tuple[MemberResult, ...]

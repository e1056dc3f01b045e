"""What is compared at equal loss, as one number for each run."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from muonlab.report.findings import Kind
from muonlab.studies.components.problems import Case


@dataclass(frozen=True)
class Quantity:
    """One number of a run at the first time at a loss.

    Attributes:
        key: name in files.
        name: for people.
        unit: of a difference.
        field: of `values` in a result.
        hidden_field: of `values` for nets with hidden layers, if another.
        kind: how a difference reads.
    """

    key: str
    name: str
    unit: str
    field: str
    hidden_field: str | None = None
    kind: Kind = "ratio"

    def of(self, values: Mapping[str, Any], case: Case) -> float | None:
        """Return the number from the values of a run; None where it is not finite or there is none."""
        return values[self.hidden_field if case.net.depth and self.hidden_field else self.field]


MARGIN = Quantity("margin", "worst-class margin", "nats", "margin_worst")
RANK = Quantity("rank", "effective rank", "directions", "rank_weights", "rank_hidden")
TEST = Quantity("test", "test accuracy", "accuracy", "test_accuracy", kind="accuracy")
REMOVED = Quantity(
    "removed", "test accuracy without the strongest components", "accuracy", "accuracy_removed", kind="accuracy"
)
SWAPPED = Quantity(
    "swapped",
    "test accuracy with the strongest components of another class",
    "accuracy",
    "accuracy_swapped",
    kind="accuracy",
)
CLAIMED = (MARGIN, RANK)
BESIDE = (
    Quantity(
        "margin-by-norm", "worst-class margin, divided by the norms of the weights", "nats", "margin_worst_by_norm"
    ),
    Quantity("margin-mean", "mean margin of the classes", "nats", "margin_mean"),
    Quantity("margin-test", "median margin of the test examples", "nats", "margin_test_median"),
    Quantity("component", "worst margin of a component", "nats", "component_margin_worst"),
    Quantity("rank-logits", "effective rank of the logits", "directions", "rank_logits"),
    Quantity("rank-sigma", "effective rank of Roy & Vetterli", "directions", "rank_weights_sigma", "rank_hidden_sigma"),
)
ROBUST = (TEST, REMOVED, SWAPPED)
EVERY = (*CLAIMED, *BESIDE, *ROBUST)

"""Similarity of the layers of two models: of the first of each group, and of two of the first group."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from muonlab.data.sources import DataError
from muonlab.measure.cka import PARTS, similarity
from muonlab.studies.checkpoints.work.candidates import Candidates, Member
from muonlab.studies.features.work.material import Material
from muonlab.studies.features.work.states import Subject, hidden_states

EXAMPLES = 500  # at most: a Gram of the examples is kept for every layer


@dataclass(frozen=True, eq=False)
class Seen:
    """The hidden states of one model."""

    group: str
    place: str
    inputs: Tensor
    states: dict[str, Tensor]  # by tap, (N, D)


def check_examples(given: Material, num_examples: int) -> None:
    """Raise DataError where there are too few test examples for intervals."""
    number = min(num_examples, len(given.measured.test.labels))
    if number < PARTS:
        raise DataError(
            f"cka needs {PARTS} test examples or more, and there are {number}; raise measure.examples, give more data, "
            "or leave cka out of measures"
        )


class Similarities:
    """Keeps hidden states of the models that are compared, while models come and go."""

    def __init__(self, num_examples: int):
        self._num_examples = min(num_examples, EXAMPLES)
        self._seen: list[Seen] = []

    def see(self, candidates: Candidates, member: Member, measured: Subject) -> None:
        """Keep the states of a model, if it is the first of its group or the second of the first group."""
        number = sum(each.group == candidates.name for each in self._seen)
        is_first_group = not self._seen or self._seen[0].group == candidates.name
        if number >= 1 + is_first_group:
            return
        inputs = candidates.given.measured.test.first(self._num_examples).inputs
        states = hidden_states(measured, inputs, measured.rank_pool)
        self._seen.append(Seen(candidates.name, member.place, inputs, states))

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for each pair: the first model with the second of its group and with the first of each other.

        Raises:
            DataError: other examples, too few, or hidden states that are not finite.
        """
        first, *others = self._seen
        return [_row(first, other) for other in others]


def _row(first: Seen, other: Seen) -> dict[str, Any]:
    if not torch.equal(first.inputs, other.inputs):
        raise DataError(f"{first.place} and {other.place} did not see the same examples, which cka compares")
    try:
        found = similarity([*first.states.values()], [*other.states.values()])
    except ValueError as error:
        raise DataError(f"cka of {first.place} and {other.place}: {error}; leave cka out of measures") from error
    widest = max(states.shape[1] for seen in (first, other) for states in seen.states.values())
    return {
        "groups": [first.group, other.group],
        "checkpoints": [first.place, other.place],
        "taps": [list(first.states), list(other.states)],
        "num_examples": len(first.inputs),
        "widest": widest,
        **{name: values.tolist() for name, values in found._asdict().items()},
    }

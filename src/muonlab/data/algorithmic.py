"""The seven algorithmic tasks of the grokking study: six operations on pairs of integers, and parity.

A row of a modular task is the sequence [a, op, b, =], of parity [bit_1, ..., bit_n, =]. The answer is read at the last
position and is never part of the input. A token's id is the integer itself ("identity embeddings" in arXiv 2504.16041);
the operator and "=" take the ids after the integers.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Task:
    """All rows of a classification problem.

    Attributes:
        name: name of the task.
        inputs: (rows, T) token ids, int64.
        labels: (rows,) class indices, int64.
        pairs: (rows,) int64, equal for (a, b) and (b, a) only.
        vocabulary: number of token ids.
        classes: number of classes.
        chance: accuracy of the best constant answer over all rows.
    """

    name: str
    inputs: Tensor
    labels: Tensor
    pairs: Tensor
    vocabulary: int
    classes: int
    chance: float

    @property
    def sizes(self) -> dict[str, int]:
        """What a net for the rows must fit, as in `muonlab.data.dataset.Dataset`."""
        return {"vocabulary": self.vocabulary, "classes": self.classes}


def _divide(a: Tensor, b: Tensor, modulus: int) -> Tensor:
    inverses = torch.tensor([0] + [pow(x, -1, modulus) for x in range(1, modulus)])
    return a * inverses[b] % modulus


def _power(a: Tensor, b: Tensor, modulus: int) -> Tensor:
    # torch has no modular power; 0^0 = 1, as Python's pow has it.
    return torch.tensor([pow(x, y, modulus) for x, y in zip(a.tolist(), b.tolist(), strict=True)])


# The operations of arXiv 2504.16041, table 1, and subtraction (the seventh task that its abstract counts).
OPERATIONS: dict[str, Callable[[Tensor, Tensor, int], Tensor]] = {
    "add": lambda a, b, p: (a + b) % p,
    "sub": lambda a, b, p: (a - b) % p,
    "mul": lambda a, b, p: a * b % p,
    "div": _divide,
    "exp": _power,
    "gcd": lambda a, b, p: torch.gcd(a, b) % p,
}
# Share of the rows that is trained on: arXiv 2504.16041, table 1, but for sub, which is ours.
TRAIN_SHARES = {"add": 0.8, "sub": 0.8, "mul": 0.5, "div": 0.8, "exp": 0.7, "gcd": 0.5, "parity": 0.5}
TASKS = tuple(TRAIN_SHARES)
MAX_BITS = 20


def build(name: str, *, modulus: int = 97, bits: int = 10, operator_token: bool = True) -> Task:
    """Return the task of that name with all its rows.

    Args:
        name: one of `TASKS`.
        modulus: at least 2; prime for "div". Unused by "parity".
        bits: length of the bit strings of "parity", 1 to 20. Unused by the others.
        operator_token: whether the sequence is [a, op, b, =] or [a, b, =]. Unused by "parity".

    Raises:
        ValueError: an unknown name, a modulus or a number of bits out of range.
    """
    if name not in TASKS:
        raise ValueError(f"unknown task {name!r}; expected one of {', '.join(TASKS)}")
    check(name, modulus, bits)
    if name == "parity":
        pairs = torch.arange(2**bits)
        digits = pairs.unsqueeze(1) >> torch.arange(bits) & 1  # (rows, bits)
        inputs, labels = torch.cat([digits, torch.full((len(pairs), 1), 2)], dim=1), digits.sum(dim=1) % 2
        vocabulary, classes = 3, 2
    else:
        a, b = torch.cartesian_prod(torch.arange(modulus), torch.arange(int(name == "div"), modulus)).T
        operator, equals = torch.full_like(a, modulus), torch.full_like(a, modulus + operator_token)
        inputs = torch.stack([a, operator, b, equals] if operator_token else [a, b, equals], dim=1)  # (rows, T)
        labels = OPERATIONS[name](a, b, modulus)
        pairs = torch.minimum(a, b) * modulus + torch.maximum(a, b)
        vocabulary, classes = modulus + operator_token + 1, modulus
    return Task(name, inputs, labels, pairs, vocabulary, classes, labels.bincount().max().item() / len(labels))


def check(name: str, modulus: int, bits: int) -> None:
    """Raise ValueError where the task of that name is not defined for the modulus, or parity for the bits."""
    if name == "parity":
        if not 1 <= bits <= MAX_BITS:
            raise ValueError(f"bits={bits} is out of range; expected 1 to {MAX_BITS}")
        return
    if modulus < 2:
        raise ValueError(f"modulus={modulus} is too small; expected at least 2")
    if name == "div" and any(modulus % k == 0 for k in range(2, math.isqrt(modulus) + 1)):
        raise ValueError(f"modulus={modulus} is not prime; div needs a prime, where every b but 0 has an inverse")


def num_rows(name: str, modulus: int, bits: int) -> int:
    """Return the number of rows of the task of that name."""
    if name == "parity":
        return 2**bits
    return modulus * (modulus - 1 if name == "div" else modulus)


def num_train(train_share: float, rows: int) -> int:
    """Return round(train_share * rows); raise ValueError where one side would be empty."""
    number = round(train_share * rows) if 0 < train_share < 1 else 0
    if not 0 < number < rows:
        raise ValueError(
            f"train_share={train_share} of {rows} rows leaves an empty side; expected a share between 0 and 1 "
            "that leaves at least one row on either side"
        )
    return number


def split(
    task: Task, train_share: float, generator: torch.Generator, *, pairs_together: bool = False
) -> tuple[Tensor, Tensor]:
    """Return the row indices of a random train and validation set, two int64 tensors.

    Args:
        task: the rows to divide.
        train_share: share of the rows that is trained on, in (0, 1); round(share * rows) rows for every seed, so
            that members stack.
        generator: source of the permutation, on the CPU.
        pairs_together: put (a, b) and (b, a) on the same side, so that a commutative answer cannot be copied.

    Raises:
        ValueError: the share leaves one side empty.
    """
    size_of_train = num_train(train_share, len(task.labels))
    if not pairs_together:
        order = torch.randperm(len(task.labels), generator=generator)
        return order[:size_of_train], order[size_of_train:]
    _, group, size = task.pairs.unique(return_inverse=True, return_counts=True)
    order = torch.randperm(len(size), generator=generator)
    is_train_group = torch.zeros(len(size), dtype=torch.bool)
    is_train_group[order[size[order].cumsum(0) <= size_of_train]] = True
    if int(size[is_train_group].sum()) < size_of_train:
        # One row is missing, as the next pair has two: take the next row without a partner, or, where all of those are
        # taken, the pair in exchange for one of them.
        alone = order[size[order] == 1]
        waiting = alone[~is_train_group[alone]]
        if len(waiting):
            is_train_group[waiting[0]] = True
        else:
            is_train_group[order[~is_train_group[order]][0]] = True
            is_train_group[alone[0]] = False
    is_train = is_train_group[group]
    return is_train.nonzero().squeeze(1), (~is_train).nonzero().squeeze(1)

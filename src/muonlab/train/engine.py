"""Choice of the engine: the population where torch.func can stack the net, else one member at a time."""

import copy
import re
import warnings
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from muonlab.train import optimizers
from muonlab.train.by_rule import Treatment
from muonlab.train.instances import Named, OptimizerFactory
from muonlab.train.modules import Net, drawn
from muonlab.train.population import Loss, Population
from muonlab.train.program import INSTEAD_OF_ONE_HOT
from muonlab.train.sequential import Sequential

Engine = Population | Sequential

TRIAL_ROWS = 8  # of the batch on which the engines are compared
TRIAL_SEEDS = (0, 1)


def build(
    net: Net,
    loss: Loss,
    optimizer: Mapping[str, Treatment] | OptimizerFactory | Sequence[OptimizerFactory],
    seeds: Sequence[int],
    inputs: Tensor,
    labels: Tensor,
    *,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
) -> tuple[Engine, str | None]:
    """Return the engine of the members, and why it is not the faster one.

    Args:
        net: a module, or a function that builds it (`muonlab.train.modules.drawn`).
        loss: logits (B, C), labels (B,) -> loss per example (B,).
        optimizer: as of `Population`.
        seeds: seed of each member.
        inputs: a few rows to try the net on, (rows, ...).
        labels: their labels, (rows,).
        dtype: dtype of the parameters.
        device: where the members live.

    Returns:
        A `Population` and None; or a `Sequential` and the reason, a sentence for users.

    Raises:
        ValueError: a net whose weights cannot be drawn, or an optimizer that does not fit (`Instances`).
        Exception: what the net or the loss raise on these rows when a member is alone.
    """
    reason = obstacle(
        net, loss, inputs, labels, by_rule=isinstance(optimizer, Mapping), dtype=dtype, device=torch.device(device)
    )
    if reason is None and not isinstance(optimizer, Mapping):
        members = [dict(drawn(net, seed, dtype).named_parameters()) for seed in TRIAL_SEEDS]
        copies = [{name: p.detach().to(device, copy=True) for name, p in own.items()} for own in members]
        reason = optimizers.obstacle(copies, optimizer if callable(optimizer) else optimizer[0])
    if reason is None:
        return Population(net, loss, optimizer, seeds, dtype=dtype, device=device), None
    return Sequential(net, loss, optimizer, seeds, dtype=dtype, device=device), (
        f"{reason}. So its members train one after the other: each has the results that it has alone, but they share "
        "no forward and backward pass, which makes small nets many times slower."
    )


def obstacle(
    net: Net, loss: Loss, inputs: Tensor, labels: Tensor, *, by_rule: bool, dtype: torch.dtype, device: torch.device
) -> str | None:
    """Return what about the net cannot be stacked, or None; found by a step of two members in either engine.

    The arguments are as of `build`. Muonlab's rules (by_rule) treat a parameter without gradient as one with a gradient
    of zeros; torch's optimizers leave it alone.
    """
    rows, own = inputs[:TRIAL_ROWS].to(device), labels[:TRIAL_ROWS].to(device)
    batch = torch.stack([rows] * len(TRIAL_SEEDS)), torch.stack([own] * len(TRIAL_SEEDS))  # (S, B, ...), (S, B)
    net = copy.deepcopy(net) if isinstance(net, nn.Module) else net

    # -- what a member does alone; errors here are the user's to see ----------------------------------------------
    alone: list[_Gradients] = []
    reference = Sequential(net, loss, lambda named: _Gradients(named, alone), TRIAL_SEEDS, dtype=dtype, device=device)
    if frozen := [name for name in reference.parameters if name not in alone[0].names]:
        return f"the net has parameters with requires_grad=False ({_few(frozen)}), and a stack trains all of them"
    before = reference.buffers
    if drawn := [name for name, buffer in before.items() if not buffer[0].equal(buffer[1])]:
        return f"the net draws values of buffers at random ({_few(drawn)}), and a stack has one copy for all members"
    reference.step(*batch, 0)
    expected = reference.measure(loss, rows, own)
    if changed := [name for name, buffer in reference.buffers.items() if not buffer.equal(before[name])]:
        return (
            f"the net changes its buffers as it trains ({_few(changed)}; nn.BatchNorm does that), which torch.func "
            "cannot stack, unlike a norm without running statistics, such as nn.LayerNorm or nn.GroupNorm"
        )
    unused = [name for name, gradient in zip(alone[0].names, alone[0].seen, strict=True) if gradient is None]
    if unused and not by_rule:
        return (
            f"the net has parameters without part in the loss ({_few(unused)}), which torch's optimizers leave alone, "
            "and in a stack they would have a gradient of zeros"
        )

    # -- and what it does in a stack ------------------------------------------------------------------------------
    stacked: list[_Gradients] = []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch says where it loops over members; the step says so again
            population = Population(
                net, loss, lambda named: _Gradients(named, stacked), TRIAL_SEEDS, dtype=dtype, device=device
            )
            population.step(*batch, 0)
            found = population.measure(loss, rows, own)
    except Exception as error:  # alone the net has passed, so whatever this is, stacking has caused it
        return _in_words(error)
    for member, of_stack in zip(alone, stacked, strict=True):
        seen = [gradient for gradient in member.seen if gradient is not None]
        if other := [
            name
            for name, gradient, expectation in zip(member.names, of_stack.seen, member.seen, strict=True)
            if gradient is not None and expectation is not None and not _is_close(gradient, expectation, seen)
        ]:
            return f"the net gives a member other gradients in a stack than alone ({_few(other)})"
    if not _is_close(found, expected, [expected]):
        return "the net gives a member other losses in a stack than alone when it is evaluated"
    return None


class _Gradients(torch.optim.Optimizer):
    """An optimizer that changes nothing and remembers the gradients."""

    def __init__(self, named: Named, members: list["_Gradients"]):
        super().__init__(named, {})
        self.names = [name for name, _ in named]
        self.seen: list[Tensor | None] = []
        members.append(self)

    def step(self, closure: Callable[[], float] | None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        parameters = [p for group in self.param_groups for p in group["params"]]
        self.seen = [None if p.grad is None else p.grad.clone() for p in parameters]


def _is_close(found: Tensor, expected: Tensor, among: list[Tensor]) -> bool:
    """Return whether two tensors differ by rounding alone, that of the largest number among those they come with."""
    scale = max(tensor.abs().max().nan_to_num().item() for tensor in among if tensor.numel())
    # The root of eps: sums in another order lose digits, and a gradient can be nothing but such a remainder.
    return torch.allclose(found, expected, rtol=0, atol=scale * torch.finfo(found.dtype).eps ** 0.5, equal_nan=True)


# A pattern in what torch says of an operation that it cannot stack; the operation, and what to write instead.
OF_DATA_SIZE = "whose result has as many entries as the data decide, which torch.func cannot stack"
HINTS = (
    (
        "randomness",
        "the net draws random numbers from torch's global generator (nn.Dropout does that), of which members of a "
        "stack have none of their own, unlike muonlab.nets.dropout.Dropout, whose noise follows from a key",
    ),
    (
        r"\.item\(\)|data-dependent",
        "the net takes a number out of a tensor or branches on one (if, while, .item()), which torch.func cannot "
        "stack, unlike torch.where",
    ),
    ("one_hot", f"the net calls F.one_hot without num_classes, {OF_DATA_SIZE}; write {INSTEAD_OF_ONE_HOT}"),
    (
        "boolean mask|masked_select",
        f"the net selects by a boolean mask, {OF_DATA_SIZE}; write torch.where(mask, x, 0), or multiply by the mask",
    ),
    (
        r"over aten::_?([a-z_]+)",
        f"the net calls torch.{{}}, {OF_DATA_SIZE}; write operations of a fixed shape, such as a comparison and "
        "torch.where with three arguments",
    ),
)


def _in_words(error: Exception) -> str:
    message = str(error)
    for pattern, words in HINTS:
        if found := re.search(pattern, message):
            return words.format(*found.groups())
    line = next(iter(message.splitlines()), "")
    return f"torch.func cannot stack the net ({type(error).__name__}: {line})"


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")

"""What Muon and MuonAdamW share: nothing is changed before all is checked, and the state comes back exactly."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from muonlab.optim import arguments, around, fitting, loading
from muonlab.optim.eight_bit import is_eight_bit, num_blocks
from muonlab.optim.finite import WHAT_TO_DO, Verdict, are_finite
from muonlab.optim.layout import Splitter, with_layouts
from muonlab.optim.rounding import is_narrow, narrow, widen
from muonlab.optim.sharding import agree, is_dtensor, local_shard
from muonlab.rules.operands import Workspace, on_host

# Of float32 copies of narrow parameters and gradients that are made at a time; a larger parameter is one batch.
BATCH_BYTES = 2**23
ON_DEVICE = 32  # times as many elsewhere, where a call costs more than a pass over memory
KEPT_BYTES = 2**26  # of temporary tensors that are kept from step to step


@dataclass
class Item:
    """A parameter in a step."""

    name: str  # for messages
    parameter: Tensor  # a DTensor if it is sharded
    index: int  # in the group
    number: int  # in the optimizer: it tells the parameter's noise from that of others
    grad: Tensor  # local shard
    finite: Tensor | None = None  # is the step made? One boolean for all, on the device; None where the host has looked
    state: dict[str, Any] = field(default_factory=dict)  # in the optimizer; empty at first
    work: Tensor = None  # pyright: ignore[reportAssignmentType]  # local shard, or a float32 copy; set by the step
    last: Tensor | None = None  # of `around`: where the parameter was
    in_parts: bool = False  # is a narrow parameter widened by the rule, part by part? Then `work` is narrow

    def local(self, name: str) -> Tensor:
        """Return the local shard of an entry of the state; what is done to it in place is done to the state."""
        return local_shard(self.state[name], self.parameter)

    @property
    def dtype(self) -> torch.dtype:
        """Of the step: float32 for narrow parameters."""
        return torch.float32 if is_narrow(self.parameter) else self.parameter.dtype

    @property
    def remainder(self) -> Tensor | None:
        """The local shard of what rounding left of a bfloat16 parameter."""
        return self.local("remainder") if "remainder" in self.state else None

    def noise_key(self, group: dict[str, Any]) -> int | Tensor:
        """Return what tells the noise of this step and parameter from that of others."""
        step = self.state["step"]
        is_read = not group["capturable"] and on_host(step.device)
        return (int(step) if is_read else step.long()) * 0x10001 + self.number

    def like_parameter(self, local: Tensor, shape: tuple[int, ...] | None = None) -> Tensor:
        """Return a local shard laid out as the parameter, so that a distributed checkpoint keeps every rank's.

        Of a tensor of another shape, (rows, columns), it is a shard along the first axis.
        """
        p = self.parameter
        if not is_dtensor(p):
            return local
        whole, stride = (p.shape, p.stride()) if shape is None else (torch.Size(shape), (shape[1], 1))
        return type(p).from_local(local, p.device_mesh, p.placements, run_check=False, shape=whole, stride=stride)

    def zeros(self, dtype: torch.dtype | None, like: Tensor | None = None) -> Tensor:
        """Return zeros for the state: like the parameter or another tensor, float32 where that is narrower."""
        like = self.parameter if like is None else like
        wide = torch.float32 if is_narrow(like) else like.dtype
        if is_eight_bit(dtype):  # that is of momentum alone
            dtype = None
        if dtype is not None and like.is_complex() != dtype.is_complex:
            dtype = None
        return torch.zeros_like(like, dtype=dtype or wide)

    def eight_bits(self) -> tuple[Tensor, Tensor]:
        """Return zeros in eight bits and the largest magnitudes of their blocks, laid out as the parameter."""
        p = self.parameter
        local = local_shard(p, p)
        numbers = torch.zeros(local.shape, dtype=torch.int8, device=local.device)
        peaks = torch.zeros(local.shape[0], num_blocks(p.shape), dtype=torch.float32, device=local.device)
        return self.like_parameter(numbers), self.like_parameter(peaks, (p.shape[0], peaks.shape[1]))


Taken = tuple[dict[str, Any], list[Item]]  # a group, and those of its parameters that have a gradient


class Shell(torch.optim.Optimizer):
    """A torch.optim.Optimizer whose groups follow rules; Muon and MuonAdamW say which."""

    process_group: Any = None
    _splits: Splitter
    _workspace: Workspace | None = None  # made by the first step; not part of the state
    _verdict: Verdict | None = None  # on the last step, where its flags were not waited for
    _own: tuple[str, ...] = ("_splits",)  # what an added group needs, and copies and pickles have to hold

    def __init__(self, params: Any, defaults: dict[str, Any]):
        super().__init__(params, defaults)
        self._hook_state_dict()

    @property
    def num_skipped(self) -> int:
        """Gradients that were not finite since the start and whose updates were left out, one a parameter.

        On a CPU only with nonfinite="skip".
        """
        return sum(int(group["num_skipped"]) for group in self.param_groups)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group as torch.optim.Optimizer does, once its arguments and its parameters' shapes are found right."""
        group = {**self.defaults, **self._complete(arguments.plain(param_group)), "num_skipped": 0}
        if group["rule"] == "muon":
            group = with_layouts(group, self._splits)
        arguments.check(group)
        if group["rule"] == "muon":
            fitting.check(group, fitting.named(group), is_first=True)
        super().add_param_group(group)

    def _complete(self, group: dict[str, Any]) -> dict[str, Any]:
        """Return a new group with its rule and what its rule has of its own; raise ValueError for a wrong one."""
        raise NotImplementedError

    def _says_layout(self, name: str, parameter: Tensor) -> bool:
        """Return whether this optimizer was told how a parameter is orthogonalized."""
        return self._splits(name, parameter) is not None

    def _adopt(self, names: Iterable[str] = ()) -> None:
        """Add the parameters that were frozen so far and now require grad, or have these names."""

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear the gradients, also of parameters that have been unfrozen."""
        self._adopt()
        super().zero_grad(set_to_none)

    def _update(self, group: dict[str, Any], items: list[Item], workspace: Workspace) -> None:
        """Make the step of a group's parameters: from their `grad` and `state`, change `work` in place.

        Where `finite` of the items is False, nothing may change.
        """
        raise NotImplementedError

    def _widens_in_parts(self, group: dict[str, Any], item: Item) -> bool:
        """Return whether `_update` widens a parameter by itself, part by part."""
        return False

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Make a step; return what the closure returned, or None.

        Parameters whose grad is None are left alone, decay and state too. Gradients are never changed.

        Args:
            closure: clears the gradients, computes the loss, calls backward and returns the loss.

        Raises:
            ValueError: a gradient is sparse, or not finite with nonfinite="raise". Nothing has been changed then. On a
                GPU, for which the host does not wait, the step after one that was not finite, and left out, raises.
        """
        if torch.compiler.is_compiling() and self._is_shared():
            return a_step_that_ranks_share_is_not_compiled(self, closure)
        return self._step(closure)

    def _is_shared(self) -> bool:
        """Return whether ranks exchange what they have in a step."""
        return self.process_group is not None or any(
            is_dtensor(p) for group in self.param_groups for p in group["params"]
        )

    def _step(self, closure: Callable[[], Any] | None) -> Any:
        verdict, self._verdict = self._verdict, None
        if verdict is not None:
            verdict.raise_if_found()
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._adopt()
        self._check_gradients()
        taken, number = [], 0
        for position, group in enumerate(self.param_groups):
            taken.append((group, self._items(group, position, number)))
            number += len(group["params"])
        for group, items in taken:
            fitting.check(group, ((item.name, item.parameter) for item in items))
        taken = self._looked_at(taken) if self._waits(taken) else self._flagged(taken)
        self._workspace = self._workspace or Workspace()
        for group, items in taken:
            for item in items:
                item.state = self.state[item.parameter]
                item.in_parts = self._widens_in_parts(group, item)
            for batch in self._batches(group, items):
                for item in batch:
                    local = local_shard(item.parameter, item.parameter)
                    item.work = local if item.in_parts else widen(local, item.remainder)
                    around.before(group, item)
                self._update(group, batch, self._workspace)
                for item in batch:
                    around.after(group, item)
                self._write(group, batch)
                for item in batch:
                    del item.work  # of narrow parameters a copy
        if not torch.compiler.is_compiling() and not any(group["capturable"] for group in self.param_groups):
            self._shrink_workspace(KEPT_BYTES)  # a captured graph writes where it has written before
        return loss

    def free_workspace(self) -> None:
        """Free what is kept from step to step for temporary tensors, up to 64 MiB; the next step takes it again."""
        self._shrink_workspace(0)

    def _shrink_workspace(self, num_bytes: int) -> None:
        if self._workspace is not None:
            self._workspace.shrink(num_bytes)

    def _batches(self, group: dict[str, Any], items: list[Item]) -> Iterator[list[Item]]:
        """Yield the items of a group that are stepped together: all, or as many as have room in float32 copies.

        Where ranks share the work, or the host may not look, all of a group: they exchange and decide for it as one.
        """
        if group["capturable"] or self.process_group is not None or any(is_dtensor(item.parameter) for item in items):
            yield from [items] if items else []
            return
        batch: list[Item] = []
        room = 0
        for item in items:
            is_widened = is_narrow(item.parameter)
            copies = 2 if is_widened and not item.in_parts else 0  # it and its gradient
            if group["state_dtype"] not in (None, torch.float32 if is_widened else item.parameter.dtype):
                copies += 1 if group["rule"] == "muon" else 2  # momentum, or both moments
            size = 4 * copies * item.parameter.numel()
            if batch and room < size:
                yield batch
                batch = []
            if not batch:
                room = BATCH_BYTES if on_host(item.parameter.device) else ON_DEVICE * BATCH_BYTES
            room -= size
            batch.append(item)
        if batch:
            yield batch

    def _check_gradients(self) -> None:
        """Raise ValueError where some ranks have a gradient and others have none, as these would not join the exchange.

        Steps that are captured, where the host may not look, take it for granted.
        """
        if not self._is_shared():
            return
        shared = [
            (name, p)
            for position, group in enumerate(self.param_groups)
            for name, p in zip(_names(group, position), group["params"], strict=True)
            if not group["capturable"] and (self.process_group is not None or is_dtensor(p))
        ]
        if not shared:
            return
        params = [p for _, p in shared]
        here = torch.tensor([p.grad is not None for p in params])
        all_have, all_lack = agree(torch.cat([here, ~here]), params * 2, self.process_group).chunk(2)
        for (name, p), is_agreed in zip(shared, (all_have | all_lack).tolist(), strict=True):
            if not is_agreed:
                raise ValueError(
                    f"parameter {name} has a gradient on some ranks and none on others (here it has "
                    f"{'none' if p.grad is None else 'one'}), and nothing has been changed; expected the same on all "
                    "ranks that share it: zeros where it was not used, p.grad = torch.zeros_like(p), or None everywhere"
                )

    def _items(self, group: dict[str, Any], position: int, number: int) -> list[Item]:
        items = []
        for index, (name, p) in enumerate(zip(_names(group, position), group["params"], strict=True)):
            if p.grad is None:
                continue
            if p.grad.layout != torch.strided:
                raise ValueError(
                    f"the gradient of parameter {name} is sparse ({p.grad.layout}); expected a dense one: "
                    "pass sparse=False to its nn.Embedding, or give it to torch.optim.SparseAdam"
                )
            items.append(Item(name, p, index, number + index, local_shard(p.grad, p)))
        return items

    def _waits(self, taken: list[Taken]) -> bool:
        """Return whether the host looks at the gradients before the step: wherever some of them are its own."""
        grads = [item.grad for _, items in taken for item in items]
        is_captured = any(group["capturable"] for group, _ in taken)
        return not grads or (not is_captured and any(on_host(grad.device) for grad in grads))

    def _flags(self, items: list[Item], looks: bool) -> Tensor:
        """Return which gradients are finite, on all ranks that have a part of them."""
        flags = are_finite([item.grad for item in items], looks)
        if self.process_group is not None or any(is_dtensor(item.parameter) for item in items):
            flags = agree(flags, [item.parameter for item in items], self.process_group)
        return flags

    def _looked_at(self, taken: list[Taken]) -> list[Taken]:
        """Return the items with finite gradients and count the others, or raise for them."""
        found = []
        for group, items in taken:
            looks = all(on_host(item.grad.device) for item in items)
            flags = self._flags(items, looks).tolist() if items else []
            kept = [item for item, flag in zip(items, flags, strict=True) if flag]
            if len(kept) < len(items) and group["nonfinite"] == "raise":
                name = next(item.name for item, flag in zip(items, flags, strict=True) if not flag)
                raise ValueError(
                    f"the gradient of parameter {name} is not finite, and nothing has been changed; {WHAT_TO_DO}"
                )
            found.append((group, kept, len(items) - len(kept)))
        for group, _, num_skipped in found:
            _count(group, num_skipped)
        return [(group, kept) for group, kept, _ in found]

    def _flagged(self, taken: list[Taken]) -> list[Taken]:
        """Return items that know on their device if all gradients are finite; the next step says which are not."""
        every = [item for _, items in taken for item in items]
        flags = self._flags(every, looks=False)
        for (group, items), part in zip(taken, flags.split([len(items) for _, items in taken]), strict=True):
            if items:
                _count(group, len(items) - part.sum())
        raising = [group["nonfinite"] == "raise" for group, items in taken for _ in items]
        if any(raising) and flags.device.type != "meta":  # which has no values
            self._verdict = Verdict(flags, [item.name for item in every], raising)
        by_device: dict[torch.device, Tensor] = {flags.device: flags.all()}
        for item in every:
            device = item.grad.device
            item.finite = by_device.setdefault(device, by_device[flags.device].to(device))
        return taken

    def _write(self, group: dict[str, Any], items: list[Item]) -> None:
        """Put the float32 copies of narrow parameters back."""
        for item in items:
            if not is_narrow(item.parameter) or item.in_parts:
                continue
            local = local_shard(item.parameter, item.parameter)
            key: int | Tensor = 0
            if group["rounding"] == "stochastic" and local.dtype == torch.bfloat16:
                key = item.noise_key(group)
            remainder = narrow(item.work, local, group["rounding"], key)
            if remainder is None:  # one of before, under another rounding, is used up
                item.state.pop("remainder", None)
            elif "remainder" in item.state:  # in place, as a captured graph reads where it has read before
                item.local("remainder").copy_(remainder)
            else:
                item.state["remainder"] = item.like_parameter(remainder)

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"process_group": None} | {name: getattr(self, name) for name in self._own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._hook_state_dict()

    def _hook_state_dict(self) -> None:
        """See to it that a state_dict can be read with weights_only=True, before hooks of the user's see it."""
        if not any(isinstance(hook, _DropFunctions) for hook in self._optimizer_state_dict_post_hooks.values()):
            self.register_state_dict_post_hook(_DropFunctions(), prepend=True)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over a state: hyper-parameters and all, in the dtypes in which it was saved.

        Parameters are matched by their names where both sides have them, else by their order. What is orthogonalized
        apart is as it was saved, but where `split` or `heads` of this optimizer say otherwise. A state_dict of
        torch.optim.Muon or torch.optim.AdamW will do as well: what it does not say stays as it is. Hooks see it first,
        as of torch.optim.Optimizer: what they return is checked and loaded.

        Raises:
            ValueError: it belongs to other parameters, or says what this optimizer cannot do. Nothing has been changed
                then.
        """
        found: dict[str, Any] = {}
        before: list[dict[str, Any]] = []

        def check(_: Any, given: dict[str, Any]) -> dict[str, Any]:  # after the hooks of the user's
            self._adopt(loading.names(given))
            found.update(loading.matched(given, self.param_groups, self._says_layout))
            before.extend(dict(group) for group in self.param_groups)
            return found

        def restore(_: Any) -> None:  # before those
            loading.restore(self, found, before)

        handles = [
            self.register_load_state_dict_pre_hook(check),
            self.register_load_state_dict_post_hook(restore, prepend=True),
        ]
        try:
            super().load_state_dict(state_dict)
        finally:
            for handle in handles:
                handle.remove()


@torch._disable_dynamo  # torch.compiler.disable would import the compiler here
def a_step_that_ranks_share_is_not_compiled(optimizer: Shell, closure: Callable[[], Any] | None) -> Any:
    """Make the step as it is; the name is for the message of torch.compile with fullgraph=True."""
    with torch.no_grad():
        return optimizer._step(closure)


class _DropFunctions:
    """A hook that takes an adjust_lr_fn that is a function out of a state_dict; it stays the constructor's."""

    def __call__(self, _: Any, state_dict: dict[str, Any]) -> None:
        for group in state_dict["param_groups"]:
            if callable(group.get("adjust_lr_fn")):
                del group["adjust_lr_fn"]


def _names(group: dict[str, Any], position: int) -> list[str]:
    """Return what messages call the parameters of a group."""
    return group.get("param_names") or [f"{index} of group {position}" for index in range(len(group["params"]))]


def _count(group: dict[str, Any], skipped: int | Tensor) -> None:
    """Add to the number of updates left out; a tensor stays the same one, as a captured graph writes to it."""
    counted = group["num_skipped"]
    if isinstance(skipped, Tensor) and not (isinstance(counted, Tensor) and counted.device == skipped.device):
        group["num_skipped"] = skipped + counted
    else:
        group["num_skipped"] += skipped

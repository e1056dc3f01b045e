"""Taps: the hidden states of named modules of any network, in one pass over the batches."""

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

MAX_BYTES = 2**30
NUM_LISTED = 40  # names in an error
Pool = Callable[[Tensor, Tensor | None], Tensor]  # hidden states (B, ...) and a mask (B, T) or None -> (B, D)


def _last_token(hidden: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None:
        return hidden[:, -1]
    # The last that is real, whichever side the padding is on.
    last = mask.shape[1] - 1 - mask.flip(1).int().argmax(1)
    return hidden[torch.arange(len(hidden), device=hidden.device), last]


def _mean_tokens(hidden: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None:
        return hidden.mean(1)
    # A masked state may be NaN, so it is replaced and not multiplied by zero.
    return hidden.masked_fill(~mask[..., None], 0).sum(1) / mask.sum(1, keepdim=True)


# Name: axes that it expects, in words and in number, and what it does.
POOLS: dict[str, tuple[str, int | None, Pool]] = {
    "last_token": ("(B, T, D)", 3, _last_token),
    "mean_tokens": ("(B, T, D)", 3, _mean_tokens),
    "cls": ("(B, T, D)", 3, lambda hidden, _: hidden[:, 0]),
    "mean_pixels": ("(B, C, H, W)", 4, lambda hidden, _: hidden.mean((2, 3))),
    "flatten": ("(B, ...)", None, lambda hidden, _: hidden.flatten(1)),
}


def taps(model: nn.Module) -> list[str]:
    """Return the names at which states can be taken: all modules inside the model, as `named_modules` has them."""
    return [name for name, _ in model.named_modules() if name]


def stream(
    model: nn.Module,
    batches: Iterable[Any],
    consumers: Mapping[str, Callable[[Tensor], object]],
    *,
    pool: str | Mapping[str, str],
    forward: Callable[[nn.Module, Any], object] | None = None,
    mask: Callable[[Any], Tensor] | None = None,
) -> int:
    """Hand the pooled outputs of modules to consumers, batch by batch, in one pass.

    The model runs in eval mode and without gradients. Afterwards, also after an error, each module is in its own mode
    again and no hook is left.

    Args:
        model: any module.
        batches: what the model is called with: tensors, tuples (`model(*batch)`) or mappings (`model(**batch)`).
        consumers: by tap (see `taps`), what takes its states (B, D): `Spectrum().update`, or a list's `append`. They
            may keep the tensors: nothing else refers to them.
        pool: one name for all taps, or one each: "last_token", "mean_tokens" and "cls" (the first token) of (B, T, D),
            "mean_pixels" of (B, C, H, W), "flatten" of anything with a leading batch axis.
        forward: calls the model with a batch, where the above does not fit: `lambda model, batch: model(batch[0])`.
        mask: from a batch, which tokens are real, (B, T) bool, for last_token and mean_tokens of padded sequences.

    Returns:
        The number of examples.

    Raises:
        ValueError: no such tap (the nearest are named) or pool; an output, mask or pool that does not fit; a module
            that was called twice in one pass, so that its name does not name one state.
        TypeError: an output without a tensor. Of tuples, lists and mappings the first tensor is taken.
        RuntimeError: a tap that the model did not call.
    """
    modules = _find(model, list(consumers))
    pools = {name: pool if isinstance(pool, str) else pool.get(name, "") for name in consumers}
    for name, wanted in pools.items():
        if wanted not in POOLS:
            raise ValueError(f"pool={wanted!r} for tap {name!r}: expected one of {', '.join(POOLS)}")
    forward = call if forward is None else forward
    num_examples = 0
    seen: dict[str, Tensor] = {}
    current_mask: Tensor | None = None

    def hook_of(name: str):
        def hook(_module: nn.Module, _inputs: object, output: object) -> None:
            if name in seen:
                raise ValueError(f"tap {name!r} was called twice in one pass; tap a module that holds the call meant")
            seen[name] = _pool(name, pools[name], _first_tensor(name, output), current_mask)

        return hook

    with hooked(model, {modules[name]: hook_of(name) for name in consumers}), torch.no_grad():
        for batch in batches:
            seen.clear()
            current_mask = None if mask is None else mask(batch)
            forward(model, batch)
            missing = [name for name in consumers if name not in seen]
            if missing:
                raise RuntimeError(f"the model did not call {', '.join(missing)}: nothing to take there")
            for name, consume in consumers.items():
                consume(seen[name])
            num_examples += max((len(states) for states in seen.values()), default=0)
    return num_examples


def gather(
    model: nn.Module,
    batches: Iterable[Any],
    names: Sequence[str],
    *,
    max_bytes: int = MAX_BYTES,
    **how: Any,
) -> dict[str, Tensor]:
    """Return the pooled outputs (N, D) of named modules, on the CPU, from one pass over the batches.

    Args:
        model: as `stream`.
        batches: where their number is known (`len`), a size beyond the limit is an error after the first of them.
        names: taps.
        max_bytes: that the states may take together. While they are joined, one more tap is in memory.
        how: pool, forward and mask of `stream`.

    Raises:
        MemoryError: they would take more.
        ValueError, TypeError, RuntimeError: as `stream`, or there was no batch.
    """
    parts: dict[str, list[Tensor]] = {name: [] for name in names}
    # All batches but the last are as large as the first, if their number is known.
    factor = max(1, len(batches) - 1) if isinstance(batches, Sized) else 1
    num_bytes = 0

    def consumer(name: str) -> Callable[[Tensor], None]:
        def consume(states: Tensor) -> None:
            nonlocal num_bytes
            num_bytes += states.numel() * states.element_size()
            parts[name].append(states.cpu())
            is_first = max(len(each) for each in parts.values()) == 1
            expected = num_bytes * (factor if is_first else 1)
            if expected > max_bytes:
                raise MemoryError(
                    f"the states of {len(parts)} taps take {expected / 2**20:,.1f} MiB or more, seen at tap {name!r} "
                    f"after {sum(len(each) for each in parts[name])} examples; max_bytes={max_bytes / 2**20:,.1f} MiB. "
                    f"Hand them to consumers with `stream` (such as Spectrum().update), tap fewer modules, "
                    f"pool to fewer numbers, or raise max_bytes"
                )

        return consume

    if not stream(model, batches, {name: consumer(name) for name in parts}, **how):
        raise ValueError("there was no batch (an iterator that was read before?) or no tap")
    return {name: torch.cat(parts.pop(name)) for name in list(parts)}


def _find(model: nn.Module, names: list[str]) -> dict[str, nn.Module]:
    modules = dict(model.named_modules())
    for name in names:
        if name not in modules or not name:
            there = taps(model)
            near = difflib.get_close_matches(name, there, n=3, cutoff=0.4)
            nearest = f"nearest: {', '.join(near)}; " if near else ""
            more = f" and {len(there) - NUM_LISTED} more (see taps)" if len(there) > NUM_LISTED else ""
            raise ValueError(f"no tap {name!r}; {nearest}there are: {', '.join(there[:NUM_LISTED])}{more}")
    return {name: modules[name] for name in names}


@contextmanager
def hooked(model: nn.Module, hooks: dict[nn.Module, Callable[..., None]]) -> Iterator[None]:
    """Set eval mode and the hooks; afterwards, whatever happened, remove them and restore the modes."""
    modes = [(module, module.training) for module in model.modules()]
    handles = []
    try:
        for module, hook in hooks.items():
            handles.append(module.register_forward_hook(hook))
        model.eval()
        yield
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in modes:
            module.training = mode


def call(model: nn.Module, batch: Any) -> Any:
    """Call a model with a batch: a tensor, a tuple (`model(*batch)`) or a mapping (`model(**batch)`)."""
    if isinstance(batch, Mapping):
        return model(**batch)
    return model(*batch) if isinstance(batch, (tuple, list)) else model(batch)


def _first_tensor(name: str, output: object) -> Tensor:
    """Return the output, or the first tensor in it, depth first."""
    if isinstance(output, Tensor):
        return output
    for part in output.values() if isinstance(output, Mapping) else output if isinstance(output, (tuple, list)) else ():
        if isinstance(part, (Tensor, Mapping, tuple, list)):
            return _first_tensor(name, part)
    raise TypeError(f"tap {name!r} gave a {type(output).__name__} without a tensor; tap a module that returns one")


def _pool(name: str, pool: str, hidden: Tensor, mask: Tensor | None) -> Tensor:
    """Return (B, D), a copy: a view would keep the whole state alive, and show what is later done to it in place."""
    shape, axes, function = POOLS[pool]
    if hidden.ndim != axes if axes else hidden.ndim < 2:
        raise ValueError(f"tap {name!r} gave {tuple(hidden.shape)}; pool={pool!r} expects {shape}: name another")
    if mask is not None and pool in ("last_token", "mean_tokens"):
        if mask.shape != hidden.shape[:2] or mask.dtype != torch.bool or not mask.any(1).all():
            raise ValueError(
                f"mask {tuple(mask.shape)} of {mask.dtype} for tap {name!r} of {tuple(hidden.shape)}: expected (B, T) "
                f"bool with a real token in every row"
            )
        mask = mask.to(hidden.device)
    return function(hidden.detach(), mask).clone()

"""The largest attention logit of each head, seen where an attention makes its probabilities.

A logit is what the softmax gets: after the scale, rotary embeddings, biases and the mask. Two operations make
probabilities of them: softmax, which plain attention and transformers' "eager" call, and the fused kernels of
scaled_dot_product_attention, which never keep the logits; of those the products are computed again, a block of queries
at a time.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

# Logits of a fused kernel that are computed at a time.
BLOCK = 2**22


class Watch:
    """The largest logit of each head of an attention, over all forward passes with gradients since `reset`.

    Attributes:
        maxima: (heads,), float32; -inf before anything is seen; None before the first forward pass.
    """

    def __init__(self, attention: nn.Module, heads: int):
        self.heads = heads
        self.maxima: Tensor | None = None
        self._open: list[_Probabilities | None] = []  # several where an attention calls itself, or is computed again
        self._handles = [
            attention.register_forward_pre_hook(self._enter),
            attention.register_forward_hook(self._leave, always_call=True),
        ]

    def remove(self) -> None:
        """Take the hooks off the attention."""
        for handle in self._handles:
            handle.remove()

    def reset(self) -> None:
        """Forget what has been seen."""
        if self.maxima is not None:
            self.maxima.fill_(-torch.inf)

    def see(self, maxima: Tensor) -> None:
        """Take in the largest logits of a forward pass, (heads,)."""
        maxima = maxima.detach().float()
        if self.maxima is None or self.maxima.device != maxima.device:
            self.maxima = maxima.clone()
        else:
            torch.maximum(self.maxima, maxima, out=self.maxima)

    @torch._disable_dynamo  # what is watched runs as it is written; torch.compiler.disable imports the compiler
    def _enter(self, *_: Any) -> None:
        mode = _Probabilities(self) if torch.is_grad_enabled() else None
        self._open.append(mode)
        if mode is not None:
            mode.__enter__()

    @torch._disable_dynamo  # what is watched runs as it is written; torch.compiler.disable imports the compiler
    def _leave(self, *_: Any) -> None:
        if self._open and (mode := self._open.pop()) is not None:
            mode.__exit__(None, None, None)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": []}


class _Probabilities(TorchDispatchMode):
    """Tells a watch the logits of the operations that make probabilities of them."""

    def __init__(self, watch: Watch):
        super().__init__()
        self._watch = watch

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        name = func.__name__.split(".")[0]
        if name in ("_softmax", "_safe_softmax"):  # the latter of scaled_dot_product_attention without a fused kernel
            found = of_softmax(args[0], args[1], self._watch.heads)
        elif name.startswith("_scaled_dot_product"):
            names = [argument.name for argument in func._schema.arguments]
            found = of_fused({**dict(zip(names, args, strict=False)), **kwargs}, self._watch.heads)
        else:
            return result
        if found is not None:
            self._watch.see(found)
        return result


def of_softmax(logits: Tensor, dim: int, heads: int) -> Tensor | None:
    """Return the largest logit of each head, (heads,); None for a softmax of something else.

    Args:
        logits: (..., heads, queries, keys), (..., key heads, queries of each, queries, keys) or, as of
            nn.MultiheadAttention, (batch * heads, queries, keys).
        dim: of the softmax.
        heads: of the queries.
    """
    if logits.ndim < 3 or dim not in (-1, logits.ndim - 1) or not logits.numel():
        return None
    *before, queries, keys = logits.shape
    is_apart = before[-1] == heads or (len(before) > 1 and before[-2] * before[-1] == heads)
    if not is_apart and (logits.ndim != 3 or before[0] % heads):
        return None
    return logits.reshape(-1, heads, queries, keys).amax((0, 2, 3))


def of_fused(arguments: Mapping[str, Any], heads: int) -> Tensor | None:
    """Return the largest logit of each head of scaled_dot_product_attention, (heads,); None with other heads.

    Args:
        arguments: query (batch, heads, queries, size), key (batch, key heads, keys, size), scale, is_causal, and
            attn_mask or attn_bias, as torch's kernels have them.
        heads: of the queries.
    """
    q, k = arguments["query"], arguments["key"]
    if q.ndim != 4 or q.shape[1] != heads or heads % k.shape[1] or not q.numel() or not k.numel():
        return None
    scale, is_causal = arguments.get("scale"), arguments.get("is_causal", False)
    mask = arguments.get("attn_mask", arguments.get("attn_bias"))
    keys = k.repeat_interleave(heads // k.shape[1], 1).transpose(2, 3)
    scale = q.shape[3] ** -0.5 if scale is None else scale
    size = max(1, BLOCK // (q.shape[0] * heads * k.shape[2]))
    found: list[Tensor] = []
    for start in range(0, q.shape[2], size):
        block = q[:, :, start : start + size]
        end = min(k.shape[2], start + block.shape[2]) if is_causal else k.shape[2]
        logits = (block @ keys[..., :end]).float() * scale
        if is_causal:
            logits = logits.masked_fill(logits.new_ones(logits.shape[2:]).triu(start + 1).bool(), -torch.inf)
        if mask is not None:
            rows = mask if mask.shape[-2] == 1 else mask[..., start : start + size, :]
            rows = rows[..., :end]
            logits = logits.masked_fill(~rows, -torch.inf) if rows.dtype == torch.bool else logits + rows
        found.append(logits.amax((0, 2, 3)))
    return torch.stack(found).amax(0)

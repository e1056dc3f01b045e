"""QK-clip: after a step, query and key weights of heads whose logits are too large are scaled down (MuonClip)."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from muonlab.optim.logits import Watch
from muonlab.optim.qk_layers import Part, attentions
from muonlab.optim.rounding import is_narrow, narrow, widen
from muonlab.optim.sharding import is_dtensor, local_shard
from muonlab.rules.operands import is_number


class QKClip:
    """Holds the attention logits of a model at a threshold, head by head, with any optimizer.

    The largest logit S of a head is taken over the forward passes, with gradients, since the last step. After a step,
    where S is above tau, the head's logits are scaled by eta = tau / S: its rows of the query weight by eta^alpha and
    those of the key weight by eta^(1 - alpha), biases too. Other heads are left as they are, bit for bit, and so are
    heads whose S is not finite. A key head that several query heads share is scaled by the largest factor of its group,
    and each query head by what is left: then every head's logits are scaled by its own eta, as the paper leaves the
    shared part of latent attention alone.

    The attentions are found by their layers (`split_params` on "auto" heads), and logits are what softmax or
    scaled_dot_product_attention gets, so rotary embeddings, masks and biases are counted. FlexAttention and packages
    with kernels of their own are not seen.

    Args:
        model: whose attentions are watched.
        optimizer: after whose steps weights are scaled. All its state stays as it is.
        tau: the threshold; 100 in the paper.
        alpha: the query's share of the factor, in [0, 1].
        process_group: ranks over which the largest logit is taken; None: all, where torch.distributed is initialized.
            They have to have the same attentions.

    Attributes:
        maxima: attention -> the largest logit of each of its heads, (heads,), at the last step; -inf where it was not
            used or not finite.

    Raises:
        ValueError: tau or alpha out of range; the model has no attention that can be clipped, or one that cannot, with
            its name: query or key normalized, latent attention, unknown rows or numbers of heads, one half frozen. At a
            step: an attention has gradients, and its logits were not seen.

    Examples:
        >>> layer = nn.TransformerEncoderLayer(8, 2)
        >>> optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
        >>> clip = QKClip(layer, optimizer, tau=50.0)
        >>> layer(torch.ones(3, 1, 8)).sum().backward()
        >>> optimizer.step()
        >>> [(name, tuple(maxima.shape)) for name, maxima in clip.maxima.items()]
        [('self_attn', (2,))]

    References:
        Kimi Team 2025, arXiv 2507.20534, section 2.1 and algorithm 1.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        tau: float = 100.0,
        *,
        alpha: float = 0.5,
        process_group: Any = None,
    ):
        if not (is_number(tau) and tau > 0):
            raise ValueError(f"tau={tau!r} is out of range; expected a finite number above 0, such as 100")
        if not (is_number(alpha) and 0 <= alpha <= 1):
            raise ValueError(f"alpha={alpha!r} is out of range; expected a number from 0 to 1")
        self.tau, self.alpha, self.process_group = tau, alpha, process_group
        self.maxima: dict[str, Tensor] = {}
        self._attentions = attentions(model)
        self._watches = [Watch(each.module, each.queries) for each in self._attentions]
        self._handles = [
            optimizer.register_step_pre_hook(self._before),
            optimizer.register_step_post_hook(self._after),
        ]

    def remove(self) -> None:
        """Take all hooks off model and optimizer."""
        for each in (*self._handles, *self._watches):
            each.remove()

    def _before(self, optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if not any(callable(each) for each in (*args, *kwargs.values())):  # a closure has its forward pass to come
            self._check_seen()

    def _check_seen(self) -> None:
        for attention, watch in zip(self._attentions, self._watches, strict=True):
            if watch.maxima is None and any(part.parameter.grad is not None for part in attention.parts):
                raise ValueError(
                    f"qk_clip saw no logits of the attention {attention.name or 'of the model'}, with "
                    f"{attention.queries} heads; expected softmax or scaled_dot_product_attention in its forward pass, "
                    "on (..., heads, queries, keys): give transformers attn_implementation='sdpa' or 'eager', or leave "
                    "qk_clip out"
                )

    @torch.no_grad()
    def _after(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        self._check_seen()
        for attention, maxima in zip(self._attentions, self._agreed(), strict=True):
            self.maxima[attention.name] = maxima
            query, key = factors(maxima, attention.keys, self.tau, self.alpha)
            every = torch.cat([query, key, query.new_ones(1)])
            for part in attention.parts:
                _scale(part, every, optimizer, maxima)
        for watch in self._watches:
            watch.reset()

    def _agreed(self) -> list[Tensor]:
        """Return the largest finite logits of each attention over all ranks, each (heads,), float32."""
        found: list[Tensor] = []
        for attention, watch in zip(self._attentions, self._watches, strict=True):
            device = attention.parts[0].parameter.device
            unseen = torch.full((attention.queries,), -torch.inf, device=device)
            maxima = unseen if watch.maxima is None else watch.maxima.to(device)
            found.append(torch.where(maxima.isfinite(), maxima, unseen))
        if not (dist.is_available() and dist.is_initialized()):
            return found
        together = torch.cat([each.to(found[0].device) for each in found])
        dist.all_reduce(together, op=dist.ReduceOp.MAX, group=self.process_group)
        parts = together.split([len(each) for each in found])
        return [part.to(each.device) for part, each in zip(parts, found, strict=True)]


def factors(maxima: Tensor, keys: int, tau: float, alpha: float) -> tuple[Tensor, Tensor]:
    """Return by what the query heads are scaled, (heads,), and the key heads, (keys,).

    Args:
        maxima: the largest logit of each head, (heads,); -inf for none.
        keys: number of key heads; query head h belongs to h // (heads / keys).
        tau: threshold.
        alpha: the query's share.
    """
    eta = torch.where(maxima > tau, tau / maxima, torch.ones_like(maxima))
    groups = eta.view(keys, -1)
    key = groups.amax(1) ** (1 - alpha)
    return (groups / key[:, None]).flatten(), key


def _scale(part: Part, every: Tensor, optimizer: torch.optim.Optimizer, maxima: Tensor) -> None:
    """Scale the rows of a parameter, in place, by the factors of their heads.

    bfloat16 parameters are rounded as the optimizer rounds them, so that many small factors are not lost.
    """
    p = part.parameter
    rows = every[part.slots.to(every.device)]
    shape = [-1 if axis == part.axis else 1 for axis in range(p.ndim)]
    by = _laid_out(rows.view(shape), p)
    local = local_shard(p.detach(), p)
    if not is_narrow(p):
        local.mul_(by)
        return
    state = optimizer.state.get(p, {})
    groups = (group for group in optimizer.param_groups if any(each is p for each in group["params"]))
    rounding = next(groups, {}).get("rounding", "stochastic")
    remainder = local_shard(state["remainder"], p) if "remainder" in state else None
    seen = maxima.clamp(min=0).sum().view(torch.int32)  # noise that a resumed run draws again, equal on all ranks
    left = narrow(widen(local, remainder) * by, local, "nearest" if rounding == "nearest" else rounding, seen.long())
    if left is not None and remainder is not None:
        remainder.copy_(left)


def _laid_out(rows: Tensor, p: Tensor) -> Tensor:
    """Return the factors of this rank's part of a parameter, from those of the whole, which broadcast against it."""
    if not is_dtensor(p):
        return rows.to(p.device)
    mesh, whole = p.device_mesh, rows.to(p.device).expand(p.shape)
    return type(p).from_local(whole, mesh, run_check=False).redistribute(placements=p.placements).to_local()

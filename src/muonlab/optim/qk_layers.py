"""The attentions of a model whose logits QK-clip can scale: where the rows of each query and key head are."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from muonlab.optim.attention import KEYS, QUERIES, Rows, called, counts, fused_rows, is_fused
from muonlab.optim.names import is_transposed
from muonlab.optim.places import WRAPPERS, Place, places

# What an attention has whose logits do not scale with the weights of its query and key.
NORMS = [
    f"{which}_{norm}"
    for which in ("q", "k", "qk", "query", "key")
    for norm in ("norm", "layernorm", "layer_norm", "ln")
]
NORMS += ["norm_q", "norm_k"]
LATENT = ("kv_b_proj", "kv_a_proj_with_mqa", "q_b_proj", "q_up_proj", "kv_up_proj")


@dataclass(frozen=True, eq=False)
class Part:
    """A parameter that has rows of query or key heads."""

    module: nn.Module
    name: str  # in the module; looked up at each step, as sharding puts another in its place
    axis: int  # of its outputs
    slots: Tensor  # (outputs,): a query head; the number of query heads plus a key head; or the last for other rows

    @property
    def parameter(self) -> Tensor:
        """The parameter as it is now."""
        return getattr(self.module, self.name)


@dataclass(eq=False)
class Attention:
    """Query and key of one attention."""

    name: str  # of the module
    module: nn.Module
    queries: int  # heads
    keys: int
    parts: list[Part] = field(default_factory=list)


def attentions(model: nn.Module) -> list[Attention]:
    """Return the attentions of a model that are trained, in its order.

    Raises ValueError, with the attention's name and what to do, for one whose logits are not in proportion to its query
    and key weights, or whose rows are not known; and where there is none.
    """
    found: dict[int, list[tuple[Place, str]]] = {}
    for place in places(model):
        if place.parameter.ndim > 1 and (letters := _letters(place)):
            found.setdefault(id(_holder(place)), []).append((place, letters))
    kept = [_attention(members) for members in found.values() if _is_trained(members)]
    if not kept:
        raise ValueError(
            "qk_clip found no attention to clip: the model has no query and key that require grad, in layers that are "
            "called q_proj and k_proj, query and key, qkv, ...; leave qk_clip out"
        )
    owners: dict[int, str] = {}
    for attention in kept:
        for part in attention.parts:
            if (other := owners.setdefault(id(part.parameter), attention.name)) != attention.name:
                raise _cannot(attention.name, f"shares a weight with {other}", "each attention with weights of its own")
    return kept


def _letters(place: Place) -> str:
    """Return which of q, k and v a weight has by its name; "" for a weight of none, or of the value alone."""
    names = called(place)
    if names & QUERIES:
        return "q"
    if names & KEYS:
        return "k"
    if (rows := _rows(place)) is not None:
        return rows.letters
    return "qkv" if names and is_fused(place) else ""  # of unknown rows: refused


def _rows(place: Place) -> Rows | None:
    shape = place.parameter.shape
    return fused_rows(place, *(reversed(shape) if is_transposed(place) else (shape[0], shape[-1])))


def _holder(place: Place) -> nn.Module:
    """Return the module in whose forward pass query and key meet: nn.MultiheadAttention, or what holds the layer."""
    return place.path[_depth(place)]


def _depth(place: Place) -> int:
    components = place.name.split(".")[:-1]
    if not place.tensor.startswith("weight"):
        return len(components)
    layers = [number for number, part in enumerate(components) if part not in WRAPPERS]
    return layers[-1] if layers else 0


def _is_trained(members: list[tuple[Place, str]]) -> bool:
    """Return whether there is a query, and it or the key is trained."""
    has = [place.parameter.requires_grad for place, letters in members if "q" in letters or "k" in letters]
    return any(has) and any("q" in letters for _, letters in members)


def _cannot(name: str, why: str, what: str) -> ValueError:
    return ValueError(f"qk_clip cannot clip the attention {name or 'of the model'}: it {why}; expected {what}")


def _attention(members: list[tuple[Place, str]]) -> Attention:
    first = members[0][0]
    name, module = ".".join(first.name.split(".")[: _depth(first)]), _holder(first)
    _check_proportional(name, module)
    heads = counts(first)
    if heads is None:
        raise _cannot(
            name,
            "does not say how many heads it has",
            "num_heads, or num_attention_heads and num_key_value_heads, as attributes of the module or its config",
        )
    plain = {letters: place for place, letters in members if len(letters) == 1}
    fused = [(place, _rows(place)) for place, letters in members if len(letters) > 1]
    letters = "".join(letters for _, letters in members)
    if any(rows is None for _, rows in fused) or letters.count("q") != 1 or letters.count("k") != 1:
        names = ", ".join(place.name for place, _ in members)
        raise _cannot(
            name,
            f"has {names}, of which it is not known which rows are query and key",
            "one layer for query and one for key, or one for both whose order split_params knows",
        )
    slots = {place: _plain_slots(place, letter, heads.queries, heads.keys) for letter, place in plain.items()}
    slots |= {place: _fused_slots(rows, heads.queries) for place, rows in fused if rows is not None}
    queries, keys = (len({slot for each in slots.values() for kind, slot in each if kind == letter}) for letter in "qk")
    if not queries or not keys or queries % keys:
        raise _cannot(name, f"has {queries} heads of query and {keys} of key", "a multiple of the key heads")
    attention = Attention(name, module, queries, keys)
    for place, each in slots.items():
        numbers = [{"q": slot, "k": queries + slot}.get(kind, queries + keys) for kind, slot in each]
        attention.parts += _parts(name, place, torch.tensor(numbers))
    if isinstance(module, nn.MultiheadAttention) and isinstance(module.in_proj_bias, nn.Parameter):
        numbers = [part.slots for part in attention.parts]  # of one weight, or of the query's and the key's
        rest = torch.full((len(module.in_proj_bias) - sum(map(len, numbers)),), queries + keys)
        attention.parts.append(Part(module, "in_proj_bias", 0, torch.cat([*numbers, rest])))
    return attention


def _check_proportional(name: str, module: nn.Module) -> None:
    """Raise ValueError for an attention whose logits are not a product of its query and key weights."""
    for layer in LATENT:
        if hasattr(module, layer):
            raise _cannot(
                name, f"is latent attention ({layer}), whose heads share a key", "multi-head or grouped attention"
            )
    norms = [each for each in NORMS if isinstance(getattr(module, each, None), nn.Module)]
    norms = [each for each in norms if not isinstance(getattr(module, each), nn.Identity)]
    if norms:
        raise _cannot(
            name,
            f"normalizes query or key ({norms[0]}), so that its logits do not depend on the size of their weights",
            "attention without it; with it the logits are bounded, so leave qk_clip out",
        )
    for more in ("sinks", "bias_k"):
        if getattr(module, more, None) is not None:
            raise _cannot(name, f"has {more}, logits that do not come from query and key alone", f"it without {more}")


Slot = tuple[str, int]  # "q", "k" or "v", and the head


def _plain_slots(place: Place, letter: str, queries: int, keys: int) -> list[Slot]:
    number, rows = queries if letter == "q" else keys, place.parameter.shape[1 if is_transposed(place) else 0]
    if rows % number:
        raise ValueError(
            f"parameter {place.name}: its {rows} rows cannot be divided among {number} heads, by what its module or "
            "config says; qk_clip expects a number that divides them"
        )
    return [(letter, row // (rows // number)) for row in range(rows)]


def _fused_slots(rows: Rows, queries: int) -> list[Slot]:
    slots: list[Slot] = []
    seen = dict.fromkeys(rows.letters, 0)
    for _ in range(rows.times):
        for letter, part, unit in zip(rows.letters, rows.parts, rows.units, strict=True):
            for _ in range(part // unit):
                slots += [(letter, seen[letter])] * unit
                seen[letter] += 1
    return slots


def _parts(name: str, place: Place, slots: Tensor) -> Iterator[Part]:
    """Yield a weight and its bias."""
    module = place.module
    assert module is not None
    if is_parametrized(module) or not isinstance(getattr(module, place.tensor, None), nn.Parameter):
        raise _cannot(name, f"computes its weight {place.name} from another (a parametrization)", "a plain weight")
    if not place.parameter.requires_grad:
        raise _cannot(
            name, f"has a frozen weight, {place.name}, whose other half is trained", "query and key trained, or neither"
        )
    yield Part(module, place.tensor, 1 if is_transposed(place) else 0, slots)
    if place.tensor == "weight" and isinstance(getattr(module, "bias", None), nn.Parameter):
        yield Part(module, "bias", 0, slots)

"""Query, key and value of an attention: which rows of which layer, as its modules and the model's config say."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from muonlab.optim.patterns import hint, matches
from muonlab.optim.places import Place

Heads = Literal["auto"] | Mapping[str, "int | tuple[int, int]"] | None


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


QUERIES = frozenset(
    _words(
        """query q q_proj wq Wq to_q q_lin linear_q query_proj query_layer
        q_attn q_b_proj wq_b q_up_proj q_proj_weight"""
    )
)
KEYS = frozenset(_words("key k k_proj wk Wk to_k k_lin linear_k key_proj key_layer k_proj_weight"))
VALUES = frozenset(_words("value v v_proj wv Wv to_v v_lin linear_v value_proj value_layer v_proj_weight"))
KEYS_OR_VALUES = KEYS | VALUES
# Query, key and value in one layer, one above the other.
FUSED = frozenset(_words("qkv Wqkv c_attn qkv_proj to_qkv in_proj_weight qkv_linear W_pack"))
# Keys and values in one layer, one above the other.
FUSED_PAIRS = frozenset(_words("kv to_kv Wkv c_attn"))
# Layers whose order of rows differs from class to class, by a word of their name: query_key_value, wqkv, qkv_layer.
UNSAID = re.compile(r"(^|_)(w?qkvs?|w?kqv|qvk|(quer(y|ies)|keys?)_(quer(y|ies)|keys?)_values?)\d*($|_)")
# Keys and values, of which the same is true.
UNSAID_PAIRS = re.compile(r"(^|_)(w?kv|keys?_values?)\d*($|_)")

# Of which some call their matrices key and value (RWKV).
FEED_FORWARD = frozenset(_words("mlp ffn feed_forward"))

# What modules and configs call their numbers of heads, and the rows of a head.
NUM_HEADS = _words("num_attention_heads num_heads n_heads n_head nhead num_q_heads num_query_heads heads")
NUM_KEYS = _words("num_key_value_heads num_kv_heads n_kv_heads n_kv_head")
SIZES = _words("head_dim head_size attention_head_size dim_head d_head key_value_proj_dim d_kv")


@dataclass(frozen=True)
class Counts:
    """Heads of an attention."""

    queries: int
    keys: int  # and values
    size: int | None = None  # rows of a head


@dataclass(frozen=True)
class Rows:
    """The rows of a layer: `times` over, `parts` one above the other, each of heads of so many rows (`units`)."""

    times: int
    parts: tuple[int, ...]
    units: tuple[int, ...]
    said: str  # what the parts are
    is_apart: bool = True  # whether the parts are orthogonalized apart, also where heads are not
    letters: str = "qkv"  # a letter for each part where they are queries, keys and values of an attention

    @property
    def total(self) -> int:
        """All rows."""
        return self.times * sum(self.parts)

    @property
    def by_part(self) -> int | tuple[Any, ...]:
        """The split into parts: query, key and value apart."""
        if self.times > 1:
            return self.parts[0] * self.times if len(self.parts) == 1 else (self.times, self.parts)
        return len(self.parts) if len(set(self.parts)) == 1 else self.parts

    @property
    def by_head(self) -> int | tuple[int, ...]:
        """The split into heads."""
        heads = [unit for part, unit in zip(self.parts, self.units, strict=True) for _ in range(part // unit)]
        return self.times * len(heads) if len(set(heads)) == 1 else tuple(heads * self.times)


def counts(place: Place) -> Counts | None:
    """Return the heads of the attention that a layer is in, by the nearest module, or its config, that has them."""
    for module in (place.module, *place.around):
        config = getattr(module, "config", None)
        sources = [source for source in (module, config) if source is not None]
        if queries := _number(sources, NUM_HEADS):
            groups = _number(sources[:1], ["num_key_value_groups"])
            keys = _number(sources[:1], NUM_KEYS) or (queries // groups if groups and queries % groups == 0 else None)
            return Counts(queries, keys or _number(sources[1:], NUM_KEYS) or queries, _number(sources, SIZES))
    return None


def _number(sources: Sequence[Any], names: Sequence[str]) -> int | None:
    found = (_asked(source, name) for source in sources for name in names)
    return next((each for each in found if isinstance(each, int) and not isinstance(each, bool) and each > 0), None)


def _asked(source: Any, name: str) -> Any:
    try:
        return getattr(source, name, None)
    except Exception:  # a config may refuse to say for the whole model what differs between its layers (Gemma 4)
        return None


# --- layers whose rows their classes order in ways of their own: class of transformers -> rows


def _by_head(attention: Any, heads: Counts, rows: int) -> Rows:
    size = rows // (3 * heads.queries)
    return Rows(heads.queries, (size,) * 3, (size,) * 3, "query, key and value in each head")


def _by_group(attention: Any, heads: Counts, rows: int) -> Rows:
    """Return (groups, queries of a group, its key, its value)."""
    size = rows // (heads.queries + 2 * heads.keys)
    queries = heads.queries // heads.keys * size
    return Rows(heads.keys, (queries, size, size), (size,) * 3, "queries, key and value in each group")


def _one_above_the_other(attention: Any, heads: Counts, rows: int) -> Rows:
    size = rows // (heads.queries + 2 * heads.keys)
    return Rows(1, (heads.queries * size, heads.keys * size, heads.keys * size), (size,) * 3, "query, key, value")


def _of_falcon(attention: Any, heads: Counts, rows: int) -> Rows:
    if attention.new_decoder_architecture:
        return _by_group(attention, heads, rows)
    return (_one_above_the_other if attention.multi_query else _by_head)(attention, heads, rows)


def _of_bigcode(attention: Any, heads: Counts, rows: int) -> Rows:
    if attention.multi_query:
        return _one_above_the_other(attention, Counts(heads.queries, 1), rows)
    return _by_head(attention, heads, rows)


def _of_codegen(attention: Any, heads: Counts, rows: int) -> Rows:
    """Return four shards, as of its training on TPUs, each with queries, values and keys."""
    part = rows // 12
    return Rows(
        4, (part,) * 3, (rows // (3 * heads.queries),) * 3, "query, value and key in each of 4 shards", letters="qvk"
    )


def _of_latent(attention: Any, heads: Counts, rows: int) -> Rows:
    parts = attention.qk_nope_head_dim, attention.v_head_dim
    return Rows(heads.queries, parts, parts, "key and value in each head", is_apart=False, letters="")


def _of_delta(attention: Any, heads: Counts, rows: int) -> Rows:
    """Return Qwen3-Next's groups: query and key, then values and gates of several heads."""
    several = attention.num_v_heads // attention.num_k_heads
    key, value = attention.head_k_dim, attention.head_v_dim
    parts = (key, key, several * value, several * value)
    return Rows(
        attention.num_k_heads, parts, (key, key, value, value), "query, key, value and gate in each group", letters=""
    )


def _of_delta_in_order(attention: Any, heads: Counts, rows: int) -> Rows:
    parts = (attention.key_dim, attention.key_dim, attention.value_dim)
    return Rows(
        1, parts, (attention.head_k_dim, attention.head_k_dim, attention.head_v_dim), "query, key, value", letters=""
    )


def _of_pair(attention: Any, heads: Counts, rows: int) -> Rows:
    half = rows // 2
    return Rows(1, (half, half), (_unit(half, heads, "keys"),) * 2, "key, value", letters="kv")


# Beginning of the class's name, layer.
OWN_WAYS: dict[tuple[str, str], Callable[[Any, Counts, int], Rows]] = {
    ("GPTNeoX", "query_key_value"): _by_head,
    ("Bloom", "query_key_value"): _by_head,
    ("Persimmon", "query_key_value"): _by_head,
    ("MiniMaxLightning", "qkv_proj"): _by_head,
    ("Disentangled", "in_proj"): _by_head,  # DeBERTa
    ("Falcon", "query_key_value"): _of_falcon,
    ("GPTBigCode", "c_attn"): _of_bigcode,
    ("CodeGen", "qkv_proj"): _of_codegen,
    ("InternLM2", "wqkv"): _by_group,
    ("JetMoe", "kv_proj"): _of_pair,
    ("", "kv_b_proj"): _of_latent,
    ("", "in_proj_qkvz"): _of_delta,
    ("", "in_proj_qkv"): _of_delta_in_order,
}


def fused_rows(place: Place, rows: int, columns: int) -> Rows | None:
    """Return what the rows of a layer are that has query, key and value, or two of them; None if nothing says it."""
    layer = place.tensor if place.tensor in FUSED else place.layer
    heads = counts(place)
    for (prefix, own_layer), way in OWN_WAYS.items():
        module = _attention(place, prefix)
        if layer == own_layer and module is not None:
            return _checked(way, module, heads, rows)
    if layer in FUSED and any(getattr(module, "head_first", False) is True for module in place.path[-2:-1]):  # timm
        return _checked(_by_head, place.path[-2], heads, rows)
    if layer in FUSED:
        if heads is not None and heads.size and (heads.queries + 2 * heads.keys) * heads.size == rows:
            return _one_above_the_other(None, heads, rows)
        if rows == 3 * columns:
            unit = _unit(rows // 3, heads)
            return Rows(1, (rows // 3,) * 3, (unit,) * 3, "query, key, value")
        if heads is not None and not rows % (heads.queries + 2 * heads.keys) and layer not in FUSED_PAIRS:
            return _one_above_the_other(None, heads, rows)
    if layer in FUSED_PAIRS and heads is not None:
        is_pair = rows in (2 * heads.keys * (heads.size or 0), 2 * columns)
        units = (_unit(rows // 2, heads, "keys"),) * 2
        return Rows(1, (rows // 2,) * 2, units, "key, value", letters="kv") if is_pair else None
    return None


def called(place: Place) -> set[str]:
    """Return what a weight is called that may be the query, key or value of an attention."""
    if set(place.parts) & FEED_FORWARD:
        return set()
    # A parameter that is called query itself is something else, but for those of nn.MultiheadAttention.
    return {place.layer} if place.tensor in ("weight", "weight_v") else {place.tensor} - {"query", "key", "value"}


def is_fused(place: Place) -> bool:
    """Return whether a layer has query, key and value by its name, known parts or not."""
    layers = {place.layer, place.tensor}
    return bool(layers & FUSED) or any(UNSAID.search(layer.lower()) for layer in layers)


def is_pair(place: Place, rows: int, columns: int) -> bool:
    """Return whether a layer has key and value by its name and as many rows as both, in an order that is not known."""
    heads = counts(place) if UNSAID_PAIRS.search(place.layer.lower()) else None
    return heads is not None and rows in (2 * columns, 2 * heads.keys * (heads.size or 0))


def _unit(rows: int, heads: Counts | None, which: str = "queries") -> int:
    number = getattr(heads, which, 1)
    return rows // number if rows % number == 0 else rows


def _attention(place: Place, prefix: str) -> nn.Module | None:
    return next((module for module in place.around if _is_attention(module, prefix)), None)


def _is_attention(module: nn.Module, prefix: str) -> bool:
    names = [each.__name__ for each in type(module).__mro__]
    return any(
        name.startswith(prefix) and any(word in name for word in ("Attention", "DeltaNet", "MLA")) for name in names
    )


def _checked(way: Callable[[Any, Counts, int], Rows], module: Any, heads: Counts | None, rows: int) -> Rows | None:
    """Return what a way says, or None where the module has not what it asks for or has other rows."""
    try:
        found = way(module, heads or Counts(1, 1), rows)
    except (AttributeError, ZeroDivisionError, TypeError):
        return None
    return found if found.total == rows else None


# --- by head


class ByHead:
    """Which layers are orthogonalized head by head, by the argument `heads`."""

    def __init__(self, heads: Heads):
        if heads is not None and heads != "auto" and not isinstance(heads, Mapping):
            raise ValueError(
                f"heads={heads!r}; expected 'auto', or pattern -> number of heads or (query heads, key and value heads)"
            )
        for pattern, number in heads.items() if isinstance(heads, Mapping) else ():
            pair = number if isinstance(number, tuple | list) else (number,)
            if not (0 < len(pair) < 3 and all(isinstance(each, int) and each > 0 for each in pair)):
                raise ValueError(
                    f"heads={{{pattern!r}: {number!r}}}; expected a number of heads, or (query heads, key-value heads)"
                )
        self._heads = heads
        self._claimed: set[str] = set()
        self._names: list[str] = []
        self._found = False

    def __call__(self, place: Place, rows: int, fused: Rows | None) -> int | tuple[int, ...] | None:
        """Return the split of a layer into its heads; None if it is not to be, or has none.

        Raises ValueError, with the name of the parameter, where its rows cannot be divided among them.
        """
        if self._heads is None:
            return None
        if not isinstance(self._heads, Mapping):
            return self._auto(place, rows, fused)
        self._names.append(place.name)
        found = [pattern for pattern in self._heads if any(matches(pattern, name) for name in _names(place))]
        self._claimed.update(found)
        if not found:
            return None
        number = self._heads[found[0]]
        if isinstance(number, int) and is_fused(place):
            number = number, number
        heads = number if isinstance(number, int) else number[0] + 2 * number[1]
        self._check(place, rows, heads, f"heads={{{found[0]!r}: {self._heads[found[0]]!r}}}")
        return heads

    def _auto(self, place: Place, rows: int, fused: Rows | None) -> int | tuple[int, ...] | None:
        if fused is not None:
            self._found = True
            return fused.by_head
        names = called(place) & (QUERIES | KEYS_OR_VALUES)
        heads = counts(place) if names else None
        if heads is None:
            return None
        self._found = True
        number = heads.queries if names & QUERIES else heads.keys
        self._check(place, rows, number, "heads='auto', by what its module or config says")
        return number

    def _check(self, place: Place, rows: int, heads: int, why: str) -> None:
        if rows % heads:
            raise ValueError(
                f"parameter {place.name}: its {rows} rows cannot be divided among {heads} heads ({why}); expected a "
                "number that divides them: give heads={pattern: number}, or split={pattern: rows of each block}"
            )

    def check_all_claimed(self) -> None:
        """Raise ValueError where a pattern has matched nothing, or "auto" has found nothing."""
        for pattern in self._heads if isinstance(self._heads, Mapping) else ():
            if pattern not in self._claimed:
                raise ValueError(
                    f"heads has the pattern {pattern!r}, which matches no parameter of Muon; "
                    f"{hint(pattern, self._names)}"
                )
        if self._heads == "auto" and not self._found:
            raise ValueError(
                "heads='auto' found no query, key or value whose module or config says its number of heads; give the "
                "model, not its named parameters, or heads={pattern: number}"
            )


def _names(place: Place) -> Iterator[str]:
    yield place.name
    yield ".".join(place.parts)

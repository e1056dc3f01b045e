"""The parameters of a model, divided between Muon and AdamW."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from muonlab.optim.patterns import hint, matches, some
from muonlab.optim.routing import Kind, Place, adamw_reason, kind_and_blocks, output_heads, places

Rule = Literal["muon", "adamw"]
Rules = Mapping[str, Rule] | Sequence[tuple[str, Rule]] | Callable[[str, Tensor], Rule | None]


@dataclass(frozen=True, eq=False)
class Route:
    """Where a parameter goes.

    Attributes:
        name: full dotted name; of a tied parameter, the first.
        parameter: the parameter.
        rule: "muon" or "adamw".
        reason: why, in a few words.
        kind: how Muon sees it: "matrix" is (rows, columns); "convolution" is (first axis, product of the others);
            "experts" is (experts, rows, columns). None for AdamW.
        blocks: the equal blocks of rows that Muon orthogonalizes apart: groups of a convolution, gates of an LSTM or
            GRU, query, key and value of a fused projection; else 1.
        aliases: the other names of a tied parameter.
    """

    name: str
    parameter: Tensor = field(repr=False)
    rule: Rule
    reason: str
    kind: Kind | None = None
    blocks: int = 1
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Split:
    """Where each parameter goes; `print` shows it as a table.

    Attributes:
        routes: one for each parameter that is trained, in the model's order.
        frozen: names and parameters that do not require grad, and that no rule takes.
    """

    routes: tuple[Route, ...]
    frozen: tuple[tuple[str, Tensor], ...] = field(default=(), repr=False)

    def named(self, rule: Rule) -> list[Route]:
        """Return the routes of "muon" or of "adamw"."""
        _check_rule(rule, "named")
        return [route for route in self.routes if route.rule == rule]

    def __str__(self) -> str:
        lines = [
            (each.name, each.parameter, each.rule, each.reason + (f", {each.blocks} blocks" if each.blocks > 1 else ""))
            for each in self.routes
        ]
        lines += [(name, parameter, "frozen", "requires_grad is False") for name, parameter in self.frozen]
        return "\n".join([*_table(lines), "", *_totals(lines), *_notes(self.routes)])


def split_params(
    model_or_named: nn.Module | Mapping[str, Tensor] | Iterable[tuple[str, Tensor]],
    rules: Rules | None = None,
    *,
    defaults: bool = True,
) -> Split:
    """Divide the parameters that require grad between Muon and AdamW.

    Muon takes the hidden matrices: those of linear layers, attention, recurrent layers and routers, stacks of experts
    (3-D), and convolutions, the first one and patch embeddings included. AdamW takes

    - embeddings: nn.Embedding, nn.EmbeddingBag and classes with Embedding in their name, whatever is tied to them,
      position tables, class and register tokens;
    - output heads, known by their names: head, lm_head, classifier, ...: the last matrix of such a module; and outside
      of numbered layers a layer that is called fc, output, decoder, proj_out, ...;
    - what acts element by element: norms, biases, scales, and all that has fewer than two axes;
    - depthwise convolutions, matrices with a side of 1 (for a stack, also a stack of one) and nn.Bilinear, whose weight
      may be read as several matrices.

    Some matrices are several, one above the other, and Muon orthogonalizes these apart (`Route.blocks`): the groups of
    a convolution, the gates of nn.LSTM and nn.GRU, and query, key and value in one layer: `in_proj_weight` of
    nn.MultiheadAttention, and layers called qkv, Wqkv, c_attn, qkv_proj or to_qkv with thrice as many rows as columns.

    An output head whose name tells nothing, such as the last layer of an nn.Sequential, is taken for a hidden matrix;
    look at the table, and give a rule for it. Conv1D of transformers (GPT-2), the experts of some mixtures and
    transposed convolutions hold (in, out): the orthogonalized matrix is the transposed one, so only a scale that
    depends on rows / columns sees the difference; query, key and value in one Conv1D stay one matrix.

    Args:
        model_or_named: a model; or (name, parameter) pairs, or a mapping, that are routed by names and shapes alone:
            then the groups of convolutions and the gates of recurrent layers are not seen, a 3-D parameter is a
            convolution if its layer has conv in its name and a stack otherwise, and a convolution with one input
            channel goes to AdamW as depthwise.
        rules: what overrides the defaults: pairs or a mapping of pattern (see `muonlab.optim.patterns.matches`) to
            "muon" or "adamw", of which the first that matches one of a parameter's names wins; or a function of name
            and parameter that returns "muon", "adamw", or None for the default.
        defaults: False lets rules alone decide; then they must take every parameter.

    Returns:
        A route for each parameter that requires grad; a tied parameter has one.

    Raises:
        ValueError: nothing requires grad; a parameter is not initialized yet; a name occurs twice; a rule is neither
            "muon" nor "adamw", matches nothing, matches only what earlier rules have sent elsewhere, or sends a
            parameter of fewer than two axes to Muon; without defaults, a parameter that no rule takes.

    Example:
        >>> model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
        >>> split = split_params(model, {"2.weight": "adamw"})
        >>> [route.name for route in split.named("muon")]
        ['0.weight']

    References:
        Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/: hidden matrices to Muon, convolutions flattened.
    """
    held = places(model_or_named) if isinstance(model_or_named, nn.Module) else _from_pairs(model_or_named)
    for place in held:
        if place.tensor == "_flat_param":
            raise ValueError(
                f"parameter {place.name!r} is many parameters in one (FSDP with use_orig_params=False), in which no "
                "matrix is seen; use fully_shard, or use_orig_params=True"
            )
        if is_lazy(place.parameter):
            raise ValueError(
                f"parameter {place.name!r} has no shape yet; run a forward pass through the model, then split it"
            )
    if not any(place.parameter.requires_grad for place in held):
        found = f"none of its {len(held)} parameters requires grad" if held else "it has no parameters"
        raise ValueError(f"there is nothing to train: {found}; expected at least one with requires_grad=True")
    if not defaults and rules is None:
        raise ValueError("defaults=False leaves every parameter to rules, but rules is None; give rules")

    tied: dict[int, list[Place]] = {}  # every parameter, with all its places
    for place in held:
        tied.setdefault(id(place.parameter), []).append(place)
    groups = list(tied.values())
    ruled = _ask(rules, groups) if callable(rules) else _claim(_pairs(rules), groups)
    trained = [group for group in groups if group[0].parameter.requires_grad]
    if not defaults and (unclaimed := [group[0].name for group in trained if id(group[0].parameter) not in ruled]):
        raise ValueError(
            f"no rule takes {some(unclaimed)}; with defaults=False every parameter needs one: add rules, "
            "the last of them for all others, such as ('*', 'adamw')"
        )
    heads = output_heads(held)
    routes = tuple(_route(group, heads, ruled.get(id(group[0].parameter))) for group in trained)
    frozen = ((group[0].name, group[0].parameter) for group in groups if not group[0].parameter.requires_grad)
    return Split(routes, tuple(frozen))


# --- what is given


def _from_pairs(named: Mapping[str, Tensor] | Iterable[tuple[str, Tensor]]) -> list[Place]:
    found: dict[str, Place] = {}
    for pair in named.items() if isinstance(named, Mapping) else named:
        match pair:
            case (str(name), Tensor() as parameter):
                if name in found:
                    raise ValueError(
                        f"the name {name!r} occurs twice; expected every parameter once, by a name of its own"
                    )
                found[name] = Place(name, parameter)
            case _:
                raise ValueError(
                    f"expected a model or (name, parameter) pairs, got an element of type {type(pair).__name__}; "
                    "pass the model, or model.named_parameters()"
                )
    return list(found.values())


def _pairs(rules: Mapping[str, Rule] | Sequence[tuple[str, Rule]] | None) -> list[tuple[str, Rule]]:
    pairs: list[tuple[str, Rule]] = []
    for pair in rules.items() if isinstance(rules, Mapping) else rules or ():
        match pair:
            case (str(pattern), rule) if not isinstance(pair, str):
                _check_rule(rule, f"the rule for {pattern!r}")
                pairs.append((pattern, rule))
            case _:
                raise ValueError(f"{pair!r} is not a rule; expected (pattern, rule) pairs, such as [('head', 'adamw')]")
    return pairs


def _check_rule(rule: object, where: str) -> None:
    if rule not in get_args(Rule):
        raise ValueError(f"{where} is {rule!r}; expected 'muon' or 'adamw'")


# --- what rules say: parameter id -> rule and reason


def _ask(rules: Callable[[str, Tensor], Rule | None], groups: Iterable[list[Place]]) -> dict[int, tuple[Rule, str]]:
    said: dict[int, tuple[Rule, str]] = {}
    for first, *_ in groups:
        if first.parameter.requires_grad and (rule := rules(first.name, first.parameter)) is not None:
            _check_rule(rule, f"what rules returned for {first.name!r}")
            _check_axes(first, rule, "rules")
            said[id(first.parameter)] = rule, "rule"
    return said


def _claim(rules: Sequence[tuple[str, Rule]], groups: Sequence[list[Place]]) -> dict[int, tuple[Rule, str]]:
    claimed: dict[int, tuple[Rule, str]] = {}
    for pattern, rule in rules:
        found = [group for group in groups if any(matches(pattern, place.name) for place in group)]
        if not found:
            names = [place.name for group in groups for place in group]
            raise ValueError(f"the rule {pattern!r} matches no parameter; {hint(pattern, names)}")
        firsts = [first for first, *_ in found if first.parameter.requires_grad]
        fresh = [first for first in firsts if id(first.parameter) not in claimed]
        if firsts and not fresh and any(claimed[id(first.parameter)][0] != rule for first in firsts):
            earlier = claimed[id(firsts[0].parameter)][1]
            raise ValueError(
                f"the rule {pattern!r} -> {rule!r} takes nothing: earlier ones ({earlier}) take all that it matches, "
                f"{some([first.name for first in firsts])}; the first match wins, so put it before them, or drop it"
            )
        for first in fresh:
            _check_axes(first, rule, f"the rule {pattern!r}")
            claimed[id(first.parameter)] = rule, f"rule {pattern!r}"
    return claimed


def _check_axes(place: Place, rule: Rule, who: str) -> None:
    if rule == "muon" and place.parameter.ndim < 2:
        raise ValueError(
            f"{who} sends {place.name!r} of shape {tuple(place.parameter.shape)} to Muon, which takes parameters with "
            "two or more axes; narrow the rule (such as 'head.weight'), or put one before it that sends such "
            "parameters to 'adamw' (such as ('bias', 'adamw'))"
        )


# --- where a parameter goes


def _route(group: Sequence[Place], heads: set[Place], ruled: tuple[Rule, str] | None) -> Route:
    first, *others = group
    kind, blocks = kind_and_blocks(first) if first.parameter.ndim > 1 else ("matrix", 1)
    if ruled is None:
        # A parameter that is used in several ways goes by the most particular: a tied head is an embedding.
        reasons = [reason for place in group if (reason := adamw_reason(place, heads))]
        particular = [reason for reason in ("embedding", "output head") if reason in reasons] + reasons
        ruled = ("adamw", particular[0]) if particular else ("muon", kind)
    rule, reason = ruled
    seen = (kind, blocks) if rule == "muon" else (None, 1)
    reason += ", tied" if others else ""
    return Route(first.name, first.parameter, rule, reason, *seen, tuple(place.name for place in others))


# --- the table


def _table(lines: Iterable[tuple[str, Tensor, str, str]]) -> list[str]:
    """Return the lines of a table; parameters whose names differ in numbers alone share one.

    Those of Muon share it only if their shapes are equal: the shape is what Muon's step depends on.
    """
    alike: dict[tuple[object, ...], list[tuple[str, Tensor]]] = {}
    for name, parameter, rule, why in lines:
        key = re.sub(r"\d+", "*", name), rule, why, parameter.shape if rule == "muon" else None
        alike.setdefault(key, []).append((name, parameter))
    rows = [("parameter", "shape", "rule", "why", "elements")]
    for (starred, rule, why, _), members in alike.items():
        found = map(set, zip(*(name.split(".") for name, _ in members), strict=True))
        parts = zip(str(starred).split("."), found, strict=True)  # numbers in which the names differ become stars
        name = ".".join(star if len(each) > 1 else each.pop() for star, each in parts)
        name += f" x{len(members)}" if len(members) > 1 else ""
        shapes = {"x".join(map(str, parameter.shape)) or "scalar" for _, parameter in members}
        elements = sum(parameter.numel() for _, parameter in members)
        rows.append((name, shapes.pop() if len(shapes) == 1 else "various", str(rule), str(why), f"{elements:,}"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join([*map(str.ljust, row[:-1], widths), row[-1].rjust(widths[-1])])  # the numbers to the right
        for row in rows
    ]


def _totals(lines: Iterable[tuple[str, Tensor, str, str]]) -> list[str]:
    parameters, elements = Counter[str](), Counter[str]()
    for _, parameter, rule, _ in lines:
        parameters[rule] += 1
        elements[rule] += parameter.numel()
    rules = [*get_args(Rule), *(["frozen"] if parameters["frozen"] else [])]
    everything = max(1, sum(elements.values()))
    widths = len(f"{max(parameters.values()):,}"), len(f"{max(elements.values()):,}")
    return [
        f"{rule:6}  {parameters[rule]:{widths[0]},} parameters  {elements[rule]:{widths[1]},} elements"
        f"  {elements[rule] / everything:6.1%}"
        for rule in rules
    ]


def _notes(routes: Sequence[Route]) -> list[str]:
    """Return which names are tied, and a hint if the defaults alone decided and saw no output among the matrices."""
    ties = [" = ".join([route.name, *route.aliases]) for route in routes if route.aliases]
    notes = [f"tied: {tie}" for tie in ties[:4]] + ([f"tied: {len(ties) - 4} more"] if len(ties) > 4 else [])
    if not any(route.reason.startswith(("output head", "embedding, tied", "rule")) for route in routes):
        notes.append("no output head was recognized; if there is one, name it: rules={'its.name': 'adamw'}")
    return notes

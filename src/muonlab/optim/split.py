"""The parameters of a model, divided between Muon and AdamW."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from muonlab.optim.attention import ByHead, Heads
from muonlab.optim.forms import Form, form
from muonlab.optim.layout import Kind
from muonlab.optim.outputs import output_heads, suspects
from muonlab.optim.patterns import hint, matches, some
from muonlab.optim.places import Place, places, unwrapped
from muonlab.optim.routing import adamw_reason
from muonlab.optim.table import table

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
            "experts" is (..., rows, columns); "cr" and "scr" are a matrix and experts stored as (in, out). None for
            AdamW.
        blocks: what Muon orthogonalizes apart: groups of a convolution, gates of an LSTM or GRU, gate and up
            projection, query, key and value of a fused projection, heads. A number of equal blocks of rows, 1 for the
            whole; the rows of each; or (times, rows of each part) where parts alternate, as in heads that each have
            their query and key.
        aliases: the other names of a tied parameter.
        said: what the blocks are, in a few words.
    """

    name: str
    parameter: Tensor = field(repr=False)
    rule: Rule
    reason: str
    kind: Kind | None = None
    blocks: int | tuple = 1
    aliases: tuple[str, ...] = ()
    said: str = field(default="", repr=False)


@dataclass(frozen=True, eq=False)
class Split:
    """Where each parameter goes; `print` shows it as a table.

    Attributes:
        routes: one for each parameter that is trained, in the model's order.
        frozen: names and parameters that do not require grad, and that no rule takes.
        later: where those go once they require grad.
        hint: the rule to give where a matrix may be an output head that was not recognized, or Muon has nothing.
    """

    routes: tuple[Route, ...]
    frozen: tuple[tuple[str, Tensor], ...] = field(default=(), repr=False)
    later: tuple[Route, ...] = field(default=(), repr=False)
    hint: str = field(default="", repr=False)

    def named(self, rule: Rule) -> list[Route]:
        """Return the routes of "muon" or of "adamw"."""
        _check_rule(rule, "named")
        return [route for route in self.routes if route.rule == rule]

    def __str__(self) -> str:
        return table(self.routes, self.frozen, self.hint)


def split_params(
    model_or_named: nn.Module | Mapping[str, Tensor] | Iterable[tuple[str, Tensor]],
    rules: Rules | None = None,
    *,
    defaults: bool = True,
    heads: Heads = None,
) -> Split:
    """Divide the parameters that require grad between Muon and AdamW.

    Muon takes the hidden matrices: those of linear layers, attention, recurrent layers and routers, stacks of experts
    (3-D), and convolutions, the first one and patch embeddings included. AdamW takes

    - embeddings: nn.Embedding, nn.EmbeddingBag and classes with Embedding in their name, whatever is tied to them,
      position tables, class and register tokens;
    - output heads: those whose names say so (head, lm_head, classifier, ...: the last matrix of such a module; and
      outside of repeated layers fc, output, decoder, proj_out, ...); linear layers outside of repeated layers with an
      output for each row of an embedding, if they are not square and nothing else takes so many inputs; and if there
      is neither of these, nor a matrix that is shared with an embedding, the last linear layer, if no other layer
      gives or takes as many numbers;
    - what acts element by element: norms, biases, scales, and all that has fewer than two axes;
    - depthwise convolutions, matrices with a side of 1 (for a stack, also a stack of one) and nn.Bilinear, whose weight
      may be read as several matrices.

    Some matrices are several, and Muon orthogonalizes these apart (`Route.blocks`): the groups of a convolution, the
    gates of nn.LSTM and nn.GRU, gate and up projection (gate_up_proj), and query, key and value in one layer. Which
    rows those are follows from the numbers of heads that the module or its config has, and for the classes of
    transformers that interleave them from the class; else they are three equal blocks if a layer called qkv, Wqkv,
    c_attn, qkv_proj, to_qkv, ... has three times as many rows as columns. Where the rows are not known they stay one
    matrix, and the table says so. Conv1D of transformers (GPT-2) and experts that are stored as (in, out) are seen as
    (out, in).

    Wrappers are seen through: DistributedDataParallel, torch.compile, FSDP, PEFT, parametrizations, pruning.

    Args:
        model_or_named: a model; or (name, parameter) pairs, or a mapping, that are routed by names and shapes alone:
            then the groups of convolutions and the gates of recurrent layers are not seen, a 3-D parameter is a
            convolution if its layer has conv in its name and a stack otherwise, and a convolution with one input
            channel goes to AdamW as depthwise.
        rules: what overrides the defaults: pairs or a mapping of pattern (see `muonlab.optim.patterns.matches`) to
            "muon" or "adamw", of which the first that matches one of a parameter's names wins; or a function of name
            and parameter that returns "muon", "adamw", or None for the default.
        defaults: False lets rules alone decide; then they must take every parameter.
        heads: "auto" orthogonalizes query, key and value head by head, where the module or its config says how many
            there are; or pattern -> number of heads, or (query heads, key and value heads) of a fused layer.

    Returns:
        A route for each parameter that requires grad; a tied parameter has one.

    Raises:
        ValueError: nothing requires grad; a parameter is not initialized yet; a name occurs twice; a rule is neither
            "muon" nor "adamw", matches nothing, matches only what earlier rules have sent elsewhere, or sends a
            parameter of fewer than two axes to Muon; without defaults, a parameter that no rule takes; `heads` that
            match nothing or do not divide the rows of a parameter.

    Examples:
        >>> model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
        >>> [(route.name, route.reason) for route in split_params(model).routes if route.parameter.ndim > 1]
        [('0.weight', 'matrix'), ('2.weight', 'output head')]

    References:
        Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/: hidden matrices to Muon, convolutions flattened.
    """
    held = places(model_or_named) if isinstance(model_or_named, nn.Module) else _from_pairs(model_or_named)
    _check_flat(held)
    for place in held:
        if place.tensor == "_flat_param":
            raise ValueError(
                f"parameter {place.name!r} is many parameters in one (FullyShardedDataParallel), in which no matrix is "
                "seen; shard the model with torch.distributed.fsdp.fully_shard"
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
    outputs, by_head = output_heads(held), ByHead(heads)
    routes = [_route(group, outputs, ruled.get(id(group[0].parameter)), by_head) for group in trained]
    frozen = [group for group in groups if not group[0].parameter.requires_grad]
    later = [
        _route(group, outputs, ruled.get(id(group[0].parameter)), by_head)
        for group in frozen
        if group[0].parameter.is_floating_point()  # quantized ones stay as they are, whatever their shape
        and (defaults or id(group[0].parameter) in ruled)
    ]
    by_head.check_all_claimed()
    return Split(
        tuple(routes),
        tuple((group[0].name, group[0].parameter) for group in frozen),
        tuple(later),
        _hint(routes, later, suspects(held, outputs)) if rules is None else "",
    )


def _hint(routes: Sequence[Route], later: Sequence[Route], doubtful: Sequence[Place]) -> str:
    """Return what a user should know who has given no rules; empty if there is nothing."""
    of_muon = {route.name for route in (*routes, *later) if route.rule == "muon"}
    matrices = [route for route in routes if route.parameter.ndim > 1]
    if not of_muon and matrices:
        reasons = sorted({route.reason for route in matrices})
        return (
            f"no parameter goes to Muon: of its matrices, {some([route.name for route in matrices], 3)}, each is "
            f"{' or '.join(reasons)}; if one is for Muon, give rules={{{matrices[-1].name!r}: 'muon'}}, and if none "
            "is, rules={} or torch.optim.AdamW"
        )
    if not of_muon:
        return (
            "no parameter goes to Muon, as none has two axes; if that is meant, give rules={}, or use torch.optim.AdamW"
        )
    names = [place.name for place in doubtful if place.name in {route.name for route in routes} & of_muon]
    if not names:
        return ""
    return (
        f"no output head was recognized; if {names[-1]!r} is one, give rules={{{names[-1]!r}: 'adamw'}}, "
        "and if there is none, rules={}"
    )


# --- what is given


def _check_flat(held: Iterable[Place]) -> None:
    """Raise ValueError where FSDP1 holds a parameter: with use_orig_params=True as flat pieces under its own name."""
    for place in held:
        if any(type(module).__name__ == "FullyShardedDataParallel" for module in place.path):
            raise ValueError(
                f"parameter {place.name!r} is in FullyShardedDataParallel, whose parameters are flat pieces in which "
                "no matrix is seen; shard the model with torch.distributed.fsdp.fully_shard"
            )


def _from_pairs(named: Mapping[str, Tensor] | Iterable[tuple[str, Tensor]]) -> list[Place]:
    found: dict[str, Place] = {}
    for pair in named.items() if isinstance(named, Mapping) else named:
        match pair:
            case (str(name), Tensor() as parameter):
                if name in found:
                    raise ValueError(
                        f"the name {name!r} occurs twice; expected every parameter once, by a name of its own: of "
                        "several models give nn.ModuleList([...]), or names with prefixes"
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
        if (rule := rules(first.name, first.parameter)) is not None:
            _check_rule(rule, f"what rules returned for {first.name!r}")
            if _has_axes(first, rule, "rules"):
                said[id(first.parameter)] = rule, "rule"
    return said


def _claim(rules: Sequence[tuple[str, Rule]], groups: Sequence[list[Place]]) -> dict[int, tuple[Rule, str]]:
    claimed: dict[int, tuple[Rule, str]] = {}
    for pattern, rule in rules:
        found = [group for group in groups if any(_is_meant(pattern, place.name) for place in group)]
        if not found:
            names = [place.name for group in groups for place in group]
            raise ValueError(f"the rule {pattern!r} matches no parameter; {hint(pattern, names)}")
        fresh = [first for first, *_ in found if id(first.parameter) not in claimed]
        firsts = [first for first, *_ in found if first.parameter.requires_grad]
        if firsts and not fresh and any(claimed[id(first.parameter)][0] != rule for first in firsts):
            earlier = claimed[id(firsts[0].parameter)][1]
            raise ValueError(
                f"the rule {pattern!r} -> {rule!r} takes nothing: earlier ones ({earlier}) take all that it matches, "
                f"{some([first.name for first in firsts])}; the first match wins, so put it before them, or drop it"
            )
        for first in fresh:
            if _has_axes(first, rule, f"the rule {pattern!r}"):
                claimed[id(first.parameter)] = rule, f"rule {pattern!r}"
    return claimed


def _is_meant(pattern: str, name: str) -> bool:
    return matches(pattern, name) or matches(pattern, unwrapped(name))


def _has_axes(place: Place, rule: Rule, who: str) -> bool:
    """Return whether a rule can be followed; raise ValueError where it cannot for a parameter that is trained."""
    if rule == "adamw" or place.parameter.ndim > 1:
        return True
    if place.parameter.requires_grad:
        raise ValueError(
            f"{who} sends {place.name!r} of shape {tuple(place.parameter.shape)} to Muon, which takes parameters with "
            "two or more axes; narrow the rule (such as 'head.weight'), or put one before it that sends such "
            "parameters to 'adamw' (such as ('bias', 'adamw'))"
        )
    return False


# --- where a parameter goes


def _route(group: Sequence[Place], outputs: set[Place], ruled: tuple[Rule, str] | None, by_head: ByHead) -> Route:
    first, *others = group
    aliases = tuple(place.name for place in others)
    if ruled is None:
        # A parameter that is used in several ways goes by the most particular: a tied head is an embedding.
        reasons = [reason for place in group if (reason := adamw_reason(place, outputs))]
        particular = [reason for reason in ("embedding", "output head") if reason in reasons] + reasons
        ruled = ("adamw", particular[0]) if particular else None
    tied = ", tied" if others else ""
    if ruled is not None and ruled[0] == "adamw":
        return Route(first.name, first.parameter, *_with(ruled, tied), aliases=aliases)
    seen = form(first, by_head)
    rule, reason = _with(ruled or ("muon", _called(seen)), tied)
    return Route(first.name, first.parameter, rule, reason, seen.kind, seen.blocks, aliases, seen.said)


def _with(ruled: tuple[Rule, str], tied: str) -> tuple[Rule, str]:
    return ruled[0], ruled[1] + tied


def _called(seen: Form) -> str:
    kinds = {"cr": "matrix (in, out)", "scr": "experts (in, out)"}
    return kinds.get(seen.kind, seen.kind)

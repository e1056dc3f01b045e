"""The groups of a MuonAdamW: what is in each, and where parameters go that are unfrozen or added later."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from torch import Tensor

from muonlab.optim import arguments
from muonlab.optim.forms import BY_HEAD
from muonlab.optim.patterns import hint, matches
from muonlab.optim.places import unwrapped
from muonlab.optim.split import Route, Rule, Split

Options = Mapping[str, Any]
Overrides = Mapping[str, Options] | Callable[[Route], Options | None] | None


class Plan:
    """Routes of a model, and the options of the group that each is in.

    Of parameters that are in the optimizer it keeps the names alone: others may put sharded ones in their place, and
    the whole ones would stay in memory.

    Attributes:
        routes: of parameters that require grad and are not in the optimizer (yet).
        later: of parameters that were frozen when it was made, and are not in the optimizer.
    """

    def __init__(self, split: Split, overrides: Overrides = None, default: Rule | None = None):
        self.routes, self.later = list(split.routes), list(split.later)
        self._default = default
        self._options = {route.name: _options(route, overrides) for route in (*self.routes, *self.later)}
        self._rules = {route.name: route.rule for route in (*self.routes, *self.later)}
        self._by_head = {route.name for route in (*self.routes, *self.later) if route.said == BY_HEAD}
        if isinstance(overrides, Mapping):
            for pattern in overrides:
                if not any(_is_meant(pattern, route) for route in (*self.routes, *self.later)):
                    names = [route.name for route in self.routes]
                    raise ValueError(
                        f"overrides has the pattern {pattern!r}, which matches no parameter; {hint(pattern, names)}"
                    )

    def groups(self) -> list[dict[str, Any]]:
        """Return the groups: Muon's, AdamW's, and one for each set of other options.

        A half without parameters has none, as torch's distributed checkpoints cannot flatten an empty group; but Muon's
        stands if there are frozen matrices for it: it is the first, and has its learning rate in schedulers, when they
        are unfrozen.
        """
        found: list[tuple[Rule, dict[str, Any], list[Route]]] = [("muon", {}, []), ("adamw", {}, [])]
        for route in self.routes:
            self._members(found, route).append(route)
        waits = any(route.rule == "muon" and not self._options[route.name] for route in self.later)
        found = [each for each in found if each[2] or (each[0] == "muon" and not each[1] and waits)]
        return [{"rule": rule, **options, **members(routes, rule)} for rule, options, routes in found]

    def _members(self, found: list[tuple[Rule, dict[str, Any], list[Route]]], route: Route) -> list[Route]:
        options = self._options[route.name]
        for rule, known, routes in found:
            if (rule, known) == (route.rule, options):
                return routes
        found.append((route.rule, options, []))
        return found[-1][2]

    def ready(self, names: Iterable[str] = ()) -> list[Route]:
        """Take from `later` the routes of parameters that require grad by now, or have these names."""
        wanted = {unwrapped(name) for name in names}
        taken = [route for route in self.later if route.parameter.requires_grad or unwrapped(route.name) in wanted]
        self.forget(route.parameter for route in taken)
        return taken

    def add(self, groups: list[dict[str, Any]], route: Route) -> dict[str, Any] | None:
        """Add a parameter to the group of others with its rule and options; where there is none, return one for it."""
        options = self._options[route.name]
        alike = {name for name, rule in self._rules.items() if (rule, self._options[name]) == (route.rule, options)}
        for group in groups:
            is_its = not group["params"] or alike & set(group.get("param_names", ()))
            if group["rule"] != route.rule or not is_its:
                continue
            for name, values in members([route], route.rule).items():
                group.setdefault(name, []).extend(values)
            return None
        return {"rule": route.rule, **options, **members([route], route.rule)}

    def routed(self, group: dict[str, Any], present: set[int]) -> list[dict[str, Any]]:
        """Return the groups that a group becomes: one, or two where it says no rule and has parameters of both.

        Its parameters may be routes. Without a rule they go where those of the model go, or else to the default rule.

        Args:
            group: as of torch.optim.Optimizer.
            present: ids of the parameters that are in the optimizer.

        Raises:
            ValueError: a group without a rule has parameters that are not known, or are in the optimizer.
        """
        given = group.get("params")
        if given is None or isinstance(given, set):  # torch says what is wrong with it
            return [{"rule": "adamw", **group}]
        held: list[Any] = [given] if isinstance(given, Tensor) else list(given)
        rule = group.get("rule")
        if held and all(isinstance(each, Route) for each in held):
            return self._by_rule(group, held) if rule is None else [{**group, **members(held, rule)}]
        known = {id(route.parameter): route for route in (*self.routes, *self.later)}
        found = [known.get(id(each[1] if isinstance(each, tuple) else each)) for each in held]
        routes = [route for route in found if route is not None]
        is_known = bool(held) and len(routes) == len(held)
        if rule is not None:
            seen = members(routes, rule) if is_known else {"params": held}
            return [{**group, **seen}]
        if any(id(each[1] if isinstance(each, tuple) else each) in present for each in held):
            raise ValueError(
                "some parameters appear in more than one parameter group: they are in the optimizer already"
            )
        if is_known:
            return self._by_rule(group, routes)
        if self._default is not None:
            return [{**group, "params": held, "rule": self._default}]
        raise ValueError(
            "rule=None in a group of parameters; expected 'muon' or 'adamw', as a tensor does not tell where it goes. "
            "Give each group a rule, such as {'params': ..., 'rule': 'muon'}, or MuonAdamW the model that they are of, "
            "model=, or a default, rule=; in Trainer of transformers use optimizer_cls_and_kwargs=(hf_factory, {...})"
        )

    def _by_rule(self, group: dict[str, Any], routes: list[Route]) -> list[dict[str, Any]]:
        options = {name: value for name, value in group.items() if name not in ("params", "rule", "param_names")}
        parts: dict[Rule, list[Route]] = {
            "muon": [route for route in routes if route.rule == "muon"],
            "adamw": [route for route in routes if route.rule == "adamw"],
        }
        return [{**options, "rule": rule, **members(part, rule)} for rule, part in parts.items() if part]

    def is_by_head(self, name: str) -> bool:
        """Return whether a parameter is orthogonalized by head, because `heads` says so."""
        return name in self._by_head

    def forget(self, params: Iterable[Tensor]) -> None:
        """Forget parameters that are in the optimizer now."""
        there = {id(p) for p in params}
        self.routes = [route for route in self.routes if id(route.parameter) not in there]
        self.later = [route for route in self.later if id(route.parameter) not in there]


def members(routes: Sequence[Route], rule: Rule) -> dict[str, list[Any]]:
    """Return what a group says of its parameters: they, their names, and for Muon their layouts."""
    found: dict[str, list[Any]] = {
        "params": [route.parameter for route in routes],
        "param_names": [route.name for route in routes],
    }
    if rule == "muon":
        found["layouts"] = [(route.kind, None if route.blocks == 1 else route.blocks) for route in routes]
    return found


def _options(route: Route, overrides: Overrides) -> dict[str, Any]:
    if overrides is None:
        return {}
    if isinstance(overrides, Mapping):
        found = next((options for pattern, options in overrides.items() if _is_meant(pattern, route)), {})
    else:
        found = overrides(route)
    if found is None:
        return {}
    if not isinstance(found, Mapping):
        raise ValueError(
            f"overrides has {found!r} for parameter {route.name}; expected a dict of options, such as "
            "{'weight_decay': 0.0}"
        )
    for name in found:
        if name not in arguments.NAMES:
            near = get_close_matches(str(name), arguments.NAMES)
            raise ValueError(
                f"overrides has {name!r} for parameter {route.name}; "
                + (f"did you mean {near[0]!r}?" if near else f"expected some of {', '.join(sorted(arguments.NAMES))}")
            )
    return dict(found)


def _is_meant(pattern: str, route: Route) -> bool:
    """Return whether a pattern matches one of a route's names, or is its reason."""
    names = [each for name in (route.name, *route.aliases) for each in (name, unwrapped(name))]
    return pattern == route.reason.removesuffix(", tied") or any(matches(pattern, name) for name in names)

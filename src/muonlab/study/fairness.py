"""Whether rivals were tuned fairly: settings that one has from another, and general forms behind their special cases.

Choi et al. 2019, arXiv 1910.05446: an optimizer that contains another one is never worse where both are tuned well
enough. Where it is, its search was not.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from muonlab.report.findings import Column, Kind, Table, as_text
from muonlab.stats.effects import Effect, difference
from muonlab.study.optimizers import differing, settings_of, shown
from muonlab.study.study import ALPHA, MIN_RUNS, NAMES, Arm
from muonlab.study.words import several

# -- settings that one optimizer has from another --------------------------------------------------

OF_OTHERS = "adamw_"  # before the settings of AdamW for what an optimizer leaves to it
FACTOR = "adamw_factor"


def transferred(arms: Sequence[Arm], tried: Mapping[str, Sequence[Any]]) -> list[str]:
    """Return the settings that nobody searched and that have one value for several optimizers, in words.

    Args:
        arms: of the study.
        tried: label -> all settings of an arm that were tried; what differs among them was searched.
    """
    held = {arm.name: _held(tried[arm.label]) for arm in arms}
    users: dict[tuple[str, float], list[str]] = {}
    for name, own in held.items():
        for field, value in own.items():
            users.setdefault((field, value), []).append(name)
    shared: dict[str, list[str]] = {}
    for (field, value), names in users.items():
        if names[1:]:
            shared.setdefault(several(names), []).append(f"{field.replace('_', ' ')} {value:g}")
    said = [f"{several(own)} of {names}" for names, own in shared.items()]
    rival = next((_held(tried[arm.label]) for arm in arms if arm.label == "adamw"), {})
    for arm in arms:
        own = [
            f"{'learning rate' if field == 'lr' else field.replace('_', ' ')} {value:g}"
            for field, value in _of_others(tried[arm.label]).items()
            if rival.get(field) == value
        ]
        if own:
            said.append(f"{arm.name}’s {several(own)}, for what it leaves to AdamW, from AdamW")
        if all(getattr(each, FACTOR, None) == 1 for each in tried[arm.label]):
            said.append(f"{arm.name}’s learning rate, for what it leaves to AdamW")
    return said


def _numbers(tried: Sequence[Any]) -> dict[str, float]:
    """Return the settings that are numbers other than 0, without those that were searched."""
    searched = differing(tried)
    return {
        field: value
        for field, value in shown(tried[0]).items()
        if isinstance(value, int | float) and not isinstance(value, bool) and value and field not in searched
    }


def _held(tried: Sequence[Any]) -> dict[str, float]:
    return {field: value for field, value in _numbers(tried).items() if not field.startswith(OF_OTHERS)}


def _of_others(tried: Sequence[Any]) -> dict[str, float]:
    own = _numbers(tried)
    return {
        field.removeprefix(OF_OTHERS): own[field] for field in own if field.startswith(OF_OTHERS) and field != FACTOR
    }


# -- a general form behind a special case ----------------------------------------------------------


def special_cases(arms: Sequence[Arm]) -> list[tuple[Arm, Arm]]:
    """Return (general, special): AdamW contains SGD, as eps grows, and any optimizer itself without its decay."""
    return [(one, other) for one in arms for other in arms if one is not other and _contains(one, other)]


def _contains(general: Arm, special: Arm) -> bool:
    one, other = general.optimizer, special.optimizer
    if one is None or other is None:
        return False
    if (one.name, other.name) == ("adamw", "sgd"):
        return True
    decays = [settings_of(each).get("weight_decay") for each in (one, other)]
    return one.name == other.name and one.name in NAMES and bool(decays[0]) and decays[1] == 0


@dataclass(frozen=True)
class Inclusion:
    """A general form next to its special case: mean of the general one minus the special one, the smaller is better."""

    case: str
    general: Arm
    special: Arm
    effect: Effect
    means: tuple[float, float]

    @property
    def holds(self) -> bool | None:
        """Whether the general form is at least as good, as far as the runs tell; None with too few runs."""
        p, value = self.effect.p, self.effect.estimate.value
        if p is None or value is None or min(self.effect.n) < MIN_RUNS:
            return None
        return p > ALPHA or value <= 0


def inclusions(arms: Sequence[Arm], losses: Mapping[str, Mapping[str, Sequence[float]]]) -> list[Inclusion]:
    """Return every special case next to its general form; `losses` are name of a case -> label -> one per run."""
    found = []
    for case, own in losses.items():
        for general, special in special_cases(arms):
            both = own.get(general.label, ()), own.get(special.label, ())
            if all(both):
                means = sum(both[0]) / len(both[0]), sum(both[1]) / len(both[1])
                found.append(Inclusion(case, general, special, difference(*both), means))
    return found


def table(found: Sequence[Inclusion], what: str, kind: Kind = "number") -> tuple[Table, ...]:
    """Return the inclusions; none where no optimizer of the study contains another. `what` is compared."""
    if not found:
        return ()
    head = (
        *(Column("case", "Case"), Column("general", "General form"), Column("special", "Special case")),
        *(Column("mean_general", "Its mean", kind), Column("mean_special", "Special case’s", kind)),
        *(Column("difference", "Difference", kind), Column("p", "p", "p"), Column("holds", "At least as good")),
    )
    words = {True: "yes", False: "NO", None: "too few runs"}
    rows = tuple(
        (e.case, e.general.name, e.special.name, *e.means, e.effect.estimate, e.effect.p, words[e.holds]) for e in found
    )
    note = (
        f"{what}; the smaller is better. AdamW contains SGD with momentum (as eps grows), and an optimizer with decay "
        "the one without: tuned well enough, the general form is never worse (arXiv 1910.05446). “NO”: its search has "
        "missed what its special case found, so it is not the rival that it could be. p: Welch, each for itself."
    )
    return (Table("inclusion", "Is a general form as good as its special cases?", head, rows, note),)


def cautions(found: Sequence[Inclusion], kind: Kind = "number") -> list[str]:
    """Return a caution where a special case beats its general form."""
    lost = [
        f"{each.general.name} {as_text(each.means[0], kind)}, {each.special.name} {as_text(each.means[1], kind)} on "
        f"{each.case}"
        for each in found
        if each.holds is False
    ]
    if not lost:
        return []
    names = several(dict.fromkeys(each.general.name for each in found if each.holds is False))
    return [f"{names} is not tuned as well as it can be, as a special case of it does better: {'; '.join(lost)}."]

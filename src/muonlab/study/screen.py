"""The first screen of judged claims: a small table of the answers, and a forest for each claim."""

from collections.abc import Callable, Mapping, Sequence

from muonlab.report.findings import Answered, Answers, Axis, Figure, Forest, ForestRow, Reply
from muonlab.study.judge import Judged, counts
from muonlab.study.study import Found

Effects = Callable[[Judged], Sequence[ForestRow]]  # those that the answer to a claim rests on, at most one per rival


def single(found: Found) -> Effects:
    """Return the effects of claims with one comparison per rival."""

    def effects(judged: Judged) -> list[ForestRow]:
        return [
            ForestRow(f"minus {found.name(pair.rival)}", pair.estimate, pair.n, decided=pair.side != "undecided")
            for pair in judged.comparisons
        ]

    return effects


def answers(
    title: str,
    states: Mapping[str, Sequence[Judged]],
    effects: Effects,
    note: str = "",
    label: Callable[[Judged], str] | None = None,
) -> Answers:
    """Return the small table: a row for each claim, a column for each state.

    Args:
        title: of the table.
        states: heading of a column, such as "Equal budget" -> the claims, in the same order everywhere.
        effects: of a judged claim.
        note: what the numbers are.
        label: of a judged claim, the answer in a word, if not its own `word`.
    """
    rows = []
    for alike in zip(*states.values(), strict=True):
        claim, quantity = alike[0].claim, alike[0].claim.quantities[0]
        # Only a mean over cases takes several quantities together.
        many = len(claim.quantities) > 1 and bool(alike[0].pooled)
        what = f"mean of {', '.join(each.short for each in claim.quantities)}" if many else quantity.name
        replies = tuple(_reply(each, effects, label) for each in alike)
        rows.append(Answered(_named(alike[0]), what if claim.letter else "", replies, quantity.kind))
    return Answers("answers", title, tuple(states), tuple(rows), note)


def _named(judged: Judged) -> str:
    claim = judged.claim
    return f"({claim.letter}) {claim.title}" if claim.letter else claim.title


def _reply(judged: Judged, effects: Effects, label: Callable[[Judged], str] | None) -> Reply | None:
    if not judged.comparisons:
        return None
    word = label(judged) if label else judged.word
    higher, lower, undecided, _ = counts(judged.comparisons)
    return Reply(judged.answer, word, (higher, lower, undecided), tuple(effects(judged)))


def figure(found: Found, title: str, states: Mapping[str, Sequence[Judged]], effects: Effects, caption: str) -> Figure:
    """Return a panel for each claim with the effects of all states, on one scale per claim; arguments as `answers`."""
    panels = []
    for alike in zip(*states.values(), strict=True):
        rows = []
        for state, judged in zip(states, alike, strict=True):
            for row in effects(judged):
                label = f"{row.label}, {state.lower()}" if len(states) > 1 else row.label
                rows.append(ForestRow(label, row.estimate, row.n, row.emphasis, row.decided))
        quantity = alike[0].claim.quantities[0]
        sides = found.names() + " higher" if len(found.rivals) == 1 else "rival higher", f"{found.first.name} higher"
        name = _named(alike[0])
        if rows:
            panels.append(Forest(name, tuple(rows), 0.0, *sides, quantity.kind, scale=name))
    return Figure("effects", title, caption, Axis(""), Axis(""), tuple(panels))

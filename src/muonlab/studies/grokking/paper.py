"""What arXiv 2504.16041 prints about grokking times, and whether its numbers can be right.

Tveit, Remseth, Skogvold 2025, "Muon Optimizer Accelerates Grokking". The means, t and p are printed in its section on
results; the quartiles are read off its figure 4 by eye and are approximate.
"""

from collections.abc import Iterable
from statistics import fmean
from typing import ClassVar

import numpy as np

from muonlab.report.findings import Table, Text, Value, as_text
from muonlab.stats.comparison import welch
from muonlab.stats.p_values import smallest_two_sided_p
from muonlab.study.sections import columns
from muonlab.study.study import ALPHA

URL = "https://arxiv.org/abs/2504.16041"


class PRINTED:
    """Figures of the paper: epochs to the first crossing, pooled over tasks, softmax variants and seeds."""

    means = (102.89, 153.09)  # of Muon and of AdamW
    t, p = 5.0175, 6.33e-8
    quartiles: ClassVar[dict[str, tuple[float, float, float]]] = {"muon": (40, 79, 106), "adamw": (60, 103, 152)}


def recomputation() -> Text:
    """Return whether the printed t and p can both be right."""
    smallest = smallest_two_sided_p(PRINTED.t)
    text = (
        f"The paper’s t and p cannot both be right. At t = {PRINTED.t} the smallest two-sided p that Student’s t can "
        f"have, whatever its degrees of freedom, is {as_text(smallest, 'number')}; the paper prints "
        f"{as_text(PRINTED.p, 'number')}, which is {smallest / PRINTED.p:.1f} times smaller. Either is far below 0.05, "
        "so the direction of its claim does not depend on it."
    )
    return Text(text, "note", URL)


def reproduction(muon: list[float], adamw: list[float]) -> Text:
    """Return whether the paper's own statistic, of epochs of the runs that crossed, says here what it says there."""
    test = welch(muon, adamw)
    if test.p is None or test.statistic is None:
        return Text(f"The paper’s own statistic cannot be computed here: {test.reason}.", "warning")
    epochs = f"Muon {as_text(fmean(muon))}, AdamW {as_text(fmean(adamw))} epochs on average"
    says = "does not reproduce here" if test.p > ALPHA or test.statistic > 0 else "points the same way here"
    p = as_text(test.p, "p")
    words = f"The paper’s own statistic, pooled over the runs that crossed, {says}: {epochs}, Welch’s p = {p}."
    return Text(words, "note")


def side_by_side(muon: list[float], adamw: list[float], num_runs: tuple[int, int], where: str) -> Table:
    """Return the paper's figures next to ours, which are pooled as the paper pooled: runs that crossed, of all tasks.

    Args:
        muon, adamw: epochs at the first crossing of the runs that crossed.
        num_runs: all runs of Muon and of AdamW, those that never crossed too.
        where: what ours were run on, in a few words.
    """
    test, sides = welch(muon, adamw), (("Muon", muon), ("AdamW", adamw))
    t, means = test.statistic, [fmean(epochs) if epochs else None for _, epochs in sides]
    rows: list[tuple[Value, ...]] = [
        ("Tasks and losses", "six or seven tasks, three softmax variants", where),
        *(
            (f"Runs that crossed, {name}", "not stated", f"{len(epochs)} of {n}")
            for (name, epochs), n in zip(sides, num_runs, strict=True)
        ),
        *(
            (f"Mean epochs, {name}", str(printed), mean)
            for (name, _), printed, mean in zip(sides, PRINTED.means, means, strict=True)
        ),
        ("Ratio of means", _ratio(*PRINTED.means), _ratio(*means)),
        ("t, AdamW minus Muon", str(PRINTED.t), None if t is None else -t),
        ("Degrees of freedom (Welch)", "not stated", test.degrees_of_freedom),
        ("p", PRINTED.p, test.p),
        ("Smallest p possible at that t", *(None if x is None else smallest_two_sided_p(x) for x in (PRINTED.t, t))),
        *(
            (f"Quartiles of epochs, {name}", f"{_joined(PRINTED.quartiles[name.lower()])} (by eye)", _quartiles(epochs))
            for name, epochs in sides
        ),
    ]
    note = (
        "Ours are pooled here as the paper pooled its own, for the comparison alone: the pool drops runs that never "
        "crossed and weighs slow tasks most. The verdict rests on the blocked ratio above instead. The paper states "
        "neither the size of its network nor learning rates, batch, budget or number of seeds, so equal numbers are "
        "not to be expected."
    )
    of_both = columns("quantity: Quantity; paper: arXiv 2504.16041 [number]; here: Here [number]")
    return Table("paper", "The paper’s printed figures and ours", of_both, tuple(rows), note)


def _ratio(first: float | None, second: float | None) -> str | None:
    return None if first is None or not second else as_text(first / second, "accuracy")


def _quartiles(values: list[float]) -> str:
    return _joined(np.quantile(values, [0.25, 0.5, 0.75]).tolist()) if values else "–"


def _joined(numbers: Iterable[float]) -> str:
    return " / ".join(as_text(number) for number in numbers)

"""The claims in the report: every difference with its interval, at equal budget and at matched loss."""

from collections.abc import Sequence

from muonlab.report.findings import Axis, Column, Element, Figure, Forest, ForestRow, Table, Text, Value
from muonlab.studies.features.claims import OTHERS, Judged, compare
from muonlab.studies.features.readings import FeatureRuns
from muonlab.studies.features.rounds import NAMES
from muonlab.study.measures.claims import ALPHA, Block, adjusted

EQUAL, MATCHED = "equal budget", "matched loss"
MOST_ROWS = 20  # that stand open
_SHORT = {
    "accuracy on corrupted inputs": "corrupted accuracy",
    "probe margin, divided by the norm of the probe": "margin / norm",
    "accuracy of a linear probe on another classification": "linear probe",
    "accuracy after fine-tuning on another classification": "fine-tuning on classes",
    "accuracy after fine-tuning on another text": "fine-tuning on text",
    "effective rank, mean over layers": "effective rank",
}


def claims(runs: FeatureRuns, judged: Sequence[tuple[Judged, Judged]]) -> tuple[Element, ...]:
    """Return the figures and tables of all claims; none where nothing can be compared."""
    if not any(equal.blocks for equal, _ in judged):
        return (Text("No family has measured runs of two optimizers yet."),)
    figures = [figure for equal, at_loss in judged for figure in forests(runs, equal, at_loss)]
    return (*figures, table(runs, judged), other_counts(runs))


def forests(runs: FeatureRuns, equal: Judged, at_loss: Judged) -> list[Figure]:
    """Return a figure for each quantity of a claim, with a panel for each comparison."""
    found = []
    for quantity in equal.claim.quantities:
        panels = []
        for judged, title in ((equal, "at equal budget"), (at_loss, "at matched clean validation loss")):
            blocks = [block for block in judged.blocks if block.quantity == quantity.name]
            if blocks:
                panels.append(_forest(runs, blocks, title))
        if not panels:
            continue
        short = _SHORT[quantity.name]
        is_one = len(equal.claim.quantities) == 1
        name = f"claim-{equal.claim.letter}" + ("" if is_one else f"-{short.replace(' ', '-')}")
        title = f"({equal.claim.letter}) {equal.claim.title}" + ("" if is_one else f", {short}")
        caption = f"Difference of {quantity.name}, {NAMES[runs.first]} less each rival, with its 95% interval (Welch)."
        if quantity.is_of_the_end:
            caption += " Mean over fine-tuning optimizers; only weights of the end are fine-tuned."
        axis = Axis(f"difference of {quantity.unit}")
        found.append(Figure(name, title, caption, axis, Axis(""), tuple(panels)))
    return found


def _forest(runs: FeatureRuns, blocks: Sequence[Block], title: str) -> Forest:
    rows = tuple(ForestRow(f"{block.place}, {NAMES[block.rival]}", block.interval, block.n) for block in blocks)
    other = NAMES[runs.rivals[0]] if len(runs.rivals) == 1 else "rival"
    return Forest(title, rows, 0.0, f"{other} higher", f"{NAMES[runs.first]} higher", blocks[0].kind)


def _columns(runs: FeatureRuns, *p: Column) -> tuple[Column, ...]:
    first = NAMES[runs.first]
    return (
        Column("claim", "Claim"),
        Column("comparison", "Comparison"),
        Column("family", "Net and data"),
        Column("rival", "Rival"),
        Column("mean_first", first, "number"),
        Column("mean_rival", "Rival’s", "number"),
        Column("difference", "Difference", "number"),
        *p,
        Column("n", "n"),
    )


def table(runs: FeatureRuns, judged: Sequence[tuple[Judged, Judged]]) -> Table:
    """Return every comparison of every claim."""
    p = (Column("p", "p", "p"), Column("p_holm", "p, Holm", "p"), Column("side", f"{NAMES[runs.first]} is"))
    rows = tuple(
        (*_places(each, block), *_numbers(block), block.effect.p, block.adjusted_p, block.side, block.n)
        for both in judged
        for each in both
        for quantity in each.claim.quantities
        for block in each.blocks
        if block.quantity == quantity.name
    )
    note = (
        f"Holm’s p is adjusted over the comparisons of a claim, at equal budget and at matched loss apart; a side is "
        f"named where it is at most {ALPHA:g}. Intervals are 95%, each for itself. n: runs of {NAMES[runs.first]} + of "
        "the rival."
    )
    return Table("claims", "Every comparison", _columns(runs, *p), rows, note, folded=len(rows) > MOST_ROWS)


def other_counts(runs: FeatureRuns) -> Table:
    """Return the comparisons of other ways to count what a claim is about."""
    rows = []
    for letter, quantities in OTHERS.items():
        for is_matched in (False, True):
            for block in adjusted(compare(runs, quantities, is_matched=is_matched)):
                where = MATCHED if is_matched else EQUAL
                place = f"({letter}) {block.quantity}", where, block.place, NAMES[block.rival]
                rows.append((*place, *_numbers(block), block.effect.p, block.n))
    note = "These do not enter the verdict; p is not adjusted."
    columns = _columns(runs, Column("p", "p", "p"))
    return Table("other-counts", "Other ways to count", columns, tuple(rows), note, folded=True)


def _places(judged: Judged, block: Block) -> tuple[Value, ...]:
    where = MATCHED if judged.is_matched else EQUAL
    return f"({judged.claim.letter}) {_SHORT[block.quantity]}", where, block.place, NAMES[block.rival]


def _numbers(block: Block) -> tuple[Value, ...]:
    return *block.means, block.interval

"""What a study of components answers: a verdict on claim (e), with counts, scope and what weakens it."""

from collections.abc import Sequence

from muonlab.report.findings import Verdict
from muonlab.studies.components.cautions import cautions
from muonlab.studies.components.claims import LABELS, WORDS, Judged, whole
from muonlab.studies.components.closed import Flows
from muonlab.studies.components.comparisons import ALPHA, MIN_PAIRS
from muonlab.studies.components.controls import failed, judge_controls
from muonlab.studies.components.readings import ComponentRuns
from muonlab.studies.components.remarks import in_counts, remarks
from muonlab.studies.components.rounds import NAMES
from muonlab.studies.components.sensitivity import Spread


def verdict(
    runs: ComponentRuns, judged: Sequence[Judged], flows: Sequence[Flows], spreads: Sequence[Spread]
) -> Verdict:
    """Return the answer to the claim, its findings and what it holds for."""
    answer = whole(judged)
    sentence = f"Claim (e) of arXiv 2606.09658, “{WORDS}”: {LABELS[answer].lower()}"
    if answer == "inconclusive":
        sentence += f", because {why_inconclusive(runs, judged)}"
    parts = [_in_words(runs, each) for each in judged if each.pairs]
    rivals = " and ".join(NAMES[rival] for rival in runs.rivals) or "nothing"
    against = f"{NAMES[runs.first]} against {rivals} at the first time the train loss is at most {_eps(runs)}"
    sentence += f". {against}: {'; '.join(parts)}." if parts else f" ({against})."
    more = remarks(runs, judged, flows)
    return Verdict(answer, LABELS[answer], sentence, None, more, scope(runs), tuple(cautions(runs, spreads)))


def _in_words(runs: ComponentRuns, judged: Judged) -> str:
    parts = [
        f"{in_counts([pair for pair in judged.pairs if pair.rival == rival])} against {NAMES[rival]}"
        for rival in runs.rivals
        if any(pair.rival == rival for pair in judged.pairs)
    ]
    return f"{judged.quantity.name} {', '.join(parts)}"


def _eps(runs: ComponentRuns) -> str:
    return " or ".join(f"{eps:g}" for eps in dict.fromkeys(runs.main_eps(case) for case in runs.mapped))


def why_inconclusive(runs: ComponentRuns, judged: Sequence[Judged]) -> str:
    """Return the reason in words."""
    if lost := failed(judge_controls(runs)):
        names = " and ".join(dict.fromkeys(control.name for control in lost))
        return f"a control failed ({names}): no comparison can be trusted"
    if not runs.rivals:
        return "there is no other optimizer to compare with"
    if not any(each.pairs for each in judged):
        return "no problem has runs of two optimizers"
    pairs = [pair for each in judged for pair in each.pairs]
    if max(pair.num_pairs for pair in pairs) < MIN_PAIRS:
        return f"no cell has {MIN_PAIRS} pairs of runs that both came down to that loss"
    return " and ".join(_why_open(runs, each) for each in judged if each.answer == "inconclusive")


def _why_open(runs: ComponentRuns, judged: Judged) -> str:
    name, total = judged.quantity.name, judged.num_asked
    decided = judged.count("higher") + judged.count("lower")
    if not decided:
        return f"none of {total} cells tells the optimizers apart in {name} (p > {ALPHA:g}, adjusted for their number)"
    if 2 * decided <= total:
        return f"only {decided} of {total} cells are decided in {name}"
    open_ones = [NAMES[r] for r in runs.rivals if not judged.count("higher", r) and not judged.count("lower", r)]
    return f"no cell is decided against {' or '.join(open_ones)} in {name}"


def scope(runs: ComponentRuns) -> tuple[tuple[str, str], ...]:
    """Return what the answer holds for."""
    asked, base = runs.asked, runs.asked.base
    given = base.components
    ratios, noises = (
        ", ".join(f"{value:g}" for value in sorted({getattr(case.components, key) for case in runs.mapped}))
        for key in ("ratio", "noise")
    )
    searches = ", ".join(f"{NAMES[name]} {len(search.rates)}" for name, search in asked.searches.items())
    batch = f"batches of {base.batch}" if base.batch else "all examples in every step"
    return (
        ("problems", f"ratio {ratios} × noise {noises}; {', '.join(runs.maps)}"),
        (
            "data",
            f"{given.classes} classes, {given.dimension} inputs, {given.num_components} components, {given.train} "
            f"train and {given.test} test examples; {base.loss} loss, {batch}",
        ),
        (
            "runs",
            f"{asked.seeds} seeds, of directions, data and initial weights, the same for every optimizer; at most "
            f"{asked.budget} steps",
        ),
        (
            "tuning",
            f"learning rate alone, by validation loss at the same train loss on {asked.search_seeds} other seeds; "
            f"rates of the first grid {searches}, at most {asked.searches[runs.first].extensions} extensions of each",
        ),
        ("not tuned", "momentum, weight decay, betas: one value each (see Data and settings); no schedule"),
    )

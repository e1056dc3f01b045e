"""From the results of a study of transfer to its findings: verdict, first screen, sections. No torch."""

import math
from collections.abc import Sequence
from pathlib import Path

from muonlab.report.findings import (
    Answer,
    Axis,
    Column,
    Element,
    Figure,
    Findings,
    Line,
    Lines,
    Series,
    Table,
    Verdict,
    as_text,
)
from muonlab.studies.transfer.jobs import POLICY, steps
from muonlab.studies.transfer.plan import RESULTS_VERSION, STUDY, TransferStudy
from muonlab.studies.transfer.readings import Rule, gather
from muonlab.study import folder as folders
from muonlab.study.search import Searched
from muonlab.study.sections import every_job, findings, in_full, line, optimizer_settings
from muonlab.study.study import Arm, Found
from muonlab.study.study import Rule as Tested
from muonlab.study.tuning import tuning
from muonlab.study.words import definitions, missing_jobs, on_edges, several

QUESTION = "Does the best learning rate of a small GPT stay where it is as the net gets wider?"
WORDS = {"yes": "Yes", "no": "No", "mixed": "It depends on the rule", "inconclusive": "Inconclusive"}
# From narrow to wide, dark to light; told apart by all common kinds of colour blindness (viridis).
SHADES = ("#440154", "#31688e", "#35b779", "#c8a400", "#a85c88", "#66635d")
NOTHING = Searched({}, {}, POLICY)  # of a search that is not done
TERMS = """
Best rate: Of a width and seed, the vertex of the parabola through the best of the grid and its two neighbours, in the
logarithm of the rate. A loss is that on validation data at the end of training.

Octave: A factor of two. A best rate that moves by −1 octave per doubling of the width is halved whenever the width
doubles.

Per doubling: The slope of a line through all widths, fitted to each seed. The interval is Student’s, 95%, over {seeds}
seeds of weights and batches; the data are the same. That of the best rate is made wider by {resolution} to each side at
most, for what the grid leaves open: a parabola may miss the minimum by an eighth of the ratio of two rates.

The best rate transfers: It moves by less than {tolerance:g} octaves per doubling, a factor of {factor:.2f}. Yes: the
whole interval says so. No: the whole interval lies beyond that. Inconclusive: all else, and wherever a best rate lies
on an edge of what was tried.

Regret: By how many percent the loss of the widest net is larger at the narrowest one’s best rate than at its own best
of the grid. Each seed is judged at the rates that the others choose, so a regret may be below zero.

Change: Root mean square of the change of a layer’s outputs since the start, after {steps} steps at the narrowest net’s
best rate, on the same texts. Where it grows by 0 octaves per doubling, a rate does as much at every width: the
coordinate check of Yang et al. 2022 (arXiv 2203.03466, appendix D.1).

Edge: The best learning rate is the smallest or the largest that was tried, so a better one may lie beyond.
"""


def analyse(folder: Path) -> Findings:
    """Return what a study found, whatever part of it is done.

    Raises:
        StudyError: there is no study of transfer in the folder.
    """
    asked, known, results, records = folders.read(TransferStudy, steps, folder, RESULTS_VERSION)
    rules = gather(asked, known, results)
    expected = len({step.job.id for step in known})
    found = Found(rules, asked.arms, asked.nets, asked.seeds, Tested(), records=tuple(records), expected=expected)
    losses, rates = _losses(asked, rules)
    shown = (
        ("How far the best rate moves", _moves(rules)),
        ("Coordinate check", _checks(rules)),
        ("Learning rates", rates),
        ("Settings and jobs", _settings(found)),
        ("What the words mean", (_terms(asked, rules),)),
    )
    title = f"transfer, preset {asked.preset}"
    said = _verdict(asked, rules, missing_jobs(found.records, expected))
    return findings(title, QUESTION, said, found, (), shown, RESULTS_VERSION, (_answers(rules), *losses))


# -- the verdict -----------------------------------------------------------------------------------


def _verdict(asked: TransferStudy, rules: Sequence[Rule], missing: list[str]) -> Verdict:
    answers: set[Answer] = {rule.judged[0] for rule in rules}
    answer: Answer = answers.pop() if len(answers) == 1 else "mixed" if {"yes", "no"} <= answers else "inconclusive"
    parts = [f"{as_text(rule.shift, 'ratio')} under {rule.arm.name}" for rule in rules if rule.shift.value is not None]
    sentence = (
        f"Per doubling of the width the best rate moves by {'; '.join(parts)} (octaves, 95% over {asked.seeds} seeds)."
        if parts
        else "Under every rule some best rate lies on an edge of what was tried: how far it moves is not known."
        if all(rule.edges for rule in rules)
        else "No rule has a best rate at every width yet."
    )
    edges = on_edges(f"{rule.arm.name}: {'; '.join(rule.edges)}" for rule in rules if rule.edges)
    seeds = "; ".join(each for rule in rules for each in rule.seeds_on_edges)
    lone = [f"The best rate of some seeds lies on an edge, that of the mean does not: {seeds}."] if seeds else []
    training = asked.training
    scope = (
        ("net", f"a GPT of characters, depth {asked.nets[0].depth}, widths {several(w.width for w in asked.nets)}"),
        ("training", f"{training.budget} steps of {training.batch} texts, schedule {training.schedule}"),
        ("data", asked.nets[0].data.name),
        (
            "held",
            "AdamW’s rate for what Muon does not take, decay and momentum, at every width (see Settings and jobs)",
        ),
    )
    return Verdict(answer, WORDS[answer], sentence, None, tuple(map(_on_rule, rules)), scope, (*missing, *edges, *lone))


def _on_rule(rule: Rule) -> str:
    answer, why = rule.judged
    head = f"{rule.arm.name}, “the best rate transfers”: {WORDS[answer].lower()}" + (f", because {why}" if why else "")
    if rule.regret.value is None:
        return f"{head}."
    narrow, wide = rule.widths[0], rule.widths[-1]
    if rule.regret.value == 0:  # in every seed
        return f"{head}. Widths {narrow} and {wide} share the best rate of the grid."
    costs = f"costs {as_text(rule.regret)} percent of the loss"
    return f"{head}. Keeping the best rate of width {narrow} at width {wide} {costs}."


def _answers(rules: Sequence[Rule]) -> Table:
    narrow, wide = rules[0].widths[0], rules[0].widths[-1]
    columns = (
        Column("rule", "Rule"),
        Column("answer", "Transfers"),
        Column("shift", "Octaves per doubling", "ratio"),
        Column("regret", "Regret, %", "number"),
        Column("best_narrow", f"Best rate, width {narrow}", "exact"),
        Column("best_wide", f"Width {wide}", "exact"),
        Column("hidden", "Change of hidden states", "ratio"),
        Column("logits", "Change of logits", "ratio"),
    )
    rows = tuple(
        (
            *(rule.arm.name, WORDS[rule.judged[0]].lower(), rule.shift, rule.regret),
            *(_best(rule, width) for width in (narrow, wide)),
            *map(rule.coordinate, (f"blocks.{rule.asked.nets[0].depth - 1}", "head")),
        )
        for rule in rules
    )
    note = (
        f"Regret: how much larger the loss at width {wide} is at the best rate of width {narrow}. Change: in the "
        "coordinate check, octaves per doubling; 0 where a rate does as much at every width. Hidden states are those "
        "after the last block; the head’s rate is AdamW’s, under every rule."
    )
    return Table("answers", "By rule", columns, rows, note)


def _best(rule: Rule, width: int) -> float | None:
    """Return the geometric mean of the seeds' best rates, in three digits."""
    own = rule.octaves.get(width)
    return float(f"{2 ** (sum(own) / len(own)):.3g}") if own else None


# -- sections ----------------------------------------------------------------------------------------


def _losses(asked: TransferStudy, rules: Sequence[Rule]) -> tuple[tuple[Element, ...], tuple[Element, ...]]:
    """Return the figure of losses by rate, a panel for each rule and a line for each width; and its table."""
    shades = [SHADES[place % len(SHADES)] for place in range(len(asked.nets))]
    widths = [Arm(net.name, Series(net.name, own)) for net, own in zip(asked.nets, shades, strict=True)]
    by_rule = {rule.arm.name: {net.name: rule.searches.get(net.width, NOTHING) for net in asked.nets} for rule in rules}
    places = Column("rule", "Rule"), Column("width", "Net")
    loss = "Validation loss at the end of training"
    note = "The best of the grid, by the mean over seeds; a search goes on beyond an edge of it, up to a limit."
    found = tuning(widths, by_rule, places[0], loss, note, who=places[1])
    return found[:-1], found[-1:]


def _moves(rules: Sequence[Rule]) -> tuple[Element, ...]:
    lines = tuple(
        _line(rule.arm.series, list(rule.octaves), list(rule.octaves.values())) for rule in rules if rule.octaves
    )
    if not lines:
        return ()
    caption = "Geometric mean of the best rates of the seeds, with 95% intervals over seeds."
    axes = Axis("width", log=True), Axis("best learning rate", log=True)
    return (Figure("best-rates", "Best rate by width", caption, *axes, (Lines("all rules", lines),)),)


def _line(series: Series, widths: Sequence[int], octaves: Sequence[Sequence[float]]) -> Line:
    """Return a line of means of logarithms, on the scale of the values themselves."""
    found = line(series, widths, octaves)

    def values(own: Sequence[float | None]) -> tuple[float | None, ...]:
        return tuple(None if each is None else 2**each for each in own)

    return Line(series, found.n, found.x, values(found.y), values(found.lower), values(found.upper))


def _checks(rules: Sequence[Rule]) -> tuple[Element, ...]:
    known = [rule for rule in rules if rule.changes]
    if not known:
        return ()
    panels, rows = [], []
    for rule in known:
        lines = []
        for place, layer in enumerate(rule.layers):
            last = [
                [math.log2(each) for each in own[layer][-1] if 0 < each < math.inf] for own in rule.changes.values()
            ]
            lines.append(_line(Series(layer, SHADES[place % len(SHADES)], place), list(rule.changes), last))
            rows.append((rule.arm.name, layer, rule.coordinate(layer)))
        panels.append(Lines(rule.arm.name, tuple(lines)))
    caption = "Root mean square of the change of a layer’s outputs in the first steps, mean with 95% over seeds."
    axes = Axis("width", log=True), Axis("change of outputs", log=True)
    columns = Column("rule", "Rule"), Column("layer", "Layer"), Column("slope", "Octaves per doubling", "ratio")
    note = "0: the same at every width. blocks.K is the sum that a block passes on, with what came before it."
    return (
        Figure("coordinates", "Change of each layer by width", caption, *axes, tuple(panels)),
        Table("coordinates-slopes", "Growth of the change with the width", columns, tuple(rows), note),
    )


def _settings(found: Found) -> tuple[Element, ...]:
    note = "One value each, not tuned; the learning rate is searched."
    asked = found.runs[0].asked
    return optimizer_settings(found.arms, note), every_job(found.records), *in_full(STUDY, asked, found.records)


def _terms(asked: TransferStudy, rules: Sequence[Rule]) -> Element:
    values = {
        "seeds": asked.seeds,
        "tolerance": asked.tolerance,
        "factor": 2**asked.tolerance,
        "resolution": f"{max(rule.of_grid for rule in rules):.2f}",
        "steps": asked.check_steps,
    }
    return definitions(TERMS, values=values)

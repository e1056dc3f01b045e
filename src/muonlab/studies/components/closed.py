"""Closed forms of the same problems in the components report, and how well simulation agrees with them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from muonlab.report.findings import Axis, Element, Figure, Line, Lines, Series, Table, as_text
from muonlab.stats.results import Estimate
from muonlab.studies.components.cases import closed_form, problem_of
from muonlab.studies.components.claims import MARGIN, RANK
from muonlab.studies.components.config import Components
from muonlab.studies.components.jobs import FLOWS
from muonlab.studies.components.plan import ComponentStudy
from muonlab.studies.components.readings import ComponentsFound
from muonlab.studies.components.theory.crossing import Turn, at_loss, first_time, turns
from muonlab.studies.components.theory.flows import LEARNT, rates
from muonlab.studies.components.theory.problem import Problem
from muonlab.study.compare import compare_one
from muonlab.study.sections import columns
from muonlab.study.study import Quantity

ROLES = {"gradient": "sgd", "spectral": "muon", "sign": "adamw"}  # each flow is the limit of an optimizer
NUM_POINTS = 60  # of a curve of gains
SAME = 1e-6  # a difference of measures that counts as none


@dataclass(frozen=True)
class Flows:
    """Gradient and spectral flow on a problem without noise at one loss."""

    components: Components
    eps: float
    gradient: dict[str, float]  # `theory.measures.summary`
    spectral: dict[str, float]
    margin_turns: list[Turn]  # where the order of both turns in the worst margin, and in the rank of the logits
    rank_turns: list[Turn]

    def difference(self, measure: str) -> float:
        """Return spectral minus gradient flow; 0 where rounding may explain it."""
        found = self.spectral[measure] - self.gradient[measure]
        return found if abs(found) > SAME * abs(self.gradient[measure]) else 0.0


def flows(asked: ComponentStudy) -> list[Flows]:
    """Return the flows at the main loss for every ratio of the first map that has a closed form."""
    base = asked.base
    problems = dict.fromkeys(case.components.without_noise().model_dump_json() for case in asked.maps[base.map])
    found = [_flows_of(text, base.loss, asked.main_eps(base)) for text in problems]
    return sorted((each for each in found if each is not None), key=lambda each: each.components.ratio)


@cache
def _flows_of(text: str, loss: str, eps: float) -> Flows | None:
    components = Components.model_validate_json(text)
    problem = closed_form(components, loss)
    if problem is None:
        return None
    gradient, spectral = (at_loss(problem, flow, eps, loss) for flow in ("gradient", "spectral"))
    if gradient is None or spectral is None:
        return None
    found = turns(problem, loss)
    return Flows(components, eps, gradient, spectral, found["margin_worst"], found["rank_logits"])


def closed(found: ComponentsFound, known: Sequence[Flows]) -> tuple[Element, ...]:
    """Return the gains of every flow, margin and rank at equal loss, and the agreement of simulation."""
    figure, tables = gains(found.runs.asked), (at_equal(found, known), agreement(found))
    return (*((figure,) if figure else ()), *(table for table in tables if table.rows))


# -- gains against time ----------------------------------------------------------------------------


def gains(asked: ComponentStudy) -> Figure | None:
    """Return gains by level against time for every flow on the base problem; None where none is known to its end."""
    components, loss, eps = asked.base.components.without_noise(), asked.base.loss, asked.eps_of(asked.base)[-1]
    problem = closed_form(components, loss)
    if problem is None:
        return None
    panels = []
    for flow, name in FLOWS.items():
        own, title = (_aligned(components), f"{name}, along the axes") if flow == "sign" else (problem, name)
        if own is not None and (time := first_time(own, flow, eps, loss)):
            panels.append(Lines(title, _gains(own, flow, time, loss)))
    if not panels:  # the smallest loss is one that no flow reaches
        return None
    caption = (
        f"Gain of a component on each level of the tree, strongest first, from the start to the loss {eps:g}, without "
        f"noise, ratio {components.ratio:g}, by the closed forms (docs/theory.md). A gain is what the component adds "
        "to the logits along its own pattern. n: components of the level. Time runs differently in every flow: only "
        "the shares of the levels compare. Sign descent depends on the basis and is known where components lie along "
        "the axes."
    )
    return Figure("gains", "Gains by level against time", caption, Axis("time"), Axis("gain, nats"), tuple(panels))


def _aligned(components: Components) -> Problem | None:
    """Return the problem along the axes, where sign descent has a closed form; None where it has none there."""
    problem = problem_of(components.model_copy(update={"rotation": 0.0}))
    try:
        rates(problem, "sign")
    except ValueError:
        return None
    return problem


def _gains(problem: Problem, flow: str, time: float, loss: str) -> tuple[Line, ...]:
    times, none = np.linspace(0.0, time, NUM_POINTS), (None,) * NUM_POINTS
    learnt = LEARNT[loss](problem, flow, times) * problem.strengths
    lines = []
    for level in np.unique(problem.levels):
        own = np.flatnonzero(problem.levels == level)
        series = Series(f"strength {problem.strengths[own[0]]:.3g}", ROLES[flow], int(level))
        lines.append(Line(series, len(own), tuple(times.tolist()), tuple(learnt[:, own[0]].tolist()), none, none))
    return tuple(lines)


# -- margin and rank at equal loss -----------------------------------------------------------------


def at_equal(found: ComponentsFound, known: Sequence[Flows]) -> Table:
    """Return margin and rank of both flows at the main loss, and what simulation found without noise."""
    rows = [
        (
            each.components.ratio,
            *(flow[measure] for measure in ("margin_worst", "rank_weights") for flow in (each.gradient, each.spectral)),
            each.difference("margin_worst"),
            _simulated(found, each, MARGIN),
            each.difference("rank_weights"),
            _simulated(found, each, RANK),
            *(_turned(turns) for turns in (each.margin_turns, each.rank_turns)),
        )
        for each in known
    ]
    head = columns(
        "ratio: Ratio [exact]; margin_gradient: Worst margin, gradient [number]; "
        "margin_spectral: Worst margin, spectral [number]; rank_gradient: Rank of W, gradient [number]; "
        "rank_spectral: Rank of W, spectral [number]; margin_difference: Margin, spectral minus gradient [number]; "
        "margin_simulated: Simulated, Muon minus SGD [number]; "
        "rank_difference: Rank, spectral minus gradient [number]; "
        "rank_simulated: Simulated, Muon minus SGD [number]; margin_turn: Margin turns at; "
        "rank_turn: Logits’ rank turns at"
    )
    eps = known[0].eps if known else 0.0
    note = (
        f"Flows of infinitely small steps of a linear classifier on the class means themselves, no noise, at the loss "
        f"{eps:g}. Simulated: Muon minus SGD on the map at depth 0 without noise, where both are compared; its steps "
        "are finite, SGD has momentum, and five Newton-Schulz steps leave singular values around one. Turns at: the "
        "losses at which the order of the two turns, the largest first, and the flow that is ahead below each; “–” "
        "where it does not turn."
    )
    return Table("flows", "Gradient and spectral flow at equal loss", head, tuple(rows), note)


def _turned(found: Sequence[Turn]) -> str | None:
    return ", ".join(f"{as_text(turn.eps)} ({turn.ahead_below})" for turn in found) or None


def _simulated(found: ComponentsFound, each: Flows, quantity: Quantity) -> Estimate | None:
    """Return the difference of Muon and SGD in simulation, where both are compared on the same problem."""
    asked = found.runs.asked
    rival = next((arm for arm in found.rivals if arm.optimizer.name == "sgd"), None)
    case = next((case for case in asked.maps[asked.base.map] if case.components == each.components), None)
    if found.first.optimizer.name != "muon" or rival is None or case is None or case.net.depth:
        return None
    pair = compare_one(found, quantity, case, rival.label, asked.main)
    return None if pair is None else pair.estimate


# -- agreement -------------------------------------------------------------------------------------


def agreement(found: ComponentsFound) -> Table:
    """Return how far simulation is from the closed forms as its steps become smaller."""
    rows = tuple(
        (FLOWS[asked.flow], asked.loss, asked.time, *row)
        for asked, result in found.runs.agreements
        for row in zip(result["steps"], result["sizes"], result["errors"], (None, *result["orders"]), strict=True)
    )
    head = columns(
        "flow: Flow; loss: Loss; time: Time [exact]; steps: Steps [count]; size: Size of a step [exact]; "
        "error: Relative error [number]; order: Observed order [ratio]"
    )
    note = (
        "W trained on the class means by SGD, Muon with exact polar factors and no momentum, or sign descent, against "
        "the closed form: |W − closed form| / |closed form|. Order: log2 of the last error over this one, 1 where "
        "halving the steps halves the error, “–” at the first and where there is nothing but rounding left. Sign "
        "descent is known for small logits alone, so its time falls with its steps."
    )
    return Table("agreement", "Closed forms against simulation", head, rows, note)

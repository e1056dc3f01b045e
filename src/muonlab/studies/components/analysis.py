"""From the results of a study of components to its findings. No torch."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from muonlab.jobs.job import JobRecord
from muonlab.report.findings import Findings
from muonlab.studies.components import sections
from muonlab.studies.components.answers import first_screen
from muonlab.studies.components.claims import CONTROL_NOTE, RULE, controls_of
from muonlab.studies.components.closed import closed, flows
from muonlab.studies.components.config import RESULTS_VERSION
from muonlab.studies.components.jobs import steps
from muonlab.studies.components.plan import ComponentStudy
from muonlab.studies.components.readings import ComponentRuns, ComponentsFound, gather
from muonlab.studies.components.tuning import spreads, tuning
from muonlab.studies.components.verdict import judge_all, verdict
from muonlab.study import folder as folders
from muonlab.study.controls import checks
from muonlab.study.recorded import same_runs
from muonlab.study.sections import findings
from muonlab.study.study import Found
from muonlab.study.words import definitions


def find(runs: ComponentRuns, records: Sequence[JobRecord] = (), expected: int = 0) -> ComponentsFound:
    """Return all that follows from the results of a study; `expected` is the number of jobs that are known by now."""
    asked, controls = runs.asked, tuple(controls_of(runs))
    return Found(
        runs, asked.arms, asked.mapped, asked.seeds, RULE, controls, tuple(records), expected, dict(_copies(runs))
    )


def _copies(runs: ComponentRuns) -> Iterator[tuple[tuple[str, str], str]]:
    """Yield the problems and arms with runs that should differ and are one run: out of the verdict, with the reason."""
    for (case, arm), own in runs.own.items():
        if copies := same_runs(own.compared(runs.asked.main).values()):
            yield (case, arm), f"has runs that are one run, bit by bit (seeds {copies[0][0]} and {copies[0][1]})"


def analyse(folder: Path) -> Findings:
    """Return what a study found, whatever part of it is done.

    Raises:
        StudyError: there is no study of components in the folder.
    """
    asked, known, results, records = folders.read(ComponentStudy, steps, folder, RESULTS_VERSION)
    found = find(gather(asked, known, results), records, len({step.job.id for step in known}))
    judged, closed_forms = judge_all(found), flows(asked)
    near_ties = spreads(found, judged)
    main = {"main": asked.eps[asked.main], "squared": asked.squared_eps[asked.main]}
    shown = (
        ("Claim (e): margin and rank at equal loss", sections.maps(found, judged)),
        ("By loss", sections.by_loss(found)),
        ("Without the strong components", sections.removal(found)),
        ("Variations", sections.variations(found)),
        ("Closed forms", closed(found, closed_forms)),
        ("Tuning", tuning(found, near_ties)),
        ("Censored and diverged", sections.censored(found)),
        ("Controls", checks(found.controls, CONTROL_NOTE)),
        ("Data and settings", sections.sources(found)),
        ("What the words mean", (definitions(TERMS, values={**main, "negligible": RULE.negligible}),)),
    )
    title = f"components, preset {asked.preset}"
    question = f"Is {found.first.name}’s margin and rank larger at equal loss, and where is it not?"
    answer = verdict(found, judged, closed_forms, near_ties)
    return findings(title, question, answer, found, (), shown, RESULTS_VERSION, first_screen(found, judged))


TERMS = """
Problem: Inputs x = Σ sₖ cₖ(y) uₖ + noise: every class y has a pattern of components, each of which lies along a
direction uₖ of its own and has a strength sₖ. On a tree, strong components separate large groups of classes and
weak ones separate classes within a group (docs/theory.md).

Ratio: Of the strongest component to the weakest. The strongest stays as it is, so a larger ratio makes the weak ones
weaker.

Noise: Standard deviation of the Gaussian noise in every input.

Depth: Hidden layers of the net; at depth 0 it is a linear classifier without bias that starts from zero.

Equal loss, eps: Runs are compared at the first time at which the train loss, over the whole training sample, is at most
eps, linear in its logarithm between two evaluations. Optimizers may need different numbers of steps to reach it.

Main eps: {main:g}, the one that the verdict is about; with squared loss {squared:g}.

Pair: The first optimizer and a rival with one seed: the same problem, examples and initial weights. Without noise and
at depth 0 seeds of Muon and SGD differ in the basis alone, which neither sees: there a difference is exact, and its
interval as narrow as rounding.

Censored: Of a run that never reached eps within the budget, or diverged before. It is in no pair and is counted.

Cell: One problem against one rival at one eps.

Interval: 95%, Student’s t over pairs, or over seeds. Each stands for itself; of twenty, one misses by chance.

p, Holm: The paired t test of no difference, two-sided; adjusted over the cells that are judged together, so that any
false alarm among them stays as rare as {alpha:g}.

Higher, lower: The adjusted p is at most {alpha:g}, at least {min_runs} pairs remain, and the difference is at least
{negligible:.0%} of the larger mean, for a smaller one means little however sure it is. All else is undecided.

Yes: The first optimizer is higher in more than half of all cells of the map, in some against every rival, and lower in
none, in margin and in rank. No: the same, lower. It depends: in margin or in rank higher in some cells and lower in
others, or yes in one and no in the other. Inconclusive, or open: all else, and wherever a
control failed.

Worst-class margin: The smallest over classes of z_y − max z_j, of the logits z at the mean of the class, in nats. By
norm: divided by the product of the spectral norms of the layers.

Worst margin of a component: The smallest of sₖ vₖ’ W uₖ, what a component adds to the logits along its own pattern.

Effective rank: exp(−Σ qᵢ log qᵢ) of the singular values σᵢ, qᵢ = σᵢ² / Σ σ²: of W at depth 0, else of the last hidden
states of the test inputs. With qᵢ = σᵢ / Σ σ it is that of Roy & Vetterli 2007. Of the logits: of those at the class
means, centred over classes.

Strongest removed: Test inputs without the components of the first level. Swapped: with those of another class.

Pure noise: Spurious components take their pattern from a class drawn at random for every example, of training and test
alike.

Gradient flow, spectral flow, sign descent: What SGD, Muon and Adam without their memories become as steps grow
infinitely small.

Chance: Accuracy of the best constant answer. Limit: what chance exceeds with a probability of at most {error:g}.

Edge: The best learning rate is the smallest or the largest that was tried, and clearly so: a better one may lie beyond.
"""

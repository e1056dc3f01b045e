"""What each term of the components report means."""

from muonlab.report.findings import Definitions
from muonlab.studies.components.comparisons import ALPHA, MIN_PAIRS, NEGLIGIBLE
from muonlab.studies.components.controls import ERROR
from muonlab.studies.components.readings import ComponentRuns

_TEXT = """
Problem: Inputs x = Σ sₖ cₖ(y) uₖ + noise: every class y has a pattern of components, each of which lies along a
direction uₖ of its own and has a strength sₖ. On a tree, strong components part large groups of classes and weak ones
part classes within a group (docs/theory.md).

Ratio: Of the strongest component to the weakest. The strongest stays as it is, so a larger ratio makes the weak ones
weaker.

Noise: Standard deviation of the Gaussian noise in every input.

Depth: Hidden layers of the net; at depth 0 it is a linear classifier without bias that starts from zero.

Equal loss, eps: Runs are compared at the first time at which the train loss, over the whole training sample, is at most
eps, linear in its logarithm between two looks. Optimizers may need different numbers of steps to come there.

Main eps: {main:g}, the one that the verdict speaks of; with squared loss {squared:g}.

Pair: The first optimizer and a rival with one seed: the same problem, examples and initial weights. Without noise and
at depth 0 seeds of Muon and SGD differ in the basis alone, which neither sees: there a difference is exact, and its
interval as narrow as rounding.

Censored: Of a run that never came down to eps within the budget, or diverged before. It is in no pair and is counted.

Cell: One problem against one rival at one eps.

Interval: 95%, Student’s t over pairs, or over seeds. Each stands for itself; of twenty, one misses by chance.

p, Holm: The paired t test of no difference, two-sided; adjusted over the cells that are judged together, so that any
false alarm among them stays as rare as {alpha:g}.

Higher, lower: The adjusted p is at most {alpha:g}, at least {pairs} pairs remain, and the difference is at least
{negligible:.0%} of the larger mean, for a smaller one means little however sure it is. All else is undecided.

Yes: The first optimizer is higher in more than half of all cells of the map, in some against every rival, and lower in
none, in margin and in rank. No: the same, lower. It depends: in margin or in rank higher in some cells and lower in
others, or yes in one and no in the other. Inconclusive: all else, and wherever a control failed.

Worst-class margin: The smallest over classes of z_y − max z_j, of the logits z at the mean of the class, in nats. By
norm: divided by the product of the spectral norms of the layers.

Worst margin of a component: The smallest of sₖ vₖ’ W uₖ, what a component adds to the logits along its own pattern.

Effective rank: exp(−Σ qᵢ log qᵢ) of the singular values σᵢ, qᵢ = σᵢ² / Σ σ²: of W at depth 0, else of the last hidden
states of the test inputs. With qᵢ = σᵢ / Σ σ it is that of Roy & Vetterli 2007. Of the logits: of those at the class
means, centred over classes.

Strongest removed: Test inputs without the components of the first level. Swapped: with those of another class.

Pure noise: Spurious components take their pattern from a class drawn anew for every example, of training and test
alike.

Gradient flow, spectral flow, sign descent: What SGD, Muon and Adam without their memories become as steps grow
infinitely small.

Chance: Accuracy of the best constant answer. Limit: what chance exceeds with a probability of at most {error:g}.

Edge: The best learning rate is the smallest or the largest that was tried, and clearly so: a better one may lie beyond.
"""


def definitions(runs: ComponentRuns) -> Definitions:
    """Return the terms of the report with their meanings."""
    asked = runs.asked
    text = _TEXT.format(
        main=asked.eps[asked.main],
        squared=asked.squared_eps[asked.main],
        alpha=ALPHA,
        pairs=MIN_PAIRS,
        negligible=NEGLIGIBLE,
        error=ERROR,
    )
    paragraphs = [" ".join(paragraph.split()) for paragraph in text.strip().split("\n\n")]
    return Definitions(tuple((term, meaning) for term, _, meaning in (each.partition(": ") for each in paragraphs)))

"""The settings of a study of components, as `muonlab settings components` prints them."""

from typing import Any

from muonlab.studies.components.cases import VARIATIONS
from muonlab.studies.components.config import Components, Net
from muonlab.studies.components.plan import OPTIMIZERS, PRESETS, STUDY
from muonlab.study.described import Sections, described, execution, in_presets, of_each, rows

MEANT_FOR = {
    "tiny": "seconds, for tests",
    "laptop": "minutes on two cores",
    "full": "a finer map, three depths, more seeds, not run yet: see --dry-run first",
}
CHOSEN = f"""
optimizers [{", ".join(OPTIMIZERS)}]: the first is compared with each of the others
seeds [a whole number, 1 to 1000]: compared runs of each problem and optimizer; six or more give the control of Muon
    against itself
search_seeds [a whole number, 1 to 1000]: runs by which a rate is chosen, other seeds than those
muon.rates [numbers, two or more]: learning rates of the first grid; all of them are one job, with all seeds
adamw.rates [numbers, two or more]: likewise
sgd.rates [numbers, two or more]: likewise
extensions [a whole number, 0 to 20]: jobs of two more rates each that a search may add while the best
    clearly lies on an edge
eps [numbers]: train losses at the first time of which runs are compared
main_eps [one of eps]: the one that the verdict is about; with an eps of your own the middle one
squared_eps [numbers, as many as eps]: the same for problems with squared loss, one for each of eps; with an eps
    of your own the same shares of the loss at W = 0
variations [{", ".join((*VARIATIONS, "none"))}]: of the middle of the map, one factor each: random patterns, aligned
    (rotation 0), spurious (the weakest level is pure noise), imbalance (10), few (an eighth of the examples), batches
    (of an eighth), momentum (0), decay (0.1), squared loss, deep (2 hidden layers), power
agree_steps [numbers, each twice the last]: numbers of steps at which simulation is compared with the closed forms
"""
TRAINING = """
loss [softmax or squared] (softmax): of the training
batch [a whole number, or all] (all): examples of a step
budget [a whole number]: steps at most
looks [a whole number, 1 to 1000]: evaluations, closer together at the start
"""
PROBLEM = """
classes: K
dimension: inputs d, at least as many as there are components
rank: components r; by default one fewer than classes
patterns: of the classes
tree: children of every node, level by level from the root, such as 2,2,2; by default the prime factors of classes
strengths: how they fall; or numbers that fall, one for each level of the tree, or for each component without one.
    Numbers belong to one problem and are not an axis
ratio: strongest component over weakest; the columns of the map
scale: the largest strength, for strengths that are named
rotation: of the directions: 0 along the axes, 1 random
imbalance: largest prior of a class over the smallest
noise: standard deviation of the noise in every input; the rows of the map
spurious: number of the weakest components that are pure noise
train: examples to train on
validation: examples by which a rate is chosen
test: examples that are measured
"""
NET = """
depth: hidden layers; 0 is a linear classifier from zero; each is a map of its own
width: of hidden layers
activation: of hidden layers
"""


def sections(study: Any = None) -> Sections:
    """Return the settings by heading."""
    found = {
        "Where it starts and how it runs": execution(STUDY, MEANT_FOR),
        "What is compared": rows(CHOSEN),
        "The problem": described(Components, words=PROBLEM),
        "Net and training": (*described(Net, words=NET), *rows(TRAINING)),
        "Optimizers": of_each(OPTIMIZERS, "name"),
    }
    return in_presets(found, PRESETS)

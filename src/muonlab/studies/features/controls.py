"""The controls of a study of features: what every measure says where there is nothing to find."""

from muonlab.studies.features.readings import FamilyRuns, FeatureRuns
from muonlab.studies.features.rounds import UNTRAINED
from muonlab.study.measures.controls import Control, of_probes, untrained


def judge_controls(runs: FeatureRuns) -> list[Control]:
    """Return every control that has been measured."""
    return [control for family in runs.families for control in _controls(family)]


def _controls(family: FamilyRuns) -> list[Control]:
    found, sizes = [], family.sizes
    accuracies = [model.clean_accuracy for model in family.of(family.optimizers[0], UNTRAINED)]
    if accuracies:
        found.append(untrained(family.name, accuracies, sizes["chance"], sizes["num_examples"]))
    if family.controls is not None:
        found += of_probes(family.name, family.controls, sizes["probe_chance"])
    return found

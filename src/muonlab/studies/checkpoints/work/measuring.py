"""The measures of the feature study on any models: robustness, margins, ranks and transfer by a linear probe."""

import gc
import math
from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import nn

from muonlab.data.dataset import DATA_SEED
from muonlab.data.sources import DataError
from muonlab.studies.checkpoints.work.candidates import Candidates, Member, can_answer, ready
from muonlab.studies.checkpoints.work.nets import digest, is_finite
from muonlab.studies.checkpoints.work.similarity import Similarities
from muonlab.studies.features.config import Measuring
from muonlab.studies.features.work.layers import controls
from muonlab.studies.features.work.measuring import measure, num_pieces, sheet
from muonlab.studies.features.work.robustness import judge
from muonlab.studies.features.work.states import Subject
from muonlab.train.jobs import Report, counter

NEW_NETS, FEW_NEW_NETS = 10, 3  # of the control before training: of small nets, and of others
SMALL_BYTES = 64 * 2**20  # of weights


def inspect(
    groups: Sequence[Candidates],
    measures: Collection[str],
    settings: Measuring,
    *,
    device: str = "cpu",
    notes: Collection[str] = (),
    report: Report = lambda event: None,
) -> dict[str, Any]:
    """Measure groups of models and return what a result holds.

    Args:
        groups: their data differ in nothing but how a study pools hidden states.
        measures: some of robustness, margins, rank, transfer and cka.
        settings: how much.
        device: a torch device, on which nets run.
        notes: for the report, after those of the data.
        report: called with {"step", "budget", "alive"}.

    Raises:
        DataError: models that do not fit the data.
    """
    given = groups[0].given
    judged, probed = given.judged, given.probed
    num_models, num_calls = sum(len(group.members) for group in groups), sum(len([*g.chunks()]) for g in groups)
    advance = counter(report, num_pieces(given, measures, num_models=num_models, num_calls=num_calls) + 1, num_models)
    said: list[str] = []
    similarities = Similarities(settings.examples) if "cka" in measures else None
    described: list[dict[str, Any]] = []
    models: list[dict[str, Any]] = []
    checks: dict[str, Any] = {}
    for group in groups:
        own: dict[str, Any] = {}
        has_answers = True
        seen: dict[str, Member] = {}
        for chunk in group.chunks():
            members, subjects = _loaded(group, chunk, seen, device, said)
            if not subjects:
                continue
            before, own = own, _described(group, subjects[0])
            if before not in ({}, own) or any(each.taps != subjects[0].taps for each in subjects):
                raise DataError(f"{group.name} has models of several architectures; give each a group of its own")
            measured = measure(subjects, group.given, settings, measures, by_example=True, advance=advance)
            models += [
                {"group": group.name, "checkpoint": member.checkpoint, "member": member.member, **row}
                for member, row in zip(members, measured, strict=True)
            ]
            if similarities is not None:
                for member, subject in zip(members, subjects, strict=True):
                    similarities.see(group, member, subject)
            checks = checks or controls(subjects[0], group.given.measured, settings, measures)
            has_answers = group.is_judged or can_answer(group, subjects[0])
            del subjects
            gc.collect()  # nets may refer to themselves in circles
        if not own:
            raise DataError(f"{group.name}: no model has weights that are finite; nothing can be measured")
        described.append(own)
        if group.untrained is not None and "untrained" not in checks and has_answers:
            checks |= _untrained(group, settings, device, said)
            advance(1)
    return _finite(
        {
            "corruptions": list(judged.corruptions),
            "chance": judged.test.chance,
            "probe_chance": None if probed is None else probed.test.chance,
            "num_examples": min(settings.examples, len(judged.test.labels)),
            "num_probe_train": 0 if probed is None else min(settings.probe_train, len(probed.train.labels)),
            "num_probe_test": 0 if probed is None else min(settings.examples, len(probed.test.labels)),
            "kind": judged.test.kind,
            "notes": [*given.notes, *notes, *said],
            "groups": described,
            "models": models,
            "controls": checks,
            "sheet": sheet(given.measured.sheet()),
            **({} if similarities is None else {"cka": similarities.rows()}),
        }
    )


def _described(group: Candidates, first: Subject) -> dict[str, Any]:
    """Return what a result says of a group."""
    return {
        "name": group.name,
        "color": group.group.color,
        "net": group.net,
        "num_parameters": sum(each.numel() for each in first.net.parameters()),
        "taps": list(first.taps),
    }


def _loaded(
    group: Candidates, chunk: Sequence[Member], seen: dict[str, Member], device: str, said: list[str]
) -> tuple[list[Member], list[Subject]]:
    """Return the members of a chunk that are measured; `seen` has the first member of each digest of weights."""
    kept, subjects = [], []
    for member in chunk:
        net = member.load()
        first = member if len(group.members) == 1 else seen.setdefault(digest(net), member)
        if not is_finite(net):
            said.append(f"{group.name}: {member.place} has weights that are not finite; left out")
        elif first is not member:  # a copy is not another seed: intervals over checkpoints would be too narrow
            said.append(f"{group.name}: {member.place} has the weights of {first.place}; left out")
        else:
            kept.append(member)
            subjects.append(ready(group, net, device))
    return kept, subjects


def _untrained(group: Candidates, settings: Measuring, device: str, said: list[str]) -> dict[str, Any]:
    """Return what new nets make of the clean examples; nothing where every new net has the same weights."""
    clean, _ = group.given.corrupted(group.given.judged.corruptions[0], 0, settings.examples)
    accuracies, before = [], None
    for number in range(NEW_NETS if group.members[0].num_bytes <= SMALL_BYTES else FEW_NEW_NETS):
        net = _new(group, number)
        if before is not None and all(map(torch.equal, before.parameters(), net.parameters())):
            said.append(f"{group.name}: a new net has the weights of the one before, so none is untrained")
            return {}
        before = net if number == 0 else None
        accuracies.append(judge(ready(group, net, device), clean).accuracy)
    number = min(settings.examples, len(clean.labels))
    return {"untrained": {"clean_accuracies": accuracies, "num_examples": number}}


def _new(group: Candidates, number: int) -> nn.Module:
    assert group.untrained is not None
    with torch.random.fork_rng():
        torch.manual_seed(DATA_SEED + number)
        return group.untrained()


def _finite(value: Any) -> Any:
    """Return JSON with null where a number is not finite."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    return [_finite(each) for each in value] if isinstance(value, list) else value

"""The measures of the feature study on any models: robustness, margins, ranks and transfer by a linear probe."""

import gc
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from muonlab.data.dataset import DATA_SEED
from muonlab.data.sources import DataError
from muonlab.studies.checkpoints.config import Data
from muonlab.studies.checkpoints.work.candidates import Candidates, Member, plain_call, ready
from muonlab.studies.checkpoints.work.material import open_data
from muonlab.studies.checkpoints.work.nets import digest, is_finite
from muonlab.studies.features.config import Measuring
from muonlab.studies.features.work.layers import controls
from muonlab.studies.features.work.measuring import measure, num_pieces, sheet
from muonlab.studies.features.work.robustness import judge
from muonlab.studies.features.work.states import Subject
from muonlab.train.jobs import Report, counter

NEW_NETS, FEW_NEW_NETS = 10, 3  # of the control before training: of small nets, and of others
SMALL_BYTES = 64 * 2**20  # of weights


def inspect_models(
    groups: Mapping[str, Sequence[nn.Module]],
    data: Data,
    *,
    measures: Collection[str] = ("robustness", "margins", "rank"),
    measuring: Measuring | None = None,
    taps: Sequence[str] = (),
    pool: str | None = None,
    report: Report = lambda event: None,
) -> dict[str, Any]:
    """Measure modules in memory and return what a result.json holds (docs/files.md).

    Args:
        groups: name -> modules of one architecture. They are put in eval mode.
        data: `muonlab.studies.checkpoints.config.Images`, `Texts` or `StudyData`.
        measures: some of robustness, margins, rank and transfer.
        measuring: how much.
        taps: patterns of the names of the modules whose outputs are hidden states; () chooses.
        pool: how these become one vector an example; None goes by their shapes.
        report: called with {"step", "budget", "alive"} as it goes.

    Raises:
        DataError: modules, data or settings that do not fit; the message says what to do.
    """
    given = open_data(data)
    candidates = [
        Candidates(
            name=name,
            color=None,
            net=type(nets[0]).__name__,
            members=[Member(f"{name} {k}", None, lambda net=net: net, 0) for k, net in enumerate(nets)],
            untrained=None,
            patterns=tuple(taps),
            pool=pool,
            call=plain_call,
            given=given,
        )
        for name, nets in groups.items()
    ]
    return inspect(candidates, measures, measuring or Measuring(), report=report)


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
        measures: some of robustness, margins, rank and transfer.
        settings: how much.
        device: a torch device, on which nets run.
        notes: for the report, beside those of the data.
        report: called with {"step", "budget", "alive"}.

    Raises:
        DataError: models that do not fit the data.
    """
    given = groups[0].given
    judged, probed = given.judged, given.probed
    number = min(settings.examples, len(judged.test.labels))
    work = _Work(groups, measures, settings, device, report)
    described, models = [], []
    for group in groups:
        own, rows = work.group(group)
        described.append(own)
        models += rows
    found = {
        "corruptions": list(judged.corruptions),
        "chance": judged.test.chance,
        "probe_chance": None if probed is None else probed.test.chance,
        "num_examples": number,
        "num_probe_train": 0 if probed is None else min(settings.probe_train, len(probed.train.labels)),
        "num_probe_test": 0 if probed is None else min(settings.examples, len(probed.test.labels)),
        "kind": judged.test.kind,
        "notes": [*given.notes, *notes, *work.notes],
        "groups": described,
        "models": models,
        "controls": work.controls,
        "sheet": sheet(given.measured.sheet()),
    }
    return _finite(found)


class _Work:
    """The work on one group after the other, and what was found on the way."""

    def __init__(
        self, groups: Sequence[Candidates], measures: Collection[str], settings: Measuring, device: str, report: Report
    ):
        self._measures, self._settings, self._device = measures, settings, device
        self.controls: dict[str, Any] | None = None
        self.notes: list[str] = []
        self._seen: dict[tuple[str, str], Member] = {}  # group and digest -> the member that had these weights first
        models, calls = sum(len(group.members) for group in groups), sum(len([*group.chunks()]) for group in groups)
        pieces = num_pieces(groups[0].given, measures, num_models=models, num_calls=calls)
        self._advance = counter(report, pieces + 1, models)

    def group(self, group: Candidates) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Return what is said of a group, and the rows of its models."""
        described: dict[str, Any] = {}
        rows: list[dict[str, Any]] = []
        for chunk in group.chunks():
            kept, subjects = self._loaded(group, chunk)
            if not subjects:
                continue
            first = subjects[0]
            own = {
                "name": group.name,
                "color": group.color,
                "net": group.net,
                "num_parameters": sum(each.numel() for each in first.net.parameters()),
                "taps": list(first.taps),
            }
            if any(own["taps"] != list(each.taps) for each in subjects) or described not in ({}, own):
                raise DataError(f"{group.name} has models of several architectures; give each a group of its own")
            described = own
            measured = measure(
                subjects, group.given, self._settings, self._measures, by_example=True, advance=self._advance
            )
            rows += [
                {"group": group.name, "checkpoint": member.checkpoint, "member": member.member, **row}
                for member, row in zip(kept, measured, strict=True)
            ]
            if self.controls is None:
                self.controls = controls(first, group.given.measured, self._settings, self._measures)
            del first, subjects
            gc.collect()  # nets may refer to themselves in circles
        if not described:
            raise DataError(f"{group.name}: no model has weights that are finite; nothing can be measured")
        if self.controls is not None and group.untrained is not None and "untrained" not in self.controls:
            if (untrained := self._untrained(group)) is not None:
                self.controls["untrained"] = untrained
            self._advance(1)
        return described, rows

    def _loaded(self, group: Candidates, chunk: Sequence[Member]) -> tuple[list[Member], list[Subject]]:
        kept, subjects = [], []
        for member in chunk:
            net = member.load()
            first = member if len(group.members) == 1 else self._seen.setdefault((group.name, digest(net)), member)
            if not is_finite(net):
                self.notes.append(f"{group.name}: {member.place} has weights that are not finite; left out")
            elif first is not member:  # copies are no seeds: intervals over checkpoints would be too narrow
                self.notes.append(f"{group.name}: {member.place} has the weights of {first.place}; left out")
            else:
                kept.append(member)
                subjects.append(ready(group, net, self._device))
        return kept, subjects

    def _untrained(self, group: Candidates) -> dict[str, Any] | None:
        """Return what nets of new weights make of the clean examples; None where every new net has the same weights."""
        clean, _ = group.given.corrupted(group.given.judged.corruptions[0], 0, self._settings.examples)
        first: nn.Module | None = None
        accuracies = []
        for number in range(NEW_NETS if group.members[0].num_bytes <= SMALL_BYTES else FEW_NEW_NETS):
            net = _new(group, number)
            if first is not None and _are_equal(first, net):
                self.notes.append(f"{group.name}: a new net has the weights of the one before, so none is untrained")
                return None
            first = net if number == 0 else None
            accuracies.append(judge(ready(group, net, self._device), clean).accuracy)
        return {"clean_accuracies": accuracies, "num_examples": min(self._settings.examples, len(clean.labels))}


def _new(group: Candidates, number: int) -> nn.Module:
    assert group.untrained is not None
    with torch.random.fork_rng():
        torch.manual_seed(DATA_SEED + number)
        return group.untrained()


def _are_equal(first: nn.Module, second: nn.Module) -> bool:
    return all(torch.equal(p, q) for p, q in zip(first.parameters(), second.parameters(), strict=True))


def _finite(value: Any) -> Any:
    """Return JSON with null where a number is not finite."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    return [_finite(each) for each in value] if isinstance(value, list) else value

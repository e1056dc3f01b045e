"""The job of an inspection, from its config to its result.json."""

from functools import partial
from typing import Any

import torch
from torch import nn

from muonlab.data.sources import DataError
from muonlab.jobs.files import fingerprint, read_json
from muonlab.studies.checkpoints import config as inspection
from muonlab.studies.checkpoints.config import Data, Group, Images, Inspect, StudyData
from muonlab.studies.checkpoints.work import checkpoints, huggingface, nets, taps
from muonlab.studies.checkpoints.work.candidates import Candidates, Member, plain_call, ready
from muonlab.studies.checkpoints.work.checkpoints import Described
from muonlab.studies.checkpoints.work.material import open_data
from muonlab.studies.checkpoints.work.measuring import inspect
from muonlab.studies.features.config import Family
from muonlab.studies.features.work import material
from muonlab.studies.features.work.material import Material
from muonlab.train.jobs import Context, finish


def run(*, config: dict[str, Any], folder: str, **where: Any) -> dict[str, Any]:
    """Do an inspection and return its result; a finished one is read.

    Args:
        config: of the job, as JSON.
        folder: its folder.
        where: device, compile, report and environment, as of `muonlab.train.jobs.finish`.

    Raises:
        ValueError: checkpoints, data or settings that do not fit; the message says what to do.
    """
    job = inspection.read(config)

    def work(context: Context) -> dict[str, Any]:
        notes: list[str] = []
        groups = candidates(job, notes)
        own = {"device": context.device, "report": context.report}
        return inspect(groups, job.measures, job.measuring, notes=notes, **own)

    return finish(folder, work, **where)


def tap_table(job: Inspect) -> list[tuple[str, str, tuple[int, ...], bool]]:
    """Return group, name, shape of the output for one example, and whether it is a tap, of every module of every group.

    The first model of each group is loaded.

    Raises:
        DataError: as `run`.
    """
    found = []
    for group in candidates(job, []):
        subject = ready(group, group.members[0].load(), "cpu")
        example = group.given.judged.test.inputs[:1]
        shapes = taps.tap_shapes(subject.net, example, subject.call)
        found += [(group.name, name, shape, name in subject.taps) for name, shape in shapes]
    return found


def candidates(job: Inspect, notes: list[str]) -> list[Candidates]:
    """Return the groups, whose models are not loaded yet; what is found out when they are goes to the notes.

    Raises:
        DataError: checkpoints that have changed or are none, nets that cannot be made, data that cannot be read.
    """
    described = {group.name: _described(group) for group in job.groups}
    everything = [each for own in described.values() for each in own]
    tokenizer = _tokenizer(everything)
    opened: dict[Data, Material] = {}
    groups = []
    for group in job.groups:
        data = _data(group, described[group.name], job.data, notes)
        if data not in opened:
            opened[data] = open_data(data, tokenizer)
        groups.append(_candidates(group, described[group.name], opened[data], notes))
    return groups


def _data(group: Group, described: list[Described], data: Data, notes: list[str]) -> Data:
    """Return the data as the nets of a group take them: with the study's net, or the levels that a folder says."""
    if isinstance(data, StudyData):
        return StudyData(family=_family(group, described, data))
    if not isinstance(data, Images) or data.mean is not None or described[0].kind != "huggingface":
        return data
    found = huggingface.levels(described[0].place)
    if found is None:
        return data
    notes.append(f"{group.name}: images standardised as {described[0].path}/preprocessor_config.json says")
    return data.model_copy(update={"mean": found[0], "deviation": found[1]})


def _described(group: Group) -> list[Described]:
    """Return what the checkpoints of a group hold."""
    found = checkpoints.describe(*(checkpoint.path for checkpoint in group.checkpoints))
    for checkpoint, own in zip(group.checkpoints, found, strict=True):
        if own.sha256 != checkpoint.sha256:
            raise DataError(f"{checkpoint.path} has changed since it was asked for; ask again")
    kinds = {own.kind == "huggingface" for own in found}
    if len(kinds) > 1:
        raise DataError(f"{group.name} has both files and folders of Hugging Face's; give each a group of its own")
    return found


def _family(group: Group, described: list[Described], data: StudyData) -> Family:
    """Return the family of a group's checkpoints, all of one net, trained on the study's data."""
    for own in described:
        if own.family is None:
            raise DataError(
                f"{own.path} has no config.json of a training job of the feature study beside it; give net= and data="
            )
        if own.family.data != data.family.data:
            raise DataError(f"{own.path} was trained on other data ({own.family.data.name}); give data=")
        if own.family != described[0].family:
            raise DataError(f"{group.name} has models of several architectures; give each a group of its own")
    assert described[0].family is not None
    return described[0].family


def _tokenizer(described: list[Described]) -> str | None:
    """Return the tokenizer.json of the folders, which must be one; None where they have none.

    Raises:
        DataError: folders have different ones.
    """
    folders = [own.place for own in described if own.kind == "huggingface"]
    paths = [path for path in map(huggingface.tokenizer, folders) if path is not None]
    if len({fingerprint(path) for path in paths}) > 1:
        raise DataError(f"{paths[0]} and that of another folder differ; give tokenizer=PATH, one for all")
    return str(paths[0]) if paths else None


def _candidates(group: Group, described: list[Described], given: Material, notes: list[str]) -> Candidates:
    first, call = described[0], plain_call
    if first.kind == "huggingface":
        name, build, call = _architecture(first), huggingface.untrained(first.place), huggingface.call
        loads = [[partial(huggingface.load, own.place)] for own in described]
    else:
        name, build = _builder(group, described, given)
        loads = [[partial(_load, build, own, k, notes) for k in range(own.num_members)] for own in described]
    members = [
        Member(own.path, k if own.kind == "population" else None, load, own.num_bytes)
        for own, of_file in zip(described, loads, strict=True)
        for k, load in enumerate(of_file)
    ]
    return Candidates(group.name, group.color, name, members, build, group.taps, group.pool, call, given)


def _architecture(described: Described) -> str:
    return str((read_json(described.place / "config.json").get("architectures") or ["?"])[0])


def _builder(group: Group, described: list[Described], given: Material) -> tuple[str, nets.Build]:
    """Return what the net is called and what makes it: the user's function, or what the study's config says."""
    if group.net is not None:
        return group.net, nets.builder(group.net)
    if given.net is not None:
        return given.net.kind, given.builder(given.judged)
    families = [own.family for own in described]
    if families[0] is None or any(family != families[0] for family in families):
        raise DataError(
            f"{group.name}: {described[0].path} holds weights alone; give net=package.module:function, {nets.EXAMPLE}"
        )
    study = material.read(families[0])
    return families[0].net.kind, study.builder(study.judged)


def _load(build: nets.Build, described: Described, member: int, notes: list[str]) -> nn.Module:
    """Return the net with the weights of one model of a file."""
    with torch.random.fork_rng():
        net = build()
    state, said = checkpoints.state(described, member)
    notes += [each for each in said if each not in notes]
    nets.fill(net, state, described.path)
    return net

"""The job of an inspection, from its config to its result.json."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import nn

from muonlab.data.sources import DataError
from muonlab.jobs.files import fingerprint, read_json
from muonlab.measure import taps
from muonlab.studies.checkpoints.config import Data, Group, Images, Inspect, StudyData, Texts
from muonlab.studies.checkpoints.plan import Described
from muonlab.studies.checkpoints.work import checkpoints, huggingface, nets
from muonlab.studies.checkpoints.work.candidates import Candidates, Member, plain_call, ready
from muonlab.studies.checkpoints.work.material import open_data
from muonlab.studies.checkpoints.work.measuring import inspect
from muonlab.studies.checkpoints.work.similarity import check_examples
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
    job = Inspect.model_validate(config)

    def work(context: Context) -> dict[str, Any]:
        notes: list[str] = []  # grows while models are loaded
        own = {"device": context.device, "report": context.report, "notes": notes}
        return inspect(candidates(job, notes), job.measures, job.measuring, **own)

    return finish(folder, work, **where)


def inspect_modules(job: Inspect, modules: Mapping[str, Sequence[nn.Module]]) -> dict[str, Any]:
    """Do an inspection of modules in memory, given by group, which are put in eval mode, and return its result.

    Raises:
        DataError: modules or data that do not fit; the message says what to do.
    """
    given = open_data(job.data)
    groups = []
    for group in job.groups:
        own = modules[group.name]
        members = [Member(f"{group.name} {k}", None, lambda net=net: net, 0) for k, net in enumerate(own)]
        is_judged = "robustness" in job.measures
        groups.append(Candidates(group, type(own[0]).__name__, members, None, plain_call, given, is_judged))
    return inspect(groups, job.measures, job.measuring)


def tap_table(job: Inspect) -> list[tuple[str, str, tuple[int, ...], bool]]:
    """Return group, name, shape of the output for one example, and whether it is a tap, of every module of every group.

    The first model of each group is loaded.

    Raises:
        DataError: as `run`.
    """
    found = []
    for each in candidates(job, []):
        net = each.members[0].load()
        if len(each.members) == 1 and not nets.is_finite(net):
            raise DataError(
                f"{each.members[0].place} has weights that are not finite, and {each.name} no other checkpoint; "
                "give one from before it diverged"
            )
        subject = ready(each, net, "cpu")
        shapes = taps.tap_shapes(subject.net, each.given.judged.test.inputs[:1], subject.call)
        found += [(each.name, name, shape, name in subject.taps) for name, shape in shapes]
    return found


def candidates(job: Inspect, notes: list[str]) -> list[Candidates]:
    """Return the groups, whose models are not loaded yet; what is found out when they are goes to the notes.

    Raises:
        DataError: checkpoints that have changed or are none, nets that cannot be made, data that cannot be read.
    """
    described = {group.name: _described(group) for group in job.groups}
    tokenizer = _tokenizer([each for own in described.values() for each in own])
    opened: dict[Data, Material] = {}

    def read(data: Data) -> Material:
        if data not in opened:
            opened[data] = open_data(data, tokenizer)
        return opened[data]

    groups = []
    for group in job.groups:
        own = described[group.name]
        data = _data(group, own, job.data, notes)
        made = _candidates(group, own, read(data), "robustness" in job.measures, notes)
        if isinstance(data, Images) and (number := _other_channels(data, made)):
            made = replace(made, given=read(data.model_copy(update={"channels": number})))
            notes.append(f"{group.name}: images have {number} channels, as its net takes them")
        if isinstance(data, Texts) and data.tokenizer is None and tokenizer is None:
            made = replace(made, assumes_bytes=True)
        if "cka" in job.measures:
            check_examples(made.given, job.measuring.examples)
        groups.append(made)
    return groups


def _other_channels(data: Images, group: Candidates) -> int | None:
    """Return how many channels the net of a group takes, where they are not those of the images."""
    if data.channels is not None or group.untrained is None:
        return None
    with torch.random.fork_rng():
        taken = nets.channels(group.untrained())
    return taken if taken in (1, 3) and taken != group.given.judged.test.inputs.shape[1] else None


def _described(group: Group) -> list[Described]:
    """Return what the checkpoints of a group hold, as it was asked for."""
    found = [checkpoints.describe(checkpoint.path) for checkpoint in group.checkpoints]
    for checkpoint, own in zip(group.checkpoints, found, strict=True):
        if own.sha256 != checkpoint.sha256:
            raise DataError(f"{checkpoint.path} has changed since it was asked for; ask again")
    if len({own.kind == "huggingface" for own in found}) > 1:
        raise DataError(f"{group.name} has both files and folders of Hugging Face's; give each a group of its own")
    return found


def _tokenizer(described: list[Described]) -> str | None:
    """Return the tokenizer.json of the folders, which must be one; None where they have none."""
    paths = [own.place / "tokenizer.json" for own in described if own.kind == "huggingface"]
    paths = [path for path in paths if path.is_file()]
    if len({fingerprint(path) for path in paths}) > 1:
        raise DataError(f"{paths[0]} and that of another folder differ; give tokenizer=PATH, one for all")
    return str(paths[0]) if paths else None


def _data(group: Group, described: list[Described], data: Data, notes: list[str]) -> Data:
    """Return the data as the nets of a group take them: with the study's net, or the levels that a folder says."""
    first = described[0]
    if isinstance(data, StudyData):
        for own in described:
            if own.family is None:
                raise DataError(
                    f"{own.path} has no config.json of a training job of the feature study beside it; give net= and "
                    "data="
                )
            if own.family.data != data.family.data:
                raise DataError(f"{own.path} was trained on other data ({own.family.data.name}); give data=")
            if own.family != first.family:
                raise DataError(f"{group.name} has models of several architectures; give each a group of its own")
        assert first.family is not None
        return StudyData(family=first.family)
    if not isinstance(data, Images) or data.mean is not None or first.kind != "huggingface":
        return data
    found = huggingface.levels(first.place)
    if found is None:
        return data
    notes.append(f"{group.name}: images standardised as {first.path}/preprocessor_config.json says")
    return data.model_copy(update={"mean": found[0], "deviation": found[1]})


def _candidates(
    group: Group, described: list[Described], given: Material, is_judged: bool, notes: list[str]
) -> Candidates:
    first, call = described[0], plain_call
    if first.kind == "huggingface":
        architectures = read_json(first.place / "config.json").get("architectures") or ["?"]
        name, build, call = str(architectures[0]), partial(huggingface.untrained, first.place), huggingface.call
        loads = [[partial(huggingface.load, own.place)] for own in described]
    else:
        name, build = _builder(group, described, given)
        loads = [
            [partial(_load, build, own, k, group.weights, notes) for k in range(own.num_members)] for own in described
        ]
    members = [
        Member(own.path, k if own.kind == "population" else None, load, own.num_bytes)
        for own, of_file in zip(described, loads, strict=True)
        for k, load in enumerate(of_file)
    ]
    return Candidates(group, name, members, build, call, given, is_judged)


def _builder(group: Group, described: list[Described], given: Material) -> tuple[str, nets.Build]:
    """Return what the net is called and what makes it: the user's function, or what the study's config says."""
    if group.net is not None:
        arguments = ", ".join(f"{name}={value}" for name, value in group.arguments.items())
        return f"{group.net}({arguments})" if arguments else group.net, nets.builder(group.net, group.arguments)
    if given.net is not None:
        return given.net.kind, given.builder(given.judged)
    family = described[0].family
    if family is None or any(own.family != family for own in described):
        raise DataError(
            f"{group.name}: {described[0].path} holds weights alone; give net=package.module:function, {nets.EXAMPLE}"
        )
    study = material.read(family)
    return family.net.kind, study.builder(study.judged)


def _load(build: nets.Build, described: Described, member: int, wanted: str | None, notes: list[str]) -> nn.Module:
    """Return the net with the weights of one model of a file."""
    with torch.random.fork_rng():
        net = build()
    state, said = checkpoints.state(described, member, wanted)
    said = [*said, *nets.fill(net, state, described.path)]
    notes += [each for each in said if each not in notes]
    return net

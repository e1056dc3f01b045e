"""A comparison as a user writes it, in Python, with the settings that a command may change."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, get_args

from pydantic import BaseModel

from muonlab.jobs.files import fingerprint
from muonlab.studies.compare import jobs
from muonlab.studies.compare.analysis import analyse
from muonlab.studies.compare.config import MAX_SEEDS, STUDY, Claimed, CompareStudy, Key, Trained, Training
from muonlab.studies.features.config import SGD, AdamW, Muon
from muonlab.study import dotted, optimizers
from muonlab.study.dotted import Dotted
from muonlab.study.search import MAX_EXTENSIONS, Search
from muonlab.study.settings import Chosen, Settings, UsageError, as_texts, check_keys, check_name, fields, make

OPTIMIZERS: dict[str, type[BaseModel]] = {"muon": Muon, "adamw": AdamW, "sgd": SGD}
TRAINING = fields(Training)
LOSSES = ("softmax", "stablemax", "sparsemax")  # of muonlab.losses, which asks for torch
# What is expected of each, in words.
NET = "a function that makes a torch.nn.Module, called with shape= (of one input) and classes=, or those that it takes"
DATA = "a function without arguments that returns train, validation and test, each (inputs, labels)"
LOSS = f"{', '.join(LOSSES)}, or a function of logits (B, C) and labels (B,) that returns a loss per example (B,)"
ARM = f"LABEL: (optimizer, {{'lr': [1e-3, 1e-2]}}), the optimizer {', '.join(OPTIMIZERS)}, or a class or function"
CLAIM = f"(letter, title, words, quantities), with one or more quantities of {', '.join(get_args(Key))}"

Named = str | Callable[..., Any]
# Label -> optimizer, and its arguments: "lr" has the learning rates to try.
Arms = Mapping[str, tuple[Named, Mapping[str, Any]]]


@dataclass(frozen=True)
class OwnStudy:
    """A study of a user's own: what `muonlab run FILE.py` runs, by the protocol of `muonlab.jobs.local.Study`.

    Attributes:
        asked: what the file asks.
        labels: of its arms -> built-in or dotted name.
        texts: the settings that it stands for, which a command may change.
    """

    asked: CompareStudy
    labels: Mapping[str, str]
    texts: Settings = field(repr=False)
    STUDY: ClassVar[str] = STUDY
    begin = staticmethod(jobs.begin)
    jobs_of = staticmethod(jobs.jobs_of)
    outline = staticmethod(jobs.outline)
    trials = staticmethod(jobs.trials)
    analyse = staticmethod(analyse)

    @property
    def KEYS(self) -> tuple[str, ...]:  # noqa: N802
        """The settings that a command may change."""
        own = (key for label, name in self.labels.items() for key in optimizers.keys(label, name, OPTIMIZERS))
        return ("seeds", "search_seeds", "extensions", "target", *TRAINING, *own)

    def plan(self, preset: str = "python", settings: Mapping[str, Any] | None = None) -> CompareStudy:
        """Return the study, changed by settings.

        Args:
            preset: the file that defines it, for the report.
            settings: key -> value or list of values; the keys are `KEYS`.

        Raises:
            UsageError: an unknown key, or a value that its field does not allow.
        """
        given = {key: as_texts(key, value) for key, value in (settings or {}).items()}
        check_keys(given, self.KEYS)
        arms = _arms(Chosen(preset, given, self.texts | given), self.labels)
        return make(CompareStudy, {**self.asked.model_dump(), **arms, "preset": preset, "settings": given})


def compare_optimizers(
    *,
    question: str,
    net: Named,
    data: Named,
    arms: Arms,
    claims: Iterable[tuple[str, str, str, Sequence[str]]],
    loss: Named = "softmax",
    target: float | None = None,
    seeds: int = 5,
    search_seeds: int = 2,
    extensions: int = 3,
    **training: Any,
) -> OwnStudy:
    """Return a study of two or more optimizers on one net and data set.

    Each arm's learning rate is searched on seeds of the search, by validation loss; final runs on other seeds follow at
    the rate that is chosen. Runs of one seed start from the same weights and take the same batches in every arm.

    Args:
        question: for the report.
        net: a function that makes the net: it is called with shape= (of one input) and classes=, or those that it
            takes. Functions are given themselves or by name (`muonlab.study.dotted`).
        data: a function without arguments that returns (train, validation, test), each (inputs, labels); or digits, a
            folder, .zip or .npz of images.
        arms: label -> (optimizer, {"lr": [...], argument: value}). The optimizer is muon, adamw, sgd, or a class or
            function of torch's protocol. The first is compared with each of the others.
        claims: (letter, title, words, quantities) of each claim; quantities are validation_loss, train_loss,
            validation_accuracy, test_accuracy and steps.
        loss: softmax, stablemax, sparsemax, or a function of logits (B, C) and labels (B,) to losses (B,).
        target: validation loss whose first step is the quantity steps.
        seeds: number of final runs of each arm.
        search_seeds: number of runs of each learning rate of a search.
        extensions: how many times a search may go on beyond the edge of its rates.
        training: batch, budget, evaluations, warmup, schedule.

    Raises:
        UsageError: a name that is not there, a value that is not allowed; before anything runs.
    """
    check_keys({key: [""] for key in training}, TRAINING)
    labels, own = _labels(arms)
    given = {"seeds": seeds, "search_seeds": search_seeds, "extensions": extensions, **training, **own}
    given |= {} if target is None else {"target": target}
    texts = {key: as_texts(key, value) for key, value in given.items()}
    held = {
        "preset": "python",
        "settings": {},
        "question": question,
        "trained": Trained(net=_dotted("net", net, NET), data=_data(data), loss=_dotted("loss", loss, LOSS, LOSSES)),
        "claims": _claims(claims),
    }
    asked = make(CompareStudy, held | _arms(Chosen("python", {}, texts), labels))
    if target is None and any("steps" in claim.quantities for claim in asked.claims):
        raise UsageError("a claim is about steps, and there is no target; give target=LOSS, a validation loss")
    return OwnStudy(asked, labels, texts)


def _labels(arms: Arms) -> tuple[dict[str, str], dict[str, Any]]:
    """Return label -> name of the optimizer, and the settings LABEL.argument."""
    if not isinstance(arms, Mapping) or not arms:
        raise UsageError(f"arms={arms!r} is not valid; expected a dict of {ARM}")
    labels, settings = {}, {}
    for label, arm in arms.items():
        if not (isinstance(arm, tuple | list) and len(arm) == 2 and isinstance(arm[1], Mapping)):
            raise UsageError(f"arms has {label!r}: {arm!r}; expected {ARM}")
        labels[label] = _name("arms", arm[0], ARM, tuple(OPTIMIZERS))
        settings |= {f"{label}.{key}": value for key, value in arm[1].items()}
    return optimizers.labelled([f"{label}={name}" for label, name in labels.items()], OPTIMIZERS), settings


def _claims(claims: Iterable[Any]) -> list[Claimed]:
    found: list[Claimed] = []
    for claim in claims:
        if not isinstance(claim, tuple | list) or len(claim) != 4 or isinstance(claim[3], str) or not claim[3]:
            raise UsageError(f"claims has {claim!r}; expected {CLAIM}")
        for quantity in claim[3]:
            check_name("quantity", quantity, get_args(Key))
        if any(claim[0] == other.letter for other in found):
            raise UsageError(f"claims has two claims {claim[0]!r}; give each a letter of its own")
        found.append(make(Claimed, dict(zip(Claimed.model_fields, claim, strict=True))))
    if not found:
        raise UsageError(f"claims is empty; expected one or more {CLAIM}")
    return found


def _arms(chosen: Chosen, labels: Mapping[str, str]) -> dict[str, Any]:
    """Return the fields of a study that settings may change."""
    for label, name in labels.items():
        own = {key: [""] for key in chosen.merged if key.startswith(f"{label}.")}
        check_keys(own, optimizers.keys(label, name, OPTIMIZERS))
    extensions = chosen.whole("extensions", at_least=0, at_most=MAX_EXTENSIONS)
    built = {
        label: (optimizers.build(chosen, label, name, OPTIMIZERS), optimizers.rates(chosen, label, name))
        for label, name in labels.items()
    }
    optimizers.check_differ(built)
    return {
        "training": chosen.build(Training),
        "optimizers": {label: optimizer for label, (optimizer, _) in built.items()},
        "searches": {label: Search(rates=rates, extensions=extensions) for label, (_, rates) in built.items()},
        "target": chosen.one("target") if "target" in chosen.merged else None,
        "seeds": chosen.whole("seeds", at_least=1, at_most=MAX_SEEDS),
        "search_seeds": chosen.whole("search_seeds", at_least=1, at_most=MAX_SEEDS),
        "extensions": extensions,
    }


def _name(key: str, value: Named, like: str, builtin: Sequence[str] = ()) -> str:
    if callable(value):
        return dotted.name_of(key, value)
    if not isinstance(value, str) or (value not in builtin and not dotted.is_dotted(value)):
        raise UsageError(f"{key}={value} is not valid; expected {like}. By name: {dotted.FORM}")
    return value


def _dotted(key: str, value: Named, like: str, builtin: Sequence[str] = ()) -> Dotted:
    name = _name(key, value, like, builtin)
    return Dotted(name=name) if name in builtin else dotted.find(key, name, like)


def _data(value: Named | Path) -> Dotted:
    if callable(value) or dotted.is_dotted(str(value)):
        return _dotted("data", value if callable(value) else str(value), DATA)
    name = str(value)
    path = Path(name).expanduser()
    if name != "digits" and not path.exists():
        raise UsageError(f"data={name}: there is no such file or folder; expected digits, a path, or {DATA}")
    return Dotted(name=name, sha256=None if name == "digits" else fingerprint(path))

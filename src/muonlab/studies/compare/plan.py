"""A comparison as a user writes it, in Python, with the settings that a command may change."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from muonlab.jobs.files import fingerprint
from muonlab.studies.compare.config import MAX_SEEDS, STUDY, Comparison, Trained, Training
from muonlab.study import dotted, optimizers
from muonlab.study.dotted import Dotted
from muonlab.study.optimizers import SEARCHED as OPTIMIZERS
from muonlab.study.search import MAX_EXTENSIONS, Search
from muonlab.study.settings import Chosen, Settings, UsageError, as_texts, check_keys, fields, make

CHOICES = ("seeds", "search_seeds", "extensions", "target")
TRAINING = fields(Training)
LOSSES = ("softmax", "stablemax", "sparsemax")  # of muonlab.losses, which asks for torch
NET = "a function that makes a torch.nn.Module, called with shape= (of one input) and classes=, or those that it takes"
DATA = "a function without arguments that returns train, validation and test, each (inputs, labels)"
LOSS = f"{', '.join(LOSSES)}, or a function of logits (B, C) and labels (B,) that returns a loss per example (B,)"

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

    asked: Comparison
    labels: Mapping[str, str]
    texts: Settings = field(repr=False)
    STUDY: str = STUDY

    @property
    def KEYS(self) -> tuple[str, ...]:  # noqa: N802
        """The settings that a command may change."""
        own = (optimizers.keys(label, name, OPTIMIZERS) for label, name in self.labels.items())
        return (*CHOICES, *TRAINING, *(key for keys in own for key in keys))

    def plan(self, preset: str = "python", settings: Mapping[str, Any] | None = None) -> Comparison:
        """Return the study, changed by settings.

        Args:
            preset: the file that defines it, for the report.
            settings: key -> value or list of values; the keys are `KEYS`.

        Raises:
            UsageError: an unknown key, or a value that its field does not allow.
        """
        given = {key: as_texts(key, value) for key, value in (settings or {}).items()}
        check_keys(given, self.KEYS)
        asked = self.asked.model_dump()
        arms = _arms(Chosen(preset, given, self.texts | given), self.labels)
        return make(Comparison, {**asked, **arms, "preset": preset, "settings": given})

    def begin(self, asked: Comparison, folder: Path) -> None:
        """As of `muonlab.studies.compare`, as are the other functions of the protocol."""
        _package().begin(asked, folder)

    def jobs_of(self, asked: Comparison, results: Mapping[str, dict[str, Any]]) -> Sequence[Any]:  # noqa: D102
        return _package().jobs_of(asked, results)

    def outline(self, asked: Comparison) -> list[tuple[str, float]]:  # noqa: D102
        return _package().outline(asked)

    def trials(self, asked: Comparison) -> Iterable[tuple[str, dict[str, Any]]]:  # noqa: D102
        return _package().trials(asked)

    def analyse(self, folder: Path) -> Any:  # noqa: D102
        return _package().analyse(folder)


def _package() -> Any:
    from muonlab.studies import compare

    return compare


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
    if not arms:
        raise UsageError("arms is empty; expected label -> (optimizer, {'lr': [...]}), two or more of them")
    labels = {label: _name("arms", optimizer, OPTIMIZERS) for label, (optimizer, _) in arms.items()}
    optimizers.labelled([f"{label}={name}" for label, name in labels.items()], OPTIMIZERS)
    check_keys({key: [""] for key in training}, TRAINING)
    texts: Settings = {"seeds": [str(seeds)], "search_seeds": [str(search_seeds)], "extensions": [str(extensions)]}
    texts |= {key: as_texts(key, value) for key, value in training.items()}
    texts |= {"target": [str(target)]} if target is not None else {}
    for label, (_, arguments) in arms.items():
        # Of its own arguments a list is one value; of learning rates it is several.
        texts |= {
            f"{label}.{key}": as_texts(f"{label}.{key}", value if key in optimizers.RATES else [value])
            for key, value in arguments.items()
        }
    chosen = Chosen("python", {}, texts)
    held = {
        "preset": "python",
        "settings": {},
        "question": question,
        "trained": Trained(net=_dotted("net", net, NET), data=_data(data), loss=_dotted("loss", loss, LOSS, LOSSES)),
        "claims": [dict(zip(("letter", "title", "words", "quantities"), claim, strict=True)) for claim in claims],
    }
    asked = make(Comparison, held | _arms(chosen, labels))
    if target is None and any("steps" in claim.quantities for claim in asked.claims):
        raise UsageError("a claim is about steps, and there is no target; give target=LOSS, a validation loss")
    return OwnStudy(asked, labels, texts)


def _arms(chosen: Chosen, labels: Mapping[str, str]) -> dict[str, Any]:
    """Return the fields of a comparison that settings may change."""
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


def _name(key: str, value: Named, builtin: Iterable[str]) -> str:
    if callable(value):
        return dotted.name_of(key, value)
    if value not in builtin and not dotted.is_dotted(value):
        expected = f"expected one of {', '.join(builtin)}, or {dotted.FORM}"
        raise UsageError(f"{key}={value} is not valid; {expected}")
    return value


def _dotted(key: str, value: Named, like: str, builtin: Sequence[str] = ()) -> Dotted:
    name = _name(key, value, builtin)
    return Dotted(name=name) if name in builtin else dotted.find(key, name, like)


def _data(value: Named) -> Dotted:
    if callable(value) or dotted.is_dotted(value):
        return _dotted("data", value, DATA)
    path = Path(value).expanduser()
    if value != "digits" and not path.exists():
        raise UsageError(f"data={value}: there is no such file or folder; expected digits, a path, or {DATA}")
    return Dotted(name=value, sha256=None if value == "digits" else fingerprint(path))

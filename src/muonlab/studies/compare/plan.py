"""A comparison as a user writes it, in Python, with the settings that a command may change."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from muonlab.jobs.files import fingerprint
from muonlab.studies.compare.config import MAX_SEEDS, STUDY, Comparison, Parts, Task, Training
from muonlab.study import dotted, optimizers, space
from muonlab.study.dotted import Dotted
from muonlab.study.optimizers import SEARCHED as OPTIMIZERS
from muonlab.study.search import MAX_EXTENSIONS, Search
from muonlab.study.settings import Chosen, Settings, UsageError, as_texts, check_keys, fields, make
from muonlab.study.space import FACTOR, Space

CHOICES = ("seeds", "search_seeds", "trials", "extensions", "target", "margin")
TRAINING = fields(Training)
LOSSES = ("softmax", "stablemax", "sparsemax")  # of muonlab.losses, which asks for torch
NET = "a function that makes a torch.nn.Module, called with shape= (of one input) and classes=, or those that it takes"
DATA = "a function without arguments that returns train, validation and test, each (inputs, labels)"
TASK = "a function of a seed that returns (model, train, validation, loss)"
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
        factors = [f"{label}.{FACTOR}" for label, name in self.labels.items() if name == "muon"]
        return (*CHOICES, *TRAINING, *(key for keys in own for key in keys), *factors)

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
    arms: Arms,
    claims: Iterable[tuple[str, str, str, Sequence[str]]],
    net: Named | None = None,
    data: Named | None = None,
    loss: Named | None = None,
    task: Named | None = None,
    baseline: str | None = None,
    trials: int | None = None,
    target: float | None = None,
    margin: float = 0.01,
    seeds: int = 5,
    search_seeds: int | None = None,
    extensions: int = 3,
    **training: Any,
) -> OwnStudy:
    """Return a study of two or more optimizers on one net and data set.

    Each arm is tuned on seeds of the search, by validation loss; final runs on other seeds follow at the settings that
    are chosen. Runs of one seed start from the same weights and take the same batches in every arm.

    Args:
        question: for the report.
        arms: label -> (optimizer, {"lr": [...], argument: value}). The optimizer is muon, adamw, sgd, or a class or
            function of torch's protocol. The first is compared with each of the others. With `trials`, a range is a
            text "1e-4..1e-2", and settings that are not given have the optimizer's usual ranges.
        claims: (letter, title, words, quantities) of each claim; quantities are validation_loss, train_loss,
            validation_accuracy, test_accuracy and steps.
        net: a function that makes the net: it is called with shape= (of one input) and classes=, or those that it
            takes. Functions are given themselves or by name (`muonlab.study.dotted`).
        data: a function without arguments that returns (train, validation, test), each (inputs, labels); or digits, a
            folder, .zip or .npz of images.
        loss: softmax (by default), stablemax, sparsemax, or a function of logits (B, C) and labels (B,) to losses (B,).
        task: in place of net, data and loss, a function of a seed that returns (model, train, validation, loss).
        baseline: label of the arm that the others would replace; the verdict is then on each of them against it.
        trials: number of points of a scrambled Sobol sequence that each arm is tried at; None searches a grid.
        target: validation loss whose first step is the quantity steps.
        margin: share of the baseline's final loss below which a difference does not matter.
        seeds: number of final runs of each arm.
        search_seeds: number of runs of each point of a search: 1 of trials, 2 of a grid by default.
        extensions: how many times the search of a grid may go on beyond its edge.
        training: batch, budget, evaluations, warmup, schedule.

    Raises:
        UsageError: a name that is not there, a value that is not allowed; before anything runs.
    """
    if not arms:
        raise UsageError("arms is empty; expected label -> (optimizer, {'lr': [...]}), two or more of them")
    labels = {label: _name("arms", optimizer, OPTIMIZERS) for label, (optimizer, _) in arms.items()}
    optimizers.labelled([f"{label}={name}" for label, name in labels.items()], OPTIMIZERS)
    check_keys({key: [""] for key in training}, TRAINING)
    if baseline is not None and baseline not in labels:
        raise UsageError(f"baseline={baseline} is none of the optimizers; expected one of {', '.join(labels)}")
    if search_seeds is None:
        search_seeds = 2 if trials is None else 1
    plain = {"seeds": seeds, "search_seeds": search_seeds, "extensions": extensions, "margin": margin}
    plain |= {key: value for key, value in (("target", target), ("trials", trials)) if value is not None}
    texts: Settings = {key: as_texts(key, value) for key, value in (plain | training).items()}
    for label, (_, arguments) in arms.items():
        texts |= {f"{label}.{key}": as_texts(f"{label}.{key}", value) for key, value in arguments.items()}
    chosen = Chosen("python", {}, texts)
    held = {
        "preset": "python",
        "settings": {},
        "question": question,
        "trained": _trained(task, net, data, loss),
        "baseline": baseline,
        "claims": [dict(zip(("letter", "title", "words", "quantities"), claim, strict=True)) for claim in claims],
    }
    asked = make(Comparison, held | _arms(chosen, labels))
    if target is None and any("steps" in claim.quantities for claim in asked.claims):
        raise UsageError("a claim is about steps, and there is no target; give target=LOSS, a validation loss")
    return OwnStudy(asked, labels, texts)


def _trained(task: Named | None, net: Named | None, data: Named | None, loss: Named | None) -> Task | Parts:
    if task is not None:
        if given := [key for key, value in (("net", net), ("data", data), ("loss", loss)) if value is not None]:
            raise UsageError(f"task= returns net, data and loss; leave out {' and '.join(given)}")
        return Task(task=_dotted("task", task, TASK))
    if net is None or data is None:
        raise UsageError("nothing to train; give task=, a function of a seed, or net= and data=")
    return Parts(net=_dotted("net", net, NET), data=_data(data), loss=_dotted("loss", loss or "softmax", LOSS, LOSSES))


def _arms(chosen: Chosen, labels: Mapping[str, str]) -> dict[str, Any]:
    """Return the fields of a comparison that settings may change."""
    known = {label: optimizers.keys(label, name, OPTIMIZERS) for label, name in labels.items()}
    for label, name in labels.items():
        own = {key: [""] for key in chosen.merged if key.startswith(f"{label}.")}
        check_keys(own, (*known[label], *((f"{label}.{FACTOR}",) if name == "muon" else ())))
    extensions = chosen.whole("extensions", at_least=0, at_most=MAX_EXTENSIONS)
    trials = chosen.whole("trials", at_least=2, at_most=1024) if "trials" in chosen.merged else None
    built = {label: _arm(chosen, label, name, trials, extensions) for label, name in labels.items()}
    optimizers.check_differ(built)
    return {
        "training": chosen.build(Training),
        "optimizers": {label: optimizer for label, (optimizer, _) in built.items()},
        "searches": {label: searched for label, (_, searched) in built.items()},
        "target": chosen.one("target") if "target" in chosen.merged else None,
        "margin": chosen.one("margin"),
        "seeds": chosen.whole("seeds", at_least=1, at_most=MAX_SEEDS),
        "search_seeds": chosen.whole("search_seeds", at_least=1, at_most=MAX_SEEDS),
        "extensions": extensions,
    }


def _arm(chosen: Chosen, label: str, name: str, trials: int | None, extensions: int) -> tuple[Any, Search | Space]:
    """Return the config of an optimizer, and how it is tuned."""
    if trials is None:
        rates = optimizers.rates(chosen, label, name)
        return optimizers.build(chosen, label, name, OPTIMIZERS), Search(rates=rates, extensions=extensions)
    searched, rest = space.given(chosen, label, name, trials)
    return optimizers.build(rest, label, name, OPTIMIZERS), searched


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

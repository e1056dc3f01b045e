"""A comparison as a user writes it, in Python, with the settings that a command may change."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, get_args

from muonlab.studies.compare import command as programs
from muonlab.studies.compare import jobs
from muonlab.studies.compare import trained as what
from muonlab.studies.compare.analysis import analyse
from muonlab.studies.compare.builtin import TASKS
from muonlab.studies.compare.command import Command
from muonlab.studies.compare.config import MAX_SEEDS, STUDY, Claimed, CompareStudy, Key, Training
from muonlab.studies.compare.trained import Named
from muonlab.study import optimizers, space
from muonlab.study.optimizers import SEARCHED as OPTIMIZERS
from muonlab.study.optimizers import Passed
from muonlab.study.search import MAX_EXTENSIONS, Search
from muonlab.study.settings import Chosen, Settings, UsageError, as_texts, check_keys, check_name, fields, make
from muonlab.study.space import FACTOR, Space

CHOICES = ("seeds", "search_seeds", "trials", "extensions", "target", "margin", "horizons")
TRAINING = fields(Training)
MARGIN = 0.01  # share of the baseline's loss that does not matter
PRESENT = "present."  # before a setting that the baseline has now
ARM = f"LABEL: (optimizer, {{'lr': [1e-3, 1e-2]}}), the optimizer {', '.join(OPTIMIZERS)}, or a class or function"
CLAIM = f"(letter, title, words, quantities), with one or more quantities of {', '.join(get_args(Key))}"

# Label -> optimizer, and its arguments: "lr" has the learning rates to try.
Arms = Mapping[str, tuple[Named, Mapping[str, Any]]]


@dataclass(frozen=True)
class OwnStudy:
    """A study of a user's own: what `muonlab run FILE.py` runs, by the protocol of `muonlab.jobs.local.Study`.

    Attributes:
        asked: what the file asks.
        labels: of its arms -> built-in or dotted name.
        texts: the settings that it stands for, which a command may change.
        seconds: of a step of one run of each part, where they were measured: for a forecast.
    """

    asked: CompareStudy
    labels: Mapping[str, str]
    texts: Settings = field(repr=False)
    seconds: tuple[float, ...] = ()
    STUDY: str = STUDY
    begin = staticmethod(jobs.begin)
    jobs_of = staticmethod(jobs.jobs_of)
    trials = staticmethod(jobs.trials)
    analyse = staticmethod(analyse)

    @property
    def KEYS(self) -> tuple[str, ...]:  # noqa: N802
        """The settings that a command may change."""
        own = (key for label, name in self.labels.items() for key in keys_of(label, name, _taken(self.asked.trained)))
        present = [key for key in self.texts if key.startswith(PRESENT)]
        return (*CHOICES, *TRAINING, *own, *present)

    def outline(self, asked: CompareStudy, /) -> list[tuple[str, float]]:
        """Return names and costs of all jobs, as `muonlab.studies.compare.jobs.outline`."""
        return jobs.outline(asked, self.seconds)

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
        trained, baseline = self.asked.trained, self.asked.baseline
        arms = _arms(Chosen(preset, given, self.texts | given), self.labels, trained, baseline)
        return make(CompareStudy, {**self.asked.model_dump(), **arms, "preset": preset, "settings": given})


def compare_optimizers(
    *,
    question: str,
    arms: Arms,
    claims: Iterable[tuple[str, str, str, Sequence[str]]],
    net: Named | None = None,
    data: Named | None = None,
    loss: Named | None = None,
    task: Named | None = None,
    command: Mapping[str, Any] | None = None,
    suite: str | Sequence[str] | None = None,
    baseline: str | None = None,
    trials: int | None = None,
    target: float | None = None,
    margin: float = MARGIN,
    seeds: int = 5,
    search_seeds: int | None = None,
    extensions: int = 3,
    horizons: Sequence[float] = (1.0,),
    present: Mapping[str, Any] | None = None,
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
        command: in place of them, a program: fields of `muonlab.studies.compare.command.Command`. Optimizers are then
            words that the program knows.
        task: in place of net, data and loss, a function of a seed that returns (model, train, validation, loss); or a
            built-in task, cnn, vit, gpt, mlp or modular, where data is a file or folder of the user's own, if any.
        suite: in place of all of these, pocket, or names of built-in tasks; each has steps and batch of its own where
            they are not given.
        baseline: label of the arm that the others would replace; the verdict is then on each of them against it.
        trials: number of points of a scrambled Sobol sequence that each arm is tried at; None searches a grid.
        target: validation loss whose first step is the quantity steps.
        margin: share of the baseline's final loss below which a difference does not matter.
        seeds: number of final runs of each arm.
        search_seeds: number of runs of each point of a search: 1 of trials, 2 of a grid by default.
        extensions: how many times a search may go on beyond its edge.
        horizons: shares of the budget, such as (0.5, 1): each is compared with trials and a schedule of its own, and
            the last, 1, is the answer.
        present: setting -> value that the baseline has now: its trial 0. It has final runs, too.
        training: batch, budget, evaluations, warmup, schedule.

    Raises:
        UsageError: a name that is not there, a value that is not allowed; before anything runs.
    """
    check_keys({key: [""] for key in training}, TRAINING)
    labels, own = _labels(arms, any_word=command is not None)
    if search_seeds is None:
        search_seeds = 2 if trials is None else 1
    given = {
        "seeds": seeds,
        "search_seeds": search_seeds,
        "extensions": extensions,
        "margin": margin,
        "horizons": horizons,
        **training,
        **own,
    }
    given |= {key: value for key, value in (("target", target), ("trials", trials)) if value is not None}
    given |= {f"{PRESENT}{key}": value for key, value in (present or {}).items()}
    texts = {key: as_texts(key, value) for key, value in given.items()}
    whats = {"task": task, "net": net, "data": data, "loss": loss, "suite": suite, "command": command}
    return own_study(question=question, labels=labels, texts=texts, claims=claims, baseline=baseline, **whats)


def own_study(
    *,
    question: str,
    labels: Mapping[str, str],
    texts: Settings,
    claims: Iterable[tuple[str, str, str, Sequence[str]]],
    baseline: str | None,
    command: Mapping[str, Any] | None,
    suite: str | Sequence[str] | None,
    **whats: Named | None,
) -> OwnStudy:
    """Return the study of labelled optimizers; as of `compare_optimizers`, with the settings as texts.

    Args:
        question, claims, baseline, command, suite: as there.
        labels: label -> built-in or dotted name.
        texts: settings -> values.
        whats: task, net, data and loss.
    """
    if baseline is not None and baseline not in labels:
        raise UsageError(f"baseline={baseline} is none of the optimizers; expected one of {', '.join(labels)}")
    if isinstance(task := whats["task"], str) and task in TASKS:
        texts = {key: as_texts(key, value) for key, value in TASKS[task].training.items()} | texts
    chosen, training = Chosen("python", {}, texts), {key: ",".join(texts[key]) for key in TRAINING if key in texts}
    if command is not None:
        settings = [key.partition(".")[2] for key in texts if key.partition(".")[0] in labels]
        trained = what.program(command, whats | {"suite": suite}, labels, settings, training)
    elif suite is not None:
        if "target" in texts:
            raise UsageError("target= has no effect on a suite, whose workloads have losses of their own; leave it out")
        trained = what.suite(suite, whats, chosen.build(Training), training)
    else:
        trained = what.one(**whats)
    held = {
        "preset": "python",
        "settings": {},
        "question": question,
        "trained": trained,
        "baseline": baseline,
        "claims": _claims(claims),
    }
    asked = make(CompareStudy, held | _arms(chosen, labels, trained, baseline))
    if asked.target is None and any("steps" in claim.quantities for claim in asked.claims):
        raise UsageError("a claim is about steps, and there is no target; give target=LOSS, a validation loss")
    return OwnStudy(asked, labels, texts)


def _labels(arms: Arms, *, any_word: bool = False) -> tuple[dict[str, str], dict[str, Any]]:
    """Return label -> name of the optimizer, and the settings LABEL.argument."""
    if not isinstance(arms, Mapping) or not arms:
        raise UsageError(f"arms={arms!r} is not valid; expected a dict of {ARM}")
    labels, settings = {}, {}
    for label, arm in arms.items():
        if not (isinstance(arm, tuple | list) and len(arm) == 2 and isinstance(arm[1], Mapping)):
            raise UsageError(f"arms has {label!r}: {arm!r}; expected {ARM}")
        labels[label] = str(arm[0]) if any_word else what.name_of("arms", arm[0], ARM, tuple(OPTIMIZERS))
        settings |= {f"{label}.{key}": value for key, value in arm[1].items()}
    words = [f"{label}={name}" for label, name in labels.items()]
    return optimizers.labelled(words, OPTIMIZERS, any_word=any_word), settings


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


def keys_of(label: str, name: str, taken: Sequence[str] | None = None) -> tuple[str, ...]:
    """Return the settings of a labelled optimizer; of one that a program knows, those that the program takes."""
    if taken is not None:
        return tuple(f"{label}.{key}" for key in taken)
    factor = (f"{label}.{FACTOR}",) if name == "muon" else ()
    return (*optimizers.keys(label, name, OPTIMIZERS), *factor)


def _taken(trained: Any) -> Sequence[str] | None:
    return trained.settings if isinstance(trained, Command) else None


def _arms(chosen: Chosen, labels: Mapping[str, str], trained: Any, baseline: str | None) -> dict[str, Any]:
    """Return the fields of a comparison that settings may change."""
    for label, name in labels.items():
        own = {key: [""] for key in chosen.merged if key.startswith(f"{label}.")}
        check_keys(own, keys_of(label, name, _taken(trained)))
    extensions = chosen.whole("extensions", at_least=0, at_most=MAX_EXTENSIONS)
    trials = chosen.whole("trials", at_least=2, at_most=1024) if "trials" in chosen.merged else None
    built = {label: _arm(chosen, label, name, trials, extensions, trained) for label, name in labels.items()}
    optimizers.check_differ(built)
    searches = {label: searched for label, (_, searched) in built.items()}
    present = {key.removeprefix(PRESENT): _number(chosen, key) for key in chosen.merged if key.startswith(PRESENT)}
    if present:
        name = "" if isinstance(trained, Command) else labels.get(baseline or "", "")
        searches[baseline or ""] = _from_present(searches.get(baseline or ""), present, name)
    return {
        "training": chosen.build(Training),
        "optimizers": {label: optimizer for label, (optimizer, _) in built.items()},
        "searches": searches,
        "present": present,
        "target": chosen.one("target") if "target" in chosen.merged else None,
        "margin": chosen.one("margin"),
        "seeds": chosen.whole("seeds", at_least=1, at_most=MAX_SEEDS),
        "search_seeds": chosen.whole("search_seeds", at_least=1, at_most=MAX_SEEDS),
        "extensions": extensions,
        "horizons": _horizons(chosen),
        "named": [label for label, (own, _) in built.items() if optimizers.takes_names(own)],
    }


def _from_present(searched: Search | Space | None, present: Mapping[str, float], name: str) -> Space:
    """Return the space of the baseline with the user's present setting as its trial 0.

    Args:
        searched: how the baseline is tuned.
        present: the setting.
        name: of the baseline, where it is built in; a program may take any number.
    """
    if not isinstance(searched, Space):
        raise UsageError(f"{PRESENT}SETTING is the baseline's trial 0; give baseline= and trials=, too")
    if unknown := [key for key in present if key not in searched.defaults]:
        known = ", ".join(f"{PRESENT}{key}" for key in searched.defaults)
        raise UsageError(f"{PRESENT}{unknown[0]} is no setting that the baseline is tried at; expected {known}")
    for key, value in present.items():
        is_rate = key in ("lr", FACTOR)
        if not math.isfinite(value) or (is_rate and value <= 0):
            expected = "a finite number" + (" above 0" if is_rate else "")
            raise UsageError(f"{PRESENT}{key}={value:g} is not valid; expected {expected}")
    if name in OPTIMIZERS:
        own = {key: value for key, value in present.items() if key not in ("lr", FACTOR)}
        make(OPTIMIZERS[name], own, PRESENT)
    return searched.model_copy(update={"defaults": {**searched.defaults, **present}})


def _number(chosen: Chosen, key: str) -> float:
    try:
        return float(chosen.one(key))
    except ValueError:
        raise chosen.wrong(key, "a number") from None


def _horizons(chosen: Chosen) -> list[float]:
    found = sorted(set(chosen.numbers("horizons")))
    if not all(0 < share <= 1 for share in found) or found[-1:] != [1.0]:
        raise chosen.wrong("horizons", "shares of the budget, the last of them 1, such as horizons=0.5,1")
    return found


def _arm(
    chosen: Chosen, label: str, name: str, trials: int | None, extensions: int, trained: Any
) -> tuple[Any, Search | Space]:
    """Return the config of an optimizer, and how it is tuned."""
    if isinstance(trained, Command):
        return _passed(chosen, label, name, trials or 0, trained)
    if trials is None:
        rates = optimizers.rates(chosen, label, name)
        return optimizers.build(chosen, label, name, OPTIMIZERS), Search(rates=rates, extensions=extensions)
    searched, rest = space.given(chosen, label, name, trials)
    return optimizers.build(rest, label, name, OPTIMIZERS), searched


def _passed(chosen: Chosen, label: str, word: str, trials: int, program: Command) -> tuple[Passed, Space]:
    """Return an optimizer that a program knows by a word, and its space."""
    if not trials:
        raise UsageError("a program is tuned by trials; give trials=16")
    searched, rest = space.given(chosen, label, word, trials, program.settings)
    held = {key: rest.one(f"{label}.{key}") for key in program.settings if f"{label}.{key}" in rest.merged}
    for key in program.settings:
        if key != FACTOR and key not in (*searched.defaults, *held):
            raise UsageError(
                f"{label}={word} has no usual {key}, and the command takes {{{key}}}; give one value, "
                f"{label}.{key}=VALUE, or a range, {label}.{key}=LOW..HIGH"
            )
    return Passed(word=word, settings=held, sources=programs.sources(program, word)), searched

"""The settings of `muonlab compare`, and those of a study of a user's own, as `muonlab settings` prints them."""

from dataclasses import replace
from typing import Any

from muonlab.studies.compare.ask import EXTENSIONS, SEEDS, TRIALS
from muonlab.studies.compare.command import GIVEN
from muonlab.studies.compare.config import HALF_AND_FULL, Training
from muonlab.studies.compare.plan import CHOICES, OPTIMIZERS
from muonlab.study import dotted, optimizers, space
from muonlab.study.described import EXECUTION, NONE, Sections, Setting, described, in_presets, rows

HORIZONS = ",".join(f"{each:g}" for each in HALF_AND_FULL)
VERB = f"""
optimizers [names, dotted names, or LABEL=NAME] (adamw,muon): muon, adamw, sgd, or a class or function of torch's
    protocol, as path/file.py:Class
baseline [a label] (the first optimizer): the optimizer that the others would replace
trials [a whole number, 2 to 1024] ({TRIALS}): settings of each optimizer that are tried; more keep the finished ones
seeds [a whole number, 1 to 1000] ({SEEDS}): final runs of each optimizer; below 3 nothing is decided
search_seeds [a whole number, 1 to 1000] (1): runs of each trial
extensions [a whole number, 0 to 20] ({EXTENSIONS}): how many times the search of all goes on beyond an
    edge of its learning rates
horizons [shares of the budget] ({HORIZONS}): each has trials and a schedule of its own
margin [a number, 0 to 1] (0.01): share of the baseline's loss below which a difference does not matter
target [a number]: validation loss whose first step is compared, in place of the baseline's final loss
"""
TRAINED = """
task [path/file.py:function or package.module:function]: the function task(seed), a LightningModule or a Trainer;
    or gpt, cnn, vit, mlp, modular: a built-in net
data [a path]: of task=gpt, cnn, vit, mlp: a text, images or a table; without it, data that every machine has
net [path/file.py:function]: instead of a task, a net for data= and loss=
loss [softmax, stablemax, sparsemax, or path/file.py:function] (softmax): of net=
suite [pocket]: five built-in trainings instead of one task
command [a program with its arguments]: instead of a task; it has placeholders in braces
"""
PROGRAM = f"""
command [words with placeholders]: {", ".join(f"{{{name}}}: {says}" for name, says in GIVEN.items())}; and {{lr}},
    {{weight_decay}} and any other setting of an optimizer
metric [a name in the log]: the validation loss; -NAME where larger is better
log [a path with {{run}}] (its output): JSON lines or CSV
pattern [a regular expression with named groups]: of the log's lines, where they are neither
step_key [a name in the log] (step): the step; none: the lines are equally far apart
train_metric [a name in the log]: the loss in training
accuracy [a name in the log]: validation accuracy
test_metric [a name in the log]: the loss on data of its own, read at the end
timeout [seconds]: after which a run is ended
"""


def sections(study: Any = None) -> Sections:
    """Return the settings by heading.

    Args:
        study: what `compare_optimizers` returns; without it, the settings of `muonlab compare` itself.
    """
    return _of_verb() if study is None else _of_file(study)


def _of_verb() -> Sections:
    out = Setting("out", "a folder", "the study's folder", "runs/compare-FILE-TASK")
    training = described(Training)
    training[1] = Setting("steps", training[1].values, "budget of a run", training[1].default)
    return {
        "What is trained": rows(TRAINED),
        "What is compared": rows(VERB),
        "Training": training,
        "A program": rows(PROGRAM),
        "Ranges of the optimizers": [*_ranges(), _PRESENT],
        "How it runs": [out, *EXECUTION],
    }


def _ranges() -> list[Setting]:
    """Return the settings that are tried, and those that are held."""
    found = []
    for name, (ranges, defaults) in space.SPACES.items():
        for key, value in defaults.items():
            tried = f"tried: {ranges[key].words(key)}" if key in ranges else "held"
            found.append(Setting(f"{name}.{key}", "a number, or LOW..HIGH", tried, f"{value:g}"))
        rest = described(OPTIMIZERS[name], f"{name}.", ("name",))
        known = {each.key for each in found}
        found += [Setting(each.key, each.values, each.says, each.default) for each in rest if each.key not in known]
    return found


_PRESENT = Setting("present.SETTING", "a number", "of the baseline, as you have it now; it has final runs of its own")


def _of_file(study: Any) -> Sections:
    arms: list[Setting] = []
    for label, name in study.labels.items():
        arms.append(Setting(f"{label}.lr", "numbers, two or more", "learning rates that a search begins with"))
        if dotted.is_dotted(name):
            rates = {f"{label}.{word}" for word in optimizers.RATES}
            own = [key for key in optimizers.keys(label, name, OPTIMIZERS) if key not in rates]
            arms += [Setting(key, "an argument", f"of {name}") for key in own]
        else:
            arms += described(OPTIMIZERS[name], f"{label}.", without=("name",))
    found = {
        "How it runs": EXECUTION,
        "What is compared": [replace(each, default=NONE) for each in rows(VERB) if each.key in CHOICES],
        "Training": described(Training),
        "Optimizers": arms,
    }
    return in_presets(found, {"the file": study.texts})
